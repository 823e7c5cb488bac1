"""How accurate the stored frames of a flow are: finer grids, smaller steps.

    uv run -m benchmarks.trajectories --config configs/data/ns_forced.py:small
    uv run -m benchmarks.trajectories --config configs/data/ns_mcwilliams.py --num 1 \
        --grid 384 --json out.json

Integrates a few samples as a data config says, with half its time step, and on a finer
grid with the smaller of half the step and that of the same CFL number. Prints the
largest relative L2 distance over samples and frames of the frames as they are stored,
and what the stored grid leaves out of the field itself. One thread per library.
"""

import argparse
import dataclasses
import json
import time

import jax
import numpy as np

from configs import loading
from datagen import problems
from datagen.problems.base import TimeStepping
from solvers.spectral import PeriodicGrid


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Relative L2 distance of arrays [B, T, *grid] per frame, largest over B: [T]."""
    axes = tuple(range(2, a.ndim))
    squares = ((a - b) ** 2).sum(axes) / (b**2).sum(axes)
    return np.sqrt(squares.max(axis=0))


def frames(problem, samples, stepping: TimeStepping) -> tuple[np.ndarray, float]:
    """The first time-varying field [B, T, *grid], and CPU seconds per sample."""
    start = time.process_time()
    evolution = problem.evolve(samples, stepping)
    seconds = (time.process_time() - start) / len(samples)
    if not np.all(np.isfinite(evolution.defect)):
        raise SystemExit(f"the run with dt = {stepping.dt} is not finite")
    name = next(spec.name for spec in problem.fields if spec.time_varying)
    return evolution.fields[name], seconds


def refined(problem, points: int):
    """The same problem on a finer grid of the solver."""
    return dataclasses.replace(problem, solver_n=points)


def measure(config, num: int, points: int) -> list[dict]:
    """Rows of the table for one data config.

    Args:
        config: a data config of an evolution with a fixed step.
        num: samples.
        points: points per axis of the finer grid; 0: 3/2 of those of the config.
    """
    settings = config.problem.to_dict()
    problem = problems.create(settings.pop("name"), **settings)
    base = int(np.min(problem.solver_n))
    points = points or base * 3 // 2
    rngs = (np.random.default_rng([config.seed, i]) for i in range(num))
    samples = [problem.sample(rng) for rng in rngs]
    step = TimeStepping(config.solver.scheme, config.solver.dt, None)
    finer = refined(problem, points)
    small = dataclasses.replace(step, dt=min(step.dt / 2, step.dt * base / points))
    stored, seconds = frames(problem, samples, step)
    halved, _ = frames(problem, samples, step.halved())
    exact, _ = frames(finer, samples, small)
    whole, _ = frames(dataclasses.replace(finer, n=finer.solver_n), samples, small)
    rows = [
        {"what": "half the step", "error": distances(stored, halved)},
        {"what": f"{points} points", "error": distances(stored, exact)},
        {"what": "left out", "error": left_out(finer, whole, exact)},
    ]
    for row in rows:
        error = row.pop("error")
        row |= {"largest": error.max(), "first": error[0], "last": error[-1]}
        row |= {"seconds": seconds, "num": num}
    return rows


def left_out(problem, whole: np.ndarray, stored: np.ndarray) -> np.ndarray:
    """Share of the field beyond the modes of the stored grid, [T]."""
    lengths = getattr(problem, "lengths", (1.0,))
    grid = PeriodicGrid(stored.shape[2:], lengths)
    again = np.asarray(grid.resample(stored, whole.shape[2:]))
    return distances(again, whole)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, nargs="+", help="FILE[:variant] ...")
    parser.add_argument("--num", type=int, default=2, help="samples (default: 2)")
    parser.add_argument("--grid", type=int, default=0, help="points of the finer grid")
    parser.add_argument("--json", help="file for the rows")
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    rows = []
    for name in arguments.config:
        for row in measure(loading.load(name), arguments.num, arguments.grid):
            rows.append({"config": name, **row})
            print(
                f"{name:42} {row['what']:14} largest {row['largest']:.1e}  first "
                f"{row['first']:.1e}  last {row['last']:.1e}  "
                f"{row['seconds']:.2f} CPU s per sample, compilation included",
                flush=True,
            )
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump({"rows": rows}, file, indent=1, default=float)


if __name__ == "__main__":
    main()
