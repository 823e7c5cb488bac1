"""Convolution by a few Fourier modes, exact on odd, even and non-square grids."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from solvers.fourier import half_spectrum_weights

LAYOUTS = ("li2021", "neuralop", "symmetric")
TRANSFORMS = ("dft", "fft")


def mode_frequencies(modes: Sequence[int], layout: str) -> tuple[np.ndarray, ...]:
    """Integer frequencies for which weights are stored, one array per axis.

    With m the entry of an axis: "li2021" keeps -m ... m - 1, and 0 ... m - 1 on the
    last axis; "neuralop" counts both signs, -floor(m / 2) ... ceil(m / 2) - 1, and
    0 ... floor(m / 2); "symmetric" keeps |k| <= m. The first two keep one negative
    frequency without its partner, which a real field halves at last frequency 0.

    Raises:
        ValueError: for an unknown layout or modes below 1.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout is {layout!r}; known: {', '.join(LAYOUTS)}")
    if not modes or min(modes) < 1:
        raise ValueError(f"modes must hold one positive number per axis, got {modes}")
    *leading, last = modes
    if layout == "li2021":
        return (*(np.arange(-m, m) for m in leading), np.arange(last))
    if layout == "neuralop":
        signed = (np.arange(m) - m // 2 for m in leading)
        return (*signed, np.arange(last // 2 + 1))
    return (*(np.arange(-m, m + 1) for m in leading), np.arange(last + 1))


def resolved(
    frequencies: Sequence[np.ndarray], grid: Sequence[int], out_grid: Sequence[int]
) -> tuple[np.ndarray, ...]:
    """Positions of the frequencies strictly below Nyquist on both grids, per axis."""
    return tuple(
        np.flatnonzero(2 * np.abs(k) < min(n, m))
        for k, n, m in zip(frequencies, grid, out_grid, strict=True)
    )


def analyse_fft(u: jax.Array, frequencies: Sequence[np.ndarray]) -> jax.Array:
    """Fourier coefficients [batch, 2, *k, channels] of u [batch, *grid, channels].

    u is real. Axis 1 holds real and imaginary parts. The transform carries 1 / n, so
    that the numbers approximate the continuous coefficients on every grid.
    """
    axes = tuple(range(1, u.ndim - 1))
    spectrum = jnp.fft.rfftn(u, axes=axes, norm="forward")
    for axis, k in zip(axes, frequencies, strict=True):
        spectrum = jnp.take(spectrum, k % u.shape[axis], axis=axis)
    return jnp.stack([spectrum.real, spectrum.imag], axis=1)


def synthesise_fft(
    coefficients: jax.Array, frequencies: Sequence[np.ndarray], grid: Sequence[int]
) -> jax.Array:
    """The real field [batch, *grid, channels] with these coefficients.

    On the plane of last frequency 0 the Hermitian part counts: its imaginary part in
    space is dropped explicitly, since inverse transforms of other spectra are not
    defined alike on CPU and GPU.
    """
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
    """Cosine and sine of 2 pi k x / n, [k, n], from integers reduced modulo n."""
    angle = 2 * np.pi * (np.outer(k, np.arange(n)) % n) / n
    return np.cos(angle), np.sin(angle)


def analyse_dft(u: jax.Array, frequencies: Sequence[np.ndarray]) -> jax.Array:
    """As `analyse_fft`, by one real matrix product per axis, only for these modes."""
    *leading, last = u.shape[1:-1]
    channels = u.shape[-1]
    cos, sin = _rotation(frequencies[-1], last)
    matrix = jnp.asarray(np.stack([cos, -sin]).reshape(-1, last) / last, u.dtype)
    u = jnp.einsum("ok,akc->aoc", matrix, u.reshape(-1, last, channels))
    size = len(frequencies[-1]) * channels  # of what is transformed already
    for n, k in zip(reversed(leading), reversed(frequencies[:-1]), strict=True):
        cos, sin = _rotation(k, n)
        # (re, im) of the result from (re, im) of every point, axes [q, k, x, p].
        matrix = np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)])
        matrix = jnp.asarray(matrix.reshape(2 * len(k), 2 * n) / n, u.dtype)
        u = jnp.einsum("oi,aic->aoc", matrix, u.reshape(-1, 2 * n, size))
        size *= len(k)
    return u.reshape(-1, 2, *(len(k) for k in frequencies), channels)


