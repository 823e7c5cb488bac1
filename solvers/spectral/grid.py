"""Periodic grids and their real Fourier transforms."""

import dataclasses
import functools
import math
import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from solvers import fourier


@dataclasses.dataclass(frozen=True)
class PeriodicGrid:
    """Equally spaced points of a periodic box in one or more dimensions.

    Point i of an axis of n points and length L lies at i L / n; the right end, which
    equals the left one, is left out. Spectra have the layout of `jnp.fft.rfftn`: all
    frequencies per axis, but only the non-negative ones of the last axis, and no factor
    in the transform to the spectrum. NumPy arrays are transformed by NumPy, JAX arrays
    by JAX, in their own precision.

    Attributes:
        shape: points per axis, even or odd.
        lengths: period per axis, in the unit of the coordinates.

    Raises:
        ValueError: unless there is one positive length per axis.
    """

    shape: tuple[int, ...]
    lengths: tuple[float, ...]

    def __post_init__(self):
        object.__setattr__(self, "shape", check_shape(self.shape, None))
        lengths = tuple(float(length) for length in np.atleast_1d(self.lengths))
        object.__setattr__(self, "lengths", lengths)
        fits = len(lengths) == len(self.shape)
        if not fits or not all(0 < length < math.inf for length in lengths):
            raise ValueError(
                f"lengths must hold one positive number per axis of the grid "
                f"{self.shape}, got {lengths}"
            )

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def num_points(self) -> int:
        """Number of points of the whole grid."""
        return math.prod(self.shape)

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes of a field that belong to the grid, counted from its end."""
        return tuple(range(-self.ndim, 0))

    @property
    def spacing(self) -> tuple[float, ...]:
        """Distance of neighbouring points per axis."""
        return tuple(L / n for L, n in zip(self.lengths, self.shape, strict=True))

    @property
    def spectrum_shape(self) -> tuple[int, ...]:
        """Shape of the spectrum of one field."""
        return (*self.shape[:-1], self.shape[-1] // 2 + 1)

    @functools.cached_property
    def wavenumbers(self) -> tuple[np.ndarray, ...]:
        """Integer frequencies j per axis, shapes [n1, 1], [1, n2 // 2 + 1] and alike.

        On an axis of even size the frequency n / 2 has the sign -1, but +1 on the last.
        """
        vectors = [fourier.wavenumbers(n) for n in self.shape[:-1]]
        vectors.append(fourier.half_wavenumbers(self.shape[-1]))
        return tuple(np.ix_(*vectors))

    @functools.cached_property
    def angular_wavenumbers(self) -> tuple[np.ndarray, ...]:
        """K = 2 pi j / L per axis, in the shapes of `wavenumbers`."""
        pairs = zip(self.wavenumbers, self.lengths, strict=True)
        return tuple(2 * np.pi * j / length for j, length in pairs)

    def mesh(self) -> tuple[np.ndarray, ...]:
        """Coordinates of all points, one array of the grid's shape per axis."""
        lines = [
            h * np.arange(n) for h, n in zip(self.spacing, self.shape, strict=True)
        ]
        return tuple(np.meshgrid(*lines, indexing="ij"))

    def refined(self, shape: Sequence[int]) -> "PeriodicGrid":
        """The grid of another shape on the same box."""
        return PeriodicGrid(check_shape(shape, self.ndim), self.lengths)

    def check(self, field: jax.Array, name: str = "field") -> jax.Array:
        """Returns a field [..., *shape].

        Raises:
            ValueError: if its last axes are not those of the grid.
            TypeError: unless it is real and of floating point.
        """
        if tuple(np.shape(field)[-self.ndim :]) != self.shape:
            raise ValueError(
                f"{name} must have the shape [..., {', '.join(map(str, self.shape))}] "
                f"of its grid, got {np.shape(field)}"
            )
        if not isinstance(field, jax.Array):
            field = np.asarray(field)
        if not np.issubdtype(field.dtype, jnp.floating):
            raise TypeError(
                f"{name} must hold real floating-point numbers, got {field.dtype}"
            )
        return field

    def transform(self, field: jax.Array) -> jax.Array:
        """Spectrum [..., n1, n2 // 2 + 1] of real fields [..., n1, n2], unnormalised.

        Raises:
            ValueError: if the field is on another grid.
            TypeError: unless the field is real.
        """
        field = self.check(field)
        return _namespace(field).fft.rfftn(field, axes=self.axes)

    def inverse(
        self, spectrum: jax.Array, shape: Sequence[int] | None = None
    ) -> jax.Array:
        """Fields [..., *shape] from spectra of this grid.

        Args:
            spectrum: [..., *spectrum_shape] as from `transform`.
            shape: points per axis of the result; None: those of this grid. Other shapes
                interpolate by the same trigonometric polynomial or cut it off: see
                `resample`.

        Raises:
            ValueError: if the spectrum belongs to another grid.
        """
        if tuple(np.shape(spectrum)[-self.ndim :]) != self.spectrum_shape:
            raise ValueError(
                f"spectrum must have the shape [..., "
                f"{', '.join(map(str, self.spectrum_shape))}] of grid {self.shape}, "
                f"got {np.shape(spectrum)}"
            )
        shape = self.shape if shape is None else check_shape(shape, self.ndim)
        if shape != self.shape:
            spectrum = self.resample_spectrum(spectrum, shape)
        return _namespace(spectrum).fft.irfftn(spectrum, s=shape, axes=self.axes)

    def resample(self, field: jax.Array, shape: Sequence[int]) -> jax.Array:
        """Resamples real fields [..., *self.shape] to [..., *shape] by Fourier series.

        Exact for fields whose frequencies both grids resolve; higher ones are removed
        and not aliased. The coefficient of frequency n / 2 of an even grid is shared
        equally by n / 2 and -n / 2 on a finer grid, and both are added on the way back,
        so that refining and coarsening is the identity. The mean stays.

        Raises:
            ValueError: if field or shape do not fit the grid.
        """
        field = self.check(field)
        shape = check_shape(shape, self.ndim)
        return (
            field if shape == self.shape else self.inverse(self.transform(field), shape)
        )

    def resample_spectrum(self, spectrum: jax.Array, shape: Sequence[int]) -> jax.Array:
        """The spectrum on the grid of another shape of the same box; see `resample`.

        Its column n2 / 2, if there is one, holds twice the Hermitian part that counts,
        plus an anti-Hermitian part, which `inverse` ignores.
        """
        shape = check_shape(shape, self.ndim)
        for axis, (n, m) in enumerate(zip(self.shape, shape, strict=True)):
            if n != m:
                resize = _resize_half if axis == self.ndim - 1 else _resize_full
                spectrum = resize(spectrum, axis - self.ndim, n, m)
        return spectrum * (math.prod(shape) / self.num_points)


def check_shape(shape: Sequence[int], ndim: int | None) -> tuple[int, ...]:
    """Returns points per axis as a tuple; takes a single integer and a grid as well.

    Raises:
        ValueError: unless they are `ndim` positive integers.
    """
    shape = shape.shape if isinstance(shape, PeriodicGrid) else shape
    try:
        sizes = tuple(operator.index(n) for n in np.atleast_1d(np.asarray(shape)))
    except TypeError:
        sizes = ()
    if min(sizes, default=0) < 1 or (ndim is not None and len(sizes) != ndim):
        expected = "at least one positive integer" if ndim is None else f"{ndim}"
        raise ValueError(
            f"shape must hold {expected} numbers of points, positive integers, "
            f"got {shape}"
        )
    return sizes


def _namespace(array):
    return jnp if isinstance(array, jax.Array) else np


def _part(array, axis, start, stop):
    return array[(..., slice(start, stop), *(slice(None),) * (-axis - 1))]


def _zeros(array, axis, count):
    shape = list(array.shape)
    shape[axis] = count
    return _namespace(array).zeros(shape, array.dtype)


def _resize_full(spectrum, axis, n, m):
    """Frequencies of an axis of n points on one of m points, all signs."""
    half = (min(n, m) - 1) // 2  # the frequencies that both grids have with both signs
    positive = _part(spectrum, axis, 0, half + 1)
    negative = _part(spectrum, axis, n - half, n)
    middle = _zeros(spectrum, axis, m - 2 * half - 1)
    if min(n, m) % 2 == 0:
        edge = min(n, m) // 2
        if n < m:  # the one coefficient becomes two halves
            value = _part(spectrum, axis, edge, edge + 1) / 2
            middle = _zeros(spectrum, axis, m - n - 1)
            middle = _namespace(spectrum).concatenate([value, middle, value], axis)
        else:
            value = _part(spectrum, axis, edge, edge + 1)
            middle = value + _part(spectrum, axis, n - edge, n - edge + 1)
    return _namespace(spectrum).concatenate([positive, middle, negative], axis)


def _resize_half(spectrum, axis, n, m):
    """As `_resize_full` for an axis with the non-negative frequencies only."""
    columns = min(n, m) // 2 + 1
    kept = _part(spectrum, axis, 0, columns)
    parts = [kept, _zeros(kept, axis, m // 2 + 1 - columns)]
    if min(n, m) % 2 == 0:
        # `irfft` counts an inner column twice and the last one of an even grid once.
        edge = _part(kept, axis, columns - 1, columns) * (0.5 if n < m else 2.0)
        parts[:1] = [_part(kept, axis, 0, columns - 1), edge]
    return _namespace(spectrum).concatenate(parts, axis)
