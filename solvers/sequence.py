"""Solves ordered lists of linear systems with a method chosen by name."""

import dataclasses
import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla

from solvers.results import SolveRecord
from solvers.stencils import StencilOperator, double, relative_to

PETSC_PREFIX = "petsc:"


class LinearSystem(NamedTuple):
    """One system A x = b.

    Attributes:
        operator: A, a `StencilOperator` of batch 1, a SciPy matrix [N, N] or, if it is
            only known by its action, a SciPy `LinearOperator` [N, N].
        rhs: b [*grid], float64 or complex128.
        preconditioning_matrix: the matrix that preconditioners are built from, if not A
            (a shifted Laplacian, a mean medium): a SciPy matrix [N, N]. Systems that
            name the same object share what is built from it.
    """

    operator: StencilOperator | sp.csr_array | spla.LinearOperator
    rhs: np.ndarray
    preconditioning_matrix: sp.csr_array | None = None

    @property
    def dtype(self) -> np.dtype:
        """float64, or complex128 if A or b is complex."""
        operator = self.operator
        if isinstance(operator, StencilOperator):
            operator = operator.coefficients
        is_complex = np.dtype(operator.dtype).kind == "c" or np.iscomplexobj(self.rhs)
        return np.dtype(np.complex128 if is_complex else np.float64)

    def to_csr(self) -> sp.csr_array:
        """A as a SciPy matrix, whatever it is stored as.

        Raises:
            TypeError: if A is only known by its action.
        """
        if isinstance(self.operator, StencilOperator):
            return self.operator.to_csr()
        if isinstance(self.operator, spla.LinearOperator):
            raise TypeError(
                "this method needs the entries of A, but A is a LinearOperator; give a "
                "matrix, or a method that only applies A (gmres, skr, cg, ...) with "
                "preconditioner 'none' or a preconditioning_matrix"
            )
        return sp.csr_array(self.operator)

    def matvec(self) -> Callable[[np.ndarray], np.ndarray]:
        """The fastest way on the CPU to apply A to [N] or to the columns of [N, k]."""
        if isinstance(self.operator, spla.LinearOperator):
            return lambda v: self.operator @ v
        A = self.to_csr()
        return lambda v: A @ v

    def relative_residual(self, x: np.ndarray) -> float:
        """||b - A x||_2 / ||b||_2 in NumPy double precision for x [*grid]."""
        if isinstance(self.operator, StencilOperator):
            return float(self.operator.relative_residual(x[None], self.rhs[None])[0])
        r = double(self.rhs).ravel() - self.operator @ double(x).ravel()
        return float(relative_to(np.linalg.norm(r), np.linalg.norm(self.rhs)))


class SequenceSolver(Protocol):
    """Solves one system after the other and may carry state between them."""

    def solve(
        self,
        system: LinearSystem,
        *,
        rtol: float,
        maxiter: int | None = None,
        x0: np.ndarray | None = None,
    ) -> tuple[np.ndarray, SolveRecord]:
        """Returns x [*grid] in double precision and its record.

        Not converging is never an error: it stands in the record.
        """

    def reset(self) -> None:
        """Drops everything carried from earlier systems."""

    def close(self) -> None:
        """Frees what the solver holds; it is not used afterwards."""


class CarryingSolver(SequenceSolver, Protocol):
    """A solver whose next solve depends on earlier ones."""

    def snapshot(self) -> Any:
        """What is carried now, cheap to keep: later solves do not change it."""

    def restore(self, snapshot: Any) -> None:
        """Carries again what `snapshot` returned, as if nothing came after it."""


class SequenceResult(NamedTuple):
    """Solutions [*grid] and records, in the order of the systems."""

    solutions: list[np.ndarray]
    records: list[SolveRecord]


