"""Sections that the experiments on windows of trajectories share."""

import ml_collections

from configs import common

SEED = 1127825  # of the released script


def stage_one(
    name: str, variant: str, *, num: tuple[int, int, int], window: tuple[int, int]
) -> ml_collections.ConfigDict:
    """An experiment with the settings of the Spectral-Refiner's training script.

    Vorticity frames to later vorticity frames, without normalisers: Adam without decay
    in batches of 4, its rate on one cycle 1e-5, 1e-2 (after 30 %), 1e-9, per step, and
    the norm of H^1 in which the paper trains; see `operators.training.losses`.

    Args:
        name: of the data config.
        variant: of the experiment, and of the data with it.
        num: samples for training, validation and test.
        window: frames given, and frames to predict.

    Returns:
        A config that lacks `num_epochs` and `model`.
    """
    config = ml_collections.ConfigDict()
    config.seed = SEED
    config.num_epochs = 0
    config.batch_size = 4
    config.data = common.data(
        name, variant, num=num, inputs=("vorticity",), outputs=("vorticity",)
    )
    config.data.window = window
    config.normalizers = {"input": "none", "output": "none"}
    config.model = ml_collections.ConfigDict()
    config.loss = {"name": "bochner_h1", "alpha": 0.1}
    config.optimizer = {
        "name": "adam",
        "b1": (0.95, 0.85),
        "b2": 0.999,
        "weight_decay": 0.0,
    }
    config.schedule = {
        "name": "one_cycle",
        "per": "step",
        "peak": 1e-2,
        "pct_start": 0.3,
        "div_factor": 1e3,
        "final_div_factor": 1e4,
    }
    common.housekeeping(config)
    config.eval.batch_size = 4  # of windows, which are large
    return config
