"""Preconditioned conjugate gradients that see early when they will not succeed."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

MIN_SEEN = 10  # iterations of this call before its rate is judged


class Budget(NamedTuple):
    """How long to iterate; scalars, all of them traced.

    Attributes:
        target: largest accepted norm of the residual, absolute.
        maxiter: largest number of iterations.
        limit: iterations that the whole solve may take as extrapolated from its rate of
            convergence so far; infinity: no matter how many.
        patience: iterations before that rate is judged.
        done: iterations before this call.
        norm: relative residual norm at its start.
        rtol: where the whole solve ends.
    """

    target: jax.Array
    maxiter: jax.Array
    limit: jax.Array
    patience: jax.Array
    done: jax.Array
    norm: jax.Array
    rtol: jax.Array


class PCGResult(NamedTuple):
    """What `pcg` returns.

    Attributes:
        x: the approximate solution.
        iterations: number of products with A.
        breakdown: True if p^T A p <= 0 or NaN: A or M is not positive definite.
        stalled: True if given up because of the rate of convergence.
    """

    x: jax.Array
    iterations: jax.Array
    breakdown: jax.Array
    stalled: jax.Array


class _State(NamedTuple):
    x: jax.Array
    r: jax.Array
    p: jax.Array
    q: jax.Array
    curvature: jax.Array
    norm: jax.Array
    iterations: jax.Array
    breakdown: jax.Array
    stalled: jax.Array
    peak: jax.Array
    since_peak: jax.Array


def pcg(
    apply: Callable[[jax.Array], jax.Array],
    precondition: Callable[[jax.Array], jax.Array],
    r: jax.Array,
    budget: Budget,
    *,
    dot: Callable[[jax.Array, jax.Array], jax.Array] = jnp.vdot,
    x_dtype=None,
) -> PCGResult:
    """Solves A x = r from x = 0 for symmetric positive definite A and M.

    Stops on the norm of the recursively updated residual, without M. Each direction is
    made A-orthogonal to the one before with the computed A p, and the step length uses
    p^T r. In exact arithmetic that is the usual method; it tolerates a preconditioner
    in lower precision. May run inside `jax.vmap`.

    Args:
        apply: A; maps an array of r's shape and dtype to another one.
        precondition: M, an approximation of A^-1; likewise.
        r: right-hand side.
        budget: when to stop.
        dot: inner product; of windows, if arrays carry a halo that is not zero.
        x_dtype: dtype of x; None: that of r. Float64 keeps the rounding of x, which
            A magnifies, out of an iteration that is float32 otherwise.

    References:
        Notay (2000), Flexible conjugate gradients, SIAM J. Sci. Comput. 22(4).
    """

    def unfinished(s: _State):
        more = (s.norm > budget.target) & (s.iterations < budget.maxiter)
        return more & ~s.breakdown & ~s.stalled

    def step(s: _State):
        z = precondition(s.r)
        beta = -dot(z, s.q) / s.curvature  # q is zero in the first step
        p = jax.lax.optimization_barrier(z + beta * s.p)
        q = jax.lax.optimization_barrier(apply(p))
        curvature = dot(p, q)
        fine = curvature > 0  # False for NaN
        alpha = jnp.where(fine, dot(p, s.r) / curvature, 0.0)
        x = s.x + (alpha * p).astype(s.x.dtype)
        r = s.r - alpha * q
        norm = jnp.sqrt(dot(r, r))
        iterations = s.iterations + 1
        since_peak = jnp.where(norm > s.peak, 0, s.since_peak + 1)
        peak = jnp.maximum(norm, s.peak)
        stalled = _stalled(iterations, norm, peak, since_peak, budget)
        safe = jnp.where(fine, curvature, 1.0)
        verdict = iterations, ~fine, stalled, peak, since_peak
        return _State(x, r, p, q, safe, norm, *verdict)

    zero, norm = jnp.zeros_like(r), jnp.sqrt(dot(r, r))
    no = jnp.zeros((), bool)
    start = _State(
        x=jnp.zeros_like(r, dtype=x_dtype),
        r=r,
        p=zero,
        q=zero,
        curvature=jnp.ones((), r.dtype),
        norm=norm,
        iterations=jnp.zeros((), int),
        breakdown=no,
        stalled=no,
        peak=norm,
        since_peak=jnp.zeros((), int),
    )
    end = jax.lax.while_loop(unfinished, step, start)
    return PCGResult(end.x, end.iterations, end.breakdown, end.stalled)


def _stalled(iterations, norm, peak, since_peak, budget):
    """Whether the rate of convergence since its peak asks for too many iterations."""
    total, norm = budget.done + iterations, norm.astype(jnp.float64)
    rate = jnp.minimum(jnp.log(norm / peak), -1e-3) / jnp.maximum(since_peak, 1)
    left = jnp.log(budget.rtol / (budget.norm * norm)) / rate
    seen = (total >= budget.patience) & (iterations >= MIN_SEEN)
    return seen & (total + left > budget.limit)
