"""Maps of the channels that are the same at every point of the domain."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from operators.layers import activations
from operators.layers import precision as precisions
from operators.layers.convolution import uniform_fan_in

# Numbers of a hidden field that a core's cache keeps between two products.
_CACHED_NUMBERS = 2**18


def in_pieces(
    function: Callable[..., jax.Array], hidden: int, *fields: jax.Array
) -> jax.Array:
    """Applies a pointwise map to some points after the other, the same result.

    On a CPU the hidden values of all points together leave the cache between any two
    operations; those of a piece stay. Gradients compute them again, piece by piece,
    which takes less time than to store and read them. Elsewhere, and for few points,
    the map is applied at once.

    Args:
        function: maps [1, points, channels] of every field to [1, points, channels].
        hidden: channels of the widest value between.
        *fields: [batch, *grid, channels] with the same batch and grid.

    Returns:
        [batch, *grid, channels].
    """
    shape = fields[0].shape[:-1]
    points = math.prod(shape)
    num = num_pieces(points, hidden) if jax.default_backend() == "cpu" else 1
    pieces = [u.reshape(num, 1, points // num, u.shape[-1]) for u in fields]
    if num == 1:
        out = function(*(u[0] for u in pieces))
    else:
        out = jax.lax.map(jax.checkpoint(lambda us: function(*us)), tuple(pieces))
    return out.reshape(*shape, out.shape[-1])


def num_pieces(points: int, hidden: int) -> int:
    """Equal pieces of which the hidden values fit the cache, if there are such.

    At most twice as many as needed, else one.
    """
    least = -(-points * hidden // _CACHED_NUMBERS)
    if least < 4:
        return 1
    return next((n for n in range(least, 2 * least) if points % n == 0), 1)


class Pointwise(nnx.Module):
    """The same linear map at every point, initialised as PyTorch's 1 x 1 convolution.

    Computes in the dtype of its input, on any number of axes.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        use_bias: whether to add one number per output channel.
        precision: of the product, see `operators.layers.precision.einsum`.
        param_dtype: dtype of the parameters.
        rngs: random streams; draws from `params`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        use_bias: bool = True,
        precision: str = "full",
        param_dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        def draw(*shape):
            return nnx.Param(
                uniform_fan_in(rngs.params(), shape, in_channels, param_dtype)
            )

        self.precision = precisions.check(precision)
        self.kernel = draw(in_channels, out_channels)
        self.bias = nnx.data(draw(out_channels) if use_bias else None)

    def __call__(self, u: jax.Array) -> jax.Array:
        """Maps u [batch, *grid, in_channels] to [batch, *grid, out_channels].

        Raises:
            TypeError: if u holds no floating-point numbers.
        """
        precisions.check_floating("u", u)
        kernel = self.kernel[...].astype(u.dtype)
        rows = u.reshape(math.prod(u.shape[:-1]), u.shape[-1])
        out = precisions.einsum("pc,cd->pd", rows, kernel, self.precision)
        out = out.reshape(*u.shape[:-1], kernel.shape[1])
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
        precision: of the products, see `operators.layers.precision.einsum`.
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
        precision: str = "full",
        param_dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        options = {
            "use_bias": use_bias,
            "precision": precision,
            "param_dtype": param_dtype,
            "rngs": rngs,
        }
        self.activation = activations.get(activation)
        self.inner = Pointwise(in_channels, hidden, **options)
        self.outer = Pointwise(hidden, out_channels, **options)

    def __call__(self, u: jax.Array) -> jax.Array:
        """Maps u [batch, *grid, in_channels] to [batch, *grid, out_channels]."""
        return self.outer(self.activation(self.inner(u)))


class SoftGating(nnx.Module):
    """One learned factor per channel, 1 at the start.

    Args:
        channels: channels of input and output.
        param_dtype: dtype of the factors.
    """

    def __init__(self, channels: int, *, param_dtype=jnp.float32):
        self.weight = nnx.Param(jnp.ones((channels,), param_dtype))

    def __call__(self, u: jax.Array) -> jax.Array:
        """Maps u [batch, *grid, channels] to the same shape."""
        weight = self.weight[...].astype(u.dtype)
        return u * weight.reshape((1,) * (u.ndim - 1) + (-1,))


SKIPS = ("linear", "identity", "soft_gating", "none")


def create_skip(
    kind: str,
    in_channels: int,
    out_channels: int,
    *,
    use_bias: bool = False,
    precision: str = "full",
    param_dtype=jnp.float32,
    rngs: nnx.Rngs,
) -> nnx.Module | None:
    """Builds a skip connection: a pointwise map of the input of a layer.

    Args:
        kind: "linear", "identity" (in = out), "soft_gating" (in = out) or "none".
        in_channels: channels of the input.
        out_channels: channels of the output.
        use_bias: whether the linear map adds one number per channel.
        precision: of the product, see `operators.layers.precision.einsum`.
        param_dtype: dtype of the parameters.
        rngs: random streams; draws from `params`.

    Returns:
        The map; None for "none".

    Raises:
        ValueError: for an unknown kind, or one that cannot change the channels.
    """
    if kind not in SKIPS:
        raise ValueError(f"skip is {kind!r}; known: {', '.join(SKIPS)}")
    if kind in ("identity", "soft_gating") and in_channels != out_channels:
        raise ValueError(
            f"skip {kind!r} keeps the channels, got {in_channels} -> {out_channels}; "
            "take 'linear'"
        )
    if kind == "linear":
        return Pointwise(
            in_channels,
            out_channels,
            use_bias=use_bias,
            precision=precision,
            param_dtype=param_dtype,
            rngs=rngs,
        )
    if kind == "soft_gating":
        return SoftGating(in_channels, param_dtype=param_dtype)
    return Identity() if kind == "identity" else None


class Identity(nnx.Module):
    """Returns its input."""

    def __call__(self, u: jax.Array) -> jax.Array:
        """Returns u."""
        return u
