"""Boundary conditions on the sides of box grids, and where the unknowns lie then."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

KINDS = ("dirichlet", "neumann", "periodic")


@dataclasses.dataclass(frozen=True)
class Robin:
    """The condition alpha u + a du/dn = 0 on one side, n pointing outwards.

    Attributes:
        alpha: transfer coefficient, in units of a per length; not negative.

    Raises:
        ValueError: if alpha is negative or not finite.
    """

    alpha: float

    def __post_init__(self):
        if not 0 <= self.alpha < math.inf:
            raise ValueError(f"alpha is {self.alpha}; expected a number >= 0")


Side = str | Robin
Boundaries = Side | Sequence[Side | tuple[Side, Side]]


def sides_of(boundaries: Boundaries, num_dims: int) -> tuple[tuple[Side, Side], ...]:
    """One pair (lower side, upper side) per axis.

    Args:
        boundaries: one condition for all sides; or one entry per axis, a condition or
            a pair of them. Conditions are "dirichlet" (u = 0), "neumann" (no flux),
            "periodic" (both sides of an axis) and `Robin`.
        num_dims: number of axes.

    Raises:
        ValueError: for an unknown condition, another number of entries, or an axis that
            is periodic at one end only.
    """
    if isinstance(boundaries, str | Robin):
        boundaries = [boundaries] * num_dims
    pairs = []
    for entry in boundaries:
        single = isinstance(entry, str | Robin) or not isinstance(entry, Sequence)
        pair = (entry, entry) if single else tuple(entry)
        known = all(isinstance(side, Robin) or side in KINDS for side in pair)
        if len(pair) != 2 or not known:
            raise ValueError(
                f"boundary {entry!r}; expected one of {KINDS} or Robin(alpha), or a "
                "pair of them for the lower and the upper side"
            )
        if pair.count("periodic") == 1:
            raise ValueError(f"boundary {entry!r}: both sides or none are periodic")
        pairs.append(pair)
    if len(pairs) != num_dims:
        raise ValueError(
            f"boundaries has {len(pairs)} entries; expected one per axis, {num_dims}"
        )
    return tuple(pairs)


def periodic_axes(boundaries: Boundaries, num_dims: int) -> tuple[int, ...]:
    """Axes that wrap around."""
    pairs = sides_of(boundaries, num_dims)
    return tuple(axis for axis, pair in enumerate(pairs) if "periodic" in pair)


def unknown_nodes(boundaries: Boundaries, num_dims: int) -> tuple[slice, ...]:
    """The nodes whose values are unknown: all but those on Dirichlet sides."""
    return tuple(
        slice(int(low == "dirichlet"), -1 if high == "dirichlet" else None)
        for low, high in sides_of(boundaries, num_dims)
    )


def control_volumes(
    shape: Sequence[int], boundaries: Boundaries
) -> tuple[np.ndarray, ...]:
    """Control volumes of the unknown nodes in units of a cell, one array [n] per axis.

    1 inside, 1/2 for nodes on a Neumann or Robin side; the volume of a node is the
    product over the axes. Sources are multiplied by it, so that the matrix stays
    symmetric. (Unknowns in cells all have the volume 1.)

    Args:
        shape: nodes per axis, both ends included (the upper one only if not periodic).
        boundaries: see `sides_of`.
    """
    pairs = sides_of(boundaries, len(shape))
    volumes = []
    for n, pair in zip(shape, pairs, strict=True):
        weights = np.ones(n)
        for end, side in zip((0, -1), pair, strict=True):
            if side == "neumann" or isinstance(side, Robin):
                weights[end] = 0.5
        volumes.append(weights)
    unknown = unknown_nodes(boundaries, len(shape))
    return tuple(w[window] for w, window in zip(volumes, unknown, strict=True))
