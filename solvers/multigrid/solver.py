"""The method `mg_pcg`: conjugate gradients preconditioned by one multigrid cycle."""

import math
import time
from collections.abc import Sequence

import jax
import numpy as np

from solvers.error_goals import checked_goal, judged
from solvers.inputs import (
    BALANCE,
    CHECK_INPUT,
    UNBALANCED,
    check_real,
    has_mean,
    not_finite,
)
from solvers.multigrid import coarsening, refinement, symmetric
from solvers.multigrid.refinement import Kind, Limits, Outcome
from solvers.precision import require_x64
from solvers.results import SolveRecord, certify
from solvers.scaling import in_units
from solvers.stencils import StencilOperator, is_singular

VARIANTS = ("auto", "point", "lines")
PRECISIONS = ("auto", "float32", "float64")
ROUGH = 1e3  # largest over smallest diagonal entry; beyond it "auto" takes float64
MAXITER = 200
# Without a maxiter of the caller's, a solve ends as soon as its rate of convergence
# asks for many more iterations than are worth it: in two dimensions `direct` takes as
# long as 150 to 180 from 98 to 421 unknowns per axis. Thin channels take 70 to 130 and
# end faster than they begin, hence the margin.
LONGEST = {1: math.inf, 2: 250.0, 3: 400.0}
PATIENCE = {"float32": 20, "float64": 50}  # iterations before the rate is judged


