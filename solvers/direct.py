"""Sparse LU factorisation: the reference every iterative method is checked against."""

import dataclasses
import time

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla

from solvers import matrices
from solvers.inputs import CHECK_INPUT, not_finite
from solvers.patterns import MatrixPattern, Pattern, stencil_pattern, stencil_values
from solvers.results import PhaseSeconds, SolveRecord, certify
from solvers.scaling import unit_of
from solvers.stencils import StencilOperator, double

# Ordering on the pattern of A + A^T keeps the fill of symmetric patterns low, about
# half of the default's on five-point grids; its small pivoting threshold makes it
# stable only in practice, so a poor residual leads to the second, slower way.
ATTEMPTS = (
    {
        "permc_spec": "MMD_AT_PLUS_A",
        "diag_pivot_thresh": 0.001,
        "options": {"SymmetricMode": True},
    },
    {"permc_spec": "COLAMD", "diag_pivot_thresh": 1.0},
)
MAX_REFINEMENTS = 2


class Factor:
    """SuperLU factors of one matrix.

    Args:
        A: [N, N] SciPy matrix, real or complex.
        settings: keywords of `scipy.sparse.linalg.splu`.

    Raises:
        ArithmeticError: if A is singular to SuperLU.
    """

    def __init__(self, A: sp.csr_array, settings: dict):
        try:
            self._lu = spla.splu(A.tocsc(), **settings)
        except RuntimeError as error:
            raise ArithmeticError(f"SuperLU: {error}") from error
        self.is_complex, self.entries = np.iscomplexobj(A), self._lu.nnz

    def solve(self, b: np.ndarray) -> np.ndarray:
        """A^-1 b for b [N], real or complex."""
        if np.iscomplexobj(b) and not self.is_complex:  # SuperLU does not mix the two
            return self._lu.solve(b.real.copy()) + 1j * self._lu.solve(b.imag.copy())
        return self._lu.solve(b)

    def flops(self) -> float:
        """Floating point operations of the factorisation, from its column counts.

        2 l_j u_j + l_j for column j with l_j and u_j entries off the diagonal; complex
        ones count four times. Extracts L and U once, which takes their memory again.
        """
        below = np.diff(self._lu.L.indptr) - 1.0
        beside = np.bincount(self._lu.U.indices, minlength=below.size) - 1.0
        return float(np.sum(2 * below * beside + below)) * (4 if self.is_complex else 1)


class OrderedFactor(Factor):
    """Factors in the order of a pattern, for vectors in the order of the unknowns.

    Args:
        pattern: of the matrix.
        entries: [nnz] what `ordered_entries` returned for it.

    Raises:
        ArithmeticError: if A is singular to SuperLU.
    """

    def __init__(self, pattern: Pattern, entries: np.ndarray):
        super().__init__(pattern.matrix(entries), natural(pattern))
        self._order = pattern.order

    def solve(self, b: np.ndarray) -> np.ndarray:
        """A^-1 b for b [N], real or complex."""
        y = super().solve(b[self._order])
        x = np.empty_like(y)
        x[self._order] = y
        return x


def natural(pattern: Pattern) -> dict:
    """Keywords of `splu` for a matrix that is in the order of its pattern."""
    return ATTEMPTS[0] | {"permc_spec": "NATURAL"} | pattern.settings


def ordered_entries(system, known: Pattern | None) -> tuple[Pattern, np.ndarray]:
    """The pattern of A and its entries [nnz] in that order.

    Args:
        system: the `LinearSystem`.
        known: a pattern that A may have; found anew if it has another one.
    """
    operator = system.operator
    if isinstance(operator, StencilOperator) and operator.batch == 1:
        pattern = stencil_pattern(
            operator.grid_shape, operator.offsets, operator.periodic
        )
        return pattern, pattern.take(stencil_values(operator))
    A = system.to_csr()
    if not A.has_canonical_format:
        A = A.copy()
        A.sum_duplicates()
    if not (isinstance(known, MatrixPattern) and known.fits(A)):
        known = MatrixPattern(A)
    return known, known.take(A.data)


