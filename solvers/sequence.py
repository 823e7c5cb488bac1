"""Solves ordered lists of linear systems with a method chosen by name."""

import dataclasses
import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla

from solvers.inputs import check_arrays, check_limits, check_settings, did_you_mean
from solvers.petsc_options import method_options
from solvers.results import SolveRecord
from solvers.scaling import unit_of
from solvers.stencils import StencilOperator, double, relative_to

PETSC_PREFIX = "petsc:"


class LinearSystem(NamedTuple):
    """One system A x = b.

    Attributes:
        operator: A, a `StencilOperator` of batch 1, a SciPy matrix [N, N] of any format
            or, if only its action is known, a SciPy `LinearOperator` [N, N]: each
            system whose A differs needs its own, since methods keep old products.
        rhs: b [*grid], float64 or complex128; other numbers are converted.
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
        """A as a SciPy matrix in double precision, whatever it is stored as.

        Raises:
            TypeError: if A is only known by its action.
            ValueError: if the stencil operator holds more than one system.
        """
        if isinstance(self.operator, StencilOperator):
            if self.operator.batch != 1:
                raise ValueError(
                    f"the operator holds {self.operator.batch} systems; a LinearSystem "
                    "is one of them"
                )
            return double_matrix(self.operator.to_csr())
        if isinstance(self.operator, spla.LinearOperator):
            raise TypeError(
                "this method needs the entries of A, but A is a LinearOperator; give a "
                "matrix, or a method that only applies A (gmres, skr, cg, ...) with "
                "preconditioner 'none' or a preconditioning_matrix"
            )
        return double_matrix(self.operator)

    def assembled(self) -> "LinearSystem":
        """This system with A in CSR form, to convert only once; operators stay."""
        A, b = self.operator, np.asarray(self.rhs)
        if not isinstance(A, spla.LinearOperator):
            is_double = isinstance(A, sp.csr_array) and A.dtype.char in "dD"
            A = A if is_double else self.to_csr()
        kept = A is self.operator and b is self.rhs
        return self if kept else self._replace(operator=A, rhs=b)

    def check(self) -> None:
        """Looks at shapes and kinds of numbers.

        Raises:
            TypeError: if A is no matrix, or b no array of numbers.
            ValueError: if A is not square or does not fit b, or if the preconditioning
                matrix does not fit A or is complex beside a real system.
        """
        check_arrays(self.operator, self.rhs)
        rhs, operator = np.shape(self.rhs), self.operator
        if isinstance(operator, StencilOperator):
            if rhs != operator.grid_shape:
                raise ValueError(
                    f"rhs has shape {rhs}, but the operator acts on the grid "
                    f"{operator.grid_shape}"
                )
            side = operator.num_unknowns
        else:
            side = operator.shape[0]
            if operator.shape != (side, side):
                raise ValueError(
                    f"the matrix has shape {operator.shape}; expected a square one"
                )
        if int(np.prod(rhs)) != side:
            raise ValueError(
                f"rhs has shape {rhs}, {int(np.prod(rhs))} entries, but the matrix has "
                f"{side} rows"
            )
        matrix = self.preconditioning_matrix
        if matrix is not None and matrix.shape != (side, side):
            raise ValueError(
                f"preconditioning_matrix has shape {matrix.shape}; expected "
                f"{(side, side)}, the shape of A"
            )
        if np.iscomplexobj(matrix) and self.dtype.kind != "c":
            raise ValueError(
                "preconditioning_matrix is complex, but the system is real"
            )

    def matvec(self) -> Callable[[np.ndarray], np.ndarray]:
        """The fastest way on the CPU to apply A to [N] or to the columns of [N, k]."""
        if isinstance(self.operator, spla.LinearOperator):
            return lambda v: self.operator @ v
        A = self.to_csr()
        return lambda v: A @ v

    def relative_residual(self, x: np.ndarray) -> float:
        """||b - A x||_2 / ||b||_2 in NumPy double precision for x [*grid]."""
        x, b, unit = double(x), double(self.rhs), unit_of(self.rhs)
        with np.errstate(over="ignore", invalid="ignore"):  # NaN is no solution
            if unit != 1:
                x, b = x / unit, b / unit
            if isinstance(self.operator, StencilOperator):
                return float(self.operator.relative_residual(x[None], b[None])[0])
            r = b.ravel() - self.operator @ x.ravel()
            return float(relative_to(np.linalg.norm(r), np.linalg.norm(b)))


def double_matrix(matrix: Any) -> sp.csr_array:
    """In CSR form, float64 or complex128: SuperLU knows no mixtures with others."""
    matrix = sp.csr_array(matrix)
    kind = np.complex128 if matrix.dtype.kind == "c" else np.float64
    return matrix if matrix.dtype == kind else matrix.astype(kind)


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
        grid: whether the matrices must be `StencilOperator`s.
    """

    target: str | Callable[..., SequenceSolver]
    settings: tuple[str, ...] = ()
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    needs: str = "any"
    complex_systems: bool = True
    carries: bool = False
    grid: bool = False

    def load(self) -> Callable[..., SequenceSolver]:
        """Imports the class."""
        if not isinstance(self.target, str):
            return self.target
        module, _, name = self.target.partition(":")
        return getattr(importlib.import_module(module), name)

    def build(self, **settings: Any) -> SequenceSolver:
        """Imports the class and builds the solver."""
        return self.load()(**self.fixed, **settings)


