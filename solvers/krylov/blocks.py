"""Blocks of long vectors whose rows may be spread over processes.

Krylov methods see local rows only. Every inner product ends in `Rows.reduce`, every
orthogonalisation of a block in `orthonormalize`; one process and several run the same
code, and all processes take the same decisions because they see the same sums.
"""

from typing import NamedTuple, Protocol

import numpy as np
import scipy.linalg
from scipy.linalg import blas

DROP_TOLERANCE = 1e-10


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
        self._adjoint = 2 if prefix == "z" else 1

    def dot(self, Q: np.ndarray, w: np.ndarray) -> np.ndarray:
        """Q^H w [j] for Q [n, j] and w [n], summed over processes."""
        if Q.shape[1] == 0 or Q.shape[0] == 0:
            return self.rows.reduce(np.zeros(Q.shape[1], self.dtype))
        return self.rows.reduce(self._gemv(1.0, Q, w, trans=self._adjoint))

    def gram(self, Q: np.ndarray, Y: np.ndarray) -> np.ndarray:
        """Q^H Y [i, j] for Q [n, i] and Y [n, j], summed over processes."""
        if Q.shape[1] == 0 or Y.shape[1] == 0 or Q.shape[0] == 0:
            local = np.zeros((Q.shape[1], Y.shape[1]), self.dtype)
        else:
            local = self._gemm(1.0, Q, Y, trans_a=self._adjoint)
        return self.rows.reduce(local)

    def subtract(self, w: np.ndarray, Q: np.ndarray, h: np.ndarray) -> None:
        """W <- w - Q h, in place; w [n] contiguous."""
        if Q.shape[1] and Q.shape[0]:
            self._gemv(-1.0, Q, h, beta=1.0, y=w, overwrite_y=1)

    def combine(self, out: np.ndarray, pairs) -> None:
        """Out <- sum of Q T over the pairs (Q [n, i], T [i, j]); all of one order."""
        beta = 0.0
        for Q, T in pairs:
            if Q.shape[1] and Q.shape[0]:
                self._gemm(1.0, Q, T, beta=beta, c=out, overwrite_c=1)
                beta = 1.0

    def norm(self, w: np.ndarray) -> float:
        """||w||_2 over all processes."""
        square = self.rows.reduce(np.array([np.vdot(w, w).real]))[0]
        return float(np.sqrt(square))


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

    Columns are scaled to norm one first, so that the result does not depend on how
    they are scaled. Every process factorises its rows by Householder reflections; the
    small triangles are stacked and factorised with pivoting (TSQR).

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
    squares = np.einsum("ij,ij->j", Z.conj(), Z).real
    scale = np.sqrt(rows.reduce(squares))
    if not np.isfinite(scale).all():
        raise FloatingPointError("a block of vectors holds NaN or infinite values")
    scale[scale == 0] = 1.0
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
