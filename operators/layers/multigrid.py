"""The learned V-cycle: a linear operator on grid functions, by multigrid."""

import itertools

import jax
import jax.numpy as jnp
from flax import nnx

from operators.layers.convolution import Convolution, TransposedConvolution
from operators.layers.cycle_settings import CycleSettings
from operators.layers.normalization import GroupNorm

_SMOOTHING = {"zero": "zero", "reflect": "reflect", "periodic": "wrap"}
_RESTRICTION = {"zero": "zero", "reflect": "valid", "periodic": "wrap"}


class SmoothingStep(nnx.Module):
    """One learned smoothing iteration u + S(f - A u) on one grid level.

    A step given no u starts from u = 0 and is S f.

    Args:
        f_channels: channels of f, the data.
        u_channels: channels of u, the solution.
        has_A: whether the step owns A; without it every step starts from zero.
        options: keyword arguments of both convolutions.

    References:
        He, Liu, Xu (2024), MgNO, arXiv:2310.19809.
    """

    def __init__(self, f_channels: int, u_channels: int, *, has_A: bool, **options):
        self.S = Convolution(f_channels, u_channels, 3, **options)
        self.A = nnx.data(
            Convolution(u_channels, f_channels, 3, **options) if has_A else None
        )

    def __call__(self, u: jax.Array | None, f: jax.Array) -> jax.Array:
        """Maps u [batch, *grid, u_channels] and f [.., f_channels] to the next u."""
        if u is None:
            return self.S(f)
        return u + self.S(f - self.A(u))


class VCycle(nnx.Module):
    """Multi-channel V-cycle from f [.., in_channels] to u [.., out_channels].

    On every level live a solution u and data f. Down: smooth, store (u, f), restrict u
    by Pi and f by R (by default f itself, not the residual). Up: add the prolonged
    solution to the stored u, normalise if asked to, smooth with the stored f. No two
    steps share a kernel. Without biases and norms the map is linear, whatever the
    boundary.

    Args:
        in_channels: channels of f on the finest level.
        out_channels: channels of u on the finest level.
        settings: levels, smoothing steps, boundary, sizes, channels per level, norms.
        grid: points per axis of the finest level.
        param_dtype: dtype of the parameters.
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
        grid: tuple[int, ...],
        param_dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.settings = settings
        f = settings.level_channels(in_channels)
        u = settings.level_channels(out_channels)
        options = {"param_dtype": param_dtype, "rngs": rngs}
        smoothing = options | {
            "num_axes": len(grid),
            "padding": _SMOOTHING[settings.boundary],
            "use_bias": settings.use_bias,
        }

        def steps(level: int, count: int, first: bool = False) -> nnx.List:
            return nnx.List(
                SmoothingStep(
                    f[level],
                    u[level],
                    has_A=not (first and level == i == 0) or settings.unused_first_A,
                    **smoothing,
                )
                for i in range(count)
            )

        def restrictions(channels: tuple[int, ...]) -> nnx.List:
            padding = _RESTRICTION[settings.boundary]
            return nnx.List(
                Convolution(
                    fine,
                    coarse,
                    3,
                    num_axes=len(grid),
                    stride=2,
                    padding=padding,
                    **options,
                )
                for fine, coarse in itertools.pairwise(channels)
            )

        cycle, sizes = settings.cycle, settings.prolongation_sizes(grid)
        self.pre = nnx.List(
            steps(i, pre, first=True) for i, (pre, _) in enumerate(cycle)
        )
        self.post = nnx.List(steps(i, post) for i, (_, post) in enumerate(cycle[:-1]))
        self.Pi, self.R = restrictions(u), restrictions(f)
        self.P = nnx.List(
            TransposedConvolution(
                u[i + 1],
                u[i],
                size,
                crop=0 if settings.boundary == "reflect" else 1,
                padding="wrap" if settings.prolongation == "wrap" else "zero",
                **options,
            )
            for i, size in enumerate(sizes)
        )
        self.A = self.norms = nnx.data(None)
        if settings.restriction == "residual":
            self.A = nnx.List(
                Convolution(u[i], f[i], 3, **smoothing) for i in range(len(sizes))
            )
        if settings.norm == "prolongation":
            grids = settings.level_grids(grid)[:-1]
            self.norms = nnx.List(
                layer_norm(u[i], g, settings, **options) for i, g in enumerate(grids)
            )

    def __call__(self, f: jax.Array) -> jax.Array:
        """Maps f [batch, *grid, in_channels] to u [batch, *grid, out_channels]."""
        u, stored = None, []
        for level, steps in enumerate(self.pre):
            if level > 0:
                r = f if self.A is None else f - self.A[level - 1](u)
                u, f = self.Pi[level - 1](u), self.R[level - 1](r)
            for step in steps:
                u = step(u, f)
            stored.append((u, f))
        for level in reversed(range(len(self.post))):
            fine, f = stored[level]
            points = (slice(None), *(slice(n) for n in fine.shape[1:-1]))
            u = fine + self.P[level](u)[points]
            if self.norms is not None:
                u = self.norms[level](u)
            for step in self.post[level]:
                u = step(u, f)
        return u


def layer_norm(
    channels: int, grid: tuple[int, ...], settings: CycleSettings, **options
) -> GroupNorm:
    """PyTorch's LayerNorm over all points and channels of a sample.

    Its scale and shift follow `settings.norm_affine`: one pair per point and channel
    of `grid`, one per channel, or none.
    """
    affine_grid = {"grid": grid, "channel": (), "none": None}[settings.norm_affine]
    return GroupNorm(channels, affine_grid=affine_grid, **options)
