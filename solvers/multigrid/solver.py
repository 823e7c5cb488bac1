"""Conjugate gradients preconditioned by one multigrid cycle, compiled per grid shape.

Float64 outside, float32 inside: each refinement step takes the true float64 residual
r, solves A e = r by conjugate gradients with one V(1,1) cycle, and adds e to x.
"""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np

from solvers.inputs import CHECK_INPUT, not_finite
from solvers.krylov import cg
from solvers.multigrid import cycles, symmetric
from solvers.precision import require_x64
from solvers.results import SolveRecord, certify
from solvers.stencils import StencilOperator

MAX_REFINEMENTS = 6
INNER_RTOL = 1e-4  # further down, float32 residuals drift away from the true ones


class MultigridPCG:
    """Solves symmetric positive definite 2-D stencil systems to float64 accuracy.

    The matrix must be symmetric with offsets of at most one step per axis (five- or
    nine-point). Only its upper half is read; the certificate is taken with the whole,
    so a matrix that is not symmetric is reported as not converged. Nothing is carried
    from one system to the next, so results do not depend on the order. The first solve
    on each grid shape compiles for some seconds.

    Args:
        inner: precision of the conjugate gradients, "float32" or "float64"; the cycle
            runs in float32 in both.

    Raises:
        ValueError: for another `inner`.
    """

    def __init__(self, *, inner: str = "float32"):
        if inner not in ("float32", "float64"):
            raise ValueError(f"inner is {inner!r}; known: 'float32', 'float64'")
        self.inner = inner

    def solve(
        self,
        system,
        *,
        rtol: float,
        maxiter: int | None = None,
        x0: np.ndarray | None = None,
    ) -> tuple[np.ndarray, SolveRecord]:
        """Solves one system; see `solvers.sequence.SequenceSolver`.

        Args:
            system: a `LinearSystem` with a `StencilOperator` of batch 1.
            rtol: largest accepted ||b - A x|| / ||b||.
            maxiter: largest number of iterations; None: 100.
            x0: [*grid] initial guess; None means zero.

        Raises:
            TypeError: if the operator is not a `StencilOperator`.
            RuntimeError: if JAX runs in 32 bit.
            ValueError: if it is not one 2-D stencil that reaches one step, or if the
                right-hand side or x0 do not fit the grid.
        """
        planes = _upper_half(system.operator)
        require_x64("mg_pcg")
        b = _checked("rhs", system.rhs, system.operator)
        x = None if x0 is None else _checked("x0", x0, system.operator)
        maxiter = 100 if maxiter is None else maxiter
        start = time.perf_counter()
        out = _solve(planes, b, x, rtol, maxiter, inner=self.inner)
        x, norm, iterations, refinements, breakdown = jax.device_get(out)
        seconds = time.perf_counter() - start
        failure = "A or its preconditioner is not positive definite" * bool(breakdown)
        advice = "try method 'direct'; mg_pcg needs a symmetric positive definite A"
        if not np.isfinite(x).all() and (unusable := not_finite(system)):
            failure, advice = unusable, CHECK_INPUT
        return x, certify(
            system,
            x,
            rtol=rtol,
            advice=advice,
            failure=failure,
            method="mg_pcg",
            iterations=int(iterations),
            matvecs=int(iterations + refinements),
            preconditioner_applications=int(iterations),
            seconds=seconds,
            relative_residual=float(norm),
        )

    def reset(self) -> None:
        """Nothing is carried."""

    def close(self) -> None:
        """Nothing is held."""


