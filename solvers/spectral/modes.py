"""The Fourier modes that the state of an equation holds."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from solvers import fourier
from solvers.spectral.grid import PeriodicGrid


@dataclasses.dataclass(frozen=True)
class Modes:
    """A box of Fourier modes of a grid: |j| <= cutoff per axis, or all of them.

    Coefficients have the scale of `grid.transform` and its order, without the rows and
    columns that are left out: 0, 1, ..., K, -K, ..., -1 per axis, and 0, 1, ..., K on
    the last.

    Attributes:
        grid: the grid of the fields.
        cutoffs: largest frequency K per axis, 2 K < n; None: all modes of the grid.
        odd_nyquist: whether odd derivatives keep frequency n / 2 of even axes, where
            the derivative of a real field vanishes. Only to reproduce older codes.
    """

    grid: PeriodicGrid
    cutoffs: tuple[int, ...] | None = None
    odd_nyquist: bool = False

    @functools.cached_property
    def wavenumbers(self) -> tuple[np.ndarray, ...]:
        """Integer frequencies per axis, broadcastable, as `grid.wavenumbers`."""
        if self.cutoffs is None:
            return self.grid.wavenumbers
        vectors = [fourier.wavenumbers(2 * cut + 1) for cut in self.cutoffs[:-1]]
        return tuple(np.ix_(*vectors, np.arange(self.cutoffs[-1] + 1)))

    @functools.cached_property
    def shape(self) -> tuple[int, ...]:
        """Shape of the coefficients of one field."""
        return tuple(j.size for j in self.wavenumbers)

    @functools.cached_property
    def weights(self) -> np.ndarray:
        """How often each coefficient stands in the full spectrum, [1, ..., m_last].

        sum(weights |c|^2) / num_points^2 is the mean square of a field.
        """
        n = self.grid.shape[-1]
        weights = fourier.half_spectrum_weights(n)[: self.shape[-1]]
        return weights.reshape((1,) * (self.grid.ndim - 1) + (-1,))

    def k(self, axis: int, like: jax.Array, *, odd: bool = True) -> jax.Array:
        """Angular wave numbers of one axis, broadcastable to `like`, in its precision.

        Args:
            axis: axis of the grid, 0 is the first.
            like: [..., *shape] coefficients.
            odd: whether they stand for an odd derivative; see `odd_nyquist`.
        """
        j = self.wavenumbers[axis]
        n = self.grid.shape[axis]
        if odd and not self.odd_nyquist:
            j = np.where(2 * abs(j) == n, 0, j)
        k = 2 * np.pi / self.grid.lengths[axis] * j
        return spread(k, like)

    def laplacian(self, like: jax.Array) -> jax.Array:
        """-|k|^2, broadcastable to `like`, in its precision."""
        squares = (self.k(axis, like, odd=False) ** 2 for axis in range(self.grid.ndim))
        return -sum(squares)

    def select(self, spectrum: jax.Array) -> jax.Array:
        """The coefficients [..., *shape] out of spectra of the grid."""
        if self.cutoffs is None:
            return spectrum
        xp = jnp if isinstance(spectrum, jax.Array) else np
        spectrum = spectrum[..., : self.shape[-1]]
        for axis, cut in enumerate(self.cutoffs[:-1], start=-self.grid.ndim):
            n = spectrum.shape[axis]
            rest = (slice(None),) * (-axis - 1)
            low, high = (..., slice(0, cut + 1), *rest), (..., slice(n - cut, n), *rest)
            spectrum = xp.concatenate([spectrum[low], spectrum[high]], axis)
        return spectrum

    def fill(self, state: jax.Array) -> jax.Array:
        """Spectra of the grid from coefficients [..., *shape], zero elsewhere."""
        if self.cutoffs is None:
            return state
        for axis, cut in enumerate(self.cutoffs[:-1], start=-self.grid.ndim):
            rest = (slice(None),) * (-axis - 1)
            shape = list(state.shape)
            shape[axis] = self.grid.shape[axis] - 2 * cut - 1
            low, high = (
                (..., slice(0, cut + 1), *rest),
                (..., slice(cut + 1, None), *rest),
            )
            parts = [state[low], jnp.zeros(shape, state.dtype), state[high]]
            state = jnp.concatenate(parts, axis)
        missing = self.grid.spectrum_shape[-1] - state.shape[-1]
        return jnp.pad(state, [(0, 0)] * (state.ndim - 1) + [(0, missing)])

    def to_fields(self, *states: jax.Array) -> tuple[jax.Array, ...]:
        """Real fields [..., *grid.shape] of several coefficient arrays at once."""
        shape, axes = self.grid.shape, self.grid.axes
        return tuple(jnp.fft.irfftn(self.fill(s), s=shape, axes=axes) for s in states)

    def to_states(self, *fields: jax.Array) -> tuple[jax.Array, ...]:
        """Coefficients [..., *shape] of several real fields at once."""
        axes = self.grid.axes
        return tuple(self.select(jnp.fft.rfftn(f, axes=axes)) for f in fields)

    def quadratic(self, u: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Coefficients of u v and v^2 - u^2 from those of u and v, [..., *shape]."""
        u, v = self.to_fields(u, v)
        product, difference = self.to_states(u * v, v * v - u * u)
        return product, difference

    def mean_product(self, a: jax.Array, b: jax.Array) -> jax.Array:
        """Mean over the box of the product of two real fields [...], by Parseval."""
        return self.weighted_sum(a.real * b.real + a.imag * b.imag)

    def weighted_sum(self, squares: jax.Array) -> jax.Array:
        """Mean over the box of a square, [...], given by |c|^2 per coefficient."""
        weights = spread(self.weights / float(self.grid.num_points) ** 2, squares)
        return jnp.sum(squares * weights, axis=self.grid.axes)


def spread(coefficients, like: jax.Array) -> jax.Array:
    """[*shape] with axes of length 1 in front, in the precision of `like`."""
    coefficients = jnp.asarray(coefficients, real_dtype(like.dtype))
    return coefficients.reshape(
        (1,) * (like.ndim - coefficients.ndim) + coefficients.shape
    )


def real_dtype(dtype) -> np.dtype:
    """float32 for float32 and complex64, float64 for float64 and complex128."""
    return np.dtype("float32") if dtype in ("float32", "complex64") else np.dtype(float)


def scaled(factor: jax.Array, x: jax.Array) -> jax.Array:
    """A real factor times complex x, without making the factor complex as XLA would."""
    return jax.lax.complex(factor * x.real, factor * x.imag)


def times_i(x: jax.Array) -> jax.Array:
    """The imaginary unit times x."""
    return jax.lax.complex(-x.imag, x.real)


def complex_dtype(dtype) -> np.dtype:
    """complex64 for float32 and complex64, complex128 for float64 and complex128."""
    return np.dtype("complex64" if real_dtype(dtype).itemsize == 4 else "complex128")
