"""FNO in space and time on decaying turbulence: the baseline of `sfno_ns_mcwilliams`.

The 10 frames given are channels, the same at all 10 times to predict. Protocol of the
baseline of the Spectral-Refiner (its notebook at 475c738): width 10, 32 x 32 x 5 modes,
10 epochs up to a rate of 1e-3, pointwise normalisers, one window from frame 10 on for
training too. Published validation error with its loss, the relative norm of
L^2(0, T; H^1) over the root of 10: 0.156, which is 49 %.

The model has the 16,386,997 parameters of the published one, two pointwise maps more in
each of the four layers than the FNO of 2021, but a head that is not linear. Not run
here yet in full. `:small` takes about 20 minutes on two cores, `:quick` seconds.

    python train.py --config configs/fno3d_ns_mcwilliams.py
    python train.py --config configs/fno3d_ns_mcwilliams.py:small
"""

import ml_collections

from configs import common, sfno_ns_mcwilliams


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    """Returns the experiment: `full`, `small` or `quick`."""
    common.check_variant(variant)
    config = sfno_ns_mcwilliams.get_config(variant)
    num_given, _ = config.data.window
    config.data.window_layout = "repeated"
    config.data.window_fixed = True
    config.normalizers = {"input": "pointwise", "output": "pointwise"}
    config.num_epochs = 20 if variant == "small" else 10
    config.model = ml_collections.ConfigDict(
        {
            "name": "fno",
            "in_channels": num_given,
            "out_channels": 1,
            "channels": config.model.width,
            "modes": config.model.modes,
            "num_layers": config.model.num_layers,
            "architecture": "li2022",
            "layout": "li2021",
            "coordinates": "grid",
            "endpoint": True,
        }
    )
    # Forty steps of the published rate would learn nothing.
    peak = 5e-3 if variant == "quick" else 1e-3
    config.schedule.update(peak=peak, div_factor=1e4, final_div_factor=1e3)
    config.eval.baseline = ""
    return config
