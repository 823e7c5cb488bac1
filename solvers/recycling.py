"""GCRO-DR for sequences of systems, and when to carry its space on."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from solvers import matrices
from solvers.krylov.gcrodr import check_settings, gcrodr
from solvers.krylov.recycle import RecycleSpace
from solvers.krylov_solver import ACCEPT, KrylovSolver, Outcome, Task

PROBE_EVERY = 50  # systems between two trials of the way that was not chosen
WORTH = 1.2  # times the median cold count: a recycled solve above it drops the space
BYPASS = 2  # times k: cold solves with fewer steps are not worth a carry-over
MIN_SAMPLES = 3
MEMORY = 15  # cold counts remembered for the median
WEIGHT = 0.2  # of the newest cost in the running averages
UNKNOWN_ROW = 10  # entries per row of a matrix that is only known by its action


class Experience(NamedTuple):
    """Running averages of what solves cost, in flops or seconds.

    Attributes:
        cold: of solves without a space; None if unknown.
        recycled: of solves with one; None if unknown.
        samples: solves behind `recycled`.
        cold_steps: Arnoldi steps of the latest cold solves.
        since_probe: systems since the way that is not the usual one was tried.
    """

    cold: float | None = None
    recycled: float | None = None
    samples: int = 0
    cold_steps: tuple[int, ...] = ()
    since_probe: int = 0

    def after(self, cost: float, steps: int, recycled: bool) -> "Experience":
        """With one more solve."""
        name = "recycled" if recycled else "cold"
        old = getattr(self, name)
        new = cost if old is None else (1 - WEIGHT) * old + WEIGHT * cost
        changes = {name: new, "since_probe": self.since_probe + 1}
        if recycled:
            changes["samples"] = self.samples + 1
        else:
            changes["cold_steps"] = (*self.cold_steps, steps)[-MEMORY:]
        return self._replace(**changes)


class Carried(NamedTuple):
    """What one system leaves to the next; never changed in place.

    Attributes:
        space: the recycled vectors, or None.
        grid: shape of the right-hand side that they belong to.
        memory: their matrix, for `solvers.matrices.same`.
        experience: statistics of the sequence.
        preconditioner: M as its own `snapshot` keeps it; in snapshots only.
    """

    space: RecycleSpace | None = None
    grid: tuple[int, ...] | None = None
    memory: tuple | None = None
    experience: Experience = Experience()
    preconditioner: Any = None


class RecyclingGMRES(KrylovSolver):
    """GCRO-DR(m, k), with or without carrying its space from system to system.

    A space is dropped when the grid or the arithmetic changes, after a solve that
    failed or took over 1.2 times the median number of steps of cold solves. Recycling
    is bypassed while cold solves take fewer than 2 k steps, or cost less than recycled
    ones; one system in 50 tries the other way. Cost is a count of flops, so that runs
    repeat exactly, unless it is to be measured. Where A and M stay the same, nothing is
    recomputed.

    Args:
        carry: whether to carry the space on.
        m: largest dimension of the search space of a cycle; at most the number of
            unknowns is used.
        k: dimension of the recycled space, 0 <= k < m.
        preconditioner: see `KrylovSolver`.
        frozen: see `KrylovSolver`.
        selection: see `gcrodr`.
        mode: see `gcrodr`.
        refresh: see `gcrodr`.
        costs: "counted" or "measured".
        adaptive: False always recycles and never probes.

    Raises:
        ValueError: for settings out of range.
    """

    def __init__(
        self,
        *,
        carry: bool = True,
        m: int = 40,
        k: int = 20,
        preconditioner: str = "none",
        frozen: bool = False,
        selection: str = "harmonic",
        mode: str = "t",
        refresh: str = "always",
        costs: str = "counted",
        adaptive: bool = True,
    ):
        super().__init__(preconditioner=preconditioner, frozen=frozen)
        check_settings(m, k, mode, selection, refresh)
        if costs not in ("counted", "measured"):
            raise ValueError(f"costs is {costs!r}; known: counted, measured")
        self.carry, self.m, self.k = carry and k > 0, m, k
        self.method = "skr" if carry else "gcrodr_cold"
        self.options = {"selection": selection, "mode": mode, "refresh": refresh}
        self.costs, self.adaptive = costs, adaptive
        self._carried, self._grid = Carried(), None

    def solve(self, system, *, rtol, maxiter=None, x0=None):
        """Solves one system; see `solvers.sequence.SequenceSolver`."""
        self._grid = np.shape(system.rhs)
        return super().solve(system, rtol=rtol, maxiter=maxiter, x0=x0)

    def reset(self) -> None:
        """Drops space, statistics and preconditioner."""
        super().reset()
        self._carried = Carried()

    def snapshot(self) -> Carried:
        """What is carried, without the part that belongs to the last matrix."""
        M = self.preconditioner.snapshot()
        carried = self._carried._replace(preconditioner=M)
        if carried.space is None:
            return carried
        return carried._replace(space=carried.space.compact(), memory=None)

    def restore(self, snapshot: Carried) -> None:
        """Carries on from there."""
        self.preconditioner.restore(snapshot.preconditioner)
        self._carried = snapshot._replace(preconditioner=None)

    def _iterate(self, task: Task) -> Outcome:
        if self._carried.space is not None and not self._fits(task):
            self._carried = Carried()
        space, notes = self._choose(task)
        m = min(self.m, task.b.size)
        result = gcrodr(
            task.A,
            task.r,
            M=task.M if task.preconditioned else None,
            m=m,
            k=min(self.k, m - 1),
            rtol=0.0,
            atol=ACCEPT * task.rtol * task.norm_b,
            maxiter=task.maxiter,
            space=space,
            same_operator=True,  # `_choose` takes C off where that does not hold
            keep=self.carry and (space is not None or self._carried.space is None),
            **self.options,
        )
        if self.carry:
            notes += self._learn(task, result, space is not None)
        return Outcome(
            task.x + result.x,
            iterations=result.iterations,
            cycles=result.cycles,
            relative_residual=result.residual_norm / task.norm_b,
            residual_norms=tuple((result.residual_norms / task.norm_b).tolist()),
            failure="" if result.converged else "; ".join(result.flags),
            recycle_dim=result.recycle_dim,
            fallbacks=(*result.flags, *notes),
            phases=dataclasses.replace(result.phases, arnoldi=0.0, preconditioner=0.0),
        )

    def _fits(self, task):
        """Whether the space belongs to systems of this grid and arithmetic."""
        space = self._carried.space
        return self._carried.grid == self._grid and space.Y.dtype == task.b.dtype

    def _choose(self, task):
        """The space to start from, or None for a cold solve, and why."""
        space, _, memory, experience, _ = self._carried
        if not self.carry or space is None:
            return None, ()
        if task.new_preconditioner or not matrices.same(task.matrix, memory):
            space = space.for_another_matrix()
        elif space.C is not None:
            return space, ()  # the same matrix: nothing to carry over
        if not self.adaptive:
            return space, ()
        probe = experience.since_probe >= PROBE_EVERY
        reason = self._reason_to_bypass(experience)
        if probe:
            self._carried = self._carried._replace(
                experience=experience._replace(since_probe=0)
            )
        if bool(reason) == probe:
            return space, ()
        if probe:
            return None, ("solved cold to compare",)
        return None, (f"recycling bypassed: {reason}",)

    def _reason_to_bypass(self, experience):
        if not experience.cold_steps:
            return ""
        steps = float(np.median(experience.cold_steps))
        if steps < BYPASS * self.k:
            return f"cold solves take {steps:.0f} steps, fewer than {BYPASS} k"
        known = experience.samples >= MIN_SAMPLES
        if known and experience.recycled > experience.cold:
            ratio = experience.recycled / experience.cold
            return f"recycled solves cost {ratio:.2f} of a cold one"
        return ""

    def _learn(self, task, result, recycled):
        """Updates what is carried; returns why the space was dropped, if it was."""
        cost = self._cost(task, result)
        old = self._carried
        experience = old.experience.after(cost, result.iterations, recycled)
        space, notes = result.space, ()
        if not result.converged:
            space, notes = None, ("space dropped: the solve failed",)
        elif recycled and self.adaptive and experience.cold_steps:
            median = float(np.median(experience.cold_steps))
            if result.iterations > WORTH * median:
                space = None
                notes = (
                    f"space dropped: {result.iterations} steps, {median:.0f} cold",
                )
        elif old.space is not None:  # a cold trial: the old space knows more systems
            space = old.space
        memory = matrices.remember(task.matrix) if space is result.space else None
        self._carried = Carried(space, self._grid, memory, experience)
        return notes

    def _cost(self, task, result):
        """Flops of a solve (spec of GCRO-DR's parts), or its seconds."""
        if self.costs == "measured":
            phases = result.phases
            return sum(dataclasses.asdict(phases).values())
        n, m, k = task.b.size, self.m, self.k
        sparse = sp.issparse(task.matrix)
        product = 2 * (task.matrix.nnz if sparse else UNKNOWN_ROW * n)
        carry_over = 3 * n * k**2 * (result.recycle_dim > 0)
        per_step, per_cycle = 4 * n * (m + k), 2 * n * (m + k) + 6 * n * m * k
        return (
            product * (result.matvecs + 2 * result.preconditioner_applications)
            + carry_over
            + per_step * result.iterations
            + per_cycle * result.cycles
        )
