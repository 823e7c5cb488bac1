"""Preconditioned conjugate gradients in JAX, for use inside one compiled program."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


class CGResult(NamedTuple):
    """What `flexible_cg` returns; all arrays, so that it can stay inside `jit`.

    Attributes:
        x: the approximate solution.
        residual_norm: ||r||_2 of the recursively updated residual.
        iterations: number of products with A.
        breakdown: True if p^T A p <= 0 or NaN: A or M is not positive definite.
    """

    x: jax.Array
    residual_norm: jax.Array
    iterations: jax.Array
    breakdown: jax.Array


class _State(NamedTuple):
    x: jax.Array
    r: jax.Array
    p: jax.Array
    q: jax.Array
    curvature: jax.Array
    norm: jax.Array
    iterations: jax.Array
    breakdown: jax.Array


def flexible_cg(
    apply: Callable[[jax.Array], jax.Array],
    precondition: Callable[[jax.Array], jax.Array],
    r: jax.Array,
    *,
    target: jax.Array,
    maxiter: jax.Array,
    x_dtype=None,
) -> CGResult:
    """Solves A x = r from x = 0 for symmetric positive definite A and M.

    Stops once ||r||_2 <= target for the recursively updated residual, without M. Each
    direction is made A-orthogonal to the one before with the computed A p, and the
    step length uses p^T r. In exact arithmetic that is the usual method; it tolerates a
    preconditioner in lower precision. Neither the end of the iterations nor an
    indefinite matrix is an error: read the result.

    Args:
        apply: A; maps an array of r's shape and dtype to another one.
        precondition: M, an approximation of A^-1; likewise.
        r: right-hand side.
        target: largest accepted residual norm, absolute.
        maxiter: largest number of iterations.
        x_dtype: dtype of x; None: that of r. Float64 keeps the rounding of x, which
            A magnifies, out of an iteration that is float32 otherwise.

    References:
        Notay (2000), Flexible conjugate gradients, SIAM J. Sci. Comput. 22(4).
    """

    def unfinished(s: _State):
        return (s.norm > target) & (s.iterations < maxiter) & ~s.breakdown

    def step(s: _State):
        z = precondition(s.r)
        beta = -jnp.vdot(z, s.q) / s.curvature  # q is zero in the first step
        p = jax.lax.optimization_barrier(z + beta * s.p)
        q = jax.lax.optimization_barrier(apply(p))
        curvature = jnp.vdot(p, q)
        fine = curvature > 0  # False for NaN
        alpha = jnp.where(fine, jnp.vdot(p, s.r) / curvature, 0.0)
        x = s.x + (alpha * p).astype(s.x.dtype)
        r = s.r - alpha * q
        norm = jnp.sqrt(jnp.vdot(r, r))
        return _State(x, r, p, q, curvature, norm, s.iterations + 1, ~fine)

    zero, norm = jnp.zeros_like(r), jnp.sqrt(jnp.vdot(r, r))
    start = _State(
        x=jnp.zeros_like(r, dtype=x_dtype),
        r=r,
        p=zero,
        q=zero,
        curvature=jnp.ones((), r.dtype),
        norm=norm,
        iterations=jnp.zeros((), int),
        breakdown=jnp.zeros((), bool),
    )
    end = jax.lax.while_loop(unfinished, step, start)
    return CGResult(end.x, end.norm, end.iterations, end.breakdown)
