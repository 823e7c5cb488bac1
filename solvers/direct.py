"""Sparse LU factorisation: the reference every iterative method is checked against."""

import time

import numpy as np
import scipy.sparse.linalg as spla

from solvers.results import SolveRecord, certify

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


class DirectSolver:
    """SuperLU in float64 with iterative refinement; symmetric matrices or not.

    Nothing is carried from one system to the next.
    """

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
        shape, b = system.rhs.shape, np.asarray(system.rhs, np.float64).ravel()
        A = system.to_csr().tocsc()
        x, failure, solves, fallbacks = np.full_like(b, np.nan), "", 0, ()
        if not (np.isfinite(A.data).all() and np.isfinite(b).all()):
            failure = "the system holds NaN or infinite entries"
        else:
            scale = np.linalg.norm(b)
            for settings in ATTEMPTS:
                try:
                    x, count = _factor_and_refine(A, b, rtol * scale, settings)
                    solves, failure = solves + count, ""
                except RuntimeError as error:  # SuperLU's word for exact singularity
                    failure = f"SuperLU: {error}"
                if not failure and np.linalg.norm(b - A @ x) <= rtol * scale:
                    break
                reason = failure or "residual above the tolerance"
                fallbacks += (f"{settings['permc_spec']}: {reason}",)
        seconds = time.perf_counter() - start
        x = x.reshape(shape)
        return x, certify(
            system,
            x,
            rtol=rtol,
            advice="check the coefficients, the matrix may be singular",
            failure=failure,
            method="direct",
            iterations=0,
            matvecs=solves,
            preconditioner_applications=solves,
            seconds=seconds,
            relative_residual=float("nan"),
            fallbacks=fallbacks,
        )

    def reset(self) -> None:
        """Nothing is carried."""

    def close(self) -> None:
        """Nothing is held."""


def _factor_and_refine(A, b, target, settings):
    """Solves with one factorisation; refines while the residual is above target."""
    factor = spla.splu(A, **settings)
    x, solves = factor.solve(b), 1
    for _ in range(MAX_REFINEMENTS):
        r = b - A @ x
        if not np.linalg.norm(r) > target:
            break
        x, solves = x + factor.solve(r), solves + 1
    return x, solves
