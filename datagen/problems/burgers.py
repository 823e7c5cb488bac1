"""Burgers' equation on a periodic interval, and its exact solution."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from datagen import initial_fields
from datagen.problems import periodic
from datagen.problems.base import (
    Boundary,
    Evolution,
    FieldSpec,
    Sample,
    Settings,
    TimeStepping,
)


@dataclasses.dataclass(frozen=True)
class Burgers(Settings):
    """du/dt + (u^2 / 2)_x = nu u_xx on (0, 1), periodic; the map from u(0) to u(t).

    u(0) is a Gaussian field of covariance sigma^2 (tau^2 - d^2/dx^2)^-alpha and mean
    zero. Two measures are published: that of the paper, sigma 25, tau 5, alpha 2 with
    nu = 0.1, and that of the script beside the data, sigma 49, tau 7, alpha 2.5 with
    nu = 0.001. Pseudo-spectral, stored by Fourier truncation; the stored initial field
    is the one the solver starts from on the stored points. Dimensionless.

    Attributes:
        n: stored points, at most `solver_n`.
        solver_n: points of the grid of the solver.
        viscosity: nu.
        alpha: exponent of the covariance, above 1/2.
        tau: inverse correlation length.
        sigma: amplitude.
        num_modes: highest wave number of the initial field.
        first_time: time of the first stored solution, positive.
        frame_spacing: time between stored solutions.
        num_frames: stored solutions.

    Raises:
        ValueError: if a setting is unknown or out of range.

    References:
        Li et al. (2021), Fourier neural operator, arXiv:2010.08895, section 5.1.
    """

    n: int = 1024
    solver_n: int = 1024
    viscosity: float = 0.1
    alpha: float = 2.0
    tau: float = 5.0
    sigma: float = 25.0
    num_modes: int = 341
    first_time: float = 1.0
    frame_spacing: float = 1.0
    num_frames: int = 1

    name = "burgers"
    axes = ("x",)
    step_name = "time"

    def __post_init__(self):
        for key in ("n", "solver_n"):
            (points,) = periodic.as_shape(key, getattr(self, key), 1)
            object.__setattr__(self, key, points)
        initial_fields.check_positive(self, "viscosity", "first_time")
        periodic.check_resolved(self.law.num_modes, (self.solver_n,))
        periodic.check_stored((self.n,), (self.solver_n,))
        _ = self.steps

    @functools.cached_property
    def law(self) -> initial_fields.GaussianField:
        """The law of the initial field."""
        return initial_fields.GaussianField(
            self.alpha, self.tau, self.sigma, self.num_modes, (1.0,)
        )

    @functools.cached_property
    def steps(self) -> np.ndarray:
        """Times of the stored solutions, [num_frames]."""
        return periodic.frame_times(
            self.first_time, self.frame_spacing, self.num_frames
        )

    @property
    def equation(self) -> str:
        """Equation, domain, inputs and discretisation in one line."""
        return (
            f"du/dt + (u^2/2)_x = nu u_xx on (0,1), periodic, nu = {self.viscosity:g}; "
            f"u(0) Gaussian of covariance {self.sigma:g}^2 ({self.tau:g}^2 - "
            f"d^2/dx^2)^-{self.alpha:g}, {self.num_modes} modes; pseudo-spectral on "
            f"{self.solver_n} points, dealiasing two_thirds"
        )

    @property
    def coordinates(self) -> dict[str, np.ndarray]:
        """The stored points j / n."""
        return periodic.coordinates(self.axes, (self.n,), (1.0,))

    @property
    def boundaries(self) -> tuple[Boundary, ...]:
        """Periodic."""
        return periodic.boundaries(self.axes)

    @property
    def fields(self) -> tuple[FieldSpec, ...]:
        """What a model is given, and what it predicts."""
        return (
            FieldSpec("solution", True, "dimensionless", "Velocity u at later times."),
            FieldSpec("initial", False, "dimensionless", "Velocity u at time 0."),
        )

    @property
    def scalars(self) -> dict[str, float]:
        """Parameters shared by all samples."""
        names = ("viscosity", "alpha", "tau", "sigma")
        return {name: getattr(self, name) for name in names}

    @property
    def quality_columns(self) -> dict[str, str]:
        """Energy, CFL number and the tail of the spectrum."""
        return periodic.quality_columns(("energy",))

    def sample(self, rng: np.random.Generator) -> Sample:
        """Fourier coefficients `modes` of the initial field."""
        return {"modes": self.law.draw(rng)}

    def check(self, stepping: TimeStepping) -> None:
        """Raises a ValueError for a scheme that does not take the equation."""
        periodic.check_scheme(self.equation_on((self.solver_n,)), stepping)

    def evolve(self, samples: Sequence[Sample], stepping: TimeStepping) -> Evolution:
        """Integrates a batch; see `EvolutionProblem.evolve`."""
        equation = self.equation_on((self.solver_n,))
        frames, quality = periodic.evolve(
            equation, samples, self.steps, stepping, (self.n,)
        )
        modes = np.stack([sample["modes"] for sample in samples])
        # By way of the solver's grid, as the frames: where num_modes is n / 2, both
        # truncations treat that mode alike.
        start = initial_fields.fourier_series(modes, (self.solver_n,))
        initial = equation.grid.resample(start, (self.n,))
        fields = {"solution": frames, "initial": initial}
        return periodic.evolution(equation, fields, quality, stepping)

    def equation_on(self, shape: Sequence[int]):
        """The equation on a grid of this shape, a `solvers.spectral.Burgers1d`."""
        from solvers import spectral

        grid = spectral.PeriodicGrid(tuple(shape), (1.0,))
        return spectral.Burgers1d(grid, self.viscosity)


def cole_hopf(
    modes: np.ndarray, x: np.ndarray, time: float, viscosity: float, num_points: int
) -> np.ndarray:
    """Exact solution of Burgers' equation on the unit interval.

        u = int (x - y) / t exp(-G / 2 nu) dy / int exp(-G / 2 nu) dy,
        G(y) = (x - y)^2 / 2 t + int_0^y u(0),

    by the trapezoidal rule over as many periods as matter; its error falls faster than
    any power of num_points once the integrand, about sqrt(2 nu t) wide or narrower, is
    resolved. The exponent is shifted by its largest value, so nothing under- or
    overflows at small nu.

    Args:
        modes: [m + 1] Fourier coefficients of u(0), of mean zero.
        x: [k] where to evaluate.
        time: t, positive.
        viscosity: nu.
        num_points: points per period of the quadrature.

    Returns:
        [k] values u(x, t).

    Raises:
        ValueError: if the mean of u(0) is not zero, or time is not positive.

    References:
        Hopf (1950), Comm. Pure Appl. Math. 3, 201-230, equation (8).
    """
    if not time > 0:
        raise ValueError(f"time is {time}; expected a positive number")
    if modes[0] != 0:
        raise ValueError(f"the mean of the initial field is {modes[0]}; expected 0")
    k = 2 * np.pi * np.arange(1, len(modes))
    integral = initial_fields.fourier_series(
        np.concatenate([[0], modes[1:] / (1j * k)]), (num_points,)
    )
    # Beyond this distance the integrand is e^-50 of its largest value at most.
    spread = 2 * np.abs(integral).max() / (2 * viscosity) + 50
    periods = int(np.ceil(np.sqrt(4 * viscosity * time * spread))) + 1
    offsets = np.arange(-periods * num_points, periods * num_points + 1) / num_points
    result = np.empty(len(x))
    for i, point in enumerate(x):
        nearest = np.rint(point * num_points).astype(int)
        y = nearest / num_points + offsets
        index = (nearest + np.arange(len(offsets)) - periods * num_points) % num_points
        exponent = -((point - y) ** 2 / (2 * time) + integral[index]) / (2 * viscosity)
        weights = np.exp(exponent - exponent.max())
        result[i] = weights @ (point - y) / time / weights.sum()
    return result
