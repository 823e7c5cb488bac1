"""Preconditioners by name, set up for one system after the other."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla

from solvers.sequence import LinearSystem


class Preconditioner(Protocol):
    """M, an approximation of A^-1 that follows a sequence of systems.

    Attributes:
        name: name in the registry.
    """

    name: str

    def update(self, system: LinearSystem) -> bool:
        """Prepares M for a system.

        Returns:
            Whether M changed; if not, products with M from before remain valid.
        """

    def __call__(self, r: np.ndarray) -> np.ndarray:
        """M r for r [N] or for the columns of r [N, k]."""

    def reset(self) -> None:
        """Forgets everything; the next `update` starts afresh."""


def matrix_of(system: LinearSystem) -> sp.csr_array:
    """The matrix that preconditioners of this system are built from."""
    if system.preconditioning_matrix is not None:
        return sp.csr_array(system.preconditioning_matrix)
    return system.to_csr()


class Identity:
    """No preconditioner."""

    name = "none"

    def __init__(self):
        self._fresh = True

    def update(self, system: LinearSystem) -> bool:
        """Nothing to prepare."""
        changed, self._fresh = self._fresh, False
        return changed

    def __call__(self, r: np.ndarray) -> np.ndarray:
        """R itself."""
        return r

    def reset(self) -> None:
        """Nothing but the first change is remembered."""
        self._fresh = True


class Jacobi:
    """Division by the diagonal."""

    name = "jacobi"

    def __init__(self):
        self._inverse = None

    def update(self, system: LinearSystem) -> bool:
        """Reads the diagonal.

        Raises:
            ZeroDivisionError: if it holds a zero.
        """
        diagonal = matrix_of(system).diagonal()
        if not np.all(diagonal != 0):
            raise ZeroDivisionError(
                "the diagonal holds zeros; use preconditioner 'none' or 'ilu'"
            )
        inverse = 1 / diagonal
        changed = self._inverse is None or not np.array_equal(inverse, self._inverse)
        self._inverse = inverse
        return changed

    def __call__(self, r: np.ndarray) -> np.ndarray:
        """R over the diagonal."""
        return r * (self._inverse if r.ndim == 1 else self._inverse[:, None])

    def reset(self) -> None:
        """Forgets the diagonal."""
        self._inverse = None


class LU:
    """Sparse LU of the preconditioning matrix, or of the first system without one.

    Factorised again only when `LinearSystem.preconditioning_matrix` is another object.
    """

    name = "lu"

    def __init__(self):
        self.reset()

    def update(self, system: LinearSystem) -> bool:
        """Factorises what has not been factorised yet."""
        source = system.preconditioning_matrix
        if self._factor is not None and source is self._source:
            return False
        self._source = source
        self._factor = spla.splu(matrix_of(system).tocsc(), permc_spec="MMD_AT_PLUS_A")
        return True

    def __call__(self, r: np.ndarray) -> np.ndarray:
        """Solves with the factors."""
        return self._factor.solve(r)

    def reset(self) -> None:
        """Drops the factors."""
        self._factor = self._source = None


PRECONDITIONERS: dict[str, Callable[..., Preconditioner]] = {
    "none": Identity,
    "jacobi": Jacobi,
    "lu": LU,
}


def names() -> list[str]:
    """Known preconditioners."""
    return sorted(PRECONDITIONERS)


def create(name: str, **settings: Any) -> Preconditioner:
    """Builds a preconditioner from its name.

    Raises:
        ValueError: for an unknown name.
    """
    if name not in PRECONDITIONERS:
        known = ", ".join(names())
        raise ValueError(f"unknown preconditioner {name!r}; known: {known}")
    return PRECONDITIONERS[name](**settings)
