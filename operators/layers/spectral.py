"""Convolution by a few Fourier modes, exact on odd, even and non-square grids."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike

from operators.layers import precision as precisions
from operators.layers import spectral_weights
from operators.layers.resampling import check_grid
from operators.layers.spectral_costs import faster_transform
from operators.layers.spectral_transforms import (
    TRANSFORMS,
    check_points,
    synthesise_at,
)

LAYOUTS = ("below", "li2021", "neuralop", "symmetric")


def mode_frequencies(modes: Sequence[int], layout: str) -> tuple[np.ndarray, ...]:
    """Integer frequencies for which weights are stored, one array per axis.

    With m the entry of an axis: "symmetric" keeps |k| <= m, "below" |k| < m; "li2021"
    keeps -m ... m - 1, and 0 ... m - 1 on the last axis; "neuralop" counts both signs,
    -floor(m / 2) ... ceil(m / 2) - 1, and 0 ... floor(m / 2). The last two keep one
    negative frequency without its partner, which a real field halves at last
    frequency 0.

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
    if layout == "below":
        return (*(np.arange(1 - m, m) for m in leading), np.arange(last))
    return (*(np.arange(-m, m + 1) for m in leading), np.arange(last + 1))


def resolved(
    frequencies: Sequence[np.ndarray],
    grid: Sequence[int],
    out_grid: Sequence[int],
    nyquist: bool = False,
) -> tuple[np.ndarray, ...]:
    """Positions of the frequencies strictly below Nyquist on both grids, per axis.

    With `nyquist` also that of -n / 2, which some released models use.
    """
    return tuple(
        np.flatnonzero((2 * np.abs(k) < min(n, m)) | (nyquist & (-2 * k == min(n, m))))
        for k, n, m in zip(frequencies, grid, out_grid, strict=True)
    )


class SpectralConvolution(nnx.Module):
    """Multiplies low Fourier modes by learned complex matrices, any dimension.

    Modes are addressed by integer frequency, so the layer is the same map on every
    grid that resolves them; modes at or above Nyquist of a coarse grid are left out.
    The complex weights are stored as two real arrays [*modes, in, out].

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        modes: modes per axis, in the counting of `layout`.
        layout: which modes are stored, see `mode_frequencies`, and how dense weights
            start: "li2021" draws both parts from U[0, 1) / (in * out), the others
            from N(0, 1 / (in + out)), that is total variance 2 / (in + out).
        bound: draws both parts of dense weights from U[0, bound) instead.
        transform: "dft" (real matrix products) or "fft", the same map; "auto" takes
            the faster one, see `spectral_costs`.
        use_bias: whether to add one number per output channel, N(0, 2 / (in + out)).
        factorization: "dense", "tucker" or "cp" weights.
        rank: parameters of the factors over those of dense weights, about.
        separable: one complex number per channel and mode instead of a matrix.
        nyquist: keeps the frequency -n / 2 too where it is stored, for released models.
        precision: of the matrix products, see `operators.layers.precision.einsum`.
        param_dtype: dtype of the parameters.
        rngs: random streams; draws from `params`.

    Raises:
        ValueError: if an argument does not fit.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        modes: Sequence[int],
        layout: str = "symmetric",
        bound: float | None = None,
        transform: str = "auto",
        use_bias: bool = False,
        factorization: str = "dense",
        rank: float = 1.0,
        separable: bool = False,
        nyquist: bool = False,
        precision: str = "full",
        param_dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        if transform not in ("auto", *TRANSFORMS):
            raise ValueError(
                f"transform is {transform!r}; known: auto, {', '.join(TRANSFORMS)}"
            )
        self.modes, self.layout, self.transform = tuple(modes), layout, transform
        self.in_channels, self.precision = in_channels, precisions.check(precision)
        self.nyquist = nyquist
        self.weights = spectral_weights.create(
            in_channels,
            out_channels,
            [len(k) for k in mode_frequencies(self.modes, layout)],
            init="uniform" if layout == "li2021" else "normal",
            bound=bound,
            factorization=factorization,
            rank=rank,
            separable=separable,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        bias = None
        if use_bias:
            std = math.sqrt(2 / (in_channels + out_channels))
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
            ValueError: if the shape of u or out_grid does not fit.
            TypeError: if u holds no floating-point numbers.
        """
        grid = self._grid(u)
        out_grid = grid if out_grid is None else check_grid(out_grid, len(grid))
        frequencies, block = self._block(grid, out_grid)
        transform = self.transform
        if transform == "auto":
            transform = faster_transform(grid, out_grid, frequencies)
        analyse, synthesise = TRANSFORMS[transform]
        spectrum = analyse(u, frequencies, self.precision)
        spectrum = self.weights(spectrum, block, self.precision)
        return self._add_bias(
            synthesise(spectrum, frequencies, out_grid, self.precision)
        )

    def at(self, u: jax.Array, points: ArrayLike) -> jax.Array:
        """Evaluates the series of the output anywhere.

        Args:
            u: [batch, *grid, in_channels].
            points: [points, axes], in periods: u stands at j / n along an axis.

        Returns:
            [batch, points, out_channels].

        Raises:
            ValueError: if the shape of u or points does not fit.
            TypeError: if u holds no floating-point numbers.
        """
        grid = self._grid(u)
        points = check_points(points, len(grid))
        frequencies, block = self._block(grid, grid)
        analyse, _ = TRANSFORMS["fft" if self.transform == "fft" else "dft"]
        spectrum = analyse(u, frequencies, self.precision)
        spectrum = self.weights(spectrum, block, self.precision)
        return self._add_bias(
            synthesise_at(spectrum, frequencies, points, self.precision)
        )

    def _grid(self, u: jax.Array) -> tuple[int, ...]:
        precisions.check_floating("u", u)
        if u.ndim != len(self.modes) + 2 or u.shape[-1] != self.in_channels:
            raise ValueError(
                f"u must have {len(self.modes)} grid axes between batch and "
                f"{self.in_channels} channels, got shape {u.shape}"
            )
        if u.size == 0:
            raise ValueError(f"u must hold at least one sample, got shape {u.shape}")
        return u.shape[1:-1]

    def _block(self, grid, out_grid):
        """The frequencies both grids resolve, and where their weights stand."""
        frequencies = mode_frequencies(self.modes, self.layout)
        kept = resolved(frequencies, grid, out_grid, self.nyquist)
        frequencies = [k[i] for k, i in zip(frequencies, kept, strict=True)]
        # The kept ones are adjacent.
        return frequencies, tuple(slice(i[0], i[-1] + 1) for i in kept)

    def _add_bias(self, u: jax.Array) -> jax.Array:
        if self.bias is None:
            return u
        bias = self.bias[...].astype(u.dtype)
        return u + bias.reshape((1,) * (u.ndim - 1) + (-1,))
