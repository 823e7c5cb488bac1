"""Correlations and their transposes, with fast rules for CPU.

On CPU, XLA computes the gradient of a convolution with respect to its kernel, and that
of a strided one with respect to its input, several times slower than the convolution
itself (a transposed one 10 to 60 times), and inside a loop (`lax.scan`) the former 15
to 30 times slower still. The rules here are the same sums as matrix products over a few
rows of the grid, inside loops as fast as outside (benchmarks/mgno_step.py). On three
axes a convolution is a sum of convolutions on two, 2 to 7 times faster. Other back ends
have tuned rules, and so has the CPU outside loops for small grids and for one axis.
"""

import contextlib
import math

import jax
import jax.numpy as jnp
from jax import lax

from operators.layers import stencil_products

_AXES = {1: "W", 2: "HW", 3: "DHW"}
LAYOUTS = {d: ("N" + a + "C", a + "IO", "N" + a + "C") for d, a in _AXES.items()}
_0 = (0, 0)  # no padding along an axis
_ROW_PRODUCTS = {(1, 1), (3, 1), (3, 2)}  # (kernel size, stride)
_ROW_PRODUCTS_FROM = 2000  # points of the padded grid; 24 channels, batch 8, 2 cores
_ROWS = 8  # rows per product: a block of u and of g stays in cache
# Of all samples; wider products are 1.2 to 2 times faster at 32^2, not at 128^2
_FEW_POINTS = 2000
_loops = 0  # how many `inside_loops` surround the code that is traced


@contextlib.contextmanager
def inside_loops():
    """What is traced here uses the rules that are fast inside loops, on every grid.

    Wrap the body of a `lax.scan`, `lax.map` or `lax.fori_loop` that holds convolutions
    and will be differentiated. Results stay the same to rounding.
    """
    global _loops
    _loops += 1
    try:
        yield
    finally:
        _loops -= 1


