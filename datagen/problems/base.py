"""What a data generation problem offers to the planner, the solvers and the storage."""

import dataclasses
from typing import Any, Protocol

import numpy as np

from solvers.sequence import LinearSystem

Sample = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class FieldSpec:
    """One stored scalar field.

    Attributes:
        name: name in the file.
        time_varying: whether the equation determines it (The Well's convention for
            stationary problems: the solution is time varying with one step).
        units: unit, or "dimensionless".
        description: one sentence.
    """

    name: str
    time_varying: bool
    units: str
    description: str


@dataclasses.dataclass(frozen=True)
class Boundary:
    """Condition on both ends of one axis.

    Attributes:
        axis: name of the axis.
        bc_type: The Well's word for it: "WALL", "OPEN" or "PERIODIC".
        detail: the true condition, for instance "dirichlet:0".
    """

    axis: str
    bc_type: str
    detail: str


class Settings:
    """What problems that are dataclasses tell of their settings."""

    @property
    def settings(self) -> dict[str, Any]:
        """All settings with the defaults filled in; `create` takes them back."""
        settings = dataclasses.asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in settings.items()}


class Problem(Protocol):
    """A family of linear systems with random inputs.

    Attributes:
        name: name in the registry.
        equation: equation, domain, boundary conditions and discretisation, one line.
        axes: names of the grid axes, in array order.
        coordinates: axis name -> float64 coordinates [n] of the stored grid.
        boundaries: one entry per axis.
        fields: the stored fields.
        scalars: parameters shared by all samples.
        settings: every setting of the problem, JSON-able; recorded with the data.
        matrices: what every matrix is: "spd" (symmetric positive definite), "symmetric"
            or "general". Methods that need more must not be used.
        preconditioner: name in `solvers.preconditioners` that suits the matrices.
        num_systems: linear systems per sample: time steps or frequencies, solved in
            order; 1 for stationary problems.

    Others are optional: `mesh`, a `datagen.problems.meshes.Mesh`, on sets whose only
    axis is `node`; `steps` [num_systems] and `step_name`, the times (or frequencies) of
    the systems and what they are; `starts_from_previous`, True where the solution of
    one system is a good start for the next, as in time stepping; and `coarsened()`, the
    problem with the same random fields on every second point of each axis, both ends
    included, or None where that cannot be, see `datagen.discretisation`.
    """

    name: str
    equation: str
    axes: tuple[str, ...]
    coordinates: dict[str, np.ndarray]
    boundaries: tuple[Boundary, ...]
    fields: tuple[FieldSpec, ...]
    scalars: dict[str, float]
    settings: dict[str, Any]
    matrices: str
    preconditioner: str
    num_systems: int

    def sample(self, rng: np.random.Generator) -> Sample:
        """Random inputs of one sample; depends on the state of rng alone."""

    def system(
        self, sample: Sample, step: int = 0, previous: np.ndarray | None = None
    ) -> LinearSystem:
        """The linear system A x = b of one step; its shape depends on the problem only.

        Args:
            sample: from `sample`.
            step: 0 ... num_systems - 1.
            previous: the solution x [*grid] of the step before; None at step 0.
        """

    def fields_from_solution(
        self, sample: Sample, x: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Stored fields, real, on the stored grid, from the unknowns x [*grid].

        With several systems per sample x is [num_systems, *grid].
        """

    def features(self, sample: Sample) -> np.ndarray:
        """Numbers [d] whose distance says how close two samples are, for sorting."""
