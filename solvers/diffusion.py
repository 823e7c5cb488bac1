"""-div(a grad u) + c u in flux form on box grids, in any number of dimensions."""

import functools
import itertools
from collections.abc import Callable, Sequence

import numpy as np

from solvers.boundaries import (
    Boundaries,
    Robin,
    Side,
    control_volumes,
    periodic_axes,
    sides_of,
    unknown_nodes,
)
from solvers.stencils import StencilOperator, row_blocks

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
    a: np.ndarray,
    spacing: Sequence[float],
    face_mean: str = "harmonic",
    *,
    boundaries: Boundaries = "dirichlet",
    reaction: float | np.ndarray = 0.0,
) -> StencilOperator:
    """-div(a grad u) + c u at the nodes of a grid.

    Second order for smooth a. Nodes on Neumann and Robin sides carry half a control
    volume: multiply sources by `solvers.boundaries.control_volumes`.

    Args:
        a: [*n] coefficient at all nodes, those on Dirichlet sides included; the upper
            end of periodic axes is left out.
        spacing: distance of neighbouring nodes, one per axis.
        face_mean: "harmonic" or "arithmetic" mean of the two nodes beside a face.
        boundaries: see `solvers.boundaries.sides_of`.
        reaction: c, a number or values [*grid] at the unknown nodes.

    Returns:
        Operator on the unknown nodes (see `solvers.boundaries.unknown_nodes`; with
        Dirichlet sides [*(n - 2)]) of batch 1, exactly symmetric, in NumPy float64. If
        a is positive and c is not negative: positive definite, or singular with the
        constants as null space if there is neither a Dirichlet or Robin side nor c.

    Raises:
        ValueError: for an unknown mean or boundary condition, or if spacing or reaction
            do not fit the grid.
    """
    _check("face_mean", face_mean, FACE_MEANS)
    unknown, links = unknown_nodes(boundaries, a.ndim), []
    volumes = control_volumes(a.shape, boundaries)
    _check_shapes([w.size for w in volumes], spacing, reaction)
    for axis, (pair, h) in enumerate(
        zip(sides_of(boundaries, a.ndim), spacing, strict=True)
    ):
        window = (*unknown[:axis], slice(None), *unknown[axis + 1 :])
        link = _links(a[window], axis, pair, h, FACE_MEANS[face_mean])
        for other, volume in enumerate(volumes):
            if other != axis and (volume != 1).any():
                shape = [1] * a.ndim
                shape[other] = -1
                link = link * volume.reshape(shape)
        links.append(link)
    if np.any(reaction):
        reaction = reaction * functools.reduce(np.multiply.outer, volumes)
    return from_links(links, reaction, periodic_axes(boundaries, a.ndim))


def cell_diffusion(
    a: np.ndarray,
    spacing: Sequence[float],
    walls: str = "half_cells",
    *,
    boundaries: Boundaries = "dirichlet",
    reaction: float | np.ndarray = 0.0,
) -> StencilOperator:
    """-div(a grad u) + c u on cells, harmonic face means.

    Args:
        a: [*n] coefficient, constant in every cell.
        spacing: edges of a cell.
        walls: of Dirichlet sides. "half_cells": u = 0 on the faces at the walls, h / 2
            from the cell centres; second order for smooth a, and for jumps of a along
            cell faces. "ghost_row": u = 0 at the centres of a row of cells outside, h
            from the cell centres; first order.
        boundaries: see `solvers.boundaries.sides_of`.
        reaction: c, a number or values [*n].

    Returns:
        Operator on [*n] of batch 1, exactly symmetric; definite as that of
        `diffusion_operator`.

    Raises:
        ValueError: for unknown walls or boundary conditions, or if spacing or reaction
            do not fit the grid.
    """
    _check("walls", walls, WALLS)
    _check_shapes(a.shape, spacing, reaction)
    pairs = sides_of(boundaries, a.ndim)
    links = [
        _links(a, axis, pair, h, FACE_MEANS["harmonic"], WALLS[walls], depth=0.5)
        for axis, (pair, h) in enumerate(zip(pairs, spacing, strict=True))
    ]
    return from_links(links, reaction, periodic_axes(boundaries, a.ndim))


