"""Puts samples into an order in which neighbours are alike.

Methods that carry something from one system to the next profit from that. A sample is a
row of numbers, its features; Euclidean distances between rows are all that is used.

References:
    Wang et al. (2024), Accelerating Data Generation for Neural Operators via Krylov
    Subspace Recycling, arXiv:2401.09516, section 4.1: the greedy path.
"""

import sys
from typing import NamedTuple

import numpy as np

MAX_GREEDY = 20_000  # samples of one exact path; above that cells are cheaper
CELL_SIZE = 12_500  # samples of a cell at most
BLOCK_BYTES = 2**26  # of a block of the table of distances; the whole never exists
NUM_NEIGHBOURS = 40
METHODS = ("none", "greedy", "cells", "tree")


class Ordering(NamedTuple):
    """An order of samples.

    Attributes:
        order: [N] int64, sample at every place.
        parents: [N] int64, the earlier sample that a sample is next to, -1 for the
            first; None if that is the sample before it in the order.
    """

    order: np.ndarray
    parents: np.ndarray | None


class PathLength(NamedTuple):
    """Mean distances of samples that follow one another.

    Attributes:
        ordered: along the order, or to the parents of a tree.
        unsorted: in the order of the rows, as they were drawn.
        nearest: to the nearest other sample, over a part of the samples.
    """

    ordered: float
    unsorted: float
    nearest: float


def order(features: np.ndarray, method: str = "greedy") -> Ordering:
    """Orders samples by their features.

    - "none": as they come.
    - "greedy": from sample 0 always on to the nearest one not yet visited, exactly.
    - "cells": cells of at most `CELL_SIZE` samples, cut at the median of the leading
      principal coordinate again and again; a greedy path in each, entered at the sample
      nearest to the end of the path before. For many samples: time grows like N.
    - "tree": the minimum spanning tree, walked depth first from sample 0, smaller
      subtrees first, so that few branching points wait at any time. The tree is exact
      for `MAX_GREEDY` samples, above that it is one per cell. No path has a smaller
      mean step than its edges.

    Of equally near samples the one of lowest index comes first; equal features give
    equal orders on any number of threads. Memory: N rows of `NUM_NEIGHBOURS` numbers
    and blocks of `BLOCK_BYTES`.

    Args:
        features: [N, d] finite numbers.
        method: one of `METHODS`.

    Raises:
        ValueError: for another method, or features that are no finite table.
    """
    features = np.ascontiguousarray(features, np.float64)
    if method not in METHODS:
        raise ValueError(f"unknown ordering {method!r}; known: {', '.join(METHODS)}")
    if features.ndim != 2 or not np.isfinite(features).all():
        raise ValueError(
            f"features have shape {features.shape} or are not finite; expected finite "
            "numbers [N, d], one row per sample"
        )
    num = len(features)
    features = _scaled(features)[0]
    if method == "none" or num <= 2:
        parents = np.arange(-1, num - 1) if method == "tree" else None
        return Ordering(np.arange(num), parents)
    if method == "greedy":
        return Ordering(_greedy(features, 0), None)
    cells = [np.arange(num)]
    if method == "cells" or num > MAX_GREEDY:
        cells = _cut(features, np.arange(num))
    if method == "cells":
        return Ordering(_chain(features, cells), None)
    return _trees(features, cells)


def path_length(features: np.ndarray, ordering: Ordering) -> PathLength:
    """How far samples that follow one another lie apart, and how far they must."""
    features, scale = _scaled(np.asarray(features, np.float64))
    num = len(features)
    if num < 2:
        return PathLength(0.0, 0.0, 0.0)
    order, parents = ordering
    if parents is None:
        pairs = order[1:], order[:-1]
    else:
        children = np.flatnonzero(parents >= 0)
        pairs = children, parents[children]
    some = np.unique(np.linspace(0, num - 1, min(num, 256)).astype(int))
    centred = features - features.mean(axis=0)
    table = centred[some] @ (-2 * centred.T) + np.square(centred).sum(axis=1)
    table += np.square(centred[some]).sum(axis=1)[:, None]
    table[np.arange(len(some)), some] = np.inf
    nearest = np.sqrt(np.maximum(table.min(axis=1), 0))
    lengths = (
        np.linalg.norm(features[pairs[0]] - features[pairs[1]], axis=1).mean(),
        np.linalg.norm(np.diff(features, axis=0), axis=1).mean(),
        np.mean(nearest),
    )
    # JSON, where they are stored, has no infinity.
    limit = sys.float_info.max / max(scale, 1.0)
    return PathLength(*(min(float(length), limit) * scale for length in lengths))


