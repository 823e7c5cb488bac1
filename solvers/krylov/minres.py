"""MINRES that stops on the true residual norm, real and complex."""

import numpy as np
from scipy.linalg import get_blas_funcs

from solvers.krylov.deflated_cg import (
    BROKEN,
    INDEFINITE_M,
    MAX_CORRECTIONS,
    Apply,
    CGResult,
)


def minres(
    A: Apply,
    b: np.ndarray,
    x0: np.ndarray | None = None,
    *,
    r0: np.ndarray | None = None,
    M: Apply | None = None,
    target: float,
    maxiter: int,
) -> CGResult:
    """Solves A x = b for a Hermitian A, definite or not, and a positive definite M.

    Minimises ||r||_M. SciPy's `minres` stops on estimates of a backward error and takes
    real matrices only; here r itself follows from a recurrence (one vector update per
    step), so that the test is ||b - A x||_2 <= target as in the other methods. Then
    b - A x is computed anew, and the iteration starts again while it is above.

    Args:
        A: v -> A v, a new array each time.
        b: [N] right-hand side, float64 or complex128.
        x0: [N] initial guess; None means zero.
        r0: [N] b - A x0 if it is known; otherwise it costs a product.
        M: v -> M v, positive definite; None: identity.
        target: largest accepted ||b - A x||_2, absolute.
        maxiter: most steps.

    References:
        Greenbaum (1997), Iterative Methods for Solving Linear Systems, Algorithm 4 and
        Section 8.1; the update of r: Paige and Saunders (1975), SIAM J. Numer. Anal.
        12(4), Section 6.
    """
    x = np.zeros_like(b) if x0 is None else np.array(x0, dtype=b.dtype)
    if r0 is None:
        r0 = b - A(x) if x.any() else b
    r, failure, cycles, iterations = np.array(r0, dtype=b.dtype), "", 0, 0
    norm = float(np.linalg.norm(r))
    norms = [norm]
    while not norm <= target and not failure:
        before, cycles = norm, cycles + 1
        failure = _iterate(A, M, x, r, norms, target, maxiter - iterations)
        iterations = len(norms) - 1
        r = b - A(x)
        norm = norms[-1] = float(np.linalg.norm(r))
        if norm <= target or failure:
            break
        if iterations >= maxiter:
            failure = f"{maxiter} steps were not enough"
        elif cycles > MAX_CORRECTIONS or not norm < 0.5 * before:
            failure = "the recomputed residual does not follow the recursive one"
    return CGResult(x, r, iterations, cycles, norms, failure)


def _iterate(A, M, x, r, norms, target, maxiter):
    """Updates x and r in place until ||r|| meets the target; returns what went wrong.

    Lanczos vectors v_j with z_j = M v_j and v_i^H z_j = delta_ij; T = Q R by Givens
    rotations. r_j = s_j^2 r_{j-1} - phi_j c_j v_{j+1}, where phi_j = ||r_j||_M with its
    sign.
    """
    (axpy,) = get_blas_funcs(("axpy",), (x,))
    z = M(r) if M is not None else r.copy()
    beta_squared = np.vdot(r, z).real
    if not beta_squared > 0:
        return INDEFINITE_M if beta_squared < 0 else BROKEN
    beta = np.sqrt(beta_squared)
    v, z = r / beta, z / beta
    v_old, d, d_old = np.zeros_like(r), np.zeros_like(r), np.zeros_like(r)
    phi, beta = beta, 0.0
    c, s, c_old, s_old = 1.0, 0.0, 1.0, 0.0
    scale = 0.0  # of T, to tell a zero from rounding
    for _ in range(maxiter):
        w = A(z)
        axpy(v_old, w, a=-beta)
        alpha = np.vdot(z, w).real
        axpy(v, w, a=-alpha)
        u = M(w) if M is not None else w.copy()
        beta_squared = np.vdot(w, u).real
        if np.isnan(beta_squared) or np.isnan(alpha):
            return BROKEN
        if beta_squared < 0:
            return INDEFINITE_M
        beta_new = np.sqrt(beta_squared)
        scale = max(scale, abs(alpha) + beta_new + beta)
        # Column of R from the two rotations before; then a new one for beta_new.
        epsilon, delta = s_old * beta, c_old * beta
        gamma_bar, delta = -s * delta + c * alpha, c * delta + s * alpha
        gamma = np.hypot(gamma_bar, beta_new)
        if gamma <= 1e-15 * scale:
            return "A is singular on the space reached, and b is not in its range"
        c_old, s_old, c, s = c, s, gamma_bar / gamma, beta_new / gamma
        d, d_old = (z - delta * d - epsilon * d_old) / gamma, d
        axpy(d, x, a=c * phi)
        phi *= -s
        if beta_new > 1e-15 * scale:
            v_old, v, z = v, w / beta_new, u / beta_new
            r *= s * s
            axpy(v, r, a=phi * c)
        else:  # lucky breakdown: the space is invariant
            r[:] = 0
        beta = beta_new
        norms.append(float(np.linalg.norm(r)))
        if norms[-1] <= target:
            break
    return ""
