"""Interpolation that follows the coefficients, and the Galerkin coarse operator.

Coarse points are the fine points whose indices are all even. Fine points fall into 2^d
classes, the parities p of their indices; cell I holds the points 2 I + p, one of each
class. Interpolation at a point of class p from the coarse point I + c, where c <= p, is
the weight `weights[p][c]`, an array [*(M + 2)] over the cells with a halo as stencils
have it; the class of zeros copies its coarse value and is left out.
"""

import functools
import itertools

import jax
import jax.numpy as jnp

from solvers.multigrid.symmetric import (
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
def classes(num_dims: int) -> tuple[Offset, ...]:
    """Parities, those with few odd indices first."""
    parities = itertools.product((0, 1), repeat=num_dims)
    return tuple(sorted(parities, key=lambda p: (sum(p), p)))


def interpolation_weights(stencil: Stencil, periodic: tuple[int, ...] = ()) -> Weights:
    """Weights that make A e zero at fine points, from the stencil alone.

    The stencil is first summed over the axes along which a point has an even index,
    which turns a strong jump across a line into the right one-dimensional weights. What
    is left couples the point to points with fewer odd indices, whose weights are known.
    Rows with an excess on the diagonal (next to a Dirichlet side) get weights that add
    up to less than 1.

    References:
        Alcouffe, Brandt, Dendy, Painter (1981), SIAM J. Sci. Stat. Comput. 2(4).
        Dendy (1982), Black box multigrid, J. Comput. Phys. 48.
    """
    weights: Weights = {}
    for parity in classes(len(center_of(stencil)))[1:]:
        collapsed: dict = {}
        for offset, a in _rows(stencil, parity).items():
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
        planes = {rest: _interleave(*pair, axis) for rest, pair in pairs.items()}
    return planes[()]


def restrict(weights: Weights, r: jax.Array) -> jax.Array:
    """P^T r [*M] for r [*(m + 2)] with its halo."""
    total = _cells(r, (0,) * r.ndim)
    for parity, corners in weights.items():
        for c, w in corners.items():
            # The cell at distance -c reaches this coarse point with its weight c.
            total += window(w, opposite(c)) * _cells(r, parity, opposite(c))
    return total


def galerkin(
    stencil: Stencil, weights: Weights, periodic: tuple[int, ...] = ()
) -> Stencil:
    """P^T A P as values [*M] per offset of `half`, without halo.

    Rows of A P at points with odd indices only vanish by the choice of the weights
    there, so they are left out.
    """
    num_dims = len(center_of(stencil))
    products: dict = {}
    coarse: dict = {}
    for target in half(num_dims):
        terms = []
        for parity in classes(num_dims)[:-1]:
            for c, w in _row_of_transfer(weights, parity).items():
                key = parity, _plus(target, c)
                if key not in products:
                    products[key] = _product(stencil, weights, *key, periodic)
                if products[key] is not None:
                    here = window(products[key], opposite(c))
                    terms.append(here if w is None else window(w, opposite(c)) * here)
        coarse[target] = functools.reduce(jnp.add, terms)
    return coarse


def _product(stencil, weights, parity, source, periodic):
    """(A P)(x, coarse point of the cell + source) with halo, or None if all zero."""
    terms = []
    for offset, a in _rows(stencil, parity).items():
        shift, other = zip(*(divmod(i, 2) for i in _plus(parity, offset)), strict=True)
        corner = _plus(source, opposite(shift))
        row = _row_of_transfer(weights, other)
        if corner in row:
            w = row[corner]
            terms.append(a if w is None else a * window(w, shift))
    return halo(functools.reduce(jnp.add, terms), periodic) if terms else None


def _row_of_transfer(weights, parity):
    """Weights of one class; None stands for the weight 1 of a copied value."""
    return weights[parity] if any(parity) else {parity: None}


def _rows(stencil, parity):
    """Matrix rows of all fine points of one class: offset -> [*M]."""
    rows = {}
    for offset in full_offsets(stencil):
        if offset in stencil:
            rows[offset] = _cells(stencil[offset], parity)
        else:
            rows[offset] = _strided(stencil[opposite(offset)], _plus(parity, offset))
    return rows


def _cells(field, parity, shift=None):
    """Values [*M] at the points of one class, cells shifted by `shift`."""
    shift = shift or (0,) * field.ndim
    return _strided(field, tuple(p + 2 * s for p, s in zip(parity, shift, strict=True)))


def _strided(field, start):
    """Every second value of a field with halo, from fine index `start` on."""
    return field[
        tuple(
            slice(1 + s, 1 + s + n - 2, 2)
            for s, n in zip(start, field.shape, strict=True)
        )
    ]


def _interleave(even, odd, axis):
    """Values of both parities along one axis, in turn.

    On CPUs a sum of spread arrays is twice as fast as `stack` and `reshape`.
    """
    spread = [(0, 0, 0)] * even.ndim
    zero = jnp.zeros((), even.dtype)
    parts = []
    for values, edges in ((even, (0, 1, 1)), (odd, (1, 0, 1))):
        spread[axis] = edges
        parts.append(jax.lax.pad(values, zero, spread))
    return parts[0] + parts[1]


def _plus(a, b):
    return tuple(i + j for i, j in zip(a, b, strict=True))


def _times(a, b):
    return tuple(i * j for i, j in zip(a, b, strict=True))
