"""One system from set-up to solution in one compiled program.

Float64 outside, float32 inside: each refinement step takes the true float64 residual
r, solves A e = r by conjugate gradients with one V(1,1) cycle, and adds e to x.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from solvers.multigrid import cycles, pcg, symmetric
from solvers.multigrid.coarsening import Schedule
from solvers.multigrid.symmetric import Shape, Stencil, window

MAX_REFINEMENTS = 6
INNER_RTOL = 2e-5  # further down, float32 residuals drift away from the true ones


class Kind(NamedTuple):
    """What a compiled program depends on beside shapes.

    Attributes:
        periodic: axes that wrap around.
        singular: whether A maps constants to zero.
        inner: dtype of the conjugate gradients, and of the set-up of the cycle.
        estimate: whether the error is estimated.
        coarsening: see `coarsening.schedule`.
        line_smoother: see `cycles.build_hierarchy`.
    """

    periodic: tuple[int, ...]
    singular: bool
    inner: str
    estimate: bool
    coarsening: Schedule = ()
    line_smoother: bool = False


class Limits(NamedTuple):
    """Where a solve ends; numbers.

    Attributes:
        rtol: accepted ||b - A x|| / ||b||.
        error_goal: accepted estimate of the relative error in the energy norm.
        maxiter: largest number of iterations.
        longest: largest number of iterations that the rate of convergence may ask for.
        patience: iterations before that rate is judged.
    """

    rtol: float
    error_goal: float
    maxiter: int
    longest: float
    patience: int


class Outcome(NamedTuple):
    """What a compiled program returns; see `solvers.results.SolveRecord`."""

    x: jax.Array
    norm: jax.Array
    error: jax.Array
    iterations: jax.Array
    refinements: jax.Array
    breakdown: jax.Array
    stalled: jax.Array


class Prepared(NamedTuple):
    """One matrix, scaled, with its hierarchy, for unknowns padded to [*m].

    Attributes:
        fine: float64 stencil with halo.
        inner: the same as `symmetric.row_sum_form` in the dtype of the inner iteration.
        hierarchy: in float32, set up in the dtype of the inner iteration.
        shape: unknowns per axis without padding.
        kind: as passed.
    """

    fine: Stencil
    inner: Stencil
    hierarchy: cycles.Hierarchy
    shape: Shape
    kind: Kind

    def project(self, v: jax.Array) -> jax.Array:
        """Takes away the mean over the true unknowns of [*m], if A is singular."""
        if not self.kind.singular:
            return v
        inside = v[tuple(slice(n) for n in self.shape)]
        inside = inside - jnp.sum(inside) / math.prod(self.shape)
        return _grown(inside, v.shape)

    def halo(self, v: jax.Array) -> jax.Array:
        """Adds the halo to [*m]."""
        return symmetric.halo(v, self.kind.periodic)

    def residual(self, b: jax.Array, x: jax.Array) -> jax.Array:
        """Residual b - A x in float64, all [*m]."""
        return self.project(b - symmetric.apply(self.fine, self.halo(x)))

    def apply(self, p: jax.Array) -> jax.Array:
        """A p in the dtype of the inner iteration, both with halo."""
        return self.halo(symmetric.apply_row_sum_form(self.inner, p))

    def precondition(self, r: jax.Array) -> jax.Array:
        """M r in r's dtype, both with halo."""
        low = r.astype(jnp.float32)
        if self.hierarchy.stretched:
            z = self.halo(cycles.v_cycle(self.hierarchy, window(low)))
        else:
            z = cycles.cycle(self.hierarchy, 0, low)
        if self.kind.singular:
            z = self.halo(self.project(window(z)))
        return z.astype(r.dtype)

    def dot(self, u: jax.Array, v: jax.Array) -> jax.Array:
        """Inner product of fields with halo."""
        if self.kind.periodic:
            return jnp.vdot(window(u), window(v))
        return jnp.vdot(u, v)  # the halo is zero

    def error(self, b: jax.Array, x: jax.Array, r: jax.Array) -> jax.Array:
        """Estimate of ||x - A^-1 b||_A / ||x||_A, M in place of A^-1; fields [*m]."""
        norm = jnp.sqrt(jnp.vdot(r, r))
        unit = r / jnp.where(norm == 0, 1.0, norm)
        M_unit = window(self.precondition(self.halo(unit)))
        left = norm**2 * jnp.vdot(unit, M_unit)
        energy = jnp.vdot(x, b - r)
        return jnp.sqrt(jnp.where(left == 0, 0.0, left / energy))


def prepare(planes: Stencil, kind: Kind) -> tuple[Prepared, jax.Array]:
    """Builds what iterations need from values [*n] per offset of `symmetric.half`.

    Also returns the factor that scales A to a mean diagonal of 1, so that float32
    neither overflows nor underflows.
    """
    center, periodic = symmetric.center_of(planes), kind.periodic
    shape = planes[center].shape
    scale = 1 / jnp.mean(planes[center])
    ends = [k not in periodic for k in range(len(shape))]
    m = tuple(n + n % 2 * end for n, end in zip(shape, ends, strict=True))
    values = {}
    for offset, a in planes.items():
        # Couplings that leave the grid are never used.
        valid = tuple(
            slice(max(0, -o), n - max(0, o)) if end else slice(None)
            for o, n, end in zip(offset, shape, ends, strict=True)
        )
        before = [(max(0, -o) * end, 0) for o, end in zip(offset, ends, strict=True)]
        values[offset] = _grown(jnp.pad(a[valid], before) * scale, m)
    if m != shape:
        values[center] += 1 - _grown(jnp.ones(shape), m)  # decoupled unknowns
    low = {offset: a.astype(kind.inner) for offset, a in values.items()}
    low = jax.lax.optimization_barrier(low)
    hierarchy = cycles.build_hierarchy(
        low,
        periodic,
        singular=kind.singular,
        coarsening=kind.coarsening,
        line_smoother=kind.line_smoother,
    )
    hierarchy = cycles.single(hierarchy)
    fine = {offset: symmetric.halo(a, periodic) for offset, a in values.items()}
    inner = symmetric.row_sum_form(fine, jnp.dtype(kind.inner))
    return Prepared(fine, inner, hierarchy, shape, kind), scale


