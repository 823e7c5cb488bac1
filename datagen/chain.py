"""The linear systems of a shard: samples solved one after the other, with what is kept.

Methods may carry something from sample to sample (recycled vectors, guesses); along a
tree each sample goes on from its parent.
"""

import functools
from collections.abc import Callable, Iterator

import numpy as np

from datagen.discretisation import Twin
from datagen.ladder import Ladder, Solved
from datagen.plan import Plan, Shard, sample_rng


class Chain:
    """Solves the samples of a shard in order.

    Args:
        plan: the plan.
        shard: the shard.
        problem: `plan.problem()`.
    """

    def __init__(self, plan: Plan, shard: Shard, problem):
        self._ids = plan.sample_ids(shard).tolist()
        self._rng = functools.partial(sample_rng, plan.config["seed"])
        self._ladder = Ladder(problem, plan.solver)
        self._states = States(plan, shard, self._ladder)
        error_every = plan.config["solver"]["error_every"]
        self._twin = Twin(problem, plan.solver, error_every)

    @property
    def solve_seconds(self) -> float:
        """CPU time inside the solvers so far, their certificates included."""
        return self._ladder.solve_seconds

    def solve_all(self, poll: Callable[[], None]) -> Iterator[Solved]:
        """Solves all samples; `poll` is called before each and may raise to stop."""
        for row, sample_id in enumerate(self._ids):
            poll()
            self._states.before(row)
            solved = self._ladder.solve(self._rng(sample_id))
            self._states.after(row)
            yield self._twin.estimated(solved, sample_id, self._rng)

    def solve_some(self, row: int) -> list[Solved]:
        """Solves one sample, to see how long that takes."""
        sample_id = self._ids[min(row, len(self._ids) - 1)]
        return [self._ladder.solve(self._rng(sample_id))]

    def close(self) -> None:
        """Frees the solvers."""
        self._ladder.close()
        self._twin.close()


class States:
    """Along a tree: what the ladder carried after each sample, while it is needed.

    Args:
        plan: the plan; without parents nothing is done.
        shard: the shard that is solved.
        ladder: its ladder.
    """

    def __init__(self, plan: Plan, shard: Shard, ladder: Ladder):
        self._ladder, self._snapshots = ladder, {}
        self._parents, self._last_use = None, {}
        if plan.parents is not None:
            parents = plan.parents[shard.start : shard.stop]
            self._parents = np.where(parents < 0, -1, parents - shard.start).tolist()
            self._last_use = {p: row for row, p in enumerate(self._parents)}

    def before(self, row: int) -> None:
        """Goes back to the state after the parent of a row."""
        if self._parents is None or row == 0 or self._parents[row] == row - 1:
            return
        parent = self._parents[row]
        self._ladder.restore(self._snapshots.get(parent))
        if self._last_use.get(parent) == row:
            self._snapshots.pop(parent, None)

    def after(self, row: int) -> None:
        """Keeps the state if a row after the next one goes on from here."""
        if self._last_use.get(row, 0) > row + 1:
            self._snapshots[row] = self._ladder.snapshot()
