"""The recycled space of GCRO-DR: brought to a new matrix, renewed after a cycle."""

import dataclasses
import time
from collections.abc import Callable

import numpy as np
import scipy.linalg

from solvers.krylov import arnoldi
from solvers.krylov.blocks import Kernels, orthonormalize
from solvers.krylov.ritz import harmonic_ritz, small_qr, smallest_singular

TANGLED = 1e3  # condition of U beyond which its columns are made orthogonal


@dataclasses.dataclass(frozen=True)
class RecycleSpace:
    """What one system leaves to the next.

    Attributes:
        Y: [n, j] the carried vectors; any basis of their space will do.
        C: [n, j] orthonormal with Op Y = C for the A and M that the space came from;
            `gcrodr` uses it only if told that they are the same. None if unknown.
        rates: log of the residual reduction per step in recent cycles.
    """

    Y: np.ndarray
    C: np.ndarray | None = None
    rates: tuple[float, ...] = ()

    def for_another_matrix(self) -> "RecycleSpace":
        """Without C, which belongs to the matrix that it came from."""
        return dataclasses.replace(self, C=None)

    def compact(self) -> "RecycleSpace":
        """A copy without C that holds no memory of the solve that it came from."""
        return RecycleSpace(self.Y.copy(order="F"), None, self.rates)


