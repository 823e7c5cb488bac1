"""PETSc's KSPs behind the interface of `solvers.sequence`."""

import math
import time

import numpy as np

from solvers.inputs import CHECK_INPUT, not_finite
from solvers.petsc import (
    GCRODR,
    HeldMatrix,
    PETSc,
    check_used,
    prefix_numbers,
    reason_of,
    refuse_complex,
    refused,
    set_options,
)
from solvers.results import PhaseSeconds, SolveRecord, certify
from solvers.scaling import unit_of

AIM = 0.99  # of the tolerance, as our own methods do
UNKNOWN = (86, 92)  # PETSc's codes for a type or a factorisation that it lacks
MAX_RESUMES = 2  # from x, where the recurrence drifted from the true residual
TIGHTEN = 0.5  # of the tolerance that a resumed solve aims at
# Products with A per iteration, where that is not one; the same goes for M.
PRODUCTS = dict.fromkeys(
    ("bcgs", "fbcgs", "fbcgsr", "ibcgs", "bicg", "cgs", "cgne", "lsqr", "cgls"), 2
)
RESTARTED = {"gmres": 30, "fgmres": 30, "lgmres": 30, "dgmres": 30, "pgmres": 30}


class PetscSolver:
    """One KSP, kept over a sequence of systems.

    While the sparsity pattern stays the same, matrix and KSP are reused with new
    values, so factorisations repeat only their numeric part. The true residual norm
    (unpreconditioned) stops iterative methods that can compute it, unless the options
    say otherwise. Where b - A x, computed anew, is still above the tolerance, the solve
    goes on from x with a tighter one, twice at most; all steps count. Our own GCRO-DR
    is "-ksp_type python -ksp_python_type solvers.petsc.GCRODR". Except for it, products
    are counted from the iterations: PETSc does not tell.

    Args:
        options: PETSc options, for instance "-ksp_type cg -pc_type gamg".
        spd: declares the matrices symmetric positive definite.

    Raises:
        TypeError: on `solve`, for complex systems if PETSc was built with real numbers.
        ValueError: on `solve`, for an option that PETSc refuses or never asked for.
    """

    def __init__(self, *, options: str = "", spd: bool = False):
        self.options, self.spd = options.strip(), spd
        self._prefix = f"solvers_{next(prefix_numbers)}_"
        self._ksp, self._matrix, self._checked = None, HeldMatrix(), False

    @property
    def method(self) -> str:
        """Name in the registry."""
        return f"petsc:{self.options}"

    def solve(
        self,
        system,
        *,
        rtol: float,
        maxiter: int | None = None,
        x0: np.ndarray | None = None,
    ) -> tuple[np.ndarray, SolveRecord]:
        """Solves one system; see `solvers.sequence.SequenceSolver`.

        Errors that PETSc raises while solving (a zero pivot, for instance) end up in
        the record; unknown solver names in the options raise.
        """
        A = system.to_csr()
        refuse_complex(A, system.rhs)
        start = time.perf_counter()
        found, failure = {}, ""
        x = np.full(system.rhs.shape, np.nan)
        advice = "try method 'direct', another preconditioner or more iterations"
        own = system._replace(operator=A, preconditioning_matrix=None)
        if unusable := not_finite(own):
            failure, advice = unusable, CHECK_INPUT
        else:
            self._prepare(A)
            try:
                self._ksp.setUp()
                setup = time.perf_counter() - start
                x, found, failure = self._run(system.rhs, rtol, maxiter, x0)
                found["phases"] = self._phases(setup, time.perf_counter() - start)
            except PETSc.Error as error:
                self.reset()
                if error.ierr in UNKNOWN:
                    raise refused(self.options, self._prefix, error) from None
                failure = f"PETSc: {reason_of(error)}"
            except ValueError:
                self.reset()
                raise
        seconds = time.perf_counter() - start
        nothing = {"iterations": 0, "matvecs": 0, "preconditioner_applications": 0}
        nothing["relative_residual"] = float("nan")
        return x, certify(
            system,
            x,
            rtol=rtol,
            advice=advice,
            failure=failure,
            method=self.method,
            seconds=seconds,
            **(nothing | found),
        )

    def reset(self) -> None:
        """Destroys KSP and matrix; the next solve starts afresh."""
        if self._ksp is not None:
            self._ksp.destroy()
        self._matrix.destroy()
        self._ksp = None

    def close(self) -> None:
        """Destroys what PETSc holds for this solver."""
        self.reset()

    def _prepare(self, A):
        """Puts new values into the matrix, or builds matrix and KSP anew."""
        if not self._matrix.update(A):
            self.reset()
            self._matrix.create(A)
            self._ksp = PETSc.KSP().create(PETSc.COMM_SELF)
            self._configure()
        if self.spd:
            self._matrix.mat.setOption(PETSc.Mat.Option.SPD, True)
        self._ksp.setOperators(self._matrix.mat)

    def _configure(self):
        """Applies the options to this KSP alone."""
        self._names = set_options(self._prefix, self.options)
        self._ksp.setOptionsPrefix(self._prefix)
        words = self.options.split()
        if "-ksp_norm_type" not in words and "preonly" not in words:
            self._ksp.setNormType(PETSc.KSP.NormType.UNPRECONDITIONED)
        try:
            self._ksp.setFromOptions()
        except PETSc.Error as error:
            ours = self._gcrodr()
            refusal = None if ours is None else ours.refusal
            if refusal is None:  # else PETSc only passes on that there was one
                refusal = refused(self.options, self._prefix, error)
            self.reset()
            raise refusal from None

    def _gcrodr(self):
        """Our GCRO-DR if it is what the options ask for, else None."""
        if self._ksp.getType() != "python":
            return None
        context = self._ksp.getPythonContext()
        return context if isinstance(context, GCRODR) else None

    def _run(self, rhs, rtol, maxiter, x0):
        """Returns x, what the record needs, and what went wrong."""
        unit = unit_of(rhs)
        b = PETSc.Vec().createWithArray(
            np.asarray(rhs, np.float64).ravel() / unit, comm=PETSc.COMM_SELF
        )
        x = b.duplicate()
        limit = 10_000 if maxiter is None else maxiter
        try:
            if x0 is not None:
                x.setArray(np.asarray(x0, np.float64).ravel() / unit)
            aim = 0.999 if self._gcrodr() is not None else AIM
            reason, found = self._solve_once(b, x, aim * rtol, limit, x0 is not None)
            stopped = PETSc.KSP.ConvergedReason.DIVERGED_MAX_IT
            if (reason > 0 or reason == stopped) and not self._checked:
                check_used(self._prefix, self._names)
                self._checked = True
            if self._recurs():
                reason, found = self._resume(b, x, rtol, limit, reason, found)
            failure = "" if reason > 0 else f"KSP stopped with reason {reason}"
            return x.getArray().reshape(rhs.shape) * unit, found, failure
        finally:
            x.destroy()
            b.destroy()

    def _solve_once(self, b, x, rtol, limit, warm):
        """One KSPSolve, from x if `warm`; returns PETSc's reason and the counts."""
        ksp = self._ksp
        ksp.setInitialGuessNonzero(warm)
        ksp.setTolerances(rtol=rtol, atol=0.0, max_it=limit)
        ksp.setConvergenceHistory(limit + 2, reset=True)
        ksp.solve(b, x)
        return ksp.getConvergedReason(), self._statistics(b.norm(), warm)

    def _recurs(self):
        """Whether this KSP stops on a residual that it does not compute from x."""
        ksp = self._ksp
        measures = ksp.getNormType() != PETSc.KSP.NormType.NONE
        return measures and ksp.getType() != "preonly" and self._gcrodr() is None

    def _resume(self, b, x, rtol, limit, reason, found):
        """Goes on from x while the recomputed residual is above the tolerance."""
        scale, aim = b.norm(), rtol
        for _ in range(MAX_RESUMES):
            if not (reason > 0 and scale):
                break
            r = b.duplicate()
            self._matrix.mat.mult(x, r)
            r.aypx(-1.0, b)
            relative = r.norm() / scale
            r.destroy()
            found = found | {"matvecs": found["matvecs"] + 1}
            left = limit - found["iterations"]
            if relative <= rtol or left <= 0:
                break
            aim *= TIGHTEN * min(1.0, rtol / relative)
            reason, more = self._solve_once(b, x, aim, left, True)
            found = _joined(found, more)
        return reason, found

    def _statistics(self, scale, warm):
        """Counts and norms of the solve that just ended."""
        ksp, ours = self._ksp, self._gcrodr()
        norm = ksp.getResidualNorm() / scale if scale else 0.0
        counts = _counts(ksp, self._prefix, warm)
        if ours is not None and ours.result is not None:
            result = ours.result
            counts = {
                "matvecs": result.matvecs,
                "preconditioner_applications": result.preconditioner_applications,
                "cycles": result.cycles,
                "recycle_dim": result.recycle_dim,
                "fallbacks": result.flags,
            }
        history = ()
        if ksp.getNormType() == PETSc.KSP.NormType.UNPRECONDITIONED and scale:
            history = tuple((ksp.getConvergenceHistory() / scale).tolist())
        return counts | {
            "iterations": ksp.getIterationNumber(),
            "relative_residual": norm,
            "residual_norms": history,
        }

    def _phases(self, setup, seconds):
        ours = self._gcrodr()
        if ours is None or ours.result is None:
            return PhaseSeconds(setup=setup, arnoldi=seconds - setup)
        found = ours.result.phases
        rest = found.carry_over + found.refresh + found.dense + found.preconditioner
        return PhaseSeconds(
            setup=setup,
            carry_over=found.carry_over,
            arnoldi=max(0.0, seconds - setup - rest),
            refresh=found.refresh,
            dense=found.dense,
            preconditioner=found.preconditioner,
        )


def _counts(ksp, prefix, warm):
    """Products with A and M that the iterations of a KSP stand for."""
    kind, steps = ksp.getType(), ksp.getIterationNumber()
    if kind == "preonly":
        return {"matvecs": 0, "preconditioner_applications": 1, "cycles": 0}
    cycles = 1
    if kind in RESTARTED:
        length = PETSc.Options(prefix).getInt("ksp_gmres_restart", RESTARTED[kind])
        cycles = max(1, math.ceil(steps / length))
    products = PRODUCTS.get(kind, 1) * steps
    return {
        "matvecs": products + cycles - 1 + warm,
        "preconditioner_applications": products + cycles,
        "cycles": cycles,
    }


def _joined(first, second):
    """Statistics of a solve and of the one that went on from its x."""
    summed = ("iterations", "matvecs", "preconditioner_applications", "cycles")
    joined = {name: first[name] + second[name] for name in summed}
    history = first["residual_norms"] + second["residual_norms"][1:]
    return first | second | joined | {"residual_norms": history}
