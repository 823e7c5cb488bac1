"""Symbolic work of sparse factorisations, done once per sparsity pattern.

SciPy orders the columns in every call of `splu`. Here the order is found once, from
the pattern alone, and the entries of each matrix are permuted by a gather; so a solver
that saw the pattern before computes the same bytes as a fresh one.
"""

import functools

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla

from solvers.nested_dissection import dissection
from solvers.stencils import StencilOperator, double

# Columns that SuperLU updates together: on 2-D grids 8 take 0.9 times as long as the
# default, 20; in 3-D the default is better.
PANEL_2D = {"panel_size": 8}


class Pattern:
    """Where the entries of a matrix go once rows and columns are in a new order.

    Attributes:
        name: of the ordering.
        order: [N] unknowns in the order of elimination.
        settings: further keywords of `splu` that suit it.

    Args:
        rows: [nnz] row of every entry.
        columns: [nnz] its column.
        order: [N] unknowns in the order of elimination.
        name: of the ordering.
        settings: further keywords of `splu`.
        sources: [nnz] where the values of the entries stand; None: in this order.
    """

    def __init__(self, rows, columns, order, *, name, settings=None, sources=None):
        self.name, self.order, self.settings = name, order, settings or {}
        n = order.size
        place = np.empty(n, np.int64)
        place[order] = np.arange(n)
        rows, columns = place[rows], place[columns]
        by_column = np.argsort(columns * n + rows)
        self._gather = by_column if sources is None else sources[by_column]
        self._indices = rows[by_column].astype(np.int32)
        counts = np.bincount(columns, minlength=n)
        self._starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)

    def take(self, values: np.ndarray) -> np.ndarray:
        """The entries [nnz] column by column in the new order."""
        return values[self._gather]

    def matrix(self, entries: np.ndarray) -> sp.csc_array:
        """The permuted matrix [N, N] with the entries that `take` returned."""
        arrays = (entries, self._indices, self._starts)
        return sp.csc_array(arrays, shape=(self.order.size,) * 2)

    def ground(self, entries: np.ndarray) -> np.ndarray:
        """The entries with the last unknown decoupled from all others.

        Its diagonal entry becomes the largest modulus of its old row.
        """
        entries, last = entries.copy(), self.order.size - 1
        column = slice(self._starts[last], self._starts[last + 1])
        scale = np.abs(entries[column]).max()
        entries[self._indices == last] = 0
        entries[column] = np.where(self._indices[column] == last, scale, 0)
        return entries


@functools.lru_cache(maxsize=8)
def stencil_pattern(
    shape: tuple[int, ...],
    offsets: tuple[tuple[int, ...], ...],
    periodic: tuple[int, ...],
) -> Pattern:
    """The pattern of a stencil, by nested dissection; values as `stencil_values`."""
    numbers = np.arange(1.0, len(offsets) * np.prod(shape) + 1)
    planes = list(numbers.reshape(len(offsets), *shape))
    A = StencilOperator.from_planes(planes, offsets, periodic).to_csr().tocoo()
    return Pattern(
        *A.coords,
        dissection(shape, offsets, periodic),
        name="nested dissection",
        settings=PANEL_2D if len(shape) < 3 else {},
        sources=A.data.astype(np.int64) - 1,
    )


def stencil_values(operator: StencilOperator) -> np.ndarray:
    """All coefficients of one system, plane by plane, in double precision."""
    return double(np.moveaxis(operator.coefficients[0], -1, 0)).ravel()


class MatrixPattern(Pattern):
    """The pattern of a SciPy matrix, ordered by minimum degree on A + A^T.

    SciPy hands out SuperLU's ordering only with factors; an incomplete factorisation
    that drops everything costs little more than the ordering.

    Args:
        A: [N, N] CSR, without duplicates.
    """

    def __init__(self, A: sp.csr_array):
        self._memory = A.indptr.copy(), A.indices.copy()
        rows = np.repeat(np.arange(A.shape[0]), np.diff(A.indptr))
        # Values that no pivoting stumbles over: the diagonal outweighs its row.
        diagonal = sp.diags_array(np.full(A.shape[0], float(A.nnz)))
        ones = sp.csr_array((np.ones(A.nnz), A.indices, A.indptr), shape=A.shape)
        factors = spla.spilu(
            (ones + diagonal).tocsc(),
            drop_tol=1e300,
            fill_factor=1.0,
            permc_spec="MMD_AT_PLUS_A",
            options={"SymmetricMode": True},
        )
        order = np.argsort(factors.perm_c)
        super().__init__(rows, A.indices, order, name="MMD_AT_PLUS_A")

    def fits(self, A: sp.csr_array) -> bool:
        """Whether A has this pattern."""
        pairs = zip((A.indptr, A.indices), self._memory, strict=True)
        return all(np.array_equal(new, old) for new, old in pairs)