@functools.partial(jax.jit, static_argnames=("inner",))
def _solve(planes, b, x0, rtol, maxiter, *, inner):
    """Returns x [n1, n2], ||r|| / ||b||, iterations, refinements, breakdown."""
    shape, grown = b.shape, symmetric.even_shape(b.shape)
    # Scaled to a mean diagonal of 1 and a right-hand side of norm 1, so that float32
    # neither overflows nor underflows.
    scale = 1 / jnp.mean(planes[symmetric.CENTER])
    norm_b = jnp.sqrt(jnp.vdot(b, b))
    norm_b = jnp.where(norm_b == 0, 1.0, norm_b)
    fine = {o: _inside(a, o) * scale for o, a in planes.items()}
    fine = symmetric.pad_to_even(fine, shape)
    grow = [(0, m - n) for m, n in zip(grown, shape, strict=True)]
    b = jnp.pad(b / norm_b, grow)
    x = jnp.zeros_like(b) if x0 is None else jnp.pad(x0 / (norm_b * scale), grow)

    low = jax.lax.optimization_barrier(
        {o: a.astype(jnp.float32) for o, a in fine.items()}
    )
    hierarchy = cycles.build_hierarchy(low)
    dtype = jnp.dtype(inner)
    inner_stencil = symmetric.row_sum_form(fine, dtype)
    goal = INNER_RTOL if inner == "float32" else 0.0

    def residual(x):
        return b - symmetric.apply(fine, symmetric.halo(x))

    def correct(r, norm, left):
        return cg.flexible_cg(
            lambda p: symmetric.apply_row_sum_form(inner_stencil, symmetric.halo(p)),
            lambda r: cycles.v_cycle(hierarchy, r.astype(jnp.float32)).astype(dtype),
            (r / norm).astype(dtype),
            target=jnp.maximum(goal, 0.5 * rtol / norm).astype(dtype),
            maxiter=left,
            x_dtype=jnp.float64,
        )

    def unfinished(state):
        _, _, norm, iterations, refinements, breakdown = state
        more = (iterations < maxiter) & (refinements < MAX_REFINEMENTS)
        return (norm > rtol) & more & ~breakdown

    def refine(state):
        x, r, norm, iterations, refinements, _ = state
        result = correct(r, norm, maxiter - iterations)
        x = x + norm * result.x
        r = jax.lax.optimization_barrier(residual(x))
        norm = jnp.sqrt(jnp.vdot(r, r))
        iterations += result.iterations
        counts = iterations, refinements + 1, result.breakdown
        return x, r, norm, *counts

    r = b if x0 is None else residual(x)
    norm = jnp.sqrt(jnp.vdot(r, r))
    counts = (jnp.zeros((), int), jnp.zeros((), int), jnp.zeros((), bool))
    state = (x, r, norm, *counts)
    x, _, norm, *counts = jax.lax.while_loop(unfinished, refine, state)
    x = x[: shape[0], : shape[1]] * (norm_b * scale)
    return x, norm, *counts


def _inside(values, offset):
    """Sets the couplings of one stored offset that leave the grid to zero."""
    inside = np.zeros(values.shape, bool)
    rows = slice(0, values.shape[0] - offset[0])
    columns = slice(max(0, -offset[1]), values.shape[1] - max(0, offset[1]))
    inside[rows, columns] = True
    return jnp.where(inside, values, 0.0)


def _upper_half(operator):
    """Planes [n1, n2] per offset of `symmetric.HALF` that the operator has."""
    if not isinstance(operator, StencilOperator):
        raise TypeError(
            f"mg_pcg needs a StencilOperator, got {type(operator).__name__}; "
            "solve sparse matrices with 'direct' or 'petsc:...'"
        )
    known = {*symmetric.HALF, *map(symmetric.opposite, symmetric.HALF)}
    if operator.batch != 1 or not set(operator.offsets) <= known:
        raise ValueError(
            "mg_pcg needs one 2-D system that couples to the eight neighbours at most, "
            f"got batch {operator.batch} and offsets {operator.offsets}"
        )
    if symmetric.CENTER not in operator.offsets:
        raise ValueError(f"offsets {operator.offsets} lack the diagonal (0, 0)")
    planes = {}
    for offset in symmetric.HALF:
        if offset in operator.offsets:
            plane = operator.coefficients[0, ..., operator.offsets.index(offset)]
            planes[offset] = np.ascontiguousarray(plane, np.float64)
        elif symmetric.opposite(offset) in operator.offsets:
            raise ValueError(
                f"offsets {operator.offsets} hold {symmetric.opposite(offset)} without "
                f"{offset}, so the matrix cannot be symmetric"
            )
    if not {(0, 1), (1, 0)} <= set(planes):
        raise ValueError(f"offsets {operator.offsets} lack (0, 1) or (1, 0)")
    return planes


def _checked(name, values, operator):
    """Float64 values after a look at their shape."""
    values = np.asarray(values, np.float64)
    if values.shape != operator.grid_shape:
        raise ValueError(
            f"{name} has shape {values.shape}, but the grid is {operator.grid_shape}"
        )
    return values
