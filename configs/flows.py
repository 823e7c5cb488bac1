"""Sections that the data configs of periodic flows share."""

from collections.abc import Mapping
from typing import Any

import ml_collections

from configs import common

FINE = ("fine", "small_fine", "quick_fine")


def trajectories(
    name: str,
    *,
    seed: int,
    num: tuple[int, int, int],
    shard_size: int,
    problem: Mapping[str, Any],
    dt: float,
    batch_size: int,
    scheme: str = "etdrk4",
    accept: float = 1e-5,
    dtype: str = "float32",
) -> ml_collections.ConfigDict:
    """A set of vorticity trajectories with a fixed time step, locked.

    A fixed step keeps a trajectory independent of the others of its batch.

    Args:
        name: of the data set.
        seed: another one in each set.
        num: samples for training, validation and test.
        shard_size: samples per file.
        problem: settings of the problem `navier_stokes`.
        dt: largest time step.
        batch_size: samples integrated together.
        scheme: a time stepper of `solvers.spectral`.
        accept: largest relative defect of the balance laws.
        dtype: of the stored frames.
    """
    return common.dataset(
        name,
        seed=seed,
        num=num,
        shard_size=shard_size,
        problem={"name": "navier_stokes", **problem},
        solver=common.time_stepping(
            scheme, dt=dt, batch_size=batch_size, accept=accept
        ),
        dtype=dtype,
    )


def fno_flow(viscosity: float, solver_n: int) -> dict[str, Any]:
    """Settings of the forced flow on the unit torus of Li et al. (2021).

    The initial field has 20 modes per axis where the solver keeps them: those beyond
    hold 4e-5 of its variance.
    """
    return {
        "lengths": (1.0, 1.0),
        "viscosity": viscosity,
        "drag": 0.0,
        "forcing": {"name": "diagonal_wave", "amplitude": 0.1, "wavenumber": 1},
        "initial": {
            "name": "gaussian",
            "alpha": 2.5,
            "tau": 7.0,
            "scaling": "old",  # of the published files; "new", "paper"
            "num_modes": min(20, (solver_n - 1) // 3),
        },
    }


def fno_dataset(
    name: str, variant: str, *, seed: int, viscosity: float, variants: Mapping
) -> ml_collections.ConfigDict:
    """One of the sets of the FNO paper.

    Args:
        name: of the data set.
        variant: "full", "small" or "quick".
        seed: of the data set.
        viscosity: nu.
        variants: variant -> (stored points, points of the solver, time of the first
            frame, time between frames, frames, time step, samples, samples per file).
    """
    common.check_variant(variant)
    n, solver_n, first, spacing, frames, dt, num, shard_size = variants[variant]
    return trajectories(
        name,
        seed=seed,
        num=num,
        shard_size=shard_size,
        problem={
            "n": n,
            "solver_n": solver_n,
            **fno_flow(viscosity, solver_n),
            "first_time": first,
            "frame_spacing": spacing,
            "num_frames": frames,
            "dealias": "two_thirds",
        },
        dt=dt,
        batch_size=min(shard_size, 16),
    )
