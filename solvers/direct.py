"""Sparse LU factorisation: the reference every iterative method is checked against."""

import time

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla

from solvers import matrices
from solvers.inputs import CHECK_INPUT, not_finite
from solvers.results import PhaseSeconds, SolveRecord, certify
from solvers.scaling import unit_of
from solvers.stencils import double

# Ordering on the pattern of A + A^T keeps the fill of symmetric patterns low, about
# half of the default's on five-point grids; its small pivoting threshold makes it
# stable only in practice, so a poor residual leads to the second, slower way.
ATTEMPTS = (
    {
        "permc_spec": "MMD_AT_PLUS_A",
        "diag_pivot_thresh": 0.001,
        "options": {"SymmetricMode": True},
    },
    {"permc_spec": "COLAMD", "diag_pivot_thresh": 1.0},
)
MAX_REFINEMENTS = 2


class Factor:
    """SuperLU factors of one matrix.

    Args:
        A: [N, N] SciPy matrix, real or complex.
        settings: keywords of `scipy.sparse.linalg.splu`.

    Raises:
        ArithmeticError: if A is singular to SuperLU.
    """

    def __init__(self, A: sp.csr_array, settings: dict):
        try:
            self._lu = spla.splu(A.tocsc(), **settings)
        except RuntimeError as error:
            raise ArithmeticError(f"SuperLU: {error}") from error
        self.is_complex, self.entries = np.iscomplexobj(A), self._lu.nnz

    def solve(self, b: np.ndarray) -> np.ndarray:
        """A^-1 b for b [N], real or complex."""
        if np.iscomplexobj(b) and not self.is_complex:  # SuperLU does not mix the two
            return self._lu.solve(b.real.copy()) + 1j * self._lu.solve(b.imag.copy())
        return self._lu.solve(b)

    def flops(self) -> float:
        """Floating point operations of the factorisation, from its column counts.

        2 l_j u_j + l_j for column j with l_j and u_j entries off the diagonal; complex
        ones count four times. Extracts L and U once, which takes their memory again.
        """
        below = np.diff(self._lu.L.indptr) - 1.0
        beside = np.bincount(self._lu.U.indices, minlength=below.size) - 1.0
        return float(np.sum(2 * below * beside + below)) * (4 if self.is_complex else 1)


class DirectSolver:
    """SuperLU in double precision with iterative refinement; any regular matrix.

    The factors are kept while the values of the matrix stay the same, so that a further
    right-hand side costs a back substitution; solutions do not depend on that.
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
        """Factorises and solves; `maxiter` and `x0` mean nothing here.

        A singular matrix or one with NaN gives a record that is not converged, and x
        is NaN then.
        """
        start = time.perf_counter()
        shape, b = system.rhs.shape, double(system.rhs).ravel()
        A = system.to_csr()
        x = np.full(b.shape, np.nan, system.dtype)
        failure, solves, fallbacks, setup = "", 0, (), 0.0
        advice = "check the coefficients, the matrix may be singular"
        own = system._replace(operator=A, preconditioning_matrix=None)
        if unusable := not_finite(own):
            failure, advice = unusable, CHECK_INPUT
        else:
            self._keep(A)
            unit = unit_of(b)
            b, target = b / unit, rtol * np.linalg.norm(b / unit)
            for attempt in range(len(ATTEMPTS)):
                began = time.perf_counter()
                try:
                    factor = self._factor(A, attempt)
                    setup += time.perf_counter() - began
                    x, r, count = _refine(A, b, factor, target)
                    x *= unit
                    solves, failure = solves + count, ""
                except ArithmeticError as error:
                    setup += time.perf_counter() - began
                    failure = str(error)
                if not failure and np.linalg.norm(r) <= target:
                    break
                reason = failure or "residual above the tolerance"
                fallbacks += (f"{ATTEMPTS[attempt]['permc_spec']}: {reason}",)
        seconds = time.perf_counter() - start
        x = x.reshape(shape)
        return x, certify(
            system,
            x,
            rtol=rtol,
            advice=advice,
            failure=failure,
            method="direct",
            iterations=0,
            matvecs=solves,
            preconditioner_applications=solves,
            seconds=seconds,
            relative_residual=float("nan"),
            fallbacks=fallbacks,
            phases=PhaseSeconds(setup=setup, preconditioner=seconds - setup),
        )

    def reset(self) -> None:
        """Drops the factors."""
        self._memory, self._factors = None, {}

    def close(self) -> None:
        """Drops the factors."""
        self.reset()

    def _keep(self, A):
        """Keeps the factors if A is the matrix they were made of."""
        if not matrices.same(A, self._memory):
            self._memory, self._factors = matrices.remember(A), {}

    def _factor(self, A, attempt):
        if attempt not in self._factors:
            self._factors[attempt] = Factor(A, ATTEMPTS[attempt])
        return self._factors[attempt]


def _refine(A, b, factor, target):
    """Solves with one factorisation; refines while the residual is above target.

    Returns x, b - A x and the number of solves, which is that of products with A too.
    """
    x = factor.solve(b)
    r, solves = b - A @ x, 1
    while not np.linalg.norm(r) <= target and solves <= MAX_REFINEMENTS:
        x = x + factor.solve(r)
        r, solves = b - A @ x, solves + 1
    return x, r, solves
