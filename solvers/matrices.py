"""Questions about a matrix: is it the one before, is it Hermitian, what went wrong."""

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla

from solvers.inputs import BALANCE, UNBALANCED

SYMMETRY_TOLERANCE = 1e-10  # of max |A - A^H| / max |A|
NULL_SPACE_TOLERANCE = 1e-10
ROUNDING = 8 * np.finfo(np.float64).eps  # of the sum of moduli in a row


def remember(A) -> tuple:
    """What `same` needs to recognise A later, even if A was changed in place."""
    if isinstance(A, spla.LinearOperator):
        return (A,)
    return tuple(np.copy(part) for part in _parts(A))


def same(A, memory: tuple | None) -> bool:
    """Whether A is the matrix that `remember` saw.

    Sparse matrices are compared by their values, so that one that is built anew is
    recognised, in whatever format; a `LinearOperator` is known by identity.
    """
    if memory is None:
        return False
    if isinstance(A, spla.LinearOperator):
        return A is memory[0]
    parts = _parts(A)
    return len(memory) == len(parts) and all(
        np.array_equal(new, old) for new, old in zip(parts, memory, strict=True)
    )


def _parts(A):
    """The arrays that make up a matrix, as CSR whatever its format."""
    A = A if A.format == "csr" else A.tocsr()
    return A.data, A.indices, A.indptr, np.array(A.shape)


def asymmetry(A: sp.csr_array) -> float:
    """Returns max |A - A^H| / max |A|, dimensionless; 0 for Hermitian matrices."""
    scale = abs(A).max()
    return float(abs(A - A.conj().T).max() / scale) if scale else 0.0


def is_singular(A) -> bool:
    """Whether A [N, N] is Hermitian and all rows sum to zero up to rounding.

    Constants are in the null space then, as for pure Neumann and periodic problems.
    False if a row is all zero.
    """
    totals = abs(A).sum(axis=1)
    sums = np.abs(A.sum(axis=1))
    if not (totals > 0).all() or not (sums <= ROUNDING * totals).all():
        return False
    return asymmetry(A) <= SYMMETRY_TOLERANCE


def diagnose(A, b: np.ndarray, needs: str) -> str:
    """A sentence about why a method may have failed on A x = b; empty if none is known.

    Args:
        A: [N, N] SciPy matrix or LinearOperator; the latter gets no check of symmetry.
        b: [N] right-hand side.
        needs: what the method asks of A: "any", "symmetric" or "spd".
    """
    if sp.issparse(A) and needs != "any" and asymmetry(A) > SYMMETRY_TOLERANCE:
        kind = "Hermitian" if np.iscomplexobj(A) else "symmetric"
        return (
            f"A is not {kind}, which this method needs; use 'gmres', 'bicgstab', "
            "'skr' or 'direct'"
        )
    ones = np.ones(b.size)
    largest = abs(A).max() if sp.issparse(A) else np.linalg.norm(A @ b) + 1.0
    if np.abs(A @ ones).max() <= NULL_SPACE_TOLERANCE * largest:
        mean = abs(b.mean()) / max(np.abs(b).max(), np.finfo(float).tiny)
        if mean > NULL_SPACE_TOLERANCE:
            return f"{UNBALANCED}: there is no solution; {BALANCE}"
    return ""
