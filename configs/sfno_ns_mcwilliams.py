"""SFNO on decaying turbulence, 10 frames to 10 (Cao et al. 2025, arXiv:2405.17211).

Stage one of the Spectral-Refiner with the settings of the released script: width 10,
32 x 32 x 5 modes, 15 epochs, windows that start anywhere. Other than there: our data,
output at physical times instead of a resampled series (`--config.model.compat=True` for
that), transforms that are divided by the number of points, one test set of 64, and
windows of validation and test from frame 10 on, as the paper's baseline has them.

The loss is the relative norm of L^2(0, T; H^1), alpha 0.1. That of the script is the
same over the root of 10 (`--config.loss="{'name': 'sobolev_released'}"`): the published
6.27e-2 in validation is 20 %. Not run here yet in full. `:small` (48 x 48 points, a
fifth of the Reynolds number) takes about 20 minutes on two cores, `:quick` (24 x 24)
seconds.

    python train.py --config configs/sfno_ns_mcwilliams.py
    python train.py --config configs/sfno_ns_mcwilliams.py:small
"""

import ml_collections

from configs import common, windows

# Samples for training, validation and test: all that the data config makes.
NUM = {"full": (1024, 64, 64), "small": (256, 32, 32), "quick": (16, 8, 8)}
MODES = {"full": (32, 32, 5), "small": (16, 16, 5), "quick": (6, 6, 3)}


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    """Returns the experiment: `full` (the paper's), `small` or `quick`."""
    common.check_variant(variant)
    config = windows.stage_one(
        "ns_mcwilliams", variant, num=NUM[variant], window=(10, 10)
    )
    config.data.window_start = 10
    config.num_epochs = {"full": 15, "small": 20, "quick": 10}[variant]
    config.model = {
        "name": "sfno",
        "in_channels": 1,
        "out_channels": 1,
        "width": {"full": 10, "small": 10, "quick": 8}[variant],
        "modes": MODES[variant],
        "num_layers": 2 if variant == "quick" else 4,
        "latent_steps": 10,
        "out_steps": 10,
        "beta": -0.01,
        "activation": "gelu",
        "coordinates": "grid",
        "compat": False,
    }
    suffix = "" if variant == "full" else f"_{variant}"
    config.eval.baseline = f"runs/fno3d_ns_mcwilliams{suffix}"
    return config
