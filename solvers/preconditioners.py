"""Preconditioners by name, set up for one system after the other."""

import importlib
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla

from solvers import matrices
from solvers.sequence import PETSC_PREFIX, LinearSystem, double_matrix
from solvers.stencils import StencilOperator

ILU_DROP_TOLERANCE = 1e-3  # relative to the largest entry of the column
ILU_FILL_FACTOR = 10.0  # most entries of the factors, in entries of A
_TRIANGULAR = {  # a triangle factorises into itself: no fill, no permutation
    "permc_spec": "NATURAL",
    "diag_pivot_thresh": 0.0,
    "options": {"SymmetricMode": True, "Equil": False},
}


class Preconditioner(Protocol):
    """M, an approximation of A^-1 that follows a sequence of systems.

    Attributes:
        name: name in the registry.
        build: number of what was computed last, never given twice; None before the
            first `update`. Products with M remain valid while it stays the same.
    """

    name: str
    build: int | None

    def update(self, system: LinearSystem) -> bool:
        """Prepares M for a system.

        Returns:
            Whether M changed; if not, products with M from before remain valid.
        """

    def __call__(self, r: np.ndarray) -> np.ndarray:
        """M r for r [N] or for the columns of r [N, k]."""

    def reset(self) -> None:
        """Forgets everything; the next `update` starts afresh."""

    def snapshot(self) -> Any:
        """M as it is now, which later updates do not change; None if there is none."""

    def restore(self, snapshot: Any) -> None:
        """Takes that M again, under its number; None resets."""


_builds = itertools.count(1)


class Built(NamedTuple):
    """What a `FromMatrix` knows.

    Attributes:
        build: number of M.
        memory: the matrix of M, for `solvers.matrices.same`.
        real: whether that matrix is real.
        apply: r -> M r; None where it has to be computed again from `sources`.
        sources: the matrices that lead to M in this order: the first one since the
            objects behind M exist, and that of M. Empty where `apply` lasts.
    """

    build: int
    memory: tuple
    real: bool
    apply: Callable[[np.ndarray], np.ndarray] | None
    sources: tuple[sp.csr_array, ...] = ()


def matrix_of(system: LinearSystem) -> sp.csr_array:
    """The matrix that preconditioners of this system are built from."""
    if system.preconditioning_matrix is not None:
        return double_matrix(system.preconditioning_matrix)
    return system.to_csr()


def _kind_of(system):
    """Size and kind of numbers of `matrix_of(system)`, without computing it."""
    matrix = system.preconditioning_matrix
    if matrix is None:
        matrix = system.operator
    if isinstance(matrix, StencilOperator):
        return matrix.num_unknowns, np.dtype(matrix.coefficients.dtype).kind
    return matrix.shape[0], np.dtype(matrix.dtype).kind


class Identity:
    """No preconditioner."""

    name, build = "none", 0

    def __init__(self):
        self._fresh = True

    def update(self, system: LinearSystem) -> bool:
        """Nothing to prepare."""
        changed, self._fresh = self._fresh, False
        return changed

    def __call__(self, r: np.ndarray) -> np.ndarray:
        """Returns r itself."""
        return r

    def reset(self) -> None:
        """Nothing but the first change is remembered."""
        self._fresh = True

    def snapshot(self) -> None:
        """There is nothing to keep."""

    def restore(self, snapshot: None) -> None:
        """There is nothing to bring back."""


