"""What it costs to solve anew instead: the same frames from our own solver."""

import time

import jax
import jax.numpy as jnp
import numpy as np

from operators.training.refinement.cases import Case
from solvers import spectral

SUBSTEPS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32)


def measure(case: Case, *, scheme: str = "etdrk4", repeats: int = 3) -> list[dict]:
    """Error and time of solving from the last given frame, with more and more steps.

    The same grid, precision and device as the refinement, all trajectories at once.

    Args:
        case: the trajectories.
        scheme: name in `solvers.spectral.STEPPERS`.
        repeats: of each measurement; the least time counts.

    Returns:
        Rows {substeps, error [batch], seconds}: steps per frame, relative L^2 errors,
        wall time of the batch without compilation. They end where the error does.
    """
    spacing = float(np.diff(case.times).min())
    start, times = case.given[:, -1], case.times[case.num_in - 1 :]
    rows = []
    for substeps in SUBSTEPS:
        seconds = []
        for _ in range(1 + repeats):
            began = time.perf_counter()
            frames = spectral.rollout(
                case.equation,
                jnp.asarray(start),
                times=times,
                start=times[0],
                scheme=scheme,
                dt=spacing / substeps,
                allow_nonfinite=True,
            ).fields
            jax.block_until_ready(frames)
            seconds.append(time.perf_counter() - began)
        errors = np.asarray(case.errors(frames))
        rows.append(
            {
                "substeps": substeps,
                "error": errors.tolist(),
                "seconds": min(seconds[1:]),
            }
        )
        before = np.mean(rows[-2]["error"]) if len(rows) > 1 else np.inf
        if np.isfinite(before) and np.mean(errors) > 0.9 * before:
            break
    return rows


def as_accurate(rows: list[dict], error: float) -> dict | None:
    """The cheapest row whose mean error is at most `error`; None if there is none."""
    fitting = [row for row in rows if np.mean(row["error"]) <= error]
    return min(fitting, key=lambda row: row["seconds"], default=None)
