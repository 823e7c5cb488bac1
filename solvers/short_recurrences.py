"""Conjugate gradients and MINRES for sequences: nothing but the matrix is looked at."""

from solvers.krylov.deflated_cg import deflated_cg
from solvers.krylov.minres import minres
from solvers.krylov_solver import KrylovSolver, Outcome, Task


class CG(KrylovSolver):
    """Conjugate gradients, preconditioned, for positive definite matrices.

    Hermitian ones if complex. An indefinite matrix is noticed and reported.
    """

    method, needs = "cg", "spd"

    def _iterate(self, task: Task) -> Outcome:
        return outcome(task, deflated_cg(task.A, task.b, **arguments(task)))


class MINRES(KrylovSolver):
    """Minimal residuals for Hermitian matrices, indefinite ones too.

    The preconditioner must be positive definite.
    """

    method, needs = "minres", "symmetric"

    def _iterate(self, task: Task) -> Outcome:
        return outcome(task, minres(task.A, task.b, **arguments(task)))


def arguments(task: Task) -> dict:
    """Keywords that `deflated_cg` and `minres` share."""
    return {
        "x0": task.x,
        "r0": task.r,
        "M": task.M if task.preconditioned else None,
        "target": task.aim,
        "maxiter": task.maxiter,
    }


def outcome(task: Task, result, **more) -> Outcome:
    """Turns the result of a short recurrence into what the base class expects."""
    norms = tuple(norm / task.norm_b for norm in result.residual_norms)
    return Outcome(
        result.x,
        iterations=result.iterations,
        cycles=result.cycles,
        relative_residual=norms[-1],
        residual_norms=norms,
        failure=result.failure,
        **more,
    )