def synthesise_dft(
    coefficients: jax.Array, frequencies: Sequence[np.ndarray], grid: Sequence[int]
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
        u = jnp.einsum("oi,aic->aoc", matrix, u.reshape(-1, 2 * len(k), size))
    n, k = grid[-1], frequencies[-1]
    cos, sin = _rotation(k, n)
    # Every column but k = 0 stands for -k as well; sin(0) drops the imaginary part.
    matrix = np.stack([cos, -sin]) * half_spectrum_weights(n)[k, None]
    matrix = jnp.asarray(matrix.reshape(2 * len(k), n).T, u.dtype)
    u = jnp.einsum("oi,aic->aoc", matrix, u.reshape(-1, 2 * len(k), channels))
    return u.reshape(-1, *grid, channels)


_TRANSFORMS = {
    "dft": (analyse_dft, synthesise_dft),
    "fft": (analyse_fft, synthesise_fft),
}


class SpectralConvolution(nnx.Module):
    """Multiplies low Fourier modes by learned complex matrices, any dimension.

    Modes are addressed by integer frequency, so the layer is the same map on every
    grid that resolves them; modes at or above Nyquist of a coarse grid are left out.
    The complex weights are stored as two real arrays [*modes, in, out].

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        modes: modes per axis, in the counting of `layout`.
        layout: see `mode_frequencies`; "li2021" draws both parts from
            U[0, 1) / (in * out), the others from N(0, 1 / (in + out)), that is total
            variance 2 / (in + out).
        transform: "dft" (real matrix products) or "fft"; the same map.
        use_bias: whether to add one number per output channel, N(0, 2 / (in + out)).
        param_dtype: dtype of the parameters.
        rngs: random streams; draws from `params`.

    Raises:
        ValueError: for an unknown layout or transform, or modes below 1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        modes: Sequence[int],
        layout: str = "symmetric",
        transform: str = "dft",
        use_bias: bool = False,
        param_dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        if transform not in TRANSFORMS:
            raise ValueError(
                f"transform is {transform!r}; known: {', '.join(TRANSFORMS)}"
            )
        self.modes, self.layout, self.transform = tuple(modes), layout, transform
        sizes = tuple(len(k) for k in mode_frequencies(self.modes, layout))
        shape = (*sizes, in_channels, out_channels)
        std = math.sqrt(2 / (in_channels + out_channels))

        def draw():
            if layout == "li2021":
                uniform = jax.random.uniform(rngs.params(), shape, param_dtype)
                return uniform / (in_channels * out_channels)
            return (
                std
                / math.sqrt(2)
                * jax.random.normal(rngs.params(), shape, param_dtype)
            )

        self.real, self.imag = nnx.Param(draw()), nnx.Param(draw())
        bias = None
        if use_bias:
            bias = std * jax.random.normal(rngs.params(), (out_channels,), param_dtype)
        self.bias = nnx.data(None if bias is None else nnx.Param(bias))

    def __call__(
        self, u: jax.Array, out_grid: Sequence[int] | None = None
    ) -> jax.Array:
        """Maps u [batch, *grid, in_channels] to [batch, *out_grid, out_channels].

        Args:
            u: periodic field; axis lengths are arbitrary.
            out_grid: points per axis of the output; None means those of u.

        Raises:
            ValueError: if u does not have one axis per entry of modes.
        """
        if u.ndim != len(self.modes) + 2:
            raise ValueError(
                f"u must have {len(self.modes)} grid axes (batch first, channels last),"
                f" got shape {u.shape}"
            )
        grid = u.shape[1:-1]
        out_grid = grid if out_grid is None else tuple(out_grid)
        frequencies = mode_frequencies(self.modes, self.layout)
        kept = resolved(frequencies, grid, out_grid)
        frequencies = [k[i] for k, i in zip(frequencies, kept, strict=True)]
        analyse, synthesise = _TRANSFORMS[self.transform]
        block = tuple(
            slice(i[0], i[-1] + 1) for i in kept
        )  # the kept ones are adjacent
        real = self.real[...][block].astype(u.dtype)
        imag = self.imag[...][block].astype(u.dtype)
        coefficients = _multiply(analyse(u, frequencies), real, imag)
        out = synthesise(coefficients, frequencies, out_grid)
        if self.bias is not None:
            out = out + self.bias[...].astype(u.dtype).reshape(
                (1,) * (u.ndim - 1) + (-1,)
            )
        return out


def _multiply(coefficients: jax.Array, real: jax.Array, imag: jax.Array) -> jax.Array:
    """Complex products per mode, [b, 2, *k, c] times [*k, c, d] -> [b, 2, *k, d]."""
    batch, _, *sizes, c = coefficients.shape
    d = real.shape[-1]
    real, imag = real.reshape(-1, c, d), imag.reshape(-1, c, d)
    blocks = jnp.stack([jnp.stack([real, imag], 2), jnp.stack([-imag, real], 2)], 1)
    blocks = blocks.reshape(-1, 2 * c, 2 * d)  # [mode, (p, c), (q, d)]
    values = coefficients.reshape(batch, 2, -1, c).transpose(2, 0, 1, 3)
    values = values.reshape(-1, batch, 2 * c) @ blocks  # [mode, batch, (q, d)]
    values = values.reshape(-1, batch, 2, d).transpose(1, 2, 0, 3)
    return values.reshape(batch, 2, *sizes, d)