class Recycling:
    """The pair (C, U) with Op U = C beside the Krylov basis of a cycle.

    Op is A M in t-mode, where U lives in the preconditioned variable, and A in x-mode,
    where U lives in that of the solution and `Z` = M V takes the part of V.

    Args:
        n: local rows.
        m: largest dimension of the search space.
        k: vectors to keep.
        kernels: BLAS and sums over processes.
        selection: "harmonic" or "singular".
        flexible: x-mode.

    Attributes:
        basis: [C V U] of the cycle.
        Z: [n, m] or None.
        capacity: the k above.
        seconds: wall time of `carry_over`, `refresh`, `dense` so far.
    """

    def __init__(
        self,
        n: int,
        m: int,
        k: int,
        kernels: Kernels,
        selection: str = "harmonic",
        flexible: bool = False,
    ):
        self._kernels, self.capacity, self._selection = kernels, k, selection
        self.basis, self._spare = (
            arnoldi.Basis(n, m, k, kernels.dtype) for _ in range(2)
        )
        self.Z = np.empty((n, m), kernels.dtype, order="F") if flexible else None
        self.seconds = dict.fromkeys(("carry_over", "refresh", "dense"), 0.0)
        self._forget_products()

    def space(self, rates=()) -> RecycleSpace | None:
        """What to carry on, or None if there is nothing."""
        if not self.basis.k:
            return None
        return RecycleSpace(self.basis.U, self.basis.C, tuple(rates))

    def drop(self) -> None:
        """Forgets the space; the next cycle is one of GMRES."""
        self.basis.k = 0
        self._forget_products()

    def load(self, space: RecycleSpace, op: Callable[[np.ndarray], np.ndarray]) -> int:
        """Computes (C, U) for this matrix from the vectors of another.

        Args:
            space: left by an earlier system.
            op: Op for a block [n, j]; returns one in Fortran order.

        Returns:
            How many columns were linearly dependent and therefore dropped.

        Raises:
            FloatingPointError: if Op gives NaN or infinite values.
        """
        start, dropped = time.perf_counter(), 0
        if space.C is None:
            Y = np.asfortranarray(
                space.Y[:, : self.capacity], dtype=self._kernels.dtype
            )
            Q, R, kept = orthonormalize(op(Y), self._kernels.rows)
            dropped = Y.shape[1] - len(kept)
            Y = Y[:, kept]
            norms = np.sqrt(self._squares(Y))
            T, Z = _untangle(norms[:, None] * _inverse(R), np.inf)
            C, U = np.empty_like(Q), np.empty_like(Q)
            pairs = (C, [(Q, Z)]), (U, [(Y, T / norms[:, None])])
            self._kernels.combine_all(pairs)
        else:
            C, U = space.C[:, : self.capacity], space.Y[:, : self.capacity]
        self.basis.k = C.shape[1]
        self.basis.block[:, : self.basis.k] = C
        self.basis.U[:] = U
        self._forget_products()
        self.seconds["carry_over"] += time.perf_counter() - start
        return dropped

    def refresh(self) -> None:
        """Replaces (C, U) by the best k vectors of the cycle's search space."""
        start, dense = time.perf_counter(), 0.0
        G, S, gram = self._small_matrices()
        begin = time.perf_counter()
        P = self._select(G, S, gram)
        if P.shape[1]:
            Q, R, kept = small_qr(G @ P)
            inverse = _inverse(R)
            spread = np.linalg.norm(R) * np.linalg.norm(inverse)
            T, Z = _untangle(P[:, kept] @ inverse, spread)
            Q = Q @ Z
        dense += time.perf_counter() - begin
        if P.shape[1]:
            self._combine(Q, T)
            self._CU = Q.conj().T @ S @ T
            self._scale = 1 / np.linalg.norm(T, axis=0)
        self.seconds["dense"] += dense
        self.seconds["refresh"] += time.perf_counter() - start - dense

    def _squares(self, U):
        """Squared norms of the columns, over all processes."""
        return self._kernels.rows.reduce(np.einsum("ij,ij->j", U.conj(), U).real)

    def _forget_products(self):
        """C^H U and the norms of U are computed when they are needed."""
        self._CU = self._scale = None

    def _small_matrices(self):
        """G and S = W^H V^ and, if needed, V^^H V^ for V^ = [U D, V or Z]."""
        kernels, basis, k = self._kernels, self.basis, self.basis.k
        steps, U, W = basis.steps, basis.U, basis.W
        if self._scale is None:
            self._scale = 1 / np.sqrt(self._squares(U))
        D = self._scale
        G = np.zeros((k + steps + 1, k + steps), kernels.dtype)
        G[:k, :k] = np.diag(D)
        G[:, k:] = basis.coefficients[: k + steps + 1, :steps]
        S = np.zeros_like(G)
        if self._CU is None:
            S[:, :k] = kernels.gram(W, U) * D
        else:  # C^H U came out of the last refresh
            S[:k, :k] = self._CU * D
            S[k:, :k] = kernels.gram(basis.V, U) * D
        if self.Z is None:
            S[k:, k:] = np.eye(steps + 1, steps)
        else:
            S[:, k:] = kernels.gram(W, self.Z[:, :steps])
        if self._selection == "harmonic":
            return G, S, None
        return G, S, self._gram(S, D)

    def _gram(self, S, D):
        kernels, k, steps = self._kernels, self.basis.k, self.basis.steps
        U = self.basis.U
        UU = kernels.gram(U, U) * np.outer(D, D)
        if self.Z is None:
            UV, VV = S[k : k + steps, :k].conj().T, np.eye(steps)
        else:
            Z = self.Z[:, :steps]
            UV, VV = D[:, None] * kernels.gram(U, Z), kernels.gram(Z, Z)
        return np.block([[UU, UV], [UV.conj().T, VV]])

    def _select(self, G, S, gram):
        """Coordinates P of the vectors to keep."""
        columns = G.shape[1]
        if columns <= self.capacity:
            # Too short a first cycle: a space of half the size at least, or none.
            enough = self.basis.k or columns >= self.capacity / 2
            return np.eye(columns if enough else 0, columns).T
        if self._selection == "harmonic":
            return harmonic_ritz(G, S, self.capacity)
        return smallest_singular(G, gram, self.capacity)

    def _combine(self, Q, T):
        """C <- W Q and U <- V^ T, in the spare block."""
        kernels, basis, spare = self._kernels, self.basis, self._spare
        k, steps = basis.k, basis.steps
        of_U, of_V = self._scale[:, None] * T[:k], T[k:]
        spare.k, spare.steps = Q.shape[1], 0
        if self.Z is not None:
            form_U = [(self.Z[:, :steps], of_V), (basis.U, of_U)]
        elif k + steps < basis.m:  # a short cycle leaves a gap between V and U
            form_U = [(basis.V[:, :steps], of_V), (basis.U, of_U)]
        else:
            rows = np.concatenate([of_V, np.zeros((1, Q.shape[1])), of_U])
            form_U = [(basis.block[:, k : basis.m + 1 + k], rows)]
        kernels.combine_all([(spare.C, [(basis.W, Q)]), (spare.U, form_U)])
        self.basis, self._spare = spare, basis


def _untangle(T, spread):
    """Rotates C and U alike so that the columns of U become orthogonal.

    U = V^ T comes out of a triangle. Where Op has eigenvalues many orders apart, all
    its columns contain mostly the vector of the smallest one, and scaled to norm one
    they are parallel up to rounding: after a few cycles the space would be lost. The
    right singular vectors Z of T undo that at the price of a small SVD, which a small
    `spread`, a bound on the condition of T, makes unnecessary.

    Returns:
        T Z, whose columns are orthogonal if they have to, and the unitary Z.
    """
    if spread < TANGLED:
        return T, np.eye(T.shape[1])
    X, sizes, Zh = np.linalg.svd(T, full_matrices=False)
    return X * sizes, Zh.conj().T


def _inverse(R):
    """R^-1 of a small upper triangle."""
    return scipy.linalg.solve_triangular(R, np.eye(len(R)), check_finite=False)
