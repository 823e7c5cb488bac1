"""Discretisation errors, estimated by solving samples on a coarser grid as well.

A problem that offers `coarsened` draws, from one random state, the same fields on about
half the points per axis. With e_h = ||u_h - u|| / ||u|| of order p in h,

    d_h = ||u_h - u_2h|| / ||u_h|| = about (2^p - 1) e_h,

norms taken over the points that both grids have. The order is observed on three grids
when the plan is made and frozen in it, together with the mean e_h of a few samples.
Jumps of a coefficient along curves lower it from 2 to between 1 and 2. Grids that do
not resolve the coefficient show no order at all; then p is taken for 1, and e_h, now
d_h itself, says no more than that the solutions still move by as much.

`stop=discretisation` compares two norms: e_h is a relative L2 error, methods estimate
the relative error in the energy norm, ||x - A^-1 b||_A / ||x||_A. Where A^-1 b is
mostly of the lowest frequencies, the L2 error of the iteration is the smaller of the
two. A right-hand side that gives mostly high frequencies promises no such order: the
error left is smoother than the solution then, and in L2 several times the goal.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from datagen.ladder import STRICT_ACCEPT_RTOL, STRICT_RTOL, Ladder, Solved
from datagen.methods import MethodError
from datagen.storage.read import default_fields

NUM_SAMPLES = 3  # with fixed seeds, so that one config gives one plan
ORDERS = (1.0, 2.0)  # observed orders outside are taken for these
CAUTIOUS_ORDER = ORDERS[0]  # where there is no third grid
# Iteration stops when its error is this part of the discretisation error: together they
# are at most a tenth larger than the latter alone, where the norms agree (see above).
PART = 0.1
DIGITS = 3  # of frozen numbers: last bits differ from machine to machine
ESTIMATES = ("estimate_error", "error_goal")  # settings of methods that estimate


def frozen(
    asked: Mapping[str, Any],
    problem,
    solver: Mapping[str, Any],
    known: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Adds to `plan.solver` what `stop`, `error_every` and `estimate_errors` ask for.

    Args:
        asked: `config.solver`.
        problem: see `datagen.problems.base.Problem`.
        solver: the rest of `plan.solver`, from `datagen.methods.resolve`.
        known: `discretisation` of the plan that is gone on with, taken over; None:
            estimate it, which solves `NUM_SAMPLES` samples on three grids.

    Returns:
        solver, with `discretisation` where it is needed (keys: see `estimate`) and, in
        the settings of every method that can, `estimate_error` or `error_goal`.

    Raises:
        MethodError: if the method does not estimate its error, or the problem has no
            coarser twin.
    """
    stops = asked["stop"] == "discretisation"
    if stops and "error_goal" not in _settings_of(solver["method"]):
        raise MethodError(
            "config.solver.stop is discretisation, but "
            f"{solver['method']} cannot tell when its error is that small; use "
            f"stop=residual, or a method of {', '.join(estimating_methods())}"
        )
    solver = dict(solver)
    if stops or asked["error_every"]:
        key = "stop is discretisation" if stops else "error_every is not 0"
        if twin_of(problem) is None:
            raise MethodError(
                f"config.solver.{key}, but {problem.name} with these settings has no "
                "twin on every second point (an odd number of nodes per axis and a "
                "method coarsened are needed); use stop=residual and error_every=0"
            )
        solver["discretisation"] = dict(known or estimate(problem, solver))
    wanted = {"estimate_error": True} if asked["estimate_errors"] else {}
    if stops:
        wanted["error_goal"] = PART * solver["discretisation"]["error"]
    for choice in (solver, *solver["fallbacks"]):
        takes = _settings_of(choice["method"])
        choice["settings"] = choice["settings"] | {
            key: value for key, value in wanted.items() if key in takes
        }
    return solver


def estimating_methods() -> list[str]:
    """Methods that can stop at an error, by name."""
    from solvers import sequence

    return [n for n, info in sequence.METHODS.items() if "error_goal" in info.settings]


def _settings_of(method: str) -> tuple[str, ...]:
    from solvers import sequence

    return sequence.method_info(method).settings


def twin_of(problem):
    """The problem on about half the points per axis, or None."""
    coarsen = getattr(problem, "coarsened", None)
    return None if coarsen is None or problem.num_systems > 1 else coarsen()


