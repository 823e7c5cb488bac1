"""Convolutions with the padding of a boundary condition, and their transposes.

Fields are [batch, *grid, channels] on grids of one, two or three axes.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from operators.layers import correlation

PADDINGS = ("zero", "reflect", "wrap", "valid")


def uniform_fan_in(key: jax.Array, shape: tuple[int, ...], fan_in: int, dtype):
    """Draws PyTorch's default weights, uniform on +-1 / sqrt(fan_in)."""
    bound = 1 / np.sqrt(fan_in)
    return jax.random.uniform(key, shape, dtype, -bound, bound)


def pad(u: jax.Array, width: int, padding: str) -> jax.Array:
    """Extends u [batch, *grid, channels] by `width` points at both ends of each axis.

    Raises:
        ValueError: if an axis has too few points to be reflected.
    """
    if padding == "reflect" and min(u.shape[1:-1]) <= width:
        raise ValueError(
            f"reflecting {width} points needs {width + 1} points per axis, got grid "
            f"{u.shape[1:-1]}; use a finer grid or a smaller kernel"
        )
    widths = ((0, 0), *[(width, width)] * (u.ndim - 2), (0, 0))
    if padding == "zero":
        return jnp.pad(u, widths)
    return jnp.pad(u, widths, mode=padding)


def convolve(
    u: jax.Array, kernel: jax.Array, *, stride: int = 1, padding: str = "zero"
) -> jax.Array:
    """Correlates u with a kernel of odd size, centred on every stride-th point.

    Never `SAME`: with stride 2 on an even grid that pads (0, 1), where the model needs
    (1, 1). On CPU reverse mode only, as for `transposed_convolve`.

    Args:
        u: [batch, *grid, in_channels].
        kernel: [k, ..., k, in_channels, out_channels], one k per axis of the grid.
        stride: distance of output points.
        padding: values outside the grid: "zero", "reflect" (end points not repeated),
            "wrap"; "valid" keeps outputs whose stencil lies inside.

    Returns:
        [batch, *grid, out_channels] with ceil(n / stride) points per axis, or
        (n - k) // stride + 1 for "valid".
    """
    width = kernel.shape[0] // 2
    if padding != "valid" and width > 0:
        u = pad(u, width, padding)
    return correlation.correlate(u, kernel, stride)


def transposed_convolve(
    u: jax.Array, kernel: jax.Array, *, crop: int, padding: str = "zero"
) -> jax.Array:
    """Transpose of a stride-2 correlation: out[2j - crop + t] += u[j] kernel[t].

    Computed on the coarse grid: in d axes the 2^d parities of output points need two
    taps per axis each, so one convolution of size 2 with 2^d times the output channels,
    interleaved, does all of it. The textbook form inserts zeros between the points of u
    and multiplies by them, in 2-D three times out of four.

    Args:
        u: [batch, *grid, in_channels].
        kernel: [k1, ..., in_channels, out_channels], k 3 or 4 on each axis.
        crop: points dropped on both ends of each axis (PyTorch's `padding`), 0 or 1.
        padding: values of u outside its grid, "zero" or "wrap" (periodic).

    Returns:
        [batch, *fine grid, out_channels], 2 m + k - 2 - 2 crop points for m of u.
    """
    sizes = [
        2 * m + k - 2 - 2 * crop
        for m, k in zip(u.shape[1:-1], kernel.shape[:-2], strict=True)
    ]
    kernel = correlation.four_taps(kernel)
    if padding == "wrap":
        # Two more fine points on either side than zeros outside would give.
        u, crop = pad(u, 1, padding), crop + 2
    full = correlation.spread(u, kernel)
    return full[(slice(None), *(slice(crop, crop + size) for size in sizes))]


class Convolution(nnx.Module):
    """Convolution whose padding stands for a boundary condition.

    Computes in the dtype of its input.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: odd number of taps, the same for all axes.
        num_axes: axes of the grid, 1, 2 or 3.
        stride: 1, or 2 to restrict to every other point.
        padding: one of "zero", "reflect", "wrap", "valid".
        use_bias: whether to add one number per output channel.
        param_dtype: dtype of the parameters.
        rngs: random streams; draws from `params`.

    Raises:
        ValueError: for an unknown padding, an even kernel size or more than 3 axes.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        num_axes: int = 2,
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
        if num_axes not in correlation.LAYOUTS:
            raise ValueError(f"num_axes must be 1, 2 or 3, got {num_axes}")
        self.stride, self.padding = stride, padding
        shape = (*(kernel_size,) * num_axes, in_channels, out_channels)
        fan_in = in_channels * kernel_size**num_axes
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
        """Maps u [batch, *grid, in_channels] as `convolve` does."""
        kernel = self.kernel[...].astype(u.dtype)
        u = convolve(u, kernel, stride=self.stride, padding=self.padding)
        if self.bias is not None:
            u = u + self.bias[...].astype(u.dtype).reshape((1,) * (u.ndim - 1) + (-1,))
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
        kernel_size: tuple[int, ...],
        *,
        crop: int = 1,
        padding: str = "zero",
        param_dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        if (
            not set(kernel_size) <= {3, 4}
            or len(kernel_size) not in correlation.LAYOUTS
        ):
            raise ValueError(
                f"kernel_size must hold 3 or 4 for each of 1, 2 or 3 axes, got "
                f"{kernel_size}"
            )
        if padding not in ("zero", "wrap"):
            raise ValueError(f"padding is {padding!r}; known: zero, wrap")
        self.crop, self.padding = crop, padding
        # PyTorch counts the output channels into the fan-in of a transposed kernel.
        fan_in = out_channels * math.prod(kernel_size)
        shape = (*kernel_size, in_channels, out_channels)
        self.kernel = nnx.Param(
            uniform_fan_in(rngs.params(), shape, fan_in, param_dtype)
        )

    def __call__(self, u: jax.Array) -> jax.Array:
        """Maps u [batch, *grid, in_channels] as `transposed_convolve` does."""
        kernel = self.kernel[...].astype(u.dtype)
        return transposed_convolve(u, kernel, crop=self.crop, padding=self.padding)
