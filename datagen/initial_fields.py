"""Random periodic fields as Fourier series, and Taylor-Green vortices.

A field is a finite series sum_j c_j exp(2 pi i j . x / L) with |j_a| <= num_modes on
every axis; the arrays here hold c in the layout of `numpy.fft.rfftn` on the smallest
grid that carries it, which has 2 num_modes + 1 points per axis and so no Nyquist mode:
[2 num_modes + 1, num_modes + 1] in two dimensions, [num_modes + 1] in one. Random
numbers are read shell by shell (max_a |j_a| = 1, 2, ...): one state of the generator
gives the same low modes whatever num_modes is, hence the same field on every grid.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from solvers.fourier import half_wavenumbers, wavenumbers

SCALINGS = ("old", "new", "paper")
DENSITIES = ("amplitude", "power")


class RandomField(Protocol):
    """A law of random periodic fields.

    Attributes:
        num_modes: highest wave number per axis.
        lengths: periods of the domain.
    """

    num_modes: int
    lengths: tuple[float, ...]

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """One draw as Fourier coefficients in the layout of the module."""


def fourier_series(coefficients: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Evaluates the series at x_i = i L / n of every axis.

    Modes that a grid cannot carry (2 |j| >= n) are left out, so the values on a coarse
    grid are the Fourier truncation of those on a fine one.

    Args:
        coefficients: [..., 2 m + 1, m' + 1] in two dimensions, [..., m + 1] in one.
        shape: points per axis; its length says how many of the last axes are modes.

    Returns:
        Real values [..., *shape], float64.

    Raises:
        ValueError: if the coefficients have fewer axes than the grid.
    """
    num_dims = len(shape)
    if coefficients.ndim < num_dims:
        raise ValueError(
            f"coefficients have {coefficients.ndim} axes, but the grid {tuple(shape)} "
            f"has {num_dims}"
        )
    axes = tuple(range(-num_dims, 0))
    for axis, n in zip(axes, shape, strict=True):
        coefficients = _fit(coefficients, n, axis)
    return np.fft.irfftn(coefficients, s=tuple(shape), axes=axes, norm="forward")


def angular_wavenumbers(
    num_modes: int, lengths: Sequence[float]
) -> tuple[np.ndarray, ...]:
    """2 pi j / L per axis in the layout of the module, broadcastable."""
    num_dims = len(lengths)
    axes = []
    for axis, length in enumerate(lengths):
        last = axis == num_dims - 1
        j = half_wavenumbers(2 * num_modes + 1) if last else _full(num_modes)
        shape = [-1 if i == axis else 1 for i in range(num_dims)]
        axes.append((2 * np.pi / length * j).reshape(shape))
    return tuple(axes)


def normal_modes(
    rng: np.random.Generator, num_modes: int, num_dims: int, num_fields: int = 1
) -> np.ndarray:
    """White noise: E |z_j|^2 = 1 for j != 0, z_{-j} = conj(z_j), z_0 = 0.

    Returns:
        [num_fields, ...] complex, the rest in the layout of the module. Numbers of the
        low modes are the same whatever num_modes is.
    """
    modes = _shell_order(num_modes, num_dims)
    normal = rng.standard_normal((len(modes), num_fields, 2)) * np.sqrt(0.5)
    z = np.zeros((num_fields, *_layout(num_modes, num_dims)), complex)
    values = (normal[..., 0] + 1j * normal[..., 1]).T
    z[(slice(None), *modes.T)] = values
    if num_dims == 2:  # the column j_2 = 0 holds both j and -j
        z[:, num_modes + 1 :, 0] = z[:, num_modes:0:-1, 0].conj()
    return z


def mean_square(coefficients: np.ndarray, num_dims: int) -> np.ndarray:
    """Mean over the domain of the square of a field, [...] from [..., *modes]."""
    weights = np.full(coefficients.shape[-1], 2.0)
    weights[0] = 1.0
    squares = np.abs(coefficients) ** 2 * weights.reshape((1,) * (num_dims - 1) + (-1,))
    return squares.sum(axis=tuple(range(-num_dims, 0)))


