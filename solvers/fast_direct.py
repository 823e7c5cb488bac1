"""Direct solver for separable operators on box grids, by fast diagonalisation."""

import time

import numpy as np

from solvers.inputs import CHECK_INPUT, not_finite
from solvers.results import PhaseSeconds, SolveRecord, certify
from solvers.scaling import unit_of
from solvers.separable import basis_of, separate
from solvers.star import planes_of, star_of
from solvers.stencils import is_singular

MAX_REFINEMENTS = 3
ADVICE = "try method 'fft_pcg', 'mg_pcg' or 'direct'"
NULL = 1e-13  # eigenvalues below, relative to the largest, count as zero


class FastDirect:
    """Solves symmetric star stencils whose coefficients are constant or separable.

    A = sum_k T_k x (weights of the other axes) with one tridiagonal matrix T_k per
    axis, see `solvers.separable.separate`: the eigenvectors of all T_k diagonalise A,
    which costs 4 n products per unknown and axis of n unknowns, in float64. Definite or
    not; any mixture of walls, closed, Robin and periodic sides; singular systems get
    the solution of mean zero. Other operators are refused in the record.

    The eigenvectors are kept while the matrix stays the same; solutions do not depend
    on that.

    References:
        Lynch, Rice, Thomas (1964), Direct solution of partial difference equations by
        tensor product methods, Numer. Math. 6.
    """

    def __init__(self):
        self.reset()

    def solve(
        self,
        system,
        *,
        rtol: float,
        maxiter: int | None = None,
        x0: np.ndarray | None = None,
    ) -> tuple[np.ndarray, SolveRecord]:
        """Solves one system; `maxiter` and `x0` mean nothing here.

        An operator that is not separable gives a record that is not converged and says
        why, and x is NaN then.

        Raises:
            TypeError: if the operator is not a `StencilOperator`.
            ValueError: if it is not one star stencil.
        """
        planes = planes_of(system.operator, "fast_direct")
        start = time.perf_counter()
        x, solves = np.full(system.operator.grid_shape, np.nan), 0
        failure, advice = not_finite(system), CHECK_INPUT
        if not failure:
            failure, advice = self._keep(planes, system.operator), ADVICE
        setup = time.perf_counter() - start
        if not failure:
            x, solves = self._refined(system, rtol)
            advice = "the matrix may be singular or not symmetric; " + ADVICE
            sum_b = abs(system.rhs.sum())
            if self._singular and sum_b > rtol * np.linalg.norm(system.rhs):
                failure = "A is singular and b is not orthogonal to the constants"
                advice = "subtract the mean from b"
        seconds = time.perf_counter() - start
        return x, certify(
            system,
            x,
            rtol=rtol,
            advice=advice,
            failure=failure,
            method="fast_direct",
            iterations=0,
            matvecs=solves,
            preconditioner_applications=solves,
            seconds=seconds,
            relative_residual=float("nan"),
            phases=PhaseSeconds(setup=setup, preconditioner=seconds - setup),
        )

    def reset(self) -> None:
        """Drops the eigenvectors."""
        self._kept, self._failure = None, ""
        self._vectors, self._inverse = (), None

    def close(self) -> None:
        """Drops the eigenvectors."""
        self.reset()

    def _keep(self, planes, operator):
        """Makes the eigenvectors unless they are there; returns what prevents it."""
        diagonal, couplings = planes
        kept = (operator.periodic, diagonal, *couplings)
        if self._kept is not None and _same(kept, self._kept):
            return self._failure
        self._kept = tuple(np.copy(part) for part in kept)
        scale = np.abs(diagonal).max(initial=0.0) or 1.0
        scale = -scale if diagonal.mean() < 0 else scale
        couplings = tuple(c / scale for c in couplings)
        star = star_of(diagonal / scale, couplings, operator.periodic)
        factors = separate(star)
        self._failure = ""
        if isinstance(factors, str):
            self._failure = "A is not separable: " + factors
        else:
            total, self._vectors = 0.0, []
            for axis, pair in enumerate(zip(*factors, strict=True)):
                values, vectors = basis_of(*pair, axis in operator.periodic)
                total = np.add.outer(total, values)
                self._vectors.append(vectors)
            null = abs(total) <= NULL * abs(total).max()
            self._singular = is_singular(operator)
            total = np.where(null, np.inf, total) if self._singular else total
            with np.errstate(divide="ignore"):
                self._inverse = 1 / (scale * total)
        return self._failure

    def _refined(self, system, rtol):
        """A solution and how many times the eigenvectors were used for it."""
        unit = unit_of(system.rhs)
        b = system.rhs / unit
        target = rtol * np.linalg.norm(b)
        x, r, solves = np.zeros(b.shape), b, 0
        while solves == 0 or (np.linalg.norm(r) > target and solves <= MAX_REFINEMENTS):
            x = x + self._solve(r)
            if self._singular:
                x -= x.mean()
            r, solves = system.operator.residual(x[None], b[None])[0], solves + 1
        return x * unit, solves

    def _solve(self, r):
        """(Q_1 x Q_2 ...) inverse (Q_1 x Q_2 ...)^T r; products move an axis last."""
        for Q in self._vectors:
            r = (r.reshape(Q.shape[0], -1).T @ Q).reshape(*r.shape[1:], -1)
        r = r * self._inverse
        for Q in self._vectors:
            r = (r.reshape(Q.shape[0], -1).T @ Q.T).reshape(*r.shape[1:], -1)
        return r


def _same(new, old):
    return all(np.array_equal(a, b) for a, b in zip(new, old, strict=True))
