"""The constant-coefficient operator on the grid and with the sides of another one."""

import math
from typing import Any

import numpy as np

from solvers.fast_diagonalization import CELL_WALL, CLOSED, NODE_WALL, Line
from solvers.star import Star, inner

HALF_BELOW = 0.7  # between 1/2 and 1: couplings along a side over those further in
IDLE = 1e-10  # end links below, in units of the inner ones, are rounding
LARGEST_END = 64.0


def end_ratios(star: Star, xp: Any = np) -> tuple[Any, Any]:
    """What the rows of A next to the sides say about the boundary conditions.

    Both sums of a ratio hold similar values of the coefficient, so that it drops out.
    Corners are left out, and so is the reaction as far as the next row shows it too.

    Args:
        star: symmetric operator with positive links.
        xp: NumPy or `jax.numpy`, whichever holds the arrays.

    Returns:
        Two arrays [num_dims, 2], lower and upper ends: links to where u is zero in
        units of the inner ones, and the ratio of couplings along the side to those one
        row further in, 1/2 for half control volumes. 0 and 1 for periodic axes and
        those with one unknown.
    """
    shape = star.excess.shape
    ends = [[xp.zeros(())] * 2 for _ in shape]
    sides = [[xp.ones(())] * 2 for _ in shape]
    for axis, n in enumerate(shape):
        if axis in star.periodic or n == 1:
            continue
        core = _core(star, axis)
        for end in range(2):
            rows = [slice(n - 1 - i, n - i) if end else slice(i, i + 1) for i in (0, 1)]
            first = slice(n - 1, n) if end else slice(1, 2)
            ratio = _side_ratio(star, axis, core, rows, xp)
            outer, second = (star.excess[_at(core, axis, row)].sum() for row in rows)
            volume = xp.where(ratio < HALF_BELOW, 0.5, 1.0)
            extra = outer - (volume * second if n > 2 else 0.0)
            total = star.links[axis][_at(core, axis, first)].sum()
            ends[axis][end] = extra / xp.where(total == 0, 1.0, total)
            sides[axis][end] = ratio
    return tuple(
        xp.stack([xp.stack(pair) for pair in table]) for table in (ends, sides)
    )


def _core(star, axis):
    """Slices that leave out the ends of the other axes where something remains."""
    return [
        slice(1, -1) if k not in (axis, *star.periodic) and n > 2 else slice(None)
        for k, n in enumerate(star.excess.shape)
    ]


def _at(core, axis, window):
    return (*core[:axis], window, *core[axis + 1 :])


def _side_ratio(star, axis, core, rows, xp):
    """Couplings along a side over those one row further in, of t / (t + t') the mean.

    Bounded terms: a few large couplings do not decide.
    """
    shares = []
    for other, link in enumerate(star.links):
        if other != axis and star.excess.shape[other] > 1:
            inside = slice(1, None if other in star.periodic else -1)
            window = [*core]
            window[other] = inside
            first, second = (link[_at(window, axis, row)] for row in rows)
            total = first + second
            shares.append((first / xp.where(total == 0, 1.0, total)).mean())
    share = sum(shares) / len(shares) if shares else xp.full((), 0.5)
    return share / xp.maximum(1 - share, 1e-3)


def unit_lines(
    shape: tuple[int, ...],
    periodic: tuple[int, ...],
    ends: np.ndarray,
    sides: np.ndarray,
) -> tuple[Line, ...]:
    """The unit-coefficient operators along the axes that `end_ratios` points to.

    Ends are rounded to those of walls or, at Robin sides, to powers of 2^(1/4), so that
    systems share their bases; they are closed where a ratio is no number.
    """
    lines = []
    for axis, n in enumerate(shape):
        if axis in periodic:
            lines.append(Line(n, periodic=True))
            continue
        pair = tuple(_rounded(float(end)) for end in ends[axis])
        halves = tuple(bool(ratio < HALF_BELOW) for ratio in sides[axis])
        lines.append(Line(n, pair, halves))
    return tuple(lines)


def _rounded(end):
    if not end > IDLE:  # True for NaN
        return CLOSED
    if 0.75 <= end <= 1.4:
        return NODE_WALL
    if 1.4 < end <= 2.9:
        return CELL_WALL
    return 2.0 ** (round(4 * math.log2(min(end, LARGEST_END))) / 4)


def on_axis(values: Any, axis: int, num_dims: int) -> Any:
    """Values [n] along one axis of a grid, to be broadcast along the others."""
    return values.reshape([-1 if k == axis else 1 for k in range(num_dims)])


def typical_links(star: Star, weights: list[Any], total: Any) -> list[Any]:
    """Mean link per axis between unknowns that stand for whole cells.

    Args:
        star: the operator.
        weights: control volumes per axis, [n] each.
        total: sums all entries of an array.
    """
    means = []
    for axis, link in enumerate(star.links):
        faces = link.shape[axis] - (1 if axis in star.periodic else 2)
        count = float(max(faces, 1))
        for other, weight in enumerate(weights):
            count = count * (1.0 if other == axis else weight.sum())
        means.append(total(inner(link, axis, axis in star.periodic)) / count)
    return means


def degrees(star: Star, weights: list[Any], typical: list[Any], xp: Any) -> Any:
    """The `total_links` of an operator whose links all have the typical value."""
    shape = star.excess.shape
    volume = volumes(weights)
    result = 0.0
    for axis, n in enumerate(shape):
        count = np.full(n, 2.0)
        if axis not in star.periodic:
            count[0] -= 1
            count[-1] -= 1
        line = typical[axis] * xp.asarray(count) / weights[axis]
        result = result + on_axis(line, axis, len(shape)) * volume
    return result


def volumes(weights: list[Any]) -> Any:
    """Control volumes [*grid] from those per axis."""
    product = 1.0
    for axis, weight in enumerate(weights):
        product = product * on_axis(weight, axis, len(weights))
    return product


def interior(star: Star) -> tuple[slice, ...]:
    """Slices of the unknowns that touch no side, along axes where some remain."""
    return tuple(
        slice(None) if axis in star.periodic or n < 3 else slice(1, -1)
        for axis, n in enumerate(star.excess.shape)
    )