class MultigridPCG:
    """Solves symmetric positive definite stencil systems to float64 accuracy.

    In one, two or three dimensions, on any number of unknowns per axis, periodic or
    not. The matrix must be symmetric with offsets of at most one step per axis (star or
    full). Only its upper half is read; the certificate is taken with the whole, so a
    matrix that is not symmetric is reported as not converged. Where A maps constants to
    zero (pure Neumann or periodic problems), b must have the mean zero, and x gets it.
    Nothing is carried from one system to the next, so results do not depend on the
    order. The first solve on each grid shape compiles for some seconds.

    Args:
        inner: precision of the conjugate gradients and of the set-up of the cycle,
            "float32" or "float64"; the cycle itself runs in float32. "auto": float64
            where the entries of the diagonal differ by more than 1e3. There float32
            spoils the weights of the interpolation, and thin channels need half as many
            iterations in float64; elsewhere both take the same number.
        estimate_error: whether to estimate the relative error in the energy norm,
            sqrt(r^T M r / x^T A x) with one cycle M in place of A^-1; it stands in
            `SolveRecord.algebraic_error`.
        error_goal: iterate until the estimate is below, too; implies it. Solves that
            end above it count as not converged.
        variant: "point" coarsens all axes on every level; "auto" looks at the
            couplings of each system first and may coarsen the strong axes alone, see
            `coarsening.schedule`; "lines" smooths by lines along every axis, see
            `lines`. An iteration of "lines" costs about four times as much, which pays
            where the strong axis changes from place to place.

    Raises:
        ValueError: for another `inner` or variant, or an error_goal that is not
            positive.
    """

    on_grids = True  # takes stencil operators, see `solvers.guesses`

    def __init__(
        self,
        *,
        inner: str = "auto",
        estimate_error: bool = False,
        error_goal: float = math.inf,
        variant: str = "auto",
    ):
        if inner not in PRECISIONS:
            raise ValueError(f"inner is {inner!r}; known: {', '.join(PRECISIONS)}")
        if variant not in VARIANTS:
            raise ValueError(f"variant is {variant!r}; known: {', '.join(VARIANTS)}")
        self.inner = inner
        self.error_goal = checked_goal(error_goal)
        self.estimate_error = estimate_error or error_goal < math.inf
        self.variant = variant

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
            maxiter: largest number of iterations. None: as long as the rate of
                convergence promises to be faster than a direct solve.
            x0: [*grid] initial guess; None means zero.

        Raises:
            TypeError: if the operator is not a `StencilOperator`, or if it, the
                right-hand side or x0 is complex.
            RuntimeError: if JAX runs in 32 bit.
            ValueError: if it is not one stencil that reaches one step, or if the
                right-hand side or x0 do not fit the grid.
        """
        planes = _upper_half(system.operator)
        require_x64("mg_pcg")
        b = _checked("rhs", system.rhs, system.operator)
        x = None if x0 is None else _checked("x0", x0, system.operator)
        start = time.perf_counter()
        b, x, unit = in_units(b, x)
        kind = self._kind(system.operator, [planes])
        limits = self._limits(rtol, maxiter, b.ndim, kind)
        outcome = jax.device_get(refinement.solve(planes, b, x, limits, kind=kind))
        outcome = _in_units_of_caller(outcome, unit)
        return self._report(system, kind, outcome, rtol, time.perf_counter() - start)

    def solve_batch(
        self, systems: Sequence, *, rtol: float, maxiter: int | None = None
    ) -> list[tuple[np.ndarray, SolveRecord]]:
        """Solves systems of one grid and kind at once, for accelerators.

        On a CPU it is slower than one after the other, as a batch leaves the cache. A
        system that has converged is left alone while others go on. The whole batch has
        one precision, float64 if one system asks for it, and one order of coarsening,
        that of all couplings together: where systems differ in these, their iterations
        are not those of `solve`.

        Args:
            systems: `LinearSystem`s that share grid, offsets and boundary kinds; none
                give no results.
            rtol: see `solve`.
            maxiter: see `solve`.

        Returns:
            Solution and record of each; seconds are equal shares of the whole.

        Raises:
            TypeError: as `solve`.
            RuntimeError: as `solve`.
            ValueError: as `solve`, or if the systems differ in shape or kind.
        """
        if not systems:
            return []
        planes = [_upper_half(system.operator) for system in systems]
        require_x64("mg_pcg")
        start = time.perf_counter()
        kinds = {self._kind(system.operator, planes) for system in systems}
        forms = {
            (tuple(p), system.operator.grid_shape)
            for p, system in zip(planes, systems, strict=True)
        }
        if len(kinds) != 1 or len(forms) != 1:
            raise ValueError(
                f"a batch needs systems of one grid and kind, got {sorted(forms)} and "
                f"{sorted(kinds)}; sort them into batches first"
            )
        pairs = [in_units(_checked("rhs", s.rhs, s.operator)) for s in systems]
        b, units = np.stack([b for b, _, _ in pairs]), [unit for _, _, unit in pairs]
        planes = {o: np.stack([p[o] for p in planes]) for o in planes[0]}
        kind = kinds.pop()
        limits = self._limits(rtol, maxiter, b.ndim - 1, kind)
        outcomes = jax.device_get(refinement.solve_many(planes, b, limits, kind=kind))
        seconds = (time.perf_counter() - start) / len(systems)
        outcomes = [
            _in_units_of_caller(Outcome(*(field[i] for field in outcomes)), unit)
            for i, unit in enumerate(units)
        ]
        return [
            self._report(system, kind, outcome, rtol, seconds)
            for system, outcome in zip(systems, outcomes, strict=True)
        ]

    def reset(self) -> None:
        """Nothing is carried."""

    def close(self) -> None:
        """Nothing is held."""

    def _kind(self, operator, planes):
        """What to compile for an operator that shares it with those of the planes."""
        periodic, singular = tuple(operator.periodic), is_singular(operator)
        levels = coarsening.schedule(planes) if self.variant == "auto" else ()
        inner = self.inner
        if inner == "auto":
            diagonals = (next(iter(p.values())) for p in planes)
            rough = any(d.max() > ROUGH * d.min() for d in diagonals)
            inner = "float64" if rough else "float32"
        lines = self.variant == "lines"
        return Kind(periodic, singular, inner, self.estimate_error, levels, lines)

    def _limits(self, rtol, maxiter, num_dims, kind):
        """Tolerance, error goal, iterations, and those that may be foreseen."""
        longest, patience = LONGEST[num_dims], PATIENCE[kind.inner]
        if maxiter is not None:
            longest = math.inf
        maxiter = MAXITER if maxiter is None else maxiter
        return Limits(rtol, self.error_goal, maxiter, longest, patience)

    def _report(self, system, kind, outcome, rtol, seconds):
        """Solution and record from what a compiled program returned."""
        x, iterations = outcome.x, int(outcome.iterations)
        failure, advice = "", "try method 'direct'"
        if outcome.breakdown:
            failure = "A or its preconditioner is not positive definite"
            advice += "; mg_pcg needs a symmetric positive definite A"
        elif outcome.stalled:
            failure = f"stalls at {outcome.norm:.1e} after {iterations} iterations"
        elif kind.singular and has_mean(np.asarray(system.rhs), rtol):
            failure, advice = UNBALANCED, BALANCE
        if not np.isfinite(x).all() and (unusable := not_finite(system)):
            failure, advice = unusable, CHECK_INPUT
        record = certify(
            system,
            x,
            rtol=rtol,
            advice=advice,
            failure=failure,
            method="mg_pcg",
            iterations=iterations,
            matvecs=int(iterations + outcome.refinements),
            preconditioner_applications=iterations
            + self.estimate_error * int(outcome.refinements),
            seconds=seconds,
            relative_residual=float(outcome.norm),
            algebraic_error=float(outcome.error),
        )
        return x, judged(record, self.error_goal)


def _in_units_of_caller(outcome, unit):
    return outcome if unit == 1 else outcome._replace(x=outcome.x * unit)


def _upper_half(operator):
    """Planes [*n] per offset of `symmetric.half` that the operator has."""
    if not isinstance(operator, StencilOperator):
        raise TypeError(
            f"mg_pcg needs a StencilOperator, got {type(operator).__name__}; "
            "solve sparse matrices with 'direct' or 'petsc:...'"
        )
    check_real("mg_pcg", {"the operator": operator.coefficients})
    num_dims = len(operator.grid_shape)
    offsets = symmetric.half(num_dims)
    known = {*offsets, *map(symmetric.opposite, offsets)}
    if operator.batch != 1 or num_dims > 3 or not set(operator.offsets) <= known:
        raise ValueError(
            "mg_pcg needs one system on a grid of at most three axes that couples to "
            f"next neighbours only, got batch {operator.batch}, grid "
            f"{operator.grid_shape} and offsets {operator.offsets}"
        )
    if offsets[0] not in operator.offsets:
        raise ValueError(f"offsets {operator.offsets} lack the diagonal {offsets[0]}")
    planes = {}
    for offset in offsets:
        if offset in operator.offsets:
            plane = operator.coefficients[0, ..., operator.offsets.index(offset)]
            planes[offset] = np.ascontiguousarray(plane, np.float64)
        elif symmetric.opposite(offset) in operator.offsets:
            raise ValueError(
                f"offsets {operator.offsets} hold {symmetric.opposite(offset)} without "
                f"{offset}, so the matrix cannot be symmetric"
            )
        elif sum(map(abs, offset)) == 1:
            raise ValueError(f"offsets {operator.offsets} lack {offset}")
    return planes


def _checked(name, values, operator):
    """Float64 values after a look at their kind and shape."""
    check_real("mg_pcg", {name: values})
    values = np.asarray(values, np.float64)
    if values.shape != operator.grid_shape:
        raise ValueError(
            f"{name} has shape {values.shape}, but the grid is {operator.grid_shape}"
        )
    return values
