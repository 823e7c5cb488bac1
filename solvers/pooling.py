"""Deflated conjugate gradients for sequences: recycled spaces and frozen pools."""

import dataclasses
import time
from typing import NamedTuple

import numpy as np

from solvers import matrices
from solvers.krylov.deflated_cg import CGResult, DeflationSpace, deflated_cg
from solvers.krylov.gcrodr import gcrodr
from solvers.krylov.ritz_harvest import RitzHarvest
from solvers.krylov_solver import KrylovSolver, Outcome, Task
from solvers.results import PhaseSeconds
from solvers.short_recurrences import arguments, outcome

PAYS_BELOW = 0.5  # of the plain count: products with A that a pooled solve may take
PATIENCE = 2  # solves above that in a row before the pool is dropped
FIRST_BREAK = 16  # systems solved plainly after a pool that never paid; doubles
GCRODR_CYCLE = 2  # dimension m of the harvesting GCRO-DR, in units of k


class Carried(NamedTuple):
    """A space and what is known about it for the matrix it was last used with.

    Attributes:
        W: [N, k] the space.
        space: W with its products with that matrix; None if they are unknown.
        MAW: [N, k] M A W for that matrix and the preconditioner then; None if unknown.
        memory: that matrix, for `solvers.matrices.same`.
    """

    W: np.ndarray
    space: DeflationSpace | None = None
    MAW: np.ndarray | None = None
    memory: tuple | None = None


class RecycledCG(KrylovSolver):
    """Deflated CG that improves its space with every system it solves.

    After each solve the k Ritz vectors of smallest Ritz value on span[W, directions]
    become the next W. Taking W to another matrix costs k products with A, and the Ritz
    problem k applications of M; both are saved while A stays the same.

    Args:
        k: dimension of the space.
        window: directions per Ritz problem; None: 2 k.
        max_windows: Ritz problems per solve; None: as many as it has directions for.
        preconditioner: see `KrylovSolver`; must be positive definite.
        frozen: see `KrylovSolver`.

    Raises:
        ValueError: for k or window below 1.
    """

    method, needs = "recycled_cg", "spd"

    def __init__(
        self,
        *,
        k: int = 20,
        window: int | None = None,
        max_windows: int | None = None,
        preconditioner: str = "none",
        frozen: bool = False,
    ):
        super().__init__(preconditioner=preconditioner, frozen=frozen)
        self.k, self.max_windows = k, max_windows
        self.window = 2 * k if window is None else window
        self._harvest()  # refuses impossible settings
        self._carried: Carried | None = None

    def reset(self) -> None:
        """Drops the space and the preconditioner."""
        super().reset()
        self._carried = None

    def snapshot(self) -> Carried | None:
        """The space; later solves make new arrays."""
        return self._carried

    def restore(self, snapshot: Carried | None) -> None:
        """Carries that space again."""
        self._carried = snapshot

    def _harvest(self):
        return RitzHarvest(self.k, window=self.window, max_windows=self.max_windows)

    def _iterate(self, task: Task) -> Outcome:
        found, self._carried = solve_deflated(task, self._carried, self._harvest())
        return found


@dataclasses.dataclass(frozen=True)
class Pool:
    """What a `PooledCG` carries; a new one after every system.

    Attributes:
        mode: "harvest", "frozen" or "plain".
        carried: the space, if there is one.
        harvested: systems harvested so far.
        plain: products with A of a solve without a space, for comparison.
        paid: solves with the frozen space that paid.
        misses: solves with it that did not pay, since the last that did.
        rest: systems still to be solved plainly.
        pause: length of the next break.
    """

    mode: str = "harvest"
    carried: Carried | None = None
    harvested: int = 0
    plain: int | None = None
    paid: int = 0
    misses: int = 0
    rest: int = 0
    pause: int = FIRST_BREAK