@dataclasses.dataclass(frozen=True)
class GaussianField:
    """Periodic Gaussian field of mean zero and covariance sigma^2 (tau^2 - D)^-alpha.

    D is the Laplacian of the torus: E |c_j|^2 = sigma^2 (tau^2 + |k|^2)^-alpha with
    k = 2 pi j / L, on domains of any size, and c_0 = 0.

    Attributes:
        alpha: exponent; draws are continuous for alpha > num_dims / 2.
        tau: inverse correlation length.
        sigma: amplitude; `fno_sigma` has that of the published sets.
        num_modes: highest wave number per axis.
        lengths: periods of the domain, one or two.

    Raises:
        ValueError: if a number is out of range.
    """

    alpha: float
    tau: float
    sigma: float
    num_modes: int
    lengths: tuple[float, ...] = (1.0, 1.0)

    def __post_init__(self):
        check_domain(self.num_modes, self.lengths, (1, 2))
        check_positive(self, "tau", "sigma")
        if not 2 * self.alpha > len(self.lengths):
            raise ValueError(
                f"alpha is {self.alpha}; a field of finite variance in "
                f"{len(self.lengths)} dimensions needs alpha > {len(self.lengths) / 2}"
            )

    @functools.cached_property
    def deviations(self) -> np.ndarray:
        """sqrt(E |c_j|^2) in the layout of the module, zero at j = 0."""
        k = wavenumber_length(self.num_modes, self.lengths)
        values = self.sigma * (k**2 + self.tau**2) ** (-self.alpha / 2)
        values[(0,) * values.ndim] = 0.0
        return values

    def variance(self) -> float:
        """Variance at every point: the sum of E |c_j|^2 over all j."""
        return float(mean_square(self.deviations, len(self.lengths)))

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """One draw as Fourier coefficients in the layout of the module."""
        z = normal_modes(rng, self.num_modes, len(self.lengths))[0]
        return self.deviations * z


def fno_sigma(alpha: float, tau: float, num_dims: int, scaling: str) -> float:
    """Amplitude sigma of `GaussianField` for the initial fields of the FNO data.

    With s = tau^(alpha - d/2) the three readings of one generator are

    - "old": 2 s^2 (tau^2 - D)^-alpha, the script of the published files: its noise has
      independent standard normal real and imaginary parts;
    - "new": s^2 (tau^2 - D)^-alpha, the same script since June 2022: noise of total
      variance one;
    - "paper": s (tau^2 - D)^-alpha, as the paper prints it, 7^(3/2) (49 - D)^-2.5.

    For alpha 2.5, tau 7 in two dimensions the pointwise standard deviations are 0.262,
    0.185 and 0.043.

    Raises:
        ValueError: for another scaling.

    References:
        Li et al. (2021), Fourier neural operator, arXiv:2010.08895, appendix A.3.3.
    """
    if scaling not in SCALINGS:
        raise ValueError(f"scaling is {scaling!r}; known: {', '.join(SCALINGS)}")
    s = float(tau) ** (alpha - num_dims / 2)
    return {"old": np.sqrt(2) * s, "new": s, "paper": np.sqrt(s)}[scaling]


