"""What a data generation problem offers to the planner, the solvers and the storage.

Two kinds: a `Problem` sets up linear systems, which `datagen.ladder` solves one after
the other; an `EvolutionProblem` integrates its samples in time by itself, many at once,
and `datagen.evolution` decides which trajectories are accepted.
"""

import dataclasses
from collections.abc import Mapping, Sequence
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


@dataclasses.dataclass(frozen=True)
class TimeStepping:
    """How a batch is integrated: `config.solver`, with the step of this attempt.

    Attributes:
        scheme: name in `solvers.spectral.STEPPERS`.
        dt: largest time step, in the time unit of the problem; None: as `cfl` allows.
        cfl: largest u_max dt / spacing; None: `dt` alone decides.
        dtype: "float64" or "float32", what the integration computes in.
    """

    scheme: str
    dt: float | None
    cfl: float | None
    dtype: str = "float64"

    def halved(self) -> "TimeStepping":
        """The same with half the time step and half the CFL number."""
        dt, cfl = (v and v / 2 for v in (self.dt, self.cfl))
        return dataclasses.replace(self, dt=dt, cfl=cfl)


@dataclasses.dataclass(frozen=True)
class Evolution:
    """A batch of trajectories and what is known of their quality, in NumPy arrays.

    A sample that blew up has NaN where it is not finite; the others of its batch are
    not harmed.

    Attributes:
        fields: name of every stored field -> [B, T, *grid], or [B, *grid] for fields
            that do not vary in time.
        defect: [B] largest relative defect of a balance law of the equation over the
            steps, dimensionless: what a sample is accepted on; NaN if not finite.
        steps: [B] time steps taken.
        transforms: [B] Fourier transforms of one field, forward and back.
        quality: name of every column of `quality_columns` -> [B].
    """

    fields: Mapping[str, np.ndarray]
    defect: np.ndarray
    steps: np.ndarray
    transforms: np.ndarray
    quality: Mapping[str, np.ndarray]


class EvolutionProblem(Protocol):
    """A family of initial value problems with random initial fields.

    Name, equation, axes, coordinates, boundaries, fields, scalars and settings are
    those of `Problem`; the coordinates are of the stored grid, j L / n with the right
    end left out where an axis is periodic. Where the start is no stored frame, it may
    be a field `initial` that does not vary in time.

    Attributes:
        steps: [T] times of the stored frames, increasing.
        step_name: "time".
        quality_columns: name -> one sentence, of what `evolve` tells of every sample
            beyond defect and counts, as float64; names are lower case and none of
            `datagen.storage.well.QUALITY_COLUMNS`.

    Optional: `check(stepping)`, which raises a ValueError, when the set is planned, for
    a `TimeStepping` that does not suit the problem.
    """

    name: str
    equation: str
    axes: tuple[str, ...]
    coordinates: dict[str, np.ndarray]
    boundaries: tuple[Boundary, ...]
    fields: tuple[FieldSpec, ...]
    scalars: dict[str, float]
    settings: dict[str, Any]
    steps: np.ndarray
    step_name: str
    quality_columns: Mapping[str, str]

    def sample(self, rng: np.random.Generator) -> Sample:
        """Random inputs of one sample, float64; depends on the state of rng alone.

        All arrays must be finite and have the same shapes for every sample, so that
        samples can be stacked.
        """

    def evolve(self, samples: Sequence[Sample], stepping: TimeStepping) -> Evolution:
        """Integrates a batch in time and stores the frames of `steps`.

        The number of samples is the same in every call (`config.solver.batch_size`;
        the last sample of a shard is repeated to fill its last batch), so a function
        compiled once serves a whole run; it must outlive the call. The result is a
        function of the arguments to the last bit.

        Args:
            samples: from `sample`.
            stepping: scheme and largest step; the frames are hit exactly.

        Raises:
            ValueError: if the stepping does not suit the problem.
        """


def is_evolution(problem: Any) -> bool:
    """Whether a problem is an `EvolutionProblem`."""
    return hasattr(problem, "evolve")
