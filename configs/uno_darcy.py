"""U-NO on smooth two-phase Darcy flow, 211 x 211 (Rahman et al. 2022).

arXiv:2204.11127. Model UNO_9 and protocol of the released script (commit 19462d8):
width 32, batch 16, 700 epochs of Adam, rate 1e-3 halved every 100 epochs, weight decay
1e-3, relative L2. There 1500 samples as they are and zeros beside the domain; here
1000, normalised, and no padding. Not run here yet. `:small` and `:quick` have data,
loss, optimiser and schedule of `mgno_darcy`, so that their figures stand side by side.

    python train.py --config configs/uno_darcy.py
    python train.py --config configs/uno_darcy.py:small
"""

import ml_collections

from configs import common, mgno_darcy

MODES = {
    "full": ((18, 18), (8, 8), (8, 8), (8, 8), (18, 18)),
    "small": ((12, 12), (8, 8), (8, 8), (8, 8), (12, 12)),
    "quick": ((4, 4), (2, 2), (4, 4)),
}


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    """Returns the experiment: `full` (the paper's), `small` or `quick`."""
    common.check_variant(variant)
    config = mgno_darcy.get_config(variant)
    quick = variant == "quick"
    width = {"full": 32, "small": 16, "quick": 8}[variant]
    config.model = ml_collections.ConfigDict(
        {
            "name": "uno",
            "in_channels": 1,
            "out_channels": 1,
            "architecture": "rahman2022",
            "layout": "li2021",
            "modes": MODES[variant],
            "fractions": (0.5, 0.5, 1) if quick else (0.5, 0.25, 0.25, 0.5, 1),
            "layer_channels": tuple(
                f * width for f in ((2, 2, 1) if quick else (2, 4, 4, 2, 1))
            ),
            "channels": width,
            "lifting_channels": width // 2,
            "projection_channels": width,
            "horizontal_skips": ((3, -1),) if quick else ((4, 0), (5, -1)),
            "norm": "none" if quick else "instance_affine",
            "norm_layers": () if quick else (1, 3),
        }
    )
    config.schedule.peak = 1e-3
    config.eval.baseline = ""
    if variant == "full":
        config.num_epochs, config.batch_size = 700, 16
        config.loss = {"name": "relative_l2"}
        config.optimizer.update(b1=(0.9, 0.9), weight_decay=1e-3)
        config.schedule = common.halving(peak=1e-3)
    return config
