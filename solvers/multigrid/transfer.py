"""Interpolation that follows the coefficients, and the Galerkin coarse operator.

Coarse points are the fine points with two even indices. Fine points fall into four
classes (p1, p2), the parities of their indices; cell (I, J) holds the four points
(2 I + p1, 2 J + p2). Interpolation at a point of class p from the coarse point
(I, J) + d is the weight `weights[p][d]`, an array [M1 + 2, M2 + 2] over the cells,
with a halo of zeros; class (0, 0) copies its coarse value.
"""

import itertools

import jax
import jax.numpy as jnp

from solvers.multigrid.symmetric import (
    CENTER,
    HALF,
    Stencil,
    full_offsets,
    halo,
    opposite,
    window,
)

Weights = dict[tuple[int, int], dict[tuple[int, int], jax.Array]]
CLASSES = ((0, 0), (1, 0), (0, 1), (1, 1))
BOTH = (0, 1)


def interpolation_weights(stencil: Stencil) -> Weights:
    """Weights that make A e zero at fine points, from the stencil alone.

    Where one index is odd, the stencil is first summed over the other axis, which
    turns a strong jump across the line into the right one-dimensional weights; where
    both are odd, the whole row is used. Rows with an excess on the diagonal (next to a
    Dirichlet boundary) get weights that add up to less than 1.

    References:
        Alcouffe, Brandt, Dendy, Painter (1981), SIAM J. Sci. Stat. Comput. 2(4).
        Dendy (1982), Black box multigrid, J. Comput. Phys. 48.
    """
    weights = {}
    for axis, parity in ((0, (1, 0)), (1, (0, 1))):
        rows = _rows(stencil, parity)
        collapsed = {
            step: sum(a for offset, a in rows.items() if offset[axis] == step)
            for step in (-1, 0, 1)
        }
        weights[parity] = {
            (0, 0): halo(-collapsed[-1] / collapsed[0]),
            parity: halo(-collapsed[1] / collapsed[0]),
        }
    rows = _rows(stencil, (1, 1))
    weights[1, 1] = {}
    for c1, c2 in itertools.product(BOTH, BOTH):
        s1, s2 = 2 * c1 - 1, 2 * c2 - 1
        total = rows[s1, 0] * window(weights[0, 1][0, c2], (c1, 0))
        total += rows[0, s2] * window(weights[1, 0][c1, 0], (0, c2))
        if (s1, s2) in rows:
            total += rows[s1, s2]
        weights[1, 1][c1, c2] = halo(-total / rows[CENTER])
    return weights


def interpolate(weights: Weights, e: jax.Array) -> jax.Array:
    """P e [m1, m2] for coarse values e [M1 + 2, M2 + 2] with their halo."""
    planes = {(0, 0): window(e)}
    for parity, corners in weights.items():
        planes[parity] = sum(window(w) * window(e, d) for d, w in corners.items())
    lines = [jnp.stack([planes[p, 0], planes[p, 1]], axis=-1) for p in BOTH]
    m1, m2 = planes[0, 0].shape
    return jnp.stack(lines, axis=1).reshape(2 * m1, 2 * m2)


def restrict(weights: Weights, r: jax.Array) -> jax.Array:
    """P^T r [M1, M2] for r [m1 + 2, m2 + 2] with its halo."""
    total = _cells(r, (0, 0))
    for parity, corners in weights.items():
        for d, w in corners.items():
            # The cell at distance -d reaches this coarse point with its weight d.
            total += window(w, opposite(d)) * _cells(r, parity, opposite(d))
    return total


def galerkin(stencil: Stencil, weights: Weights) -> Stencil:
    """P^T A P as values [M1, M2] per offset of `HALF`, without halo.

    Rows of A P at points with two odd indices vanish by the choice of the weights
    there, so they are left out.
    """
    products: dict = {}
    coarse = dict.fromkeys(HALF, 0.0)
    for parity, target in itertools.product(CLASSES[:3], HALF):
        for d, w in _row_of_transfer(weights, parity).items():
            source = (target[0] + d[0], target[1] + d[1])
            if (parity, source) not in products:
                products[parity, source] = _product(stencil, weights, parity, source)
            product = products[parity, source]
            if product is None:
                continue
            here = window(product, opposite(d))
            coarse[target] += here if w is None else window(w, opposite(d)) * here
    return coarse


def _product(stencil, weights, parity, source):
    """(A P)(x, coarse point of the cell + source) with halo, or None if all zero."""
    total = None
    for offset, a in _rows(stencil, parity).items():
        (s1, p1), (s2, p2) = (
            divmod(p + o, 2) for p, o in zip(parity, offset, strict=True)
        )
        d = (source[0] - s1, source[1] - s2)
        row = _row_of_transfer(weights, (p1, p2))
        if d in row:
            w = row[d]
            term = a if w is None else a * window(w, (s1, s2))
            total = term if total is None else total + term
    return None if total is None else halo(total)


def _row_of_transfer(weights, parity):
    """Weights of one class; None stands for the weight 1 of a copied value."""
    return {CENTER: None} if parity == (0, 0) else weights[parity]


def _rows(stencil, parity):
    """Matrix rows of all fine points of one class: offset -> [M1, M2]."""
    rows = {}
    for offset in full_offsets(stencil):
        if offset in stencil:
            rows[offset] = _cells(stencil[offset], parity)
        else:
            start = (parity[0] + offset[0], parity[1] + offset[1])
            rows[offset] = _strided(stencil[opposite(offset)], start)
    return rows


def _cells(field, parity, shift=CENTER):
    """Values [M1, M2] at the points of one class, cells shifted by `shift`."""
    return _strided(field, (parity[0] + 2 * shift[0], parity[1] + 2 * shift[1]))


def _strided(field, start):
    """Every second value of a field with halo, from fine index `start` on."""
    (m1, m2), (s1, s2) = (n - 2 for n in field.shape), start
    return field[1 + s1 : 1 + s1 + m1 : 2, 1 + s2 : 1 + s2 + m2 : 2]
