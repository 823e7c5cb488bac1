"""Interpolation that follows the coefficients, and the Galerkin coarse operator.

Coarse points are the fine points whose indices are all even. Fine points fall into 2^d
classes, the parities p of their indices; cell I holds the points 2 I + p, one of each
class. Where only some `axes` are coarsened, parities along the others are zero, and a
cell has one index along them. Interpolation at a point of class p from the coarse point
I + c, where c <= p, is the weight `weights[p][c]`, an array [*(M + 2)] over the cells
with a halo as stencils have it; the class of zeros copies its coarse value and is left
out.
"""

import functools
import itertools

import jax
import jax.numpy as jnp

from solvers.multigrid.symmetric import (
    Axes,
    Offset,
    Stencil,
    center_of,
    full_offsets,
    half,
    halo,
    opposite,
    window,
)

Weights = dict[Offset, dict[Offset, jax.Array]]


@functools.cache
def classes(num_dims: int, axes: Axes = None) -> tuple[Offset, ...]:
    """Parities, those with few odd indices first."""
    choices = [(0, 1) if axes is None or k in axes else (0,) for k in range(num_dims)]
    parities = itertools.product(*choices)
    return tuple(sorted(parities, key=lambda p: (sum(p), p)))


def interpolation_weights(
    stencil: Stencil, periodic: tuple[int, ...] = (), axes: Axes = None
) -> Weights:
    """Weights that make A e zero at fine points, from the stencil alone.

    The stencil is first summed over the axes along which a point is not between others,
    which turns a strong jump across a line into the right one-dimensional weights. What
    is left couples the point to points with fewer odd indices, whose weights are known.
    Rows with an excess on the diagonal (next to a Dirichlet side) get weights that add
    up to less than 1.

    References:
        Alcouffe, Brandt, Dendy, Painter (1981), SIAM J. Sci. Stat. Comput. 2(4).
        Dendy (1982), Black box multigrid, J. Comput. Phys. 48.
    """
    weights: Weights = {}
    for parity in classes(len(center_of(stencil)), axes)[1:]:
        collapsed: dict = {}
        for offset, a in rows(stencil, parity, axes).items():
            step = _times(offset, parity)
            collapsed[step] = collapsed[step] + a if step in collapsed else a
        pivot = collapsed.pop(center_of(stencil))
        pivot = -1 / jnp.where(pivot == 0, 1.0, pivot)
        totals: dict = {}
        for step, a in collapsed.items():
            shift = tuple(int(s > 0) for s in step)
            known = tuple(int(p and not s) for p, s in zip(parity, step, strict=True))
            for corner, w in _row_of_transfer(weights, known).items():
                term = a if w is None else a * window(w, shift)
                target = _plus(corner, shift)
                totals[target] = totals[target] + term if target in totals else term
        weights[parity] = {
            corner: halo(pivot * total, periodic) for corner, total in totals.items()
        }
    return weights


def interpolate(weights: Weights, e: jax.Array) -> jax.Array:
    """P e [*m] for coarse values e [*(M + 2)] with their halo."""
    planes = {(0,) * e.ndim: window(e)}
    for parity, corners in weights.items():
        planes[parity] = sum(window(w) * window(e, c) for c, w in corners.items())
    for axis in reversed(range(e.ndim)):
        pairs: dict = {}
        for parity in sorted(planes):
            pairs.setdefault(parity[:axis], []).append(planes[parity])
        planes = {rest: _interleave(axis, *pair) for rest, pair in pairs.items()}
        if axis == e.ndim - 1:
            # Rows are contiguous from here on: one pass that XLA turns into vector
            # loops, if it does not compute what goes into them a second time.
            planes = jax.lax.optimization_barrier(planes)
    return planes[()]


def restrict(weights: Weights, r: jax.Array, axes: Axes = None) -> jax.Array:
    """P^T r [*M] for r [*(m + 2)] with its halo."""
    total = strided(r, (0,) * r.ndim, axes)
    for parity, corners in weights.items():
        for c, w in corners.items():
            # The cell at distance -c reaches this coarse point with its weight c.
            start = tuple(p - 2 * i for p, i in zip(parity, c, strict=True))
            total += window(w, opposite(c)) * strided(r, start, axes)
    return total


def galerkin(
    stencil: Stencil,
    weights: Weights,
    periodic: tuple[int, ...] = (),
    axes: Axes = None,
) -> Stencil:
    """P^T A P as values [*M] per offset of `half` that can occur, without halo.

    Rows of A P at points with odd indices only vanish by the choice of the weights
    there, so they are left out.
    """
    num_dims = len(center_of(stencil))
    parities = classes(num_dims, axes)
    if all(parities[-1]):
        parities = parities[:-1]
    products: dict = {}
    coarse: dict = {}
    for target in half(num_dims):
        terms = []
        for parity in parities:
            for c, w in _row_of_transfer(weights, parity).items():
                key = parity, _plus(target, c)
                if key not in products:
                    products[key] = _product(stencil, weights, *key, periodic, axes)
                if products[key] is not None:
                    here = window(products[key], opposite(c))
                    terms.append(here if w is None else window(w, opposite(c)) * here)
        if terms:
            coarse[target] = functools.reduce(jnp.add, terms)
    return coarse


def _product(stencil, weights, parity, source, periodic, axes):
    """(A P)(x, coarse point of the cell + source) with halo, or None if all zero."""
    terms = []
    steps = _steps(len(parity), axes)
    for offset, a in rows(stencil, parity, axes).items():
        reached = zip(_plus(parity, offset), steps, strict=True)
        shift, other = zip(*(divmod(i, step) for i, step in reached), strict=True)
        corner = _plus(source, opposite(shift))
        row = _row_of_transfer(weights, other)
        if corner in row:
            w = row[corner]
            terms.append(a if w is None else a * window(w, shift))
    return halo(functools.reduce(jnp.add, terms), periodic) if terms else None


def _row_of_transfer(weights, parity):
    """Weights of one class; None stands for the weight 1 of a copied value."""
    return weights[parity] if any(parity) else {parity: None}


def rows(stencil: Stencil, parity: Offset, axes: Axes = None) -> Stencil:
    """Matrix rows of all fine points of one class: offset -> [*M]."""
    found = {}
    for offset in full_offsets(stencil):
        if offset in stencil:
            found[offset] = strided(stencil[offset], parity, axes)
        else:
            start = _plus(parity, offset)
            found[offset] = strided(stencil[opposite(offset)], start, axes)
    return found


def strided(field: jax.Array, start: Offset, axes: Axes = None) -> jax.Array:
    """Every second value along the axes of a field with halo, from `start` on."""
    return field[
        tuple(
            slice(1 + s, 1 + s + n - 2, step)
            for s, n, step in zip(
                start, field.shape, _steps(field.ndim, axes), strict=True
            )
        )
    ]


def _steps(num_dims, axes):
    """Fine points per coarse point along each axis."""
    return tuple(2 if axes is None or k in axes else 1 for k in range(num_dims))


def _interleave(axis, even, odd=None):
    """Values of both parities along one axis, in turn; the even ones if alone."""
    if odd is None:
        return even
    shape = [n * (1 + (k == axis)) for k, n in enumerate(even.shape)]
    return jnp.stack([even, odd], axis + 1).reshape(shape)


def _plus(a, b):
    return tuple(i + j for i, j in zip(a, b, strict=True))


def _times(a, b):
    return tuple(i * j for i, j in zip(a, b, strict=True))
