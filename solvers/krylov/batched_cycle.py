"""One cycle of GCRO-DR(m, k) for a batch of systems in lockstep, in JAX.

Shapes are fixed whatever happens: a vector that does not exist (a basis vector not yet
computed, a recycle vector lost to rank deficiency) is a row of zeros. Basis vectors are
rows, so that every long operation is a batched matrix product:

    basis W [batch, m + 1, n]    v_1 ... v_{s + 1}, then the k rows of C; s = m - k
    search [batch, m, n]         v_1 ... v_s, then the k rows of U
    coupling G [batch, m, m + 1]  Op(search_j) = sum_i G[j, i] W_i

A batch member without recycle space uses the last k rows for further Arnoldi vectors:
its cycle is one of GMRES(m). In both cases Arnoldi step j fills row j + 1 of W and row
j of G. A row of G that belongs to no search vector holds a one in the column of a row
of W that is zero, which keeps the small matrices regular.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from solvers.krylov.batched_spaces import (
    RecycleSpace,
    choose,
    einsum,
    finite_or_identity,
    refresh,
    select,
)

BREAKDOWN = 45.0  # in units of the dtype's epsilon: 1e-14 in float64


class Cycle(NamedTuple):
    """What one cycle returns, per member of the batch.

    Attributes:
        t: [batch, n] correction in the preconditioned variable: r - Op(t) is the new
            residual.
        space: the space for the next cycle or system; not alive where it broke down.
        steps: [batch] Arnoldi steps taken.
        norms: [batch, m + 1] residual norms: after the projection onto C, then after
            every step; constant once a member has stopped.
        finite: [batch] bool, False where NaN or infinity came up: ignore the rest.
        basis: W, see above.
        coupling: G, see above.
    """

    t: jax.Array
    space: RecycleSpace
    steps: jax.Array
    norms: jax.Array
    finite: jax.Array
    basis: jax.Array
    coupling: jax.Array


def run_cycle(
    op: Callable[[jax.Array], jax.Array],
    r: jax.Array,
    space: RecycleSpace,
    *,
    target: jax.Array,
    budget: jax.Array,
    m: int,
) -> Cycle:
    """Minimises ||r - Op(t)|| over one search space and picks the next recycle space.

    First r is made orthogonal to C, which is the warm start of a new system; then
    Arnoldi steps with (I - C C^H) Op follow until the residual norm reaches the target,
    m - k steps are done (m without a space), the budget is used up or the basis cannot
    grow. The new space approximates the k right singular vectors of Op of smallest
    singular value within the search space, from a symmetric definite problem.

    Args:
        op: A M, maps [batch, n] to [batch, n].
        r: [batch, n] residuals; their dtype is that of all arithmetic.
        space: recycle space for this very op.
        target: [batch] residual norms to stop at.
        budget: [batch] largest numbers of Arnoldi steps; zero leaves a member alone.
        m: dimension of the search space, k included.

    References:
        Parks et al. (2006), Recycling Krylov subspaces for sequences of linear systems,
        SIAM J. Sci. Comput. 28(5).
    """
    k = space.U.shape[1]
    recycled = jnp.any(space.alive, axis=-1)
    # Twice, because rounding leaves parts of r along C.
    g = einsum("bkn,bn->bk", space.C.conj(), r)
    r = r - einsum("bk,bkn->bn", g, space.C)
    again = einsum("bkn,bn->bk", space.C.conj(), r)
    r = r - einsum("bk,bkn->bn", again, space.C)
    g = g + again

    beta = jnp.linalg.norm(r, axis=-1)
    budget = jnp.minimum(budget, jnp.where(recycled, m - k, m))
    end = _arnoldi(op, r, beta, space.C, target=target, budget=budget, m=m)
    W, G, steps = end.W, end.G, end.steps
    tail = jnp.where(recycled[:, None, None], space.U, W[:, m - k : m])
    search = jnp.concatenate([W[:, : m - k], tail], axis=1)

    y = _least_squares(G, beta)
    y = y.at[:, m - k :].add(g)  # g is zero without a space
    t = einsum("bj,bjn->bn", y, search)
    if k:
        in_use = jnp.arange(m)[None] < steps[:, None]
        spare = jnp.zeros((r.shape[0], m - k), bool)
        in_use |= jnp.concatenate([spare, space.alive], axis=1)
        # Too few vectors to choose from: rather begin anew with the next system.
        in_use &= (recycled | (2 * steps >= k))[:, None]
        space = select(steps > 0, refresh(W, G, search, in_use, k), space)
    return Cycle(
        t=t,
        space=space,
        steps=steps,
        norms=end.norms,
        finite=end.finite & jnp.all(jnp.isfinite(t), axis=-1),
        basis=W,
        coupling=G,
    )


class _Arnoldi(NamedTuple):
    j: jax.Array
    W: jax.Array
    G: jax.Array
    null: jax.Array
    norms: jax.Array
    steps: jax.Array
    active: jax.Array
    finite: jax.Array


def _arnoldi(op, r, beta, C, *, target, budget, m) -> _Arnoldi:
    """Arnoldi steps for all members that still need some."""
    batch, n = r.shape
    k, real, eps = C.shape[1], beta.dtype, jnp.finfo(beta.dtype).eps
    finite = jnp.isfinite(beta)
    active = finite & (beta > target) & (budget > 0)
    v = r / jnp.where(active, beta, 1)[:, None]
    W = jnp.zeros((batch, m + 1, n), r.dtype).at[:, m + 1 - k :].set(C)
    W = W.at[:, 0].set(jnp.where(active[:, None], v, 0))

    def step(s: _Arnoldi) -> _Arnoldi:
        j = s.j
        v = jax.lax.dynamic_index_in_dim(s.W, j, axis=1, keepdims=False)
        # Stored once: fused into each of its uses, it would be computed three times.
        w = jax.lax.optimization_barrier(op(v))
        before = jnp.linalg.norm(w, axis=-1)
        h = einsum("bin,bn->bi", s.W.conj(), w)
        w = w - einsum("bi,bin->bn", h, s.W)
        again = einsum("bin,bn->bi", s.W.conj(), w)
        w = w - einsum("bi,bin->bn", again, s.W)
        h = h + again
        length = jnp.linalg.norm(w, axis=-1)
        finite = jnp.isfinite(length) & jnp.isfinite(before)
        grows = length > BREAKDOWN * eps * before
        length = jnp.where(grows & finite, length, 1)
        good = s.active & finite

        # Left null vector of the Hessenberg matrix with first entry 1: its norm is
        # beta over the residual norm, so no rotations are needed for the stop test.
        entry = -jnp.sum(s.null * h, axis=-1) / length
        null = _write(s.null, entry, j + 1, good & grows)
        norm = beta / jnp.linalg.norm(null, axis=-1).astype(real)
        norm = jnp.where(grows, norm, 0)
        last = jax.lax.dynamic_index_in_dim(s.norms, j, axis=1, keepdims=False)
        norm = jnp.where(good, norm, last)
        h = _write(h, jnp.where(grows, length, 0).astype(h.dtype), j + 1, good)
        steps = s.steps + good
        return _Arnoldi(
            j=j + 1,
            W=_write(s.W, w / length[:, None], j + 1, good & grows),
            G=_write(s.G, h, j, good),
            null=null,
            norms=jax.lax.dynamic_update_index_in_dim(s.norms, norm, j + 1, axis=1),
            steps=steps,
            active=good & grows & (norm > target) & (steps < budget),
            finite=s.finite & (finite | ~s.active),
        )

    unit = jnp.eye(m, m + 1, k=1, dtype=r.dtype)
    start = _Arnoldi(
        j=jnp.zeros((), int),
        W=W,
        G=jnp.broadcast_to(unit, (batch, m, m + 1)),
        null=jnp.zeros((batch, m + 1), r.dtype).at[:, 0].set(1),
        norms=jnp.broadcast_to(beta[:, None], (batch, m + 1)),
        steps=jnp.zeros(batch, int),
        active=active,
        finite=finite,
    )
    end = jax.lax.while_loop(lambda s: jnp.any(s.active), step, start)
    done = jnp.arange(m + 1)[None] <= end.steps[:, None]
    last = jnp.take_along_axis(end.norms, end.steps[:, None], axis=1)
    return end._replace(norms=jnp.where(done, end.norms, last))


def _write(array, row, index, where):
    """Sets array[:, index] to row for the members where it says so, in place."""
    old = jax.lax.dynamic_index_in_dim(array, index, axis=1, keepdims=False)
    row = choose(where, row, old)
    return jax.lax.dynamic_update_index_in_dim(array, row, index, axis=1)


def _least_squares(G, beta):
    """The y [batch, m] that minimises ||beta e_1 - G^T y||, by QR."""
    m = G.shape[1]
    right = jnp.zeros_like(G[:, :1]).at[:, 0, 0].set(beta.astype(G.dtype))
    square = jnp.concatenate([G, right], axis=1).swapaxes(1, 2)
    R = jnp.linalg.qr(finite_or_identity(square), mode="r")
    diagonal = jnp.abs(jnp.diagonal(R, axis1=1, axis2=2))[:, :m]
    length = jnp.linalg.norm(G, axis=-1)
    usable = diagonal > jnp.finfo(beta.dtype).eps * length
    c = jnp.where(usable, R[:, :m, m], 0)
    R = R[:, :m, :m] + jnp.eye(m, dtype=R.dtype)[None] * ~usable[:, :, None]
    return solve_triangular(R, c[..., None])[..., 0]
