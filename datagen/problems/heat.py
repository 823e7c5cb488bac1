"""Implicit heat conduction in a composite with drifting contrasts."""

import dataclasses
import functools
from typing import Any

import numpy as np

from datagen.problems.base import FieldSpec, Sample, Settings
from datagen.problems.composites import (
    HALF_WIDTH,
    SOURCE_CENTERS,
    CellGrid,
    check_coefficient,
    check_inclusions,
    gaussian,
    lattice,
    paint,
    set_shape,
)
from solvers.diffusion import WALLS, cell_diffusion
from solvers.sequence import LinearSystem
from solvers.stencils import StencilOperator


@dataclasses.dataclass(frozen=True)
class Heat(CellGrid, Settings):
    """du/dt = div(a grad u) + f on the unit square or cube, u = 0 on its boundary.

    a(t, x) is that of `composites` with a fixed layout: 1 outside of nb^d inclusions,
    and in each of them 10^U at the first step, U uniform between the logarithms of
    `contrasts`; from step to step every inclusion's a is multiplied by exp(drift) or
    exp(-drift), with equal chance. The source f = exp(-|x - c(t)|^2 / 0.02) moves on a
    straight line, c from one point to another during the whole time, every coordinate
    of both uniform in (0.2, 0.8). u = 0 at t = 0. Dimensionless: lengths in domain
    widths, times in widths^2 over the diffusivity of the matrix material.

    Implicit Euler: (u_m - u_{m-1}) / dt = div(a_m grad u_m) + f_m at t_m = m dt,
    m = 1 ... num_steps, one linear system per step; first order in time. Flux form on
    n^d cells as in `composites`, second order in space if n is a multiple of 5 nb.
    Solution and source are stored at t_1, t_2, ..., the coefficient with them if it
    drifts. u at t_m depends on source and coefficient at all of t_1 ... t_m.

    With `drift` 0 all steps of a sample have the same operator object.

    Attributes:
        n: cells per axis, one number or one per axis; two or three axes.
        num_dims: axes, if n is one number.
        num_inclusions: nb, inclusions per axis.
        contrasts: smallest and largest a of an inclusion at the first step, positive.
        drift: change of log a per step, not negative.
        time_step: dt.
        num_steps: time steps.
        walls: see `composites`.

    Raises:
        ValueError: if a setting is unknown or out of range.
    """

    n: int | tuple[int, ...] = 30
    num_dims: int = 3
    num_inclusions: int = 3
    contrasts: tuple[float, float] = (1e3, 1e4)
    drift: float = 0.02
    time_step: float = 0.01
    num_steps: int = 30
    walls: str = "half_cells"

    name = "heat"
    matrices = "spd"
    preconditioner = "ssor"
    step_name = "time"
    starts_from_previous = True
    mesh = None

    def __post_init__(self):
        if self.walls not in WALLS:
            raise ValueError(f"walls is {self.walls!r}; known: {[*WALLS]}")
        set_shape(self)
        check_inclusions(self.num_inclusions, self.contrasts)
        object.__setattr__(self, "contrasts", tuple(map(float, self.contrasts)))
        if min(self.n) < 3 * self.num_inclusions:
            raise ValueError(
                f"n is {self.n}; {self.num_inclusions} inclusions per axis need at "
                f"least {3 * self.num_inclusions} cells"
            )
        if not 0 <= self.drift < np.inf:
            raise ValueError(f"drift is {self.drift}; expected zero or more")
        if not 0 < self.time_step < np.inf:
            raise ValueError(
                f"time_step is {self.time_step}; expected a positive number"
            )
        if self.num_steps < 1 or int(self.num_steps) != self.num_steps:
            raise ValueError(f"num_steps is {self.num_steps}; expected 1, 2, ...")

    @property
    def num_systems(self) -> int:
        """One system per time step."""
        return self.num_steps

    @property
    def steps(self) -> np.ndarray:
        """Times of the stored steps, [num_steps]."""
        return self.time_step * np.arange(1, self.num_steps + 1)

    @property
    def equation(self) -> str:
        """Equation, boundary condition and discretisation in one line."""
        return (
            f"du/dt = div(a grad u) + f on (0,1)^{self.num_dims}, u = 0 on the "
            f"boundary and at t = 0; {self.num_inclusions**self.num_dims} inclusions, "
            f"drift {self.drift:g} per step; implicit Euler, dt = {self.time_step:g}; "
            f"flux form on cells, harmonic face means, {self.walls}"
        )

    @property
    def fields(self) -> tuple[FieldSpec, ...]:
        """The coefficient varies in time if it drifts."""
        drifts = self.drift > 0
        return (
            FieldSpec("coefficient", drifts, "dimensionless", "Conductivity a."),
            FieldSpec("source", True, "dimensionless", "Source f."),
            FieldSpec("solution", True, "dimensionless", "Temperature u."),
        )

    @property
    def scalars(self) -> dict[str, float]:
        """Parameters shared by all samples."""
        low, high = self.contrasts
        scalars = {"contrast_low": low, "contrast_high": high}
        return scalars | {"drift": self.drift, "time_step": self.time_step}

    def sample(self, rng: np.random.Generator) -> Sample:
        """Draws contrasts, their drift, and the path of the source.

        Returns:
            log_contrasts [num_steps, nb^d], decadic; source_path [2, d], where the
            source is at t = 0 and at the end.
        """
        num = self.num_inclusions**self.num_dims
        start = rng.uniform(*np.log10(self.contrasts), num)
        path = rng.uniform(*SOURCE_CENTERS, (2, self.num_dims))
        signs = np.where(rng.random((self.num_steps - 1, num)) < 0.5, -1.0, 1.0)
        walk = np.zeros((self.num_steps, num))
        walk[1:] = np.cumsum(signs, axis=0)
        return {
            "log_contrasts": start + walk * (self.drift / np.log(10)),
            "source_path": path,
        }

    def coefficient(self, sample: Sample, step: int) -> np.ndarray:
        """Conductivity a [*n] at t_{step + 1}."""
        centers = lattice(self.num_inclusions, self.num_dims)
        half_widths = np.full(len(centers), HALF_WIDTH / self.num_inclusions)
        values = 10 ** sample["log_contrasts"][step]
        return paint(self.grid.coordinates(), centers, half_widths, values)

    def source(self, sample: Sample, step: int) -> np.ndarray:
        """Source f [*n] at t_{step + 1}."""
        start, end = sample["source_path"]
        center = start + (end - start) * (step + 1) / self.num_steps
        return gaussian(self.grid.coordinates(), center)

    def system(
        self, sample: Sample, step: int = 0, previous: np.ndarray | None = None
    ) -> LinearSystem:
        """The system (1 / dt - div a_m grad) u_m = u_{m-1} / dt + f_m, m = step + 1.

        Args:
            sample: from `sample`.
            step: 0 ... num_steps - 1.
            previous: u_{m-1} [*n]; None: zero, the initial state.

        Raises:
            ValueError: if a contrast is not positive and finite.
        """
        b = self.source(sample, step)
        if previous is not None:
            b += previous / self.time_step
        return LinearSystem(self._operator(sample, step), b)

    def fields_from_solution(
        self, sample: Sample, x: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Stored fields [num_steps, *n]; the coefficient [*n] if it does not drift."""
        steps = range(self.num_steps)
        if self.drift > 0:
            a = np.stack([self.coefficient(sample, step) for step in steps])
        else:
            a = self.coefficient(sample, 0)
        f = np.stack([self.source(sample, step) for step in steps])
        return {"coefficient": a, "source": f, "solution": x}

    def features(self, sample: Sample) -> np.ndarray:
        """Log contrasts at the first step, [nb^d]."""
        return sample["log_contrasts"][0]

    def _operator(self, sample: Sample, step: int) -> StencilOperator:
        contrasts = sample["log_contrasts"]
        if self.drift == 0 and self._kept.get("contrasts") is contrasts:
            return self._kept["operator"]
        a = self.coefficient(sample, step)
        check_coefficient(a, self.n)
        operator = cell_diffusion(a, self.grid.spacing, self.walls)
        operator.coefficients[..., 0] += 1 / self.time_step
        if self.drift == 0:
            self._kept.update(contrasts=contrasts, operator=operator)
        return operator

    @functools.cached_property
    def _kept(self) -> dict[str, Any]:
        """Contrasts and operator of the latest sample, if its operator is constant."""
        return {}