GUESS = ("guess", "window")  # of `solvers.guesses`, for methods that take x0
ERROR = ("estimate_error", "error_goal")
KRYLOV = ("preconditioner", "frozen", *GUESS)
RECYCLING = ("m", "k", *KRYLOV)
_GMRES_DR = "solvers.recycling:RecyclingGMRES"
_SCIPY = "solvers.scipy_krylov:"
_SHORT = "solvers.short_recurrences:"
_POOLING = "solvers.pooling:"

METHODS: dict[str, Method] = {
    "auto": Method("solvers.automatic:AutomaticSolver", ("spd",)),
    "skr": Method(_GMRES_DR, RECYCLING, {"carry": True}, carries=True),
    "gcrodr_cold": Method(_GMRES_DR, RECYCLING, {"carry": False}),
    "gmres": Method(_SCIPY + "GMRES", ("m", *KRYLOV)),
    # LGMRES wants few vectors: its own k, not the one that the other methods share.
    "lgmres": Method(_SCIPY + "LGMRES", ("m", *KRYLOV), carries=True),
    "gcrotmk": Method(_SCIPY + "GCROTmk", ("m", "k", *KRYLOV), carries=True),
    "bicgstab": Method(_SCIPY + "BiCGStab", KRYLOV),
    "minres": Method(_SHORT + "MINRES", KRYLOV, needs="symmetric"),
    "cg": Method(_SHORT + "CG", KRYLOV, needs="spd"),
    "recycled_cg": Method(
        _POOLING + "RecycledCG", ("k", *KRYLOV), needs="spd", carries=True
    ),
    "deflated_cg": Method(
        _POOLING + "PooledCG", ("k", *KRYLOV), needs="spd", carries=True
    ),
    "direct": Method("solvers.direct:DirectSolver"),
    "frozen_lu": Method("solvers.frozen_lu:FrozenLU", GUESS, carries=True),
    "fast_direct": Method(
        "solvers.fast_direct:FastDirect",
        needs="symmetric",
        complex_systems=False,
        grid=True,
    ),
    "fft_pcg": Method(
        "solvers.fft_pcg:FFTPCG",
        ("form", *ERROR, *GUESS),
        needs="spd",
        complex_systems=False,
        grid=True,
    ),
    "mg_pcg": Method(
        "solvers.multigrid.solver:MultigridPCG",
        (*ERROR, *GUESS, "variant", "inner"),
        needs="spd",
        complex_systems=False,
        grid=True,
    ),
}


def names() -> list[str]:
    """Known methods; `petsc:` stands for itself and any PETSc options after it."""
    return sorted([*METHODS, PETSC_PREFIX + "<options>"])


def method_info(method: str) -> Method:
    """The registry's entry of a method, also for `petsc:` with options.

    Raises:
        ValueError: for an unknown name, or PETSc options that cannot be.
    """
    if method.startswith(PETSC_PREFIX):
        options = method.removeprefix(PETSC_PREFIX)
        return _petsc_method(options)
    if method not in METHODS:
        hint = did_you_mean(method, METHODS)
        raise ValueError(
            f"unknown method {method!r}; known: {', '.join(names())}{hint}"
        )
    return METHODS[method]


def _petsc_method(options: str) -> Method:
    pairs = method_options(options)
    conjugate = pairs.get("-ksp_type") in ("cg", "pipecg", "cr", "groppcg")
    minres = pairs.get("-ksp_type") in ("minres", "symmlq")
    factor = pairs.get("-pc_type") in ("icc", "cholesky")
    return Method(
        "solvers.petsc_solver:PetscSolver",
        settings=("spd", *GUESS),
        fixed={"options": options},
        needs="spd" if conjugate else "symmetric" if minres or factor else "any",
        complex_systems=False,
    )


