"""The order in which the samples of a data set are solved.

Every split is sorted by itself and cut into shards; a shard starts with nothing carried
over, so that shards can be solved in any order and by any number of processes.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from datagen import sorting

Watch = Callable[[Iterable[int]], Iterable[int]]
SILENT: Watch = iter


class SortedSamples(NamedTuple):
    """What the planner stores.

    Attributes:
        order: [N] int64, sample id at every place.
        parents: see `datagen.plan.Plan`.
        statistics: per split "mean_step" (mean distance of samples that follow one
            another), "unsorted" and "nearest"; empty if nothing was sorted.
    """

    order: np.ndarray
    parents: np.ndarray | None
    statistics: dict[str, dict[str, float]]


def order_samples(
    features_of: Callable[[int], np.ndarray],
    shards: list[tuple[str, int, int]],
    method: str,
    watch: Watch = SILENT,
) -> SortedSamples:
    """Sorts the samples of every split.

    Args:
        features_of: sample id -> features [d]; not called for method "none".
        shards: (split, first place, one past the last place), in order.
        method: one of `datagen.sorting.METHODS`.
        watch: wraps the ids while their samples are drawn, for progress.
    """
    num = max(stop for _, _, stop in shards)
    order = np.arange(num)
    if method == "none":
        return SortedSamples(order, None, {})
    features = np.stack([features_of(i) for i in watch(range(num))])
    features = features.reshape(num, -1).astype(np.float64)
    parents = np.full(num, -1) if method == "tree" else None
    statistics = {}
    for split in dict.fromkeys(split for split, _, _ in shards):
        pieces = [(start, stop) for name, start, stop in shards if name == split]
        start, stop = pieces[0][0], pieces[-1][1]
        ours = features[start:stop]
        ordering = sorting.order(ours, method)
        order[start:stop] = start + ordering.order
        length = sorting.path_length(ours, ordering)
        statistics[split] = {
            "mean_step": length.ordered,
            "unsorted": length.unsorted,
            "nearest": length.nearest,
        }
        if parents is not None:
            tree = np.where(ordering.parents < 0, -1, start + ordering.parents)
            for first, last in pieces:
                parents[first:last] = _places(features, order, tree, start, first, last)
    return SortedSamples(order, parents, statistics)


def _places(features, order, tree, offset, start, stop) -> np.ndarray:
    """Places of the parents of the samples of one shard.

    A sample whose parent in the tree lies in another shard takes the nearest of those
    before it in its own.
    """
    ids = order[start:stop]
    place = {sample: start + i for i, sample in enumerate(ids.tolist())}
    places = np.full(len(ids), -1)
    for i, sample in enumerate(ids.tolist()[1:], start=1):
        parent = place.get(int(tree[sample - offset]))
        if parent is None:
            distance = np.linalg.norm(features[ids[:i]] - features[sample], axis=1)
            parent = start + int(np.argmin(distance))
        places[i] = parent
    return places
