"""-div(a grad u) in flux form on box grids: operators in any number of dimensions."""

from collections.abc import Sequence

import numpy as np

from solvers.stencils import StencilOperator

FACE_MEANS = {
    "harmonic": lambda a, b: 2 * a * b / (a + b),
    "arithmetic": lambda a, b: (a + b) / 2,
}
WALLS = {"half_cells": 2.0, "ghost_row": 1.0}


def star(num_dims: int) -> tuple[tuple[int, ...], ...]:
    """Offsets of the five- or seven-point star: the centre, then both ways per axis."""
    steps = np.eye(num_dims, dtype=int)
    pairs = [tuple((sign * row).tolist()) for row in steps for sign in (-1, 1)]
    return ((0,) * num_dims, *pairs)


def diffusion_operator(
    a: np.ndarray, spacing: Sequence[float], face_mean: str = "harmonic"
) -> StencilOperator:
    """-div(a grad u) on the interior nodes for u = 0 on the edge nodes.

    Second order for smooth a.

    Args:
        a: [*n] coefficient at all nodes, edge included; corners are not used.
        spacing: distance of neighbouring nodes, one per axis.
        face_mean: "harmonic" or "arithmetic" mean of the two nodes beside a face.

    Returns:
        Operator on [*(n - 2)] of batch 1, exactly symmetric, in NumPy float64; positive
        definite if a is positive.
    """
    mean, inner, links = FACE_MEANS[face_mean], slice(1, -1), []
    for axis, h in enumerate(spacing):
        left, right = [inner] * a.ndim, [inner] * a.ndim
        left[axis], right[axis] = slice(None, -1), slice(1, None)
        links.append(mean(a[tuple(left)], a[tuple(right)]) / h**2)
    return _from_links(links)


def cell_diffusion(
    a: np.ndarray, spacing: Sequence[float], walls: str = "half_cells"
) -> StencilOperator:
    """-div(a grad u) on cells, harmonic face means, u = 0 at the walls.

    Args:
        a: [*n] coefficient, constant in every cell.
        spacing: edges of a cell.
        walls: "half_cells": u = 0 on the faces at the walls, h / 2 from the cell
            centres; second order for smooth a, and for jumps of a along cell faces.
            "ghost_row": u = 0 at the centres of a row of cells outside, h from the
            cell centres; first order.

    Returns:
        Operator on [*n] of batch 1, exactly symmetric, positive definite if a is.
    """
    links = []
    for axis, h in enumerate(spacing):
        left, right = _along(axis, slice(None, -1)), _along(axis, slice(1, None))
        inner = FACE_MEANS["harmonic"](a[left], a[right])
        ends = [WALLS[walls] * a[_along(axis, side)] for side in _SIDES]
        links.append(np.concatenate([ends[0], inner, ends[1]], axis) / h**2)
    return _from_links(links)


_SIDES = (slice(None, 1), slice(-1, None))


def _along(axis: int, window: slice) -> tuple:
    return (*(slice(None),) * axis, window)


def _from_links(links: Sequence[np.ndarray]) -> StencilOperator:
    """The operator whose unknowns are joined by the given conductances.

    Links at the ends of an axis lead to where u is zero: they stand in the diagonal
    only.

    Args:
        links: per axis, [*grid] but one more along that axis.
    """
    num_dims = len(links)
    shape = [links[0].shape[0] - 1, *links[0].shape[1:]]
    planes = np.zeros((2 * num_dims + 1, *shape))
    for axis, link in enumerate(links):
        # One after the other: the rounding of the sum is part of the stored data.
        planes[0] += link[_along(axis, slice(None, -1))]
        planes[0] += link[_along(axis, slice(1, None))]
        inner = -link[_along(axis, slice(1, -1))]
        planes[2 * axis + 1][_along(axis, slice(1, None))] = inner
        planes[2 * axis + 2][_along(axis, slice(None, -1))] = inner
    return StencilOperator(np.moveaxis(planes, 0, -1)[None], star(num_dims))
