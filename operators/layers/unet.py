"""The convolutional U-Net that LSM stands on: pooling down, linear resampling up."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from operators.layers import activations, normalization
from operators.layers.convolution import Convolution
from operators.layers.pointwise import Pointwise
from operators.layers.resampling import linear_resample


def max_pool(u: jax.Array) -> jax.Array:
    """Maximum over cells of two points per axis, [batch, *grid, channels] -> half."""
    for axis in range(1, u.ndim - 1):
        pairs = u.reshape(*u.shape[:axis], -1, 2, *u.shape[axis + 1 :])
        first, second = jnp.split(pairs, 2, axis=axis + 1)
        u = jnp.maximum(first, second).squeeze(axis + 1)
    return u


class DoubleConvolution(nnx.Module):
    """Twice a convolution of size 3, a normalisation and an activation.

    Args:
        in_channels: channels of the input.
        hidden: channels between the two convolutions.
        out_channels: channels of the output.
        num_axes: axes of the grid.
        norm: kind of normalisation, see `normalization.create`.
        num_groups: groups of channels for norm "group"; divides channels.
        activation: name of the activation.
        param_dtype: dtype of the parameters.
        rngs: random streams; draws from `params`.
    """

    def __init__(
        self,
        in_channels: int,
        hidden: int,
        out_channels: int,
        *,
        num_axes: int,
        norm: str,
        activation: str,
        num_groups: int = 1,
        param_dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        options = {"param_dtype": param_dtype, "rngs": rngs}
        self.convolutions = nnx.List(
            Convolution(a, b, 3, num_axes=num_axes, **options)
            for a, b in ((in_channels, hidden), (hidden, out_channels))
        )
        self.norms = nnx.List(
            normalization.create(norm, channels, num_groups=num_groups, **options)
            for channels in (hidden, out_channels)
        )
        self.activation = activations.get(activation)

    def __call__(self, u: jax.Array) -> jax.Array:
        """Maps u [batch, *grid, in_channels] to [batch, *grid, out_channels]."""
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            u = self.activation(norm(convolution(u)))
        return u


class UNetBackbone(nnx.Module):
    """U-Net with `channels` at the finest scale, doubled per scale except the last.

    Down: x_0 = D_0 u, x_{k+1} = D_{k+1} pool(x_k). Up from the coarsest scale:
    y_k = U_k [s_k(x_k), resampled y_{k+1}]; resampling is linear between the corners of
    the grid, and the s_k, identities here, are what a caller puts on the skips. A
    pointwise linear map ends it.

    Args:
        channels: channels of input, output and finest scale.
        num_axes: axes of the grid, one to three.
        num_scales: number of grids, each half of the one before.
        norm: kind of normalisation, see `normalization.create`.
        num_groups: groups of channels for norm "group"; divides channels.
        activation: name of the activation.
        param_dtype: dtype of the parameters.
        rngs: random streams; draws from `params`.

    Raises:
        ValueError: if an argument does not fit.

    References:
        Ronneberger, Fischer, Brox (2015), U-Net, arXiv:1505.04597; widths and order of
        operations are those of github.com/thuml/Latent-Spectral-Models.
    """

    def __init__(
        self,
        channels: int,
        *,
        num_axes: int = 2,
        num_scales: int = 5,
        norm: str = "batch",
        num_groups: int = 1,
        activation: str = "relu",
        param_dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        if num_axes not in (1, 2, 3):
            raise ValueError(f"num_axes must be 1, 2 or 3, got {num_axes}")
        if num_scales < 2:
            raise ValueError(f"num_scales must be at least 2, got {num_scales}")
        self.num_scales = num_scales
        # The last two are equal, since linear resampling cannot reduce channels.
        self.channels = tuple(
            channels * 2 ** min(k, num_scales - 2) for k in range(num_scales)
        )
        options = {"param_dtype": param_dtype, "rngs": rngs}

        def double(inputs: int, hidden: int, outputs: int) -> DoubleConvolution:
            return DoubleConvolution(
                inputs, hidden, outputs,
                num_axes=num_axes, norm=norm, num_groups=num_groups,
                activation=activation, **options,
            )  # fmt: skip

        inputs = (channels, *self.channels[:-1])
        self.down = nnx.List(
            double(a, b, b) for a, b in zip(inputs, self.channels, strict=True)
        )
        self.up = nnx.List(
            double(2 * width, width, inputs[k])
            for k, width in enumerate(self.channels[:-1])
        )
        self.projection = Pointwise(channels, channels, **options)

    def __call__(
        self,
        u: jax.Array,
        skip_fn: Callable[[int, jax.Array], jax.Array] = lambda scale, v: v,
    ) -> jax.Array:
        """Maps u [batch, *grid, channels] to the same shape.

        Args:
            u: field; every axis a multiple of 2^(num_scales - 1) points.
            skip_fn: maps (scale, v) to a field like v, on every skip connection and on
                the coarsest scale.

        Raises:
            ValueError: if a grid axis cannot be halved often enough.
        """
        cell = 2 ** (self.num_scales - 1)
        if any(n % cell for n in u.shape[1:-1]):
            raise ValueError(
                f"{self.num_scales} scales need grids that are multiples of {cell} "
                f"points per axis, got {u.shape[1:-1]}; pad the field or lower "
                "num_scales"
            )
        skips = []
        for scale, block in enumerate(self.down):
            u = block(max_pool(u) if scale else u)
            skips.append(skip_fn(scale, u))
        u = skips.pop()
        for block, skip in zip(reversed(self.up), reversed(skips), strict=True):
            u = linear_resample(u, skip.shape[1:-1])
            u = block(jnp.concatenate([skip, u], -1))
        return self.projection(u)
