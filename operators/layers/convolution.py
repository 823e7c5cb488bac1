"""Convolutions with the padding of a boundary condition, and their transposes."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

PADDINGS = ("zero", "reflect", "wrap", "valid")
_PAD_MODES = {"reflect": "reflect", "wrap": "wrap"}
_NHWC = ("NHWC", "HWIO", "NHWC")


def uniform_fan_in(key: jax.Array, shape: tuple[int, ...], fan_in: int, dtype):
    """Draws PyTorch's default weights, uniform on +-1 / sqrt(fan_in)."""
    bound = 1 / np.sqrt(fan_in)
    return jax.random.uniform(key, shape, dtype, -bound, bound)


def pad(u: jax.Array, width: int, padding: str) -> jax.Array:
    """Extends u [batch, n1, n2, channels] by `width` points on all four sides."""
    widths = ((0, 0), (width, width), (width, width), (0, 0))
    if padding == "zero":
        return jnp.pad(u, widths)
    return jnp.pad(u, widths, mode=_PAD_MODES[padding])


def convolve(
    u: jax.Array, kernel: jax.Array, *, stride: int = 1, padding: str = "zero"
) -> jax.Array:
    """Correlates u with a kernel of odd size, centred on every stride-th point.

    Never `SAME`: with stride 2 on an even grid that pads (0, 1), where the model needs
    (1, 1).

    Args:
        u: [batch, n1, n2, in_channels].
        kernel: [k, k, in_channels, out_channels].
        stride: distance of output points.
        padding: values outside the grid: "zero", "reflect" (end points not repeated),
            "wrap"; "valid" keeps outputs whose stencil lies inside.

    Returns:
        [batch, ceil(n1 / stride), ceil(n2 / stride), out_channels], or
        (n - k) // stride + 1 points per axis for "valid".
    """
    width = kernel.shape[0] // 2
    explicit = (0, 0)
    if padding == "zero":
        explicit = (width, width)  # the same sums as padding first, without the copy
    elif padding != "valid" and width > 0:
        u = pad(u, width, padding)
    return lax.conv_general_dilated(
        u, kernel, (stride, stride), (explicit, explicit), dimension_numbers=_NHWC
    )


def transposed_convolve(
    u: jax.Array, kernel: jax.Array, *, crop: int, padding: str = "zero"
) -> jax.Array:
    """Transpose of a stride-2 correlation: out[2j - crop + t] += u[j] kernel[t].

    Computed on the coarse grid: the four parities of output points need 2 x 2 taps
    each, so one 2 x 2 convolution with four times the output channels, interleaved,
    does all of it. The textbook form inserts zeros between the points of u and
    multiplies by them, three times out of four.

    Args:
        u: [batch, m1, m2, in_channels].
        kernel: [k1, k2, in_channels, out_channels], k 3 or 4 on each axis.
        crop: points dropped on both ends of each axis (PyTorch's `padding`), 0 or 1.
        padding: values of u outside its grid, "zero" or "wrap" (periodic).

    Returns:
        [batch, 2 m1 + k1 - 2 - 2 crop, 2 m2 + k2 - 2 - 2 crop, out_channels].
    """
    batch, m1, m2, in_channels = u.shape
    k1, k2, _, out_channels = kernel.shape
    kernel = jnp.pad(kernel, ((0, 4 - k1), (0, 4 - k2), (0, 0), (0, 0)))
    # Point 2m + s of the uncropped output is u[m] kernel[s] + u[m - 1] kernel[s + 2].
    taps = kernel.reshape(2, 2, 2, 2, in_channels, out_channels)[::-1, :, ::-1]
    taps = taps.transpose(0, 2, 4, 1, 3, 5).reshape(2, 2, in_channels, 4 * out_channels)
    explicit = (1, 1)
    if padding != "zero":
        u, explicit = pad(u, 1, padding), (0, 0)
    parities = lax.conv_general_dilated(
        u, taps, (1, 1), (explicit, explicit), dimension_numbers=_NHWC
    )
    parities = parities.reshape(batch, m1 + 1, m2 + 1, 2, 2, out_channels)
    full = parities.transpose(0, 1, 3, 2, 4, 5)
    full = full.reshape(batch, 2 * m1 + 2, 2 * m2 + 2, out_channels)
    n1, n2 = 2 * m1 + k1 - 2 - 2 * crop, 2 * m2 + k2 - 2 - 2 * crop
    return full[:, crop : crop + n1, crop : crop + n2]


class Convolution(nnx.Module):
    """Convolution whose padding stands for a boundary condition.

    Computes in the dtype of its input.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: odd number of taps per axis.
        stride: 1, or 2 to restrict to every other point.
        padding: one of "zero", "reflect", "wrap", "valid".
        use_bias: whether to add one number per output channel.
        param_dtype: dtype of the parameters.
        rngs: random streams; draws from `params`.

    Raises:
        ValueError: for an unknown padding or an even kernel size.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: str = "zero",
        use_bias: bool = False,
        param_dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        if padding not in PADDINGS:
            raise ValueError(f"padding is {padding!r}; known: {', '.join(PADDINGS)}")
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, got {kernel_size}")
        self.stride, self.padding = stride, padding
        shape = (kernel_size, kernel_size, in_channels, out_channels)
        fan_in = in_channels * kernel_size**2
        self.kernel = nnx.Param(
            uniform_fan_in(rngs.params(), shape, fan_in, param_dtype)
        )
        bias = None
        if use_bias:
            bias = nnx.Param(
                uniform_fan_in(rngs.params(), (out_channels,), fan_in, param_dtype)
            )
        self.bias = nnx.data(bias)

    def __call__(self, u: jax.Array) -> jax.Array:
        """Maps u [batch, n1, n2, in_channels] as `convolve` does."""
        kernel = self.kernel[...].astype(u.dtype)
        u = convolve(u, kernel, stride=self.stride, padding=self.padding)
        if self.bias is not None:
            u = u + self.bias[...].astype(u.dtype).reshape(1, 1, 1, -1)
        return u


class TransposedConvolution(nnx.Module):
    """Stride-2 transposed convolution, the prolongation to the next finer grid.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: taps per axis, each 3 (odd fine grid) or 4 (even fine grid).
        crop: points dropped on both ends, as `padding` of PyTorch.
        padding: values outside the coarse grid, "zero" or "wrap".
        param_dtype: dtype of the kernel.
        rngs: random streams; draws from `params`.

    Raises:
        ValueError: for a kernel size other than 3 or 4 or an unknown padding.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int],
        *,
        crop: int = 1,
        padding: str = "zero",
        param_dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        if not set(kernel_size) <= {3, 4}:
            raise ValueError(f"kernel_size must hold 3 or 4, got {kernel_size}")
        if padding not in ("zero", "wrap"):
            raise ValueError(f"padding is {padding!r}; known: zero, wrap")
        self.crop, self.padding = crop, padding
        # PyTorch counts the output channels into the fan-in of a transposed kernel.
        fan_in = out_channels * kernel_size[0] * kernel_size[1]
        shape = (*kernel_size, in_channels, out_channels)
        self.kernel = nnx.Param(
            uniform_fan_in(rngs.params(), shape, fan_in, param_dtype)
        )

    def __call__(self, u: jax.Array) -> jax.Array:
        """Maps u [batch, m1, m2, in_channels] as `transposed_convolve` does."""
        kernel = self.kernel[...].astype(u.dtype)
        return transposed_convolve(u, kernel, crop=self.crop, padding=self.padding)
