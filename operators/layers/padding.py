"""Zero padding by a fraction of the domain, for layers that take fields as periodic."""

import dataclasses
import numbers
import warnings
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

_TOLERANCE = 1e-6  # of a whole number of points, for fractions such as 1 / 7 as floats


@dataclasses.dataclass(frozen=True)
class DomainPadding:
    """Extends the domain by zeros so that its period is the same on every grid.

    The domain has length 1 along each axis. With spacing h the points stand at 0, h,
    ... 1 - h, or up to 1 if `endpoint` (vertex grids). Fraction p extends an axis to
    the period 1 + p, or 1 + 2 p if padded at both ends. So the integer frequencies mean
    the same waves on all grids on which p / h is whole; 1/7 is so on 85, 141, 211 and
    421 vertices, and gives 96, 160, 240 and 480 points there.

    Attributes:
        fractions: p per axis; 0 leaves the axis alone.
        endpoint: whether grids hold the right end of the domain.
        both_ends: pads before the domain as well as after it.
    """

    fractions: tuple[float, ...]
    endpoint: bool
    both_ends: bool

    def widths(self, grid: Sequence[int]) -> tuple[tuple[int, int], ...]:
        """Points added before and after each axis.

        Warns if a fraction is no whole number of points: then the modes mean slightly
        different waves than on other grids.
        """
        widths = []
        for p, n in zip(self.fractions, grid, strict=True):
            cells = n - self.endpoint
            count = round(p * cells)
            if abs(p * cells - count) > _TOLERANCE:
                warnings.warn(
                    f"domain_padding {p:g} is no whole number of points on {n} points "
                    f"(of {cells} spacings), so the modes mean slightly different "
                    f"frequencies on other grids; {count}/{cells} would be whole here",
                    stacklevel=2,
                )
            # The first point after the right end of a vertex grid is outside already.
            after = max(count - self.endpoint, 0)
            widths.append((count if self.both_ends else 0, after))
        return tuple(widths)

    def pad(self, u: jax.Array) -> jax.Array:
        """Extends u [batch, *grid, channels] by zeros."""
        return jnp.pad(u, ((0, 0), *self.widths(u.shape[1:-1]), (0, 0)))

    def crop(self, u: jax.Array, grid: Sequence[int]) -> jax.Array:
        """Takes the domain, [batch, *grid, channels], out of a padded field."""
        inside = (
            slice(before, before + n)
            for (before, _), n in zip(self.widths(grid), grid, strict=True)
        )
        return u[(slice(None), *inside)]

    def positions(
        self, out_grid: Sequence[int], grid: Sequence[int]
    ) -> list[np.ndarray]:
        """Points of the padded `out_grid`, per axis in periods of the padded `grid`."""
        widths = zip(out_grid, self.widths(out_grid), strict=True)
        return [
            self.periods(
                np.arange(-before, m + after) / max(m - self.endpoint, 1), axis, grid
            )
            for axis, (m, (before, after)) in enumerate(widths)
        ]

    def periods(self, x, axis: int, grid: Sequence[int]) -> np.ndarray | jax.Array:
        """Positions in padded periods of points x in [0, 1] along an axis.

        Args:
            x: array of points; 0 is the first grid point, 1 the right end.
            axis: axis of the grid, from 0.
            grid: points per axis.
        """
        n = grid[axis]
        before, after = self.widths(grid)[axis]
        return (before + x * (n - self.endpoint)) / (before + n + after)


def per_axis(padding: float | Sequence[float], num_axes: int) -> tuple[float, ...]:
    """One fraction per axis.

    Raises:
        ValueError: for fractions outside [0, 1) or the wrong number of them.
    """
    single = isinstance(padding, (str, numbers.Real))
    fractions = (padding,) * num_axes if single else tuple(padding)
    if len(fractions) != num_axes or not all(
        isinstance(p, numbers.Real) and 0 <= p < 1 for p in fractions
    ):
        raise ValueError(
            "domain_padding must lie in [0, 1), one number or one for each of "
            f"{num_axes} axes, got {padding!r}"
        )
    return fractions
