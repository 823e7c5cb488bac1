"""The V(1,1) cycle: an approximate inverse of a symmetric stencil."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from solvers.multigrid import lines, rings, symmetric, transfer
from solvers.multigrid.coarsening import Schedule
from solvers.multigrid.symmetric import Shape, Stencil, halo, window

MAX_COARSEST = 128  # unknowns that are solved with a dense inverse


class Level(NamedTuple):
    """One level that has a coarser one.

    Attributes:
        stencil: A, with halo.
        smoother: W with halo, see `symmetric.row_sum_weights`.
        weights: interpolation from the coarser level.
        shape: unknowns per axis, without those that make the sizes even.
        periodic: axes that wrap around.
        axes: axes that are coarsened; the sizes along them are even.
        sweeps: of the line smoother that replaces W; none: W.
    """

    stencil: Stencil
    smoother: jax.Array
    weights: transfer.Weights
    shape: Shape
    periodic: tuple[int, ...]
    axes: tuple[int, ...]
    sweeps: tuple[lines.Sweep, ...] = ()


class Hierarchy(NamedTuple):
    """All levels.

    Attributes:
        levels: from fine to coarse.
        coarsest_inverse: inverse [N, N] of the coarsest matrix.
        coarsest_periodic: axes of that level that wrap around.
        stretched: periodic axes whose length had to change, see `rings`.
    """

    levels: tuple[Level, ...]
    coarsest_inverse: jax.Array
    coarsest_periodic: tuple[int, ...] = ()
    stretched: tuple[rings.Ring, ...] = ()


def build_hierarchy(
    values: Stencil,
    periodic: tuple[int, ...] = (),
    *,
    singular: bool = False,
    coarsening: Schedule = (),
    line_smoother: bool = False,
) -> Hierarchy:
    """Coarsens a stencil to the end.

    Args:
        values: [*n] per offset of `symmetric.half`, without halo; symmetric positive
            definite, entries that leave the grid zero, diagonal of the order of 1.
        periodic: axes that wrap around.
        singular: whether A maps constants to zero; the cycle then stays definite.
        coarsening: see `coarsening.schedule`.
        line_smoother: whether to smooth by lines; for coarsening of all axes.
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
        smoother = halo(symmetric.row_sum_weights(stencil), periodic)
        sweeps = lines.zebra(stencil, periodic) if line_smoother else ()
        levels.append(Level(stencil, smoother, weights, shape, periodic, axes, sweeps))
        values = transfer.galerkin(stencil, weights, periodic, axes)
    stencil = {offset: halo(a, periodic) for offset, a in values.items()}
    matrix = symmetric.dense(stencil, periodic)
    if singular:
        matrix += jnp.mean(jnp.diag(matrix)) / len(matrix)
    return Hierarchy(tuple(levels), _inverse_spd(matrix), periodic, stretched)


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


def single(hierarchy: Hierarchy) -> Hierarchy:
    """The hierarchy with all arrays of numbers in float32."""

    def rounded(a):
        double = isinstance(a, jax.Array) and a.dtype == jnp.float64
        return a.astype(jnp.float32) if double else a

    return jax.tree.map(rounded, hierarchy)


def v_cycle(hierarchy: Hierarchy, b: jax.Array) -> jax.Array:
    """Approximates A^-1 b, [*n]; linear, symmetric and positive in b.

    One smoothing step from zero before and one after the coarse correction.
    """
    inside = tuple(slice(n) for n in b.shape)
    for ring in hierarchy.stretched:
        b = ring.spread(b)
    x = window(cycle(hierarchy, 0, _grown(hierarchy, 0, b)))
    for ring in hierarchy.stretched:
        x = ring.collect(x)
    return jax.lax.optimization_barrier(x[inside])


def cycle(hierarchy: Hierarchy, index: int, b: jax.Array) -> jax.Array:
    """The cycle from level `index` on.

    Four passes over the level, and two fields stored besides the result: the first
    smoothing step, W b, is computed wherever it is needed. More with lines.

    Args:
        hierarchy: as built.
        index: 0 is the finest level; the last is the one solved exactly.
        b: [*(m + 2)] right-hand side of that level with its halo, m even.

    Returns:
        Approximate solution in the form of b.
    """
    if index == len(hierarchy.levels):
        x = hierarchy.coarsest_inverse @ window(b).ravel()
        return halo(x.reshape(window(b).shape), hierarchy.coarsest_periodic)
    stencil, smoother, _, _, periodic, _, sweeps = hierarchy.levels[index]
    if sweeps:
        x = lines.smooth(sweeps, stencil, b, None, periodic)
        r = halo(window(b) - symmetric.apply(stencil, x), periodic)
        x = halo(window(x) + _correction(hierarchy, index, r), periodic)
        return lines.smooth(sweeps[::-1], stencil, b, x, periodic)
    W = window(smoother)
    r = halo(window(b) - symmetric.apply(stencil, b, smoother), periodic)
    correction = _correction(hierarchy, index, r)
    # Behind the barrier XLA does not share W b between its users, which would cost a
    # pass.
    here = window(jax.lax.optimization_barrier(b))
    x = halo(W * here + correction, periodic)
    return halo(window(x) + W * (here - symmetric.apply(stencil, x)), periodic)


def _correction(hierarchy, index, r):
    """What the levels below one make of its residual r with halo; [*m]."""
    level = hierarchy.levels[index]
    m = window(level.smoother).shape
    r = transfer.restrict(level.weights, r, level.axes)
    e = cycle(hierarchy, index + 1, _grown(hierarchy, index + 1, r))
    # Unknowns of e that make the size even are zero, as its halo is.
    halves = (n // 2 if k in level.axes else n for k, n in enumerate(m))
    return transfer.interpolate(level.weights, e[tuple(slice(n + 2) for n in halves)])


def _grown(hierarchy, index, b):
    """The form of b [*n] that `cycle` takes on a level."""
    if index == len(hierarchy.levels):
        return halo(b, hierarchy.coarsest_periodic)
    level = hierarchy.levels[index]
    shape = window(level.smoother).shape
    grow = [(0, m - n) for m, n in zip(shape, b.shape, strict=True)]
    return halo(jnp.pad(b, grow), level.periodic)


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