class DirectSolver:
    """SuperLU in double precision with iterative refinement; any regular matrix.

    Symbolic work is done once per sparsity pattern, by nested dissection for stencils
    and by minimum degree for other matrices (`solvers.patterns`). The factors are kept
    while the values of the matrix stay the same, so that a further right-hand side
    costs a back substitution. Solutions depend on neither.

    Symmetric matrices whose rows sum to zero (pure Neumann and periodic problems): the
    solution of mean zero, if b has mean zero too.
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
        """Factorises and solves; `maxiter` and `x0` mean nothing here.

        Another singular matrix or one with NaN gives a record that is not converged,
        and x is NaN then.
        """
        start = time.perf_counter()
        shape, b = system.rhs.shape, double(system.rhs).ravel()
        x = np.full(b.shape, np.nan, system.dtype)
        found, advice = _Found(), "check the coefficients, the matrix may be singular"
        entries = self._entries(system)
        if not (np.isfinite(entries).all() and np.isfinite(b).all()):
            own = system._replace(operator=system.to_csr(), preconditioning_matrix=None)
            found.failure, advice = not_finite(own), CHECK_INPUT
        else:
            self._keep(entries)
            unit, order = unit_of(b), self._pattern.order
            y = self._attempt(b[order] / unit, rtol, found)
            if y is not None:
                x[order] = y * unit
        seconds = time.perf_counter() - start
        x = x.reshape(shape)
        return x, certify(
            system,
            x,
            rtol=rtol,
            advice=advice,
            failure=found.failure,
            method="direct",
            iterations=0,
            matvecs=found.solves,
            preconditioner_applications=found.solves,
            seconds=seconds,
            relative_residual=float("nan"),
            fallbacks=found.fallbacks,
            phases=PhaseSeconds(
                setup=found.setup, preconditioner=seconds - found.setup
            ),
        )

    def reset(self) -> None:
        """Drops the factors and the pattern."""
        self._pattern = self._values = None
        self._factors, self._matrix, self._singular = {}, None, False

    def close(self) -> None:
        """Drops what is kept."""
        self.reset()

    def _entries(self, system):
        """The entries of A in the order of its pattern, which is found if it is new."""
        pattern, entries = ordered_entries(system, self._pattern)
        if pattern is not self._pattern:
            self.reset()
            self._pattern = pattern
        return entries

    def _keep(self, entries):
        """Keeps the factors if A is the matrix they were made of."""
        if not np.array_equal(entries, self._values):
            self._values, self._factors = entries, {}
            self._matrix = self._pattern.matrix(entries)
            self._singular = matrices.is_singular(self._matrix)

    def _attempt(self, b, rtol, found):
        """Solves for the permuted b with one way after the other; None if all fail."""
        y, target = None, rtol * np.linalg.norm(b)
        for number, settings in enumerate(ATTEMPTS):
            began = time.perf_counter()
            try:
                factor = self._factor(number)
                found.setup += time.perf_counter() - began
                y, r, solves = _refine(self._matrix, b, factor, target, self._singular)
                found.solves, found.failure = found.solves + solves, ""
                if np.linalg.norm(r) <= target:
                    return y
                reason = "residual above the tolerance"
            except ArithmeticError as error:
                found.setup += time.perf_counter() - began
                found.failure = reason = str(error)
            name = settings["permc_spec"] if number else self._pattern.name
            found.fallbacks += (f"{name}: {reason}",)
        if self._singular and not found.failure:
            found.failure = matrices.diagnose(self._matrix, b, "any")
        return y

    def _factor(self, number):
        if number not in self._factors:
            settings, A = ATTEMPTS[number], self._matrix
            if self._singular:
                A = self._pattern.matrix(self._pattern.ground(self._values))
            if number == 0:
                settings = natural(self._pattern)
            self._factors[number] = Factor(A, settings)
        return self._factors[number]


@dataclasses.dataclass
class _Found:
    """What happened in one solve; fields as in `SolveRecord`, setup in seconds."""

    failure: str = ""
    fallbacks: tuple[str, ...] = ()
    solves: int = 0
    setup: float = 0.0


def _refine(A, b, factor, target, singular):
    """Solves with one factorisation; refines while the residual is above target.

    If A is singular its last unknown is grounded in the factors, and x has mean zero.
    Returns x, b - A x and the number of solves, which is that of products with A too.
    """
    x, r, solves = np.zeros_like(b), b, 0
    while not solves or (not np.linalg.norm(r) <= target and solves <= MAX_REFINEMENTS):
        if singular:
            r = r.copy()
            r[-1] = 0
        x = x + factor.solve(r)
        if singular:
            x -= x.mean()
        r, solves = b - A @ x, solves + 1
    return x, r, solves
