"""LSM on smooth two-phase Darcy flow, 85 x 85 (Wu et al. 2023, arXiv:2301.12664).

Protocol of the released script (commit d5a0b40): width 64, batch 20, 501 epochs of
Adam, rate 5e-4 halved every 100 epochs, relative L2, pointwise normalisers. Published
for the authors' data: 0.65 % (their table), 0.63 % best and 0.67 % last in a rerun on
own data, 5.4 s per epoch on an A100. Not run here yet. `:small` and `:quick` have data,
loss, optimiser and schedule of `mgno_darcy`, so that their figures stand side by side.

    python train.py --config configs/lsm_darcy.py
    python train.py --config configs/lsm_darcy.py:small
"""

import ml_collections

from configs import common, mgno_darcy


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    """Returns the experiment: `full`, `small` or `quick`."""
    common.check_variant(variant)
    config = mgno_darcy.get_config(variant)
    config.model = ml_collections.ConfigDict(
        {
            "name": "lsm",
            "in_channels": 1,
            "out_channels": 1,
            "num_axes": 2,
            "channels": {"full": 64, "small": 16, "quick": 8}[variant],
            "num_scales": 3 if variant == "quick" else 5,
            "patches_per_axis": 4 if variant == "quick" else 16,
            "num_heads": 8,
            "num_tokens": 4,
            "num_basis": 12,
            "basis": "official",
            "norm": "batch",
        }
    )
    config.schedule.peak = 2e-3
    config.eval.baseline = ""
    if variant == "full":
        common.released_lsm(config)
    return config
