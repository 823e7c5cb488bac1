"""Direct solver for separable operators on box grids, by fast diagonalisation."""

import time

import numpy as np

from solvers.fast_inverse import FastInverse
from solvers.inputs import BALANCE, CHECK_INPUT, UNBALANCED, has_mean, not_finite
from solvers.results import PhaseSeconds, SolveRecord, certify
from solvers.scaling import unit_of
from solvers.separable import separate
from solvers.star import planes_of, star_of
from solvers.stencils import double, is_singular

MAX_REFINEMENTS = 3
ADVICE = "try method 'fft_pcg', 'mg_pcg' or 'direct'"
SINGULAR_ADVICE = "the matrix may be singular or not symmetric; " + ADVICE


class FastDirect:
    """Solves symmetric star stencils whose coefficients are constant or separable.

    A = sum_k T_k x (weights of the other axes) with one tridiagonal matrix T_k per
    axis, see `solvers.separable.separate`: the eigenvectors of all T_k, or of all but
    the last, make A diagonal or tridiagonal (`solvers.fast_inverse`), in float64. They
    are applied by FFT where they are sines or cosines, which they are for constant
    coefficients between any walls, closed and periodic sides. Definite or not, Robin
    sides too; singular systems get the solution of mean zero. Other operators are
    refused in the record.

    What belongs to the matrix is kept while it stays the same; solutions do not depend
    on that. The same operator object counts as unchanged as long as its solutions have
    the residual they should.
    """

    def __init__(self):
        self.reset()

    def solve(
        self,
        system,
        *,
        rtol: float,
        maxiter: int | None = None,
        x0: np.ndarray | None = None,
    ) -> tuple[np.ndarray, SolveRecord]:
        """Solves one system; `maxiter` and `x0` mean nothing here.

        An operator that is not separable gives a record that is not converged and says
        why, and x is NaN then.

        Raises:
            TypeError: if the operator is not a `StencilOperator`.
            ValueError: if it is not one star stencil.
        """
        start = time.perf_counter()
        trusted = system.operator is self._operator
        failure, advice = self._keep(system)
        clock = start, time.perf_counter() - start
        if failure:
            x = np.full(system.operator.grid_shape, np.nan)
            return x, _record(system, x, rtol, clock, 0, failure, advice)
        x, record = self._refined(system, rtol, clock)
        if not record.converged and trusted:
            self._operator = None  # it may have been changed in place
            return self.solve(system, rtol=rtol)
        return x, record

    def reset(self) -> None:
        """Drops what is kept."""
        self._operator = self._kept = self._inverse = None
        self._singular, self._failure = False, ""

    def close(self) -> None:
        """Drops what is kept."""
        self.reset()

    def _keep(self, system):
        """Makes the inverse unless it is there; what prevents it, and advice."""
        operator = system.operator
        if operator is self._operator:
            broken = not_finite(system._replace(operator=None))
            return broken, CHECK_INPUT
        diagonal, couplings = planes_of(operator, "fast_direct")
        if broken := not_finite(system):
            return broken, CHECK_INPUT
        kept = (np.array(operator.periodic), diagonal, *couplings)
        if self._kept is None or not _same(kept, self._kept):
            self.reset()
            self._failure = self._invert(diagonal, couplings, operator)
            self._kept = tuple(np.copy(part) for part in kept)
        self._operator = None if self._failure else operator
        return self._failure, ADVICE

    def _invert(self, diagonal, couplings, operator):
        """Makes the inverse; returns what prevents it."""
        if np.iscomplexobj(operator.coefficients):
            return "A is complex"
        scale = np.abs(diagonal).max(initial=0.0) or 1.0
        scale = -scale if diagonal.mean() < 0 else scale
        couplings = tuple(c / scale for c in couplings)
        factors = separate(star_of(diagonal / scale, couplings, operator.periodic))
        if isinstance(factors, str):
            return "A is not separable: " + factors
        self._singular = is_singular(operator)
        self._inverse = FastInverse(
            factors, operator.periodic, scale=scale, singular=self._singular
        )
        return ""

    def _refined(self, system, rtol, clock):
        """A solution and its record, whose residual decides about refinements."""
        b, failure = double(system.rhs), ""
        unit, advice = unit_of(b), SINGULAR_ADVICE
        b = b if unit == 1 else b / unit
        if self._singular and has_mean(b, rtol):
            failure, advice = UNBALANCED, BALANCE
        x, r, solves = 0.0, b, 0
        while True:
            step = self._applied(r)
            x, solves = step if solves == 0 else x + step, solves + 1
            solution = x if unit == 1 else x * unit
            record = _record(system, solution, rtol, clock, solves, failure, advice)
            hopeless = failure or not np.isfinite(record.true_relative_residual)
            if record.converged or hopeless or solves > MAX_REFINEMENTS:
                return solution, record
            r = system.operator.residual(x[None], b[None])[0]

    def _applied(self, r):
        if np.iscomplexobj(r):
            return self._inverse(r.real.copy()) + 1j * self._inverse(r.imag.copy())
        return self._inverse(r)


def _record(system, x, rtol, clock, solves, failure, advice):
    """The certificate; `clock` is the start and the seconds of the set-up."""
    start, setup = clock
    seconds = time.perf_counter() - start
    return certify(
        system,
        x,
        rtol=rtol,
        advice=advice,
        failure=failure,
        method="fast_direct",
        iterations=0,
        matvecs=solves,
        preconditioner_applications=solves,
        seconds=seconds,
        relative_residual=float("nan"),
        phases=PhaseSeconds(setup=setup, preconditioner=seconds - setup),
    )


def _same(new, old):
    return all(np.array_equal(a, b) for a, b in zip(new, old, strict=True))