@dataclasses.dataclass(frozen=True)
class Method:
    """One entry of the registry.

    Attributes:
        target: "module:Class", imported on first use, so that PETSc is not needed to
            solve with SciPy, nor JAX to solve directly; or the class itself.
        settings: keywords of the class that a data config may set (`config.solver`).
        fixed: keywords that make this entry of a class that serves several.
        needs: what the matrices must be: "any", "symmetric" or "spd" (symmetric
            positive definite).
        complex_systems: whether complex systems can be solved.
        carries: whether solves profit from earlier ones, so that ordering matters.
    """

    target: str | Callable[..., SequenceSolver]
    settings: tuple[str, ...] = ()
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    needs: str = "any"
    complex_systems: bool = True
    carries: bool = False

    def build(self, **settings: Any) -> SequenceSolver:
        """Imports the class and builds the solver."""
        target = self.target
        if isinstance(target, str):
            module, _, name = target.partition(":")
            target = getattr(importlib.import_module(module), name)
        return target(**self.fixed, **settings)


METHODS: dict[str, Method] = {
    "direct": Method("solvers.direct:DirectSolver"),
    "mg_pcg": Method(
        "solvers.multigrid.solver:MultigridPCG", needs="spd", complex_systems=False
    ),
}


def names() -> list[str]:
    """Known methods; `petsc:` stands for itself and any PETSc options after it."""
    return sorted([*METHODS, PETSC_PREFIX + "<options>"])


def method_info(method: str) -> Method:
    """The registry's entry of a method, also for `petsc:` with options.

    Raises:
        ValueError: for an unknown name.
    """
    if method.startswith(PETSC_PREFIX):
        options = method.removeprefix(PETSC_PREFIX)
        return _petsc_method(options)
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; known: {', '.join(names())}")
    return METHODS[method]


def _petsc_method(options: str) -> Method:
    words = options.split()
    pairs = dict(zip(words, [*words[1:], ""], strict=True))
    conjugate = pairs.get("-ksp_type") in ("cg", "pipecg", "cr", "groppcg")
    minres = pairs.get("-ksp_type") in ("minres", "symmlq")
    factor = pairs.get("-pc_type") in ("icc", "cholesky")
    return Method(
        "solvers.petsc:PetscSolver",
        settings=("spd",),
        fixed={"options": options},
        needs="spd" if conjugate else "symmetric" if minres or factor else "any",
        complex_systems=False,
    )


def create(method: str, **settings: Any) -> SequenceSolver:
    """Builds a solver from its name, for instance "petsc:-ksp_type cg -pc_type gamg".

    Args:
        method: a name of `METHODS`, or `petsc:` with PETSc options.
        **settings: keywords of the solver class.

    Raises:
        ValueError: for an unknown name or a setting out of range.
        TypeError: for an unknown setting.
    """
    return method_info(method).build(**settings)


def iter_solve(
    systems: Iterable[LinearSystem],
    *,
    method: str,
    rtol: float = 1e-8,
    maxiter: int | None = None,
    **settings: Any,
) -> Iterator[tuple[np.ndarray, SolveRecord]]:
    """Solves the systems one at a time, in order, each when it is asked for.

    Args:
        systems: consumed lazily.
        method: see `create`.
        rtol: largest accepted ||b - A x|| / ||b||.
        maxiter: largest number of iterations per system; None: the method's own.
        **settings: keywords of the solver class.

    Yields:
        The solution [*grid] in float64 and its record, converged or not.

    Raises:
        ValueError: for an unknown method or a tolerance outside (0, 1); at the call,
            not at the first system.
    """
    if not 0 < rtol < 1:
        raise ValueError(f"rtol is {rtol}; expected 0 < rtol < 1")
    return _solve_each(systems, create(method, **settings), rtol, maxiter)


def _solve_each(systems, solver, rtol, maxiter):
    try:
        for system in systems:
            yield solver.solve(system, rtol=rtol, maxiter=maxiter)
    finally:
        solver.close()


def solve_sequence(
    systems: Iterable[LinearSystem],
    *,
    method: str,
    rtol: float = 1e-8,
    maxiter: int | None = None,
    **settings: Any,
) -> SequenceResult:
    """Like `iter_solve`, all at once."""
    pairs = list(
        iter_solve(systems, method=method, rtol=rtol, maxiter=maxiter, **settings)
    )
    return SequenceResult([x for x, _ in pairs], [record for _, record in pairs])
