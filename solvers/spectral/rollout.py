"""Trajectories: from an initial field to snapshots at given times."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from solvers.precision import require_x64
from solvers.spectral import marching
from solvers.spectral.equations import Equation
from solvers.spectral.grid import check_shape
from solvers.spectral.steppers import stepper

DEFAULT_CFL = 0.5


class Trajectory(NamedTuple):
    """Snapshots of a rollout.

    Attributes:
        fields: [..., T, *store_shape] real, in the precision of the initial field.
        times: [T] float64.
        diagnostics: arrays [..., T] by name, see `rollout`.
        steps: number of time steps in all.
        max_cfl: largest step size x speed / spacing [...], measured at every snapshot,
            and in between where steps follow the speed.
    """

    fields: jax.Array
    times: np.ndarray
    diagnostics: dict[str, jax.Array]
    steps: int
    max_cfl: jax.Array


def rollout(
    equation: Equation,
    field: jax.Array,
    times: Sequence[float],
    *,
    scheme: str = "etdrk4",
    dt: float | None = None,
    cfl: float | None = None,
    start: float = 0.0,
    store_shape: Sequence[int] | None = None,
    record: Sequence[str] = (),
    checkpoint: bool = False,
    allow_nonfinite: bool = False,
) -> Trajectory:
    """Integrates initial fields and returns snapshots at the times asked for.

    Every interval between snapshots is cut into equal steps of at most dt, so that each
    snapshot time is met exactly. With a CFL number the speed is measured every few
    steps, before it could have grown by much, and the rest of the interval is cut anew;
    the number of steps may differ from call to call without a new compilation.

    Leading axes of the field are a batch, which shares its steps. With a fixed dt the
    result can be differentiated in reverse, for the field and for the numbers of the
    equation, also under `jax.jit` and `jax.vmap`; with `cfl` only forward.

    Args:
        equation: see `Equation`.
        field: [..., *grid.shape] at time `start`, float32 or float64; its precision is
            that of the run. Modes that the equation cuts off are removed from it.
        times: [T] increasing, from `start` on; a first time `start` gives the initial
            field.
        scheme: a name in `STEPPERS`.
        dt: largest step size. None: chosen by `cfl`.
        cfl: largest step size x speed / spacing. None: 0.5 without dt, no bound with
            dt.
        start: time of the initial field.
        store_shape: grid of the snapshots, by Fourier interpolation or truncation;
            None: the grid of the equation.
        record: what else to return per snapshot: names of the equation's budget
            ("energy", "enstrophy"), "cfl" (the largest since the last snapshot), and
            "balance": the worst relative defect of the balance laws over all steps
            so far, see `diagnostics.balance_defect`.
        checkpoint: compute the steps between snapshots again in the backward pass
            instead of storing them.
        allow_nonfinite: return NaN and infinity instead of raising.

    Raises:
        ValueError: for settings or shapes that do not fit, or a dt that takes more
            than `marching.MAX_STEPS` steps between two snapshots.
        TypeError: unless the field is float32 or float64.
        RuntimeError: for a NumPy field in float64 where JAX runs in 32 bit.
        FloatingPointError: if a snapshot is not finite; not in traced code.
    """
    field = _check_precision(equation.grid.check(field))
    equation = equation.astype(field.dtype)
    times = _check_times(times, start)
    _check_settings(equation, record, dt, cfl)
    _check_count(times, start, dt)
    if dt is None and cfl is None:
        cfl = DEFAULT_CFL
    ndim = equation.grid.ndim
    plan = marching.Plan(
        scheme=stepper(scheme),
        store_shape=check_shape(
            equation.grid.shape if store_shape is None else store_shape, ndim
        ),
        record=tuple(record),
        checkpoint=checkpoint,
    )
    if cfl is None:
        march = marching.march_fixed(equation, field, times, start, dt, plan)
    else:
        march = marching.march_adaptive(equation, field, times, start, dt, cfl, plan)
    frames = {
        name: jnp.moveaxis(values, 0, field.ndim - ndim)
        for name, values in march.frames.items()
    }
    fields, finite = frames.pop("field"), frames.pop("finite")
    if not allow_nonfinite and not isinstance(finite, jax.core.Tracer):
        _check_finite(np.asarray(finite), times)
    steps = march.steps
    if not isinstance(steps, jax.core.Tracer):
        steps = int(steps)
    return Trajectory(fields, times, frames, steps, march.max_cfl)


def _check_precision(field):
    """The field as a JAX array, in its own precision."""
    if field.dtype not in (np.float32, np.float64):
        raise TypeError(f"field is {field.dtype}; expected float32 or float64")
    if field.dtype == np.float64 and not isinstance(field, jax.Array):
        require_x64("a rollout of a float64 field (.astype('float32') gives another)")
    return jnp.asarray(field)


def _check_count(times, start, dt):
    if dt is None:
        return
    longest = float(np.diff(times, prepend=start).max())
    if longest / dt > marching.MAX_STEPS:
        raise ValueError(
            f"dt is {dt}, which takes {longest / dt:.0f} steps between two snapshots; "
            f"expected at most {marching.MAX_STEPS}: choose dt of at least "
            f"{longest / marching.MAX_STEPS:.3g}, or more snapshots"
        )


def _check_times(times, start):
    times = np.asarray(times, np.float64)
    increasing = times.ndim == 1 and np.all(np.diff(times) > 0)
    if not times.size or not increasing or not times[0] >= start:
        raise ValueError(
            f"times must be increasing numbers from start = {start} on, got {times}"
        )
    return times


def _check_settings(equation, record, dt, cfl):
    known = (*equation.budget_names, *marching.RECORDS)
    if isinstance(record, str) or not set(record) <= set(known):
        raise ValueError(f"record is {record!r}; expected some of {known}")
    for name, value in {"dt": dt, "cfl": cfl}.items():
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{name} is {value}; expected a positive number")


def _check_finite(finite, times):
    if finite.all():
        return
    bad = ~finite.reshape(-1, len(times))
    first = int(np.argmax(bad.any(axis=0)))
    samples = np.flatnonzero(bad[:, first])
    what = f" in samples {samples.tolist()}" if len(bad) > 1 else ""
    raise FloatingPointError(
        f"the solution is not finite{what} at t = {times[first]:g} (snapshot {first}): "
        "check the initial field, take a smaller dt or cfl, or allow_nonfinite=True to "
        "look at the rest"
    )
