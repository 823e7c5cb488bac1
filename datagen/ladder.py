"""Solves one sample: tries methods until the recomputed residual says it is solved.

A sample is accepted when its solution is finite and ||b - A x|| / ||b||, recomputed
here in float64 from the operator and before any cast, is at most `accept_rtol`. What
the solver says about itself is recorded and decides nothing. A sample of several
systems (time steps, frequencies) climbs the ladder anew for each of them.

Where the plan sets an `error_goal` (`stop = "discretisation"`), `accept_rtol` is loose
and the solver's estimate of its own error must reach the goal as well. Solutions
without such an estimate are held to the strict tolerances below.
"""

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from solvers import sequence
from solvers.results import SolveRecord

# Rungs; the numbers are stored in quality/method.
PLANNED, COLD, MORE_ITERATIONS, FALLBACK, DIRECT, QUARANTINE = 0, 1, 2, 3, 4, 5
HALVED = 6  # a smaller time step, see `datagen.evolution`
RUNG_NAMES = {
    PLANNED: "planned",
    COLD: "cold",
    MORE_ITERATIONS: "more_iterations",
    FALLBACK: "fallback",
    DIRECT: "direct",
    QUARANTINE: "quarantine",
    HALVED: "half_step",
}

# Residuals at which the algebraic error matters to nobody: the defaults of rtol and
# accept_rtol.
STRICT_RTOL, STRICT_ACCEPT_RTOL = 1e-8, 1e-7


@dataclasses.dataclass(frozen=True)
class Solved:
    """One sample after the ladder.

    Attributes:
        fields: stored fields [*grid] or [T, *grid] in float64; None if rejected.
        rung: the last rung that any of its systems needed, or QUARANTINE.
        records: reports of the solvers that had the last word, one per system.
        true_residual: recomputed, the largest of all systems; NaN without a solution.
        failures: one sentence per rung that failed.
        sample: the random inputs; None if drawing them failed.
        failed_step: the system that could not be solved; -1 if all were.
        discretisation_error: estimate of ||u_h - u|| / ||u||, see
            `datagen.discretisation`; NaN if nobody asked.
        quality: what the problem tells beyond that, by column.
    """

    fields: dict[str, np.ndarray] | None
    rung: int
    records: tuple[SolveRecord, ...]
    true_residual: float
    failures: tuple[str, ...]
    sample: dict[str, np.ndarray] | None
    failed_step: int = -1
    discretisation_error: float = math.nan
    quality: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def accepted(self) -> bool:
        """Whether the sample may be used."""
        return self.rung != QUARANTINE

    def total(self, name: str) -> int:
        """Sum of a count over the records: "iterations", "matvecs"."""
        return sum(getattr(record, name) for record in self.records)

    @property
    def algebraic_error(self) -> float:
        """The largest of all systems; NaN if one of them has no estimate."""
        errors = [record.algebraic_error for record in self.records]
        return float(np.max(errors)) if errors else math.nan


