"""Blocks of long vectors whose rows may be spread over processes.

Krylov methods see local rows only. Every inner product ends in `Rows.reduce`, every
orthogonalisation of a block in `orthonormalize`; one process and several run the same
code, and all processes take the same decisions because they see the same sums.
"""

import math
from typing import NamedTuple, Protocol

import numpy as np
import scipy.linalg
from scipy.linalg import blas

DROP_TOLERANCE = 1e-10
SAFE_CONDITION = 1e10  # of the Gram matrix: Z itself is below 1e5
CHUNK = 1024  # rows; a third faster than one product over all rows for 40 columns


class Rows(Protocol):
    """Who owns which rows of the long vectors.

    Attributes:
        rank: number of this process, from 0.
    """

    rank: int

    def reduce(self, values: np.ndarray) -> np.ndarray:
        """Sum over all processes, elementwise, the same array on each of them."""

    def gather(self, values: np.ndarray) -> list[np.ndarray]:
        """The arrays of all processes, in the order of their ranks."""


class SerialRows:
    """One process owns all rows."""

    rank = 0

    def reduce(self, values: np.ndarray) -> np.ndarray:
        """The values as they are."""
        return values

    def gather(self, values: np.ndarray) -> list[np.ndarray]:
        """A list of one."""
        return [values]


SERIAL = SerialRows()


def _chunks(n):
    """Rows in pieces that stay in the cache while a block product uses them twice."""
    return [slice(start, start + CHUNK) for start in range(0, n, CHUNK)]


class Kernels:
    """BLAS on Fortran-ordered blocks [n, j] without temporary copies.

    Args:
        dtype: float64 or complex128.
        rows: who owns which rows.
    """

    def __init__(self, dtype: np.dtype, rows: Rows = SERIAL):
        self.dtype, self.rows = np.dtype(dtype), rows
        prefix = "z" if self.dtype.kind == "c" else "d"
        self._gemv = getattr(blas, prefix + "gemv")
        self._gemm = getattr(blas, prefix + "gemm")
        self._axpy = getattr(blas, prefix + "axpy")
        self._adjoint = 2 if prefix == "z" else 1

    def dot(self, Q: np.ndarray, w: np.ndarray) -> np.ndarray:
        """Q^H w [j] for Q [n, j] and w [n], summed over processes."""
        if Q.shape[1] == 0 or Q.shape[0] == 0:
            return self.rows.reduce(np.zeros(Q.shape[1], self.dtype))
        return self.rows.reduce(self._gemv(1.0, Q, w, trans=self._adjoint))

    def gram(self, Q: np.ndarray, Y: np.ndarray) -> np.ndarray:
        """Q^H Y [i, j] for Q [n, i] and Y [n, j], summed over processes."""
        total = np.zeros((Q.shape[1], Y.shape[1]), self.dtype)
        for rows in _chunks(len(Q)):
            total += Q[rows].conj().T @ Y[rows]
        return self.rows.reduce(total)

    def pair(self, Q: np.ndarray, X: np.ndarray) -> np.ndarray:
        """Q^H X [j, 2] and X[:, 0]^H X[:, 1] below it, for X [n, 2], in one sum."""
        local = np.empty((Q.shape[1] + 1, 2), self.dtype)
        if Q.shape[1] and Q.shape[0]:
            local[:-1] = self._gemm(1.0, Q, X, trans_a=self._adjoint)
        local[-1, 0] = 0.0
        local[-1, 1] = np.vdot(X[:, 0], X[:, 1])
        return self.rows.reduce(local)

    def subtract(self, w: np.ndarray, Q: np.ndarray, h: np.ndarray) -> None:
        """W <- w - Q h, in place; w [n] or [n, 2] in Fortran order."""
        if not (Q.shape[1] and Q.shape[0]):
            return
        if w.ndim == 1:
            self._gemv(-1.0, Q, h, beta=1.0, y=w, overwrite_y=1)
        else:
            self._gemm(-1.0, Q, h, beta=1.0, c=w, overwrite_c=1)

    def axpy(self, a: complex, x: np.ndarray, y: np.ndarray) -> None:
        """Y <- y + a x, in place, for contiguous [n]."""
        if len(x):
            self._axpy(x, y, a=a)

    def combine(self, out: np.ndarray, pairs) -> None:
        """Out <- sum of Q T over the pairs (Q [n, i], T [i, j])."""
        self.combine_all([(out, pairs)])

    def combine_all(self, sums) -> None:
        """Like `combine` for several (out, pairs), in one pass over the rows."""
        for rows in _chunks(len(sums[0][0])):
            for out, pairs in sums:
                target = out[rows].T
                for count, (Q, T) in enumerate(pairs):
                    if count == 0:
                        np.matmul(T.T, Q[rows].T, out=target)
                    else:
                        target += T.T @ Q[rows].T

    def norm(self, w: np.ndarray) -> float:
        """||w||_2 over all processes."""
        return math.sqrt(self.rows.reduce(np.array([np.vdot(w, w).real]))[0])


