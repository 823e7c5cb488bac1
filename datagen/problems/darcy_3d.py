"""Darcy flow in the unit cube with random log-normal or two-phase permeability."""

import dataclasses
import functools
from typing import Any

import numpy as np

from datagen.problems.base import Boundary, FieldSpec, Sample, Settings
from datagen.problems.composites import check_coefficient
from datagen.random_fields import NeumannField, cosine_series, low_modes
from solvers.diffusion import diffusion_operator
from solvers.grids import Grid
from solvers.sequence import LinearSystem

COEFFICIENTS = ("lognormal", "two_phase")
NUM_FEATURE_DEGREES = 5  # cosines of total degree below this: 35 sort features


@dataclasses.dataclass(frozen=True)
class Darcy3d(Settings):
    """-div(a grad u) = f on the unit cube, u = 0 on its boundary, f constant.

    U is a Gaussian `NeumannField` in three dimensions. a = exp(s U), where s gives the
    standard deviation `log_std` on average over the cube ("lognormal"), or
    a = values[0] where U >= 0 and values[1] elsewhere ("two_phase"). Dimensionless:
    lengths in domain widths.

    Seven-point differences in flux form on the interior nodes, harmonic face means; a
    and u live at the nodes i / (n - 1), u is exactly zero on the boundary. Second order
    for smooth a, between first and second order across the jumps of two phases. The
    two-dimensional set is `darcy`.

    Attributes:
        n: nodes per axis, one number or one per axis.
        coefficient: "lognormal" or "two_phase".
        alpha: smoothness exponent of the field, above 3/2.
        tau: inverse correlation length of the field, in 1 / domain widths.
        log_std: standard deviation of log a; log-normal only. max a / min a
            has the median 10^(2.9 log_std) over 20 draws with the other defaults.
        values: (a where U >= 0, a where U < 0), positive; two phases only.
        forcing: f, not zero.
        num_modes: cosines per axis of the field; None: the largest n. Low modes do not
            depend on it.

    Raises:
        ValueError: if a setting is unknown, out of range or contradicts another.
    """

    n: int | tuple[int, int, int] = 65
    coefficient: str = "lognormal"
    alpha: float = 2.5
    tau: float = 3.0
    log_std: float = 1.0
    values: tuple[float, float] = (12.0, 3.0)
    forcing: float = 1.0
    num_modes: int | None = None

    name = "darcy_3d"
    matrices = "spd"
    preconditioner = "ssor"
    num_systems = 1
    mesh = None
    axes = ("x", "y", "z")
    boundaries = tuple(Boundary(axis, "WALL", "dirichlet:0") for axis in axes)
    fields = (
        FieldSpec("coefficient", False, "dimensionless", "Permeability a."),
        FieldSpec("solution", True, "dimensionless", "Pressure u."),
    )

    def __post_init__(self):
        n = (self.n,) * 3 if np.ndim(self.n) == 0 else tuple(self.n)
        if len(n) != 3 or any(int(m) != m or m < 3 for m in n):
            raise ValueError(
                f"n is {self.n!r}; expected one or three whole numbers, at least 3"
            )
        self._set("n", tuple(map(int, n)))
        if self.coefficient not in COEFFICIENTS:
            raise ValueError(
                f"coefficient is {self.coefficient!r}; known: {COEFFICIENTS}"
            )
        self._set("values", tuple(map(float, self.values)))
        if len(self.values) != 2 or not all(0 < v < np.inf for v in self.values):
            raise ValueError(f"values are {self.values}; expected two positive ones")
        if not 0 < self.log_std < np.inf:
            raise ValueError(f"log_std is {self.log_std}; expected a positive number")
        if not (np.isfinite(self.forcing) and self.forcing != 0):
            raise ValueError(f"forcing is {self.forcing}; expected a nonzero number")
        if self.num_modes is None:
            self._set("num_modes", max(self.n))
        self._field  # noqa: B018 - checks alpha, tau and num_modes now

    @property
    def equation(self) -> str:
        """Equation, boundary condition and discretisation in one line."""
        return (
            f"-div(a grad u) = {self.forcing:g} on (0,1)^3, u = 0 on the boundary; "
            f"{self.coefficient}; seven-point flux form on nodes, harmonic face means"
        )

    @property
    def coordinates(self) -> dict[str, np.ndarray]:
        """Coordinates of the nodes, one array [n] per axis."""
        return dict(zip(self.axes, self._nodes.coordinates(), strict=True))

    @property
    def scalars(self) -> dict[str, float]:
        """Parameters shared by all samples."""
        scalars = {"alpha": self.alpha, "tau": self.tau, "forcing": self.forcing}
        if self.coefficient == "two_phase":
            scalars |= {"value_high": self.values[0], "value_low": self.values[1]}
        else:
            scalars |= {"log_std": self.log_std}
        return {key: float(value) for key, value in scalars.items()}

    def coarsened(self) -> "Darcy3d | None":
        """The problem with the same fields on every second node; None if n is even."""
        if min(self.n) < 5 or any(m % 2 == 0 for m in self.n):
            return None
        half = tuple((m + 1) // 2 for m in self.n)
        return dataclasses.replace(self, n=half, num_modes=self.num_modes)

    def sample(self, rng: np.random.Generator) -> Sample:
        """Draws {"coefficient": a [n1, n2, n3]} at the nodes."""
        field = cosine_series(self._field.draw(rng), self.n, "nodes")
        if self.coefficient == "two_phase":
            return {"coefficient": np.where(field >= 0, *self.values)}
        scale = self.log_std / np.sqrt(self._field.variance())
        return {"coefficient": np.exp(scale * field)}

    def system(
        self, sample: Sample, step: int = 0, previous: np.ndarray | None = None
    ) -> LinearSystem:
        """Seven-point system for u at the interior nodes, [n1 - 2, n2 - 2, n3 - 2].

        Raises:
            ValueError: if the coefficient has another shape or is not positive.
        """
        check_coefficient(sample["coefficient"], self.n)
        operator = diffusion_operator(sample["coefficient"], self._nodes.spacing)
        return LinearSystem(operator, np.full(operator.grid_shape, float(self.forcing)))

    def fields_from_solution(
        self, sample: Sample, x: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Stored fields [n1, n2, n3] from u at the interior nodes."""
        return {"coefficient": sample["coefficient"], "solution": np.pad(x, 1)}

    def features(self, sample: Sample) -> np.ndarray:
        """Lowest cosine modes of log a, [35]; they change as the solution does."""
        return low_modes(np.log(sample["coefficient"]), "nodes", NUM_FEATURE_DEGREES)

    @functools.cached_property
    def _field(self) -> NeumannField:
        return NeumannField(self.alpha, self.tau, self.num_modes, num_dims=3)

    @property
    def _nodes(self) -> Grid:
        return Grid(self.n, lower=(0.0,) * 3, upper=(1.0,) * 3)

    def _set(self, key: str, value: Any) -> None:
        object.__setattr__(self, key, value)
