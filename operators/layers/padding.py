"""Zero padding by a fraction of the domain, for layers that take fields as periodic."""

import dataclasses
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

    def periods(self, x, axis: int, grid: Sequence[int]) -> np.ndarray | jax.Array:
        """Positions in padded periods of points x in [0, 1] along an axis."""
        n = grid[axis]
        before, after = self.widths(grid)[axis]
        return (before + x * (n - self.endpoint)) / (before + n + after)