class FromMatrix:
    """Base of what is computed from the entries of a matrix, again when they change.

    Subclasses set `name` and define `_build(A)`, which returns the map r -> M r. They
    set `lasting` if that map stays what it is when there is another one; otherwise a
    snapshot holds matrices, and M is computed from them again when it is needed.
    """

    name, lasting = "", False

    def __init__(self):
        self._built: Built | None = None

    @property
    def build(self) -> int | None:
        """Number of M; see `Preconditioner`."""
        return None if self._built is None else self._built.build

    def update(self, system: LinearSystem) -> bool:
        """Builds M from the preconditioning matrix, or from A without one.

        Raises:
            ArithmeticError: if the matrix admits no such M; the text says what to do.
            TypeError: if A is only known by its action.
        """
        A, built = matrix_of(system), self._built
        if built is not None and matrices.same(A, built.memory):
            return False
        if built is not None and built.apply is None:
            self._build(built.sources[0])  # what M is built on goes back that far
        sources, self._built = () if built is None else built.sources, None
        apply = self._build(A)
        if not self.lasting:
            sources = (*sources[:1], A.copy())
        self._built = Built(
            next(_builds), matrices.remember(A), not np.iscomplexobj(A), apply, sources
        )
        return True

    def __call__(self, r: np.ndarray) -> np.ndarray:
        """Returns M r for r [N] or the columns of r [N, k]."""
        if self._built.apply is None:
            self._build_again()
        real, apply = self._built.real, self._built.apply
        if real and np.iscomplexobj(r):  # SuperLU does not mix the two
            real, imaginary = (np.ascontiguousarray(part) for part in (r.real, r.imag))
            return apply(real) + 1j * apply(imaginary)
        return apply(r)

    def reset(self) -> None:
        """Forgets the matrix and M."""
        self._built = None

    def snapshot(self) -> Built | None:
        """M, or what to compute it from."""
        if self._built is None or self.lasting:
            return self._built
        return self._built._replace(apply=None)

    def restore(self, snapshot: Built | None) -> None:
        """Takes that M again; see `Preconditioner`."""
        if snapshot is None:
            self.reset()
        elif snapshot.build != self.build:
            self.reset()
            self._built = snapshot

    def _build_again(self):
        """Repeats the builds that led to a restored M."""
        built = self._built
        for A in built.sources:
            apply = self._build(A)
        self._built = built._replace(apply=apply)

    def _build(self, A: sp.csr_array) -> Callable[[np.ndarray], np.ndarray]:
        raise NotImplementedError


class Jacobi(FromMatrix):
    """Division by the diagonal."""

    name, lasting = "jacobi", True

    def _build(self, A):
        inverse = 1 / _nonzero_diagonal(A)
        return lambda r: r * (inverse if r.ndim == 1 else inverse[:, None])


class SSOR(FromMatrix):
    """Symmetric Gauss-Seidel sweep, M = (D + U)^-1 D (D + L)^-1.

    Symmetric if A is. The triangles are solved by SuperLU, which takes about twice the
    time of `petsc:-pc_type sor` but needs no PETSc and allows complex matrices.

    References:
        Saad (2003), Iterative Methods for Sparse Linear Systems, Section 10.2.
    """

    name, lasting = "ssor", True

    def _build(self, A):
        diagonal = _nonzero_diagonal(A)
        lower = spla.splu(sp.csc_array(sp.tril(A)), **_TRIANGULAR)
        upper = spla.splu(sp.csc_array(sp.triu(A)), **_TRIANGULAR)

        def apply(r):
            scale = diagonal if r.ndim == 1 else diagonal[:, None]
            return upper.solve(scale * lower.solve(r))

        return apply


class ILUT(FromMatrix):
    """Incomplete LU with threshold and fill limit, SuperLU's ILUTP.

    Args:
        drop_tol: entries below this share of their column are dropped.
        fill_factor: most entries of the factors, in entries of A.

    References:
        Li and Shao (2011), A supernodal approach to incomplete LU factorization with
        partial pivoting, ACM Trans. Math. Softw. 37(4).
    """

    name, lasting = "ilu", True

    def __init__(
        self,
        drop_tol: float = ILU_DROP_TOLERANCE,
        fill_factor: float = ILU_FILL_FACTOR,
    ):
        super().__init__()
        self.drop_tol, self.fill_factor = drop_tol, fill_factor

    def _build(self, A):
        try:
            factor = spla.spilu(
                A.tocsc(), drop_tol=self.drop_tol, fill_factor=self.fill_factor
            )
        except RuntimeError as error:
            raise ArithmeticError(
                f"incomplete LU broke down ({error}); use preconditioner 'lu' or "
                "'jacobi'"
            ) from error
        return factor.solve


