"""Solves one sample: tries methods until the recomputed residual says it is solved.

A sample is accepted when its solution is finite and ||b - A x|| / ||b||, recomputed
here in float64 from the operator and before any cast, is at most `accept_rtol`. What
the solver says about itself is recorded and decides nothing.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from solvers import sequence
from solvers.results import SolveRecord

# Rungs; the numbers are stored in quality/method.
PLANNED, MORE_ITERATIONS, DIRECT, QUARANTINE = 0, 2, 4, 5
RUNG_NAMES = {
    PLANNED: "planned",
    MORE_ITERATIONS: "more_iterations",
    DIRECT: "direct",
    QUARANTINE: "quarantine",
}


@dataclasses.dataclass(frozen=True)
class Solved:
    """One sample after the ladder.

    Attributes:
        fields: stored fields [*grid] in float64; None if rejected.
        rung: the rung that solved it, or QUARANTINE.
        record: report of the last solver that ran; None if none did.
        true_residual: recomputed, NaN if there is no solution.
        failures: one sentence per rung that failed.
        sample: the random inputs; None if drawing them failed.
    """

    fields: dict[str, np.ndarray] | None
    rung: int
    record: SolveRecord | None
    true_residual: float
    failures: tuple[str, ...]
    sample: dict[str, np.ndarray] | None

    @property
    def accepted(self) -> bool:
        """Whether the sample may be used."""
        return self.rung != QUARANTINE


class Ladder:
    """The solvers of one shard.

    Args:
        problem: see `datagen.problems.base.Problem`.
        settings: `config.solver`.
    """

    def __init__(self, problem, settings: Mapping[str, Any]):
        self.problem = problem
        self.settings = settings
        self._solvers: dict[str, sequence.SequenceSolver] = {}

    def solve(self, rng: np.random.Generator) -> Solved:
        """Draws a sample and climbs until it is solved or quarantined.

        Whatever goes wrong in one sample, exceptions included, stays in that sample.
        """
        sample, record, residual, failures = None, None, np.nan, []
        try:
            sample = self.problem.sample(rng)
            for name, values in sample.items():
                if not np.isfinite(values).all():
                    raise ValueError(f"{name} is not finite")
            system = self.problem.system(sample)
        except Exception as error:
            failures.append(f"setting up: {_describe(error)}")
            return Solved(None, QUARANTINE, None, np.nan, tuple(failures), sample)
        for rung, method, maxiter in self._rungs():
            try:
                x, record = self._solver(method).solve(
                    system, rtol=self.settings["rtol"], maxiter=maxiter
                )
                residual = true_residual(system, x)
                if residual <= self.settings["accept_rtol"]:
                    fields = self.problem.fields_from_solution(sample, x)
                    _check_finite(fields)
                    return Solved(
                        fields, rung, record, residual, tuple(failures), sample
                    )
                failures.append(
                    f"{method}: true relative residual {residual:.2e}, accepted up to "
                    f"{self.settings['accept_rtol']:.0e}; it said: {record.status}"
                )
            except Exception as error:
                self._drop(method)
                failures.append(f"{method}: {_describe(error)}")
        return Solved(None, QUARANTINE, record, residual, tuple(failures), sample)

    def close(self) -> None:
        """Frees the solvers."""
        for method in list(self._solvers):
            self._drop(method)

    def _rungs(self):
        method, maxiter = self.settings["method"], self.settings["maxiter"] or None
        yield PLANNED, method, maxiter
        if method != "direct":
            if maxiter is not None:
                yield MORE_ITERATIONS, method, 2 * maxiter
            yield DIRECT, "direct", None

    def _solver(self, method: str) -> sequence.SequenceSolver:
        if method not in self._solvers:
            self._solvers[method] = sequence.create(method)
        return self._solvers[method]

    def _drop(self, method: str) -> None:
        if (solver := self._solvers.pop(method, None)) is not None:
            solver.close()


def true_residual(system: sequence.LinearSystem, x: np.ndarray) -> float:
    """||b - A x|| / ||b|| in float64, from x [*grid]; NaN if x is not finite."""
    x = np.asarray(x, np.float64)
    if not (np.isfinite(x).all() and np.isfinite(system.rhs).all()):
        return np.nan
    return system.relative_residual(x)


def _check_finite(fields: Mapping[str, np.ndarray]) -> None:
    for name, values in fields.items():
        if not np.isfinite(values).all():
            raise ValueError(f"the field {name} is not finite")


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
