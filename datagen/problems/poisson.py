"""Poisson's equation with random polynomial source and boundary values."""

import dataclasses
import functools

import numpy as np
import scipy.sparse as sp
from numpy.polynomial import chebyshev

from datagen.problems import meshes
from datagen.problems.base import Boundary, FieldSpec, Sample, Settings
from datagen.problems.finite_elements import ElementSpace, OnMesh
from solvers.sequence import LinearSystem

VARIANTS = ("as_stated", "as_coded")
SIDES = ("bottom", "right", "top", "left")  # of the boundary traces


@dataclasses.dataclass(frozen=True)
class Poisson(OnMesh, Settings):
    """div(grad u) = f on the unit square, u = g on its boundary, both Chebyshev series.

    T_k is the Chebyshev polynomial of degree k, all random numbers are U(-1, 1), q is
    `series_degree`. The source of the data, two sentences of a paper and its script,
    leaves the series open; here

    - "as_stated": f = sum_{i + j <= q} c_ij T_i(2x - 1) T_j(2y - 1); on each side
      g = sum_{k <= q} c_k T_k(2t - 1), t = x or y along the side, to which a linear
      function is added so that both traces at a corner end at the mean of their values
      there: g is continuous and u is bounded up to its first derivatives.
    - "as_coded": what the script does as far as it is described: f and the traces are
      functions of x alone, sum_{k <= q} c_k T_k(x), hence constant on the two vertical
      sides; g jumps at the corners, where the horizontal sides count.

    Dimensionless: lengths in domain widths. Continuous finite elements of degree 2 on
    triangles, third order in L2 for smooth u. Unknowns are the inner nodes; the matrix,
    that of -div grad, is one object for all samples: factorise it once.

    Attributes:
        mesh_size: length of the edges, about; with 0.025, 0.02, 0.015, 0.01, 0.008 the
            number of nodes is within 2 % of the published sets' (7473, 11637, 20781,
            46337, 72313).
        series_degree: q.
        variant: "as_stated" or "as_coded".

    Raises:
        ValueError: if a setting is unknown or out of range.

    References:
        Wang et al. (2024), Accelerating data generation for neural operators via Krylov
        subspace recycling, arXiv:2401.09516, appendix D.2.
    """

    mesh_size: float = 0.015
    series_degree: int = 5
    variant: str = "as_stated"

    name = "poisson"
    matrices = "spd"
    preconditioner = "ssor"
    num_systems = 1
    axes = ("node",)
    boundaries = (Boundary("node", "WALL", "dirichlet: field `boundary`"),)
    fields = (
        FieldSpec("source", False, "dimensionless", "Source f."),
        FieldSpec(
            "boundary", False, "dimensionless", "Boundary values g; 0 at inner nodes."
        ),
        FieldSpec("solution", True, "dimensionless", "Potential u."),
    )

    def __post_init__(self):
        if self.variant not in VARIANTS:
            raise ValueError(f"variant is {self.variant!r}; known: {VARIANTS}")
        if self.series_degree < 1 or int(self.series_degree) != self.series_degree:
            raise ValueError(f"series_degree is {self.series_degree}; expected 1, 2, …")
        if not 0 < self.mesh_size <= 0.5:
            raise ValueError(
                f"mesh_size is {self.mesh_size}; expected a positive number up to 0.5"
            )

    @property
    def equation(self) -> str:
        """Equation, boundary condition and discretisation in one line."""
        return (
            "div(grad u) = f on (0,1)^2, u = g on the boundary; f and g Chebyshev "
            f"series of degree {self.series_degree}, {self.variant}; P2 elements on "
            f"{len(self.mesh.cells)} triangles"
        )

    @property
    def scalars(self) -> dict[str, float]:
        """Parameters shared by all samples."""
        return {"series_degree": float(self.series_degree)}

    def sample(self, rng: np.random.Generator) -> Sample:
        """Draws the series.

        Returns:
            source_modes [num_modes] in the order of `source_degrees`; trace_modes
            [4, q + 1] in the order of `SIDES`, corners fitted; source and boundary
            [num_nodes] at the nodes.
        """
        source_modes = rng.uniform(-1, 1, len(self.source_degrees))
        trace_modes = rng.uniform(-1, 1, (4, self.series_degree + 1))
        if self.variant == "as_stated":
            trace_modes = join_corners(trace_modes)
        source = self._source_table(self._space.points) @ source_modes
        boundary = np.zeros(self._space.num_nodes)
        for side, (nodes, table) in self._sides.items():
            boundary[nodes] = table @ trace_modes[SIDES.index(side)]
        return {
            "source_modes": source_modes,
            "trace_modes": trace_modes,
            "source": source,
            "boundary": boundary,
        }

    def system(
        self, sample: Sample, step: int = 0, previous: np.ndarray | None = None
    ) -> LinearSystem:
        """Finite element system for u at the inner nodes, [num_free]."""
        matrix, coupling = self._matrices
        g = sample["boundary"][self.mesh.boundary]
        b = -(self._loads @ sample["source_modes"]) - coupling @ g
        return LinearSystem(matrix, b)

    def fields_from_solution(
        self, sample: Sample, x: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Stored fields [num_nodes] from u at the inner nodes."""
        u = sample["boundary"].copy()
        u[self._free] = x
        return {
            "source": sample["source"],
            "boundary": sample["boundary"],
            "solution": u,
        }

    def features(self, sample: Sample) -> np.ndarray:
        """Coefficients of the series; the matrix depends on none of them."""
        return np.concatenate([sample["source_modes"], sample["trace_modes"].ravel()])

    @property
    def source_degrees(self) -> np.ndarray:
        """Degrees (i, j) in x and y of the source's polynomials, [num_modes, 2]."""
        if self.variant == "as_coded":
            return np.array([(i, 0) for i in range(self.series_degree + 1)])
        i, j = np.indices((self.series_degree + 1,) * 2)
        keep = i + j <= self.series_degree
        return np.stack([i[keep], j[keep]], axis=1)

    def _polynomials(self, t: np.ndarray) -> np.ndarray:
        """T_k on [0, 1], at 2t - 1 or, as coded, at t itself; [n, q + 1]."""
        argument = t if self.variant == "as_coded" else 2 * t - 1
        return chebyshev.chebvander(argument, self.series_degree)

    def _source_table(self, points: np.ndarray) -> np.ndarray:
        i, j = self.source_degrees.T
        x, y = (self._polynomials(t) for t in points.T)
        return x[:, i] * y[:, j]

    @functools.cached_property
    def _space(self) -> ElementSpace:
        return square_space(self.mesh_size)

    @functools.cached_property
    def _free(self) -> np.ndarray:
        return np.setdiff1d(np.arange(self._space.num_nodes), self.mesh.boundary)

    @functools.cached_property
    def _matrices(self) -> tuple[sp.csr_array, sp.csr_array]:
        """A between inner nodes, and from boundary to inner nodes."""
        rows = self._space.stiffness()[self._free]
        return rows[:, self._free], rows[:, self.mesh.boundary]

    @functools.cached_property
    def _loads(self) -> np.ndarray:
        """Loads of the source's polynomials, [num_free, num_modes]."""
        table = self._source_table(self._space.quadrature_points)
        return np.ascontiguousarray(self._space.load(table)[self._free])

    @functools.cached_property
    def _sides(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Nodes of each side and the polynomials there; of a corner the last counts."""
        x, y = self._space.points.T
        on = {"bottom": y == 0, "right": x == 1, "top": y == 1, "left": x == 0}
        sides = {}
        for side in ("right", "left", "bottom", "top"):
            nodes = np.flatnonzero(on[side])
            along = y if side in ("right", "left") else x
            t = x if self.variant == "as_coded" else along
            sides[side] = (nodes, self._polynomials(t[nodes]))
        return sides


def join_corners(modes: np.ndarray) -> np.ndarray:
    """Adds linear functions to four traces so that they agree at the corners.

    Args:
        modes: [4, q + 1] coefficients of T_k(2t - 1) on bottom, right, top and left, t
            running along x or y.
    """
    signs = (-1.0) ** np.arange(modes.shape[1])
    start, end = modes @ signs, modes.sum(axis=1)  # values at t = 0 and t = 1
    bottom, right, top, left = range(4)
    start_gap, end_gap = np.zeros(4), np.zeros(4)
    for first, second in (  # (trace, whether at its end) meeting at a corner
        ((bottom, False), (left, False)),
        ((bottom, True), (right, False)),
        ((top, False), (left, True)),
        ((top, True), (right, True)),
    ):
        ends = [(end if at_end else start)[trace] for trace, at_end in (first, second)]
        for (trace, at_end), value in zip((first, second), ends, strict=True):
            gap = sum(ends) / 2 - value
            (end_gap if at_end else start_gap)[trace] = gap
    joined = modes.copy()
    joined[:, 0] += (start_gap + end_gap) / 2
    joined[:, 1] += (end_gap - start_gap) / 2
    return joined


@functools.lru_cache(maxsize=2)
def square_space(mesh_size: float) -> ElementSpace:
    """Elements of degree 2 on the unit square."""
    return ElementSpace(meshes.square_mesh(mesh_size), 2)
