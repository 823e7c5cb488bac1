"""PETSc's solvers and preconditioners for sequences, and GCRO-DR as a KSP of PETSc.

Needs petsc4py, and is the only file that imports it; hence its length.
"""

import itertools
import math
import time

import numpy as np

from solvers.counting import CountingOperator
from solvers.krylov.gcrodr import check_settings, gcrodr
from solvers.preconditioners import FromMatrix
from solvers.results import PhaseSeconds, SolveRecord, certify
from solvers.scaling import unit_of

try:
    from mpi4py import MPI  # noqa: F401  (the binary wheel finds its MPI through this)
    from petsc4py import PETSc
except ImportError as error:
    raise ImportError(
        "methods and preconditioners 'petsc:...' need petsc4py: on Linux x86-64 with "
        "Python 3.12 or later `uv sync --group petsc` installs it, elsewhere build it "
        "against your own PETSc"
    ) from error

GCRODR_TYPE = "solvers.petsc.GCRODR"
AIM = 0.99  # of the tolerance, as our own methods do
MAX_RESUMES = 2  # from x, where the recurrence drifted from the true residual
TIGHTEN = 0.5  # of the tolerance that a resumed solve aims at
# Products with A per iteration, where that is not one; the same goes for M.
PRODUCTS = dict.fromkeys(
    ("bcgs", "fbcgs", "fbcgsr", "ibcgs", "bicg", "cgs", "cgne", "lsqr", "cgls"), 2
)
RESTARTED = {"gmres": 30, "fgmres": 30, "lgmres": 30, "dgmres": 30, "pgmres": 30}

_prefixes = itertools.count()


