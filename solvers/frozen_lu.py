"""The factors of one system as preconditioner of those that follow."""

import dataclasses
import time

import numpy as np

from solvers import matrices
from solvers.direct import (
    ATTEMPTS,
    MAX_REFINEMENTS,
    Factor,
    OrderedFactor,
    ordered_entries,
)
from solvers.krylov.gcrodr import gcrodr
from solvers.krylov_solver import KrylovSolver, Outcome, Task
from solvers.results import PhaseSeconds

RESTART = 40  # of GMRES; few systems that pay need as many steps
# Counted cost, in flops of a triangular solve: a fit, within a factor 0.6 to 1.3, to
# factorisations of 2-D and 3-D grids of 3e3 to 4e4 unknowns on one core, in the order
# of their pattern, which is known by then. Their flops ran 4 times as fast as those of
# the solves, beside 48 per entry of the factors for data structures.
FACTOR_SPEED = 4.0
FACTOR_ENTRY = 48.0
COMPLEX = 4.0  # one complex multiplication and addition, in real ones
PATIENCE = 2  # systems in a row that had to be refactored, before a break
BREAK = 16  # systems that are factorised without trying the old factors first


@dataclasses.dataclass(frozen=True)
class Frozen:
    """What a `FrozenLU` carries; a new one after every change.

    Attributes:
        factor: the factors.
        memory: their matrix, for `solvers.matrices.same`.
        price: of a factorisation; in flops or seconds.
        step: price of an iteration with them.
        size: N.
        misses: systems in a row for which they were given up.
        rest: systems still to be factorised at once.
    """

    factor: Factor
    memory: tuple
    price: float
    step: float
    size: int
    misses: int = 0
    rest: int = 0

    @property
    def affordable_steps(self) -> int:
        """Steps that cost as much as new factors."""
        return max(2, int(self.price / self.step))


