"""FNO on smooth two-phase Darcy flow: the baseline beside `mgno_darcy`.

Model of Li et al. (2021, arXiv:2010.08895) as in `fourier_2d.py` (12 modes, width 32,
GELU), without its padding by 9 cells; data, loss, optimiser and schedule are those
of `mgno_darcy`, so that both figures belong to the same samples and the same budget.
Published with this loss on 211 x 211: 0.68 % relative L2 (Table 1 of arXiv:2210.10890).

    python train.py --config configs/fno_darcy.py
    python train.py --config configs/fno_darcy.py:small
"""

import ml_collections

from configs import common, mgno_darcy


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    """Returns the experiment: `full`, `small` or `quick`."""
    common.check_variant(variant)
    config = mgno_darcy.get_config(variant)
    config.model = ml_collections.ConfigDict(
        {
            "name": "fno",
            "in_channels": 1,
            "out_channels": 1,
            "channels": {"full": 32, "small": 32, "quick": 8}[variant],
            "modes": {"full": (12, 12), "small": (12, 12), "quick": (4, 4)}[variant],
            "num_layers": 4,
            "architecture": "li2021",
            "layout": "li2021",
            "endpoint": True,
        }
    )
    config.schedule.peak = 1e-3
    config.eval.baseline = ""
    return config
