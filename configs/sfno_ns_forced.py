"""SFNO on forced flow, 10 frames to the next 40 (Cao et al. 2025, arXiv:2405.17211).

Stage one of the Spectral-Refiner with the settings of the released script: width 20,
12 x 12 x 5 modes, 10 epochs, windows that start anywhere. Other than there: our data,
output at physical times instead of a resampled series (`--config.model.compat=True` for
that), transforms that are divided by the number of points, one test set of 64, and
windows of validation and test from frame 30 on, where one published figure is measured.

The loss is the relative norm of L^2(0, T; H^1), alpha 0.1. That of the script is the
same over the root of 40 (`--config.loss="{'name': 'sobolev_released'}"`): the published
8.64e-3 in validation is 5.5 %. Not run here yet in full. `:small` (32 x 32 points, 20
frames) takes about 20 minutes on two cores, `:quick` (16 x 16, 10 frames) seconds.

    python train.py --config configs/sfno_ns_forced.py
    python train.py --config configs/sfno_ns_forced.py:small
"""

import ml_collections

from configs import common, windows

# Samples for training, validation and test: all that the data config makes.
NUM = {"full": (1152, 128, 64), "small": (256, 32, 32), "quick": (16, 8, 8)}


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    """Returns the experiment: `full` (the paper's), `small` or `quick`."""
    common.check_variant(variant)
    quick = variant == "quick"
    num_out = {"full": 40, "small": 20, "quick": 10}[variant]
    config = windows.stage_one(
        "ns_forced", variant, num=NUM[variant], window=(10, num_out)
    )
    config.data.window_start = {"full": 30, "small": 20, "quick": -1}[variant]
    config.num_epochs = 20 if variant == "small" else 10
    config.model = {
        "name": "sfno",
        "in_channels": 1,
        "out_channels": 1,
        "width": {"full": 20, "small": 20, "quick": 8}[variant],
        "modes": {"full": (12, 12, 5), "small": (8, 8, 5), "quick": (4, 4, 3)}[variant],
        "num_layers": 2 if quick else 4,
        "latent_steps": 10,
        "out_steps": num_out,
        "beta": 0.02,
        "activation": "gelu",
        "coordinates": "grid",
        "compat": False,
    }
    return config
