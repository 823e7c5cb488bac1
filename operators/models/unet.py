"""U-Net as a baseline: the backbone of LSM without its spectral blocks."""

import jax
import jax.numpy as jnp
from flax import nnx

from operators.layers import coordinates as grid_coordinates
from operators.layers.pointwise import ChannelMLP, Pointwise
from operators.layers.unet import UNetBackbone


class UNet(nnx.Module):
    """Pointwise lifting, a convolutional U-Net, a pointwise two-layer projection.

    Zeros fill the grid at the high end of each axis up to a multiple of
    2^(num_scales - 1) points and are dropped again. The stencils are fixed in points:
    on another grid this is another operator.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        num_axes: axes of the grid, one to three.
        channels: channels at the finest scale; doubled per scale except the last.
        num_scales: number of grids.
        norm: "batch", "instance", "instance_affine", "group", "layer" or "none".
        num_groups: groups of channels for norm "group"; divides channels.
        coordinates: channels appended to the input: "grid" (0 to 1, both ends
            included), "periodic" or "none".
        activation: name of the activation in the U-Net.
        lifting_hidden: hidden channels of a two-layer lifting; 0 lifts linearly.
        projection_hidden: hidden channels of the projection.
        param_dtype: dtype of the parameters; the model computes in its input's dtype.
        rngs: random streams; draws from `params`.

    Raises:
        ValueError: if an argument does not fit.

    References:
        Ronneberger, Fischer, Brox (2015), U-Net, arXiv:1505.04597; Wu et al. (2023),
        arXiv:2301.12664, for the widths.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        num_axes: int = 2,
        channels: int = 64,
        num_scales: int = 5,
        norm: str = "batch",
        num_groups: int = 1,
        coordinates: str = "grid",
        activation: str = "relu",
        lifting_hidden: int = 0,
        projection_hidden: int = 128,
        param_dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.in_channels, self.out_channels = in_channels, out_channels
        self.num_axes, self.coordinates = num_axes, coordinates
        options = {"param_dtype": param_dtype, "rngs": rngs}
        inputs = in_channels + grid_coordinates.num_channels(coordinates, num_axes)
        self.backbone = UNetBackbone(
            channels, num_axes=num_axes, num_scales=num_scales, norm=norm,
            num_groups=num_groups, activation=activation, **options,
        )  # fmt: skip
        if lifting_hidden:
            self.lifting = ChannelMLP(inputs, lifting_hidden, channels, **options)
        else:
            self.lifting = Pointwise(inputs, channels, **options)
        self.projection = ChannelMLP(
            channels, projection_hidden, out_channels, **options
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x [batch, *grid, in_channels] to [batch, *grid, out_channels].

        Raises:
            ValueError: if x has the wrong number of axes or channels.
        """
        if x.ndim != self.num_axes + 2 or x.shape[-1] != self.in_channels:
            axes = ", ".join(f"n{i + 1}" for i in range(self.num_axes))
            raise ValueError(
                f"x must have shape [batch, {axes}, {self.in_channels}], got {x.shape}"
            )
        grid = x.shape[1:-1]
        u = grid_coordinates.append(x, self.coordinates, endpoint=True)
        padded = self.padded_grid(grid)
        rest = [(0, m - n) for n, m in zip(grid, padded, strict=True)]
        u = jnp.pad(self.lifting(u), ((0, 0), *rest, (0, 0)))
        u = self.backbone(u, lambda scale, v: self.skip(scale, v, padded))
        return self.projection(u[(slice(None), *map(slice, grid))])

    def padded_grid(self, grid: tuple[int, ...]) -> tuple[int, ...]:
        """Points per axis of the grid that the U-Net sees."""
        cell = 2 ** (self.backbone.num_scales - 1)
        return tuple(-(-n // cell) * cell for n in grid)

    def skip(self, scale: int, v: jax.Array, padded: tuple[int, ...]) -> jax.Array:
        """What acts on the skip connection of one scale; here nothing."""
        del scale, padded
        return v
