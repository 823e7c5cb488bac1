"""Symmetric nine-point stencils on one multigrid level, stored as halves with a halo.

A stencil is a dict offset -> [m1 + 2, m2 + 2]. Entry (i + 1, j + 1) couples unknown
(i, j) with (i, j) + offset; the opposite coupling is the same number, so only the
offsets of `HALF` exist (five-point stencils have the first three). The halo is zero.
Fields carry the same halo, so that every neighbour is a plain slice: on a CPU, XLA
turns such passes into vector loops, and padding inside the pass halves their speed.
"""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np

HALF = ((0, 0), (0, 1), (1, 0), (1, 1), (1, -1))
CENTER = HALF[0]
Stencil = dict[tuple[int, int], jax.Array]


def window(field: jax.Array, shift: tuple[int, int] = CENTER) -> jax.Array:
    """Values [m1, m2] at x + shift, from a field [m1 + 2, m2 + 2] with its halo."""
    (m1, m2), (s1, s2) = (n - 2 for n in field.shape), shift
    return field[1 + s1 : 1 + s1 + m1, 1 + s2 : 1 + s2 + m2]


def halo(values: jax.Array) -> jax.Array:
    """Adds one layer of zeros around [m1, m2] and makes XLA store the result.

    Without the barrier XLA recomputes the producer in every consumer, once per
    neighbour.
    """
    return jax.lax.optimization_barrier(jnp.pad(values, 1))


def opposite(offset: tuple[int, int]) -> tuple[int, int]:
    """The offset of the coupling back."""
    return (-offset[0], -offset[1])


def full_offsets(stencil: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Offsets of the whole stencil, the stored half first."""
    return [*stencil, *(opposite(o) for o in stencil if o != CENTER)]


def coupling(stencil: Stencil, offset: tuple[int, int]) -> jax.Array:
    """Matrix entries [m1, m2] of every row towards x + offset."""
    if offset in stencil:
        return window(stencil[offset])
    return window(stencil[opposite(offset)], offset)


def apply(stencil: Stencil, u: jax.Array) -> jax.Array:
    """A u [m1, m2] for u [m1 + 2, m2 + 2] with its halo."""
    total = window(stencil[CENTER]) * window(u)
    for offset in full_offsets(stencil)[1:]:
        total += coupling(stencil, offset) * window(u, offset)
    return total


def row_sum_form(stencil: Stencil, dtype) -> Stencil:
    """The stencil in another dtype, with row sums in place of the diagonal.

    Use with `apply_row_sum_form`. Rounding the entries one by one would perturb the
    row sums, and with them A u for smooth u, by far more than their own size.
    """
    rounded = {offset: values.astype(dtype) for offset, values in stencil.items()}
    sums = sum(coupling(stencil, offset) for offset in full_offsets(stencil))
    rounded[CENTER] = jnp.pad(sums, 1).astype(dtype)
    return jax.lax.optimization_barrier(rounded)


def apply_row_sum_form(stencil: Stencil, u: jax.Array) -> jax.Array:
    """A u [m1, m2] from differences of neighbours, for u with its halo."""
    here = window(u)
    total = window(stencil[CENTER]) * here
    for offset in full_offsets(stencil)[1:]:
        total += coupling(stencil, offset) * (window(u, offset) - here)
    return total


def row_sum_weights(stencil: Stencil) -> jax.Array:
    """Weights [m1, m2] of the smoother x + W (b - A x), W = 1.6 / sum_o |A_o|.

    On rows whose sum is zero this is Jacobi damped by 0.8. The matrix scaled by its
    absolute row sums has its spectrum in (0, 1] for every SPD stencil, so the smoother
    always converges and keeps the cycle SPD; 0.8 / diagonal has no such guarantee on
    the nine-point stencils of coarse levels.
    """
    total = sum(abs(coupling(stencil, offset)) for offset in full_offsets(stencil))
    return 1.6 / total


def pad_to_even(stencil: Stencil, shape: tuple[int, int]) -> Stencil:
    """Adds the halo, and decoupled unknowns up to even sizes, to values [n1, n2].

    Decoupled unknowns have diagonal 1 and no couplings, so every formula holds for
    them unchanged and their right-hand side and solution are zero.
    """
    grown = even_shape(shape)
    width = [(1, 1 + m - n) for m, n in zip(grown, shape, strict=True)]
    padded = {offset: jnp.pad(values, width) for offset, values in stencil.items()}
    if grown != shape:
        extra = np.ones(grown)
        extra[: shape[0], : shape[1]] = 0
        padded[CENTER] += jnp.pad(jnp.asarray(extra, padded[CENTER].dtype), 1)
    return jax.lax.optimization_barrier(padded)


def even_shape(shape: tuple[int, int]) -> tuple[int, int]:
    """The next even size per axis."""
    return tuple(n + n % 2 for n in shape)


def dense(stencil: Stencil) -> jax.Array:
    """The matrix [N, N] of a small stencil, row-major."""
    shape = window(stencil[CENTER]).shape
    size = int(np.prod(shape))
    units = jnp.eye(size, dtype=stencil[CENTER].dtype).reshape(size, *shape)
    columns = jax.vmap(lambda unit: apply(stencil, jnp.pad(unit, 1)))(units)
    return columns.reshape(size, size).T