def estimate(problem, solver: Mapping[str, Any]) -> dict[str, float]:
    """Estimates the mean discretisation error of a problem.

    Args:
        problem: one with a twin.
        solver: `plan.solver`; its method solves to a residual of 1e-8 at least.

    Returns:
        error: mean relative L2 error of the solution; order: p; difference: mean d_h;
        num_samples. Numbers are rounded to three digits.

    Raises:
        MethodError: if a sample cannot be solved.
    """
    chain = [problem]
    while len(chain) < 3 and (twin := twin_of(chain[-1])) is not None:
        chain.append(twin)
    table = []  # [samples, pairs of grids], the finest first
    ladders = [Ladder(one, strictly(solver)) for one in chain]
    try:
        for seed in range(NUM_SAMPLES):
            solved = [_solve(ladder, seed) for ladder in ladders]
            table.append(
                [
                    distance(fine, coarse, one, other)
                    for fine, coarse, one, other in zip(
                        chain, chain[1:], solved, solved[1:], strict=False
                    )
                ]
            )
    finally:
        for ladder in ladders:
            ladder.close()
    steps = np.mean(table, axis=0)
    order = CAUTIOUS_ORDER
    if len(steps) > 1 and min(steps) > 0:
        order = float(np.clip(math.log2(steps[1] / steps[0]), *ORDERS))
    error = steps[0] / (2**order - 1)
    return {
        "error": _rounded(error),
        "order": _rounded(order),
        "difference": _rounded(steps[0]),
        "num_samples": NUM_SAMPLES,
    }


def strictly(solver: Mapping[str, Any]) -> dict[str, Any]:
    """`plan.solver` for solutions whose algebraic error is far below all others."""
    choices = [
        {
            **c,
            "settings": {k: v for k, v in c["settings"].items() if k not in ESTIMATES},
        }
        for c in (solver, *solver["fallbacks"])
    ]
    return {
        **choices[0],
        "rtol": min(solver["rtol"], STRICT_RTOL),
        "accept_rtol": min(solver["accept_rtol"], STRICT_ACCEPT_RTOL),
        "fallbacks": choices[1:],
    }


def _solve(ladder: Ladder, seed: int) -> Solved:
    solved = ladder.solve(np.random.default_rng(seed))
    if not solved.accepted:
        raise MethodError(
            "config.solver: the discretisation error cannot be estimated, since a "
            f"random sample was not solved: {'; '.join(solved.failures)}; use "
            "stop=residual and error_every=0, or another method"
        )
    return solved


def distance(fine, coarse, fine_solved: Solved, coarse_solved: Solved) -> float:
    """||u_h - u_2h|| / ||u_h|| over the points that a problem shares with its twin."""
    specs = [{"name": f.name, "time_varying": f.time_varying} for f in fine.fields]
    names = default_fields(specs)[1]
    shared = shared_points(fine, coarse)
    u, v = (
        np.stack([solved.fields[name][window] for name in names])
        for solved, window in ((fine_solved, shared), (coarse_solved, ...))
    )
    return float(np.linalg.norm(u - v) / np.linalg.norm(u))


def shared_points(fine, coarse) -> tuple[slice, ...]:
    """Which points of a problem are those of its twin.

    Raises:
        ValueError: if they are not every second one.
    """
    for axis in fine.axes:
        ours, theirs = fine.coordinates[axis][::2], coarse.coordinates[axis]
        if ours.shape != theirs.shape or not np.allclose(ours, theirs):
            raise ValueError(
                f"the coarsened problem {fine.name} does not lie on every second "
                f"point of axis {axis}"
            )
    return (slice(None, None, 2),) * len(fine.axes)


class Twin:
    """Tells the discretisation error of every k-th sample of a shard.

    Args:
        problem: see `datagen.problems.base.Problem`.
        solver: `plan.solver`.
        every: k, `config.solver.error_every`; 0: no sample.
    """

    def __init__(self, problem, solver: Mapping[str, Any], every: int):
        self._problem, self._every = problem, every
        self._ladder = None
        if every:
            self._coarse = twin_of(problem)
            self._order = solver["discretisation"]["order"]
            self._ladder = Ladder(self._coarse, strictly(solver))

    def estimated(
        self,
        solved: Solved,
        sample_id: int,
        rng_fn: Callable[[int], np.random.Generator],
    ) -> Solved:
        """The sample with its `discretisation_error`, if it is one of those.

        Args:
            solved: the sample.
            sample_id: its id; those divisible by k are chosen.
            rng_fn: gives the generator of an id, as it was before the sample was drawn.
        """
        if self._ladder is None or sample_id % self._every or not solved.accepted:
            return solved
        coarse = self._ladder.solve(rng_fn(sample_id))
        if not coarse.accepted:
            return solved
        found = distance(self._problem, self._coarse, solved, coarse)
        error = found / (2**self._order - 1)
        return dataclasses.replace(solved, discretisation_error=error)

    def close(self) -> None:
        """Frees the solvers."""
        if self._ladder is not None:
            self._ladder.close()


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
