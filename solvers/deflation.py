"""One system by deflated CG or harvesting GCRO-DR, and the space it leaves behind."""

import dataclasses
import time
from typing import NamedTuple

import numpy as np

from solvers import matrices
from solvers.krylov.deflated_cg import CGResult, DeflationSpace, deflated_cg
from solvers.krylov.gcrodr import gcrodr
from solvers.krylov.ritz_harvest import RitzHarvest
from solvers.krylov_solver import Outcome, Task
from solvers.results import PhaseSeconds
from solvers.short_recurrences import arguments, outcome

GCRODR_CYCLE = 2  # dimension m of the harvesting GCRO-DR, in units of k


class Carried(NamedTuple):
    """A space and what is known about it for the matrix it was last used with.

    Attributes:
        W: [N, k] the space.
        space: W with its products with that matrix; None if they are unknown.
        MAW: [N, k] M A W for that matrix and the preconditioner then; None if unknown.
        memory: that matrix, for `solvers.matrices.same`.
        build: number of that preconditioner.
    """

    W: np.ndarray
    space: DeflationSpace | None = None
    MAW: np.ndarray | None = None
    memory: tuple | None = None
    build: int | None = None


def fits(carried: Carried, task: Task) -> bool:
    """Whether a space belongs to systems of this size and kind of numbers."""
    return len(carried.W) == task.b.size and carried.W.dtype == task.b.dtype


def solve_deflated(
    task: Task, carried: Carried | None, harvest: RitzHarvest | None = None
) -> tuple[Outcome, Carried | None]:
    """Solves one system by CG without the carried space, if any.

    Where that fails, plain CG follows, and the outcome says so.

    Returns:
        The outcome; and what to carry on: the same space, the harvested one if there is
        a harvest, or None if the space failed.
    """
    if carried is not None and not fits(carried, task):
        carried = None
    start = time.perf_counter()
    known = carried is not None and matrices.same(task.matrix, carried.memory)
    space = _space_for(task, carried, known)
    if harvest is not None and space is not None and space.definite:
        harvest.start(space.W, space.AW, _products_with_m(task, carried, space, known))
    carrying = time.perf_counter() - start
    result = deflated_cg(
        task.A, task.b, space=space, harvest=harvest, **arguments(task)
    )
    fallbacks, recycle_dim = (), space.W.shape[1] if space is not None else 0
    if result.failure and space is not None and result.iterations < task.maxiter:
        fallbacks = (f"deflated CG: {result.failure}",)
        result, space, harvest = _solve_plainly(task, result), None, None
        recycle_dim = 0
    found = outcome(task, result, recycle_dim=recycle_dim, fallbacks=fallbacks)
    found.phases = PhaseSeconds(
        carry_over=carrying, refresh=harvest.seconds if harvest is not None else 0.0
    )
    memory = carried.memory if known else matrices.remember(task.matrix)
    return found, _next_carried(space, harvest, memory, task.build)


def solve_by_gcrodr(
    task: Task, carried: Carried | None, k: int
) -> tuple[Outcome, Carried | None]:
    """Solves one system by GCRO-DR with its space in solution space.

    Returns:
        The outcome; and the space to carry on, or None if there is none yet.
    """
    result = gcrodr(
        task.A,
        task.r,
        M=task.M if task.preconditioned else None,
        m=GCRODR_CYCLE * k,
        k=k,
        rtol=0.0,
        atol=task.aim,
        maxiter=task.maxiter,
        space=None if carried is None else carried.W,
        mode="x",
        # Harmonic Ritz vectors make pools as good: 53 products per system, with these
        # 52 (12 sequences of inclusions, 64^2 and 24^3 cells, ssor and icc0).
        selection="singular",
    )
    scale = np.linalg.norm(task.r) / task.norm_b
    found = Outcome(
        task.x + result.x,
        iterations=result.iterations,
        cycles=result.cycles,
        relative_residual=result.residual_norm / task.norm_b,
        residual_norms=tuple(scale * norm for norm in result.residual_norms),
        failure="" if result.converged else "; ".join(result.flags),
        recycle_dim=result.recycle_dim,
    )
    found.phases = dataclasses.replace(result.phases, preconditioner=0.0)
    return found, None if result.space is None else Carried(result.space.Y)


def _space_for(task, carried, known):
    if carried is None:
        return None
    if known and carried.space is not None:
        return carried.space
    return DeflationSpace.build(task.A, carried.W)


def _products_with_m(task, carried, space, known):
    """M A W, from before if neither A nor M changed."""
    if not task.preconditioned:
        return space.AW
    if known and carried.MAW is not None and carried.build == task.build:
        return carried.MAW
    return task.M(space.AW)


def _solve_plainly(task: Task, failed: CGResult) -> CGResult:
    """Plain CG after a space that failed; steps and norms are those of both."""
    rest = {**arguments(task), "maxiter": task.maxiter - failed.iterations}
    result = deflated_cg(task.A, task.b, **rest)
    return result._replace(
        iterations=failed.iterations + result.iterations,
        cycles=failed.cycles + result.cycles,
        residual_norms=failed.residual_norms + result.residual_norms[1:],
    )


def _next_carried(space, harvest, memory, build):
    vectors = None if harvest is None else harvest.vectors()
    if vectors is not None:
        W, AW, MAW = vectors
        return Carried(W, DeflationSpace.from_products(W, AW), MAW, memory, build)
    return None if space is None else Carried(space.W, space, None, memory)
