"""What the Krylov methods of `solvers.sequence` share: counts, checks, records."""

import dataclasses
import time
from typing import Any, NamedTuple

import numpy as np

from solvers import matrices, preconditioners
from solvers.counting import CountingOperator
from solvers.inputs import CHECK_INPUT, not_finite
from solvers.results import PhaseSeconds, SolveRecord, certify
from solvers.scaling import unit_of
from solvers.sequence import LinearSystem
from solvers.stencils import double

MAXITER = 10_000  # steps per system unless the caller says otherwise
# Methods aim a little below the tolerance, and stop when the residual that they
# recompute meets it up to the rounding between two ways of computing b - A x.
AIM, ACCEPT = 0.99, 0.999


class Task(NamedTuple):
    """One system as the methods see it: flat, checked, counted.

    Attributes:
        A: the matrix; counts.
        M: the preconditioner, ready for A; counts.
        b: [N] right-hand side, not zero, its entries of a size that can be squared.
        x: [N] start.
        r: [N] b - A x.
        norm_b: ||b||.
        rtol: largest accepted ||b - A x|| / ||b||.
        maxiter: most steps.
        preconditioned: False if M is the identity.
        new_preconditioner: whether M differs from the one of the system before.
        build: number of M; products with it hold while that stays the same.
        matrix: A itself, [N, N] SciPy matrix or LinearOperator.
    """

    A: CountingOperator
    M: CountingOperator
    b: np.ndarray
    x: np.ndarray
    r: np.ndarray
    norm_b: float
    rtol: float
    maxiter: int
    preconditioned: bool
    new_preconditioner: bool
    build: int | None
    matrix: object

    @property
    def aim(self) -> float:
        """Residual norm that methods iterate towards."""
        return AIM * self.rtol * self.norm_b

    def solved(self, r: np.ndarray) -> bool:
        """Whether a recomputed residual is small enough."""
        return bool(np.linalg.norm(r) <= ACCEPT * self.rtol * self.norm_b)


@dataclasses.dataclass
class Outcome:
    """What a method found; the fields are those of `SolveRecord`.

    `phases` needs only carry_over, refresh and dense: the rest is filled in.
    """

    x: np.ndarray
    iterations: int = 0
    cycles: int = 0
    relative_residual: float = np.nan
    residual_norms: tuple[float, ...] = ()
    failure: str = ""
    recycle_dim: int = 0
    fallbacks: tuple[str, ...] = ()
    phases: PhaseSeconds = dataclasses.field(default_factory=PhaseSeconds)


class Snapshot(NamedTuple):
    """What a Krylov method carries from system to system.

    Attributes:
        preconditioner: M, as its `snapshot` keeps it.
        carried: what the method adds to that.
    """

    preconditioner: Any
    carried: Any = None


