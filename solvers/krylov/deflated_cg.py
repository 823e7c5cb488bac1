"""Conjugate gradients that leave a given space out of the iteration."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.linalg import get_blas_funcs

from solvers.krylov.ritz_harvest import RitzHarvest

RANK_TOLERANCE = 1e-12  # smallest eigenvalue kept of the scaled W^H A W
MAX_CORRECTIONS = 5  # restarts from the recomputed residual
STAGNATION = 1000  # steps without a new smallest residual norm

INDEFINITE = (
    "p^H A p <= 0, so A is not positive definite; use 'minres' if it is symmetric, "
    "'gmres' otherwise"
)
INDEFINITE_M = (
    "r^H M r < 0, so the preconditioner is not positive definite; use 'none', "
    "'jacobi' or 'icc0'"
)
BROKEN = "NaN or a zero turned up where a positive number was expected"

Apply = Callable[[np.ndarray], np.ndarray]  # of [N], and A also of [N, k]


class DeflationSpace(NamedTuple):
    """A space W for one matrix A.

    Attributes:
        W: [N, k] basis, contiguous rows: that is how SciPy multiplies a block by A
            without going over A k times.
        AW: [N, k] A W.
        inverse: [k, k] pseudo-inverse of E = W^H A W.
        definite: False if E has a negative eigenvalue, so that A is not positive
            definite.
    """

    W: np.ndarray
    AW: np.ndarray
    inverse: np.ndarray
    definite: bool

    @classmethod
    def build(cls, A: Apply, W: np.ndarray) -> "DeflationSpace":
        """Computes A W, k products with A at once, and inverts W^H A W."""
        W = np.ascontiguousarray(W)
        return cls.from_products(W, A(W))

    @classmethod
    def from_products(cls, W: np.ndarray, AW: np.ndarray) -> "DeflationSpace":
        """Like `build`, where A W is known.

        E is scaled to a unit diagonal; directions whose eigenvalue is below
        `RANK_TOLERANCE` of the largest carry rounding errors only and are left out.
        """
        W, AW = np.ascontiguousarray(W), np.ascontiguousarray(AW)
        E = W.conj().T @ AW
        E = (E + E.conj().T) / 2
        diagonal = np.diagonal(E).real
        if not np.isfinite(E).all() or (diagonal < 0).any():
            return cls(W, AW, np.zeros_like(E), definite=False)
        scale = 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
        values, vectors = np.linalg.eigh(E * scale[:, None] * scale)
        largest = values[-1] if values.size else 0.0
        kept = values > RANK_TOLERANCE * largest
        vectors = vectors[:, kept] * scale[:, None]
        inverse = (vectors / values[kept]) @ vectors.conj().T
        definite = not (values < -np.sqrt(RANK_TOLERANCE) * largest).any()
        return cls(W, AW, inverse, definite)


class CGResult(NamedTuple):
    """What `deflated_cg` returns.

    Attributes:
        x: [N] the approximate solution.
        r: [N] b - A x, recomputed.
        iterations: steps.
        cycles: starts from a recomputed residual, the first included.
        residual_norms: ||r|| per step as the recurrence sees it, the start included.
        failure: a sentence if the method had to stop, else empty.
    """

    x: np.ndarray
    r: np.ndarray
    iterations: int
    cycles: int
    residual_norms: list[float]
    failure: str


def deflated_cg(
    A: Apply,
    b: np.ndarray,
    x0: np.ndarray | None = None,
    *,
    r0: np.ndarray | None = None,
    space: DeflationSpace | None = None,
    M: Apply | None = None,
    target: float,
    maxiter: int,
    harvest: RitzHarvest | None = None,
) -> CGResult:
    """Solves A x = b for a Hermitian positive definite A and M.

    The residual stays orthogonal to W and the directions stay A-orthogonal to it, so
    that the convergence is that of A without the deflated part of its spectrum; with an
    empty space these are conjugate gradients. A step costs 4 N k more than without W.
    It stops once ||r||_2 <= target for the recursive residual; then b - A x is computed
    anew, and the iteration starts again from it while it is above the target.

    Args:
        A: v -> A v, a new array each time.
        b: [N] right-hand side, float64 or complex128.
        x0: [N] initial guess; None means zero.
        r0: [N] b - A x0 if it is known; otherwise it costs a product.
        space: the space to leave out.
        M: v -> M v, an approximation of A^-1, a new array each time; None: identity.
        target: largest accepted ||b - A x||_2, absolute.
        maxiter: most steps.
        harvest: collects directions while it wants them.

    References:
        Saad, Yeung, Erhel, Guyomarc'h (2000), A deflated version of the conjugate
        gradient algorithm, SIAM J. Sci. Comput. 21(5), Algorithm 3.5.
    """
    x = np.zeros_like(b) if x0 is None else np.array(x0, dtype=b.dtype)
    if r0 is None:
        r0 = b - A(x) if x.any() else b
    state = _State(x, np.array(r0, dtype=b.dtype))
    norm, failure, cycles = state.push_norm(), "", 0
    while not norm <= target and not failure:
        before, cycles = norm, cycles + 1
        failure = _iterate(A, M, space, state, target, maxiter, harvest)
        state.r = b - A(state.x)
        norm = state.norms[-1] = float(np.linalg.norm(state.r))
        if norm <= target or failure:
            break
        if state.iterations >= maxiter:
            failure = f"{maxiter} steps were not enough"
        elif cycles > MAX_CORRECTIONS or not norm < 0.5 * before:
            failure = "the recomputed residual does not follow the recursive one"
    return CGResult(state.x, state.r, state.iterations, cycles, state.norms, failure)


class _State:
    """The vectors x and r, updated in place, and the counts of one solve."""

    def __init__(self, x, r):
        self.x, self.r = x, r
        self.iterations, self.norms = 0, []

    def push_norm(self):
        self.norms.append(float(np.linalg.norm(self.r)))
        return self.norms[-1]


def _iterate(A, M, space, state, target, maxiter, harvest):
    """Runs until the recursive residual meets the target; returns what went wrong."""
    if space is not None and not space.definite:
        return INDEFINITE
    project = _projection(space)
    if project is not None and _correct(space, state) <= target:
        return ""
    axpy, scal = get_blas_funcs(("axpy", "scal"), (state.x,))
    x, r, dot = state.x, state.r, np.vdot if np.iscomplexobj(state.x) else np.dot
    z = p = q = None
    alpha, rho_old, smallest = 1.0, 1.0, (state.norms[-1], state.iterations)
    while state.iterations < maxiter:
        z_old, z = z, M(r) if M is not None else r
        if harvest is not None and p is not None and harvest.wants:
            harvest.add(p, q, q if M is None else (z_old - z) / alpha)
        rho = dot(r, z).real
        if not rho > 0:
            return INDEFINITE_M if rho < 0 else BROKEN
        if p is None:
            p = np.array(z)
        else:
            p = scal(rho / rho_old, p)
            axpy(z, p)
        if project is not None:
            project(z, p)
        q = A(p)
        curvature = dot(p, q).real
        if not curvature > 0:
            return BROKEN if np.isnan(curvature) else INDEFINITE
        alpha, rho_old = rho / curvature, rho
        axpy(p, x, a=alpha)
        axpy(q, r, a=-alpha)
        state.iterations += 1
        norm = state.push_norm()
        if norm <= target:
            break
        if norm < smallest[0]:
            smallest = norm, state.iterations
        elif not _progressing(norm, state.iterations, smallest[1]):
            return f"stagnated at ||r|| = {smallest[0]:.2e}, wanted {target:.2e}"
    return ""


def _progressing(norm, now, last):
    """Whether there was a new smallest residual norm in the last half of the steps."""
    return np.isfinite(norm) and now - last <= max(STAGNATION, now // 2)


def _correct(space, state):
    """Moves x so that r becomes orthogonal to W, in two sweeps; returns ||r||."""
    for _ in range(2):
        c = space.inverse @ (space.W.conj().T @ state.r)
        state.x += space.W @ c
        state.r -= space.AW @ c
    state.norms[-1] = float(np.linalg.norm(state.r))
    return state.norms[-1]


def _projection(space):
    """Returns (z, p) -> None, which takes W E^-1 (A W)^H z off p in place, or None."""
    if space is None or not space.W.shape[1]:
        return None
    # BLAS reads the rows of W and A W as the columns of their transposes.
    Wt, AWt, inverse = space.W.T, space.AW.T, space.inverse
    gemv = get_blas_funcs("gemv", (Wt,))

    def project(z, p):
        c = inverse @ gemv(1.0, AWt, z.conj()).conj()
        gemv(-1.0, Wt, c, beta=1.0, y=p, overwrite_y=True, trans=1)

    return project
