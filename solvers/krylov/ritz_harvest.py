"""Approximate eigenvectors of M A, taken from directions of conjugate gradients."""

import time

import numpy as np

RANK_TOLERANCE = 1e-12  # smallest eigenvalue kept of the scaled Gram matrix


class RitzHarvest:
    """Collects directions p and compresses them to Ritz vectors of small Ritz values.

    In the inner product u^H A v the operator M A is self-adjoint, so that Ritz vectors
    on span Z solve (A Z)^H M (A Z) y = theta Z^H A Z y. Everything this needs comes
    with the steps: A p is computed anyway, and M A p is the difference of two
    preconditioned residuals over the step length. Once `window` directions are there,
    the k Ritz vectors of smallest theta take their place, together with those kept
    before, and collecting goes on: the whole solve contributes at a memory of
    3 (k + window) vectors.

    Args:
        k: Ritz vectors to keep.
        window: directions per compression.
        max_windows: compressions per solve; None: as many as there are.

    Attributes:
        seconds: wall time of the compressions.

    Raises:
        ValueError: unless k and window are positive.

    References:
        Saad, Yeung, Erhel, Guyomarc'h (2000), SIAM J. Sci. Comput. 21(5), Section 5
        (the projection); Wang, de Sturler, Paulino (2007), Int. J. Numer. Meth. Engng
        69(12), Section 4 (windows).
    """

    def __init__(self, k: int, *, window: int, max_windows: int | None = 1):
        if k < 1 or window < 1:
            raise ValueError(f"k is {k} and window is {window}; both must be positive")
        self.k, self.window, self.max_windows = k, window, max_windows
        self._Z = self._AZ = self._MAZ = None
        self._filled = self._new = self._windows = 0
        self.seconds = 0.0

    @property
    def wants(self) -> bool:
        """Whether more directions are welcome."""
        return self.max_windows is None or self._windows < self.max_windows

    def start(self, W: np.ndarray, AW: np.ndarray, MAW: np.ndarray) -> None:
        """Begins with a space W [N, k'] and its products A W and M A W."""
        self._allocate(W, max(self.k, W.shape[1]) + self.window)
        for store, values in zip(
            (self._Z, self._AZ, self._MAZ), (W, AW, MAW), strict=True
        ):
            store[:, : W.shape[1]] = values
        self._filled = W.shape[1]

    def add(self, p: np.ndarray, Ap: np.ndarray, MAp: np.ndarray) -> None:
        """Takes one direction [N] with its products; copies them."""
        if self._Z is None:
            self._allocate(p, self.k + self.window)
        scale = 1 / np.sqrt(max(np.vdot(p, Ap).real, np.finfo(float).tiny))
        for store, v in zip((self._Z, self._AZ, self._MAZ), (p, Ap, MAp), strict=True):
            np.multiply(v, scale, out=store[:, self._filled])
        self._filled, self._new = self._filled + 1, self._new + 1
        if self._new == self.window:
            self._compress()

    def vectors(self) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Returns the space W [N, k'], A W and M A W; None if there is nothing."""
        if self._new:
            self._compress()
        if not self._filled:
            return None
        stores = (self._Z, self._AZ, self._MAZ)
        return tuple(store[:, : self._filled].copy(order="F") for store in stores)

    def _allocate(self, like, columns):
        self._Z, self._AZ, self._MAZ = (
            np.empty((len(like), columns), like.dtype, order="F") for _ in range(3)
        )

    def _compress(self):
        """Replaces what is stored by Ritz vectors, A-orthonormal."""
        start, filled = time.perf_counter(), slice(0, self._filled)
        Y = ritz_coefficients(
            self._Z[:, filled], self._AZ[:, filled], self._MAZ[:, filled], self.k
        )
        for store in (self._Z, self._AZ, self._MAZ):
            store[:, : Y.shape[1]] = store[:, filled] @ Y
        self._filled, self._new = Y.shape[1], 0
        self._windows += 1
        self.seconds += time.perf_counter() - start


def ritz_coefficients(
    Z: np.ndarray, AZ: np.ndarray, MAZ: np.ndarray, k: int
) -> np.ndarray:
    """Coefficients [j, <= k] of the Ritz vectors with the smallest values in span Z.

    Args:
        Z: [N, j] basis, of any condition: what is dependent up to rounding drops out.
        AZ: [N, j] A Z.
        MAZ: [N, j] M A Z.
        k: how many.
    """
    adjoint = AZ.conj().T
    G, F = adjoint @ Z, adjoint @ MAZ
    G, F = (G + G.conj().T) / 2, (F + F.conj().T) / 2
    diagonal = np.diagonal(G).real
    scale = 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    values, vectors = np.linalg.eigh(G * scale[:, None] * scale)
    kept = values > RANK_TOLERANCE * values[-1]
    T = scale[:, None] * vectors[:, kept] / np.sqrt(values[kept])
    _, Y = np.linalg.eigh(T.conj().T @ F @ T)
    return T @ Y[:, :k]