@dataclasses.dataclass(frozen=True)
class McWilliamsField:
    """Vorticity of a random stream function with a prescribed spectrum.

    psi is white noise times D(k) = 1 / (k (tau^2 + (k / k0)^4)), scaled to a mean
    kinetic energy of exactly 1/4, <|u|^2> = 1/2. As in the published generator D
    multiplies the amplitude ("amplitude"); `density="power"` multiplies it by sqrt(D),
    which makes D the density of |psi|^2, the spectrum of the paper of 1984.

    Attributes:
        num_modes: highest wave number per axis.
        lengths: periods of the domain.
        peak_wavenumber: k0, angular.
        tau: flattens the spectrum below k0; dimensionless.
        density: "amplitude" or "power".

    Raises:
        ValueError: if a setting is out of range.

    References:
        McWilliams (1984), J. Fluid Mech. 146, 21-43.
    """

    num_modes: int
    lengths: tuple[float, float] = (2 * np.pi, 2 * np.pi)
    peak_wavenumber: float = 4.0
    tau: float = 1.0
    density: str = "amplitude"

    def __post_init__(self):
        check_domain(self.num_modes, self.lengths, (2,))
        check_positive(self, "peak_wavenumber", "tau")
        if self.density not in DENSITIES:
            raise ValueError(
                f"density is {self.density!r}; known: {', '.join(DENSITIES)}"
            )

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Fourier coefficients of the vorticity, [2 num_modes + 1, num_modes + 1]."""
        k, factors = self._filter
        psi = factors * normal_modes(rng, self.num_modes, 2)[0]
        psi /= np.sqrt(2 * mean_square(k * psi, 2))
        return k**2 * psi

    @functools.cached_property
    def _filter(self) -> tuple[np.ndarray, np.ndarray]:
        k = wavenumber_length(self.num_modes, self.lengths)
        k[0, 0] = 1.0
        factors = 1 / (k * (self.tau**2 + (k / self.peak_wavenumber) ** 4))
        factors[0, 0] = k[0, 0] = 0.0
        return k, factors if self.density == "amplitude" else np.sqrt(factors)


@dataclasses.dataclass(frozen=True)
class FilteredVelocityField:
    """Vorticity of a divergence-free velocity filtered around one wave number.

    White noise per component times the log-normal density

        exp(-(ln k0 + s - ln k)^2 / (2 s) - ln k) / k,      s = 1/4,

    projected on divergence-free fields and scaled to the given largest speed. The
    published generators project and scale three times, against the rounding of their
    projection on a staggered grid; here the projection is exact, so once is enough. The
    largest speed is measured at 4 num_modes + 4 points per axis whatever the grid. The
    two components have numbers of their own, unlike in one published set.

    Attributes:
        num_modes: highest wave number per axis.
        lengths: periods of the domain.
        peak_wavenumber: k0, angular.
        max_speed: largest |u|.

    Raises:
        ValueError: if a setting is out of range.

    References:
        Kochkov et al. (2021), PNAS 118 (21) e2101784118, arXiv:2102.01010.
    """

    num_modes: int
    lengths: tuple[float, float] = (2 * np.pi, 2 * np.pi)
    peak_wavenumber: float = 4.0
    max_speed: float = 5.0

    def __post_init__(self):
        check_domain(self.num_modes, self.lengths, (2,))
        check_positive(self, "peak_wavenumber", "max_speed")

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Fourier coefficients of the vorticity, [2 num_modes + 1, num_modes + 1]."""
        u, v = self._filter * normal_modes(rng, self.num_modes, 2, num_fields=2)
        k1, k2 = angular_wavenumbers(self.num_modes, self.lengths)
        vorticity = 1j * (k1 * v - k2 * u)  # the projection does not change the curl
        n = 4 * self.num_modes + 4
        speed = np.hypot(*fourier_series(velocity(vorticity, self.lengths), (n, n)))
        return vorticity * (self.max_speed / speed.max())

    @functools.cached_property
    def _filter(self) -> np.ndarray:
        k = wavenumber_length(self.num_modes, self.lengths)
        k[0, 0] = 1.0
        log_k, variance = np.log(k), 0.25
        mean = np.log(self.peak_wavenumber) + variance
        factors = np.exp(-((mean - log_k) ** 2) / (2 * variance) - log_k) / k
        factors[0, 0] = 0.0
        return factors


