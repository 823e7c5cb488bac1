"""Solves one system of every chain with cycles of GCRO-DR, as one JAX program.

The outer iteration is iterative refinement: every cycle starts from the residual
b - A x recomputed in float64, whatever the precision of the cycle itself. Chains that
have converged or were given up wait unchanged until the last one is done.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from solvers.krylov.batched_cycle import Cycle, run_cycle
from solvers.krylov.batched_spaces import (
    RecycleSpace,
    carry_over,
    choose,
    empty_space,
    select,
)
from solvers.stencils import StencilOperator

SAFETY = 0.99  # the residual norm of the recurrence may be that much too small
INNER_RTOL = 1e-4  # reduction per cycle below which float32 residuals are not true
STALL = 0.99  # a cycle that leaves more of the residual than this stalls
RUNNING, CONVERGED, STAGNATED, EXHAUSTED, BROKEN = range(5)

# Maps an operator of batch [chains] and r [chains, *grid] to M r; pure.
Preconditioner = Callable[[StencilOperator, jax.Array], jax.Array]


class Counts(NamedTuple):
    """What the solve of one position took and how it ended, all [chains].

    Attributes:
        iterations: Arnoldi steps.
        matvecs: products with A: carry-over, steps, recomputed residuals.
        applications: of the preconditioner; 0 without one.
        cycles: with at least one step.
        drops: restarts without recycle space, at most one.
        status: CONVERGED, STAGNATED, EXHAUSTED or BROKEN.
    """

    iterations: jax.Array
    matvecs: jax.Array
    applications: jax.Array
    cycles: jax.Array
    drops: jax.Array
    status: jax.Array


class _State(NamedTuple):
    x: jax.Array
    r: jax.Array
    norm: jax.Array
    space: RecycleSpace
    stalled: jax.Array
    counts: Counts


def solve_position(
    operator: StencilOperator,
    b: jax.Array,
    carried: tuple[jax.Array, jax.Array],
    limits: jax.Array,
    *,
    m: int,
    precondition: Preconditioner | None,
    inner: str,
):
    """Solves one system of every chain from a zero initial guess.

    Args:
        operator: of batch [chains].
        b: [chains, *grid] float64 or complex128.
        carried: recycle vectors Y [chains, k, n], whose dtype is that of the cycles,
            and which of them are alive [chains, k].
        limits: rtol, atol and maxiter.
        m: dimension of the search space of a cycle, k included.
        precondition: M, or None.
        inner: "float32" or "float64".

    Returns:
        x [chains, *grid], ||r|| / ||b|| [chains], the next `carried` and the `Counts`.
    """
    (Y, alive), (rtol, atol, maxiter) = carried, limits
    norm_b = jnp.linalg.norm(b.reshape(b.shape[0], -1), axis=-1)
    target = jnp.maximum(rtol * norm_b, atol)
    low, scale = _inner_operator(operator, inner)
    goal = 0.0 if inner == "float64" else INNER_RTOL

    def to_solution(v):
        v = v.reshape(b.shape)
        return v if precondition is None else precondition(low, v)

    def op(v):
        return low.apply(to_solution(v)).reshape(v.shape)

    def advance(s: _State) -> _State:
        running = s.counts.status == RUNNING
        unit = jnp.where(s.norm > 0, s.norm, 1)
        cycle = run_cycle(
            op,
            (s.r / unit[:, None]).astype(Y.dtype),
            s.space,
            target=jnp.maximum(SAFETY * target / unit, goal).astype(Y.real.dtype),
            budget=jnp.where(running, maxiter - s.counts.iterations, 0).astype(int),
            m=m,
        )
        length = (unit * scale).reshape(-1, *(1,) * (b.ndim - 1))
        x = s.x + length * to_solution(cycle.t).astype(b.dtype)
        r = (b - operator.apply(x)).reshape(s.r.shape)
        preconditioned = precondition is not None
        return _judge(s, cycle, x, r, target, maxiter, preconditioned)

    zero = jnp.zeros(b.shape[0], int)
    dim = jnp.sum(alive, axis=-1)
    applied = dim if precondition is not None else zero
    easy = (norm_b <= target) & jnp.isfinite(norm_b)
    status = jnp.where(easy, CONVERGED, RUNNING)
    counts = Counts(zero, dim, applied, zero, zero, status)
    r = b.reshape(b.shape[0], -1)
    s = _State(jnp.zeros_like(b), r, norm_b, carry_over(op, Y, alive), zero, counts)
    s = jax.lax.while_loop(lambda s: jnp.any(s.counts.status == RUNNING), advance, s)
    # A space that did not help is not carried on.
    alive = s.space.alive & (s.counts.status == CONVERGED)[:, None]
    relative = s.norm / jnp.where(norm_b > 0, norm_b, 1)
    return s.x, relative, (s.space.U, alive), s.counts


def _judge(s: _State, cycle: Cycle, x, r, target, maxiter, preconditioned) -> _State:
    """Accepts or undoes a cycle per chain and decides how the chain goes on."""
    counts, running = s.counts, s.counts.status == RUNNING
    norm = jnp.linalg.norm(r, axis=-1)
    finite = cycle.finite & jnp.isfinite(norm)
    accept = running & finite & (norm < s.norm)
    converged = accept & (norm <= target)
    slow = running & ~(accept & (norm <= STALL * s.norm))
    stalled = jnp.where(slow, s.stalled + 1, 0)
    trouble = slow & ~converged & (~accept | (stalled >= 2))
    drop = trouble & (counts.drops == 0)
    steps = jnp.where(running, cycle.steps, 0)
    products = jnp.where(running, cycle.steps + 1, 0)
    iterations = counts.iterations + steps
    ends = {
        CONVERGED: converged,
        BROKEN: trouble & ~drop & ~finite,
        STAGNATED: trouble & ~drop & finite,
        EXHAUSTED: iterations >= maxiter,
    }
    status = jnp.select([~running, *ends.values()], [counts.status, *ends], RUNNING)
    counts = Counts(
        iterations=iterations,
        matvecs=counts.matvecs + products,
        applications=counts.applications + products * preconditioned,
        cycles=counts.cycles + (steps > 0),
        drops=counts.drops + drop,
        status=status,
    )
    empty = empty_space(*s.space.U.shape, s.space.U.dtype)
    return _State(
        x=choose(accept, x, s.x),
        r=choose(accept, r, s.r),
        norm=jnp.where(accept, norm, s.norm),
        space=select(trouble, empty, select(accept, cycle.space, s.space)),
        stalled=jnp.where(drop, 0, stalled),
        counts=counts,
    )


def _inner_operator(operator, inner):
    """The operator of the cycles and the factor [chains] by which A was multiplied.

    In single precision physical units could overflow, hence the scaling there.
    """
    coefficients = operator.coefficients
    if inner == "float64":
        return operator, jnp.ones(operator.batch)
    axes = tuple(range(1, coefficients.ndim))
    largest = jnp.max(jnp.abs(coefficients), axis=axes, keepdims=True)
    largest = jnp.where((largest > 0) & (largest < jnp.inf), largest, 1)
    dtype = jnp.complex64 if jnp.iscomplexobj(coefficients) else jnp.float32
    low = jax.lax.optimization_barrier((coefficients / largest).astype(dtype))
    return dataclasses.replace(operator, coefficients=low), 1 / largest.reshape(-1)
