"""What it costs to solve anew instead: the same frames from our own solver."""

import dataclasses
import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from operators.training.refinement.cases import Case
from solvers import spectral

SUBSTEPS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32)
COARSER = (1.0, 0.75, 0.5)  # points per axis, of those of the refinement
STABLE = 0.1  # errors above this tell nothing of the next row
GAIN = 0.9  # rows end where the error does not fall below this part of the last one


def measure(case: Case, *, scheme: str = "etdrk4") -> list[dict]:
    """Error and time of solving from the last given frame, with more and more steps.

    On the grid of the refinement and coarser ones, in float64 and float32, on the same
    device, all trajectories at once; timed once, as the refinement is.

    Args:
        case: the trajectories.
        scheme: name in `solvers.spectral.STEPPERS`.

    Returns:
        Rows {grid, dtype, substeps, error [batch], seconds}: steps per frame, relative
        L^2 errors, wall time of the batch without compilation. Those of one grid and
        precision end where the error does not fall any more.
    """
    rows = []
    for coarse in _cases(case):
        for dtype in ("float64", "float32"):
            rows += _series(coarse, dtype, scheme)
    return rows


def floor(case: Case, *, scheme: str = "etdrk4", substeps: int = SUBSTEPS[-1]):
    """Errors [batch] of solving anew with many steps on the grid of the refinement.

    What is left is the difference between that grid and the one that the truth was
    computed on: no refinement there can claim an error below it.
    """
    return np.asarray(case.errors(_solve(case, "float64", scheme, substeps)))


def _cases(case: Case) -> Iterator[Case]:
    """The case on its own grid and on coarser ones, even numbers of points."""
    fine, seen = case.equation, set()
    for part in COARSER:
        shape = tuple(
            n if part == 1 else max(2 * round(part * n / 2), 4) for n in fine.grid.shape
        )
        if shape in seen:
            continue
        seen.add(shape)
        force = fine.forcing
        if force is not None:
            force = fine.grid.resample(jnp.asarray(force), shape)
        equation = dataclasses.replace(
            fine, grid=fine.grid.refined(shape), forcing=force
        )
        given = np.asarray(fine.grid.resample(case.given, shape))
        yield dataclasses.replace(case, equation=equation, given=given)


def _series(case: Case, dtype: str, scheme: str) -> list[dict]:
    rows = []
    for substeps in SUBSTEPS:
        _solve(case, dtype, scheme, substeps)  # compiles
        began = time.perf_counter()
        frames = _solve(case, dtype, scheme, substeps)
        seconds = time.perf_counter() - began
        with np.errstate(all="ignore"):  # unstable with few steps
            errors = np.asarray(case.errors(np.asarray(frames, float)))
        rows.append(
            {
                "grid": list(case.equation.grid.shape),
                "dtype": dtype,
                "substeps": substeps,
                "error": errors.tolist(),
                "seconds": seconds,
            }
        )
        if finished([np.mean(row["error"]) for row in rows]):
            break
    return rows


def finished(errors: list[float]) -> bool:
    """Whether more steps gain nothing, given the mean errors so far.

    A solution that is unstable but finite says nothing, so that only small errors, and
    those that have not changed at all, count.
    """
    if len(errors) < 2 or not np.isfinite(errors[-2:]).all():
        return False
    before, now = errors[-2:]
    return abs(now - before) < 1e-3 * before or GAIN * before < now < STABLE > before


def _solve(case: Case, dtype: str, scheme: str, substeps: int) -> jax.Array:
    """Frames [batch, T + 1, n1, n2], the last given one first."""
    times = case.times[case.num_in - 1 :]
    return jax.block_until_ready(
        spectral.rollout(
            case.equation,
            jnp.asarray(case.given[:, -1], dtype),
            times=times,
            start=times[0],
            scheme=scheme,
            dt=float(np.diff(case.times).min()) / substeps,
            allow_nonfinite=True,
        ).fields
    )


def merge(batches: list[list[dict]]) -> list[dict]:
    """Rows of several batches side by side, those that all have; times add up."""
    keys = ("grid", "dtype", "substeps")
    found = [{str([row[key] for key in keys]): row for row in rows} for rows in batches]
    shared = [name for name in found[0] if all(name in rows for rows in found)]
    return [
        {
            **{key: found[0][name][key] for key in keys},
            "error": np.concatenate([rows[name]["error"] for rows in found]).tolist(),
            "seconds": sum(rows[name]["seconds"] for rows in found),
        }
        for name in shared
    ]


def as_accurate(rows: list[dict], error: float) -> dict | None:
    """The cheapest row whose mean error is at most `error`; None if there is none."""
    fitting = [row for row in rows if np.mean(row["error"]) <= error]
    return min(fitting, key=lambda row: row["seconds"], default=None)
