"""Maps of the channels that are the same at every point of the domain."""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from operators.layers import activations
from operators.layers.convolution import convolve, uniform_fan_in


class Pointwise(nnx.Module):
    """The same linear map at every point, initialised as PyTorch's 1 x 1 convolution.

    Computes in the dtype of its input, on any number of axes.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        use_bias: whether to add one number per output channel.
        param_dtype: dtype of the parameters.
        rngs: random streams; draws from `params`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        use_bias: bool = True,
        param_dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        def draw(*shape):
            return nnx.Param(
                uniform_fan_in(rngs.params(), shape, in_channels, param_dtype)
            )

        self.kernel = draw(in_channels, out_channels)
        self.bias = nnx.data(draw(out_channels) if use_bias else None)

    def __call__(self, u: jax.Array) -> jax.Array:
        """Maps u [batch, *grid, in_channels] to [batch, *grid, out_channels]."""
        batch, *leading, n, channels = u.shape
        kernel = self.kernel[...].astype(u.dtype)
        rows = u.reshape(batch, math.prod(leading), n, channels)
        out = convolve(rows, kernel[None, None]).reshape(*u.shape[:-1], -1)
        if self.bias is not None:
            bias = self.bias[...].astype(u.dtype)
            out = out + bias.reshape((1,) * (u.ndim - 1) + (-1,))
        return out


class ChannelMLP(nnx.Module):
    """Two pointwise linear maps with an activation between them: u -> B act(A u).

    Args:
        in_channels: channels of the input.
        hidden: channels between the two maps.
        out_channels: channels of the output.
        activation: name of the activation; "gelu" is the exact one.
        use_bias: whether both maps add one number per channel.
        param_dtype: dtype of the parameters.
        rngs: random streams; draws from `params`.

    Raises:
        ValueError: for an unknown activation.
    """

    def __init__(
        self,
        in_channels: int,
        hidden: int,
        out_channels: int,
        *,
        activation: str = "gelu",
        use_bias: bool = True,
        param_dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        options = {"use_bias": use_bias, "param_dtype": param_dtype, "rngs": rngs}
        self.activation = activations.get(activation)
        self.inner = Pointwise(in_channels, hidden, **options)
        self.outer = Pointwise(hidden, out_channels, **options)

    def __call__(self, u: jax.Array) -> jax.Array:
        """Maps u [batch, *grid, in_channels] to [batch, *grid, out_channels]."""
        return self.outer(self.activation(self.inner(u)))