class Ladder:
    """The solvers of one shard.

    Args:
        problem: see `datagen.problems.base.Problem`.
        solver: `plan.solver`, see `datagen.methods.resolve`.

    Attributes:
        solve_seconds: CPU time inside the solvers so far, their certificates included.
    """

    def __init__(self, problem, solver: Mapping[str, Any]):
        self.solve_seconds = 0.0
        self.problem = problem
        self.solver = solver
        self._solvers: dict[str, sequence.SequenceSolver] = {}
        self._carried = False  # whether the planned solver has solved anything

    def solve(self, rng: np.random.Generator) -> Solved:
        """Draws a sample and climbs until it is solved or quarantined.

        Whatever goes wrong in one sample, exceptions included, stays in that sample:
        after a failure nothing that a solver carries is used again.
        """
        climb, sample = _Climb(self.problem.num_systems), None
        try:
            with np.errstate(all="ignore"):  # what is not finite is refused just below
                sample = self.problem.sample(rng)
            for name, values in sample.items():
                if not np.isfinite(values).all():
                    raise ValueError(f"{name} is not finite")
            while not climb.complete:
                system = self.problem.system(sample, climb.step, climb.previous)
                if not self._solve_system(system, climb):
                    return climb.rejected(sample)
            fields = self.problem.fields_from_solution(sample, climb.x)
            _check_finite(fields)
        except Exception as error:
            self._forget()
            climb.failures.append(f"{climb.stage}: {_describe(error)}")
            return climb.rejected(sample)
        return climb.accepted(sample, fields)

    def snapshot(self) -> Any:
        """What the planned method carries now; None if it carries nothing."""
        solver = self._solvers.get(self.solver["method"])
        return solver.snapshot() if hasattr(solver, "snapshot") else None

    def restore(self, snapshot: Any) -> None:
        """Lets the planned method carry again what `snapshot` returned."""
        if snapshot is None:
            self._forget()
        else:
            self._solver(self.solver["method"]).restore(snapshot)
            self._carried = True

    def close(self) -> None:
        """Frees the solvers."""
        for method in list(self._solvers):
            self._drop(method)

    def _solve_system(self, system: sequence.LinearSystem, climb: "_Climb") -> bool:
        """Tries the rungs; returns whether one was accepted."""
        record, residual = None, np.nan
        follows = getattr(self.problem, "starts_from_previous", False)
        x0 = climb.previous if follows else None
        for rung, method, maxiter in self._rungs(self._carried):
            limits = self._limits(method)
            try:
                with self._timed():
                    x, record = self._solver(method).solve(
                        system, rtol=limits.rtol, maxiter=maxiter, x0=x0
                    )
                residual = true_residual(system, x)
                if not (complaint := limits.complaint(residual, record)):
                    if rung <= MORE_ITERATIONS:
                        self._carried = self.solver["carries"]
                    climb.accept(x, rung, record, residual)
                    return True
                climb.fail(f"{method}: {complaint}; it said: {record.status}")
                self._solver(method).reset()
            except Exception as error:
                self._drop(method)
                climb.fail(f"{method}: {_describe(error)}")
            # Nothing starts from a failure, neither the next rung nor the next sample.
            self._carried = self._carried and method != self.solver["method"]
        if record is not None:
            climb.add(record, residual)
        return False

    @contextlib.contextmanager
    def _timed(self) -> Iterator[None]:
        start = time.process_time()
        try:
            yield
        finally:
            self.solve_seconds += time.process_time() - start

    def _rungs(self, carried: bool) -> Iterator[tuple[int, str, int | None]]:
        method, maxiter = self.solver["method"], self.solver["maxiter"]
        yield PLANNED, method, maxiter
        if carried:  # by now the solver was reset
            yield COLD, method, maxiter
        if method != "direct" and maxiter is not None:
            yield MORE_ITERATIONS, method, 2 * maxiter
        for fallback in self.solver["fallbacks"]:
            rung = DIRECT if fallback["method"] == "direct" else FALLBACK
            yield rung, fallback["method"], None

    def _limits(self, method: str) -> "_Limits":
        """What a solution of a method must meet."""
        rtol, accept_rtol = self.solver["rtol"], self.solver["accept_rtol"]
        goal = self._settings(method).get("error_goal", math.inf)
        if goal == math.inf and "error_goal" in self.solver["settings"]:
            rtol = min(rtol, STRICT_RTOL)
            accept_rtol = min(accept_rtol, STRICT_ACCEPT_RTOL)
        return _Limits(rtol, accept_rtol, goal)

    def _settings(self, method: str) -> Mapping[str, Any]:
        choices = [self.solver, *self.solver["fallbacks"]]
        return next(c["settings"] for c in choices if c["method"] == method)

    def _solver(self, method: str) -> sequence.SequenceSolver:
        if method not in self._solvers:
            self._solvers[method] = sequence.create(method, **self._settings(method))
        return self._solvers[method]

    def _forget(self) -> None:
        self._carried = False
        for solver in self._solvers.values():
            solver.reset()

    def _drop(self, method: str) -> None:
        if (solver := self._solvers.pop(method, None)) is not None:
            solver.close()