class PooledCG(KrylovSolver):
    """Deflated CG with one space, harvested from the first systems and then kept.

    The space stays what it is; only its product with each new matrix is computed, k
    products with A. That pays where the eigenvectors that hold CG back stay put while
    the systems change: inclusions of fixed layout, one medium along time.

    A solve pays if it takes less than half the products with A of a plain one, carrying
    over included. After two in a row that do not, the space is dropped: a pool that
    used to pay is harvested anew at once, one that never did after a break of 16, 32,
    64, ... systems that are solved by plain CG. Counts decide, so that runs repeat
    exactly.

    Args:
        k: dimension of the space.
        num_harvest: systems to harvest from.
        harvest: "cg" takes Ritz vectors from the directions of CG itself, which also
            gives the plain count; "gcrodr" solves the harvest systems by GCRO-DR(2 k,
            k) after a plain CG solve of the first.
        preconditioner: see `KrylovSolver`; must be positive definite.
        frozen: see `KrylovSolver`.

    Raises:
        ValueError: for settings out of range.
    """

    method, needs = "deflated_cg", "spd"

    def __init__(
        self,
        *,
        k: int = 20,
        num_harvest: int = 3,
        harvest: str = "cg",
        preconditioner: str = "none",
        frozen: bool = False,
    ):
        super().__init__(preconditioner=preconditioner, frozen=frozen)
        if harvest not in ("cg", "gcrodr"):
            raise ValueError(f"harvest is {harvest!r}; known: 'cg', 'gcrodr'")
        if k < 1 or num_harvest < 1:
            raise ValueError(
                f"k is {k} and num_harvest is {num_harvest}; both must be positive"
            )
        self.k, self.num_harvest, self.harvest = k, num_harvest, harvest
        self.pool = Pool()

    def reset(self) -> None:
        """Drops the pool and the preconditioner; the next system is harvested."""
        super().reset()
        self.pool = Pool()

    def snapshot(self) -> Pool:
        """The pool with its statistics."""
        return self.pool

    def restore(self, snapshot: Pool) -> None:
        """Goes on from that pool."""
        self.pool = snapshot

    def _iterate(self, task: Task) -> Outcome:
        before = task.A.count
        if self.pool.carried is not None and not fits(self.pool.carried, task):
            self.pool = Pool()
        mode = self.pool.mode
        if mode == "plain":
            found, _ = solve_deflated(task, None)
            self._rest()
        elif mode == "frozen":
            found, carried = solve_deflated(task, self.pool.carried)
            self._judge(carried, task.A.count - before, found)
        else:
            found = self._collect(task)
        return found

    def _collect(self, task):
        """Solves one of the systems that the space is made from."""
        pool = self.pool
        if self.harvest == "cg":
            harvest = RitzHarvest(self.k, window=2 * self.k, max_windows=None)
            found, carried = solve_deflated(task, pool.carried, harvest)
            plain = found.iterations if pool.plain is None else pool.plain
        elif pool.plain is None:
            found, carried = solve_deflated(task, None)
            self.pool = dataclasses.replace(pool, plain=found.iterations)
            return found
        else:
            found, carried = solve_by_gcrodr(task, pool.carried, self.k)
            plain = pool.plain
        harvested = pool.harvested + 1
        done = harvested >= self.num_harvest and carried is not None
        self.pool = dataclasses.replace(
            pool,
            mode="frozen" if done else "harvest",
            carried=carried,
            harvested=harvested,
            plain=plain,
        )
        return found

    def _judge(self, carried, spent, found):
        """Keeps or drops the frozen space after a solve with it."""
        pool = self.pool
        if carried is None:  # it failed, and plain CG had to step in
            misses = PATIENCE
        elif spent <= PAYS_BELOW * pool.plain:
            misses = 0
        else:
            misses = pool.misses + 1
        paid = pool.paid + (misses == 0)
        if misses < PATIENCE:
            self.pool = dataclasses.replace(
                pool, carried=carried, misses=misses, paid=paid
            )
            return
        if paid:
            self.pool, then = Pool(), "a new one is harvested"
        else:
            self.pool = Pool(mode="plain", rest=pool.pause, pause=2 * pool.pause)
            then = f"plain CG for {pool.pause} systems"
        found.fallbacks += (
            f"pool dropped: {spent} products with A, {pool.plain} without it; {then}",
        )

    def _rest(self):
        rest = self.pool.rest - 1
        mode = "plain" if rest else "harvest"
        self.pool = dataclasses.replace(self.pool, mode=mode, rest=rest)


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
    return found, _next_carried(space, harvest, memory)


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
        selection="singular",  # the symmetric choice: it keeps all k on outliers
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
    if known and carried.MAW is not None and not task.new_preconditioner:
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


def _next_carried(space, harvest, memory):
    vectors = None if harvest is None else harvest.vectors()
    if vectors is not None:
        W, AW, MAW = vectors
        return Carried(W, DeflationSpace.from_products(W, AW), MAW, memory)
    return None if space is None else Carried(space.W, space, None, memory)
