"""Sections that the experiments share, and those that the data sets share."""

from typing import Any

import ml_collections

VARIANTS = ("full", "small", "quick")


def check_variant(variant: str, known: tuple[str, ...] = VARIANTS) -> None:
    """Raises a ValueError that lists the variants for an unknown one."""
    if variant not in known:
        raise ValueError(f"unknown variant {variant!r}; known: {', '.join(known)}")


def solver(method: str = "auto", **changes: Any) -> ml_collections.ConfigDict:
    """`config.solver` of a data config; docs/datasets.md explains every key.

    Args:
        method: a name in `solvers.sequence`; "auto": what `solvers.strategy` chooses
            for the problem.
        **changes: other values than these.

    Raises:
        ValueError: for a key that does not exist.
    """
    section = ml_collections.ConfigDict(
        {
            "method": method,
            "rtol": 1e-8,
            "accept_rtol": 1e-7,  # of the residual recomputed in float64
            "maxiter": 0,  # 0: the method's own
            "stop": "residual",  # "discretisation": at a tenth of that error
            "estimate_errors": False,  # of the iteration, in quality/algebraic_error
            "error_every": 0,  # k: discretisation error of every k-th sample; 0: none
            "ordering": "auto",  # "none", "greedy", "cells", "tree"
            "preconditioner": "auto",  # the problem's own; or a name
            "frozen": False,  # keep the preconditioner of a shard's first system
            "m": 40,  # largest search space of a cycle, recycled vectors included
            "k": 20,  # recycled vectors
            "guess": "none",  # "projection": on earlier solutions
            "window": 20,  # solutions kept for the guess
            "fallbacks": ("direct",),  # tried in order after the planned method
        }
    )
    return _changed(section, changes)


def time_stepping(
    scheme: str = "etdrk4", *, batch_size: int, **changes: Any
) -> ml_collections.ConfigDict:
    """`config.solver` of a data config whose samples are integrated in time.

    Args:
        scheme: a name in `solvers.spectral.STEPPERS`.
        batch_size: samples integrated together; decides speed and memory, and the last
            bits of the data. With cfl the fastest sample sets the steps of its batch:
            then the others change a trajectory by the error in time.
        **changes: other values than these; dt or cfl must be given.

    Raises:
        ValueError: for a key that does not exist.
    """
    section = ml_collections.ConfigDict(
        {
            "scheme": scheme,
            "dt": 0.0,  # largest time step; 0: as cfl allows
            "cfl": 0.0,  # largest u_max dt / spacing; 0: dt alone decides
            # Of the integration. "float32" is faster; rounding alone then makes a
            # defect of some 1e-6: mind `accept`.
            "dtype": "float64",
            "batch_size": batch_size,
            "accept": 1e-5,  # largest relative defect of the balance laws
            "halvings": 1,  # attempts with half the step before quarantine
        }
    )
    return _changed(section, changes)


def _changed(
    section: ml_collections.ConfigDict, changes: dict[str, Any]
) -> ml_collections.ConfigDict:
    for key, value in changes.items():
        if key not in section:
            raise ValueError(f"the solver has no setting {key!r}; known: {[*section]}")
        section[key] = value
    return section


def dataset(
    name: str,
    *,
    seed: int,
    num: tuple[int, int, int],
    shard_size: int,
    problem: dict[str, Any],
    solver: ml_collections.ConfigDict,
    dtype: str = "float32",
) -> ml_collections.ConfigDict:
    """A data config, locked.

    Args:
        name: of the data set; file names begin with it.
        seed: another one in each set: the same draws never serve two.
        num: samples for training, validation and test.
        shard_size: samples per file, solved one after the other.
        problem: name and settings of the problem.
        solver: from `solver`, or from `time_stepping` for problems that evolve.
        dtype: of the stored fields.
    """
    config = ml_collections.ConfigDict()
    config.name = name
    config.seed = seed
    config.splits = dict(zip(("train", "valid", "test"), num, strict=True))
    config.shard_size = shard_size
    config.problem = problem
    config.solver = solver
    config.storage = {"dtype": dtype}
    return config.lock()


