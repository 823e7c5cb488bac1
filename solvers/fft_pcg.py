"""Conjugate gradients preconditioned by a constant-coefficient operator's inverse."""

import math
import time
from collections.abc import Sequence

import jax
import numpy as np

from solvers import fft_refinement, reference, scaled_system
from solvers.error_goals import checked_goal, judged
from solvers.fft_refinement import Arrays, Limits, typical_diagonal
from solvers.inputs import (
    BALANCE,
    CHECK_INPUT,
    UNBALANCED,
    check_real,
    has_mean,
    not_finite,
)
from solvers.precision import require_x64
from solvers.results import SolveRecord, certify
from solvers.scaled_system import FORMS
from solvers.scaling import in_units
from solvers.star import planes_of, star_of
from solvers.stencils import is_singular

MAXITER = 100


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
        estimate_error: whether records tell `algebraic_error`; NaN if x0 is so good
            that nothing is iterated.
        error_goal: largest accepted estimate of it; iterates further if need be. Solves
            that end above it count as not converged.

    Raises:
        ValueError: for an unknown form, or a goal that is not positive.

    References:
        Concus, Golub (1973), Use of fast direct methods for the efficient numerical
        solution of nonseparable elliptic equations, SIAM J. Numer. Anal. 10(6): scaling
        and shift. Hestenes, Stiefel (1952), theorem 6:1: the decreases of the error.
    """

    on_grids = True  # takes stencil operators, see `solvers.guesses`

    def __init__(
        self,
        *,
        form: str = "auto",
        estimate_error: bool = False,
        error_goal: float = math.inf,
    ):
        if form not in FORMS:
            raise ValueError(f"form is {form!r}; known: {', '.join(map(repr, FORMS))}")
        self.form, self.error_goal = form, checked_goal(error_goal)
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
            TypeError: if the operator is not a `StencilOperator`, or if it, the
                right-hand side or x0 is complex.
            RuntimeError: if JAX runs in 32 bit.
            ValueError: if it is not one star stencil, or if the right-hand side or x0
                do not fit the grid.
        """
        arrays, singular, unit = self._read(system, x0)
        maxiter = MAXITER if maxiter is None else maxiter
        start = time.perf_counter()
        key = (arrays.b.shape, system.operator.periodic)
        lines = self._lines.get(key) or _first_look(arrays, key[1])
        while True:
            out = fft_refinement.solve(
                arrays,
                scaled_system.tables_of(lines),
                Limits(rtol, maxiter, self.error_goal),
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
        return self._report(system, out, rtol, maxiter, singular, unit, seconds)

    def solve_batch(
        self, systems: Sequence, *, rtol: float, maxiter: int | None = None
    ) -> list[tuple[np.ndarray, SolveRecord]]:
        """Solves many systems at once, for accelerators; on a CPU `solve` is faster.

        Systems of one shape and one kind of sides share a program, in which those that
        are done wait for the last one. The time of a record is its share of the whole.
        One whose sides the program reads otherwise is solved once more, by `solve`.

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
            arrays, *rest = self._read(system, None)
            key = (arrays.b.shape, system.operator.periodic)
            lines = _first_look(arrays, key[1])
            groups.setdefault((key, lines), []).append((number, arrays, *rest))
        for (key, lines), members in groups.items():
            numbers, arrays, singular, units = zip(*members, strict=True)
            start = time.perf_counter()
            out = fft_refinement.solve_many(
                jax.tree.map(lambda *parts: np.stack(parts), *arrays),
                scaled_system.tables_of(lines),
                Limits(rtol, maxiter, self.error_goal),
                np.asarray(singular),
                FORMS.index(self.form),
                periodic=key[1],
                estimate=self.estimate_error,
            )
            out = jax.device_get(out)
            seconds = (time.perf_counter() - start) / len(members)
            for k, number in enumerate(numbers):
                one = jax.tree.map(lambda part, k=k: part[k], out)
                rest = (rtol, maxiter, singular[k], units[k], seconds)
                if reference.unit_lines(*key, one.ends, one.sides) == lines:
                    results[number] = self._report(systems[number], one, *rest)
                else:
                    alone = self.solve(systems[number], rtol=rtol, maxiter=maxiter)
                    results[number] = alone
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
        check_real("fft_pcg", {"the operator": diagonal, **values})
        b = np.asarray(system.rhs, np.float64)
        x0 = None if x0 is None else np.asarray(x0, np.float64)
        b, x0, unit = in_units(b, x0)
        arrays = Arrays(diagonal, couplings, b, x0)
        return arrays, is_singular(system.operator), unit

    def _report(self, system, out, rtol, maxiter, singular, unit, seconds):
        """Solution and record from what a compiled program returned."""
        if unit != 1:
            out = out._replace(x=out.x * unit)
        record = _record(system, out, rtol, maxiter, singular, seconds)
        return out.x, judged(record, self.error_goal)


def _first_look(arrays, periodic):
    """The lines of the reference operator, by NumPy."""
    with np.errstate(all="ignore"):  # hopeless entries are reported later
        scale = 1 / typical_diagonal(arrays.diagonal)
        parts = (c * scale for c in arrays.couplings)
        star = star_of(arrays.diagonal * scale, tuple(parts), periodic)
        ratios = reference.end_ratios(star)
    return reference.unit_lines(arrays.b.shape, periodic, *ratios)


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
    if singular and has_mean(np.asarray(system.rhs), rtol):
        failure, advice = UNBALANCED, BALANCE
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
