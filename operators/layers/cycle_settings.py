"""Settings of a learned V-cycle: its levels, boundary, transfers and normalisation."""

import dataclasses
import math
from collections.abc import Sequence

BOUNDARIES = ("zero", "reflect", "periodic")
SIZES = ("official", "crop")
PROLONGATIONS = ("official", "wrap")
RESTRICTIONS = ("data", "residual")
NORMS = ("none", "prolongation", "cycle")
NORM_AFFINES = ("grid", "channel", "none")


def _coarser(n: int, boundary: str | None) -> int:
    """Points of an axis after a restriction."""
    return (n - 1) // 2 if boundary == "reflect" else (n + 1) // 2


@dataclasses.dataclass(frozen=True)
class CycleSettings:
    """What fixes the shape of a V-cycle, apart from its channels on the finest level.

    Attributes:
        cycle: smoothing steps (pre, post) per level, finest first.
        boundary: "zero" (Dirichlet): zeros outside; "reflect" (Neumann): smoothing
            reflects, restriction keeps only whole stencils; "periodic".
        sizes: "official" picks 3 or 4 taps of the prolongation by the parity of the
            finer grid, so parameter shapes depend on the grid; "crop" always has 4 and
            drops the last row or column of odd grids, one parameter set for all grids.
        prolongation: "official" treats values outside the coarse grid as zero for every
            boundary; "wrap" makes the cycle exactly periodic, it then commutes with
            shifts by 2^(levels - 1) points. That holds where no level above the
            coarsest is odd: it refuses grids that 2^(levels - 1) does not divide.
        restriction: what a coarser level gets as data, "data" R f (as released) or
            "residual" R (f - A u) with one more A per transition.
        widening: factor of the channels per level, finest first; () for 1 everywhere.
        norm: "prolongation" normalises after each prolongation is added, "cycle" what
            the model makes of the whole cycle; both over all points and channels.
        norm_affine: scale and shift "grid" (one pair per point and channel: ties the
            parameters to the grid), "channel" (one pair per channel) or "none".
        use_bias: whether S and A have biases (the cycle is affine then).
        unused_first_A: also creates the A of the very first step, which starts from
            u = 0 and never uses it: the released Helmholtz model has these parameters.

    Raises:
        ValueError: for an unknown name, or a cycle with parameters that never act.
    """

    cycle: tuple[tuple[int, int], ...]
    boundary: str = "zero"
    sizes: str = "official"
    prolongation: str = "official"
    restriction: str = "data"
    widening: tuple[int, ...] = ()
    norm: str = "none"
    norm_affine: str = "grid"
    use_bias: bool = False
    unused_first_A: bool = False  # noqa: N815 - A is the system operator everywhere

    def __post_init__(self):
        for name, known in (
            ("boundary", BOUNDARIES),
            ("sizes", SIZES),
            ("prolongation", PROLONGATIONS),
            ("restriction", RESTRICTIONS),
            ("norm", NORMS),
            ("norm_affine", NORM_AFFINES),
        ):
            if (value := getattr(self, name)) not in known:
                raise ValueError(f"{name} is {value!r}; known: {', '.join(known)}")
        if self.prolongation == "wrap" and self.boundary != "periodic":
            raise ValueError(
                f'prolongation "wrap" needs boundary "periodic", got {self.boundary!r}'
            )
        self._check_cycle()
        if self.widening and (
            len(self.widening) != self.num_levels or min(self.widening) < 1
        ):
            raise ValueError(
                f"widening must hold one positive factor for each of the "
                f"{self.num_levels} levels, finest first, got {self.widening}"
            )

    def _check_cycle(self) -> None:
        if not self.cycle or any(len(c) != 2 or min(c) < 0 for c in self.cycle):
            raise ValueError(
                "cycle must hold one pair (pre, post) of step counts per level, finest "
                f"first, got {self.cycle}"
            )
        if self.cycle[0][0] < 1:
            raise ValueError(
                f"cycle must start with at least one pre-smoothing step on the finest "
                f"level, got {self.cycle[0]}"
            )
        if self.cycle[-1][0] < 1:
            raise ValueError(
                "cycle must have a pre-smoothing step on the coarsest level, whose "
                f"restricted data would act on nothing, got {self.cycle[-1]}"
            )
        if self.cycle[-1][1] != 0:
            raise ValueError(
                "cycle must have no post-smoothing on the coarsest level, where it "
                f"would never run, got {self.cycle[-1]}"
            )

    @classmethod
    def fitted(
        cls,
        cycle: Sequence[Sequence[int]],
        grid: Sequence[int],
        coarsest: int,
        **settings,
    ) -> "CycleSettings":
        """Settings with as many levels as `grid` needs, by steps on the finest.

        Args:
            cycle: smoothing steps per level. Its first pair, that of the finest level,
                is repeated, or pairs are dropped from the second on, until the
                coarsest level is the last with `coarsest` points on every axis.
            grid: points per axis of the finest level.
            coarsest: fewest points per axis, at least 2; 0 takes `cycle` as it is.
            settings: the other attributes.

        Raises:
            ValueError: if coarsest is 1 or negative, or another setting misfits.
        """
        if coarsest != 0 and coarsest < 2:
            raise ValueError(f"coarsest must be 0 or at least 2, got {coarsest}")
        if not all(isinstance(steps, Sequence) for steps in cycle):
            raise ValueError(
                "cycle must hold one pair (pre, post) of step counts per level, finest "
                f"first, such as ((1, 0), (2, 0)), got {cycle}"
            )
        cycle = tuple(tuple(steps) for steps in cycle)
        if coarsest and cycle and grid:
            num, points = 1, min(grid)
            while (points := _coarser(points, settings.get("boundary"))) >= coarsest:
                num += 1
            if num > len(cycle):
                cycle = cycle[:1] * (num - len(cycle)) + cycle
            else:
                cycle = cycle[:1] * (num > 1) + cycle[-max(num - 1, 1) :]
        return cls(cycle, **settings)

    @property
    def num_levels(self) -> int:
        """Number of grids."""
        return len(self.cycle)

    def level_channels(self, channels: int) -> tuple[int, ...]:
        """Channels per level, finest first, for `channels` on the finest."""
        factors = self.widening or (1,) * self.num_levels
        return tuple(factor * channels for factor in factors)

    def level_grids(self, grid: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
        """Points per axis on every level, finest first.

        Raises:
            ValueError: if grid does not hold one to three sizes, or a level would have
                fewer than 2 points along an axis, or prolongation "wrap" would meet
                an odd level.
        """
        if len(grid) not in (1, 2, 3):
            raise ValueError(
                f"grid must hold the sizes of 1, 2 or 3 axes, got {tuple(grid)}"
            )
        grids = [tuple(grid)]
        for _ in range(self.num_levels - 1):
            grids.append(tuple(_coarser(n, self.boundary) for n in grids[-1]))
        if min(min(g) for g in grids) < 2:
            raise ValueError(
                f"grid {tuple(grid)} is too small for {self.num_levels} levels with "
                f"boundary {self.boundary!r}: every level needs 2 points per axis, but "
                f"the levels are {' '.join('x'.join(map(str, g)) for g in grids)}; "
                "shorten `cycle` or use a finer grid"
            )
        self._check_wrap(grid)
        return tuple(grids)

    def _check_wrap(self, grid: tuple[int, ...]) -> None:
        cell = 2 ** (self.num_levels - 1)
        if self.prolongation == "wrap" and any(n % cell for n in grid):
            fitting = tuple(math.ceil(n / cell) * cell for n in grid)
            raise ValueError(
                f'prolongation "wrap" on {self.num_levels} levels needs grids that are '
                f"multiples of {cell} points per axis, got {tuple(grid)}; the next "
                f"that fits is {fitting}"
            )

    def prolongation_sizes(self, grid: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
        """Taps per axis of every prolongation, finest transition first."""
        fine = self.level_grids(grid)[:-1]
        if self.sizes == "crop":
            return ((4,) * len(grid),) * len(fine)
        return tuple(tuple(3 if n % 2 else 4 for n in g) for g in fine)
