"""Convolutions with the padding of a boundary condition, and their transposes.

Fields are [batch, *grid, channels] on grids of one, two or three axes.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

PADDINGS = ("zero", "reflect", "wrap", "valid")
_AXES = {1: "W", 2: "HW", 3: "DHW"}
_LAYOUTS = {d: ("N" + a + "C", a + "IO", "N" + a + "C") for d, a in _AXES.items()}
_0 = (0, 0)  # no padding along an axis


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
    widths = (_0, *[(width, width)] * (u.ndim - 2), _0)
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
    if (
        kernel.ndim == 4
        and (kernel.shape[0], stride) in _ROW_PRODUCTS
        and u.shape[1] * u.shape[2] >= _ROW_PRODUCTS_FROM
        and jax.default_backend() == "cpu"
    ):
        return (_restrict if stride == 2 else _smooth)(u, kernel)
    return _correlate(u, kernel, stride)


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
    kernel = _four_taps(kernel)
    if padding == "wrap":
        # Two more fine points on either side than zeros outside would give.
        u, crop = pad(u, 1, padding), crop + 2
    on_cpu = kernel.ndim == 4 and jax.default_backend() == "cpu"
    full = (_prolong if on_cpu else _interleave)(u, kernel)
    return full[(slice(None), *(slice(crop, crop + size) for size in sizes))]


def _correlate(u: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    num_axes = kernel.ndim - 2
    return lax.conv_general_dilated(
        u, kernel, (stride,) * num_axes, "VALID", dimension_numbers=_LAYOUTS[num_axes]
    )


def _four_taps(kernel: jax.Array) -> jax.Array:
    """Extends a kernel [k1, ..., in, out], k <= 4, by zero taps to 4 on each axis."""
    return jnp.pad(kernel, (*[(0, 4 - k) for k in kernel.shape[:-2]], _0, _0))


def _interleave(u: jax.Array, kernel: jax.Array) -> jax.Array:
    """out[2j + t] += u[j] kernel[t], kernel [4, ..., in, out], 2 m + 2 points."""
    d, channels = kernel.ndim - 2, kernel.shape[-1]
    # Point 2m + s of the output is u[m] kernel[s] + u[m - 1] kernel[s + 2].
    taps = kernel.reshape(*(2, 2) * d, *kernel.shape[-2:])
    taps = jnp.flip(taps, range(0, 2 * d, 2))
    taps = taps.transpose(*range(0, 2 * d, 2), 2 * d, *range(1, 2 * d, 2), 2 * d + 1)
    taps = taps.reshape(*(2,) * d, kernel.shape[-2], 2**d * channels)
    out = _correlate(pad(u, 1, "zero"), taps, 1)
    out = out.reshape(*out.shape[:-1], *(2,) * d, channels)
    points = [axis for a in range(1, d + 1) for axis in (a, a + d)]
    out = out.transpose(0, *points, 2 * d + 1)
    return out.reshape(len(u), *(2 * m + 2 for m in u.shape[1:-1]), channels)


# On CPU, XLA computes the gradient of a convolution with respect to its kernel, and
# that of a strided one with respect to its input, several times slower than the
# convolution itself (a transposed one 10 to 60 times). The rules below are the same
# sums as matrix products over a few rows of the grid (benchmarks/mgno_step.py). Other
# back ends have tuned rules, and so has the CPU for small grids.
_ROW_PRODUCTS = {(1, 1), (3, 1), (3, 2)}  # (kernel size, stride)
_ROW_PRODUCTS_FROM = 2000  # points of the padded grid; 24 channels, batch 8, 2 cores
_ROWS = 8  # rows per product: a block of u and of g stays in cache


@jax.custom_vjp
def _smooth(u, kernel):
    """Stride 1, kernel 1 x 1 or 3 x 3, no padding."""
    return _correlate(u, kernel, 1)


def _smooth_backward(saved, g):
    u, kernel = saved
    transposed = kernel[::-1, ::-1].transpose(0, 1, 3, 2)
    du = _correlate(pad(g, kernel.shape[0] - 1, "zero"), transposed, 1)
    return du, _smooth_kernel_gradient(u, g, kernel.shape[0])


_smooth.defvjp(lambda u, kernel: (_smooth(u, kernel), (u, kernel)), _smooth_backward)


@jax.custom_vjp
def _restrict(u, kernel):
    """Stride 2, kernel 3 x 3, no padding."""
    return _correlate(u, kernel, 2)


def _restrict_backward(saved, g):
    u, kernel = saved
    sizes = [2 * m + 2 for m in g.shape[1:3]]
    rest = [(0, n - size) for n, size in zip(u.shape[1:3], sizes, strict=True)]
    # Negative widths drop the last row and column, which belong to the zero taps.
    config = [(0, 0, 0), *[(*width, 0) for width in rest], (0, 0, 0)]
    du = _interleave(g, _four_taps(kernel.transpose(0, 1, 3, 2)))
    du = lax.pad(du, jnp.zeros((), du.dtype), config)
    back = [(0, 0, 0), *[(-low, -high, 0) for low, high in rest], (0, 0, 0)]
    fine = lax.pad(u, jnp.zeros((), u.dtype), back)
    return du, _strided_kernel_gradient(fine, g)[:3, :3]


_restrict.defvjp(
    lambda u, kernel: (_restrict(u, kernel), (u, kernel)), _restrict_backward
)


@jax.custom_vjp
def _prolong(u, kernel):
    """Transpose of stride 2, kernel 4 x 4, nothing cropped."""
    return _interleave(u, kernel)


def _prolong_backward(saved, g):
    u, kernel = saved
    du = _correlate(g, kernel.transpose(0, 1, 3, 2), 2)
    return du, _strided_kernel_gradient(g, u).transpose(0, 1, 3, 2)


_prolong.defvjp(lambda u, kernel: (_prolong(u, kernel), (u, kernel)), _prolong_backward)


def _row_products(u: jax.Array, g: jax.Array) -> jax.Array:
    """Sum of u[b, i, j, c] g[b, i, j, d] over b, i, j, a few rows at a time, [c, d]."""
    batch, n1, n2, c = u.shape
    rows = math.gcd(n1, _ROWS)
    u = u.reshape(batch * n1 // rows, rows * n2, c)
    g = g.reshape(batch * n1 // rows, rows * n2, -1)
    return jnp.einsum("bjc,bjd->bcd", u, g).sum(0)


def _smooth_kernel_gradient(u: jax.Array, g: jax.Array, size: int) -> jax.Array:
    """Sum over i of u[i + t] g[i] for t in [0, size)^2, [size, size, c, d]."""
    if size == 1:
        return _row_products(u, g)[None, None]
    batch, n1, n2, d = g.shape
    c, m, fill = u.shape[-1], (n2 + 1) // 2, -(n1 + 2) % _ROWS
    # Points are paired along axis 2 and g is shifted along axis 1, so that two large
    # products hold all nine taps; a quarter of their entries is not used.
    u = jnp.pad(u, (_0, (0, fill), (0, 2 * m - n2), _0))
    u = u.reshape(batch, n1 + 2 + fill, m + 1, 2 * c)
    g = jnp.pad(g, (_0, _0, (0, 2 * m - n2), _0))
    shifts = [jnp.pad(g, (_0, (t, 2 - t + fill), _0, _0)) for t in range(3)]
    g = jnp.concatenate(shifts, -1).reshape(batch, n1 + 2 + fill, m, 6 * d)
    same = _row_products(u[:, :, :m], g).reshape(2, c, 2, 3, d)
    next_pair = _row_products(u[:, :, 1:], g).reshape(2, c, 2, 3, d)
    taps = [
        same[0, :, 0] + same[1, :, 1],
        same[1, :, 0] + next_pair[0, :, 1],
        next_pair[0, :, 0] + next_pair[1, :, 1],
    ]  # by offset along axis 2, each [c, offset along axis 1, d]
    return jnp.stack(taps).transpose(2, 0, 1, 3)


def _strided_kernel_gradient(fine: jax.Array, coarse: jax.Array) -> jax.Array:
    """Sum over j of fine[2j + t] coarse[j] for t in [0, 4)^2, [4, 4, c, d]."""
    batch, m1, m2, d = coarse.shape
    c = fine.shape[-1]
    shifted = [
        jnp.pad(coarse, (_0, (a1, 1 - a1), (a2, 1 - a2), _0))
        for a1 in range(2)
        for a2 in range(2)
    ]
    shifted = jnp.concatenate(shifted, -1)  # t = 2 a + s
    fine = fine.reshape(batch, m1 + 1, 2, m2 + 1, 2 * c)
    taps = jnp.stack([_row_products(fine[:, :, s], shifted) for s in range(2)])
    taps = taps.reshape(2, 2, c, 2, 2, d)  # [s1, s2, c, a1, a2, d]
    return taps.transpose(3, 0, 4, 1, 2, 5).reshape(4, 4, c, d)


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
        if num_axes not in _LAYOUTS:
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
        if not set(kernel_size) <= {3, 4} or len(kernel_size) not in _LAYOUTS:
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