class Orthonormal(NamedTuple):
    """What `orthonormalize` found: Z[:, kept] = Q R.

    Attributes:
        Q: [n, j] local rows of orthonormal columns, Fortran order.
        R: [j, j] upper triangular and well conditioned.
        kept: [j] columns of Z that were kept, in the order of the pivots.
    """

    Q: np.ndarray
    R: np.ndarray
    kept: np.ndarray


def orthonormalize(
    Z: np.ndarray, rows: Rows = SERIAL, drop: float = DROP_TOLERANCE
) -> Orthonormal:
    """QR of a block with column pivoting that drops dependent columns.

    Columns count as if scaled to norm one, so that the result does not depend on how
    they are scaled. Well-conditioned blocks take two rounds of Cholesky QR, which is
    five times faster. For others every process factorises its rows by Householder
    reflections; the small triangles are stacked and factorised with pivoting (TSQR).

    Args:
        Z: [n, k] local rows.
        rows: who owns which rows.
        drop: a column goes if its pivot is below `drop` times the largest.

    Raises:
        FloatingPointError: if Z holds NaN or infinite values.

    References:
        Demmel, Grigori, Hoemmen, Langou (2012), Communication-optimal parallel and
        sequential QR and LU factorizations, SIAM J. Sci. Comput. 34(1).
    """
    kernels = Kernels(Z.dtype, rows)
    gram = kernels.gram(Z, Z)
    scale = np.sqrt(np.diag(gram).real)
    if not np.isfinite(scale).all():
        raise FloatingPointError("a block of vectors holds NaN or infinite values")
    scale[scale == 0] = 1.0
    if np.linalg.cond(gram / np.outer(scale, scale)) < SAFE_CONDITION:
        return _cholesky_qr(Z, gram, kernels)
    Q_local, R_local = np.linalg.qr(Z / scale)
    triangles = rows.gather(R_local)
    Q_small, R, pivots = scipy.linalg.qr(
        np.concatenate(triangles), mode="economic", pivoting=True
    )
    size = np.abs(np.diag(R))
    rank = int(np.sum(size > drop * max(size.max(initial=0.0), np.finfo(float).tiny)))
    first = sum(len(triangle) for triangle in triangles[: rows.rank])
    mine = Q_small[first : first + len(R_local), :rank]
    kept = pivots[:rank]
    Q = np.asfortranarray(Q_local @ mine)
    return Orthonormal(Q, R[:rank, :rank] * scale[kept], kept)


def _cholesky_qr(Z, gram, kernels):
    """Two rounds of Cholesky QR: orthonormal to rounding for well-conditioned Z."""
    Q, R = Z, np.eye(Z.shape[1])
    for matrix in (gram, None):
        matrix = kernels.gram(Q, Q) if matrix is None else matrix
        step = scipy.linalg.cholesky(matrix, check_finite=False)
        inverse = scipy.linalg.solve_triangular(
            step, np.eye(len(step)), check_finite=False
        )
        out = np.empty_like(Z, order="F")
        kernels.combine(out, [(Q, inverse)])
        Q, R = out, step @ R
    return Orthonormal(Q, R, np.arange(Z.shape[1]))
