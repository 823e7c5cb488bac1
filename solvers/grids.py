"""Uniform grids on boxes: where the points lie and how far apart they are."""

import dataclasses

import numpy as np

LOCATIONS = ("nodes", "cells", "periodic")


@dataclasses.dataclass(frozen=True)
class Grid:
    """Uniform grid on an axis-aligned box.

    Attributes:
        shape: points per axis.
        lower: lower corner, one length per axis.
        upper: upper corner, one length per axis.
        location: "nodes" holds both end points, x_i = lower + i h with
            h = length / (n - 1); "cells" holds cell centres, x_i = lower + (i + 1/2) h
            with h = length / n; "periodic" leaves the right end out,
            x_i = lower + i h with h = length / n.

    Raises:
        ValueError: for an unknown location, corners that do not fit the shape, an
            empty box or too few points.
    """

    shape: tuple[int, ...]
    lower: tuple[float, ...] = (0.0, 0.0)
    upper: tuple[float, ...] = (1.0, 1.0)
    location: str = "nodes"

    def __post_init__(self):
        if self.location not in LOCATIONS:
            raise ValueError(f"location is {self.location!r}; known: {LOCATIONS}")
        if not len(self.shape) == len(self.lower) == len(self.upper):
            raise ValueError(
                f"shape {self.shape}, lower {self.lower} and upper {self.upper} must "
                "have one entry per axis"
            )
        if any(a >= b for a, b in zip(self.lower, self.upper, strict=True)):
            raise ValueError(f"lower {self.lower} must lie below upper {self.upper}")
        if min(self.shape) < 2:
            raise ValueError(f"shape is {self.shape}; every axis needs 2 points")

    @property
    def lengths(self) -> tuple[float, ...]:
        """Side lengths of the box."""
        return tuple(b - a for a, b in zip(self.lower, self.upper, strict=True))

    @property
    def spacing(self) -> tuple[float, ...]:
        """Distance of neighbouring points, one per axis."""
        gaps = 1 if self.location == "nodes" else 0
        return tuple(
            length / (n - gaps)
            for length, n in zip(self.lengths, self.shape, strict=True)
        )

    def coordinates(self) -> tuple[np.ndarray, ...]:
        """Point coordinates, one float64 array [n] per axis.

        Nodes are computed as lower + (length * i) / (n - 1), so that 0.35 on a grid of
        hundredths is the double nearest to 0.35.
        """
        shift = 0.5 if self.location == "cells" else 0.0
        gaps = 1 if self.location == "nodes" else 0
        return tuple(
            a + (length * (np.arange(n) + shift)) / (n - gaps)
            for a, length, n in zip(self.lower, self.lengths, self.shape, strict=True)
        )