def has_hpddm() -> bool:
    """Whether this PETSc has KSPHPDDM, the GCRO-DR that the paper ran."""
    ksp = PETSc.KSP().create(PETSc.COMM_SELF)
    try:
        ksp.setType("hpddm")
    except PETSc.Error:
        return False
    finally:
        ksp.destroy()
    return True


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
        ValueError: on `solve`, for an option that PETSc never asked for.
    """

    def __init__(self, *, options: str = "", spd: bool = False):
        self.options, self.spd = options.strip(), spd
        self._prefix = f"solvers_{next(_prefixes)}_"
        self._ksp, self._matrix, self._checked = None, _Matrix(), False

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
        _refuse_complex(A, system.rhs)
        start = time.perf_counter()
        found, failure = {}, ""
        x = np.full(system.rhs.shape, np.nan)
        if not (np.isfinite(A.data).all() and np.isfinite(system.rhs).all()):
            failure = "the system holds NaN or infinite entries"
        else:
            self._prepare(A)
            try:
                self._ksp.setUp()
                setup = time.perf_counter() - start
                x, found, failure = self._run(system.rhs, rtol, maxiter, x0)
                found["phases"] = self._phases(setup, time.perf_counter() - start)
            except PETSc.Error as error:
                failure = f"PETSc: {str(error).strip().splitlines()[-1]}"
                self.reset()
        seconds = time.perf_counter() - start
        nothing = {"iterations": 0, "matvecs": 0, "preconditioner_applications": 0}
        nothing["relative_residual"] = float("nan")
        return x, certify(
            system,
            x,
            rtol=rtol,
            advice="try method 'direct', another preconditioner or more iterations",
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
        self._names = _set_options(self._prefix, self.options)
        self._ksp.setOptionsPrefix(self._prefix)
        words = self.options.split()
        if "-ksp_norm_type" not in words and "preonly" not in words:
            self._ksp.setNormType(PETSc.KSP.NormType.UNPRECONDITIONED)
        try:
            self._ksp.setFromOptions()
        except PETSc.Error:
            ours = self._gcrodr()
            if ours is None or ours.refusal is None:
                raise
            raise ours.refusal from None  # PETSc only passes on that there was one

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
            if reason > 0 and not self._checked:
                _check_used(self._prefix, self._names)
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


class PetscPreconditioner(FromMatrix):
    """One PC of PETSc, kept over a sequence of matrices; see `solvers.preconditioners`.

    While the sparsity pattern stays the same, the objects are kept and repeat only the
    numeric part of their set-up.

    Args:
        options: PETSc options, for instance "-pc_type icc -pc_factor_levels 0".

    Raises:
        TypeError: on `update`, for complex matrices if PETSc was built with real
            numbers.
        ValueError: on `update`, for an option that PETSc never asked for.
    """

    def __init__(self, options: str = ""):
        super().__init__()
        self.options, self.name = options.strip(), f"petsc:{options.strip()}"
        self._prefix = f"preconditioner_{next(_prefixes)}_"
        self._pc, self._matrix = None, _Matrix()

    def reset(self) -> None:
        """Destroys what PETSc holds; the next `update` starts afresh."""
        super().reset()
        for thing in (self._pc, *getattr(self, "_vectors", ())):
            if thing is not None:
                thing.destroy()
        self._matrix.destroy()
        self._pc, self._vectors = None, ()

    def _build(self, A):
        _refuse_complex(A)
        try:
            self._set_up(A)
        except PETSc.Error as error:
            self.reset()
            reason = str(error).strip().splitlines()[-1]
            raise ArithmeticError(
                f"PETSc could not set up {self.options!r} ({reason}); use "
                "preconditioner 'ilu' or 'lu'"
            ) from error
        if int(self._pc.getFailedReason()):
            reason = int(self._pc.getFailedReason())
            self.reset()
            raise ArithmeticError(
                f"PETSc could not set up {self.options!r} (reason {reason}: zero or "
                "negative pivots?); use preconditioner 'ilu' or 'lu'"
            )
        return self._multiply

    def _set_up(self, A):
        if self._pc is None or not self._matrix.update(A):
            self.reset()
            self._matrix.create(A)
            self._vectors = self._matrix.mat.createVecs()
            self._pc = PETSc.PC().create(PETSc.COMM_SELF)
            names = _set_options(self._prefix, self.options)
            self._pc.setOptionsPrefix(self._prefix)
            self._pc.setOperators(self._matrix.mat)
            self._pc.setFromOptions()
            self._pc.setUp()
            self._multiply(np.zeros(A.shape[0]))  # some options are read this late
            _check_used(self._prefix, names)
        else:
            self._pc.setOperators(self._matrix.mat)
            self._pc.setUp()

    def _multiply(self, r):
        if r.ndim == 2:
            return np.stack([self._multiply(column) for column in r.T], axis=1)
        right, left = self._vectors
        right.setArray(r)
        self._pc.apply(right, left)
        return left.getArray().copy()


class GCRODR:
    """GCRO-DR(m, k) as a KSP of type python: `-ksp_python_type solvers.petsc.GCRODR`.

    Composes with every PC and matrix type, also with rows spread over processes. The
    space stays in the KSP while operators change; `KSPReset` drops it. Right
    preconditioning, true residual; PETSc's tolerances rtol, atol and max_it hold, the
    residual history and monitors see every step.

    Options, after the KSP's prefix: `-ksp_gcrodr_m` (40), `-ksp_gcrodr_k` (20),
    `-ksp_gcrodr_refresh` always, adaptive or never, `-ksp_gcrodr_selection` harmonic or
    singular, `-ksp_gcrodr_mode` t or x, `-ksp_gcrodr_recycle` (true; false starts every
    system cold). See `solvers.krylov.gcrodr.gcrodr`.

    Attributes:
        space: what the next system starts from.
        result: the last `GCRODRResult`.
        refusal: what was wrong with the options, or None.
    """

    def __init__(self):
        self.m, self.k, self.recycle = 40, 20, True
        self.settings = {"refresh": "always", "selection": "harmonic", "mode": "t"}
        self.space = self.result = self._operators = self.refusal = None

    def create(self, ksp) -> None:
        """Asks PETSc for right preconditioning and true residual norms."""
        ksp.setPCSide(PETSc.PC.Side.RIGHT)
        ksp.setNormType(PETSc.KSP.NormType.UNPRECONDITIONED)

    def setFromOptions(self, ksp) -> None:  # noqa: N802
        """Reads the options.

        Raises:
            ValueError: for settings out of range, or left preconditioning.
        """
        options = PETSc.Options(ksp.getOptionsPrefix())
        self.m = options.getInt("ksp_gcrodr_m", self.m)
        self.k = options.getInt("ksp_gcrodr_k", self.k)
        self.recycle = options.getBool("ksp_gcrodr_recycle", self.recycle)
        for name, value in self.settings.items():
            self.settings[name] = options.getString(f"ksp_gcrodr_{name}", value)
        try:
            check_settings(self.m, self.k, **self.settings)
            if options.getString("ksp_pc_side", "right").lower() != "right":
                raise ValueError("GCRODR preconditions on the right; drop -ksp_pc_side")
        except ValueError as error:
            self.refusal = error
            raise

    def reset(self, ksp) -> None:
        """Drops the space."""
        self.space = self.result = self._operators = None

    def solve(self, ksp, b, x) -> None:
        """Solves with what the KSP holds; sets its reason, counts and history."""
        A, P = ksp.getOperators()
        products = CountingOperator(_product(A, A.mult))
        precondition = CountingOperator(_product(A, _preconditioning(ksp, A)))
        no_pc = ksp.getPC().getType() == "none"
        n = b.getSize()
        m, norm_b = min(self.m, n), b.norm()
        self.result = gcrodr(
            products,
            b.getArray(readonly=True),
            x.getArray(readonly=True).copy() if ksp.getInitialGuessNonzero() else None,
            M=None if no_pc and not A.getNullSpace().handle else precondition,
            m=m,
            k=min(self.k, m - 1),
            rtol=ksp.rtol,
            atol=ksp.atol,
            maxiter=ksp.max_it,
            space=self._space_for(A, P, b.getLocalSize()),
            same_operator=True,  # `_space_for` takes C off where that does not hold
            keep=self.recycle,
            callback=_monitoring(ksp, norm_b),
            rows=DistributedRows(ksp.getComm().tompi4py()),
            **self.settings,
        )
        self.space = self.result.space
        x.setArray(self.result.x)
        self._report(ksp, norm_b)

    def view(self, ksp, viewer) -> None:
        """Prints the settings."""
        settings = ", ".join(f"{name} {value}" for name, value in self.settings.items())
        viewer.printfASCII(f"  GCRO-DR(m = {self.m}, k = {self.k}), {settings}\n")

    def _space_for(self, A, P, local_size):
        """The space, without C unless the operators are the very same."""
        state = tuple((mat.handle, mat.stateGet()) for mat in (A, P))
        same, self._operators = state == self._operators, state
        space = self.space
        if space is None or len(space.Y) != local_size:
            return None
        return space if same else space.for_another_matrix()

    def _report(self, ksp, norm_b):
        result, reasons = self.result, PETSc.KSP.ConvergedReason
        ksp.setIterationNumber(result.iterations)
        ksp.setResidualNorm(result.residual_norm)
        if result.converged:
            relative = result.residual_norm <= ksp.rtol * norm_b
            reason = reasons.CONVERGED_RTOL if relative else reasons.CONVERGED_ATOL
        elif not math.isfinite(result.residual_norm):
            reason = reasons.DIVERGED_NANORINF
        elif result.iterations >= ksp.max_it:
            reason = reasons.DIVERGED_MAX_IT
        else:
            reason = reasons.DIVERGED_BREAKDOWN
        ksp.setConvergedReason(reason)


def _monitoring(ksp, norm_b):
    """Tells the KSP about every step: number, norm, history, monitors."""
    steps = itertools.count()

    def report(relative):
        step, norm = next(steps), relative * norm_b
        ksp.setIterationNumber(step)
        ksp.setResidualNorm(norm)
        ksp.logConvergenceHistory(norm)
        ksp.monitor(step, norm)

    return report


class DistributedRows:
    """Rows spread over the processes of an MPI communicator, see `Rows`.

    Args:
        comm: mpi4py communicator.
    """

    def __init__(self, comm):
        self._comm, self.rank, self._alone = comm, comm.rank, comm.size == 1

    def reduce(self, values: np.ndarray) -> np.ndarray:
        """Sum over the processes."""
        if self._alone:
            return values
        values = np.ascontiguousarray(values)
        total = np.empty_like(values)
        self._comm.Allreduce(values, total)
        return total

    def gather(self, values: np.ndarray) -> list[np.ndarray]:
        """The arrays of all processes."""
        return self._comm.allgather(values)


class _Matrix:
    """A PETSc matrix with the arrays of a SciPy one; new values keep the object."""

    def __init__(self):
        self.mat = self._pattern = self._values = None

    def update(self, A):
        """Takes over the values if the pattern is the same; returns whether it is."""
        pattern = _pattern(A)
        if self._pattern is None or not all(
            np.array_equal(a, b) for a, b in zip(pattern, self._pattern, strict=True)
        ):
            return False
        np.copyto(self._values, A.data)  # the matrix reads this array
        self.mat.stateIncrease()
        return True

    def create(self, A):
        """Builds the matrix."""
        self._pattern, self._values = _pattern(A), A.data.astype(PETSc.ScalarType)
        self.mat = PETSc.Mat().createAIJWithArrays(
            A.shape, (*self._pattern[1:], self._values), comm=PETSc.COMM_SELF
        )
        self.mat.assemble()

    def destroy(self):
        """Frees the matrix."""
        if self.mat is not None:
            self.mat.destroy()
        self.mat = self._pattern = self._values = None


def _pattern(A):
    return A.shape, A.indptr.astype(PETSc.IntType), A.indices.astype(PETSc.IntType)


def _refuse_complex(*arrays):
    real = not np.issubdtype(PETSc.ScalarType, np.complexfloating)
    if real and any(np.iscomplexobj(values) for values in arrays):
        raise TypeError(
            "this PETSc is built with real numbers and cannot solve complex systems; "
            "use method 'direct' or a PETSc built with complex numbers"
        )


def _product(A, apply):
    """A PETSc map between local arrays; the result is valid until the next call."""
    right, left = A.createVecs()

    def product(v):
        right.placeArray(v)
        apply(right, left)
        right.resetArray()
        return left.getArray(readonly=True)

    return product


def _preconditioning(ksp, A):
    """The PC, followed by the projection along A's null space if it is attached."""
    pc, null_space = ksp.getPC(), A.getNullSpace()

    def apply(right, left):
        pc.apply(right, left)
        if null_space.handle:
            null_space.remove(left)

    return apply


def _set_options(prefix, options):
    """Enters an options string for one object; returns the names."""
    database, words, names = PETSc.Options(prefix), options.split(), []
    for k, word in enumerate(words):
        if word.startswith("-") and not _is_number(word):
            following = words[k + 1] if k + 1 < len(words) else "-"
            is_flag = following.startswith("-") and not _is_number(following)
            database.setValue(word[1:], "" if is_flag else following)
            names.append(word[1:])
    return names


def _check_used(prefix, names):
    database = PETSc.Options()
    unused = [name for name in names if not database.used(prefix + name)]
    if unused:
        for name in unused:
            database.delValue(prefix + name)
        raise ValueError(
            f"PETSc never asked for the option -{unused[0]}; check its spelling, and "
            "that the chosen KSP and PC have it"
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


def _is_number(word):
    try:
        float(word)
    except ValueError:
        return False
    return True
