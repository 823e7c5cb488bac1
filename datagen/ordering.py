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
            another), "unsorted" and "nearest", and "not_sortable", how many samples
            have no finite features, if any; empty if nothing was sorted.
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

    Samples whose features fail or are not finite come last, by id: whether they can
    be solved is for the ladder to find out.

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
    features, sortable = _table([_finite(features_of, i) for i in watch(range(num))])
    parents = np.full(num, -1) if method == "tree" else None
    statistics = {}
    for split in dict.fromkeys(split for split, _, _ in shards):
        pieces = [(start, stop) for name, start, stop in shards if name == split]
        ids = np.arange(pieces[0][0], pieces[-1][1])
        ours, others = ids[sortable[ids]], ids[~sortable[ids]]
        ordering = sorting.order(features[ours], method)
        order[ids] = np.concatenate([ours[ordering.order], others])
        length = sorting.path_length(features[ours], ordering)
        statistics[split] = {
            "mean_step": length.ordered,
            "unsorted": length.unsorted,
            "nearest": length.nearest,
        }
        if len(others):
            statistics[split]["not_sortable"] = len(others)
        if parents is not None:
            tree = np.full(num, -1)
            inside = ordering.parents >= 0
            tree[ours[inside]] = ours[ordering.parents[inside]]
            for first, last in pieces:
                found = _places(features, order[first:last], tree, sortable)
                parents[first:last] = np.where(found < 0, -1, first + found)
    _check_permutation(order, shards)
    return SortedSamples(order, parents, statistics)


def _finite(features_of: Callable[[int], np.ndarray], sample: int) -> np.ndarray | None:
    """Features [d] of a sample; None if they fail or are not finite."""
    try:
        with np.errstate(all="ignore"):
            features = np.asarray(features_of(sample), np.float64).ravel()
    except Exception:  # the ladder meets it again and says what it was
        return None
    return features if np.isfinite(features).all() else None


def _table(rows: list[np.ndarray | None]) -> tuple[np.ndarray, np.ndarray]:
    """Features [N, d], 0 where there are none, and where there are some, [N] bool."""
    sortable = np.array([row is not None for row in rows])
    width = next((len(row) for row in rows if row is not None), 0)
    return np.stack([np.zeros(width) if r is None else r for r in rows]), sortable


def _places(
    features: np.ndarray, ids: np.ndarray, tree: np.ndarray, sortable: np.ndarray
) -> np.ndarray:
    """Places in a shard of the parents of its samples; -1 for none.

    A sample whose parent in the tree lies in another shard takes the nearest of those
    before it in its own; one that could not be sorted, the one before it.
    """
    place = {sample: i for i, sample in enumerate(ids.tolist())}
    places = np.arange(-1, len(ids) - 1)
    for i, sample in enumerate(ids.tolist()):
        if i == 0 or not sortable[sample]:
            continue
        parent = place.get(int(tree[sample]))
        if parent is None:
            distance = sorting.distances(features[ids[:i]], features[sample])
            parent = int(np.argmin(distance))
        places[i] = parent
    return places


def _check_permutation(order: np.ndarray, shards: list[tuple[str, int, int]]) -> None:
    """Looks once more, before anything is written.

    Raises:
        RuntimeError: if a sample is missing, comes twice or is in another split.
    """
    for split in dict.fromkeys(split for split, _, _ in shards):
        pieces = [(start, stop) for name, start, stop in shards if name == split]
        ids = np.arange(pieces[0][0], pieces[-1][1])
        if not np.array_equal(np.sort(order[ids]), ids):
            raise RuntimeError(
                f"the samples of {split} were sorted wrongly: some are missing or come "
                "twice; use --config.solver.ordering=none and report it"
            )
