"""FNO on log-normal Darcy flow in the cube, 65 x 65 x 65.

The architecture of neuraloperator 2.0 with the modes kept symmetrically. There are no
published figures for these data. Not run here yet at 65^3; `:small` (33^3) takes
minutes on a laptop, `:quick` (13^3) seconds.

    python train.py --config configs/fno_darcy_3d.py
    python train.py --config configs/fno_darcy_3d.py:small
"""

import ml_collections

from configs import common, mgno_darcy

# Samples for training, validation and test: all that the data config makes.
NUM = {"full": (1000, 100, 100), "small": (500, 50, 50), "quick": (48, 8, 8)}


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    """Returns the experiment: `full`, `small` or `quick`."""
    common.check_variant(variant)
    config = mgno_darcy.get_config(variant)
    config.data = common.data("darcy_3d", variant, num=NUM[variant])
    config.num_epochs = {"full": 200, "small": 10, "quick": 10}[variant]
    modes = {"full": 8, "small": 6, "quick": 3}[variant]
    config.model = ml_collections.ConfigDict(
        {
            "name": "fno",
            "in_channels": 1,
            "out_channels": 1,
            "channels": {"full": 32, "small": 16, "quick": 8}[variant],
            "modes": (modes, modes, modes),
            "num_layers": 2 if variant == "quick" else 4,
            "architecture": "neuralop",
            "layout": "symmetric",
        }
    )
    config.loss = {"name": "relative_l2"}
    config.schedule.peak = 2e-3
    config.eval.baseline = ""
    return config