class LU(FromMatrix):
    """Sparse LU of the preconditioning matrix, or of the first system without one.

    Factorised again only when there is another `LinearSystem.preconditioning_matrix`:
    the same object is never looked at again. Without one, when the number of unknowns
    changes, or from real matrices to complex ones or back.
    """

    name, lasting = "lu", True

    def __init__(self):
        super().__init__()
        self._source = self._kind = None

    def update(self, system: LinearSystem) -> bool:
        """Factorises what has not been factorised yet; see `FromMatrix.update`."""
        source, kind = system.preconditioning_matrix, _kind_of(system)
        known = source is self._source and kind == self._kind
        if self._built is not None and known:
            return False
        changed = super().update(system)
        self._source, self._kind = source, kind
        return changed

    def reset(self) -> None:
        """Drops the factors."""
        super().reset()
        self._source = self._kind = None

    def snapshot(self) -> tuple:
        """The factors, and what they belong to."""
        return super().snapshot(), self._source, self._kind

    def restore(self, snapshot: tuple | None) -> None:
        """Takes those factors again."""
        built, source, kind = (None, None, None) if snapshot is None else snapshot
        super().restore(built)
        self._source, self._kind = source, kind

    def _build(self, A):
        try:
            return spla.splu(A.tocsc(), permc_spec="MMD_AT_PLUS_A").solve
        except RuntimeError as error:
            raise ArithmeticError(
                f"LU: {error}; the matrix is singular, use another preconditioner"
            ) from error


class Frozen:
    """Keeps what another preconditioner made of the first system it saw.

    The first one of another size, or after real matrices a complex one and the other
    way round, is a first one again.
    """

    def __init__(self, inner: Preconditioner):
        self.inner, self._kind = inner, None

    @property
    def name(self) -> str:
        """That of the preconditioner that is kept."""
        return self.inner.name

    @property
    def build(self) -> int | None:
        """That of the preconditioner that is kept."""
        return self.inner.build

    def update(self, system: LinearSystem) -> bool:
        """Prepares M for the first system only."""
        kind = _kind_of(system)
        if kind == self._kind:
            return False
        self._kind = None
        changed = self.inner.update(system)
        self._kind = kind
        return changed

    def __call__(self, r: np.ndarray) -> np.ndarray:
        """Returns M r."""
        return self.inner(r)

    def reset(self) -> None:
        """The next system is the first one again."""
        self.inner.reset()
        self._kind = None

    def snapshot(self) -> tuple:
        """M, and what it belongs to."""
        return self.inner.snapshot(), self._kind

    def restore(self, snapshot: tuple | None) -> None:
        """Takes that M again."""
        inner, self._kind = (None, None) if snapshot is None else snapshot
        self.inner.restore(inner)


PRECONDITIONERS: dict[str, Callable[..., Preconditioner]] = {
    "none": Identity,
    "jacobi": Jacobi,
    "ssor": SSOR,
    "ilu": ILUT,
    "lu": LU,
}
# Incomplete factors without fill exist in PETSc only.
PETSC_PRECONDITIONERS = {
    "ilu0": "-pc_type ilu -pc_factor_levels 0",
    "icc0": "-pc_type icc -pc_factor_levels 0",
}


def names() -> list[str]:
    """Known preconditioners; `petsc:` stands for any PETSc options after it."""
    known = [*PRECONDITIONERS, *PETSC_PRECONDITIONERS, PETSC_PREFIX + "<pc options>"]
    return sorted(known)


def create(name: str, *, frozen: bool = False, **settings: Any) -> Preconditioner:
    """Builds a preconditioner from its name, for instance "petsc:-pc_type gamg".

    Args:
        name: one of `names()`.
        frozen: keep that of the first system for all others.
        **settings: keywords of the class.

    Raises:
        ValueError: for an unknown name.
        ImportError: if it needs PETSc, which is not installed.
    """
    if name in PRECONDITIONERS:
        made = PRECONDITIONERS[name](**settings)
    elif name in PETSC_PRECONDITIONERS or name.startswith(PETSC_PREFIX):
        made = _from_petsc(name)
    else:
        known = ", ".join(names())
        raise ValueError(f"unknown preconditioner {name!r}; known: {known}")
    return Frozen(made) if frozen else made


def _from_petsc(name):
    options = PETSC_PRECONDITIONERS.get(name, name.removeprefix(PETSC_PREFIX))
    try:
        module = importlib.import_module("solvers.petsc")
    except ImportError as error:
        raise ImportError(
            f"preconditioner {name!r} needs petsc4py (`uv sync --group petsc` on Linux "
            "x86-64 with Python 3.12); without it use 'ilu', 'ssor' or 'jacobi'"
        ) from error
    made = module.PetscPreconditioner(options)
    made.name = name
    return made


def _nonzero_diagonal(A):
    diagonal = A.diagonal()
    if not np.all(diagonal != 0):
        raise ZeroDivisionError(
            "the diagonal holds zeros; use preconditioner 'none' or 'ilu'"
        )
    return diagonal
