"""Small dense problems of recycling: which vectors to keep, how close two spaces are.

Nothing here has the length of the grid, except in `delta`. With
Op V^ = W G, where W [n, j + 1] has orthonormal columns and V^ [n, j] need not, all that
selection needs is G [j + 1, j] and S = W^H V^ [j + 1, j].
"""

import math

import numpy as np
import scipy.linalg

from solvers.krylov.blocks import DROP_TOLERANCE, SERIAL, Rows, orthonormalize

SINGULAR = 1e-13
WELL_CONDITIONED = 1e-6


def harmonic_ritz(G: np.ndarray, S: np.ndarray, k: int) -> np.ndarray:
    """Orthonormal basis P [j, <= k] of the harmonic Ritz space of smallest |theta|.

    Harmonic Ritz pairs solve (G^H G) z = theta (G^H S) z. With G = Q R that is
    (Q^H S) z = mu R z, mu = 1 / theta, without squaring the condition of G. The QZ form
    is ordered, largest |mu| first; its leading right Schur vectors span the wanted
    space and stay orthonormal for defective problems, where eigenvectors would not. In
    real arithmetic a conjugate pair is never split: k - 1 vectors are returned where
    k would cut one.

    Args:
        G: [j + 1, j] with Op V^ = W G.
        S: [j + 1, j], W^H V^; the first j rows of the identity if V^ are the first j
            columns of W, as in the first cycle.
        k: vectors wanted.

    References:
        Parks, de Sturler, Mackey, Johnson, Maiti (2006), Recycling Krylov subspaces
        for sequences of linear systems, SIAM J. Sci. Comput. 28(5).
    """
    Q, R = np.linalg.qr(G)
    left = Q.conj().T @ S
    output = "complex" if np.iscomplexobj(left) else "real"
    chosen = 0

    def select(alpha, beta):
        nonlocal chosen
        with np.errstate(divide="ignore", invalid="ignore"):
            size = np.abs(alpha) / np.abs(beta)
        size = np.nan_to_num(size, nan=0.0, posinf=np.finfo(float).max)
        pairs = np.flatnonzero(alpha.imag > 0) if output == "real" else ()
        flags = _leading(size, pairs, k)
        chosen = int(flags.sum())
        return flags

    try:
        *_, Z = scipy.linalg.ordqz(
            np.asfortranarray(left),
            np.asfortranarray(R),
            sort=select,
            output=output,
            overwrite_a=True,
            overwrite_b=True,
            check_finite=False,
        )
    except ValueError:  # LAPACK could not swap two close eigenvalues
        return np.linalg.svd(G)[2].conj().T[:, ::-1][:, :k]
    return Z[:, :chosen]


def _leading(size: np.ndarray, pairs: np.ndarray, k: int) -> np.ndarray:
    """Marks the k largest sizes, or fewer where that would split a conjugate pair.

    The members of a pair follow each other; `pairs` holds the places of the first ones.
    """
    flags = np.zeros(len(size), bool)
    second = {int(i) + 1 for i in pairs}
    for i in np.argsort(-size, kind="stable"):
        if i in second:
            continue
        members = slice(i, i + 2 if i + 1 in second else i + 1)
        if flags.sum() + members.stop - members.start > k:
            break
        flags[members] = True
    return flags


def smallest_singular(G: np.ndarray, gram: np.ndarray, k: int) -> np.ndarray:
    """Basis P [j, k] of approximate right singular vectors of smallest value.

    They solve the symmetric definite problem (G^H G) z = sigma^2 (V^^H V^) z: no
    complex numbers for real matrices, and eigh is all it takes.

    Args:
        G: [j + 1, j] with Op V^ = W G.
        gram: [j, j], V^^H V^, positive definite.
        k: vectors wanted, at most j.
    """
    subset = (0, min(k, len(gram)) - 1)
    try:
        return scipy.linalg.eigh(G.conj().T @ G, gram, subset_by_index=subset)[1]
    except np.linalg.LinAlgError:  # V^ is nearly dependent: weaken the small ones
        floor = 1e-12 * np.trace(gram).real / len(gram)
        shifted = gram + floor * np.eye(len(gram))
        return scipy.linalg.eigh(G.conj().T @ G, shifted, subset_by_index=subset)[1]