def rung_counts(rungs: np.ndarray) -> dict[str, int]:
    """Samples per name of a rung, from the numbers in quality/method."""
    found = zip(*np.unique(rungs, return_counts=True), strict=True)
    return {RUNG_NAMES[int(rung)]: int(num) for rung, num in found}


@dataclasses.dataclass(frozen=True)
class _Limits:
    """What a solution must meet: see `config.solver` and the head of this module."""

    rtol: float
    accept_rtol: float
    error_goal: float

    def complaint(self, residual: float, record: SolveRecord) -> str:
        """Why a solution is not accepted, or ""."""
        if not residual <= self.accept_rtol:
            return (
                f"true relative residual {residual:.2e}, accepted up to "
                f"{self.accept_rtol:.0e}"
            )
        close = record.algebraic_error <= self.error_goal
        if close or self.error_goal == math.inf or residual <= STRICT_ACCEPT_RTOL:
            return ""
        return (
            f"estimated algebraic error {record.algebraic_error:.2e}, accepted up to "
            f"{self.error_goal:.2e}"
        )


class _Climb:
    """The systems of one sample on the ladder.

    Attributes:
        step: the system at hand.
        failures: what went wrong, in sentences.
    """

    def __init__(self, num_systems: int):
        self.num_systems, self.step = num_systems, 0
        self.failures: list[str] = []
        self._solutions: list[np.ndarray] = []
        self._records: list[SolveRecord] = []
        self._rung, self._residual = PLANNED, 0.0

    @property
    def complete(self) -> bool:
        return self.step == self.num_systems

    @property
    def previous(self) -> np.ndarray | None:
        """Solution of the system before."""
        return self._solutions[-1] if self._solutions else None

    @property
    def x(self) -> np.ndarray:
        """[*grid] of the only system, or [num_systems, *grid]."""
        several = self.num_systems > 1
        return np.stack(self._solutions) if several else self._solutions[0]

    @property
    def stage(self) -> str:
        return "fields" if self.complete else f"setting up{self._where}"

    @property
    def _where(self) -> str:
        return f" system {self.step}" if self.num_systems > 1 else ""

    def fail(self, sentence: str) -> None:
        where = f"{self._where.strip()}: " if self._where else ""
        self.failures.append(where + sentence)

    def add(self, record: SolveRecord, residual: float) -> None:
        """Counts the last word of a solver on the system at hand."""
        self._records.append(record)
        # NaN stays: it is larger than any number here.
        self._residual = float(np.maximum(self._residual, residual))

    def accept(self, x, rung: int, record: SolveRecord, residual: float) -> None:
        self.add(record, residual)
        self._solutions.append(x)
        self._rung = max(self._rung, rung)
        self.step += 1

    def accepted(self, sample, fields) -> Solved:
        return self._solved(fields, self._rung, sample, -1)

    def rejected(self, sample) -> Solved:
        return self._solved(
            None, QUARANTINE, sample, min(self.step, self.num_systems - 1)
        )

    def _solved(self, fields, rung, sample, failed_step) -> Solved:
        residual = self._residual if self._records else np.nan
        records, failures = tuple(self._records), tuple(self.failures)
        return Solved(fields, rung, records, residual, failures, sample, failed_step)


def true_residual(system: sequence.LinearSystem, x: np.ndarray) -> float:
    """||b - A x|| / ||b|| in double precision for x [*grid]; NaN if x is not finite."""
    x = np.asarray(x)
    if not (np.isfinite(x).all() and np.isfinite(system.rhs).all()):
        return np.nan
    kind = np.result_type(x, np.float64)
    return system.relative_residual(x.astype(kind, copy=False))


def _check_finite(fields: Mapping[str, np.ndarray]) -> None:
    for name, values in fields.items():
        if not np.isfinite(values).all():
            raise ValueError(f"the field {name} is not finite")


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
