"""Deflated conjugate gradients for sequences: recycled spaces and frozen pools."""

import dataclasses
from typing import NamedTuple

import numpy as np

from solvers.deflation import Carried, fits, solve_by_gcrodr, solve_deflated
from solvers.krylov.ritz_harvest import RitzHarvest
from solvers.krylov_solver import KrylovSolver, Outcome, Snapshot, Task

PAYS_BELOW = 0.5  # of the plain count: products with A that a pooled solve may take
PATIENCE = 2  # solves above that in a row before the pool is dropped
FIRST_BREAK = 16  # systems solved plainly after a pool that never paid; doubles
PROBE_EVERY = 50  # systems between two plain solves to compare with
FIRST_GAP = 2  # systems before an earlier one, if starts are of another quality
COMPARABLE = 2.0  # largest ratio between the decades of two comparable solves


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

    def snapshot(self) -> Snapshot:
        """The preconditioner and the space; later solves make new arrays."""
        return super().snapshot()._replace(carried=self._carried)

    def restore(self, snapshot: Snapshot) -> None:
        """Carries that space again."""
        super().restore(snapshot)
        self._carried = snapshot.carried

    def _harvest(self):
        return RitzHarvest(self.k, window=self.window, max_windows=self.max_windows)

    def _iterate(self, task: Task) -> Outcome:
        found, self._carried = solve_deflated(task, self._carried, self._harvest())
        return found


class Plain(NamedTuple):
    """What plain CG took for one system.

    Attributes:
        products: with A; infinite if it did not converge.
        decades: by which the residual had to fall, log10(||r0|| / target) > 0.
    """

    products: float
    decades: float

    def expected(self, decades: float) -> float:
        """Products with A of plain CG from a start with `decades` to go."""
        return self.products * decades / self.decades

    def like(self, decades: float) -> bool:
        """Whether a start with `decades` to go was about as good."""
        ratio = decades / self.decades
        return 1 / COMPARABLE <= ratio <= COMPARABLE


@dataclasses.dataclass(frozen=True)
class Pool:
    """What a `PooledCG` carries; a new one after every system.

    Attributes:
        mode: "harvest", "frozen" or "plain".
        carried: the space, if there is one.
        harvested: systems harvested so far.
        plain: the last solve without a space, for comparison; None if unknown.
        since_plain: systems after that one.
        gap: systems after it before a start of another quality calls for a new one.
        paid: solves with the frozen space that paid.
        misses: solves with it that did not pay, since the last that did.
        rest: systems still to be solved plainly.
        pause: length of the next break.
    """

    mode: str = "harvest"
    carried: Carried | None = None
    harvested: int = 0
    plain: Plain | None = None
    since_plain: int = 0
    gap: int = FIRST_GAP
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

    What a plain solve would take is known from the first system, per decade of residual
    reduction. It is measured anew, by plain CG, every 50 systems, and at growing
    distances where starts became better or worse by a factor of 2 in decades, as with a
    guess. Systems that start from their solution change nothing.

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
        for name, value in (("k", k), ("num_harvest", num_harvest)):
            if value < 1:
                raise ValueError(f"{name} is {value}; expected at least 1")
        self.k, self.num_harvest, self.harvest = k, num_harvest, harvest
        self.pool = Pool()

    def reset(self) -> None:
        """Drops the pool and the preconditioner; the next system is harvested."""
        super().reset()
        self.pool = Pool()

    def snapshot(self) -> Snapshot:
        """The preconditioner, and the pool with its statistics."""
        return super().snapshot()._replace(carried=self.pool)

    def restore(self, snapshot: Snapshot) -> None:
        """Goes on from that pool."""
        super().restore(snapshot)
        self.pool = snapshot.carried

    def _iterate(self, task: Task) -> Outcome:
        if self.pool.carried is not None and not fits(self.pool.carried, task):
            self.pool = Pool()
        left = _decades(task)
        if self.pool.mode == "plain" or not left > 0:
            found, _ = solve_deflated(task, None)
            if left > 0:
                self._rest()
            return found
        self.pool = dataclasses.replace(
            self.pool, since_plain=self.pool.since_plain + 1
        )
        if self.pool.mode == "frozen":
            return self._probe(task) if self._outdated(left) else self._use(task)
        return self._collect(task)

    def _outdated(self, left):
        """Whether the plain solve says too little about one with `left` decades."""
        pool = self.pool
        if pool.since_plain > PROBE_EVERY:
            return True
        return pool.since_plain > pool.gap and not pool.plain.like(left)

    def _probe(self, task):
        """Solves a system plainly; the pool stays as it is."""
        pool = self.pool
        gap = pool.gap if pool.plain.like(_decades(task)) else 2 * pool.gap
        found, _ = solve_deflated(task, None)
        self.pool = dataclasses.replace(
            pool, plain=_plain(task, found), since_plain=0, gap=gap
        )
        found.fallbacks += ("solved plainly to compare",)
        return found

    def _collect(self, task):
        """Solves one of the systems that the space is made from."""
        first = self.pool.plain is None
        if self.harvest == "cg":
            harvest = RitzHarvest(self.k, window=2 * self.k, max_windows=None)
            found, carried = solve_deflated(task, self.pool.carried, harvest)
        elif first:
            found, carried = solve_deflated(task, None)
        else:
            found, carried = solve_by_gcrodr(task, self.pool.carried, self.k)
        if first:
            self.pool = dataclasses.replace(
                self.pool, plain=_plain(task, found), since_plain=0
            )
            if self.harvest == "gcrodr":
                return found
        harvested = self.pool.harvested + 1
        done = harvested >= self.num_harvest and carried is not None
        self.pool = dataclasses.replace(
            self.pool,
            mode="frozen" if done else "harvest",
            carried=carried,
            harvested=harvested,
        )
        return found

    def _use(self, task):
        """Solves with the frozen space, and keeps or drops it after that."""
        before, pool = task.A.count, self.pool
        found, carried = solve_deflated(task, pool.carried)
        spent = task.A.count - before
        expected = pool.plain.expected(_decades(task))
        if carried is None:  # it failed, and plain CG had to step in
            misses = PATIENCE
        elif not found.failure and spent <= PAYS_BELOW * expected:
            misses = 0
        else:
            misses = pool.misses + 1
        paid = pool.paid + (misses == 0)
        if misses < PATIENCE:
            self.pool = dataclasses.replace(
                pool, carried=carried, misses=misses, paid=paid
            )
            return found
        if paid:
            self.pool, then = Pool(), "a new one is harvested"
        else:
            self.pool = Pool(mode="plain", rest=pool.pause, pause=2 * pool.pause)
            then = f"plain CG for {pool.pause} systems"
        found.fallbacks += (
            f"pool dropped: {spent} products with A, {expected:.0f} expected without "
            f"it; {then}",
        )
        return found

    def _rest(self):
        rest = self.pool.rest - 1
        mode = "plain" if rest else "harvest"
        self.pool = dataclasses.replace(self.pool, mode=mode, rest=rest)


def _decades(task):
    """Powers of ten by which the residual is above the target; negative if below."""
    return float(np.log10(np.linalg.norm(task.r) / task.aim)) if task.r.any() else -1.0


def _plain(task, found):
    """What a solve without a space says about others."""
    products = found.iterations if not found.failure else np.inf
    return Plain(products, _decades(task))
