"""Incompressible flow in a periodic box: vorticity trajectories."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

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

DEFAULT_INITIAL = {
    "name": "gaussian",
    "alpha": 2.5,
    "tau": 7.0,
    "scaling": "old",
    "num_modes": 20,
}


def _gaussian(alpha, tau, scaling, **settings) -> initial_fields.GaussianField:
    sigma = initial_fields.fno_sigma(alpha, tau, 2, scaling)
    return initial_fields.GaussianField(alpha, tau, sigma, **settings)


INITIAL_FIELDS: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "gaussian": (_gaussian, ("alpha", "tau", "scaling")),
    "mcwilliams": (
        initial_fields.McWilliamsField,
        ("peak_wavenumber", "tau", "density"),
    ),
    "filtered_velocity": (
        initial_fields.FilteredVelocityField,
        ("peak_wavenumber", "max_speed"),
    ),
    "taylor_green": (initial_fields.TaylorGreenField, ("counts",)),
}


@dataclasses.dataclass(frozen=True)
class NavierStokes(Settings):
    """dw/dt + u . grad w = nu Laplace w - mu w + f on a periodic rectangle.

    w is the vorticity, u = (d psi / dy, -d psi / dx) with -Laplace psi = w, and f the
    curl of a steady force. Pseudo-spectral on a grid of its own; the frames are stored
    on a grid of n points by Fourier truncation, free of aliasing. Dimensionless.

    A sample is a random initial vorticity, drawn as Fourier coefficients: it does not
    depend on the grids. The defect that samples are accepted on is that of the balance
    laws of energy and enstrophy; it measures the error of the time stepping, and
    `spectrum_tail` shows whether the grid resolves the flow.

    Attributes:
        n: points per axis of the stored frames, at most `solver_n`, one number or two.
        solver_n: points per axis of the grid of the solver, one number or two; two are
            for config files, since a flag keeps the type of the entry that it changes.
        lengths: periods (L1, L2) along x and y; with one number of points the spacing
            differs where they differ.
        viscosity: nu.
        drag: mu, in 1 / time.
        forcing: name and settings, see `solvers.spectral.forcings`; the solver has to
            keep its wave number.
        initial: name and settings of the law of w at time zero: "gaussian" (alpha, tau,
            scaling: see `datagen.initial_fields.fno_sigma`), "mcwilliams"
            (peak_wavenumber, tau, density), "filtered_velocity" (peak_wavenumber,
            max_speed) or "taylor_green" (counts), each with num_modes, the highest wave
            number per axis.
        first_time: time of the first stored frame, zero or more.
        frame_spacing: time between frames.
        num_frames: stored frames.
        dealias: "two_thirds", which keeps modes below a third of `solver_n`; "legacy"
            for the scheme "legacy_fno", with advection in convective form; "none".

    Raises:
        ValueError: if a setting is unknown or out of range.

    References:
        Li et al. (2021), arXiv:2010.08895, section 5.3; McWilliams (1984), J. Fluid
        Mech. 146, 21-43; Kochkov et al. (2021), arXiv:2102.01010.
    """

    n: int | tuple[int, int] = 64
    solver_n: int | tuple[int, int] = 64
    lengths: tuple[float, float] = (1.0, 1.0)
    viscosity: float = 1e-3
    drag: float = 0.0
    forcing: Mapping[str, Any] = dataclasses.field(
        default_factory=lambda: {"name": "none"}
    )
    initial: Mapping[str, Any] = dataclasses.field(
        default_factory=lambda: dict(DEFAULT_INITIAL)
    )
    first_time: float = 0.0
    frame_spacing: float = 1.0
    num_frames: int = 10
    dealias: str = "two_thirds"

    name = "navier_stokes"
    axes = ("x", "y")
    step_name = "time"

    def __post_init__(self):
        for key in ("n", "solver_n"):
            shape = periodic.as_shape(key, getattr(self, key), 2)
            object.__setattr__(self, key, shape)
        lengths = tuple(np.atleast_1d(self.lengths).tolist())
        if len(lengths) != 2 or not all(0 < length < np.inf for length in lengths):
            raise ValueError(
                f"lengths are {self.lengths}; expected two positive periods, (L1, L2)"
            )
        object.__setattr__(self, "lengths", tuple(map(float, lengths)))
        initial_fields.check_positive(self, "viscosity")
        if not 0 <= self.drag < np.inf:
            raise ValueError(f"drag is {self.drag}; expected zero or more")
        law = self.law  # checks its settings and the domain
        periodic.check_resolved(law.num_modes, self.solver_n, self.dealias)
        periodic.check_stored(self.n, self.solver_n)
        _ = self.steps
        self.equation_on(self.solver_n)

    @functools.cached_property
    def law(self) -> initial_fields.RandomField:
        """The law of the initial vorticity."""
        settings = dict(self.initial)
        name = settings.pop("name", None)
        if name not in INITIAL_FIELDS:
            known = ", ".join(INITIAL_FIELDS)
            raise ValueError(f"initial.name is {name!r}; known: {known}")
        build, keys = INITIAL_FIELDS[name]
        if set(settings) != {*keys, "num_modes"}:
            raise ValueError(
                f"initial has the settings {sorted(settings)}; the law {name!r} has "
                f"{', '.join(sorted([*keys, 'num_modes']))}"
            )
        settings = {k: tuple(v) if k == "counts" else v for k, v in settings.items()}
        return build(**settings, lengths=self.lengths)

    @functools.cached_property
    def steps(self) -> np.ndarray:
        """Times of the frames, [num_frames]."""
        return periodic.frame_times(
            self.first_time, self.frame_spacing, self.num_frames
        )

    @property
    def equation(self) -> str:
        """Equation, domain, inputs and discretisation in one line."""
        words = {"none": "no forcing"}.get(self.forcing["name"]) or (
            "forcing " + _listed(self.forcing)
        )
        sides = " x ".join(f"(0,{length:g})" for length in self.lengths)
        return (
            f"dw/dt + u.grad w = nu Lap w - mu w + f on {sides}, periodic; nu = "
            f"{self.viscosity:g}, mu = {self.drag:g}, {words}; initial vorticity "
            f"{_listed(self.initial)}; pseudo-spectral on {self.solver_n[0]} x "
            f"{self.solver_n[1]} points, dealiasing {self.dealias}"
        )

    @property
    def coordinates(self) -> dict[str, np.ndarray]:
        """The stored points j L / n."""
        return periodic.coordinates(self.axes, self.n, self.lengths)

    @property
    def boundaries(self) -> tuple[Boundary, ...]:
        """Periodic on both axes."""
        return periodic.boundaries(self.axes)

    @property
    def fields(self) -> tuple[FieldSpec, ...]:
        """The vorticity alone: velocity and stream function follow from it."""
        text = "Vorticity dv/dx - du/dy."
        return (FieldSpec("vorticity", True, "dimensionless", text),)

    @property
    def scalars(self) -> dict[str, float]:
        """Parameters shared by all samples."""
        scalars = {"viscosity": self.viscosity, "drag": self.drag}
        scalars |= {"length_x": self.lengths[0], "length_y": self.lengths[1]}
        for key in ("amplitude", "wavenumber"):
            if key in self.forcing:
                scalars[f"forcing_{key}"] = float(self.forcing[key])
        return scalars

    @property
    def quality_columns(self) -> dict[str, str]:
        """Energy, enstrophy, CFL number and the tail of the spectrum."""
        return periodic.quality_columns(("energy", "enstrophy"))

    def sample(self, rng: np.random.Generator) -> Sample:
        """Fourier coefficients `modes` of the initial vorticity."""
        return {"modes": self.law.draw(rng)}

    def check(self, stepping: TimeStepping) -> None:
        """Raises a ValueError for a scheme that does not take the equation."""
        periodic.check_scheme(self.equation_on(self.solver_n), stepping)

    def evolve(self, samples: Sequence[Sample], stepping: TimeStepping) -> Evolution:
        """Integrates a batch; see `EvolutionProblem.evolve`."""
        equation = self.equation_on(self.solver_n)
        frames, quality = periodic.evolve(
            equation, samples, self.steps, stepping, self.n
        )
        return periodic.evolution(equation, {"vorticity": frames}, quality, stepping)

    def equation_on(self, shape: Sequence[int]):
        """The equation on a grid of this shape, a `solvers.spectral.NavierStokes2d`."""
        from solvers import spectral
        from solvers.spectral import forcings
        from solvers.spectral.equations import dealiased_modes

        grid = spectral.PeriodicGrid(tuple(shape), self.lengths)
        cutoffs = dealiased_modes(grid, self.dealias).cutoffs
        return spectral.NavierStokes2d(
            grid,
            viscosity=self.viscosity,
            drag=self.drag,
            forcing=forcings.create(grid, cutoffs=cutoffs, **self.forcing),
            dealias=self.dealias,
            advection="convective" if self.dealias == "legacy" else "two_transform",
        )


def _listed(settings: Mapping[str, Any]) -> str:
    """Settings as words: name (key value, ...)."""
    rest = [f"{k} {v}" for k, v in settings.items() if k != "name"]
    return f"{settings['name']} ({', '.join(rest)})"
