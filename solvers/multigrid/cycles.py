"""The V(1,1) cycle: an approximate inverse of a symmetric stencil."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from solvers.multigrid import rings, symmetric, transfer
from solvers.multigrid.coarsening import Schedule
from solvers.multigrid.symmetric import Shape, Stencil, halo, window

MAX_COARSEST = 128  # unknowns that are solved with a dense inverse


class Level(NamedTuple):
    """One level that has a coarser one.

    Attributes:
        stencil: A, with halo.
        smoother: W [*m], see `symmetric.row_sum_weights`.
        weights: interpolation from the coarser level.
        shape: unknowns per axis, without those that make the sizes even.
        periodic: axes that wrap around.
        axes: axes that are coarsened; the sizes along them are even.
    """

    stencil: Stencil
    smoother: jax.Array
    weights: transfer.Weights
    shape: Shape
    periodic: tuple[int, ...]
    axes: tuple[int, ...]


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
    values: Stencil,
    periodic: tuple[int, ...] = (),
    *,
    singular: bool = False,
    coarsening: Schedule = (),
) -> Hierarchy:
    """Coarsens a stencil to the end.

    Args:
        values: [*n] per offset of `symmetric.half`, without halo; symmetric positive
            definite, entries that leave the grid zero, diagonal of the order of 1.
        periodic: axes that wrap around.
        singular: whether A maps constants to zero; the cycle then stays definite.
        coarsening: see `coarsening.schedule`.
    """
    center = symmetric.center_of(values)
    plan = coarsened_axes(values[center].shape, coarsening)
    stretched = tuple(
        rings.ring(k, n, sum(k in axes for axes in plan))
        for k, n in enumerate(values[center].shape)
        if k in periodic
    )
    stretched = tuple(ring for ring in stretched if ring.inserted.any())
    for ring in stretched:
        values = rings.stretch(values, ring)
    levels = []
    for axes in plan:
        values, periodic = _without_short_rings(values, periodic)
        shape = values[center].shape
        stencil = symmetric.pad_to_even(values, periodic, axes)
        weights = transfer.interpolation_weights(stencil, periodic, axes)
        smoother = symmetric.row_sum_weights(stencil)
        smoother = jax.lax.optimization_barrier(smoother)
        levels.append(Level(stencil, smoother, weights, shape, periodic, axes))
        values = transfer.galerkin(stencil, weights, periodic, axes)
        values = jax.lax.optimization_barrier(values)
    stencil = {offset: halo(a, periodic) for offset, a in values.items()}
    matrix = symmetric.dense(stencil, periodic)
    if singular:
        matrix += jnp.mean(jnp.diag(matrix)) / len(matrix)
    return Hierarchy(tuple(levels), _inverse_spd(matrix), stretched)


def coarsened_axes(shape: Shape, coarsening: Schedule = ()) -> Schedule:
    """Axes that each level coarsens until a dense inverse takes over."""
    plan: list[tuple[int, ...]] = []
    while math.prod(shape) > MAX_COARSEST:
        axes = tuple(range(len(shape)))
        if len(plan) < len(coarsening):
            axes = coarsening[len(plan)]
        plan.append(axes)
        even = symmetric.even_shape(shape, axes)
        shape = tuple(n // 2 if k in axes else n for k, n in enumerate(even))
    return tuple(plan)


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
    stencil, W, weights, shape, periodic, axes = hierarchy.levels[index]
    grow = [(0, m - n) for m, n in zip(W.shape, shape, strict=True)]
    b = jax.lax.optimization_barrier(jnp.pad(b, grow))
    x = halo(W * b, periodic)
    r = halo(b - symmetric.apply(stencil, x), periodic)
    r = transfer.restrict(weights, r, axes)
    e = halo(_cycle(hierarchy, index + 1, r), periodic)
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
