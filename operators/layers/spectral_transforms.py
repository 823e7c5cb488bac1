"""Fourier coefficients of low modes, and fields from them: FFT and matrix products.

Coefficients are real arrays [batch, 2, *k, channels]; axis 1 holds real and imaginary
parts, the other axes the integer frequencies asked for, all below Nyquist. The forward
transform carries 1 / n, so that the numbers approximate the continuous coefficients on
every grid. Fields are real, so the last frequency is never negative; on the plane where
it is 0 only the Hermitian part of the coefficients counts.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from operators.layers.precision import at_least_float32, einsum


def analyse_fft(
    u: jax.Array, frequencies: Sequence[np.ndarray], precision: str = "full"
) -> jax.Array:
    """Coefficients [batch, 2, *k, channels] of u [batch, *grid, channels]."""
    del precision  # of matrix products only
    axes = tuple(range(1, u.ndim - 1))
    spectrum = jnp.fft.rfftn(at_least_float32(u), axes=axes, norm="forward")
    for axis, k in zip(axes, frequencies, strict=True):
        spectrum = jnp.take(spectrum, k % u.shape[axis], axis=axis)
    return jnp.stack([spectrum.real, spectrum.imag], axis=1).astype(u.dtype)


def synthesise_fft(
    coefficients: jax.Array,
    frequencies: Sequence[np.ndarray],
    grid: Sequence[int],
    precision: str = "full",
) -> jax.Array:
    """The real field [batch, *grid, channels] with these coefficients.

    On the plane of last frequency 0 the imaginary part in space is dropped explicitly:
    inverse transforms of spectra that are not Hermitian differ between CPU and GPU.
    """
    del precision
    axes = tuple(range(1, len(grid) + 1))
    parts = at_least_float32(coefficients)
    spectrum = jax.lax.complex(parts[:, 0], parts[:, 1])
    batch, channels = spectrum.shape[0], spectrum.shape[-1]
    half = (*grid[:-1], grid[-1] // 2 + 1)
    places = np.ix_(*(k % n for k, n in zip(frequencies, grid, strict=True)))
    full = jnp.zeros((batch, *half, channels), spectrum.dtype)
    full = full.at[(slice(None), *places)].set(spectrum)
    if len(grid) > 1:
        full = jnp.fft.ifftn(full, axes=axes[:-1], norm="forward")
    first = full[..., :1, :].real.astype(full.dtype)
    full = jnp.concatenate([first, full[..., 1:, :]], axis=-2)
    u = jnp.fft.irfft(full, n=grid[-1], axis=axes[-1], norm="forward")
    return u.astype(coefficients.dtype)


def _waves(k: np.ndarray, n: int) -> np.ndarray:
    """Cosines, then sines, of 2 pi |k| j / n for 0 ... max |k|, [2 max |k| + 2, n].

    From integers reduced modulo n, so that no digit is lost.
    """
    angle = np.outer(np.arange(np.abs(k).max() + 1), np.arange(n)) % n
    angle = 2 * np.pi * angle / n
    return np.concatenate([np.cos(angle), np.sin(angle)])


def _product(matrix: np.ndarray, u: jax.Array, precision: str) -> jax.Array:
    """One real matrix [o, i] times each of u [a, i, r].

    As a batched product: with one shared matrix XLA transposes u on CPU, at three times
    the price (benchmarks/spectral_transforms.py).
    """
    matrix = jnp.broadcast_to(jnp.asarray(matrix, u.dtype), (len(u), *matrix.shape))
    return einsum("aoi,air->aor", matrix, u, precision)


def analyse_dft(
    u: jax.Array, frequencies: Sequence[np.ndarray], precision: str = "full"
) -> jax.Array:
    """As `analyse_fft`, by one real matrix product per axis, only for these modes.

    The products are with cosines and sines of non-negative frequencies, real numbers in
    the storage order of u; at the end exp(-i k x) = prod_j (cos - i sgn(k_j) sin) is
    put together on the few modes that are left.
    """
    batch, *grid, channels = u.shape
    rows, rest, sizes = batch, math.prod(grid) * channels, []
    for n, k in zip(grid, frequencies, strict=True):
        matrix = _waves(k, n) / n
        rest //= n
        u = _product(matrix, u.reshape(rows, n, rest), precision)
        rows *= len(matrix)
        sizes += [2, len(matrix) // 2]
    u = u.reshape(batch, *sizes, channels)  # [b, p1, k1, p2, k2, ..., c]
    real, imag = _halves(u, 2 * len(grid) - 1)
    imag = -imag
    for j in reversed(range(len(grid) - 1)):
        negative = int((frequencies[j] < 0).sum())
        positive = len(frequencies[j]) - negative
        (cos_re, sin_re), (cos_im, sin_im) = (
            _halves(part, 2 * j + 1) for part in (real, imag)
        )

        def signed(minus, plus, axis=2 * j + 1, negative=negative, positive=positive):
            minus = jax.lax.slice_in_dim(minus, 1, negative + 1, axis=axis)
            plus = jax.lax.slice_in_dim(plus, 0, positive, axis=axis)
            return jnp.concatenate([jnp.flip(minus, axis), plus], axis)

        real = signed(cos_re - sin_im, cos_re + sin_im)
        imag = signed(cos_im + sin_re, cos_im - sin_re)
    return jnp.stack([real, imag], 1)


def synthesise_dft(
    coefficients: jax.Array,
    frequencies: Sequence[np.ndarray],
    grid: Sequence[int],
    precision: str = "full",
) -> jax.Array:
    """As `synthesise_fft`, by one real matrix product per axis."""
    batch, channels = len(coefficients), coefficients.shape[-1]
    real, imag = coefficients[:, 0], coefficients[:, 1]  # [b, k1, ..., c]
    for j, k in enumerate(frequencies[:-1]):
        negative = int((k < 0).sum())
        size = max(negative + 1, len(k) - negative)

        def by_sign(part, axis=2 * j + 1, negative=negative, size=size):
            """Parts of k and of -k for k = 0 ... size - 1."""
            minus = jax.lax.slice_in_dim(part, 0, negative, axis=axis)
            plus = jax.lax.slice_in_dim(part, negative, part.shape[axis], axis=axis)
            minus = _extend(jnp.flip(minus, axis), axis, 1, size)
            return _extend(plus, axis, 0, size), minus

        (plus_re, minus_re), (plus_im, minus_im) = by_sign(real), by_sign(imag)
        # c exp(ikx) + d exp(-ikx) = (c + d) cos kx + i (c - d) sin kx.
        axis = 2 * j + 1
        real = jnp.stack([plus_re + minus_re, minus_im - plus_im], axis)
        imag = jnp.stack([plus_im + minus_im, plus_re - minus_re], axis)
    # Re(c exp(ikx)); the sine of k = 0 is 0, which drops the imaginary part there.
    u = jnp.stack([real, -imag], 2 * len(grid) - 1)
    rows, rest = math.prod(u.shape[:-1]), channels
    for n, k in zip(reversed(grid), reversed(frequencies), strict=True):
        matrix = _waves(k, n).T  # [n, (p, k)]
        if rest == channels:
            # Every column of the last axis but k = 0 stands for -k as well.
            matrix = matrix * np.tile(np.where(np.arange(len(k)) == 0, 1, 2), 2)
        rows //= matrix.shape[1]
        u = _product(matrix, u.reshape(rows, matrix.shape[1], rest), precision)
        rest *= n
    return u.reshape(batch, *grid, channels)


def _halves(u: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
    """The two entries of an axis of length 2, without that axis."""
    return tuple(jax.lax.index_in_dim(u, p, axis, keepdims=False) for p in range(2))


def _extend(u: jax.Array, axis: int, before: int, size: int) -> jax.Array:
    """Zeros before and after along an axis, up to `size` entries."""
    widths = [(0, 0)] * u.ndim
    widths[axis] = (before, size - before - u.shape[axis])
    return jnp.pad(u, widths)


def synthesise_at(
    coefficients: jax.Array,
    frequencies: Sequence[np.ndarray],
    points: np.ndarray | jax.Array,
    precision: str = "full",
) -> jax.Array:
    """Values [batch, points, channels] of the series with these coefficients.

    Args:
        coefficients: [batch, 2, *k, channels].
        frequencies: integer frequencies per axis.
        points: [points, axes] anywhere, in periods.
        precision: of the matrix product, see `operators.layers.precision.einsum`.
    """
    k = np.stack(np.meshgrid(*frequencies, indexing="ij"), -1)
    k = k.reshape(-1, len(frequencies))  # [mode, axes]
    xp = np if isinstance(points, np.ndarray) else jnp
    # Each axis is reduced to one period before it is added, which keeps digits.
    turns = sum(
        xp.mod(points[:, j, None] * k[None, :, j], 1) for j in range(k.shape[1])
    )
    twice = np.where(k[:, -1] == 0, 1, 2)[None]
    waves = [twice * xp.cos(2 * np.pi * turns), -twice * xp.sin(2 * np.pi * turns)]
    matrix = jnp.asarray(xp.concatenate(waves, 1), coefficients.dtype)
    flat = coefficients.reshape(len(coefficients), matrix.shape[1], -1)
    return einsum("oi,aic->aoc", matrix, flat, precision)


def check_points(points: ArrayLike, num_axes: int) -> np.ndarray | jax.Array:
    """Returns points [points, axes] as an array, lists as constants.

    Raises:
        ValueError: for another shape.
    """
    points = points if isinstance(points, jax.Array) else np.asarray(points)
    if points.ndim != 2 or points.shape[1] != num_axes:
        raise ValueError(
            f"points must have shape [points, {num_axes}], got {points.shape}"
        )
    return points


TRANSFORMS = {
    "dft": (analyse_dft, synthesise_dft),
    "fft": (analyse_fft, synthesise_fft),
}


def interpolation_matrix(n: int, points: np.ndarray | jax.Array):
    """Values at points of the trigonometric polynomials through n points, [points, n].

    On even n the Nyquist frequency is a cosine, that is shared between n/2 and -n/2.
    Points that JAX may differentiate take the cosine series, smooth at the nodes too;
    constants take its sum in closed form, of less work.

    Args:
        n: points of the grid j / n of one periodic axis.
        points: [points] anywhere, in periods.
    """
    if not isinstance(points, np.ndarray):
        k = np.arange(n // 2 + 1)[None]
        # Frequencies above 0 stand for -k as well, but Nyquist.
        twice = np.where((k[0] == 0) | (2 * k[0] == n), 1, 2) / n
        angle = 2 * np.pi * jnp.mod(points[:, None] * k, 1)
        waves = jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], 1)
        nodes = np.tile(twice, 2)[:, None] * _waves(k, n)
        nodes = jnp.asarray(nodes, waves.dtype)
        return einsum("pk,kn->pn", waves, nodes, "full")
    t = points[:, None] - np.arange(n)[None] / n
    t = t - np.round(t)
    near = np.abs(t) < 1e-9
    angle = np.pi * np.where(near, 0.25 / n, t)
    envelope = np.sin(angle) if n % 2 else np.tan(angle)
    return np.where(near, 1.0, np.sin(n * angle) / (n * envelope))


def interpolate(
    u: jax.Array, points: Sequence[np.ndarray] | np.ndarray | jax.Array
) -> jax.Array:
    """Evaluates the trigonometric polynomial through u [batch, *grid, channels].

    Args:
        u: field on a periodic grid; point j stands at j / n of the period.
        points: in periods, [points, axes] anywhere, or a list of positions per axis
            whose product grid is meant.

    Returns:
        [batch, points, channels], or [batch, *sizes of the list, channels].
    """
    grid = u.shape[1:-1]
    if isinstance(points, (list, tuple)):
        for axis, (n, x) in enumerate(zip(grid, points, strict=True), start=1):
            matrix = jnp.asarray(interpolation_matrix(n, x), u.dtype)
            before, after = u.shape[:axis], u.shape[axis + 1 :]
            rows = u.reshape(math.prod(before), n, math.prod(after))
            u = einsum("pn,anc->apc", matrix, rows, "full")
            u = u.reshape(*before, len(x), *after)
        return u
    letters = "xyz"[: len(grid)]
    rest = f"b{letters}c"
    for axis, (n, letter) in enumerate(zip(grid, letters, strict=True)):
        matrix = jnp.asarray(interpolation_matrix(n, points[:, axis]), u.dtype)
        after = f"bp{rest.replace('p', '')[1:]}".replace(letter, "")
        u = einsum(f"{rest},p{letter}->{after}", u, matrix, "full")
        rest = after
    return u