def correlate(u: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """out[i] = sum over t of u[stride i + t] kernel[t], whole stencils only.

    Args:
        u: [batch, *grid, in_channels], one to three axes.
        kernel: [k1, ..., in_channels, out_channels].
        stride: distance of output points.
    """
    if jax.default_backend() != "cpu":
        return _correlate(u, kernel, stride)
    if kernel.ndim == 5:
        return _correlate_planes(u, kernel, stride)
    large = kernel.ndim == 4 and u.shape[1] * u.shape[2] >= _ROW_PRODUCTS_FROM
    square = len(set(kernel.shape[:-2])) == 1
    if square and (kernel.shape[0], stride) in _ROW_PRODUCTS and (large or _loops):
        return (_restrict if stride == 2 else _smooth)(u, kernel)
    return _correlate(u, kernel, stride)


def spread(u: jax.Array, kernel: jax.Array) -> jax.Array:
    """out[2j + t] += u[j] kernel[t], kernel [4, ..., in, out], 2 m + 2 points."""
    if jax.default_backend() != "cpu":
        return _interleave(u, kernel)
    if kernel.ndim == 5:
        return _spread_planes(u, kernel)
    if kernel.ndim == 4 or _loops:
        return _prolong(u, kernel)
    return _interleave(u, kernel)


def _correlate_planes(u: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """As `correlate` on three axes: one correlation of planes per tap of axis 1."""
    size = (u.shape[1] - kernel.shape[0]) // stride + 1
    reach = stride * (size - 1) + 1
    total = 0
    for t, taps in enumerate(kernel):
        planes = u[:, t : t + reach : stride]
        planes = correlate(planes.reshape(-1, *u.shape[2:]), taps, stride)
        total = total + planes.reshape(len(u), size, *planes.shape[1:])
    return total


def _spread_planes(u: jax.Array, kernel: jax.Array) -> jax.Array:
    """As `spread` on three axes: planes with the four taps of axis 1 as channels."""
    batch, m, channels = u.shape[0], u.shape[1], kernel.shape[-1]
    taps = jnp.moveaxis(kernel, 0, -2)
    taps = taps.reshape(*taps.shape[:-2], 4 * channels)
    planes = spread(u.reshape(-1, *u.shape[2:]), taps)
    grid = planes.shape[1:-1]
    planes = planes.reshape(batch, m, *grid, 2, 2, channels)
    none = ((0, 0),) * 4
    # Plane 2m + s of the output is tap s of u[m] and tap s + 2 of u[m - 1].
    out = jnp.pad(planes[..., 0, :, :], (_0, (0, 1), *none))
    out = out + jnp.pad(planes[..., 1, :, :], (_0, (1, 0), *none))
    return jnp.moveaxis(out, -2, 2).reshape(batch, 2 * m + 2, *grid, channels)


def _correlate(u: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    num_axes = kernel.ndim - 2
    return lax.conv_general_dilated(
        u, kernel, (stride,) * num_axes, "VALID", dimension_numbers=LAYOUTS[num_axes]
    )


def _pad(u: jax.Array, width: int) -> jax.Array:
    return jnp.pad(u, (_0, *[(width, width)] * (u.ndim - 2), _0))


def four_taps(kernel: jax.Array) -> jax.Array:
    """Extends a kernel [k1, ..., in, out], k <= 4, by zero taps to 4 on each axis."""
    return jnp.pad(kernel, (*[(0, 4 - k) for k in kernel.shape[:-2]], _0, _0))


def _interleave(u: jax.Array, kernel: jax.Array) -> jax.Array:
    """out[2j + t] += u[j] kernel[t], kernel [4, ..., in, out], 2 m + 2 points."""
    d, channels = kernel.ndim - 2, kernel.shape[-1]
    # Point 2m + s of the output is u[m] kernel[s] + u[m - 1] kernel[s + 2].
    taps = kernel.reshape(*(2, 2) * d, *kernel.shape[-2:])
    taps = jnp.flip(taps, tuple(range(0, 2 * d, 2)))
    taps = taps.transpose(*range(0, 2 * d, 2), 2 * d, *range(1, 2 * d, 2), 2 * d + 1)
    taps = taps.reshape(*(2,) * d, kernel.shape[-2], 2**d * channels)
    out = _correlate(_pad(u, 1), taps, 1)
    out = out.reshape(*out.shape[:-1], *(2,) * d, channels)
    points = [axis for a in range(1, d + 1) for axis in (a, a + d)]
    out = out.transpose(0, *points, 2 * d + 1)
    return out.reshape(len(u), *(2 * m + 2 for m in u.shape[1:-1]), channels)


def _has_few_points(u: jax.Array) -> bool:
    return u.ndim == 4 and math.prod(u.shape[:3]) <= _FEW_POINTS


def _correlate_few(u: jax.Array, kernel: jax.Array) -> jax.Array:
    few = kernel.shape[:-2] == (3, 3) and _has_few_points(u)
    return stencil_products.smooth(u, kernel) if few else _correlate(u, kernel, 1)


@jax.custom_vjp
def _smooth(u, kernel):
    """Stride 1, kernel of size 1 or 3, no padding."""
    return _correlate_few(u, kernel)


def _smooth_backward(saved, g):
    u, kernel = saved
    transposed = jnp.flip(kernel, tuple(range(kernel.ndim - 2))).swapaxes(-1, -2)
    du = _correlate_few(_pad(g, kernel.shape[0] - 1), transposed)
    return du, _smooth_kernel_gradient(u, g, kernel.shape[0])


_smooth.defvjp(lambda u, kernel: (_smooth(u, kernel), (u, kernel)), _smooth_backward)


@jax.custom_vjp
def _restrict(u, kernel):
    """Stride 2, kernel of size 3, no padding."""
    return _correlate(u, kernel, 2)


def _restrict_backward(saved, g):
    u, kernel = saved
    sizes = [2 * m + 2 for m in g.shape[1:-1]]
    rest = [(0, n - size) for n, size in zip(u.shape[1:-1], sizes, strict=True)]
    # Negative widths drop the last points, which belong to the zero taps.
    config = [(0, 0, 0), *[(*width, 0) for width in rest], (0, 0, 0)]
    du = _prolong(g, four_taps(kernel.swapaxes(-1, -2)))
    du = lax.pad(du, jnp.zeros((), du.dtype), config)
    back = [(0, 0, 0), *[(-low, -high, 0) for low, high in rest], (0, 0, 0)]
    fine = lax.pad(u, jnp.zeros((), u.dtype), back)
    return du, _strided_kernel_gradient(fine, g)[(slice(3),) * (g.ndim - 2)]


_restrict.defvjp(
    lambda u, kernel: (_restrict(u, kernel), (u, kernel)), _restrict_backward
)


@jax.custom_vjp
def _prolong(u, kernel):
    """Transpose of stride 2, kernel of size 4, nothing cropped."""
    few = _has_few_points(u)
    return (stencil_products.prolong if few else _interleave)(u, kernel)


def _prolong_backward(saved, g):
    u, kernel = saved
    du = _correlate(g, kernel.swapaxes(-1, -2), 2)
    return du, _strided_kernel_gradient(g, u).swapaxes(-1, -2)


_prolong.defvjp(lambda u, kernel: (_prolong(u, kernel), (u, kernel)), _prolong_backward)


def _tap_products(u: jax.Array, g: jax.Array, size: int, stride: int) -> jax.Array:
    """Sum over i of u[stride i + t] g[i] for t in [0, size), one axis, [size, c, d]."""
    reach = stride * (g.shape[1] - 1) + 1
    taps = [
        jnp.einsum("bjc,bjd->bcd", u[:, t : t + reach : stride], g).sum(0)
        for t in range(size)
    ]
    return jnp.stack(taps)


def _row_products(u: jax.Array, g: jax.Array) -> jax.Array:
    """Sum of u[b, i, j, c] g[b, i, j, d] over b, i, j, a few rows at a time, [c, d]."""
    batch, n1, n2, c = u.shape
    rows = math.gcd(n1, _ROWS)
    u = u.reshape(batch * n1 // rows, rows * n2, c)
    g = g.reshape(batch * n1 // rows, rows * n2, -1)
    return jnp.einsum("bjc,bjd->bcd", u, g).sum(0)


def _smooth_kernel_gradient(u: jax.Array, g: jax.Array, size: int) -> jax.Array:
    """Sum over i of u[i + t] g[i] for t in [0, size)^axes, [size, .., c, d]."""
    if g.ndim == 3:
        return _tap_products(u, g, size, 1)
    if size == 1:
        return _row_products(u, g)[None, None]
    if _has_few_points(u):
        return stencil_products.smooth_kernel_gradient(u, g)
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
    """Sum over j of fine[2j + t] coarse[j] for t in [0, 4)^axes, [4, .., c, d]."""
    if coarse.ndim == 3:
        return _tap_products(fine, coarse, 4, 2)
    return stencil_products.strided_kernel_gradient(fine, coarse)
