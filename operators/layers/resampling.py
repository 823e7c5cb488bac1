"""Resampling of fields between grids: Fourier for periodic ones, Lagrange for others.

Every map is linear, separable and independent of the channels, so each axis is one
matrix. Nothing here has parameters.
"""

import functools
import operator
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from operators.layers.precision import at_least_float32, check_floating

# Entries of the largest matrix that `fourier_resample` builds; beyond it an FFT runs.
_LARGEST_MATRIX = 1024 * 1024


def _resample_spectrum(u, m: int, xp):
    """Fourier resampling of the last axis of u [..., n] to m points, with FFTs of xp.

    Frequencies |k| < min(n, m) / 2 are copied. The coefficient of the Nyquist frequency
    of a grid that is refined is shared equally by n / 2 and -n / 2; on the way back to
    a coarse grid the two are added.
    """
    n = u.shape[-1]
    spectrum = xp.fft.rfft(u, axis=-1, norm="forward")[..., : min(n, m) // 2 + 1]
    if min(n, m) % 2 == 0 and n != m:
        # irfft counts an inner column twice, and the last one of an even grid once.
        weights = np.ones(spectrum.shape[-1])
        weights[-1] = 0.5 if n < m else 2.0
        weights = weights.reshape((1,) * (spectrum.ndim - 1) + (-1,))
        spectrum = spectrum * xp.asarray(weights, u.dtype)
    return xp.fft.irfft(spectrum, n=m, axis=-1, norm="forward")


@functools.lru_cache(maxsize=256)
def fourier_matrix(n: int, m: int) -> np.ndarray:
    """Matrix [m, n] of trigonometric interpolation from n to m periodic points.

    Point i of n lies at i / n of the period. Frequencies that both grids resolve keep
    their coefficients, the others are removed (no aliasing). Rows sum to 1.
    """
    matrix = np.ascontiguousarray(_resample_spectrum(np.eye(n), m, np).T)
    matrix.flags.writeable = False  # shared by all callers
    return matrix


@functools.lru_cache(maxsize=256)
def lagrange_matrix(n: int, m: int, num_points: int) -> np.ndarray:
    """Matrix [m, n] of local polynomial interpolation between grids with end points.

    Point i of n lies at i / (n - 1). Each value is that of the polynomial through the
    `num_points` nearest points (2: linear, 4: cubic), all on one side near the ends,
    fewer if n is smaller. A single point takes the value at the left end, and spreads
    it. Where points of the two grids coincide the values are copied exactly.
    """
    num_points = min(num_points, n)
    # Position of output j in units of the input spacing, as the integer ratio whole /
    # last, so that coinciding points are recognised without rounding.
    last = max(m - 1, 1)
    whole = np.arange(m) * (n - 1)
    left = np.clip(whole // last - (num_points - 1) // 2, 0, n - num_points)
    position = (whole - left * last) / last  # [m], 0 ... num_points - 1
    matrix = np.zeros((m, n))
    for a in range(num_points):
        others = np.array([b for b in range(num_points) if b != a], float)
        factors = (position[:, None] - others) / (a - others)
        matrix[np.arange(m), left + a] = factors.prod(axis=1)
    matrix.flags.writeable = False
    return matrix


def check_grid(out_grid: Sequence[int], num_axes: int) -> tuple[int, ...]:
    """Returns `out_grid` as integers.

    Raises:
        ValueError: unless it holds one positive integer per axis.
    """
    try:
        sizes = tuple(operator.index(m) for m in out_grid)
    except TypeError:
        sizes = ()
    if len(sizes) != num_axes or min(sizes, default=0) < 1:
        raise ValueError(
            f"out_grid must hold {num_axes} numbers of points, positive integers, one "
            f"per grid axis of the input, got {out_grid}"
        )
    return sizes


def _apply(
    u: jax.Array,
    out_grid: Sequence[int],
    matrix_fn: Callable[[int, int], np.ndarray],
    fft_from: float = float("inf"),
) -> jax.Array:
    """Applies one matrix per axis, the axes that shrink most first."""
    check_floating("u", u)
    out_grid = check_grid(out_grid, u.ndim - 2)
    order = sorted(range(len(out_grid)), key=lambda i: out_grid[i] / u.shape[i + 1])
    for axis in order:
        n, m = u.shape[axis + 1], out_grid[axis]
        if n == m:
            continue
        if n * m > fft_from:
            rows = at_least_float32(jnp.moveaxis(u, axis + 1, -1))
            rows = _resample_spectrum(rows, m, jnp).astype(u.dtype)
            u = jnp.moveaxis(rows, -1, axis + 1)
            continue
        before, after = u.shape[: axis + 1], u.shape[axis + 2 :]
        matrix = jnp.asarray(matrix_fn(n, m), u.dtype)
        # Full float32 on accelerators too: they would round the factors to 10 bits.
        u = jnp.einsum(
            "mn,anc->amc",
            matrix,
            u.reshape(int(np.prod(before)), n, int(np.prod(after))),
            precision=jax.lax.Precision.HIGHEST,
        ).reshape(*before, m, *after)
    return u


def fourier_resample(u: jax.Array, out_grid: Sequence[int]) -> jax.Array:
    """Resamples periodic fields u [batch, *grid, channels] to [batch, *out_grid, ...].

    Exact for every field whose frequencies both grids resolve, for odd and even sizes
    in either direction; finer frequencies are removed and not aliased. The mean stays,
    and refining followed by coarsening is the identity. Grids leave out the right end.

    Args:
        u: real fields, one to three grid axes.
        out_grid: points per axis of the result.

    Raises:
        ValueError: if out_grid does not fit u.
        TypeError: if u holds no floating-point numbers.
    """
    return _apply(u, out_grid, fourier_matrix, _LARGEST_MATRIX)


def linear_resample(u: jax.Array, out_grid: Sequence[int]) -> jax.Array:
    """(Multi-)linear interpolation of u [batch, *grid, channels]; corners are aligned.

    For grids that hold both end points of every axis. Second order. A coarser grid
    takes values of the interpolant at its points: it samples and does not average.

    Args:
        u: fields, one to three grid axes.
        out_grid: points per axis of the result.

    Raises:
        ValueError: if out_grid does not fit u.
        TypeError: if u holds no floating-point numbers.
    """
    return _apply(u, out_grid, functools.partial(lagrange_matrix, num_points=2))


def cubic_resample(u: jax.Array, out_grid: Sequence[int]) -> jax.Array:
    """As `linear_resample` with local cubic polynomials, fourth order.

    It may overshoot at jumps, so that positive fields can turn negative there.

    Raises:
        ValueError: if out_grid does not fit u.
        TypeError: if u holds no floating-point numbers.
    """
    return _apply(u, out_grid, functools.partial(lagrange_matrix, num_points=4))


_KINDS = {
    "cubic": cubic_resample,
    "fourier": fourier_resample,
    "linear": linear_resample,
}


def resample(u: jax.Array, out_grid: Sequence[int], kind: str) -> jax.Array:
    """Resamples by name: "fourier" on periodic grids, "linear", "cubic" on others.

    Raises:
        ValueError: for an unknown kind, or if out_grid does not fit u.
    """
    if kind not in _KINDS:
        raise ValueError(f"resampling is {kind!r}; known: {', '.join(sorted(_KINDS))}")
    return _KINDS[kind](u, out_grid)
