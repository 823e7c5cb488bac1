"""Products of two real fields on periodic grids, by transforms made for CPUs.

XLA's transforms of two-dimensional real fields are what a pseudo-spectral step waits
for on a CPU. `FoldedModes` needs fewer operations for the one thing that such a step
does, quadratic terms without aliasing:

* Along x, complex FFTs of the kept frequencies of y alone, contiguous in memory.
* Along y, products with real matrices, folded twice: cosines and sines are even and odd
  about y = 0, and about L / 4 by the parity of their frequency. Four products with
  matrices of n / 4 rows and n / 6 columns stand for one with n rows and 2 n / 3
  columns, and none of them needs a transpose.
* The four parts of a field, by their parities, multiply like a group: the values at the
  n points of y are never put together.

Measured by `python -m benchmarks.navier_stokes`.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from solvers import fourier
from solvers.spectral.modes import Modes, scaled, spread

# Points of the second axis up to which the matrix products beat FFTs in both precisions
# (measured at 32, 64, 128, 256 and 512: at 512 in single precision alone).
LARGEST_FOLD = 384


@dataclasses.dataclass(frozen=True)
class FoldedModes(Modes):
    """`Modes` within a cutoff below n / 3 on two axes, laid out for fast products.

    Coefficients [..., 2 m, n1] have the frequencies of y in front, 0, 2, 4, ... and
    then 1, 3, 5, ..., and all n1 frequencies of x contiguous, in the order of
    `jnp.fft.fft`. Those outside the box are stored and stay zero.

    Products are taken at y = (j + 1/2) L / n, half a spacing off the grid: without
    aliasing their coefficients do not depend on where the points lie, and none of these
    points is its own mirror image.

    Raises:
        ValueError: unless there are two axes with a cutoff below n / 3, and the points
            of the second are a multiple of 4.
    """

    def __post_init__(self):
        shape = self.grid.shape
        cutoffs = self.cutoffs or shape
        alias = any(3 * cut >= n for cut, n in zip(cutoffs, shape, strict=True))
        if len(shape) != 2 or alias or shape[1] % 4:
            raise ValueError(
                f"folded modes need two axes, cutoffs below n / 3 and a multiple of 4 "
                f"points on the second axis, got shape {shape} with cutoffs "
                f"{self.cutoffs}; Modes takes any"
            )

    @property
    def _half(self) -> int:
        """Number of even frequencies of y; there are as many odd ones."""
        return self.cutoffs[1] // 2 + 1

    @functools.cached_property
    def wavenumbers(self) -> tuple[np.ndarray, ...]:
        """Integer frequencies [1, n1] of x and [2 m, 1] of y."""
        even = 2 * np.arange(self._half)
        j1 = fourier.wavenumbers(self.grid.shape[0])
        return j1[None, :], np.concatenate([even, even + 1])[:, None]

    @functools.cached_property
    def shape(self) -> tuple[int, ...]:
        """Shape of the coefficients of one field, (2 m, n1)."""
        return 2 * self._half, self.grid.shape[0]

    @functools.cached_property
    def _mask(self) -> np.ndarray:
        """1 within the box and 0 outside, [2 m, n1]."""
        pairs = zip(self.wavenumbers, self.cutoffs, strict=True)
        within = [abs(j) <= cut for j, cut in pairs]
        return (within[0] & within[1]).astype(float)

    @functools.cached_property
    def weights(self) -> np.ndarray:
        """How often each coefficient stands in the full spectrum, [2 m, n1]."""
        return np.where(self.wavenumbers[1] == 0, 1.0, 2.0) * self._mask

    def select(self, spectrum: jax.Array) -> jax.Array:
        """The coefficients [..., 2 m, n1] out of spectra of the grid."""
        xp = jnp if isinstance(spectrum, jax.Array) else np
        rows = xp.swapaxes(spectrum, -1, -2)[..., : 2 * self._half, :]
        state = _split(rows, xp)
        return state * np.asarray(self._mask, state.real.dtype).reshape(
            (1,) * (state.ndim - 2) + self.shape
        )

    def fill(self, state: jax.Array) -> jax.Array:
        """Spectra of the grid from coefficients [..., 2 m, n1], zero elsewhere."""
        *batch, rows, n1 = state.shape
        folded = state.reshape(*batch, 2, rows // 2, n1)
        columns = folded.swapaxes(-3, -2).reshape(state.shape).swapaxes(-1, -2)
        missing = self.grid.spectrum_shape[-1] - rows
        return jnp.pad(columns, [(0, 0)] * (state.ndim - 1) + [(0, missing)])

    def quadratic(self, u: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Coefficients of u v and v^2 - u^2 from those of real u and v, [..., 2 m, n1].

        Free of aliasing. Only the Hermitian part of the row of frequency 0 counts.
        """
        u_even, u_odd = self._parts(u)
        v_even, v_odd = self._parts(v)
        product = (
            _multiply(u_even, v_even) + _multiply(u_odd, v_odd),
            _multiply(u_even, v_odd) + _multiply(u_odd, v_even),
        )
        plus, minus = (v_even + u_even, v_odd + u_odd), (v_even - u_even, v_odd - u_odd)
        difference = (
            _multiply(plus[0], minus[0]) + _multiply(plus[1], minus[1]),
            _multiply(plus[0], minus[1]) + _multiply(plus[1], minus[0]),
        )
        return self._coefficients(*product), self._coefficients(*difference)

    def _parts(self, state):
        """Parts of a field even and odd in y, each [..., 2, n2 / 4, n1].

        Axis -3 is the parity of the frequency of y; values at the first quarter of y.
        """
        *batch, rows, n1 = state.shape
        lines = jnp.fft.ifft(state).reshape(*batch, 2, rows // 2, n1)
        cosines, sines = (_batched(matrix, state) for matrix in self._synthesis)
        return cosines @ lines.real, sines @ lines.imag

    def _coefficients(self, even, odd):
        """The inverse of `_parts`, cut off at the box."""
        cosines, sines = (_batched(matrix, even) for matrix in self._analysis)
        lines = jax.lax.complex(cosines @ even, sines @ odd)
        *batch, parities, rows, n1 = lines.shape
        state = jnp.fft.fft(lines.reshape(*batch, parities * rows, n1))
        return scaled(spread(self._mask, state), state)

    @functools.cached_property
    def _angles(self):
        """K y for the quarter of y and the frequencies by parity, [2, n2 / 4, m]."""
        n = self.grid.shape[1]
        y = 2 * np.pi / n * (np.arange(n // 4) + 0.5)
        return y[:, None] * self.wavenumbers[1].reshape(2, 1, self._half)

    @functools.cached_property
    def _synthesis(self):
        """Matrices [2, n2 / 4, m] from real and imaginary parts to the even and odd."""
        counts = np.where(self.wavenumbers[1] == 0, 1.0, 2.0).reshape(2, 1, self._half)
        weights = counts / self.grid.shape[1]
        return weights * np.cos(self._angles), -weights * np.sin(self._angles)

    @functools.cached_property
    def _analysis(self):
        """Matrices [2, m, n2 / 4] from even and odd parts to real and imaginary ones.

        Each point of the quarter stands for four of the grid.
        """
        angles = self._angles.swapaxes(1, 2)
        return 4 * np.cos(angles), -4 * np.sin(angles)


def supports_folding(grid, cutoffs) -> bool:
    """Whether `FoldedModes` takes this grid, and this machine gains by it.

    On accelerators their own two-dimensional FFTs are the better choice.
    """
    return (
        grid.ndim == 2
        and cutoffs is not None
        and grid.shape[1] % 4 == 0
        and grid.shape[1] <= LARGEST_FOLD
        and all(3 * cut < n for cut, n in zip(cutoffs, grid.shape, strict=True))
        and jax.default_backend() == "cpu"
    )


def _split(rows, xp):
    """Rows 0, 1, 2, ... as 0, 2, ..., 1, 3, ..."""
    return xp.concatenate([rows[..., ::2, :], rows[..., 1::2, :]], -2)


def _batched(matrix, like):
    """A matrix [2, a, b] for every field of a batch, in the precision of `like`.

    `like` is [..., rows, n1] complex or [..., 2, rows, n1] real. A batch of products
    with one matrix each is faster in XLA than the contraction with a single matrix,
    which transposes the batch.
    """
    batch = like.shape[:-2] if jnp.iscomplexobj(like) else like.shape[:-3]
    matrix = jnp.asarray(matrix, like.real.dtype)
    return jnp.broadcast_to(matrix, (*batch, *matrix.shape))


def _multiply(a, b):
    """Product of parts [..., 2, rows, n1] of equal parity (even) about L / 4, or not.

    Even times even and odd times odd are even: a cyclic convolution over axis -3.
    """
    return a[..., :1, :, :] * b + a[..., 1:, :, :] * b[..., ::-1, :, :]
