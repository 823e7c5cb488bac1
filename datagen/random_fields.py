"""Gaussian random fields on the unit box as cosine series (zero Neumann conditions)."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
import scipy.fft


@dataclasses.dataclass(frozen=True)
class NeumannField:
    """Gaussian field of mean zero and covariance tau^(2 alpha - 2) (tau^2 - D)^-alpha.

    D is the Laplacian of the unit square (or cube) with zero Neumann conditions. Its
    eigenfunctions are cosines, so a draw is a finite series

        U(x) = sum_{k != 0} sqrt(lambda_k) xi_k phi_k(x),    0 <= k_j < num_modes,
        lambda_k = tau^(2 alpha - 2) (pi^2 |k|^2 + tau^2)^-alpha,
        phi_k(x) = prod_j c(k_j) cos(pi k_j x_j),    c(0) = 1, otherwise sqrt(2),

    with independent standard normal xi_k. The constant mode is left out: every draw has
    spatial mean zero, so that about half of the square lies above zero. The series is a
    function: `cosine_series` evaluates the same draw at nodes or at cell centres.

    Attributes:
        alpha: exponent; draws are continuous for alpha > num_dims / 2.
        tau: inverse correlation length, in 1 / domain widths.
        num_modes: cosines per axis.
        num_dims: dimension of the box.

    Raises:
        ValueError: if a number is out of range.

    References:
        Li et al. (2021), Fourier neural operator, arXiv:2010.08895, appendix A.3.2. The
        power of tau in front is that of the authors' public script; the paper has none.
    """

    alpha: float
    tau: float
    num_modes: int
    num_dims: int = 2

    def __post_init__(self):
        if not 2 * self.alpha > self.num_dims:
            raise ValueError(
                f"alpha is {self.alpha}; a field of finite variance in {self.num_dims} "
                f"dimensions needs alpha > {self.num_dims / 2}"
            )
        if not self.tau > 0:
            raise ValueError(f"tau is {self.tau}; expected a positive number")
        if self.num_modes < 2:
            raise ValueError(f"num_modes is {self.num_modes}; expected at least 2")

    def eigenvalues(self) -> np.ndarray:
        """Variances lambda_k of the modes, [num_modes] * num_dims, zero at k = 0."""
        k = np.arange(self.num_modes, dtype=np.float64)
        squares = functools.reduce(np.add.outer, [k**2] * self.num_dims)
        values = (np.pi**2 * squares + self.tau**2) ** -self.alpha
        values *= self.tau ** (2 * self.alpha - 2)
        values[(0,) * self.num_dims] = 0.0
        return values

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """One draw as series coefficients sqrt(lambda_k) xi_k, [num_modes] * num_dims.

        Reads num_modes ** num_dims normal numbers, in an order that does not depend on
        num_modes: with the same generator state, a field of fewer modes is the
        truncation of one of more modes.
        """
        modes = normal_modes(rng, self.num_modes, self.num_dims)
        modes *= self._deviations
        return modes

    def variance(self) -> float:
        """Variance averaged over the box: the sum of all lambda_k."""
        return float(self.eigenvalues().sum())

    def pointwise_variance(self, shape: Sequence[int], location: str) -> np.ndarray:
        """Variance sum_k lambda_k phi_k(x)^2 at the points of a grid, [*shape].

        It is far above the average at the corners, where all cosines add up.
        """
        field = self.eigenvalues()
        for axis, n in enumerate(shape):
            squares = _cosine_matrix(n, self.num_modes, location) ** 2
            field = np.moveaxis(np.tensordot(squares, field, axes=(1, axis)), 0, axis)
        return field

    @functools.cached_property
    def _deviations(self) -> np.ndarray:
        return np.sqrt(self.eigenvalues())


def normal_modes(
    rng: np.random.Generator, num_modes: int, num_dims: int = 2
) -> np.ndarray:
    """Independent standard normal numbers xi_k, [num_modes] * num_dims.

    They are drawn shell by shell, a shell being all k with the same max_j k_j: the
    numbers of the low modes are the same whatever num_modes is.
    """
    xi = np.empty(num_modes**num_dims)
    xi[_shell_order(num_modes, num_dims)] = rng.standard_normal(xi.size)
    return xi.reshape((num_modes,) * num_dims)


def cosine_series(
    coefficients: np.ndarray, shape: Sequence[int], location: str
) -> np.ndarray:
    """Evaluates sum_k coefficients[k] phi_k(x) on a uniform grid of the unit box.

    phi_k as in `NeumannField`. "nodes": x_i = i / (n - 1), by DCT-I; "cells":
    x_i = (i + 1/2) / n, by DCT-III, the inverse of DCT-II. Modes beyond the grid's own
    are folded onto those that agree with them at its points, so the values are those
    of the full series at any resolution.

    Args:
        coefficients: one axis of modes per grid axis.
        shape: points per axis.
        location: "nodes" or "cells".

    Returns:
        Values [*shape], float64.

    Raises:
        ValueError: for another location, or if the number of axes differs.
    """
    if location not in ("nodes", "cells"):
        raise ValueError(f"location is {location!r}; known: nodes, cells")
    if coefficients.ndim != len(shape):
        raise ValueError(
            f"coefficients have {coefficients.ndim} axes, but the grid {tuple(shape)} "
            f"has {len(shape)}"
        )
    nodes = location == "nodes"
    modes = np.array(coefficients, np.float64)
    for axis, n in enumerate(shape):
        # SciPy's sums carry a factor 2 in front of the modes with a partner -k; halves
        # are exact, so they may come before the modes are folded.
        factors = 0.5 * _norms(modes.shape[axis])
        factors[:: n - 1 if nodes else n] *= 2
        modes *= factors.reshape([-1 if i == axis else 1 for i in range(modes.ndim)])
        if modes.shape[axis] != n:
            modes = np.moveaxis(
                _fold(np.moveaxis(modes, axis, -1), n, location), -1, axis
            )
    kind = 1 if nodes else 3
    return scipy.fft.dctn(np.ascontiguousarray(modes), type=kind, overwrite_x=True)


def low_modes(field: np.ndarray, location: str, num_modes: int) -> np.ndarray:
    """Coefficients of the cosines of total degree below num_modes, a vector.

    Integrals of field * phi_k by the trapezoidal rule ("nodes") or the midpoint rule
    ("cells"), for all k with sum_j k_j < num_modes, in row-major order of k.
    """
    for axis, n in enumerate(field.shape):
        weights = np.full(n, 1 / n)
        if location == "nodes":
            weights = np.full(n, 1 / (n - 1))
            weights[[0, -1]] *= 0.5
        rows = (_cosine_matrix(n, num_modes, location) * weights[:, None]).T
        field = np.moveaxis(np.tensordot(rows, field, axes=(1, axis)), 0, axis)
    return field[np.indices(field.shape).sum(axis=0) < num_modes]


@functools.lru_cache(maxsize=4)
def _shell_order(num_modes: int, num_dims: int) -> np.ndarray:
    """Flat positions of all k, sorted by max_j k_j, then by k_1, k_2, ..."""
    k = np.indices((num_modes,) * num_dims).reshape(num_dims, -1)
    return np.lexsort([*k[::-1], k.max(axis=0)])


def _norms(num_modes: int) -> np.ndarray:
    norms = np.full(num_modes, np.sqrt(2.0))
    norms[0] = 1.0
    return norms


def _fold(modes: np.ndarray, n: int, location: str) -> np.ndarray:
    """Brings the last axis to length n: pads with zeros, or folds aliases back."""
    num_modes = modes.shape[-1]
    folded = np.zeros((*modes.shape[:-1], n))
    if num_modes <= n:
        folded[..., :num_modes] = modes
        return folded
    k = np.arange(num_modes)
    if location == "nodes":  # cos(pi k i / (n - 1)) is even in k, of period 2 (n - 1)
        target = np.minimum(k % (2 * n - 2), -k % (2 * n - 2))
        sign = np.ones(num_modes)
    else:  # even in k, of period 4 n, odd about n, where it vanishes
        target = np.minimum(k % (4 * n), -k % (4 * n))
        sign = np.sign(n - target)
        target = np.where(target > n, 2 * n - target, target) % n
    np.add.at(folded, (..., target), modes * sign)
    return folded


def _cosine_matrix(n: int, num_modes: int, location: str) -> np.ndarray:
    """phi_k(x_i) along one axis, [n, num_modes]."""
    i = np.arange(n)
    x = i / (n - 1) if location == "nodes" else (i + 0.5) / n
    return _norms(num_modes) * np.cos(np.pi * np.outer(x, np.arange(num_modes)))
