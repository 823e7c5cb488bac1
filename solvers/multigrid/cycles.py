"""The V(1,1) cycle: an approximate inverse of a symmetric stencil."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from solvers.multigrid import rings, symmetric, transfer
from solvers.multigrid.symmetric import Shape, Stencil, halo, window

MAX_COARSEST = 128  # unknowns that are solved with a dense inverse


class Level(NamedTuple):
    """One level that has a coarser one.

    Attributes:
        stencil: A, of even sizes, with halo.
        smoother: W [*m], see `symmetric.row_sum_weights`.
        weights: interpolation from the coarser level.
        shape: unknowns per axis, without those that make the sizes even.
        periodic: axes that wrap around.
    """

    stencil: Stencil
    smoother: jax.Array
    weights: transfer.Weights
    shape: Shape
    periodic: tuple[int, ...]


class Hierarchy(NamedTuple):
    """All levels.

    Attributes:
        levels: from fine to coarse.
        coarsest_inverse: inverse [N, N] of the coarsest matrix.
        stretched: periodic axes whose length had to change, see `rings`.
    """

    levels: tuple[Level, ...]
    coarsest_inverse: jax.Array
    stretched: tuple[rings.Ring, ...] = ()


def build_hierarchy(
    values: Stencil, periodic: tuple[int, ...] = (), *, singular: bool = False
) -> Hierarchy:
    """Coarsens a stencil to the end.

    Args:
        values: [*n] per offset of `symmetric.half`, without halo; symmetric positive
            definite, entries that leave the grid zero, diagonal of the order of 1.
        periodic: axes that wrap around.
        singular: whether A maps constants to zero; the cycle then stays definite.
    """
    center = symmetric.center_of(values)
    depth = num_levels(values[center].shape)
    lengths = enumerate(values[center].shape)
    stretched = tuple(rings.ring(k, n, depth) for k, n in lengths if k in periodic)
    stretched = tuple(ring for ring in stretched if ring.inserted.any())
    for ring in stretched:
        values = rings.stretch(values, ring)
    levels = []
    for _ in range(depth):
        values, periodic = _without_short_rings(values, periodic)
        shape = values[center].shape
        stencil = symmetric.pad_to_even(values, periodic)
        weights = transfer.interpolation_weights(stencil, periodic)
        smoother = symmetric.row_sum_weights(stencil)
        smoother = jax.lax.optimization_barrier(smoother)
        levels.append(Level(stencil, smoother, weights, shape, periodic))
        values = transfer.galerkin(stencil, weights, periodic)
        values = jax.lax.optimization_barrier(values)
    stencil = {offset: halo(a, periodic) for offset, a in values.items()}
    matrix = symmetric.dense(stencil, periodic)
    if singular:
        matrix += jnp.mean(jnp.diag(matrix)) / len(matrix)
    return Hierarchy(tuple(levels), _inverse_spd(matrix), stretched)


def num_levels(shape: Shape) -> int:
    """How often a grid is coarsened until a dense inverse takes over."""
    levels = 0
    while math.prod(shape) > MAX_COARSEST:
        shape, levels = tuple(-(-n // 2) for n in shape), levels + 1
    return levels


def v_cycle(hierarchy: Hierarchy, b: jax.Array) -> jax.Array:
    """Approximates A^-1 b, [*n]; linear, symmetric and positive in b.

    One row-sum Jacobi step from zero before and one after the coarse correction.
    """
    for ring in hierarchy.stretched:
        b = ring.spread(b)
    x = _cycle(hierarchy, 0, b)
    for ring in hierarchy.stretched:
        x = ring.collect(x)
    return jax.lax.optimization_barrier(x)


def _cycle(hierarchy, index, b):
    """The cycle from level `index` on, for b [*n] of that level."""
    if index == len(hierarchy.levels):
        return (hierarchy.coarsest_inverse @ b.ravel()).reshape(b.shape)
    stencil, W, weights, shape, periodic = hierarchy.levels[index]
    grow = [(0, m - n) for m, n in zip(W.shape, shape, strict=True)]
    b = jax.lax.optimization_barrier(jnp.pad(b, grow))
    x = halo(W * b, periodic)
    r = halo(b - symmetric.apply(stencil, x), periodic)
    e = halo(_cycle(hierarchy, index + 1, transfer.restrict(weights, r)), periodic)
    x = halo(window(x) + transfer.interpolate(weights, e), periodic)
    x = window(x) + W * (b - symmetric.apply(stencil, x))
    return x[tuple(slice(n) for n in shape)]


def _without_short_rings(values, periodic):
    """Ends the wrapping of axes that have length 1."""
    shape = values[symmetric.center_of(values)].shape
    for axis in periodic:
        if shape[axis] == 1:
            values = rings.fold(values, axis)
    return values, tuple(axis for axis in periodic if shape[axis] > 1)


def _inverse_spd(matrix):
    """Symmetric inverse in the matrix's dtype; NaN unless it is positive definite."""
    factor = jnp.linalg.cholesky(matrix.astype(jnp.float64))
    identity = jnp.eye(len(matrix), dtype=jnp.float64)
    half = jax.scipy.linalg.solve_triangular(factor, identity, lower=True)
    return (half.T @ half).astype(matrix.dtype)
