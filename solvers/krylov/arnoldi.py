"""Arnoldi's method beside a recycled space: the steps of one cycle of GCRO-DR."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from solvers.krylov.blocks import Kernels
from solvers.krylov.ritz import LeastSquares

BREAKDOWN = 1e-14
CANCELLATION = 0.05  # remainder of the first projection that makes a second one urgent
NOT_FINITE = "A or M returned NaN or infinite values"


class Basis:
    """[C V U] in one Fortran-ordered block, with the coefficients of Op V in [C V].

    Op V_s = C B + V_{s+1} H, where [C V_{s+1}] has orthonormal columns, and Op U = C.
    C and V lie side by side for Gram-Schmidt, V and U for forming new vectors.

    Args:
        n: local rows.
        m: largest number of columns of [C V_s].
        capacity: largest number of columns of U.
        dtype: float64 or complex128.

    Attributes:
        block: [n, m + 1 + capacity]; columns 0..k-1 are C, then v_1, v_2, ...; those
            from m + 1 on are U.
        coefficients: [m + 1, m]; column j holds those of Op v_{j+1}.
        m: as above.
        k: columns of C and of U.
        steps: Arnoldi steps done, the s above.
    """

    def __init__(self, n: int, m: int, capacity: int, dtype: np.dtype):
        self.m = m
        self.block = np.empty((n, m + 1 + capacity), dtype, order="F")
        self.coefficients = np.zeros((m + 1, m), dtype)
        self.k = self.steps = 0

    def column(self, j: int) -> np.ndarray:
        """[n] v_{j+1}."""
        return self.block[:, self.k + j]

    @property
    def C(self) -> np.ndarray:  # noqa: N802
        """[n, k] the recycled directions after Op."""
        return self.block[:, : self.k]

    @property
    def U(self) -> np.ndarray:  # noqa: N802
        """[n, k] the recycled directions before Op."""
        return self.block[:, self.m + 1 : self.m + 1 + self.k]

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
    (classical Gram-Schmidt). The second projection of v_j is delayed until Op v_j is
    known and done together with the first one of Op v_j: each pass over [C V] serves
    two vectors, which halves the traffic of memory, and one sum over processes does for
    both. The delayed correction s of v_j is of the size of rounding errors; what it
    changes in Op v_j follows from earlier columns, except its part along C, which is
    neglected. Where cancellation would make s larger, the second projection is not
    delayed.

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

    References:
        Bielich, Langou, Thomas, Swirydowicz, Yamazaki, Boman (2022), Low-synch
        Gram-Schmidt with delayed reorthogonalization for Krylov solvers, Parallel
        Computing 112, for GMRES; here with C beside V.
    """
    least_squares = LeastSquares(max_steps, kernels.dtype, beta)
    basis.steps, residual, breakdown = 0, beta, False
    while basis.steps < max_steps and residual > target and not breakdown:
        j = basis.steps
        basis.column(j + 1)[:] = op(basis.column(j), j)
        h = _finish_and_project(basis, kernels)
        size, breakdown = _normalize(basis, kernels, h)
        end = basis.k + j + 2
        basis.coefficients[: end - 1, j], basis.coefficients[end - 1, j] = h, size
        basis.coefficients[end:, j] = 0
        basis.steps = j + 1
        residual = least_squares.append(basis.coefficients[basis.k : end, j])
        on_step(residual)
    if not breakdown:
        _finish(basis, kernels)
    return Steps(least_squares.solve(), residual, breakdown)


def _finish_and_project(basis, kernels):
    """Second projection of v_j, first one of w = Op v_j, both in place.

    Returns the coefficients [k + j + 1] of w in [C v_0 ... v_j].
    """
    j, count = basis.steps, basis.k + basis.steps
    Q, X = basis.block[:, :count], basis.block[:, count : count + 2]
    products = kernels.pair(Q, X)
    kernels.subtract(X, Q, products[:count])
    s, t = products[:count].T
    scale = _record(basis, s)
    v, w = X.T
    h = products[:, 1]
    h[count] = (h[count] - np.vdot(s, t)) / scale  # v^H w
    if scale != 1.0:
        v /= scale
    kernels.axpy(-h[count], v, w)
    if j:  # w was Op of v before its correction
        h -= basis.coefficients[: count + 1, :j] @ s[basis.k :]
    if scale != 1.0:
        w /= scale
        h /= scale
    return h


def _record(basis, s):
    """Enters the correction u = Q s + scale v into the column that made u."""
    j, count = basis.steps, basis.k + basis.steps
    scale = math.sqrt(1.0 - np.vdot(s, s).real)
    if j:
        size = basis.coefficients[count, j - 1]
        basis.coefficients[:count, j - 1] += size * s
        basis.coefficients[count, j - 1] = size * scale
    return scale


def _normalize(basis, kernels, h):
    """Norm of w after the first projection; a second one at once after cancellation."""
    w = basis.column(basis.steps + 1)
    size, length = kernels.norm(w), math.sqrt(np.vdot(h, h).real)
    if size < CANCELLATION * length:
        Q = basis.block[:, : len(h)]
        correction = kernels.dot(Q, w)
        kernels.subtract(w, Q, correction)
        h += correction
        size = kernels.norm(w)
    if not math.isfinite(size):
        raise FloatingPointError(NOT_FINITE)
    if size <= BREAKDOWN * math.hypot(size, length):
        w[:] = 0
        return 0.0, True
    w *= 1 / size
    return size, False


def _finish(basis, kernels):
    """Second projection of the last vector of a cycle."""
    count = basis.k + basis.steps
    Q, v = basis.block[:, :count], basis.block[:, count]
    s = kernels.dot(Q, v)
    kernels.subtract(v, Q, s)
    v /= _record(basis, s)
