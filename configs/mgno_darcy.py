"""MgNO on smooth two-phase Darcy flow, 211 x 211 (He et al. 2024, arXiv:2310.19809).

Published for the authors' code on their data: relative L2 test error 0.17 % in a public
rerun, 37 minutes on a GPU. Not run here yet: two CPU cores need 37 hours by the
program's own estimate. `:small` (65 x 65) reaches 1.1 % in minutes on them, `:quick`
runs in seconds (docs/results.md).

    python train.py --config configs/mgno_darcy.py
    python train.py --config configs/mgno_darcy.py:small
"""

import ml_collections

from configs import common


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    """Returns the experiment: `full` (the paper's), `small` or `quick`."""
    common.check_variant(variant)
    config = ml_collections.ConfigDict()
    config.seed = 0
    config.num_epochs = {"full": 500, "small": 10, "quick": 10}[variant]
    config.batch_size = 8  # over all devices
    config.data = common.darcy_smooth(variant)
    config.normalizers = {"input": "pointwise", "output": "pointwise"}
    config.model = {
        "name": "mgno",
        "in_channels": 1,
        "out_channels": 1,
        "grid": {"full": (211, 211), "small": (65, 65), "quick": (33, 33)}[variant],
        "channels": {"full": 24, "small": 24, "quick": 8}[variant],
        "num_layers": {"full": 5, "small": 4, "quick": 2}[variant],
        "cycle": {
            "full": ((1, 0), (1, 0), (1, 0), (1, 0), (1, 0), (2, 0)),
            "small": ((1, 0), (1, 0), (1, 0), (1, 0), (2, 0)),
            "quick": ((1, 0), (1, 0), (2, 0)),
        }[variant],
        "boundary": "zero",
        "sizes": "official",
        "prolongation": "official",
    }
    config.loss = {"name": "relative_h1_spectral", "weight": 1.0, "cutoff": 20}
    config.optimizer = {
        "name": "adam",
        "b1": (0.95, 0.85),
        "b2": 0.999,
        "weight_decay": 1e-4,
    }
    config.schedule = {
        "name": "one_cycle",
        "per": "epoch" if variant == "full" else "step",
        "peak": 5e-4 if variant == "full" else 3e-3,
        "pct_start": 0.2,
        "div_factor": 2.0,
        "final_div_factor": 100.0,
    }
    common.housekeeping(config)
    suffix = "" if variant == "full" else f"_{variant}"
    config.eval.baseline = f"runs/fno_darcy{suffix}"
    return config