def create(
    method: str, *, guess: str | None = None, window: int = 20, **settings: Any
) -> SequenceSolver:
    """Builds a solver from its name, for instance "petsc:-ksp_type cg -pc_type gamg".

    Args:
        method: a name of `METHODS`, or `petsc:` with PETSc options.
        guess: "projection" starts every solve from the best combination of earlier
            solutions, see `solvers.guesses`; None or "none": from zero.
        window: how many solutions the guess remembers, at most 20.
        **settings: keywords of the solver class.

    Raises:
        ValueError: for an unknown name, a setting out of range, or a guess for a method
            that has no use for one.
        TypeError: for an unknown setting, or a fraction where a count is expected.
    """
    info = method_info(method)
    more = [name for name in GUESS if name in info.settings]
    check_settings(method, info.load(), info.fixed, more, settings)
    if guess in (None, "none"):
        return info.build(**settings)
    if guess != "projection":
        raise ValueError(f"guess is {guess!r}; known: 'none', 'projection'")
    if "guess" not in info.settings:
        raise ValueError(f"method {method!r} takes no guess; leave guess='none'")
    from solvers.guesses import ProjectionGuess  # it builds on this module

    return ProjectionGuess(info.build(**settings), window=window)


def iter_solve(
    systems: Iterable[LinearSystem],
    *,
    method: str,
    rtol: float = 1e-8,
    maxiter: int | None = None,
    parents: Sequence[int] | None = None,
    **settings: Any,
) -> Iterator[tuple[np.ndarray, SolveRecord]]:
    """Solves the systems one at a time, in order, each when it is asked for.

    Args:
        systems: consumed lazily.
        method: see `create`.
        rtol: largest accepted ||b - A x|| / ||b||.
        maxiter: largest number of iterations per system; None: the method's own.
        parents: entry i is the number of the earlier system whose carried state system
            i starts from, -1 for none; None: each starts from the one before. Methods
            that carry nothing ignore it.
        **settings: keywords of the solver class, `guess` and `window`.

    Yields:
        The solution [*grid] in double precision and its record, converged or not.

    Raises:
        ValueError: for an unknown method, a tolerance outside (0, 1) or parents that do
            not come earlier, at the call; for a system whose shapes do not fit, or with
            more systems than parents, when it is reached.
        TypeError: for an unknown setting, limits that are no numbers, a system that is
            no LinearSystem, or a complex one and a method for real ones.
    """
    check_limits(rtol, maxiter)
    if isinstance(systems, LinearSystem):
        raise TypeError("systems is one LinearSystem; put it in a list, [system]")
    if parents is not None:
        parents = [int(parent) for parent in parents]
        for i, parent in enumerate(parents):
            if not -1 <= parent < i:
                raise ValueError(
                    f"parents[{i}] is {parent}; expected -1 or an earlier system"
                )
    solver = create(method, **settings)
    if parents is not None and hasattr(solver, "snapshot"):
        systems = _follow(systems, solver, parents)
    info = method_info(method)
    return _solve_each(systems, solver, info, method, rtol, maxiter)


def _solve_each(systems, solver, info, method, rtol, maxiter):
    try:
        for number, system in enumerate(systems):
            if not isinstance(system, LinearSystem):
                raise TypeError(
                    f"system {number} is a {type(system).__name__}; expected "
                    "LinearSystem(A, b)"
                )
            try:
                system.check()
            except (TypeError, ValueError) as error:
                raise type(error)(f"system {number}: {error}") from None
            if not hasattr(system.rhs, "shape"):
                system = system._replace(rhs=np.asarray(system.rhs))
            if system.dtype.kind == "c" and not info.complex_systems:
                raise TypeError(
                    f"system {number} is complex, but method {method!r} solves real "
                    "systems; use 'direct', 'gmres', 'bicgstab' or 'skr'"
                )
            yield solver.solve(system, rtol=rtol, maxiter=maxiter)
    finally:
        solver.close()


def _follow(systems, solver, parents):
    """Passes the systems on; before each, lets the solver carry its parent's state.

    The code after `yield` runs when the next system is asked for, that is after the
    solve. A state is kept until the last system that starts from it has come.
    """
    last_child = {parent: i for i, parent in enumerate(parents)}
    kept = {}
    for i, system in enumerate(systems):
        if i >= len(parents):
            raise ValueError(f"there are more systems than parents, {len(parents)}")
        parent = parents[i]
        if parent == -1:
            solver.reset()
        elif parent != i - 1:
            solver.restore(kept[parent])
        kept = {p: state for p, state in kept.items() if last_child[p] > i}
        yield system
        if last_child.get(i, -1) > i + 1:
            kept[i] = solver.snapshot()


def solve_sequence(
    systems: Iterable[LinearSystem],
    *,
    method: str,
    rtol: float = 1e-8,
    maxiter: int | None = None,
    parents: Sequence[int] | None = None,
    **settings: Any,
) -> SequenceResult:
    """Like `iter_solve`, all at once."""
    solved = iter_solve(
        systems,
        method=method,
        rtol=rtol,
        maxiter=maxiter,
        parents=parents,
        **settings,
    )
    pairs = list(solved)
    return SequenceResult([x for x, _ in pairs], [record for _, record in pairs])