@dataclasses.dataclass(frozen=True)
class TaylorGreenField:
    """Taylor-Green vortices of a random number and at a random place.

        omega = -2 kappa cos(kappa (x - x0)) cos(kappa (y - y0)),    kappa = 2 pi m / L,

    of largest speed 1. Under the Navier-Stokes equation without forcing it is
    multiplied by exp(-2 nu kappa^2 t).

    Attributes:
        num_modes: highest wave number per axis.
        lengths: periods of the domain, equal.
        counts: smallest and largest m.

    Raises:
        ValueError: if a setting is out of range.
    """

    num_modes: int
    lengths: tuple[float, float] = (1.0, 1.0)
    counts: tuple[int, int] = (1, 10)

    def __post_init__(self):
        check_domain(self.num_modes, self.lengths, (2,))
        if self.lengths[0] != self.lengths[1]:
            raise ValueError(f"lengths are {self.lengths}; expected equal ones")
        low, high = self.counts
        if not 1 <= low <= high <= self.num_modes:
            raise ValueError(
                f"counts are {self.counts}; expected integers low <= high between 1 "
                f"and num_modes = {self.num_modes}"
            )

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Fourier coefficients of the vorticity, [2 num_modes + 1, num_modes + 1]."""
        m = int(rng.integers(self.counts[0], self.counts[1] + 1))
        shift = rng.random(2)  # (x0, y0), in periods
        return taylor_green(m, shift, self.num_modes, self.lengths[0])


def taylor_green(
    m: int, shift: Sequence[float], num_modes: int, length: float
) -> np.ndarray:
    """Coefficients of the vorticity in `TaylorGreenField`, m vortex pairs per axis.

    Args:
        m: vortex pairs per axis, 1 ... num_modes.
        shift: (x0, y0) in periods of the domain.
        num_modes: highest wave number per axis.
        length: period of the domain.
    """
    c = np.zeros(_layout(num_modes, 2), complex)
    kappa = 2 * np.pi * m / length
    for row in (m, -m):
        phase = 2 * np.pi * (row * shift[0] + m * shift[1])
        c[row, m] = -0.5 * kappa * np.exp(-1j * phase)
    return c


def velocity(vorticity: np.ndarray, lengths: Sequence[float]) -> np.ndarray:
    """Coefficients of u = (d psi/dy, -d psi/dx), -D psi = vorticity, [2, ...]."""
    num_modes = vorticity.shape[-1] - 1
    k1, k2 = angular_wavenumbers(num_modes, lengths)
    square = k1**2 + k2**2
    square[0, 0] = 1.0
    psi = vorticity / square
    return 1j * np.stack([k2 * psi, -k1 * psi])


def wavenumber_length(num_modes: int, lengths: Sequence[float]) -> np.ndarray:
    """|k|, k = 2 pi j / L, in the layout of the module."""
    squares = [k**2 for k in angular_wavenumbers(num_modes, lengths)]
    return np.sqrt(functools.reduce(np.add, squares))


def check_positive(owner: object, *names: str) -> None:
    """Raises a ValueError unless all these attributes are positive."""
    for name in names:
        if not 0 < getattr(owner, name) < np.inf:
            raise ValueError(
                f"{name} is {getattr(owner, name)}; expected a positive number"
            )


def check_domain(
    num_modes: int, lengths: Sequence[float], num_dims: Sequence[int]
) -> None:
    """Raises a ValueError for no modes, or for periods that are none."""
    if num_modes < 1 or int(num_modes) != num_modes:
        raise ValueError(f"num_modes is {num_modes}; expected 1, 2, ...")
    if len(lengths) not in num_dims or not all(0 < x < np.inf for x in lengths):
        raise ValueError(
            f"lengths are {tuple(lengths)}; expected "
            f"{' or '.join(map(str, num_dims))} positive periods"
        )


def _full(num_modes: int) -> np.ndarray:
    return wavenumbers(2 * num_modes + 1)


def _layout(num_modes: int, num_dims: int) -> tuple[int, ...]:
    return (2 * num_modes + 1,) * (num_dims - 1) + (num_modes + 1,)


def _fit(coefficients: np.ndarray, n: int, axis: int) -> np.ndarray:
    """Pads or cuts one axis of modes for a grid of n points."""
    half = axis == -1
    modes = np.moveaxis(coefficients, axis, -1)
    highest = modes.shape[-1] - 1 if half else modes.shape[-1] // 2
    kept = min((n - 1) // 2, highest)
    fitted = np.zeros((*modes.shape[:-1], n // 2 + 1 if half else n), complex)
    fitted[..., : kept + 1] = modes[..., : kept + 1]
    if not half and kept > 0:
        fitted[..., -kept:] = modes[..., -kept:]
    return np.moveaxis(fitted, -1, axis)


@functools.lru_cache(maxsize=8)
def _shell_order(num_modes: int, num_dims: int) -> np.ndarray:
    """Indices of the modes that get numbers: one of each pair j, -j, [num, num_dims].

    Sorted by max_a |j_a|, then by j.
    """
    if num_dims == 1:
        return np.arange(1, num_modes + 1)[:, None]
    j = np.stack(
        np.meshgrid(_full(num_modes), np.arange(num_modes + 1), indexing="ij"), axis=-1
    ).reshape(-1, 2)
    j = j[(j[:, 1] > 0) | (j[:, 0] > 0)]
    return j[np.lexsort([j[:, 1], j[:, 0], np.abs(j).max(axis=1)])]
