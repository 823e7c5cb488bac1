"""Energy, enstrophy, spectra and balance laws of periodic flows.

NumPy arrays give NumPy arrays, JAX arrays give JAX arrays.
"""

import jax
import jax.numpy as jnp
import numpy as np

from solvers.spectral.grid import PeriodicGrid
from solvers.spectral.modes import Modes


def energy(vorticity: jax.Array, grid: PeriodicGrid) -> jax.Array:
    """Mean kinetic energy <|u|^2> / 2 of vorticity fields [..., n1, n2]."""
    return _moment(vorticity, grid, -1)


def enstrophy(vorticity: jax.Array, grid: PeriodicGrid) -> jax.Array:
    """Mean enstrophy <w^2> / 2 of vorticity fields [..., n1, n2]."""
    return _moment(vorticity, grid, 0)


def palinstrophy(vorticity: jax.Array, grid: PeriodicGrid) -> jax.Array:
    """Mean palinstrophy <|grad w|^2> / 2 of vorticity fields [..., n1, n2]."""
    return _moment(vorticity, grid, 1)


def energy_spectrum(vorticity: jax.Array, grid: PeriodicGrid) -> jax.Array:
    """Kinetic energy per shell round(|j|) = 0, 1, ...: the sum over shells is `energy`.

    Frequencies are counted in units of 2 pi over the largest period of the box: shell s
    stands for wave numbers near 2 pi s / max(lengths).

    Returns:
        [..., shells], up to the shell of the corner of the spectrum.
    """
    return _shell_sums(vorticity, grid, -1)


def enstrophy_spectrum(vorticity: jax.Array, grid: PeriodicGrid) -> jax.Array:
    """Enstrophy per shell as `energy_spectrum`: the sum over shells is `enstrophy`."""
    return _shell_sums(vorticity, grid, 0)


def balance_defect(values: jax.Array, integrals: jax.Array) -> jax.Array:
    """Worst of |E(t) - E(0) - integral of dE/dt from 0 to t| / max |E| over a run.

    0 where E vanishes throughout. `rollout` records it over all steps as "balance": it
    integrates the exact rate of change of E with the time stepper as one more unknown,
    so that the defect is of the order of the error in time.

    Args:
        values: E at the times of the run, the first one at t = 0, [..., T].
        integrals: of dE/dt from 0 to these times, [..., T].
    """
    defects = abs(values - values[..., :1] - integrals)
    size = jnp.max(abs(values), axis=-1)
    return relative_defect(jnp.max(defects, axis=-1), size)


def relative_defect(defect: jax.Array, size: jax.Array) -> jax.Array:
    """The ratio defect / size, but the defect itself where the size is 0."""
    return defect / jnp.where(size > 0, size, 1)


def _powers(vorticity, grid, exponent):
    """|k|^(2 exponent) |w^|^2, to sum up to half a mean square, and |k|^2 (NumPy)."""
    spectrum = grid.transform(vorticity)
    squares = spectrum.real**2 + spectrum.imag**2
    k2 = sum(k**2 for k in grid.angular_wavenumbers)
    weights = Modes(grid).weights / (2.0 * grid.num_points**2)
    if exponent:  # the mean has no streamfunction
        weights = weights * np.where(k2 > 0, np.where(k2 > 0, k2, 1.0) ** exponent, 0)
    weights = weights.astype(squares.dtype)
    weights = weights.reshape((1,) * (squares.ndim - weights.ndim) + weights.shape)
    return squares * weights, k2


def _moment(vorticity, grid, exponent):
    return _powers(vorticity, grid, exponent)[0].sum(axis=grid.axes)


def _shell_sums(vorticity, grid, exponent):
    powers, k2 = _powers(vorticity, grid, exponent)
    unit = 2 * np.pi / max(grid.lengths)
    shells = np.rint(np.sqrt(k2) / unit).astype(int).ravel()
    flat = powers.reshape(*powers.shape[: -grid.ndim], -1)
    shape = (*flat.shape[:-1], shells.max() + 1)
    if isinstance(flat, jax.Array):
        return jnp.zeros(shape, flat.dtype).at[..., shells].add(flat)
    sums = np.zeros(shape, flat.dtype)
    np.add.at(sums, (..., shells), flat)
    return sums
