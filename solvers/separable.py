"""Finds the one-dimensional operators that a separable operator consists of."""

from typing import NamedTuple

import numpy as np

from solvers import reference
from solvers.fast_diagonalization import Basis, Line, basis, generalised_basis
from solvers.star import Star, inner

TOLERANCE = 1e-6  # relative: each refinement with the separable part gains that much
ROUNDING = 2e-13  # relative: of links and weights that count as constant


class Factors(NamedTuple):
    """A = sum over axes k of T_k x (the weights W of the other axes).

    Attributes:
        matrices: T per axis, [n, n] symmetric, tridiagonal but for corners where the
            axis is periodic.
        weights: W per axis, [n] positive.
    """

    matrices: tuple[np.ndarray, ...]
    weights: tuple[np.ndarray, ...]


def separate(star: Star) -> Factors | str:
    """The factors of an operator in NumPy float64, or why it has none.

    Separable are constant coefficients, products a(x) b(y) ..., spacings that change
    along their own axis, reaction terms that are sums of functions of one coordinate
    times a, each with any sides; all of it up to 1e-6.
    """
    if any(link.min() < 0 for link in star.links):
        return "there are couplings of both signs"
    num_dims = star.excess.ndim
    cores = [
        inner(link, axis, axis in star.periodic) for axis, link in enumerate(star.links)
    ]
    weights = [_weights(cores, k, n) for k, n in enumerate(star.excess.shape)]
    lines = []
    for axis, core in enumerate(cores):
        across = _product(weights, axis)
        others = tuple(k for k in range(num_dims) if k != axis)
        line = core.sum(others) / across.sum()
        if not _close(core, reference.on_axis(line, axis, num_dims) * across):
            return (
                f"links along axis {axis} are no products of functions of one "
                "coordinate each"
            )
        lines.append(line)
    volume = reference.volumes(weights)
    density = star.excess / volume
    parts = [
        density.mean(tuple(k for k in range(num_dims) if k != axis))
        for axis in range(num_dims)
    ]
    # A constant can stand along any axis: the first has it, the others are zero in the
    # middle, so that what is left there are sides.
    middles = [part[part.size // 2] for part in parts]
    shift = sum(middles) - (num_dims - 1) * density.mean()
    parts = [part - middle for part, middle in zip(parts, middles, strict=True)]
    parts[0] = parts[0] + shift
    model = sum(reference.on_axis(p, k, num_dims) for k, p in enumerate(parts)) * volume
    size = TOLERANCE * max(abs(link).max(initial=0.0) for link in star.links)
    if not _close(star.excess, model, size):
        return "reaction term or sides are no sums of functions of one coordinate"
    matrices = []
    for axis, (line, weight, part) in enumerate(
        zip(lines, weights, parts, strict=True)
    ):
        matrices.append(_matrix(line, weight * part, axis in star.periodic))
    return Factors(tuple(matrices), tuple(weights))


def _weights(cores, axis, n):
    """Relative size of the links along other axes, by position along this axis."""
    for other, core in enumerate(cores):
        if other != axis and core.size:
            sums = core.sum(tuple(k for k in range(core.ndim) if k != axis))
            if np.all(sums > 0):
                return sums / sums.mean()
    return np.ones(n)


def _product(weights, axis):
    """Product of the weights of the other axes, [*grid] but 1 along this axis."""
    weights = [np.ones(1) if k == axis else w for k, w in enumerate(weights)]
    return reference.volumes(weights)


def _close(values, model, size=0.0):
    return bool(np.all(abs(values - model) <= TOLERANCE * abs(values) + size))


def _matrix(links, excess, periodic):
    """T [n, n] from the links between neighbours, [n - 1] or if periodic [n]."""
    n = excess.size
    T = np.diag(excess)
    rows = np.arange(links.size)
    after = (rows + 1) % n
    for i, j in ((rows, after), (after, rows)):
        np.add.at(T, (i, i), links)
        np.add.at(T, (i, j), -links)
    return T


class Known(NamedTuple):
    """T = scale times that of a line plus shift W, W = middle times its weights."""

    line: Line
    scale: float
    middle: float
    shift: float

    def values(self, values: np.ndarray) -> np.ndarray:
        """Eigenvalues of T from those of the line."""
        return values * self.scale / self.middle + self.shift


def recognise(matrix: np.ndarray, weights: np.ndarray, periodic: bool) -> Known | None:
    """The line of constant coefficients that T and W, see `Factors`, belong to."""
    n = weights.size
    if n == 1:
        return None
    middle, excess = weights[n // 2], matrix.sum(1)
    faces = _faces(matrix, periodic)
    scale = faces[1:2].mean()
    shift = excess[n // 2] / middle
    # Sums over the grid and differences of couplings leave some rounding.
    shift = 0.0 if abs(shift) * middle <= ROUNDING * scale else shift
    star = Star(excess - shift * weights, (faces,), (0,) * periodic)
    ends, _ = reference.end_ratios(star)
    sides = np.array([[weights[0] / middle, weights[-1] / middle]])
    (line,) = reference.unit_lines((n,), star.periodic, ends, sides)
    model = np.zeros(n)
    model[0] += scale * line.ends[0]
    model[-1] += scale * line.ends[1]
    gaps = abs(star.excess - model).max(), abs(inner(faces, 0, periodic) - scale).max()
    if max(gaps) > ROUNDING * scale:
        return None
    if not np.allclose(weights, middle * line.weights(), rtol=ROUNDING, atol=0):
        return None
    return Known(line, scale, middle, shift)


def basis_of(matrix: np.ndarray, weights: np.ndarray, periodic: bool) -> Basis:
    """Eigenvalues and vectors of T q = lambda W q, see `Factors`.

    Constant coefficients get the closed formulas, from a cache.
    """
    found = recognise(matrix, weights, periodic)
    if found is None:
        return generalised_basis(matrix, weights)
    values, vectors = basis(found.line)
    return Basis(found.values(values), vectors / np.sqrt(found.middle))


def _faces(matrix, periodic):
    around = -matrix[0, -1] if periodic else 0.0
    return np.concatenate([[around], -np.diag(matrix, 1), [around]])
