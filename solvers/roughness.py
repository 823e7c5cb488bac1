"""How smooth the coefficient of an operator is, read from its couplings alone."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from solvers.star import along, axis_planes, faces, inner
from solvers.stencils import StencilOperator

# Ratio of ln contrast to the largest step: below 2.4 for two phases and white noise,
# from 7 for continuous random fields on 63 unknowns per axis, growing with the grid.
STEPS_OF_CONTINUOUS = 4.0


def is_continuous(step: Any, contrast: Any, xp: Any = np) -> Any:
    """Whether the coefficient gets from its least to its largest value in small steps.

    Args:
        step: see `largest_step`.
        contrast: see the function of that name.
        xp: NumPy or `jax.numpy`, whichever holds them.
    """
    return xp.log(contrast) >= STEPS_OF_CONTINUOUS * step


def largest_step(operator: StencilOperator) -> float:
    """The largest |ln a_i - ln a_j| over neighbours i and j, as far as couplings tell.

    Couplings of -div(a grad u) are means of a over the two ends of a face. Between one
    face and the next along an axis their logarithm changes as that of a does in smooth
    fields; a jump of a by the factor f shows as ln f - ln 2 if f >> 1, one by 4 as 0.9
    instead of 1.4. Half control volumes at the sides do not count, reaction terms
    neither; graded spacings do. 0 for constant a, infinity beside couplings that are
    zero, NaN if some are NaN.

    Args:
        operator: symmetric, of batch 1; only couplings one step along the axes count.

    Raises:
        ValueError: if it has none.
    """
    links = _links(operator)
    ratios = [largest_ratio(*link) for link in links]
    return float(np.log(max(ratios, key=lambda x: math.inf if np.isnan(x) else x)))


def largest_ratio(link: Any, axis: int, periodic: bool, xp: Any = np) -> Any:
    """Largest ratio of a link along an axis to the next one, at least 1.

    Args:
        link: as in `solvers.star.Star`.
        axis: its axis.
        periodic: whether it wraps around.
        xp: NumPy or `jax.numpy`, whichever holds the links.
    """
    ends = (0, 0) if periodic else (1, -1)
    left = abs(link[along(axis, slice(ends[0], ends[1] - 1))])
    right = abs(link[along(axis, slice(ends[0] + 1, ends[1] or None))])
    if 0 in left.shape:
        return xp.ones(())
    low, high = xp.minimum(left, right), xp.maximum(left, right)
    # Two links of zero are alike; one of zero is infinitely far from the other.
    ratio = xp.where(high == 0, 1.0, high / xp.where(low == 0, 1.0, low))
    return xp.where((low == 0) & (high != 0), xp.inf, ratio).max()


def contrast(operator: StencilOperator) -> float:
    """Ratio max a / min a as far as couplings tell: the largest ratio along one axis.

    Couplings that differ from axis to axis, by anisotropy or spacing, do not count;
    half control volumes at the sides count as a factor of two at most. Infinity if some
    couplings are zero, NaN if some are NaN.

    Args:
        operator: symmetric, of batch 1; only couplings one step along the axes count.

    Raises:
        ValueError: if it has none.
    """
    ratios = [1.0]
    for sizes in _sizes(operator):
        low, high = float(sizes.min()), float(sizes.max())
        ratios.append(high / low if low else math.inf if high else 1.0)
    return float(np.max(ratios))


def _sizes(operator) -> list[np.ndarray]:
    """Sizes of the links between unknowns along every axis that has some."""
    sizes = [abs(inner(*link)) for link in _links(operator)]
    return [size for size in sizes if size.size]


def _links(operator) -> Sequence[tuple[np.ndarray, int, bool]]:
    """Links, axis and whether it is periodic, for the axes with couplings."""
    found = []
    for axis, plane in enumerate(axis_planes(operator)[1:]):
        if plane is not None:
            periodic = axis in operator.periodic
            found.append((faces(plane, axis, periodic), axis, periodic))
    if not found:
        raise ValueError(
            f"offsets {operator.offsets} hold no step of +1 along an axis, so that "
            "couplings of neighbours are unknown"
        )
    return found
