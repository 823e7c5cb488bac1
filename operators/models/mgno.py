"""MgNO: layers whose linear part is a learned multigrid V-cycle."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from operators.layers import activations
from operators.layers.convolution import Convolution
from operators.layers.multigrid import CycleSettings, VCycle


class MgNO(nnx.Module):
    """Multigrid neural operator, u <- GELU(V_k u + C_k u + b_k), then a projection.

    V_k is a V-cycle of convolutions, C_k a pointwise linear map, b_k a number per
    channel. There is no lifting: the first cycle reads the input channels. The last
    pointwise map has no bias. Defaults are those of the released Darcy model.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        grid: points per axis (n1, n2). With sizes="official" the parameters fit only
            grids with the same odd and even levels; with "crop" any grid.
        channels: channels of the hidden layers, on all levels.
        num_layers: number of V-cycles.
        cycle: smoothing steps (pre, post) per level, finest first.
        boundary: "zero", "reflect" or "periodic".
        sizes: "official" or "crop"; see `CycleSettings`.
        prolongation: "official" or "wrap"; see `CycleSettings`.
        activation: name of the activation between layers; "gelu" is the exact one.
        use_bias: whether the smoothing convolutions have biases (then V_k is affine).
        param_dtype: dtype of the parameters; the model computes in its input's dtype.
        rngs: random streams; draws from `params`.

    Raises:
        ValueError: if an argument does not fit.

    References:
        He, Liu, Xu (2024), MgNO: Efficient Parameterization of Linear Operators via
        Multigrid, arXiv:2310.19809.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        grid: Sequence[int],
        channels: int = 24,
        num_layers: int = 5,
        cycle: Sequence[Sequence[int]] = (*((1, 0),) * 5, (2, 0)),
        boundary: str = "zero",
        sizes: str = "official",
        prolongation: str = "official",
        activation: str = "gelu",
        use_bias: bool = False,
        param_dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.in_channels = in_channels
        self.grid = tuple(grid)
        self.settings = CycleSettings(
            tuple(tuple(steps) for steps in cycle), boundary, sizes, prolongation
        )
        self.activation = activations.get(activation)
        widths = [in_channels, *[channels] * num_layers]
        options = {"param_dtype": param_dtype, "rngs": rngs}
        self.cycles = nnx.List(
            VCycle(
                width,
                channels,
                settings=self.settings,
                grid=self.grid,
                use_bias=use_bias,
                **options,
            )
            for width in widths[:-1]
        )
        self.skips = nnx.List(
            Convolution(width, channels, 1, use_bias=True, **options)
            for width in widths[:-1]
        )
        self.projection = Convolution(widths[-1], out_channels, 1, **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x [batch, n1, n2, in_channels] to [batch, n1, n2, out_channels].

        Raises:
            ValueError: if x has the wrong channels, or a grid the parameters misfit.
        """
        self._check(x)
        for cycle, skip in zip(self.cycles, self.skips, strict=True):
            x = self.activation(cycle(x) + skip(x))
        return self.projection(x)

    def _check(self, x: jax.Array) -> None:
        if x.ndim != 4 or x.shape[-1] != self.in_channels:
            raise ValueError(
                f"x must have shape [batch, n1, n2, {self.in_channels}], got {x.shape}"
            )
        sizes = self.settings.prolongation_sizes
        if sizes(x.shape[1:3]) != sizes(self.grid):
            raise ValueError(
                f"x has grid {x.shape[1:3]}, but this model was built for grid "
                f"{self.grid} and its prolongations fit only grids with the same odd "
                'and even levels; build it with sizes="crop" for other grids'
            )