def _check(name, value, known):
    """Looks for a name in a table."""
    if value not in known:
        raise ValueError(f"{name} is {value!r}; known: {', '.join(map(repr, known))}")


def _check_shapes(grid, spacing, reaction):
    """Looks at whether spacing and reaction fit the grid of the unknowns."""
    if len(spacing) != len(grid):
        raise ValueError(
            f"spacing has {len(spacing)} entries; expected one per axis, {len(grid)}"
        )
    if np.shape(reaction) not in ((), tuple(grid)):
        raise ValueError(
            f"reaction has shape {np.shape(reaction)}; expected a number or one value "
            f"per unknown, {tuple(grid)}"
        )


def _links(
    a: np.ndarray,
    axis: int,
    pair: tuple[Side, Side],
    h: float,
    mean: Callable[[np.ndarray, np.ndarray], np.ndarray],
    wall: float | None = None,
    depth: float = 0.0,
) -> np.ndarray:
    """Conductances between neighbours along one axis, those to the outside at the ends.

    Args:
        a: [*n] coefficient at the unknowns and, if `wall` is None, on Dirichlet sides.
        axis: the axis.
        pair: its boundary conditions.
        h: spacing.
        mean: face mean.
        wall: conductance to a Dirichlet side in units of a / h^2; None: a has it.
        depth: distance of the outer unknowns from the side in units of h.
    """
    ends = [a[_along(axis, side)] for side in (slice(None, 1), slice(-1, None))]
    around = mean(*ends)
    pairs = [a[_along(axis, side)] for side in (slice(None, -1), slice(1, None))]
    inner = np.empty(pairs[0].shape, around.dtype)
    for rows in row_blocks(inner.shape):
        inner[rows] = mean(pairs[0][rows], pairs[1][rows]) / h**2
    parts = [inner]
    for number, (side, end) in enumerate(zip(pair, ends, strict=True)):
        if isinstance(side, Robin):
            part = side.alpha / (h * (1 + depth * side.alpha * h / end))
        elif side == "dirichlet":
            part = None if wall is None else wall * end / h**2
        else:
            part = around / h**2 if side == "periodic" else np.zeros_like(end)
        if part is not None:
            parts.insert(len(parts) * number, part)
    return inner if len(parts) == 1 else np.concatenate(parts, axis)


def _along(axis: int, window: slice) -> tuple:
    return (*(slice(None),) * axis, window)


def from_links(
    links: Sequence[np.ndarray],
    reaction: float | np.ndarray = 0.0,
    periodic: tuple[int, ...] = (),
) -> StencilOperator:
    """The operator whose unknowns are joined by the given conductances.

    Links at the ends of an axis lead to where u is zero: they stand in the diagonal
    only; or, if the axis is periodic, around it.

    Args:
        links: per axis, [*grid] but one more along that axis.
        reaction: added to the diagonal; a number or [*grid].
        periodic: axes that wrap around.

    Returns:
        Operator on [*grid] of batch 1, exactly symmetric, in NumPy float64.
    """
    num_dims = len(links)
    shape = [links[0].shape[0] - 1, *links[0].shape[1:]]
    planes = np.zeros((2 * num_dims + 1, *shape))
    pairs = [
        [link[_along(axis, side)] for side in (slice(None, -1), slice(1, None))]
        for axis, link in enumerate(links)
    ]
    for rows in row_blocks(shape):
        # One after the other: the rounding of the sum is part of the stored data.
        for number, link in enumerate(itertools.chain(*pairs)):
            planes[0][rows] += link[rows]
            np.negative(link[rows], out=planes[1 + number][rows])
        planes[0][rows] += reaction[rows] if np.ndim(reaction) else reaction
    for axis in set(range(num_dims)) - set(periodic):
        planes[2 * axis + 1][_along(axis, slice(None, 1))] = 0
        planes[2 * axis + 2][_along(axis, slice(-1, None))] = 0
    return StencilOperator(np.moveaxis(planes, 0, -1)[None], star(num_dims), periodic)