def darcy_dataset(
    variant: str, *, name: str, seed: int, n: int, **problem: Any
) -> ml_collections.ConfigDict:
    """A set of Darcy flow: `full` with n points per axis, `small` 129, `quick` 33."""
    check_variant(variant)
    problem = {"forcing": 1.0, "mode": "clean", "face_mean": "harmonic"} | problem
    return dataset(
        name,
        seed=seed,
        num=(48, 8, 8) if variant == "quick" else (1000, 100, 100),
        shard_size={"full": 64, "small": 128, "quick": 16}[variant],
        problem={
            "name": "darcy",
            "n": {"full": n, "small": 129, "quick": 33}[variant],
            **problem,
        },
        solver=solver(),
    )


def darcy_smooth(variant: str) -> ml_collections.ConfigDict:
    """`config.data` for smooth two-phase Darcy flow.

    The full set is stored on 421 x 421 nodes and read with stride 2 (211 x 211).
    """
    return data(
        "darcy_smooth",
        variant,
        num=(48, 8, 8) if variant == "quick" else (1000, 100, 100),
        stride=1 if variant == "quick" else 2,
        inputs=("coefficient",),
        outputs=("solution",),
    )


def data(
    name: str,
    variant: str,
    *,
    num: tuple[int, int, int],
    stride: int = 1,
    inputs: tuple[str, ...] = (),
    outputs: tuple[str, ...] = (),
) -> ml_collections.ConfigDict:
    """`config.data`: the data set `configs/data/<name>.py` as an experiment reads it.

    Args:
        name: of the data config.
        variant: of the experiment, and of the data with it.
        num: samples for training, validation and test.
        stride: keep every stride-th point of each axis.
        inputs: fields that make up x; (): all but the solution.
        outputs: fields that make up y; (): the solution, all its parts.
    """
    suffix = "" if variant == "full" else f":{variant}"
    num_train, num_valid, num_test = num
    return ml_collections.ConfigDict(
        {
            "config": f"configs/data/{name}.py{suffix}",
            "path": "",  # instead of `config`: a data set or an .npz file
            "inputs": inputs,
            "outputs": outputs,
            "num_train": num_train,
            "num_valid": num_valid,
            "num_test": num_test,
            "stride": stride,
            "steps": (),  # of fields that vary, each a channel: (-1,) is the last
            "input_steps": (),  # those of the inputs; (): as `steps`
            "time_axis": False,  # the steps as the last axis of the grid
            "window": (),  # (frames given, frames to predict) of a trajectory
            "window_start": -1,  # of validation and test; -1: the last possible one
            "window_fixed": False,  # training windows start there too, not anywhere
            "window_layout": "time_axis",  # "repeated" or "channels" frames of x
        }
    )


def housekeeping(config: ml_collections.ConfigDict) -> None:
    """Adds evaluation, logging, checkpoint and device settings."""
    config.eval = {"every_epochs": 1, "batch_size": 20, "baseline": ""}
    config.log = {"every_steps": 50, "tensorboard": True}
    config.checkpoint = {"every_epochs": 1, "keep": 2}
    config.num_devices = 0  # 0: all
    config.micro_batch = 0  # samples computed together on a device; 0: measured


def halving(*, peak: float) -> ml_collections.ConfigDict:
    """`config.schedule` of released scripts: half the rate after every 100 epochs."""
    return ml_collections.ConfigDict(
        {
            "name": "step_decay",
            "per": "epoch",
            "peak": peak,
            "every": 100,
            "factor": 0.5,
        }
    )


def released_lsm(config: ml_collections.ConfigDict) -> None:
    """Gives an experiment on `darcy_smooth` the protocol of LSM's released script."""
    config.data.stride = 5  # 85 x 85
    config.num_epochs, config.batch_size = 501, 20
    config.loss = {"name": "relative_l2"}
    config.optimizer.update(b1=(0.9, 0.9), weight_decay=1e-4)
    config.schedule = halving(peak=5e-4)
