"""The learned V-cycle: a linear operator on grid functions, by multigrid."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from operators.layers.convolution import Convolution, TransposedConvolution

BOUNDARIES = ("zero", "reflect", "periodic")
SIZES = ("official", "crop")
PROLONGATIONS = ("official", "wrap")


@dataclasses.dataclass(frozen=True)
class CycleSettings:
    """What fixes the shape of a V-cycle, apart from its channels.

    Attributes:
        cycle: smoothing steps (pre, post) per level, finest first.
        boundary: "zero" (Dirichlet): zeros outside; "reflect" (Neumann): smoothing
            reflects, restriction keeps only whole stencils; "periodic".
        sizes: "official" picks 3 or 4 taps of the prolongation by the parity of the
            finer grid, so parameter shapes depend on the grid; "crop" always has 4 and
            drops the last row or column of odd grids, one parameter set for all grids.
        prolongation: "official" treats values outside the coarse grid as zero for every
            boundary; "wrap" makes it exactly periodic.

    Raises:
        ValueError: for an unknown name, or a cycle with parameters that never act.
    """

    cycle: tuple[tuple[int, int], ...]
    boundary: str = "zero"
    sizes: str = "official"
    prolongation: str = "official"

    def __post_init__(self):
        for name, known in (
            ("boundary", BOUNDARIES),
            ("sizes", SIZES),
            ("prolongation", PROLONGATIONS),
        ):
            if (value := getattr(self, name)) not in known:
                raise ValueError(f"{name} is {value!r}; known: {', '.join(known)}")
        if self.prolongation == "wrap" and self.boundary != "periodic":
            raise ValueError(
                f'prolongation "wrap" needs boundary "periodic", got {self.boundary!r}'
            )
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
        if self.cycle[-1][1] != 0:
            raise ValueError(
                "cycle must have no post-smoothing on the coarsest level, where it "
                f"would never run, got {self.cycle[-1]}"
            )

    @property
    def num_levels(self) -> int:
        """Number of grids."""
        return len(self.cycle)

    def level_grids(self, grid: tuple[int, int]) -> tuple[tuple[int, int], ...]:
        """Points per axis on every level, finest first.

        Raises:
            ValueError: if grid does not hold two sizes, or a level would have fewer
                than 2 points along an axis.
        """
        if len(grid) != 2:
            raise ValueError(f"grid must hold two sizes (n1, n2), got {tuple(grid)}")
        grids = [tuple(grid)]
        for _ in range(self.num_levels - 1):
            if self.boundary == "reflect":
                grids.append(tuple((n - 1) // 2 for n in grids[-1]))
            else:
                grids.append(tuple((n + 1) // 2 for n in grids[-1]))
        if min(min(g) for g in grids) < 2:
            raise ValueError(
                f"grid {tuple(grid)} is too small for {self.num_levels} levels with "
                f"boundary {self.boundary!r}: every level needs 2 points per axis, but "
                f"the levels are {' '.join('x'.join(map(str, g)) for g in grids)}; "
                "shorten `cycle` or use a finer grid"
            )
        return tuple(grids)

    def prolongation_sizes(self, grid: tuple[int, int]) -> tuple[tuple[int, int], ...]:
        """Taps per axis of every prolongation, finest transition first."""
        fine = self.level_grids(grid)[:-1]
        if self.sizes == "crop":
            return ((4, 4),) * len(fine)
        return tuple(tuple(3 if n % 2 else 4 for n in g) for g in fine)


class SmoothingStep(nnx.Module):
    """One learned smoothing iteration u + S(f - A u) on one grid level.

    Args:
        f_channels: channels of f, the data.
        u_channels: channels of u, the solution.
        starts_from_zero: the step starts from u = 0, is S f and owns no A.
        padding: padding of the two 3 x 3 convolutions.
        use_bias: whether S and A have a bias (the step is affine then).
        param_dtype: dtype of the kernels.
        rngs: random streams; draws from `params`.

    References:
        He, Liu, Xu (2024), MgNO, arXiv:2310.19809.
    """

    def __init__(
        self,
        f_channels: int,
        u_channels: int,
        *,
        starts_from_zero: bool,
        padding: str,
        use_bias: bool,
        param_dtype,
        rngs: nnx.Rngs,
    ):
        options = {
            "padding": padding,
            "use_bias": use_bias,
            "param_dtype": param_dtype,
            "rngs": rngs,
        }
        self.S = Convolution(f_channels, u_channels, 3, **options)
        self.A = nnx.data(
            None
            if starts_from_zero
            else Convolution(u_channels, f_channels, 3, **options)
        )

    def __call__(self, u: jax.Array | None, f: jax.Array) -> jax.Array:
        """Maps u [batch, n1, n2, u_channels] and f [.., f_channels] to the next u."""
        if self.A is None:
            return self.S(f)
        return u + self.S(f - self.A(u))


class VCycle(nnx.Module):
    """Multi-channel V-cycle from f [.., in_channels] to u [.., out_channels].

    On every level live a solution u and data f. Down: smooth, store (u, f), restrict u
    by Pi and f by R (f itself, not the residual). Up: add the prolonged solution to the
    stored u, smooth with the stored f. No two steps share a kernel. Without biases the
    map is linear, whatever the boundary.

    Args:
        in_channels: channels of f on every level.
        out_channels: channels of u on every level.
        settings: levels, smoothing steps, boundary and sizes.
        grid: points per axis (n1, n2) of the finest level.
        use_bias: whether the smoothing convolutions have biases.
        param_dtype: dtype of the kernels.
        rngs: random streams; draws from `params`.

    References:
        He, Liu, Xu (2024), MgNO, arXiv:2310.19809; the order of operations is that of
        the released code (github.com/xlliu2017/MgNO, commit 3a68a90).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        settings: CycleSettings,
        grid: tuple[int, int],
        use_bias: bool = False,
        param_dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.settings = settings
        boundary = settings.boundary
        smoothing = {"zero": "zero", "reflect": "reflect", "periodic": "wrap"}[boundary]
        restriction = {"zero": "zero", "reflect": "valid", "periodic": "wrap"}[boundary]

        def steps(level: int, count: int, first: bool = False) -> nnx.List:
            return nnx.List(
                SmoothingStep(
                    in_channels,
                    out_channels,
                    starts_from_zero=first and level == 0 and i == 0,
                    padding=smoothing,
                    use_bias=use_bias,
                    param_dtype=param_dtype,
                    rngs=rngs,
                )
                for i in range(count)
            )

        def restrict(channels: int) -> Convolution:
            return Convolution(
                channels,
                channels,
                3,
                stride=2,
                padding=restriction,
                param_dtype=param_dtype,
                rngs=rngs,
            )

        cycle = settings.cycle
        sizes = settings.prolongation_sizes(grid)
        self.pre = nnx.List(
            steps(i, pre, first=True) for i, (pre, _) in enumerate(cycle)
        )
        self.post = nnx.List(steps(i, post) for i, (_, post) in enumerate(cycle[:-1]))
        self.Pi = nnx.List(restrict(out_channels) for _ in sizes)
        self.R = nnx.List(restrict(in_channels) for _ in sizes)
        self.P = nnx.List(
            TransposedConvolution(
                out_channels,
                out_channels,
                size,
                crop=0 if boundary == "reflect" else 1,
                padding="wrap" if settings.prolongation == "wrap" else "zero",
                param_dtype=param_dtype,
                rngs=rngs,
            )
            for size in sizes
        )

    def __call__(self, f: jax.Array) -> jax.Array:
        """Maps f [batch, n1, n2, in_channels] to u [batch, n1, n2, out_channels]."""
        u, stored = None, []
        for level, steps in enumerate(self.pre):
            if level > 0:
                u, f = self.Pi[level - 1](u), self.R[level - 1](f)
            for step in steps:
                u = step(u, f)
            stored.append((u, f))
        for level in reversed(range(len(self.post))):
            fine, f = stored[level]
            u = fine + self.P[level](u)[:, : fine.shape[1], : fine.shape[2]]
            for step in self.post[level]:
                u = step(u, f)
        return u
