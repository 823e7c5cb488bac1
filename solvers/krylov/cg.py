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
    rz: jax.Array
    alpha: jax.Array
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
) -> CGResult:
    """Solves A x = r from x = 0 for symmetric positive definite A and M.

    Stops once ||r||_2 <= target for the recursively updated residual, without M. The
    coefficient of the new direction is that of Polak and Ribiere, which tolerates a
    preconditioner that is only nearly linear, such as one in lower precision. Neither
    the end of the iterations nor an indefinite matrix is an error: read the result.

    Args:
        apply: A; maps an array of r's shape and dtype to another one.
        precondition: M, an approximation of A^-1; likewise.
        r: right-hand side.
        target: largest accepted residual norm, absolute.
        maxiter: largest number of iterations.

    References:
        Notay (2000), Flexible conjugate gradients, SIAM J. Sci. Comput. 22(4).
        Saad (2003), Iterative Methods for Sparse Linear Systems, Algorithm 9.1.
    """

    def unfinished(s: _State):
        return (s.norm > target) & (s.iterations < maxiter) & ~s.breakdown

    def step(s: _State):
        z = precondition(s.r)
        rz = jnp.vdot(s.r, z)
        # z^T (r_new - r_old) = -alpha z^T q; q is zero in the first step.
        beta = -s.alpha * jnp.vdot(z, s.q) / s.rz
        p = jax.lax.optimization_barrier(z + beta * s.p)
        q = jax.lax.optimization_barrier(apply(p))
        curvature = jnp.vdot(p, q)
        fine = curvature > 0  # False for NaN
        alpha = jnp.where(fine, rz / curvature, 0.0)
        x, r = s.x + alpha * p, s.r - alpha * q
        norm = jnp.sqrt(jnp.vdot(r, r))
        return _State(x, r, p, q, rz, alpha, norm, s.iterations + 1, ~fine)

    zero, one = jnp.zeros_like(r), jnp.ones((), r.dtype)
    norm = jnp.sqrt(jnp.vdot(r, r))
    start = _State(
        zero, r, zero, zero, one, one, norm, jnp.zeros((), int), jnp.zeros((), bool)
    )
    end = jax.lax.while_loop(unfinished, step, start)
    return CGResult(end.x, end.norm, end.iterations, end.breakdown)
