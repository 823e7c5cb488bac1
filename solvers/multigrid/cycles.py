"""The V(1,1) cycle: an approximate inverse of a symmetric stencil."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from solvers.multigrid import symmetric, transfer
from solvers.multigrid.symmetric import Stencil, halo, window

MAX_COARSEST = 8  # points per axis that are solved with a dense inverse


class Level(NamedTuple):
    """One level that has a coarser one: even sizes, fields with halo."""

    stencil: Stencil
    smoother: jax.Array
    weights: transfer.Weights


class Hierarchy(NamedTuple):
    """Levels from fine to coarse, and the inverse [N, N] of the coarsest matrix."""

    levels: tuple[Level, ...]
    coarsest_inverse: jax.Array


def build_hierarchy(stencil: Stencil) -> Hierarchy:
    """Coarsens a stencil of even sizes (see `symmetric.pad_to_even`) to the end."""
    levels = []
    while max(window(stencil[symmetric.CENTER]).shape) > MAX_COARSEST:
        weights = transfer.interpolation_weights(stencil)
        smoother = symmetric.row_sum_weights(stencil)
        smoother = jax.lax.optimization_barrier(smoother)
        levels.append(Level(stencil, smoother, weights))
        coarse = transfer.galerkin(stencil, weights)
        shape = coarse[symmetric.CENTER].shape
        stencil = symmetric.pad_to_even(coarse, shape)
    return Hierarchy(tuple(levels), _inverse_spd(symmetric.dense(stencil)))


def v_cycle(hierarchy: Hierarchy, b: jax.Array) -> jax.Array:
    """Approximates A^-1 b, [m1, m2]; linear, symmetric and positive in b.

    One row-sum Jacobi step from zero before and one after the coarse correction.
    """
    return jax.lax.optimization_barrier(_cycle(hierarchy, 0, b))


def _cycle(hierarchy, index, b):
    """The cycle from level `index` on."""
    if index == len(hierarchy.levels):
        return (hierarchy.coarsest_inverse @ b.ravel()).reshape(b.shape)
    stencil, W, weights = hierarchy.levels[index]
    x = halo(W * b)
    r = halo(b - symmetric.apply(stencil, x))
    b_coarse = transfer.restrict(weights, r)
    shape = b_coarse.shape
    grow = [(0, m - n) for m, n in zip(symmetric.even_shape(shape), shape, strict=True)]
    b_coarse = jax.lax.optimization_barrier(jnp.pad(b_coarse, grow))
    e = halo(_cycle(hierarchy, index + 1, b_coarse))
    e = e[: shape[0] + 2, : shape[1] + 2]  # its decoupled unknowns are zero: a halo
    x = halo(window(x) + transfer.interpolate(weights, e))
    return window(x) + W * (b - symmetric.apply(stencil, x))


def _inverse_spd(matrix):
    """Symmetric inverse in the matrix's dtype; NaN unless it is positive definite."""
    factor = jnp.linalg.cholesky(matrix.astype(jnp.float64))
    identity = jnp.eye(len(matrix), dtype=jnp.float64)
    half = jax.scipy.linalg.solve_triangular(factor, identity, lower=True)
    return (half.T @ half).astype(matrix.dtype)