def distances(rows: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Distances [n] of rows [n, d] from one row [d], up to a common factor."""
    both = _scaled(np.concatenate([rows, row[None]]))[0]
    return np.sqrt(_squares(both[:-1], both[-1]))


def _scaled(features: np.ndarray) -> tuple[np.ndarray, float]:
    """Features whose squares neither overflow nor vanish, and what they were over.

    A power of two: distances keep every digit.
    """
    largest = np.abs(features).max(initial=0.0)
    if largest == 0 or 2.0**-300 < largest < 2.0**300:
        return features, 1.0
    exponent = int(np.frexp(largest)[1]) - 1
    return np.ldexp(features, -exponent), float(np.ldexp(1.0, exponent))


def _squares(rows: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Squared distances [n] of rows [n, d] from one row [d].

    Differences first: equal rows are at distance 0 exactly, and the sum over d does
    not depend on where a row stands nor on threads, as matrix products do.
    """
    difference = rows - row
    return np.einsum("ij,ij->i", difference, difference)


def _neighbours(features: np.ndarray, num: int) -> np.ndarray:
    """The nearest samples of each, [N, num], nearest first; -1 where it is unsure.

    Matrix products find candidates; their distances are computed again by differences.
    A candidate counts only if no sample outside the list can be nearer than it.
    """
    total = len(features)
    num = min(num, total - 1)
    centred = features - features.mean(axis=0)
    squares = np.einsum("ij,ij->i", centred, centred)
    # Rounding errors of |a|^2 + |b|^2 - 2 a.b are below this.
    slack = 8 * (features.shape[1] + 4) * np.finfo(float).eps * squares.max()
    lists = np.empty((total, num), np.int64)
    bytes_per_row = 16 * total + 16 * num * features.shape[1]
    rows_per_block = max(1, BLOCK_BYTES // bytes_per_row)
    for start in range(0, total, rows_per_block):
        rows = np.arange(start, min(start + rows_per_block, total))
        table = centred[rows] @ (-2 * centred.T)
        table += squares
        table += squares[rows, None]
        table[rows - start, rows] = np.inf
        found = np.argpartition(table, num - 1, axis=1)[:, :num]
        limit = np.take_along_axis(table, found, axis=1).max(axis=1) - slack
        if num == total - 1:
            limit[:] = np.inf
        found.sort(axis=1)
        difference = features[found] - features[rows, None]
        distance = np.einsum("ijk,ijk->ij", difference, difference)
        by_distance = np.argsort(distance, axis=1, kind="stable")
        distance = np.take_along_axis(distance, by_distance, axis=1)
        found = np.take_along_axis(found, by_distance, axis=1)
        lists[rows] = np.where(distance < limit[:, None], found, -1)
    return lists


def _greedy(features: np.ndarray, start: int) -> np.ndarray:
    """Path [N] that always goes to the nearest sample not yet visited."""
    total = len(features)
    if total <= 2:
        return np.array([start, *(i for i in range(total) if i != start)], np.int64)
    lists = _neighbours(features, NUM_NEIGHBOURS).tolist()
    waiting = [True] * total
    waiting[start] = False
    path, left = [start], np.delete(np.arange(total), start)
    rows = features[left]
    while len(path) < total:
        current = path[-1]
        for candidate in lists[current]:
            if candidate < 0:
                candidate = total
                break
            if waiting[candidate]:
                break
        else:
            candidate = total
        if candidate == total:  # the list is used up: look at all that are left
            if 4 * (total - len(path)) < 3 * len(left):
                keep = [waiting[i] for i in left.tolist()]
                left, rows = left[keep], rows[keep]
            distance = _squares(rows, features[current])
            distance[[not waiting[i] for i in left.tolist()]] = np.inf
            candidate = int(left[np.argmin(distance)])  # the first of equals
        waiting[candidate] = False
        path.append(candidate)
    return np.array(path, np.int64)


def _cut(features: np.ndarray, members: np.ndarray) -> list[np.ndarray]:
    """Halves members until no part has more than CELL_SIZE."""
    if len(members) <= CELL_SIZE:
        return [members]
    rows = features[members] - features[members].mean(axis=0)
    axis = np.linalg.eigh(rows.T @ rows)[1][:, -1]
    by_coordinate = members[np.argsort(rows @ axis, kind="stable")]
    half = len(members) // 2
    halves = (np.sort(by_coordinate[:half]), np.sort(by_coordinate[half:]))
    return [cell for part in halves for cell in _cut(features, part)]


def _next_cell(features, cells, position) -> tuple[np.ndarray, int]:
    """Takes the cell with the sample nearest to a position out of the list.

    Returns:
        The cell and the place of that sample in it.
    """
    nearest = []
    for number, cell in enumerate(cells):
        distance = _squares(features[cell], position)
        place = int(np.argmin(distance))
        nearest.append((distance[place], cell[place], number, place))
    *_, number, place = min(nearest)
    return cells.pop(number), place


def _chain(features: np.ndarray, cells: list[np.ndarray]) -> np.ndarray:
    """Greedy paths of the cells, one after the other."""
    cells, position, paths = list(cells), features[0], []
    while cells:
        cell, place = _next_cell(features, cells, position)
        paths.append(cell[_greedy(features[cell], place)])
        position = features[paths[-1][-1]]
    return np.concatenate(paths)


def _trees(features: np.ndarray, cells: list[np.ndarray]) -> Ordering:
    """Spanning trees of the cells; each hangs on the nearest sample before it."""
    cells, position, orders = list(cells), features[0], []
    parents = np.full(len(features), -1, np.int64)
    while cells:
        cell, root = _next_cell(features, cells, position)
        tree = _spanning_tree(features[cell], root)
        inside = tree >= 0
        parents[cell[inside]] = cell[tree[inside]]
        if orders:
            before = np.sort(np.concatenate(orders))
            nearest = np.argmin(_squares(features[before], features[cell[root]]))
            parents[cell[root]] = before[nearest]
        orders.append(cell[_depth_first(tree, root)])
        position = features[orders[-1][-1]]
    return Ordering(np.concatenate(orders), parents)


def _spanning_tree(features: np.ndarray, root: int) -> np.ndarray:
    """Parents [N] in the minimum spanning tree (Prim's algorithm), -1 at the root."""
    total = len(features)
    parents = np.full(total, -1, np.int64)
    left = np.delete(np.arange(total), root)
    rows = features[left]
    distance, nearest = np.full(total - 1, np.inf), np.empty(total - 1, np.int64)
    done, current = np.zeros(total - 1, bool), root
    for _ in range(total - 1):
        if 4 * np.count_nonzero(done) > len(left):
            keep = ~done
            left, rows, done = left[keep], rows[keep], done[keep]
            distance, nearest = distance[keep], nearest[keep]
        found = _squares(rows, features[current])
        closer = (found < distance) & ~done
        distance[closer], nearest[closer] = found[closer], current
        place = int(np.argmin(distance))
        done[place], distance[place] = True, np.inf
        current = int(left[place])
        parents[current] = nearest[place]
    return parents


def _depth_first(parents: np.ndarray, root: int) -> np.ndarray:
    """Samples of a tree [N], each after its parent, smaller subtrees first."""
    children: list[list[int]] = [[] for _ in parents]
    for child, parent in enumerate(parents.tolist()):
        if parent >= 0:
            children[parent].append(child)
    visits, stack = [], [root]
    while stack:
        visits.append(stack.pop())
        stack.extend(children[visits[-1]])
    size = [1] * len(parents)
    for sample in reversed(visits):
        if parents[sample] >= 0:
            size[parents[sample]] += size[sample]
    visits, stack = [], [root]
    while stack:
        visits.append(stack.pop())
        # The last one pushed comes first: the smallest, of equals the lowest index.
        branches = sorted(children[visits[-1]], key=lambda i: (-size[i], -i))
        stack.extend(branches)
    return np.array(visits, np.int64)
