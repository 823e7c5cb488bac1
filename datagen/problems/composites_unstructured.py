"""Composites on triangles: round or square inclusions, finite elements."""

import dataclasses
import functools

import numpy as np

from datagen.problems import meshes
from datagen.problems.base import Boundary, FieldSpec, Sample, Settings
from datagen.problems.composites import (
    HALF_WIDTH,
    SOURCE_CENTERS,
    SOURCE_SPREAD,
    SOURCES,
    check_inclusions,
    lattice,
)
from datagen.problems.finite_elements import ElementSpace, OnMesh, RegionStiffness
from solvers.sequence import LinearSystem

SHAPES = ("circle", "square")


@dataclasses.dataclass(frozen=True)
class CompositesUnstructured(OnMesh, Settings):
    """-div(a grad u) = f on the unit square, u = 0 on its boundary, on triangles.

    The material of `composites` in two dimensions with a fixed layout: a is 1 outside
    of nb^2 inclusions with centres (i + 1/2) / nb, circles of radius or squares of
    half-width 0.3 / nb, each with its own a = 10^U, U uniform between the logarithms
    of `contrasts`; f(x) = exp(-|x - c|^2 / 0.02), every coordinate of c uniform in
    (0.2, 0.8), or 1. Dimensionless: lengths in domain widths.

    Continuous finite elements of degree 1 or 2 on one mesh for all samples, whose edges
    follow the interfaces (circles as polygons of edges of that length). Order
    degree + 1 in L2 where the solution is smooth inside each material; circles limit it
    to 2, and corners of squares, where the gradient is unbounded, to less. Unknowns are
    the nodes inside; A = sum_j a_j A_j over the materials, so that a sample's matrix
    costs one small product. Fields live on the nodes (axis `node`); a node on an
    interface has the coefficient of the inclusion.

    Attributes:
        mesh_size: length of the edges, about.
        degree: 1 or 2.
        num_inclusions: nb, inclusions per axis.
        contrasts: smallest and largest a of an inclusion, positive.
        shape: "circle" or "square".
        source: "gaussian" or "constant".

    Raises:
        ValueError: if a setting is unknown or out of range, or the mesh is too coarse
            for the inclusions.
    """

    mesh_size: float = 0.01
    degree: int = 1
    num_inclusions: int = 4
    contrasts: tuple[float, float] = (1e2, 1e4)
    shape: str = "circle"
    source: str = "gaussian"

    name = "composites_unstructured"
    matrices = "spd"
    preconditioner = "ssor"
    num_systems = 1
    axes = ("node",)
    boundaries = (Boundary("node", "WALL", "dirichlet:0"),)
    fields = (
        FieldSpec("coefficient", False, "dimensionless", "Conductivity a."),
        FieldSpec("source", False, "dimensionless", "Source f."),
        FieldSpec("solution", True, "dimensionless", "Potential u."),
    )

    def __post_init__(self):
        for key, known in (("shape", SHAPES), ("source", SOURCES)):
            if getattr(self, key) not in known:
                raise ValueError(f"{key} is {getattr(self, key)!r}; known: {known}")
        check_inclusions(self.num_inclusions, self.contrasts)
        object.__setattr__(self, "contrasts", tuple(map(float, self.contrasts)))
        if not 0 < self.mesh_size <= HALF_WIDTH / self.num_inclusions:
            raise ValueError(
                f"mesh_size is {self.mesh_size}; expected a positive number, at most "
                f"the half-width of the inclusions, {HALF_WIDTH / self.num_inclusions}"
            )
        self._space  # noqa: B018 - checks degree and mesh now

    @property
    def equation(self) -> str:
        """Equation, boundary condition and discretisation in one line."""
        f = "f" if self.source == "gaussian" else "1"
        return (
            f"-div(a grad u) = {f} on (0,1)^2, u = 0 on the boundary; "
            f"{self.num_inclusions**2} {self.shape} inclusions; "
            f"P{self.degree} elements on {len(self.mesh.cells)} triangles"
        )

    @property
    def scalars(self) -> dict[str, float]:
        """Parameters shared by all samples."""
        low, high = self.contrasts
        return {"contrast_low": low, "contrast_high": high}

    def sample(self, rng: np.random.Generator) -> Sample:
        """Draws the contrasts and the source.

        Returns:
            log_contrasts [nb^2], decadic; source_center [2]; coefficient and source at
            the nodes [num_nodes].
        """
        log_contrasts = rng.uniform(*np.log10(self.contrasts), self.num_inclusions**2)
        center = rng.uniform(*SOURCE_CENTERS, 2)
        values = np.concatenate([[1.0], 10**log_contrasts])
        return {
            "coefficient": values[self._node_regions],
            "source": self._source(self._space.points, center),
            "log_contrasts": log_contrasts,
            "source_center": center,
        }

    def system(
        self, sample: Sample, step: int = 0, previous: np.ndarray | None = None
    ) -> LinearSystem:
        """Finite element system for u at the inner nodes, [num_free]."""
        values = np.concatenate([[1.0], 10 ** sample["log_contrasts"]])
        f = self._source(self._space.quadrature_points, sample["source_center"])
        b = self._space.load(f)[self._free]
        return LinearSystem(self._stiffness.matrix(values), b)

    def fields_from_solution(
        self, sample: Sample, x: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Stored fields [num_nodes] from u at the inner nodes."""
        u = np.zeros(self._space.num_nodes)
        u[self._free] = x
        return {
            "coefficient": sample["coefficient"],
            "source": sample["source"],
            "solution": u,
        }

    def features(self, sample: Sample) -> np.ndarray:
        """Log contrasts, [nb^2]: all that the matrix depends on."""
        return sample["log_contrasts"]

    def _source(self, points: np.ndarray, center: np.ndarray) -> np.ndarray:
        if self.source == "constant":
            return np.ones(len(points))
        return np.exp(-((points - center) ** 2).sum(axis=1) / SOURCE_SPREAD)

    @functools.cached_property
    def _space(self) -> ElementSpace:
        return inclusion_space(
            self.mesh_size, self.degree, self.num_inclusions, self.shape
        )

    @functools.cached_property
    def _free(self) -> np.ndarray:
        inner = np.ones(self._space.num_nodes, bool)
        inner[self.mesh.boundary] = False
        return np.flatnonzero(inner)

    @functools.cached_property
    def _stiffness(self) -> RegionStiffness:
        return self._space.region_stiffness(self._free)

    @functools.cached_property
    def _node_regions(self) -> np.ndarray:
        regions = np.zeros(self._space.num_nodes, int)
        for corner in self.mesh.cells.T:
            np.maximum.at(regions, corner, self.mesh.regions)
        return regions


@functools.lru_cache(maxsize=4)
def inclusion_space(
    mesh_size: float, degree: int, num_inclusions: int, shape: str
) -> ElementSpace:
    """Elements on the unit square whose edges follow nb x nb inclusions.

    Raises:
        ValueError: if the mesh is too coarse for the inclusions.
    """
    radius, lines = HALF_WIDTH / num_inclusions, []
    for x, y in lattice(num_inclusions, 2).tolist():
        if shape == "circle":
            lines.append(meshes.circle((x, y), radius, mesh_size))
        else:
            corners = meshes.box((x - radius, y - radius), (x + radius, y + radius))
            lines.append(meshes.polyline(corners, mesh_size))
    outline = meshes.polyline(meshes.box((0.0, 0.0), (1.0, 1.0)), mesh_size)
    triangles, regions = meshes.triangulate(outline, lines, mesh_size)
    return ElementSpace(triangles, degree, regions)
