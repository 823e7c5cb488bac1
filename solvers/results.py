"""What a solve reports, and the rule that decides whether it is accepted."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class PhaseSeconds:
    """Wall time of one solve by phase; what a method does not have stays 0.

    Attributes:
        setup: factorisations and other work on the matrix before iterating.
        carry_over: bringing what is kept from earlier systems to this matrix.
        arnoldi: products with A and orthogonalisation; all steps of short recurrences.
        refresh: forming the vectors to keep.
        dense: small dense problems, whose size does not grow with the grid.
        preconditioner: applications of M.
    """

    setup: float = 0.0
    carry_over: float = 0.0
    arnoldi: float = 0.0
    refresh: float = 0.0
    dense: float = 0.0
    preconditioner: float = 0.0


@dataclasses.dataclass(frozen=True)
class SolveRecord:
    """Report on one solved system.

    Attributes:
        method: name in the registry of `solvers.sequence`.
        converged: whether the recomputed residual meets the tolerance, and the
            estimated error its goal where one was set.
        status: a sentence; says what to try next unless converged.
        iterations: of the Krylov method; 0 for direct methods.
        matvecs: all products with A: steps, carry-over, recomputed residuals.
        preconditioner_applications: applications of M.
        seconds: wall time of the solve with its set-up, without the certificate.
        relative_residual: the solver's own ||r|| / ||b||; NaN if it has none.
        true_relative_residual: ||b - A x|| / ||b||, recomputed from x in float64.
        recycle_dim: vectors carried over from earlier systems.
        fallbacks: what was tried before, in order, each with its reason.
        cycles: restarts of the Krylov method, the first included.
        phases: where the time went.
        residual_norms: ||r|| / ||b|| after every step as the method sees it, the start
            included; empty for methods that do not tell.
        algebraic_error: estimate of ||x - A^-1 b||_A / ||x||_A, the relative error in
            the energy norm that the iteration leaves; NaN where it was not asked for.
    """

    method: str
    converged: bool
    status: str
    iterations: int
    matvecs: int
    preconditioner_applications: int
    seconds: float
    relative_residual: float
    true_relative_residual: float
    recycle_dim: int = 0
    fallbacks: tuple[str, ...] = ()
    cycles: int = 0
    phases: PhaseSeconds = PhaseSeconds()
    residual_norms: tuple[float, ...] = ()
    algebraic_error: float = float("nan")


def certify(
    system,
    x: np.ndarray,
    *,
    rtol: float,
    advice: str,
    failure: str = "",
    **statistics,
) -> SolveRecord:
    """Recomputes the residual of x in float64 and decides acceptance on it alone.

    Args:
        system: the `LinearSystem` that x should solve.
        x: [*grid] the candidate.
        rtol: largest accepted ||b - A x|| / ||b||.
        advice: what to try next if x is refused.
        failure: what the solver found wrong, if anything; used only in the sentence.
        **statistics: the remaining fields of `SolveRecord`.
    """
    true_residual = system.relative_residual(x)
    converged = bool(true_residual <= rtol)  # False for NaN
    status = "converged"
    if not converged:
        reason = failure or f"relative residual {true_residual:.2e} above {rtol:.2e}"
        status = f"not converged: {reason}; {advice}"
    return SolveRecord(
        converged=converged,
        status=status,
        true_relative_residual=true_residual,
        **statistics,
    )
