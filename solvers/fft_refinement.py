"""One system of `solvers.fft_pcg` from its planes to its solution, compiled.

Float64 outside, float32 inside: each refinement step takes the true float64 residual
r, solves A e = r by conjugate gradients, and adds e to x.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from solvers import reference, scaled_system
from solvers.star import Star, star_of

MAX_REFINEMENTS = 8
INNER_RTOL = 1e-4  # further down, float32 residuals drift away from the true ones
PATIENCE = 16  # iterations before slow convergence can end a solve
HOPE = 1.5  # ... if it will take that many times the largest number of iterations
FIRST_TARGET = 0.1  # of the residual, where iterations are to tell the error


class Arrays(NamedTuple):
    """One system: planes as in `solvers.star.planes_of`, b and x0 [*grid] or None."""

    diagonal: jax.Array
    couplings: tuple[jax.Array, ...]
    b: jax.Array
    x0: jax.Array | None


class Limits(NamedTuple):
    """Where a solve ends; numbers, see `solvers.fft_pcg.FFTPCG.solve`."""

    rtol: float
    maxiter: int
    error_goal: float


class _Progress(NamedTuple):
    """State of the refinement, in the units in which ||b|| = 1 and diag(A) is near 1.

    Attributes:
        x: [*grid].
        r: b - A x.
        norm: ||r||_2.
        iterations: of all refinement steps.
        refinements: their number.
        breakdown: A is not positive definite.
        stalled: given up.
        decreases: [4] how much the last iterations decreased ||x - A^-1 b||_A^2, newest
            last, -1 before that; None if not asked for.
        anchor: estimate of that over norm^2 when the last refinement began.
        first: norm before the first refinement, 1 if x began as zero; None likewise.
    """

    x: jax.Array
    r: jax.Array
    norm: jax.Array
    iterations: jax.Array
    refinements: jax.Array
    breakdown: jax.Array
    stalled: jax.Array
    decreases: jax.Array | None
    anchor: jax.Array
    first: jax.Array | None


class Output(NamedTuple):
    """What a compiled program returns: fields of `_Progress`, in the caller's units.

    Attributes:
        error: estimate of ||x - A^-1 b||_A / ||x||_A; NaN if not asked for or unknown.
        ends: what `solvers.reference.end_ratios` returns first.
        sides: what it returns second.
    """

    x: jax.Array
    norm: jax.Array
    iterations: jax.Array
    refinements: jax.Array
    breakdown: jax.Array
    stalled: jax.Array
    error: jax.Array
    ends: jax.Array
    sides: jax.Array


def typical_diagonal(diagonal):
    """The mean of the middle plane: its sign and order of magnitude matter."""
    return diagonal[diagonal.shape[0] // 2].mean()


def _program(arrays, tables, limits, singular, form, *, periodic, estimate):
    """Solves one system; `form` counts in FORMS. Returns `Output`."""
    scale = 1 / typical_diagonal(arrays.diagonal)
    norm_b = jnp.sqrt(jnp.vdot(arrays.b, arrays.b))
    norm_b = jnp.where(norm_b == 0, 1.0, norm_b)
    b = arrays.b / norm_b
    b = b - jnp.where(singular, jnp.mean(b), 0.0)

    def apply(x):
        return scale * scaled_system.apply_planes(
            arrays.diagonal, arrays.couplings, x, periodic
        )

    parts = tuple(c * scale for c in arrays.couplings)
    star = star_of(arrays.diagonal * scale, parts, periodic, jnp)
    star = Star(*jax.tree.map(lambda a: a.astype(jnp.float32), star[:2]), periodic)
    star = Star(*jax.lax.optimization_barrier(star[:2]), periodic)
    ends, sides = reference.end_ratios(star, jnp)
    D, scaled_star, precondition = scaled_system.scaled_system(
        star, apply, tables, form
    )

    def unfinished(s: _Progress):
        error = _error(s, b)
        more = (s.iterations < limits.maxiter) & (s.refinements < MAX_REFINEMENTS)
        far = (s.norm > limits.rtol) | (error > limits.error_goal)
        return far & more & ~s.breakdown & ~s.stalled

    def refine(s: _Progress):
        missing = 0.5 * limits.rtol / s.norm
        if estimate:
            error = _error(s, b)
            further = 0.3 * limits.error_goal / jnp.where(error > 0, error, 1.0)
            # A good guess may meet rtol, but nothing is known before an iteration.
            unknown = jnp.isinf(error)
            further = jnp.where(unknown, FIRST_TARGET, further)
            missing = jnp.minimum(missing, further)
            anchor = jnp.where(unknown, 0.0, _squared_error(s) / s.norm**2)
            s = s._replace(anchor=anchor)
        y, s = _iterate(
            lambda p: scaled_system.apply_star(scaled_star, p),
            precondition,
            D * s.r,
            s,
            target=jnp.maximum(INNER_RTOL, missing),
            limits=limits,
        )
        x = s.x + D * y
        r = jax.lax.optimization_barrier(b - apply(x))
        return s._replace(
            x=x, r=r, norm=jnp.sqrt(jnp.vdot(r, r)), refinements=s.refinements + 1
        )

    x = jnp.zeros_like(b) if arrays.x0 is None else arrays.x0 / (norm_b * scale)
    r = b if arrays.x0 is None else b - apply(x)
    no, none = jnp.zeros((), bool), jnp.zeros((), int)
    decreases = jnp.full(4, -1.0) if estimate else None
    norm = jnp.sqrt(jnp.vdot(r, r))
    first = jnp.ones(()) if arrays.x0 is None else norm
    first = first if estimate else None
    start = (x, r, norm, none, none, no, no, decreases)
    start = _Progress(*start, jnp.zeros(()), first)
    end = jax.lax.while_loop(unfinished, refine, start)
    x = end.x - jnp.where(singular, jnp.mean(end.x), 0.0)
    error = _error(end, b) if estimate else jnp.asarray(jnp.nan)
    error = jnp.where(jnp.isinf(error), jnp.nan, error)
    counts = (end.iterations, end.refinements, end.breakdown, end.stalled)
    return Output(x * (norm_b * scale), end.norm, *counts, error, ends, sides)


_STATIC = ("periodic", "estimate")
solve = jax.jit(_program, static_argnames=_STATIC)


@functools.partial(jax.jit, static_argnames=_STATIC)
def solve_many(arrays, tables, limits, singular, form, **static):
    """`_program` for arrays and `singular` with a leading batch axis."""
    one = functools.partial(_program, **static)
    batched = jax.vmap(one, in_axes=(0, None, None, 0, None))
    return batched(arrays, tables, limits, singular, form)


def _iterate(apply, precondition, r, s: _Progress, *, target, limits):
    """Conjugate gradients on A y = r in float32 until ||r|| has fallen by `target`.

    Returns:
        y in float64, since rounding of y would be magnified by A, and `s` with its
        counts, flags and decreases.
    """
    start = jnp.sqrt(jnp.vdot(r, r))
    unit = jnp.where(start == 0, 1.0, start)
    r = (r / unit).astype(jnp.float32)

    def unfinished(state):
        _, _, _, _, norm, s = state
        more = (s.iterations < limits.maxiter) & ~s.breakdown & ~s.stalled
        return (norm > target) & more

    def step(state):
        y, r, p, energy, _, s = state
        z = precondition(r)
        new = jnp.vdot(z, r)
        p = jax.lax.optimization_barrier(z + new / energy * p)
        q = jax.lax.optimization_barrier(apply(p))
        curvature = jnp.vdot(p, q)
        fine = (curvature > 0) & (new > 0)  # False for NaN
        alpha = jnp.where(fine, new / curvature, 0.0)
        y = y + (alpha * p).astype(y.dtype)
        r = r - alpha * q
        norm = jnp.sqrt(jnp.vdot(r, r))
        iterations = s.iterations + 1
        # At the mean rate so far; logarithms are negative.
        rate = jnp.log(norm * s.norm) / iterations
        late = HOPE * limits.maxiter * rate > jnp.log(limits.rtol)
        decreases = s.decreases
        if decreases is not None:
            decrease = (alpha * new).astype(unit.dtype) * unit**2
            decreases = jnp.append(decreases[1:], decrease)
        s = s._replace(
            iterations=iterations,
            breakdown=~fine,
            stalled=late & (iterations >= PATIENCE),
            decreases=decreases,
        )
        return y, r, p, new, norm, s

    y, p = jnp.zeros(r.shape), jnp.zeros_like(r)
    infinite, one = jnp.full((), jnp.inf, r.dtype), jnp.ones((), r.dtype)
    state = jax.lax.while_loop(unfinished, step, (y, r, p, infinite, one, s))
    return state[0] * unit, state[-1]


def _error(s: _Progress, b):
    """Estimate of ||x - A^-1 b||_A / ||x||_A; 0 if not asked for, inf if unknown."""
    if s.decreases is None:
        return jnp.zeros(())
    energy = jnp.vdot(s.x, b - s.r)
    return jnp.sqrt(_squared_error(s) / jnp.where(energy > 0, energy, 1.0))


def _squared_error(s: _Progress):
    """Estimate of ||x - A^-1 b||_A^2, the sum of the decreases to come.

    They go on falling at the rate of the last four, or for want of them at that of the
    residual. A refinement begins with small ones: there the error has fallen no more
    than the residual.
    """
    known = jnp.sum(s.decreases >= 0)
    first = s.decreases[jnp.maximum(4 - known, 0)]
    steps = jnp.maximum(known - 1, 1)
    rate = (s.decreases[-1] / first) ** (1 / steps)
    rate = jnp.where(known > 1, rate, (s.norm / s.first) ** 2)
    rate = jnp.minimum(rate, 0.95)
    rest = jnp.maximum(s.decreases[-1] * rate / (1 - rate), s.anchor * s.norm**2)
    return jnp.where(known > 0, rest, jnp.where(s.norm > 0, jnp.inf, 0.0))
