"""The trajectories of a shard: batches of its samples integrated together."""

from collections.abc import Callable, Iterator

from datagen.evolution import STREAM, Evolver
from datagen.ladder import Solved
from datagen.plan import Plan, Shard, sample_rng


class Batches:
    """Integrates the samples of a shard in order.

    Args:
        plan: the plan.
        shard: the shard.
        problem: `plan.problem()`.
    """

    def __init__(self, plan: Plan, shard: Shard, problem):
        seed, ids = plan.config["seed"], plan.sample_ids(shard).tolist()
        self._draw = [lambda i=i: sample_rng(seed, i, STREAM) for i in ids]
        self._evolver = Evolver(problem, plan.solver)

    @property
    def solve_seconds(self) -> float:
        """CPU time inside the integration so far."""
        return self._evolver.solve_seconds

    def solve_all(self, poll: Callable[[], None]) -> Iterator[Solved]:
        """Integrates all samples; `poll` is called before each batch, may raise."""
        return self._evolver.solve_all((draw() for draw in self._draw), poll)

    def solve_some(self, place: int) -> list[Solved]:
        """Integrates the first batch, whatever the place, to see how long it takes."""
        del place
        first = [draw() for draw in self._draw[: self._evolver.batch_size]]
        return list(self._evolver.solve_all(first, lambda: None))

    def close(self) -> None:
        """Nothing is held."""
