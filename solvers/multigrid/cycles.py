"""The V(1,1) cycle: an approximate inverse of a symmetric stencil."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from solvers.multigrid import symmetric, transfer
from solvers.multigrid.symmetric import Shape, Stencil, halo, window

MAX_COARSEST = 64  # unknowns that are solved with a dense inverse


class Level(NamedTuple):
    """One level that has a coarser one.

    Attributes:
        stencil: A, of even sizes, with halo.
        smoother: W [*m], see `symmetric.row_sum_weights`.
        weights: interpolation from the coarser level.
        shape: unknowns per axis, without those that make the sizes even.
    """

    stencil: Stencil
    smoother: jax.Array
    weights: transfer.Weights
    shape: Shape


class Hierarchy(NamedTuple):
    """Levels from fine to coarse, and the inverse [N, N] of the coarsest matrix."""

    levels: tuple[Level, ...]
    coarsest_inverse: jax.Array
    periodic: tuple[int, ...]


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
    levels = []
    while math.prod(shape := values[symmetric.center_of(values)].shape) > MAX_COARSEST:
        stencil = symmetric.pad_to_even(values, periodic)
        weights = transfer.interpolation_weights(stencil, periodic)
        smoother = symmetric.row_sum_weights(stencil)
        smoother = jax.lax.optimization_barrier(smoother)
        levels.append(Level(stencil, smoother, weights, shape))
        values = transfer.galerkin(stencil, weights, periodic)
        values = jax.lax.optimization_barrier(values)
    stencil = {offset: halo(a, periodic) for offset, a in values.items()}
    matrix = symmetric.dense(stencil, periodic)
    if singular:
        matrix += jnp.mean(jnp.diag(matrix)) / len(matrix)
    return Hierarchy(tuple(levels), _inverse_spd(matrix), periodic)


def v_cycle(hierarchy: Hierarchy, b: jax.Array) -> jax.Array:
    """Approximates A^-1 b, [*n]; linear, symmetric and positive in b.

    One row-sum Jacobi step from zero before and one after the coarse correction.
    """
    return jax.lax.optimization_barrier(_cycle(hierarchy, 0, b))


def _cycle(hierarchy, index, b):
    """The cycle from level `index` on, for b [*n] of that level."""
    if index == len(hierarchy.levels):
        return (hierarchy.coarsest_inverse @ b.ravel()).reshape(b.shape)
    stencil, W, weights, shape = hierarchy.levels[index]
    periodic = hierarchy.periodic
    grow = [(0, m - n) for m, n in zip(W.shape, shape, strict=True)]
    b = jax.lax.optimization_barrier(jnp.pad(b, grow))
    x = halo(W * b, periodic)
    r = halo(b - symmetric.apply(stencil, x), periodic)
    e = halo(_cycle(hierarchy, index + 1, transfer.restrict(weights, r)), periodic)
    x = halo(window(x) + transfer.interpolate(weights, e), periodic)
    x = window(x) + W * (b - symmetric.apply(stencil, x))
    return x[tuple(slice(n) for n in shape)]


def _inverse_spd(matrix):
    """Symmetric inverse in the matrix's dtype; NaN unless it is positive definite."""
    factor = jnp.linalg.cholesky(matrix.astype(jnp.float64))
    identity = jnp.eye(len(matrix), dtype=jnp.float64)
    half = jax.scipy.linalg.solve_triangular(factor, identity, lower=True)
    return (half.T @ half).astype(matrix.dtype)
