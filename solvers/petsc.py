"""PETSc's solvers behind the interface of `solvers.sequence`; needs petsc4py."""

import itertools
import time

import numpy as np

from solvers.results import SolveRecord, certify

try:
    from mpi4py import MPI  # noqa: F401  (the binary wheel finds its MPI through this)
    from petsc4py import PETSc
except ImportError as error:
    raise ImportError(
        "methods 'petsc:...' need petsc4py: on Linux x86-64 with Python 3.12 or later "
        "`uv sync --group petsc` installs it, elsewhere build it against your own PETSc"
    ) from error

_prefixes = itertools.count()


class PetscSolver:
    """One KSP, kept over a sequence of systems.

    While the sparsity pattern stays the same, matrix and KSP are reused with new
    values, so factorisations repeat only their numeric part. The true residual norm
    (unpreconditioned) stops iterative methods that can compute it, unless the options
    say otherwise.

    Args:
        options: PETSc options, for instance "-ksp_type cg -pc_type gamg".
        spd: declares the matrices symmetric positive definite.

    Raises:
        TypeError: on `solve`, for complex systems if PETSc was built with real numbers.
    """

    def __init__(self, *, options: str = "", spd: bool = False):
        self.options, self.spd = options.strip(), spd
        self._prefix = f"solvers_{next(_prefixes)}_"
        self._ksp = self._matrix = self._pattern = self._values = None

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
        if np.iscomplexobj(A) and not np.issubdtype(
            PETSc.ScalarType, np.complexfloating
        ):
            raise TypeError(
                "this PETSc is built with real numbers and cannot solve complex "
                "systems; use method 'direct' or a PETSc built with complex numbers"
            )
        start = time.perf_counter()
        iterations, norm, failure = 0, float("nan"), ""
        x = np.full(system.rhs.shape, np.nan)
        if not (np.isfinite(A.data).all() and np.isfinite(system.rhs).all()):
            failure = "the system holds NaN or infinite entries"
        else:
            self._set_matrix(A)
            try:
                x, iterations, norm, failure = self._run(system.rhs, rtol, maxiter, x0)
            except PETSc.Error as error:
                failure = f"PETSc: {str(error).strip().splitlines()[-1]}"
                self.reset()
        seconds = time.perf_counter() - start
        return x, certify(
            system,
            x,
            rtol=rtol,
            advice="try method 'direct', another preconditioner or more iterations",
            failure=failure,
            method=self.method,
            iterations=iterations,
            matvecs=iterations,
            preconditioner_applications=iterations,
            seconds=seconds,
            relative_residual=norm,
        )

    def reset(self) -> None:
        """Destroys KSP and matrix; the next solve starts afresh."""
        for thing in (self._ksp, self._matrix):
            if thing is not None:
                thing.destroy()
        self._ksp = self._matrix = self._pattern = self._values = None

    def close(self) -> None:
        """Destroys what PETSc holds for this solver."""
        self.reset()

    def _set_matrix(self, A):
        """Puts new values into the matrix, or builds matrix and KSP anew."""
        pattern = (A.shape, A.indptr.astype(np.int32), A.indices.astype(np.int32))
        if self._pattern is not None and all(
            np.array_equal(a, b) for a, b in zip(pattern, self._pattern, strict=True)
        ):
            np.copyto(self._values, A.data)  # the matrix reads this array
            self._matrix.stateIncrease()
        else:
            self.reset()
            self._values = A.data.astype(np.float64)
            self._matrix = PETSc.Mat().createAIJWithArrays(
                A.shape, (pattern[1], pattern[2], self._values), comm=PETSc.COMM_SELF
            )
            self._matrix.assemble()
            self._ksp = PETSc.KSP().create(PETSc.COMM_SELF)
            self._pattern = pattern
            self._configure()
        if self.spd:
            self._matrix.setOption(PETSc.Mat.Option.SPD, True)
        self._ksp.setOperators(self._matrix)

    def _configure(self):
        """Applies the options to this KSP alone."""
        database = PETSc.Options(self._prefix)
        words = self.options.split()
        for k, word in enumerate(words):
            if word.startswith("-") and not _is_number(word):
                following = words[k + 1] if k + 1 < len(words) else "-"
                is_flag = following.startswith("-") and not _is_number(following)
                database.setValue(word[1:], "" if is_flag else following)
        self._ksp.setOptionsPrefix(self._prefix)
        if "-ksp_norm_type" not in words and "preonly" not in words:
            self._ksp.setNormType(PETSc.KSP.NormType.UNPRECONDITIONED)
        self._ksp.setFromOptions()

    def _run(self, rhs, rtol, maxiter, x0):
        """Returns x, iterations, relative residual norm and what went wrong."""
        b = PETSc.Vec().createWithArray(
            np.ascontiguousarray(rhs, np.float64).ravel(), comm=PETSc.COMM_SELF
        )
        x = b.duplicate()
        try:
            if x0 is not None:
                x.setArray(np.asarray(x0, np.float64).ravel())
            self._ksp.setInitialGuessNonzero(x0 is not None)
            # Half the tolerance: recurrences drift a little from the true residual.
            self._ksp.setTolerances(
                rtol=0.5 * rtol, atol=0.0, max_it=10_000 if maxiter is None else maxiter
            )
            self._ksp.solve(b, x)
            reason = self._ksp.getConvergedReason()
            failure = "" if reason > 0 else f"KSP stopped with reason {reason}"
            scale = b.norm()
            norm = self._ksp.getResidualNorm() / scale if scale else 0.0
            values = x.getArray().copy().reshape(rhs.shape)
            return values, self._ksp.getIterationNumber(), norm, failure
        finally:
            x.destroy()
            b.destroy()


def _is_number(word):
    try:
        float(word)
    except ValueError:
        return False
    return True
