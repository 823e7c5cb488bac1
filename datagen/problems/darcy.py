"""Darcy flow on the unit square with random two-phase or log-normal permeability."""

import dataclasses
import functools
from typing import Any

import numpy as np
from scipy.interpolate import CubicSpline

from datagen.problems.base import Boundary, FieldSpec, Sample, Settings
from datagen.random_fields import NeumannField, cosine_series, low_modes
from solvers.diffusion import FACE_MEANS, diffusion_operator
from solvers.grids import Grid
from solvers.sequence import LinearSystem

COEFFICIENTS = ("two_phase", "lognormal")
MODES = ("clean", "fno_compat")
NUM_FEATURE_DEGREES = 8  # cosines of total degree below this: 36 sort features


@dataclasses.dataclass(frozen=True)
class Darcy(Settings):
    """-div(a grad u) = f on the unit square, u = 0 on its boundary, f constant.

    U is a Gaussian `NeumannField`; a = values[0] where U >= 0 and values[1] elsewhere
    ("two_phase"), or a = exp(U) ("lognormal"). Dimensionless: lengths in domain widths.

    Five-point differences in flux form on the (n - 2)^2 interior nodes; second order
    for smooth a, between first and second order across the jumps of two phases. Two
    modes, which differ by more than a good neural operator's error and must never be
    mixed (docs/data.md):

    - "clean": a and u live at the nodes i / (n - 1), a is the field evaluated there
      (DCT-I), u is exactly zero on the edge, the matrix is symmetric positive definite.
    - "fno_compat": the steps of the script behind the published data. a and u live at
      cell centres (i + 1/2) / n; a is taken to the nodes by a not-a-knot cubic spline
      with extrapolation, u back by another. The spline overshoots at jumps, face
      coefficients may be negative, and the matrix need not be positive definite: solve
      it directly (`matrices` is "symmetric").

    Attributes:
        n: stored points per axis, one number or one per axis.
        coefficient: "two_phase" or "lognormal".
        alpha: smoothness exponent of the field.
        tau: inverse correlation length of the field, in 1 / domain widths.
        values: (a where U >= 0, a where U < 0), positive; None: (12, 3). Two phases
            only.
        forcing: f, not zero.
        mode: "clean" or "fno_compat".
        face_mean: "harmonic" or "arithmetic" mean of the two nodes beside a face; None:
            harmonic in mode clean, arithmetic (the only one) in fno_compat.
        num_modes: cosines per axis of the field; None: the larger n. Low modes do not
            depend on it, so that one random state gives the same field at every n up
            to truncation, and exactly the same with the same num_modes.

    Raises:
        ValueError: if a setting is unknown, out of range or contradicts another.

    References:
        Li et al. (2021), arXiv:2010.08895, section 5.2 and appendix A.3.2; scripts
        data_generation/darcy in the repository neuraloperator.
    """

    n: int | tuple[int, int] = 421
    coefficient: str = "two_phase"
    alpha: float = 2.0
    tau: float = 3.0
    values: tuple[float, float] | None = None
    forcing: float = 1.0
    mode: str = "clean"
    face_mean: str | None = None
    num_modes: int | None = None

    name = "darcy"
    preconditioner = "jacobi"
    num_systems = 1
    axes = ("x", "y")
    boundaries = tuple(Boundary(axis, "WALL", "dirichlet:0") for axis in ("x", "y"))
    fields = (
        FieldSpec("coefficient", False, "dimensionless", "Permeability a."),
        FieldSpec("solution", True, "dimensionless", "Pressure u."),
    )

    def __post_init__(self):
        for key, known in (
            ("coefficient", COEFFICIENTS),
            ("mode", MODES),
            ("face_mean", (None, *FACE_MEANS)),
        ):
            if getattr(self, key) not in known:
                raise ValueError(f"{key} is {getattr(self, key)!r}; known: {known}")
        compatible = self.mode == "fno_compat"
        self._set("n", _pair(self.n))
        if min(self.n) < (4 if compatible else 3):
            raise ValueError(
                f"n is {self.n}; mode {self.mode} needs at least "
                f"{4 if compatible else 3} points per axis"
            )
        if self.face_mean is None:
            self._set("face_mean", "arithmetic" if compatible else "harmonic")
        if compatible and self.face_mean != "arithmetic":
            raise ValueError(
                "mode fno_compat takes arithmetic face means; set face_mean to "
                "'arithmetic', or mode to 'clean'"
            )
        if self.coefficient == "two_phase":
            self._set("values", tuple(float(v) for v in self.values or (12.0, 3.0)))
            if len(self.values) != 2 or not all(0 < v < np.inf for v in self.values):
                raise ValueError(
                    f"values are {self.values}; expected two positive ones"
                )
        elif self.values is not None:
            raise ValueError("values belong to coefficient 'two_phase'; leave them out")
        if not (np.isfinite(self.forcing) and self.forcing != 0):
            raise ValueError(f"forcing is {self.forcing}; expected a nonzero number")
        if self.num_modes is None:
            self._set("num_modes", max(self.n))
        self._field  # noqa: B018 - checks alpha, tau and num_modes now

    @property
    def equation(self) -> str:
        """Equation, boundary condition and discretisation in one line."""
        scheme = (
            f"five-point flux form on nodes, {self.face_mean} face means"
            if self.mode == "clean"
            else "cell values splined to nodes, arithmetic face means, splined back"
        )
        return (
            f"-div(a grad u) = {self.forcing:g} on (0,1)^2, u = 0 on the boundary; "
            f"mode {self.mode}: {scheme}"
        )

    @property
    def matrices(self) -> str:
        """Positive definite in mode clean; in fno_compat only symmetric."""
        return "spd" if self.mode == "clean" else "symmetric"

    @property
    def coordinates(self) -> dict[str, np.ndarray]:
        """Coordinates of the stored points, one array [n] per axis."""
        return dict(zip(self.axes, self._stored.coordinates(), strict=True))

    @property
    def scalars(self) -> dict[str, float]:
        """Parameters shared by all samples."""
        scalars = {"alpha": self.alpha, "tau": self.tau, "forcing": self.forcing}
        if self.coefficient == "two_phase":
            scalars |= {"value_high": self.values[0], "value_low": self.values[1]}
        return {key: float(value) for key, value in scalars.items()}

    def coarsened(self) -> "Darcy | None":
        """The problem with the same fields on every second node; None if it has none.

        That needs mode clean and an odd number of nodes per axis.
        """
        if self.mode != "clean" or min(self.n) < 5 or any(m % 2 == 0 for m in self.n):
            return None
        half = tuple((m + 1) // 2 for m in self.n)
        return dataclasses.replace(self, n=half, num_modes=self.num_modes)

    def sample(self, rng: np.random.Generator) -> Sample:
        """Draws {"coefficient": a [n1, n2]} at the stored points."""
        field = cosine_series(self._field.draw(rng), self.n, self._stored.location)
        if self.coefficient == "lognormal":
            return {"coefficient": np.exp(field)}
        return {"coefficient": np.where(field >= 0, *self.values)}

    def system(
        self, sample: Sample, step: int = 0, previous: np.ndarray | None = None
    ) -> LinearSystem:
        """Five-point system for u at the interior nodes, [n1 - 2, n2 - 2].

        Raises:
            ValueError: if the coefficient has another shape or is not positive.
        """
        a = sample["coefficient"]
        if a.shape != self.n or not (a.min() > 0 and np.isfinite(a.max())):
            raise ValueError(
                f"the coefficient must be positive and finite, of shape {self.n}; got "
                f"shape {a.shape}, minimum {a.min():.3g}, maximum {a.max():.3g}"
            )
        if self.mode == "fno_compat":
            a = self._interpolate(a, self._stored, self._nodes)
        operator = diffusion_operator(a, self._nodes.spacing, self.face_mean)
        return LinearSystem(operator, np.full(operator.grid_shape, float(self.forcing)))

    def fields_from_solution(
        self, sample: Sample, x: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Stored fields [n1, n2] from u at the interior nodes."""
        u = np.pad(x, 1)
        if self.mode == "fno_compat":
            u = self._interpolate(u, self._nodes, self._stored)
        return {"coefficient": sample["coefficient"], "solution": u}

    def features(self, sample: Sample) -> np.ndarray:
        """Lowest cosine modes of log a, [36]; they change as the solution does."""
        log_a = np.log(sample["coefficient"])
        return low_modes(log_a, self._stored.location, NUM_FEATURE_DEGREES)

    @functools.cached_property
    def _field(self) -> NeumannField:
        return NeumannField(self.alpha, self.tau, self.num_modes)

    @property
    def _stored(self) -> Grid:
        return Grid(self.n, location="nodes" if self.mode == "clean" else "cells")

    @property
    def _nodes(self) -> Grid:
        return Grid(self.n, location="nodes")

    @staticmethod
    def _interpolate(values: np.ndarray, source: Grid, target: Grid) -> np.ndarray:
        """Tensor product of not-a-knot cubic splines, extrapolated where needed."""
        pairs = zip(source.coordinates(), target.coordinates(), strict=True)
        for axis, (x_from, x_to) in enumerate(pairs):
            values = CubicSpline(x_from, values, axis=axis, bc_type="not-a-knot")(x_to)
        return values

    def _set(self, key: str, value: Any) -> None:
        object.__setattr__(self, key, value)


def _pair(n: int | tuple[int, int]) -> tuple[int, int]:
    pair = (n, n) if np.ndim(n) == 0 else tuple(n)
    if len(pair) != 2 or any(int(m) != m for m in pair):
        raise ValueError(f"n is {n!r}; expected one or two whole numbers")
    return tuple(int(m) for m in pair)
