"""Arnoldi's method beside a recycled space: the steps of one cycle of GCRO-DR."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from solvers.krylov.blocks import Kernels
from solvers.krylov.ritz import LeastSquares

BREAKDOWN = 1e-14


class Basis:
    """[C V] in one Fortran-ordered block, with the coefficients of Op V in it.

    Op V_s = C B + V_{s+1} H, where [C V_{s+1}] has orthonormal columns.

    Args:
        n: local rows.
        m: largest number of columns of [C V_s].
        dtype: float64 or complex128.

    Attributes:
        block: [n, m + 1]; columns 0..k-1 are C, then v_1, v_2, ...
        coefficients: [m + 1, m]; column j holds those of Op v_{j+1}.
        k: columns of C.
        steps: Arnoldi steps done, the s above.
    """

    def __init__(self, n: int, m: int, dtype: np.dtype):
        self.block = np.empty((n, m + 1), dtype, order="F")
        self.coefficients = np.zeros((m + 1, m), dtype)
        self.k = self.steps = 0

    @property
    def C(self) -> np.ndarray:  # noqa: N802
        """[n, k] the recycled directions after Op."""
        return self.block[:, : self.k]

    @property
    def V(self) -> np.ndarray:  # noqa: N802
        """[n, steps + 1] the Krylov basis."""
        return self.block[:, self.k : self.k + self.steps + 1]

    @property
    def W(self) -> np.ndarray:  # noqa: N802
        """[n, k + steps + 1], that is [C V]."""
        return self.block[:, : self.k + self.steps + 1]

    @property
    def B(self) -> np.ndarray:  # noqa: N802
        """[k, steps], C^H Op V."""
        return self.coefficients[: self.k, : self.steps]

    @property
    def H(self) -> np.ndarray:  # noqa: N802
        """[steps + 1, steps] Hessenberg matrix."""
        return self.coefficients[self.k : self.k + self.steps + 1, : self.steps]


class Steps(NamedTuple):
    """Result of `run`.

    Attributes:
        y: [steps] minimiser of ||beta e_1 - H y||.
        residual_norm: its residual norm.
        breakdown: whether Op mapped the space into itself.
    """

    y: np.ndarray
    residual_norm: float
    breakdown: bool


def run(
    op: Callable[[np.ndarray, int], np.ndarray],
    basis: Basis,
    kernels: Kernels,
    *,
    beta: float,
    target: float,
    max_steps: int,
    on_step: Callable[[float], None],
) -> Steps:
    """Arnoldi steps from v_1 (already in the basis) until the residual meets target.

    Every new vector is projected twice onto the complement of the whole block [C V]
    (classical Gram-Schmidt), which keeps it orthonormal to rounding.

    Args:
        op: op(v, j) returns Op v for the j-th step, counted from 0.
        basis: filled on the way.
        kernels: BLAS and sums over processes.
        beta: norm of the residual, whose direction is v_1.
        target: residual norm to stop at.
        max_steps: at least 1.
        on_step: called with the residual norm after every step.

    Raises:
        FloatingPointError: if Op gives NaN or infinite values.
    """
    least_squares = LeastSquares(max_steps, kernels.dtype, beta)
    basis.steps, k, residual, breakdown = 0, basis.k, beta, False
    while basis.steps < max_steps and residual > target and not breakdown:
        j = basis.steps
        Q, w = basis.block[:, : k + j + 1], basis.block[:, k + j + 1]
        w[:] = op(basis.block[:, k + j], j)
        h = kernels.dot(Q, w)
        kernels.subtract(w, Q, h)
        correction = kernels.dot(Q, w)
        kernels.subtract(w, Q, correction)
        h += correction
        size = kernels.norm(w)
        if not np.isfinite(size):
            raise FloatingPointError("A or M returned NaN or infinite values")
        breakdown = size <= BREAKDOWN * np.hypot(size, np.linalg.norm(h))
        if breakdown:
            size = 0.0
            w[:] = 0
        else:
            w *= 1 / size
        basis.coefficients[: k + j + 1, j] = h
        basis.coefficients[k + j + 1, j] = size
        basis.coefficients[k + j + 2 :, j] = 0
        basis.steps = j + 1
        residual = least_squares.append(basis.coefficients[k : k + j + 2, j])
        on_step(residual)
    return Steps(least_squares.solve(), residual, bool(breakdown))
