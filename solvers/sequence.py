"""Solves ordered lists of linear systems with a method chosen by name."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Protocol

import numpy as np
import scipy.sparse as sp

from solvers.results import SolveRecord
from solvers.stencils import StencilOperator, relative_to

PETSC_PREFIX = "petsc:"


class LinearSystem(NamedTuple):
    """One system A x = b.

    Attributes:
        operator: A, a `StencilOperator` of batch 1 or a SciPy matrix [N, N].
        rhs: b [*grid], float64.
    """

    operator: StencilOperator | sp.csr_array
    rhs: np.ndarray

    def to_csr(self) -> sp.csr_array:
        """A as a SciPy matrix, whatever it is stored as."""
        if isinstance(self.operator, StencilOperator):
            return self.operator.to_csr()
        return sp.csr_array(self.operator)

    def relative_residual(self, x: np.ndarray) -> float:
        """||b - A x||_2 / ||b||_2 in NumPy float64 for x [*grid]."""
        if isinstance(self.operator, StencilOperator):
            return float(self.operator.relative_residual(x[None], self.rhs[None])[0])
        r = self.rhs.ravel() - self.operator @ x.ravel()
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
        """Returns x [*grid] in float64 and its record; never raises to say no."""

    def reset(self) -> None:
        """Drops everything carried from earlier systems."""

    def close(self) -> None:
        """Frees what the solver holds; it is not used afterwards."""


class SequenceResult(NamedTuple):
    """Solutions [*grid] and records, in the order of the systems."""

    solutions: list[np.ndarray]
    records: list[SolveRecord]


# The factories import their module on first use: PETSc must not be needed to solve
# with SciPy, nor JAX's multigrid to solve directly.
def _direct(**settings) -> SequenceSolver:
    from solvers.direct import DirectSolver

    return DirectSolver(**settings)


def _mg_pcg(**settings) -> SequenceSolver:
    from solvers.multigrid.solver import MultigridPCG

    return MultigridPCG(**settings)


METHODS: dict[str, Callable[..., SequenceSolver]] = {
    "direct": _direct,
    "mg_pcg": _mg_pcg,
}


def names() -> list[str]:
    """Known methods; `petsc:` stands for itself and any PETSc options after it."""
    return sorted([*METHODS, PETSC_PREFIX + "<options>"])


def create(method: str, **settings) -> SequenceSolver:
    """Builds a solver from its name, for instance "petsc:-ksp_type cg -pc_type gamg".

    Args:
        method: a name of `METHODS`, or `petsc:` with PETSc options.
        **settings: keywords of the solver class.

    Raises:
        ValueError: for an unknown name.
    """
    if method.startswith(PETSC_PREFIX):
        from solvers.petsc import PetscSolver

        return PetscSolver(options=method.removeprefix(PETSC_PREFIX), **settings)
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; known: {', '.join(names())}")
    return METHODS[method](**settings)


def iter_solve(
    systems: Iterable[LinearSystem],
    *,
    method: str,
    rtol: float = 1e-8,
    maxiter: int | None = None,
    **settings,
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
    **settings,
) -> SequenceResult:
    """Like `iter_solve`, all at once."""
    pairs = list(
        iter_solve(systems, method=method, rtol=rtol, maxiter=maxiter, **settings)
    )
    return SequenceResult([x for x, _ in pairs], [record for _, record in pairs])
