"""Conjugate gradients preconditioned by a constant-coefficient operator's inverse.

Float64 outside, float32 inside: each refinement step takes the true float64 residual
r, solves A e = r by conjugate gradients, and adds e to x.
"""

import functools
import math
import time
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from solvers import reference, scaled_system
from solvers.inputs import CHECK_INPUT, not_finite
from solvers.precision import require_x64
from solvers.results import SolveRecord, certify
from solvers.scaled_system import FORMS
from solvers.star import Star, planes_of, star_of
from solvers.stencils import is_singular

MAX_REFINEMENTS = 8
INNER_RTOL = 1e-4  # further down, float32 residuals drift away from the true ones
MAXITER = 100
PATIENCE = 16  # iterations before slow convergence can end a solve
HOPE = 1.5  # ... if it will take that many times the largest number of iterations


class FFTPCG:
    """Solves symmetric positive (semi-)definite star stencils of mild coefficients.

    A = -div(a grad) + c on a box grid in any dimension, with any mixture of walls,
    closed, Robin and periodic sides, is scaled to D A D and preconditioned by the
    inverse of L, the operator with constant a and c whose links are the mean ones.
    L^-1 is applied by fast diagonalisation: one dense matrix per axis, that of the
    sine, cosine or Fourier transform of its sides, which is faster than transforms by
    FFT up to several hundred unknowns per axis. Iterations do not grow with the grid;
    they depend on the form:

    - "scaled", D = a^(-1/2) at the unknowns: on the smoothness of a, not its contrast.
    - "unscaled", D = 1: on the square root of the contrast, not on the smoothness.
    - "auto": "scaled" if a is continuous, see `solvers.roughness.is_continuous`.

    A solve ends early, as not converged, if it would take far too many iterations.
    Only the diagonal and the couplings to the next unknowns are read; the certificate
    is taken with all, so a matrix that is not symmetric is reported as not converged.
    Singular systems (closed or periodic without c) get the solution of mean zero.
    Nothing is carried from one system to the next, so results do not depend on the
    order. The first solve on each grid shape compiles for some seconds.

    Args:
        form: "auto", "scaled" or "unscaled".
        estimate_error: whether records tell `algebraic_error`.
        error_goal: largest accepted estimate of it; iterates further if need be.

    Raises:
        ValueError: for an unknown form, or a goal that is not positive.

    References:
        Concus, Golub (1973), Use of fast direct methods for the efficient numerical
        solution of nonseparable elliptic equations, SIAM J. Numer. Anal. 10(6): scaling
        and shift. Hestenes, Stiefel (1952), theorem 6:1: the decreases of the error.
    """

    def __init__(
        self,
        *,
        form: str = "auto",
        estimate_error: bool = False,
        error_goal: float = math.inf,
    ):
        if form not in FORMS:
            raise ValueError(f"form is {form!r}; known: {', '.join(map(repr, FORMS))}")
        if not error_goal > 0:
            raise ValueError(f"error_goal is {error_goal}; expected a number > 0")
        self.form, self.error_goal = form, float(error_goal)
        self.estimate_error = estimate_error or error_goal < math.inf
        self._lines = {}  # what the sides of the last system looked like, per shape

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
            ValueError: if it is not one star stencil, or if the right-hand side or x0
                do not fit the grid.
        """
        arrays, singular = self._read(system, x0)
        maxiter = MAXITER if maxiter is None else maxiter
        start = time.perf_counter()
        key = (arrays.b.shape, system.operator.periodic)
        lines = self._lines.get(key) or _first_look(arrays, key[1])
        while True:
            out = _solve(
                arrays,
                scaled_system.tables_of(lines),
                _Limits(rtol, maxiter, self.error_goal),
                singular,
                FORMS.index(self.form),
                periodic=key[1],
                estimate=self.estimate_error,
            )
            out = jax.device_get(out)
            # The program looks at the sides itself: the verdict does not depend on the
            # lines that it was given, so that at most one more run is needed.
            found = reference.unit_lines(*key, out.ends, out.sides)
            if found == lines:
                break
            lines = found
        self._lines[key] = lines
        seconds = time.perf_counter() - start
        return out.x, _record(system, out, rtol, maxiter, singular, seconds)

    def solve_batch(
        self, systems: Sequence, *, rtol: float, maxiter: int | None = None
    ) -> list[tuple[np.ndarray, SolveRecord]]:
        """Solves many systems at once, for accelerators; on a CPU `solve` is faster.

        Systems of one shape and one kind of sides share a program, in which those that
        are done wait for the last one. The time of a record is its share of the whole.

        Args:
            systems: as `solve` takes them.
            rtol: largest accepted ||b - A x|| / ||b||.
            maxiter: largest number of iterations; None: 100.

        Raises:
            TypeError: as `solve`.
            RuntimeError: as `solve`.
            ValueError: as `solve`.
        """
        maxiter = MAXITER if maxiter is None else maxiter
        groups, results = {}, [None] * len(systems)
        for number, system in enumerate(systems):
            arrays, singular = self._read(system, None)
            key = (arrays.b.shape, system.operator.periodic)
            lines = _first_look(arrays, key[1])
            groups.setdefault((key, lines), []).append((number, arrays, singular))
        for (key, lines), members in groups.items():
            numbers, arrays, singular = zip(*members, strict=True)
            start = time.perf_counter()
            out = _solve_batch(
                jax.tree.map(lambda *parts: np.stack(parts), *arrays),
                scaled_system.tables_of(lines),
                _Limits(rtol, maxiter, self.error_goal),
                np.asarray(singular),
                FORMS.index(self.form),
                periodic=key[1],
                estimate=self.estimate_error,
            )
            out = jax.device_get(out)
            seconds = (time.perf_counter() - start) / len(members)
            for k, number in enumerate(numbers):
                one = jax.tree.map(lambda part, k=k: part[k], out)
                rest = (rtol, maxiter, singular[k], seconds)
                results[number] = one.x, _record(systems[number], one, *rest)
        return results

    def reset(self) -> None:
        """Nothing is carried."""

    def close(self) -> None:
        """Nothing is held."""

    def _read(self, system, x0):
        diagonal, couplings = planes_of(system.operator, "fft_pcg")
        require_x64("fft_pcg")
        grid, values = system.operator.grid_shape, {"rhs": system.rhs, "x0": x0}
        for name, array in values.items():
            if array is not None and np.shape(array) != grid:
                raise ValueError(
                    f"{name} has shape {np.shape(array)}, but the grid is {grid}"
                )
        b = np.asarray(system.rhs, np.float64)
        x0 = None if x0 is None else np.asarray(x0, np.float64)
        return _Arrays(diagonal, couplings, b, x0), is_singular(system.operator)


class _Arrays(NamedTuple):
    """One system: planes as in `solvers.star.planes_of`, b and x0 [*grid] or None."""

    diagonal: jax.Array
    couplings: tuple[jax.Array, ...]
    b: jax.Array
    x0: jax.Array | None


class _Limits(NamedTuple):
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


class _Output(NamedTuple):
    x: jax.Array
    norm: jax.Array
    iterations: jax.Array
    refinements: jax.Array
    breakdown: jax.Array
    stalled: jax.Array
    error: jax.Array
    ends: jax.Array
    sides: jax.Array


def _first_look(arrays, periodic):
    """The lines of the reference operator, by NumPy."""
    with np.errstate(all="ignore"):  # hopeless entries are reported later
        scale = 1 / _typical_diagonal(arrays.diagonal)
        parts = (c * scale for c in arrays.couplings)
        star = star_of(arrays.diagonal * scale, tuple(parts), periodic)
        ratios = reference.end_ratios(star)
    return reference.unit_lines(arrays.b.shape, periodic, *ratios)


def _typical_diagonal(diagonal):
    """The mean of the middle plane: its sign and order of magnitude matter."""
    return diagonal[diagonal.shape[0] // 2].mean()


def _record(system, out, rtol, maxiter, singular, seconds):
    advice = "try method 'mg_pcg' or 'direct'"
    failure = ""
    if out.breakdown:
        failure = "A is not positive definite"
        advice = "try method 'direct'; fft_pcg needs a symmetric positive definite A"
    elif out.stalled:
        failure = (
            f"after {out.iterations} iterations the relative residual is "
            f"{out.norm:.1e}, so that far more than {maxiter} are needed"
        )
    if singular and abs(system.rhs.sum()) > rtol * np.linalg.norm(system.rhs):
        failure = "A is singular and b is not orthogonal to the constants"
        advice = "subtract the mean from b"
    if not np.isfinite(out.x).all() and (unusable := not_finite(system)):
        failure, advice = unusable, CHECK_INPUT
    return certify(
        system,
        out.x,
        rtol=rtol,
        advice=advice,
        failure=failure,
        method="fft_pcg",
        iterations=int(out.iterations),
        matvecs=int(out.iterations + out.refinements),
        preconditioner_applications=int(out.iterations),
        seconds=seconds,
        relative_residual=float(out.norm),
        algebraic_error=float(out.error),
    )


def _program(arrays, tables, limits, singular, form, *, periodic, estimate):
    """Solves one system; `form` counts in FORMS. Returns `_Output`."""
    scale = 1 / _typical_diagonal(arrays.diagonal)
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
            unknown = jnp.isinf(error)  # nothing iterated yet
            missing = jnp.where(unknown, missing, jnp.minimum(missing, further))
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
    start = (x, r, jnp.sqrt(jnp.vdot(r, r)), none, none, no, no, decreases)
    start = _Progress(*start, jnp.zeros(()))
    end = jax.lax.while_loop(unfinished, refine, start)
    x = end.x - jnp.where(singular, jnp.mean(end.x), 0.0)
    error = _error(end, b) if estimate else jnp.asarray(jnp.nan)
    counts = (end.iterations, end.refinements, end.breakdown, end.stalled)
    return _Output(x * (norm_b * scale), end.norm, *counts, error, ends, sides)


_STATIC = ("periodic", "estimate")
_solve = jax.jit(_program, static_argnames=_STATIC)


@functools.partial(jax.jit, static_argnames=_STATIC)
def _solve_batch(arrays, tables, limits, singular, form, **static):
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
    """Estimate of ||x - A^-1 b||_A / ||x||_A; 0 if not asked for."""
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
    rate = jnp.where(known > 1, (s.decreases[-1] / first) ** (1 / steps), s.norm**2)
    rate = jnp.minimum(rate, 0.95)
    rest = jnp.maximum(s.decreases[-1] * rate / (1 - rate), s.anchor * s.norm**2)
    return jnp.where(known > 0, rest, jnp.where(s.norm > 0, jnp.inf, 0.0))
