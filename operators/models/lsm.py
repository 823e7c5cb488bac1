"""LSM: a U-Net whose skip connections pass through latent spectral blocks."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from operators.layers.neural_spectral import NeuralSpectralBlock
from operators.models.unet import UNet


class LSM(UNet):
    """Latent spectral model: `UNet` with a `NeuralSpectralBlock` on every skip.

    Blocks act on the coarsest scale too. On all scales the patches have the same
    number of points, so that they cover twice the length on the next coarser one. Zeros
    fill the grid at the high end of each axis until the patches tile every scale.
    Defaults are those of the released Darcy model.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        num_axes: axes of the grid, one to three.
        channels: channels at the finest scale; doubled per scale except the last.
        num_scales: number of grids.
        patch_size: points of a patch per axis; () takes patches_per_axis instead.
        patches_per_axis: patches along each axis of the finest grid, a multiple of
            2^(num_scales - 1). Patches then cover the same part of the domain on all
            grids whose points this number divides; on others the points of a patch are
            rounded up, so that patches are up to one point longer, and the last ones
            lie in the zeros. With 16, patches are 1.13 sixteenths of the domain long
            on 85 points, 1.02 on 141, 1.06 on 211, 1.03 on 421 and 1.45 on 33. On the
            grids of the released models they are the released ones.
        num_heads: heads of the attentions; divides channels.
        num_tokens: latent tokens per patch.
        num_basis: sines and cosines per channel of a latent.
        basis: "official" or "integer" frequencies; see `NeuralSpectralBlock`.
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
        Wu, Hu, Luo, Wang, Long (2023), Solving High-Dimensional PDEs with Latent
        Spectral Models, arXiv:2301.12664; released code commit d5a0b40.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        num_axes: int = 2,
        channels: int = 64,
        num_scales: int = 5,
        patch_size: Sequence[int] = (),
        patches_per_axis: int = 16,
        num_heads: int = 8,
        num_tokens: int = 4,
        num_basis: int = 12,
        basis: str = "official",
        norm: str = "batch",
        num_groups: int = 1,
        coordinates: str = "grid",
        activation: str = "relu",
        lifting_hidden: int = 0,
        projection_hidden: int = 128,
        param_dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            in_channels=in_channels, out_channels=out_channels, num_axes=num_axes,
            channels=channels, num_scales=num_scales, norm=norm,
            num_groups=num_groups, coordinates=coordinates, activation=activation,
            lifting_hidden=lifting_hidden, projection_hidden=projection_hidden,
            param_dtype=param_dtype, rngs=rngs,
        )  # fmt: skip
        cell = 2 ** (num_scales - 1)
        if patch_size and (len(patch_size) != num_axes or min(patch_size) < 1):
            raise ValueError(
                f"patch_size must hold {num_axes} positive numbers of points, got "
                f"{tuple(patch_size)}"
            )
        if not patch_size and (patches_per_axis < 1 or patches_per_axis % cell):
            raise ValueError(
                f"patches_per_axis must be a multiple of {cell}, so that patches tile "
                f"all {num_scales} scales, got {patches_per_axis}"
            )
        self.patch_size, self.patches_per_axis = tuple(patch_size), patches_per_axis
        self.blocks = nnx.List(
            NeuralSpectralBlock(
                width, num_heads=num_heads, num_tokens=num_tokens, num_basis=num_basis,
                basis=basis, param_dtype=param_dtype, rngs=rngs,
            )
            for width in self.backbone.channels
        )  # fmt: skip

    def patch(self, grid: Sequence[int]) -> tuple[int, ...]:
        """Points of a patch per axis, for an input on this grid."""
        if self.patch_size:
            return self.patch_size
        return tuple(math.ceil(n / self.patches_per_axis) for n in grid)

    def padded_grid(self, grid: tuple[int, ...]) -> tuple[int, ...]:
        """Points per axis of the grid that the U-Net sees."""
        cell = 2 ** (self.backbone.num_scales - 1)
        if not self.patch_size:
            return tuple(p * self.patches_per_axis for p in self.patch(grid))
        return tuple(
            math.ceil(n / (p * cell)) * p * cell
            for n, p in zip(grid, self.patch_size, strict=True)
        )

    def skip(self, scale: int, v: jax.Array, padded: tuple[int, ...]) -> jax.Array:
        """The block of one scale."""
        return self.blocks[scale](v, self.patch(padded))
