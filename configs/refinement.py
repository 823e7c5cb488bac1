"""Sections that the experiments of the refiner share."""

from typing import Any

import ml_collections

from configs import common

SETTINGS = {
    "adam": {"maxiter": 50, "weight_rate": 1e-4, "bias_rate": 1e-4},
    "lbfgs": {"maxiter": 30, "memory": 10, "line_searches": 20},
    "gauss_newton": {"maxiter": 8, "rtol": 0.03, "inner": 60},
    "linearized_flow": {"maxiter": 3},
}


def refinement(
    name: str,
    variant: str,
    *,
    num: int,
    window_start: int,
    substeps: int,
    time_modes: int,
    reduction: float = 1e-2,
) -> ml_collections.ConfigDict:
    """An experiment of the refiner on the fine test trajectories of a data config.

    Args:
        name: of the data config.
        variant: of the experiment; its data are the variant with `fine`.
        num: test trajectories.
        window_start: first given frame.
        substeps: of the residual, from frame to frame.
        time_modes: waves in time of the output operator, at least those trained.
        reduction: of the relative residual at which a trajectory is finished.
    """
    fine = "fine" if variant == "full" else f"{variant}_fine"
    config = ml_collections.ConfigDict()
    config.checkpoint = "best"
    config.data = common.data(name, fine, num=(0, 0, num))
    config.data.window_start = window_start
    config.grid = 0  # points per axis; 0: of the data, finer where they need it
    config.time_modes = time_modes
    config.residual = {
        "kind": "defect",  # a name of one of the sections below, which it reads
        "defect": {
            "scheme": "etdrk4",
            "substeps": substeps,
            "checkpoint": variant == "full",  # recompute the substeps: less memory
        },
        "fd": {"order": 4},
        "one_step": {"step": 1e-6, "blend": (0.5, 0.5)},
    }
    config.minimizers = tuple(SETTINGS)
    config.settings = settings()
    config.stop = {"reduction": reduction, "patience": 10}
    config.batch_size = 2  # trajectories refined together
    return config


def settings(**changes: Any) -> ml_collections.ConfigDict:
    """Settings of every minimiser, the largest number of iterations with them."""
    return ml_collections.ConfigDict(
        {name: {**SETTINGS[name], **changes.get(name, {})} for name in SETTINGS}
    )
