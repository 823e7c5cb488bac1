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

from operators.layers.precision import einsum


def analyse_fft(
    u: jax.Array, frequencies: Sequence[np.ndarray], precision: str = "full"
) -> jax.Array:
    """Coefficients [batch, 2, *k, channels] of u [batch, *grid, channels]."""
    del precision  # of matrix products only
    axes = tuple(range(1, u.ndim - 1))
    spectrum = jnp.fft.rfftn(u, axes=axes, norm="forward")
    for axis, k in zip(axes, frequencies, strict=True):
        spectrum = jnp.take(spectrum, k % u.shape[axis], axis=axis)
    return jnp.stack([spectrum.real, spectrum.imag], axis=1)


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
    spectrum = jax.lax.complex(coefficients[:, 0], coefficients[:, 1])
    batch, channels = spectrum.shape[0], spectrum.shape[-1]
    half = (*grid[:-1], grid[-1] // 2 + 1)
    places = np.ix_(*(k % n for k, n in zip(frequencies, grid, strict=True)))
    full = jnp.zeros((batch, *half, channels), spectrum.dtype)
    full = full.at[(slice(None), *places)].set(spectrum)
    if len(grid) > 1:
        full = jnp.fft.ifftn(full, axes=axes[:-1], norm="forward")
    first = full[..., :1, :].real.astype(full.dtype)
    full = jnp.concatenate([first, full[..., 1:, :]], axis=-2)
    return jnp.fft.irfft(full, n=grid[-1], axis=axes[-1], norm="forward")


def _rotation(k: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine of 2 pi k j / n, [k, n], from integers reduced modulo n."""
    angle = 2 * np.pi * (np.outer(k, np.arange(n)) % n) / n
    return np.cos(angle), np.sin(angle)


def analyse_dft(
    u: jax.Array, frequencies: Sequence[np.ndarray], precision: str = "full"
) -> jax.Array:
    """As `analyse_fft`, by one real matrix product per axis, only for these modes."""
    *leading, last = u.shape[1:-1]
    channels = u.shape[-1]
    cos, sin = _rotation(frequencies[-1], last)
    matrix = jnp.asarray(np.stack([cos, -sin]).reshape(-1, last) / last, u.dtype)
    u = einsum("ok,akc->aoc", matrix, u.reshape(-1, last, channels), precision)
    size = len(frequencies[-1]) * channels  # of what is transformed already
    for n, k in zip(reversed(leading), reversed(frequencies[:-1]), strict=True):
        cos, sin = _rotation(k, n)
        # (re, im) of the result from (re, im) of every point, axes [q, k, x, p].
        matrix = np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)])
        matrix = jnp.asarray(matrix.reshape(2 * len(k), 2 * n) / n, u.dtype)
        u = einsum("oi,aic->aoc", matrix, u.reshape(-1, 2 * n, size), precision)
        size *= len(k)
    return u.reshape(-1, 2, *(len(k) for k in frequencies), channels)


def synthesise_dft(
    coefficients: jax.Array,
    frequencies: Sequence[np.ndarray],
    grid: Sequence[int],
    precision: str = "full",
) -> jax.Array:
    """As `synthesise_fft`, by one real matrix product per axis."""
    u, channels = coefficients, coefficients.shape[-1]
    size = math.prod(coefficients.shape[2:])
    for n, k in zip(grid[:-1], frequencies[:-1], strict=True):
        cos, sin = _rotation(k, n)
        size //= len(k)
        # axes [x, p, q, k]
        matrix = np.stack([np.stack([cos, -sin]), np.stack([sin, cos])])
        matrix = matrix.transpose(3, 0, 1, 2).reshape(2 * n, 2 * len(k))
        matrix = jnp.asarray(matrix, u.dtype)
        u = einsum("oi,aic->aoc", matrix, u.reshape(-1, 2 * len(k), size), precision)
    n, k = grid[-1], frequencies[-1]
    # Every column but k = 0 stands for -k as well; sin(0) drops the imaginary part.
    matrix = np.stack(_rotation(k, n)) * [[[1]], [[-1]]]
    matrix = matrix * np.where(k == 0, 1, 2)[:, None]
    matrix = jnp.asarray(matrix.reshape(2 * len(k), n).T, u.dtype)
    u = einsum("oi,aic->aoc", matrix, u.reshape(-1, 2 * len(k), channels), precision)
    return u.reshape(-1, *grid, channels)


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


TRANSFORMS = {
    "dft": (analyse_dft, synthesise_dft),
    "fft": (analyse_fft, synthesise_fft),
}


def interpolation_matrix(n: int, points: np.ndarray | jax.Array):
    """Values at points of the trigonometric polynomials through n points, [points, n].

    On even n the Nyquist frequency is a cosine, that is shared between n/2 and -n/2.

    Args:
        n: points of the grid j / n of one periodic axis.
        points: [points] anywhere, in periods.
    """
    xp = np if isinstance(points, np.ndarray) else jnp
    t = points[:, None] - np.arange(n)[None] / n
    t = t - xp.round(t)
    near = xp.abs(t) < 1e-9
    angle = np.pi * xp.where(near, 0.25 / n, t)
    envelope = xp.sin(angle) if n % 2 else xp.tan(angle)
    return xp.where(near, 1.0, xp.sin(n * angle) / (n * envelope))


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
