"""Recycle spaces of a batch of systems: carried to a new operator, renewed, dropped.

Fixed shapes: a vector lost to rank deficiency is a row of zeros. No eigenvalue problem
is nonsymmetric and no factorisation is of long vectors, so everything runs on any
accelerator: Gram matrices by products, then small Cholesky and eigenvalue problems.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

# Accelerators round the operands of products to fewer bits otherwise.
einsum = partial(jnp.einsum, precision="highest")

# In units of the dtype's epsilon, relative to the largest:
RANK_CUT = 1e4  # smaller eigenvalues of Gram matrices mean dependent vectors
NOISE = 100.0  # smaller eigenvalues are rounding


class RecycleSpace(NamedTuple):
    """Recycle vectors with Op(U_i) = C_i and orthonormal C; zero where not alive.

    Attributes:
        U: [batch, k, n].
        C: [batch, k, n].
        alive: [batch, k] bool.
    """

    U: jax.Array
    C: jax.Array
    alive: jax.Array


def empty_space(batch: int, k: int, n: int, dtype) -> RecycleSpace:
    """No recycle vectors: the next cycle is one of GMRES(m)."""
    zeros = jnp.zeros((batch, k, n), dtype)
    return RecycleSpace(zeros, zeros, jnp.zeros((batch, k), bool))


def carry_over(
    op: Callable[[jax.Array], jax.Array], Y: jax.Array, alive: jax.Array
) -> RecycleSpace:
    """Makes a recycle space for a new operator from the vectors kept from an old one.

    C and U are combinations of Op(Y) and Y by an eigenvalue decomposition of the Gram
    matrix, whose small eigenvalues are cut off, and one Cholesky factorisation after
    it. Costs as many products with Op as vectors are alive.

    Args:
        op: maps [batch, n] to [batch, n].
        Y: [batch, k, n], zero where not alive.
        alive: [batch, k] bool.
    """
    if Y.shape[1] == 0:
        return RecycleSpace(Y, Y, alive)
    Z = jax.vmap(op, in_axes=1, out_axes=1)(Y)
    length = jnp.linalg.norm(Z, axis=-1)
    alive = alive & (length > 0) & (length < jnp.inf)  # False for NaN
    scale = jnp.where(alive, 1 / jnp.where(alive, length, 1), 0)
    Z = jnp.where(alive[..., None], Z, 0) * scale[..., None]
    Y = jnp.where(alive[..., None], Y, 0) * scale[..., None]
    values, vectors = jnp.linalg.eigh(finite_or_identity(_gram(Z)))
    floor = RANK_CUT * jnp.finfo(values.dtype).eps
    alive = values > floor * values[:, -1:]
    alive &= jnp.any(scale > 0, axis=-1, keepdims=True)
    T = jnp.where(alive, 1 / jnp.sqrt(jnp.where(alive, values, 1)), 0)
    T = vectors * T[:, None, :]
    C, U = (einsum("bij,bin->bjn", T, rows) for rows in (Z, Y))
    T = _inverse_factor(_gram(C), alive)
    C, U = (einsum("bij,bin->bjn", T, rows) for rows in (C, U))
    return _checked(U, C, alive)


def refresh(
    basis: jax.Array,
    coupling: jax.Array,
    search: jax.Array,
    in_use: jax.Array,
    k: int,
) -> RecycleSpace:
    """The k right singular vectors of Op of smallest value in a search space.

    They are approximate, from the symmetric definite problem
    (G^H G) z = sigma^2 (V^H V) z, where the rows of V span the search space.

    Args:
        basis: [batch, m + 1, n] orthonormal rows (or zero).
        coupling: G [batch, m, m + 1], Op(search_j) = sum_i G[j, i] basis_i.
        search: [batch, m, n]; all but the last k rows are rows of the basis.
        in_use: [batch, m] bool, False for rows of the search space that do not count.
        k: vectors wanted.
    """
    W, G, m = basis, coupling, coupling.shape[1]
    tail = search[:, m - k :]
    cross = einsum("bin,bjn->bij", tail.conj(), search)
    inner = jnp.broadcast_to(jnp.eye(m, dtype=G.dtype), (G.shape[0], m, m))
    inner = inner.at[:, m - k :].set(cross)
    inner = inner.at[:, :, m - k :].set(cross.conj().swapaxes(1, 2))
    inner = jnp.where(in_use[:, :, None] & in_use[:, None, :], inner, 0)
    P, GP, alive = _smallest_singular_vectors(G, inner, k)
    U = einsum("bji,bjn->bin", P, search)
    C = einsum("bji,bjn->bin", GP, W)
    return _checked(U, C, alive)


def select(where: jax.Array, a: RecycleSpace, b: RecycleSpace) -> RecycleSpace:
    """Per member of the batch a where it says so, otherwise b."""
    return RecycleSpace(*map(partial(choose, where), a, b))


def choose(where: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """Arrays [batch, ...] a where [batch] says so, otherwise b."""
    return jnp.where(where.reshape(-1, *(1,) * (a.ndim - 1)), a, b)


def finite_or_identity(matrices: jax.Array) -> jax.Array:
    """Replaces matrices with NaN, on which factorisations may not return, by I."""
    finite = jnp.all(jnp.isfinite(matrices), axis=(1, 2), keepdims=True)
    eye = jnp.eye(matrices.shape[-1], dtype=matrices.dtype)
    return jnp.where(finite, matrices, eye[None])


def _smallest_singular_vectors(G, inner, k):
    """Combinations P [batch, m, k] of search vectors with large norm and G^T P unitary.

    Maximises z^H inner z / ||G^T z||^2. A small shift of the denominator, harmless to
    the choice, keeps its factor regular when the search vectors are dependent.
    """
    eps = jnp.finfo(inner.dtype).eps
    length = jnp.linalg.norm(G, axis=-1)
    length = jnp.where(length > 0, length, 1)
    G = G / length[..., None]
    inner = inner / length[:, :, None] / length[:, None, :]
    m = G.shape[1]
    shift = jnp.sqrt(eps) * jnp.eye(m, dtype=G.dtype)[None]
    L = jnp.linalg.cholesky(finite_or_identity(_gram(G) + shift))
    half = solve_triangular(L, finite_or_identity(inner), lower=True)
    both = solve_triangular(L, half.conj().swapaxes(1, 2), lower=True)
    values, vectors = jnp.linalg.eigh(finite_or_identity(both))
    values, vectors = values[:, m - k :], vectors[:, :, m - k :]
    alive = values > NOISE * eps * values[:, -1:]
    P = solve_triangular(L, vectors, trans="C", lower=True)
    GP = einsum("bji,bjk->bik", G, P)
    alive &= jnp.linalg.norm(GP, axis=1) > jnp.sqrt(eps)  # else P is in the null space
    P, GP = (jnp.where(alive[:, None, :], rows, 0) for rows in (P, GP))
    for _ in range(2):  # the second time removes the rounding of the first
        T = _inverse_factor(_gram(GP.swapaxes(1, 2)), alive)
        P, GP = (einsum("bij,bjk->bik", rows, T) for rows in (P, GP))
    return P / length[..., None], GP, alive


def _gram(rows):
    """Inner products [batch, k, k] of rows [batch, k, n]: ij is rows_i^H rows_j."""
    return einsum("bin,bjn->bij", rows.conj(), rows)


def _inverse_factor(gram, alive):
    """T with T^H gram T = I where alive; the zero rows of the others get a one."""
    eye = jnp.broadcast_to(jnp.eye(gram.shape[-1], dtype=gram.dtype), gram.shape)
    L = jnp.linalg.cholesky(gram + eye * ~alive[:, :, None])
    return solve_triangular(L, eye, lower=True).conj().swapaxes(1, 2)


def _checked(U, C, alive):
    """The space, or none for members in which NaN or infinity came up."""
    finite = jnp.all(jnp.isfinite(U) & jnp.isfinite(C), axis=(1, 2))
    alive &= finite[:, None]
    keep = alive[..., None]
    return RecycleSpace(jnp.where(keep, U, 0), jnp.where(keep, C, 0), alive)
