"""Heat conduction in a plate with a slot, random temperatures at two sides."""

import dataclasses
import functools

import numpy as np
import scipy.sparse as sp

from datagen.problems import meshes
from datagen.problems.base import Boundary, FieldSpec, Sample, Settings
from datagen.problems.finite_elements import ElementSpace, OnMesh
from solvers.sequence import LinearSystem

VARIANTS = ("as_stated", "as_coded")
PLATE = ((-0.5, -0.8), (0.5, 0.8))  # lower left and upper right corner
SLOT = ((-0.05, -0.4), (0.05, 0.4))
COLDEST, HOTTEST = -100.0, 100.0


@dataclasses.dataclass(frozen=True)
class Thermal(OnMesh, Settings):
    """div(grad T) = 0 on the plate (-0.5, 0.5) x (-0.8, 0.8) without a slot.

    The slot is (-0.05, 0.05) x (-0.4, 0.4). Its edges and the lower and upper edge of
    the plate are insulated, dT/dn = 0. The other two sides:

    - "as_stated": T is constant on the left, U(-100, 0), and on the right, U(0, 100).
    - "as_coded": as in the script behind the paper, T = U(0, 100) on the left, and the
      heat flux into the plate dT/dn = U(-100, 0) on the right.

    Temperatures in degrees, lengths without a unit, conductivity 1. T is linear in the
    two numbers, so all solutions lie in a space of dimension 2: a data set for trying
    out solvers, not for training.

    Continuous finite elements of degree 2 on triangles, third order in L2 for smooth T;
    here T has r^(2/3) at the corners of the slot, which leaves order 4/3. Unknowns are
    the nodes without given temperature; the matrix is one object for all samples:
    factorise it once.

    Attributes:
        mesh_size: length of the edges, about; with 0.03, 0.025, 0.02, 0.01 the number
            of nodes is within 4 % of the published sets' unknowns (7821, 11063, 17593,
            70031).
        variant: "as_stated" or "as_coded".

    Raises:
        ValueError: if a setting is unknown or out of range.

    References:
        Wang et al. (2024), Accelerating data generation for neural operators via Krylov
        subspace recycling, arXiv:2401.09516, appendix D.2.
    """

    mesh_size: float = 0.02
    variant: str = "as_stated"

    name = "thermal"
    matrices = "spd"
    preconditioner = "ssor"
    num_systems = 1
    axes = ("node",)
    fields = (
        FieldSpec(
            "boundary",
            False,
            "degrees, or degrees per length on the right as coded",
            "What is given on the left and right side; 0 at all other nodes.",
        ),
        FieldSpec("solution", True, "degrees", "Temperature T."),
    )

    def __post_init__(self):
        if self.variant not in VARIANTS:
            raise ValueError(f"variant is {self.variant!r}; known: {VARIANTS}")
        if not 0 < self.mesh_size <= 0.1:
            raise ValueError(
                f"mesh_size is {self.mesh_size}; expected a positive number up to 0.1, "
                "the width of the slot"
            )

    @property
    def equation(self) -> str:
        """Equation, boundary condition and discretisation in one line."""
        right = "temperature" if self.variant == "as_stated" else "heat flux"
        return (
            "div(grad T) = 0 on a plate with a slot; temperature given on the left, "
            f"{right} on the right, insulated elsewhere; P2 elements on "
            f"{len(self.mesh.cells)} triangles"
        )

    @property
    def boundaries(self) -> tuple[Boundary, ...]:
        """The conditions of all sides; the file's mask marks all boundary nodes."""
        kind = "dirichlet" if self.variant == "as_stated" else "neumann"
        detail = f"left dirichlet, right {kind}: field `boundary`; others neumann:0"
        return (Boundary("node", "WALL", detail),)

    @property
    def scalars(self) -> dict[str, float]:
        """Parameters shared by all samples."""
        return {"conductivity": 1.0}

    def sample(self, rng: np.random.Generator) -> Sample:
        """Draws the two numbers.

        Returns:
            sides [2], the values on the left and on the right; boundary [num_nodes].
        """
        ranges = [(COLDEST, 0.0), (0.0, HOTTEST)]
        if self.variant == "as_coded":
            ranges = ranges[::-1]
        sides = np.array([rng.uniform(*limits) for limits in ranges])
        boundary = np.zeros(self._space.num_nodes)
        for nodes, value in zip(self.side_nodes, sides, strict=True):
            boundary[nodes] = value
        return {"sides": sides, "boundary": boundary}

    def system(
        self, sample: Sample, step: int = 0, previous: np.ndarray | None = None
    ) -> LinearSystem:
        """Finite element system for T where it is not given, [num_free]."""
        matrix, loads = self._matrices
        return LinearSystem(matrix, loads @ sample["sides"])

    def fields_from_solution(
        self, sample: Sample, x: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Stored fields [num_nodes] from T where it is not given."""
        temperature = sample["boundary"].copy()
        temperature[self._free] = x
        return {"boundary": sample["boundary"], "solution": temperature}

    def features(self, sample: Sample) -> np.ndarray:
        """The two numbers, [2]; the matrix depends on neither."""
        return sample["sides"]

    @functools.cached_property
    def side_nodes(self) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the nodes on the left and on the right side."""
        x = self._space.points[:, 0]
        return np.flatnonzero(x == PLATE[0][0]), np.flatnonzero(x == PLATE[1][0])

    @functools.cached_property
    def _space(self) -> ElementSpace:
        return plate_space(self.mesh_size)

    @functools.cached_property
    def _free(self) -> np.ndarray:
        given = self.side_nodes[0]
        if self.variant == "as_stated":
            given = np.concatenate(self.side_nodes)
        return np.setdiff1d(np.arange(self._space.num_nodes), given)

    @functools.cached_property
    def _matrices(self) -> tuple[sp.csr_array, np.ndarray]:
        """A between free nodes, and the right sides [num_free, 2] of unit values."""
        rows = self._space.stiffness()[self._free]
        left, right = self.side_nodes
        loads = np.zeros((len(self._free), 2))
        loads[:, 0] = -rows[:, left].sum(axis=1)
        if self.variant == "as_stated":
            loads[:, 1] = -rows[:, right].sum(axis=1)
        else:
            integrals = self._space.edge_load(lambda x: x[0] == PLATE[1][0])
            loads[:, 1] = integrals[self._free]
        return rows[:, self._free], loads


@functools.lru_cache(maxsize=2)
def plate_space(mesh_size: float) -> ElementSpace:
    """Elements of degree 2 on the plate without the slot."""
    outline = meshes.polyline(meshes.box(*PLATE), mesh_size)
    slot = meshes.polyline(meshes.box(*SLOT), mesh_size)
    triangles, _ = meshes.triangulate(outline, (), mesh_size, hole=slot)
    return ElementSpace(triangles, 2)