def solve_one(
    planes: Stencil, b: jax.Array, x0: jax.Array | None, limits: Limits, *, kind: Kind
) -> Outcome:
    """Solves one system.

    Args:
        planes: [*n] per offset of `symmetric.half`.
        b: [*n] right-hand side.
        x0: [*n] initial guess; None: zero.
        limits: where to end; may be traced.
        kind: static.
    """
    ready, scale = prepare(planes, kind)
    m = window(ready.fine[symmetric.center_of(planes)]).shape
    b = ready.project(b)
    unit = jnp.sqrt(jnp.vdot(b, b))
    unit = jnp.where(unit == 0, 1.0, unit)
    b = _grown(b / unit, m)
    if x0 is None:
        x, r = jnp.zeros_like(b), b
    else:
        x = _grown(x0 / (unit * scale), m)
        r = ready.residual(b, x)
    norm, error = jnp.sqrt(jnp.vdot(r, r)), jnp.ones(())
    if kind.estimate:
        if x0 is not None:
            # Zero as a guess has no energy to compare with: all of the error is left.
            error = ready.error(b, x, r)
            error = jnp.where(jnp.isfinite(error), error, 1.0)
        error = jnp.where(norm == 0, 0.0, error)
    none, no = jnp.zeros((), int), jnp.zeros((), bool)
    start = Outcome(x, norm, error, none, none, no, no)
    end = _refine(ready, b, r, start, limits)
    x = ready.project(end.x)[tuple(slice(n) for n in ready.shape)] * (unit * scale)
    return end._replace(x=x, error=end.error if kind.estimate else jnp.nan)


def _refine(ready, b, r, start, limits):
    """Adds corrections to start.x, whose residual is r, until the limits are met."""

    def unfinished(state):
        _, s = state
        more = (s.iterations < limits.maxiter) & (s.refinements < MAX_REFINEMENTS)
        wanted = s.norm > limits.rtol
        if ready.kind.estimate:
            wanted |= s.error > limits.error_goal
        return wanted & more & ~s.breakdown & ~s.stalled

    def refine(state):
        r, s = state
        budget = _budget(ready.kind, s, limits)
        result = pcg.pcg(
            ready.apply,
            ready.precondition,
            ready.halo((r / s.norm).astype(ready.kind.inner)),
            budget,
            dot=ready.dot,
            x_dtype=jnp.float64,
        )
        x = s.x + s.norm * window(result.x)
        r = jax.lax.optimization_barrier(ready.residual(b, x))
        return r, Outcome(
            x=x,
            norm=jnp.sqrt(jnp.vdot(r, r)),
            error=ready.error(b, x, r) if ready.kind.estimate else s.error,
            iterations=s.iterations + result.iterations,
            refinements=s.refinements + 1,
            breakdown=result.breakdown,
            stalled=result.stalled,
        )

    return jax.lax.while_loop(unfinished, refine, (r, start))[1]


def _budget(kind, s, limits):
    """How far the next inner iteration goes: what is missing, in equal steps."""
    target = 0.5 * limits.rtol / s.norm
    if kind.estimate:
        # Errors above 1 are those of guesses that are small beside the solution.
        further = 0.5 * limits.error_goal / jnp.minimum(s.error, 1.0)
        any_error = jnp.isinf(limits.error_goal)
        target = jnp.where(any_error, target, jnp.minimum(target, further))
    if kind.inner == "float32":
        steps = jnp.ceil(jnp.log(target) / math.log(INNER_RTOL))
        target **= 1 / jnp.maximum(steps, 1.0)
    return pcg.Budget(
        target=target.astype(kind.inner),
        maxiter=limits.maxiter - s.iterations,
        limit=limits.longest,
        patience=limits.patience,
        done=s.iterations,
        norm=s.norm,
        rtol=limits.rtol,
    )


def _grown(values, shape):
    """Zeros behind the values up to a shape."""
    grow = [(0, m - n) for m, n in zip(shape, values.shape, strict=True)]
    return jnp.pad(values, grow)


@functools.partial(jax.jit, static_argnames=("kind",))
def solve(planes, b, x0, limits, *, kind) -> Outcome:
    """`solve_one`, compiled."""
    return solve_one(planes, b, x0, limits, kind=kind)


@functools.partial(jax.jit, static_argnames=("kind",))
def solve_many(planes, b, limits, *, kind) -> Outcome:
    """`solve_one` for arrays [batch, *n] from x = 0, compiled."""

    def one(planes, b):
        return solve_one(planes, b, None, limits, kind=kind)

    return jax.vmap(one)(planes, b)