class KrylovSolver:
    """Base of the sequence solvers that only apply A and M.

    Subclasses set `method`, `needs` and `advice` and define `_iterate(task)`. A
    preconditioner that breaks down on a matrix (a zero pivot) ends in the record; one
    that cannot exist here (no PETSc, unknown name) raises.

    Args:
        preconditioner: name in `solvers.preconditioners`.
        frozen: keep the preconditioner of the first system for all others.
    """

    method = ""
    needs = "any"
    advice = "try method 'direct', another preconditioner or more iterations"

    def __init__(self, *, preconditioner: str = "none", frozen: bool = False):
        self.preconditioner = preconditioners.create(preconditioner, frozen=frozen)

    def solve(
        self,
        system: LinearSystem,
        *,
        rtol: float,
        maxiter: int | None = None,
        x0: np.ndarray | None = None,
    ) -> tuple[np.ndarray, SolveRecord]:
        """Solves one system; see `solvers.sequence.SequenceSolver`.

        Raises:
            ValueError: if the shapes of A, b, x0 do not fit.
        """
        start = time.perf_counter()
        system.check()
        system = system.assembled()
        b, x = _flat_start(system, x0)
        A = CountingOperator(system.matvec(), takes_blocks=True)
        M = CountingOperator(self.preconditioner)
        if unusable := not_finite(system):
            outcome = Outcome(np.full_like(x, np.nan), failure=unusable)
        elif not b.any():
            outcome = Outcome(np.zeros_like(x), relative_residual=0.0)
        else:
            unit = unit_of(b)
            if unit != 1:  # norms of b would underflow or overflow
                with np.errstate(over="ignore"):
                    b, x = b / unit, x / unit
            outcome = self._prepare_and_iterate(system, A, M, b, x, rtol, maxiter)
            outcome.x = outcome.x if unit == 1 else outcome.x * unit
        outcome.phases = _all_phases(outcome, A, M, time.perf_counter() - start)
        return self._report(system, outcome, rtol, A.count, M.count, start)

    def reset(self) -> None:
        """Drops everything carried from earlier systems."""
        self.preconditioner.reset()

    def close(self) -> None:
        """Frees what the preconditioner holds."""
        self.preconditioner.reset()

    def snapshot(self) -> Snapshot:
        """What is carried: the preconditioner, and what the method adds."""
        return Snapshot(self.preconditioner.snapshot())

    def restore(self, snapshot: Snapshot) -> None:
        """Goes on from there."""
        self.preconditioner.restore(snapshot.preconditioner)

    def _iterate(self, task: Task) -> Outcome:
        raise NotImplementedError

    def _prepare_and_iterate(self, system, A, M, b, x, rtol, maxiter):
        start = time.perf_counter()
        try:
            changed = self.preconditioner.update(system)
        except (ArithmeticError, np.linalg.LinAlgError) as error:
            self.preconditioner.reset()
            return Outcome(np.full_like(x, np.nan), failure=str(error))
        setup = time.perf_counter() - start
        task = Task(
            A=A,
            M=M,
            b=b,
            x=x,
            r=b - A(x) if x.any() else b.copy(),
            norm_b=float(np.linalg.norm(b)),
            rtol=rtol,
            maxiter=MAXITER if maxiter is None else maxiter,
            preconditioned=self.preconditioner.name != "none",
            new_preconditioner=changed,
            build=self.preconditioner.build,
            matrix=system.operator,
        )
        with np.errstate(all="ignore"):  # NaN and Inf end up in the record
            outcome = self._iterate(task)
        setup += outcome.phases.setup
        outcome.phases = dataclasses.replace(outcome.phases, setup=setup)
        return outcome

    def _report(self, system, outcome, rtol, matvecs, applications, start):
        seconds = time.perf_counter() - start
        x = outcome.x.reshape(system.rhs.shape)
        finite = bool(np.isfinite(x).all()) or not not_finite(system)
        record = certify(
            system,
            x,
            rtol=rtol,
            advice=self.advice if finite else CHECK_INPUT,
            failure=outcome.failure,
            method=self.method,
            iterations=outcome.iterations,
            matvecs=matvecs,
            preconditioner_applications=applications,
            seconds=seconds,
            relative_residual=outcome.relative_residual,
            recycle_dim=outcome.recycle_dim,
            fallbacks=outcome.fallbacks,
            cycles=outcome.cycles,
            phases=outcome.phases,
            residual_norms=outcome.residual_norms,
        )
        if not record.converged and finite:
            cause = matrices.diagnose(system.operator, system.rhs.ravel(), self.needs)
            status = f"{record.status}; {cause}" if cause else record.status
            record = dataclasses.replace(record, status=status)
        return x, record


def _flat_start(system, x0):
    """Right-hand side and start [N], both in the arithmetic of the system."""
    b = double(system.rhs).ravel().astype(system.dtype, copy=False)
    if x0 is None:
        return b, np.zeros_like(b)
    x0 = np.asarray(x0)
    if x0.shape != system.rhs.shape:
        raise ValueError(
            f"x0 has shape {x0.shape}, but rhs has shape {system.rhs.shape}"
        )
    if np.iscomplexobj(x0) and b.dtype.kind != "c":
        raise ValueError("x0 is complex, but the system is real; pass x0.real")
    if not np.isfinite(x0).all():
        raise ValueError("x0 holds NaN or infinite entries; leave it out")
    return b, x0.ravel().astype(b.dtype)


def _all_phases(outcome, A, M, seconds):
    """Adds the preconditioner's seconds, and gives the steps what is left."""
    phases = dataclasses.replace(outcome.phases, preconditioner=M.seconds)
    rest = phases.setup + phases.carry_over + phases.refresh + phases.dense
    steps = max(0.0, seconds - rest - phases.preconditioner)
    return dataclasses.replace(phases, arnoldi=steps)
