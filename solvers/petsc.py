"""GCRO-DR as a KSP of PETSc, and PETSc's preconditioners for sequences of systems.

Needs petsc4py, and is the only file that imports it.
"""

import itertools
import math

import numpy as np

from solvers.counting import CountingOperator
from solvers.krylov.gcrodr import check_settings, gcrodr
from solvers.petsc_options import pairs_of
from solvers.preconditioners import FromMatrix

try:
    from mpi4py import MPI  # noqa: F401  (the binary wheel finds its MPI through this)
    from petsc4py import PETSc
except ImportError as error:
    raise ImportError(
        "methods and preconditioners 'petsc:...' need petsc4py: on Linux x86-64 with "
        "Python 3.12 or later `uv sync --group petsc` installs it, elsewhere build it "
        "against your own PETSc"
    ) from error

prefix_numbers = itertools.count()


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
        self._prefix = f"preconditioner_{next(prefix_numbers)}_"
        self._pc, self._matrix = None, HeldMatrix()

    def reset(self) -> None:
        """Destroys what PETSc holds; the next `update` starts afresh."""
        super().reset()
        for thing in (self._pc, *getattr(self, "_vectors", ())):
            if thing is not None:
                thing.destroy()
        self._matrix.destroy()
        self._pc, self._vectors = None, ()

    def _build(self, A):
        refuse_complex(A)
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
            names = set_options(self._prefix, self.options)
            self._pc.setOptionsPrefix(self._prefix)
            self._pc.setOperators(self._matrix.mat)
            self._pc.setFromOptions()
            self._pc.setUp()
            self._multiply(np.zeros(A.shape[0]))  # some options are read this late
            check_used(self._prefix, names)
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


class HeldMatrix:
    """A PETSc matrix with the arrays of a SciPy one; new values keep the object.

    The same values leave its state as it is, so that PETSc keeps what is built from it.
    """

    def __init__(self):
        self.mat = self._pattern = self._values = None

    def update(self, A):
        """Takes over the values if the pattern is the same; returns whether it is."""
        pattern = _pattern(A)
        if self._pattern is None or not all(
            np.array_equal(a, b) for a, b in zip(pattern, self._pattern, strict=True)
        ):
            return False
        if not np.array_equal(A.data, self._values):
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


def refuse_complex(*arrays: np.ndarray) -> None:
    """Raises a TypeError for complex arrays where PETSc has real numbers."""
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


def set_options(prefix: str, options: str) -> list[str]:
    """Enters an options string for one object; returns the names."""
    database, pairs = PETSc.Options(prefix), pairs_of(options)
    for name, value in pairs:
        database.setValue(name[1:], value)
    return [name[1:] for name, _ in pairs]


def refused(options: str, prefix: str, error: PETSc.Error) -> ValueError:
    """One sentence of what PETSc says against options; takes them back."""
    for name, _ in pairs_of(options):
        PETSc.Options().delValue(prefix + name[1:])
    reason = reason_of(error).replace(prefix, "")
    said = reason.replace('"', " ").split()
    blamed = [
        f"{name} {value}"
        for name, value in pairs_of(options)
        if (value and value in said) or name == "-ksp_python_type"
    ]
    what = f"option {blamed[-1]}" if blamed else f"options {options!r}"
    return ValueError(f"PETSc refuses the {what}: {reason}; check the spelling")


def reason_of(error: PETSc.Error) -> str:
    """The last line of a PETSc error that is no place in its source."""
    lines = [line.removeprefix("[0] ") for line in str(error).strip().splitlines()]
    return [line for line in lines if "() at " not in line][-1]


def check_used(prefix: str, names: list[str]) -> None:
    """Raises a ValueError for options that nothing asked for: misspelt ones."""
    database = PETSc.Options()
    unused = [name for name in names if not database.used(prefix + name)]
    if unused:
        for name in unused:
            database.delValue(prefix + name)
        raise ValueError(
            f"PETSc never asked for the option -{unused[0]}; check its spelling, and "
            "that the chosen KSP and PC have it"
        )