def small_qr(
    GP: np.ndarray, drop: float = DROP_TOLERANCE
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """QR of a small G P with the dropping rule of `orthonormalize`.

    Returns:
        Q [j + 1, k'], R [k', k'] and the kept columns [k']: G P[:, kept] = Q R.
    """
    Q, R = np.linalg.qr(GP)
    size = np.abs(np.diag(R))
    if size.min() > WELL_CONDITIONED * size.max():  # pivots would change nothing
        return Q, R, np.arange(GP.shape[1])
    return tuple(orthonormalize(GP, SERIAL, drop))


class LeastSquares:
    """min ||beta e_1 - H y|| for a Hessenberg H that grows by one column at a time.

    Givens rotations give the residual norm after every column.

    Args:
        m: largest number of columns.
        dtype: of H.
        beta: norm of the right-hand side.
    """

    def __init__(self, m: int, dtype: np.dtype, beta: float):
        self._rotations = np.zeros((m + 1, m + 1), dtype)
        self._rotations[0, 0] = 1.0
        self._R = np.zeros((m, m), dtype)
        self._g = np.zeros(m + 1, dtype)
        self._g[0] = beta
        self.columns = 0

    def append(self, h: np.ndarray) -> float:
        """Adds a column h [columns + 2]; returns the residual norm."""
        j, Q, g = self.columns, self._rotations, self._g
        top = np.dot(Q[: j + 1, : j + 1], h[: j + 1])
        a, b = top[j].item(), h[j + 1].item()
        size = math.hypot(abs(a), abs(b))
        c, s = (a / size, b / size) if size else (1.0, 0.0)
        last = Q[j, : j + 2]
        np.multiply(last, -s, out=Q[j + 1, : j + 2])
        Q[j + 1, j + 1] = c
        last *= c.conjugate()
        Q[j, j + 1] = s.conjugate()
        self._R[:j, j], self._R[j, j] = top[:j], size
        g_j = g[j].item()
        g[j], g[j + 1] = c.conjugate() * g_j, -s * g_j
        self.columns = j + 1
        return abs(s * g_j)

    def solve(self) -> np.ndarray:
        """The minimiser y [columns]; the shortest one if H is rank deficient."""
        j = self.columns
        R, g = self._R[:j, :j], self._g[:j]
        size = np.abs(np.diag(R))
        if j and size.min() <= SINGULAR * size.max():
            return np.linalg.lstsq(R, g, rcond=SINGULAR)[0]
        return scipy.linalg.solve_triangular(R, g, check_finite=False)


def delta(Q: np.ndarray, C: np.ndarray, rows: Rows = SERIAL) -> float:
    """Sine of the largest angle from the space of Q to that of C, in [0, 1].

    That is ||(I - Pi_C) Pi_Q||_2, the largest singular value of (I - C C^H) Q for
    orthonormal Q and C: 0 if C contains Q, 1 if a vector of Q is orthogonal to C. It
    is not symmetric: C may be larger than Q.

    Args:
        Q: [n, j] basis of the wanted space (eigenvectors, say), any columns.
        C: [n, k] basis of the space that should contain it; likewise.
        rows: who owns which rows.

    Raises:
        ValueError: if the two have different numbers of rows.
    """
    if Q.ndim != 2 or C.ndim != 2 or len(Q) != len(C):
        raise ValueError(
            f"Q has shape {Q.shape} and C {C.shape}; expected [n, j] and [n, k]"
        )
    Q, C = orthonormalize(Q, rows).Q, orthonormalize(C, rows).Q
    if Q.shape[1] == 0:
        return 0.0
    rest = Q - C @ rows.reduce(C.conj().T @ Q)
    triangles = rows.gather(np.linalg.qr(rest, mode="r"))
    sine = np.linalg.norm(np.concatenate(triangles), 2)
    return float(min(sine, 1.0))
