"""Initial guesses from earlier solutions of the same sequence."""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
import scipy.sparse as sp

from solvers import matrices
from solvers.results import SolveRecord
from solvers.sequence import LinearSystem, SequenceSolver
from solvers.stencils import double

LARGEST_WINDOW = 20
RANK_TOLERANCE = 1e-10  # smallest kept diagonal entry of R, relative to the largest
SMALLEST_GAIN = 0.999  # guesses that leave more of the residual are not used


class Memory(NamedTuple):
    """What a guess remembers; tuples and arrays that nobody changes.

    Attributes:
        solutions: [N] each, normalised, oldest first.
        products: A times them for the remembered matrix, up to the tolerance.
        matrix: that matrix, for `solvers.matrices.same`.
    """

    solutions: tuple[np.ndarray, ...] = ()
    products: tuple[np.ndarray, ...] = ()
    matrix: tuple | None = None


class ProjectionGuess:
    """Starts a solver from the combination of earlier solutions of smallest residual.

    x0 = X y with y = argmin ||b - A X y||_2 over the solutions X of the last systems,
    from a QR factorisation of A X with pivoting; columns that depend on others up to
    rounding drop out. Products A X are kept while the matrix is the same, otherwise
    each costs one product with A. The 2-norm of the residual is what every method here
    is stopped on, whatever the matrix; the error in the A-norm, which is natural for
    positive definite A, would need those same products.

    Only solutions of accepted systems are remembered.

    Args:
        inner: the solver to start. One with the attribute `on_grids` set gets the
            operators as they are, others get them as matrices.
        window: how many solutions are remembered, 1 to 20.

    Raises:
        ValueError: for another window.
    """

    def __init__(self, inner: SequenceSolver, *, window: int = LARGEST_WINDOW):
        if not 1 <= window <= LARGEST_WINDOW:
            raise ValueError(f"window is {window}; expected 1 to {LARGEST_WINDOW}")
        self.inner, self.window = inner, window
        self._memory = Memory()

    def solve(
        self,
        system: LinearSystem,
        *,
        rtol: float,
        maxiter: int | None = None,
        x0: np.ndarray | None = None,
    ) -> tuple[np.ndarray, SolveRecord]:
        """Solves one system; the caller's x0 joins the earlier solutions."""
        start = time.perf_counter()
        system.check()
        operator, system = system.operator, system.assembled()
        guess, count = self._guess(system, x0)
        own = system
        if getattr(self.inner, "on_grids", False):
            own = system._replace(operator=operator)
        seconds = time.perf_counter() - start
        x, record = self.inner.solve(own, rtol=rtol, maxiter=maxiter, x0=guess)
        if record.converged:
            self._remember(x, system)
        phases = dataclasses.replace(
            record.phases, carry_over=record.phases.carry_over + seconds
        )
        return x, dataclasses.replace(
            record,
            matvecs=record.matvecs + count,
            seconds=record.seconds + seconds,
            phases=phases,
        )

    def reset(self) -> None:
        """Forgets the solutions and what the solver carries."""
        self._memory = Memory()
        self.inner.reset()

    def close(self) -> None:
        """Frees what the solver holds."""
        self._memory = Memory()
        self.inner.close()

    def snapshot(self) -> tuple[Memory, Any]:
        """The solutions and what the solver carries."""
        carried = getattr(self.inner, "snapshot", lambda: None)()
        return self._memory, carried

    def restore(self, snapshot: tuple[Memory, Any]) -> None:
        """Goes on from there."""
        self._memory, carried = snapshot
        if hasattr(self.inner, "restore"):
            self.inner.restore(carried)

    def _guess(self, system, x0):
        """The guess [*grid], or None, and how many products with A it took."""
        b = double(system.rhs).ravel()
        if not (b.any() and np.isfinite(b).all() and _finite(system.operator)):
            return x0, 0
        apply, count = system.matvec(), self._refresh(system)
        remembered = zip(self._memory.solutions, self._memory.products, strict=True)
        pairs = [(v, Av) for v, Av in remembered if _fits(v, system)]
        X, AX = [v for v, _ in pairs], [Av for _, Av in pairs]
        if x0 is not None:
            X.append(double(x0).ravel())
            AX.append(apply(X[-1]))
            count += 1
        y = minimal_residual(AX, b)
        if y is None:
            return x0, count
        return (np.stack(X, axis=1) @ y).reshape(system.rhs.shape), count

    def _refresh(self, system):
        """Makes the products those with this matrix; returns how many it took."""
        memory, A = self._memory, system.operator
        if matrices.same(A, memory.matrix):
            return 0
        kept = tuple(x for x in memory.solutions if _fits(x, system))
        apply = system.matvec()
        products = tuple(apply(x) for x in kept)
        self._memory = Memory(kept, products, matrices.remember(A))
        return len(kept)

    def _remember(self, x, system):
        """Adds a solution; A x is b up to the tolerance, which does for a guess."""
        scale = np.linalg.norm(x)
        if not scale or not matrices.same(system.operator, self._memory.matrix):
            return
        solutions = (*self._memory.solutions, x.ravel() / scale)
        products = (*self._memory.products, double(system.rhs).ravel() / scale)
        self._memory = self._memory._replace(
            solutions=solutions[-self.window :], products=products[-self.window :]
        )


def minimal_residual(
    products: Sequence[np.ndarray], b: np.ndarray
) -> np.ndarray | None:
    """Coefficients y [j] of the least ||b - sum_j y_j (A x)_j||_2.

    Args:
        products: j arrays [N], A x for each candidate; dependent ones drop out.
        b: [N] right-hand side.

    Returns:
        y, or None if the candidates do not make the residual smaller.
    """
    norms = np.array([np.linalg.norm(v) for v in products])
    usable = np.flatnonzero(np.isfinite(norms) & (norms > 0))
    if not usable.size:
        return None
    AX = np.stack([products[j] / norms[j] for j in usable], axis=1)
    Q, R, order = scipy.linalg.qr(AX, mode="economic", pivoting=True)
    diagonal = np.abs(np.diagonal(R))
    rank = int(np.count_nonzero(diagonal > RANK_TOLERANCE * diagonal[0]))
    c = Q[:, :rank].conj().T @ b
    if not np.linalg.norm(b - Q[:, :rank] @ c) < SMALLEST_GAIN * np.linalg.norm(b):
        return None
    y, kept = np.zeros(len(products), c.dtype), usable[order[:rank]]
    y[kept] = scipy.linalg.solve_triangular(R[:rank, :rank], c) / norms[kept]
    return y


def _fits(x, system):
    """Whether a solution belongs to systems of this size and kind of numbers."""
    return x.size == system.rhs.size and (
        not np.iscomplexobj(x) or system.dtype.kind == "c"
    )


def _finite(operator):
    return not sp.issparse(operator) or np.isfinite(operator.data).all()
