"""Symmetric stencils on one multigrid level, stored as halves with a halo.

In d = 1, 2 or 3 dimensions a stencil couples an unknown to the 3^d - 1 around it at
most. It is a dict offset -> [m1 + 2, ..., md + 2], whose entry x + 1 couples unknown x
with x + offset; the opposite coupling is the same number, so only the offsets of
`half(d)` exist. The halo is zero, or wraps around along periodic axes. Fields carry the
same halo, so that every neighbour is a plain slice: on a CPU, XLA turns such passes
into vector loops, and padding inside the pass halves their speed.
"""

import functools
import itertools
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np

Offset = tuple[int, ...]
Shape = tuple[int, ...]
Stencil = dict[Offset, jax.Array]
Axes = tuple[int, ...] | None  # those that a level coarsens; None: all


@functools.cache
def half(num_dims: int) -> tuple[Offset, ...]:
    """The centre, then one of every two opposite offsets: its first step is +1."""
    offsets = itertools.product((0, 1, -1), repeat=num_dims)
    center = (0,) * num_dims
    return (center, *(o for o in offsets if o > center and o != center))


def center_of(stencil: Iterable[Offset]) -> Offset:
    """The offset zero of as many axes as the stencil has."""
    return (0,) * len(next(iter(stencil)))


def window(field: jax.Array, shift: Offset | None = None) -> jax.Array:
    """Values [*m] at x + shift, from a field [*(m + 2)] with its halo."""
    shift = shift or (0,) * field.ndim
    return field[
        tuple(slice(1 + s, s + n - 1) for s, n in zip(shift, field.shape, strict=True))
    ]


def halo(values: jax.Array, periodic: tuple[int, ...] = ()) -> jax.Array:
    """Adds one layer around [*m] and makes XLA store the result.

    Zeros, or the values of the other side along periodic axes. Without the barrier XLA
    recomputes the producer in every consumer, once per neighbour.
    """
    values = jnp.pad(
        values, [(int(k not in periodic),) * 2 for k in range(values.ndim)]
    )
    for axis in periodic:
        n = values.shape[axis]
        ends = [jax.lax.slice_in_dim(values, i, i + 1, axis=axis) for i in (n - 1, 0)]
        values = jax.lax.concatenate([ends[0], values, ends[1]], axis)
    return jax.lax.optimization_barrier(values)


def opposite(offset: Offset) -> Offset:
    """The offset of the coupling back."""
    return tuple(-o for o in offset)


def full_offsets(stencil: Iterable[Offset]) -> list[Offset]:
    """Offsets of the whole stencil, the stored half first, the centre before all."""
    return [*stencil, *(opposite(o) for o in stencil if any(o))]


def coupling(stencil: Stencil, offset: Offset) -> jax.Array:
    """Matrix entries [*m] of every row towards x + offset."""
    if offset in stencil:
        return window(stencil[offset])
    return window(stencil[opposite(offset)], offset)


def apply(stencil: Stencil, u: jax.Array, scale: jax.Array | None = None) -> jax.Array:
    """A u [*m] for u [*(m + 2)] with its halo; A (scale * u) without storing that."""

    def values(offset):
        here = window(u, offset)
        return here if scale is None else window(scale, offset) * here

    center, *others = full_offsets(stencil)
    total = window(stencil[center]) * values(center)
    for offset in others:
        total += coupling(stencil, offset) * values(offset)
    return total


def row_sums(stencil: Stencil) -> jax.Array:
    """Sums [*m] of the rows: what A makes of a constant 1."""
    return sum(coupling(stencil, offset) for offset in full_offsets(stencil))


def row_sum_form(stencil: Stencil, dtype) -> Stencil:
    """The stencil in another dtype, with row sums in place of the diagonal.

    Use with `apply_row_sum_form`. Rounding the entries one by one would perturb the
    row sums, and with them A u for smooth u, by far more than their own size.
    """
    rounded = {offset: values.astype(dtype) for offset, values in stencil.items()}
    rounded[center_of(stencil)] = jnp.pad(row_sums(stencil), 1).astype(dtype)
    return jax.lax.optimization_barrier(rounded)


def apply_row_sum_form(stencil: Stencil, u: jax.Array) -> jax.Array:
    """A u [*m] from differences of neighbours, for u with its halo."""
    here = window(u)
    total = window(stencil[center_of(stencil)]) * here
    for offset in full_offsets(stencil)[1:]:
        total += coupling(stencil, offset) * (window(u, offset) - here)
    return total


def row_sum_weights(stencil: Stencil) -> jax.Array:
    """Weights [*m] of the smoother x + W (b - A x), W = 1.6 / sum_o |A_o|.

    On rows whose sum is zero this is Jacobi damped by 0.8. The matrix scaled by its
    absolute row sums has its spectrum in (0, 1] for every SPD stencil, so the smoother
    always converges and keeps the cycle SPD; 0.8 / diagonal has no such guarantee on
    the stencils of coarse levels.
    """
    total = sum(abs(coupling(stencil, offset)) for offset in full_offsets(stencil))
    return 1.6 / total


def even_shape(shape: Shape, axes: Axes = None) -> Shape:
    """The next even size along the axes."""
    axes = range(len(shape)) if axes is None else axes
    return tuple(n + n % 2 * (k in axes) for k, n in enumerate(shape))


def pad_to_even(
    values: Stencil, periodic: tuple[int, ...] = (), axes: Axes = None
) -> Stencil:
    """Adds unknowns up to even sizes along the axes, then the halo.

    Values are [*n] per offset. New unknowns belong to no coarse grid (their index is
    odd) and are decoupled: diagonal 1, no couplings, so that every formula holds for
    them unchanged and their right-hand side and solution are zero. Periodic axes that
    are coarsened must be even, see `solvers.multigrid.rings`.
    """
    center = center_of(values)
    shape = values[center].shape
    even = even_shape(shape, axes)
    grow = [(0, m - n) for m, n in zip(even, shape, strict=True)]
    if any(high for _, high in grow):
        values = {offset: jnp.pad(a, grow) for offset, a in values.items()}
        extra = np.ones(even)
        extra[tuple(slice(n) for n in shape)] = 0
        values[center] += jnp.asarray(extra, values[center].dtype)
    return {offset: halo(a, periodic) for offset, a in values.items()}


def dense(stencil: Stencil, periodic: tuple[int, ...] = ()) -> jax.Array:
    """The matrix [N, N] of a small stencil, row-major."""
    center = stencil[center_of(stencil)]
    shape = window(center).shape
    size = int(np.prod(shape))
    units = jnp.eye(size, dtype=center.dtype).reshape(size, *shape)
    columns = jax.vmap(lambda unit: apply(stencil, halo(unit, periodic)))(units)
    return columns.reshape(size, size).T