class FrozenLU(KrylovSolver):
    """LU of one system, kept for the next ones in right-preconditioned GMRES.

    Once the steps for a system have cost as much as new factors would, that system is
    factorised instead and its factors are kept from then on, so that no solve costs
    more than about twice a direct one. After two systems in a row that had to be
    factorised, 16 are without trying first. The same matrix again, or a fresh one,
    takes one back substitution.

    Args:
        costs: "counted" prices work by flops, so that runs repeat exactly; "measured"
            by this machine's clock.

    Raises:
        ValueError: for another `costs`.
        TypeError: on `solve`, if A is only known by its action.
    """

    method = "frozen_lu"
    advice = "try method 'direct', the matrix may be singular"

    def __init__(self, *, costs: str = "counted"):
        super().__init__()
        if costs not in ("counted", "measured"):
            raise ValueError(f"costs is {costs!r}; known: 'counted', 'measured'")
        self.costs, self.factorizations = costs, 0
        self.preconditioner = _Held()
        self._frozen: Frozen | None = None
        self._pattern = self._system = None

    def solve(self, system, *, rtol, maxiter=None, x0=None):
        """Solves one system; see `solvers.sequence.SequenceSolver`.

        `maxiter` limits the steps with old factors; fresh ones follow in any case.

        Raises:
            TypeError: if A is only known by its action.
            ValueError: if the shapes of A, b, x0 do not fit.
        """
        system.check()
        self._system = system  # a stencil has a better order than its matrix
        system = system._replace(operator=system.to_csr())
        try:
            return super().solve(system, rtol=rtol, maxiter=maxiter, x0=x0)
        finally:
            self._system = None

    def reset(self) -> None:
        """Drops the factors; the next system is factorised."""
        self._frozen = self._pattern = None

    def close(self) -> None:
        """Drops the factors."""
        self._frozen = self._pattern = None

    def snapshot(self) -> Frozen | None:
        """The factors; they are never changed."""
        return self._frozen

    def restore(self, snapshot: Frozen | None) -> None:
        """Uses those factors again."""
        self._frozen = snapshot

    def _iterate(self, task: Task) -> Outcome:
        found = Outcome(task.x.copy(), residual_norms=(_relative(task, task.r),))
        r, old = task.r, self._frozen
        if old is not None and not _usable(old, task):
            old = self._frozen = None
        if old is not None and matrices.same(task.matrix, old.memory):
            self.preconditioner.factor = old.factor
            r = self._substitute(task, found, r)
            return self._close(task, found, r)
        misses, rest = 0, 0
        if old is not None and old.rest:
            misses, rest = old.misses, old.rest - 1
        elif old is not None:
            self.preconditioner.factor = old.factor
            limit = min(old.affordable_steps, task.maxiter)
            r = _gmres(task, found, r, limit)
            if task.solved(r):
                self._frozen = dataclasses.replace(old, misses=0)
                return self._close(task, found, r)
            misses = old.misses + 1
            rest = BREAK if misses >= PATIENCE else 0
            found.fallbacks += (f"old factors: given up after {limit} steps",)
        r = self._factorize(task, found, r, misses, rest)
        return self._close(task, found, r)

    def _factorize(self, task, found, r, misses, rest):
        """Makes factors of this matrix and solves with them; returns b - A x."""
        setup = 0.0
        for number in range(len(ATTEMPTS)):
            began = time.perf_counter()
            try:
                factor, name = self._factor(task, number)
            except ArithmeticError as error:
                found.failure = str(error)
                continue
            finally:
                setup += time.perf_counter() - began
                found.phases = PhaseSeconds(setup=setup)
            self.factorizations += 1
            self.preconditioner.factor, found.failure = factor, ""
            r = self._substitute(task, found, r)
            price, step = self._prices(task, factor, setup)
            memory = matrices.remember(task.matrix)
            self._frozen = Frozen(
                factor, memory, price, step, task.b.size, misses, rest
            )
            if task.solved(r):
                return r
            found.fallbacks += (f"{name}: residual too large",)
        self._frozen = None  # factors of a bad matrix are no good for others
        return r

    def _factor(self, task, number):
        """Factors of this matrix in one of the ways of `direct`, and its name."""
        if number:
            settings = ATTEMPTS[number]
            return Factor(task.matrix, settings), settings["permc_spec"]
        self._pattern, entries = ordered_entries(self._system, self._pattern)
        return OrderedFactor(self._pattern, entries), self._pattern.name

    def _substitute(self, task, found, r):
        """Solves with factors of this very matrix; GMRES mends what rounding left."""
        for _ in range(1 + MAX_REFINEMENTS):
            found.x += task.M(r)
            r = task.b - task.A(found.x)
            found.residual_norms += (_relative(task, r),)
            if task.solved(r) or not np.isfinite(found.residual_norms[-1]):
                return r
        return _gmres(task, found, r, RESTART)

    def _prices(self, task, factor, seconds):
        if self.costs == "measured":
            step = task.M.seconds / task.M.count + task.A.seconds / task.A.count
            return seconds, step
        number = COMPLEX if factor.is_complex else 1.0
        price = factor.flops() / FACTOR_SPEED + FACTOR_ENTRY * factor.entries * number
        vectors = RESTART // 2 * task.b.size  # Gram-Schmidt, on average
        return price, 2 * number * (factor.entries + task.matrix.nnz + vectors)

    def _close(self, task, found, r):
        found.relative_residual = _relative(task, r)
        if not task.solved(r) and not found.failure:
            found.failure = "neither the factors nor GMRES with them reach the residual"
        return found


class _Held:
    """The factors in use, as a preconditioner that counts."""

    name = "frozen_lu"
    factor: Factor | None = None
    build: int | None = None  # products with M are never kept here

    def update(self, system) -> bool:
        return False

    def __call__(self, r):
        return self.factor.solve(r)

    def reset(self):
        self.factor = None


def _usable(frozen, task):
    """Whether the factors belong to systems of this size and kind of numbers."""
    real_system = task.b.dtype.kind != "c"
    return frozen.size == task.b.size and not (frozen.factor.is_complex and real_system)


def _gmres(task, found, r, limit):
    """Right-preconditioned GMRES for the correction of x; returns b - A x."""
    m = min(RESTART, r.size)
    result = gcrodr(
        task.A, r, M=task.M, m=m, k=0, rtol=0.0, atol=task.aim, maxiter=limit
    )
    scale = np.linalg.norm(r) / task.norm_b
    found.x += result.x
    found.iterations += result.iterations
    found.cycles += result.cycles
    found.residual_norms += tuple(
        float(scale * norm) for norm in result.residual_norms[1:]
    )
    return task.b - task.A(found.x)


def _relative(task, r):
    return float(np.linalg.norm(r)) / task.norm_b
