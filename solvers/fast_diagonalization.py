"""Eigenvectors of one-dimensional second differences: grids' separable operators.

L = sum_k s_k T_k x (the weights W of the other axes), T_k = tridiagonal (-1, 2, -1)
with the end rows of the boundary conditions, is diagonal in the products of the vectors
of T q = lambda W q: L^-1 = (Q_1 x Q_2 ...) (sum_k s_k lambda_k)^-1 (Q_1 x Q_2 ...)^T.
"""

import dataclasses
import functools
from typing import NamedTuple

import numpy as np
import scipy.linalg

NODE_WALL, CELL_WALL, CLOSED = 1.0, 2.0, 0.0  # links at the ends, in units of a / h^2


@dataclasses.dataclass(frozen=True)
class Line:
    """The unit-coefficient operator along one axis.

    Attributes:
        n: unknowns.
        ends: links from the first and the last unknown to where u is zero, in units of
            the inner ones: 1 at a wall one step away, 2 half a step away, 0 without
            flux, anything between at Robin sides. Zero if periodic.
        halves: whether the first and the last unknown stand for half a cell.
        periodic: whether the axis wraps around.
    """

    n: int
    ends: tuple[float, float] = (CLOSED, CLOSED)
    halves: tuple[bool, bool] = (False, False)
    periodic: bool = False

    def mirrored(self) -> "Line":
        """The same line read from its other end."""
        return Line(self.n, self.ends[::-1], self.halves[::-1], self.periodic)

    def weights(self) -> np.ndarray:
        """W [n]: sizes of the cells around the unknowns."""
        weights = np.ones(self.n)
        for end, half in zip((0, -1), self.halves, strict=True):
            weights[end] *= 0.5 if half else 1.0
        return weights

    def matrix(self) -> np.ndarray:
        """T [n, n]."""
        links = np.ones(self.n - 1)
        T = np.diag(np.append(links, 0) + np.insert(links, 0, 0))
        T -= np.diag(links, 1) + np.diag(links, -1)
        T[0, 0] += self.ends[0]
        T[-1, -1] += self.ends[1]
        if self.periodic:
            T[[0, -1], [0, -1]] += 1
            T[[0, -1], [-1, 0]] -= 1
        return T


class Basis(NamedTuple):
    """T Q = W Q diag(values) and Q^T W Q = I.

    Attributes:
        values: [n] eigenvalues, of any order.
        vectors: Q [n, n], one vector per column.
    """

    values: np.ndarray
    vectors: np.ndarray


@functools.lru_cache(maxsize=64)
def basis(line: Line) -> Basis:
    """Closed formulas for walls, closed and periodic ends; numerical for other ends.

    The arrays are shared between callers and cannot be written to.

    References:
        Strang (1999), The discrete cosine transform, SIAM Review 41(1), for the cosine
        bases; Lynch, Rice, Thomas (1964), Numer. Math. 6, for the use of all of them.
    """
    found = _closed_form(line)
    if found is None and (back := _closed_form(line.mirrored())) is not None:
        found = Basis(back.values, back.vectors[::-1].copy())
    if found is None:
        found = generalised_basis(line.matrix(), line.weights())
    for array in found:
        array.flags.writeable = False
    return found


def generalised_basis(matrix: np.ndarray, weights: np.ndarray) -> Basis:
    """The basis of any symmetric T [n, n] and positive weights [n], in O(n^3) steps."""
    root = np.sqrt(weights)
    values, vectors = scipy.linalg.eigh(matrix / root[:, None] / root, driver="evd")
    return Basis(values, vectors / root[:, None])


def _closed_form(line: Line) -> Basis | None:
    """The seven cases that have one, with walls at the lower end; None for others."""
    n, k = line.n, np.arange(1, line.n + 1)
    match (line.periodic, line.ends, line.halves):
        case (True, (0.0, 0.0), (False, False)):
            return _real_fourier(n)
        case (False, (1.0, 1.0), (False, False)):  # DST-I
            angles, vectors = k / (n + 1), _sines(k, k, 2 * (n + 1))
        case (False, (1.0, 0.0), (False, True)):
            angles, vectors = (k - 0.5) / n, _sines(k, 2 * k - 1, 4 * n)
        case (False, (2.0, 2.0), (False, False)):  # DST-II
            angles, vectors = k / n, _sines(2 * k - 1, k, 4 * n)
        case (False, (2.0, 0.0), (False, False)):  # DST-IV
            angles, vectors = (k - 0.5) / n, _sines(2 * k - 1, 2 * k - 1, 8 * n)
        case (False, (0.0, 0.0), (False, False)):  # DCT-II
            angles, vectors = (k - 1) / n, _sines(2 * k - 1, k - 1, 4 * n, shift=n)
        case (False, (0.0, 0.0), (True, True)) if n > 1:  # DCT-I
            period = 4 * (n - 1)
            angles = (k - 1) / (n - 1)
            vectors = _sines(2 * k - 2, k - 1, period, shift=n - 1)
        case _:
            return None
    norms = np.sqrt(line.weights() @ vectors**2)
    return Basis(4 * np.sin(np.pi / 2 * angles) ** 2, vectors / norms)


def _sines(rows, columns, period, shift=0):
    """sin(2 pi (i k + shift) / period), reduced in integers: exact to rounding."""
    return np.sin(
        2 * np.pi * ((np.multiply.outer(rows, columns) + shift) % period) / period
    )


def _real_fourier(n):
    """1, cosine and sine of every wavenumber, and for even n the alternating vector."""
    waves = (np.arange(n) + 1) // 2
    sine = (np.arange(n) % 2 == 0) & (np.arange(n) > 0)
    phase = (np.multiply.outer(4 * np.arange(n), waves) + n * ~sine) % (4 * n)
    vectors = np.sin(2 * np.pi * phase / (4 * n))
    norms = np.sqrt((vectors**2).sum(0))
    return Basis(4 * np.sin(np.pi * waves / n) ** 2, vectors / norms)
