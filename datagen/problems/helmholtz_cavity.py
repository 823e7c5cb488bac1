"""The Helmholtz benchmark of operator learning: the discrete map of a cavity."""

import dataclasses
import functools

import numpy as np
import scipy.sparse as sp

from datagen.problems.base import Boundary, FieldSpec, Sample, Settings
from solvers.grids import Grid
from solvers.sequence import LinearSystem
from solvers.stencils import StencilOperator

NUM_MODES = 100  # terms of the random series
MEAN_SPEED = 20.0
LOAD_CENTER, LOAD_HALF_WIDTH = 0.5, 0.15
GAUSS_POINTS, GAUSS_WEIGHTS = (v / 2 for v in np.polynomial.legendre.leggauss(3))
CORNERS = ((0, 0), (1, 0), (0, 1), (1, 1))  # of an element, in steps along x and y
NINE_POINT = tuple((i, j) for i in (-1, 0, 1) for j in (-1, 0, 1))


@dataclasses.dataclass(frozen=True)
class HelmholtzCavity(Settings):
    """-Delta u - (omega / c)^2 u = 0 on the unit square, a flux through its top edge.

    du/dn = 1 at y = 1 for |x - 0.5| <= 0.15 and 0 elsewhere; undamped. The speed is
    c = 20 + tanh(U), U = sum_k xi_k (pi^2 |k|^2 + 9)^-1 phi_k over the first 100
    cosines phi_k(x) = prod_j s(k_j) cos(pi k_j x_j), s(0) = 1, otherwise sqrt(2), the
    constant left out, by |k|^2 and then k_1. Dimensionless; omega / c is about 50.

    **The data are a discrete map, far from the solution of the equation** (69 % away at
    100 elements per axis): bilinear quadrilaterals, 3 x 3 Gauss points with c evaluated
    there, the flux interpolated linearly between nodes. With node coordinates j / 100
    rounding leaves the end points 0.35 and 0.65 out of the load: nodes 0.36 to 0.64
    carry it, and including the two would change u by 15 %. Convergence is therefore
    promised for smooth c and given loads only (tests).

    The matrix is real, symmetric and indefinite. The preconditioning matrix is that of
    c = 20, one for all samples: c varies by 1 %, so only the few modes whose eigenvalue
    lies near zero are left to the iteration.

    Attributes:
        n: nodes per axis, elements plus one.
        omega: angular frequency.

    Raises:
        ValueError: if a setting is out of range.

    References:
        de Hoop, Huang, Qian and Stuart (2022), "The cost-accuracy trade-off in operator
        learning with neural networks", arXiv:2203.13181, section on the Helmholtz
        equation. Load nodes and statistics: own reconstruction of the public data.
    """

    n: int = 101
    omega: float = 1000.0

    name = "helmholtz_cavity"
    matrices = "symmetric"
    preconditioner = "lu"
    num_systems = 1
    axes = ("x", "y")
    boundaries = (
        Boundary("x", "WALL", "neumann:0"),
        Boundary(
            "y",
            "WALL",
            "neumann:0 at y = 0; at y = 1 neumann:1 for |x - 0.5| <= 0.15, else 0",
        ),
    )
    fields = (
        FieldSpec("wave_speed", False, "dimensionless", "Wave speed c."),
        FieldSpec("solution", True, "dimensionless", "Excitation u."),
    )

    def __post_init__(self):
        if int(self.n) != self.n or self.n < 8:
            raise ValueError(f"n is {self.n!r}; expected a whole number of at least 8")
        if not 0 < self.omega < np.inf:
            raise ValueError(f"omega is {self.omega}; expected a positive number")

    @property
    def equation(self) -> str:
        """Equation, boundary condition and discretisation in one line."""
        return (
            f"-Delta u - ({self.omega:g} / c(x))^2 u = 0 on (0,1)^2, du/dn = 1 on the "
            "middle 0.3 of the edge y = 1 and 0 elsewhere; bilinear quadrilaterals, "
            "3 x 3 Gauss points, flux linear between nodes"
        )

    @property
    def coordinates(self) -> dict[str, np.ndarray]:
        """Coordinates of the nodes, one array [n] per axis."""
        return dict(zip(self.axes, self._grid.coordinates(), strict=True))

    @property
    def scalars(self) -> dict[str, float]:
        """Parameters shared by all samples."""
        return {"omega": float(self.omega)}

    def sample(self, rng: np.random.Generator) -> Sample:
        """Draws the series, {"modes": [100], "wave_speed": c [n, n] at the nodes}.

        The system is built from the modes, because it needs c between the nodes.
        """
        modes = rng.standard_normal(NUM_MODES) * series_deviations()
        nodes = self._grid.coordinates()[0]
        return {"modes": modes, "wave_speed": wave_speed(modes, nodes, nodes)}

    def system(
        self, sample: Sample, step: int = 0, previous: np.ndarray | None = None
    ) -> LinearSystem:
        """Nine-point system for u at all nodes, [n, n].

        Raises:
            ValueError: if the modes are not 100 finite numbers.
        """
        modes = sample["modes"]
        if modes.shape != (NUM_MODES,) or not np.isfinite(modes).all():
            raise ValueError(
                f"modes must be {NUM_MODES} finite numbers; got shape {modes.shape}"
            )
        points = gauss_coordinates(int(self.n) - 1)
        c = wave_speed(modes, points, points)
        operator = bilinear_operator((self.omega / c) ** 2, self._grid.spacing)
        return LinearSystem(operator, self._load, self.mean_medium)

    def fields_from_solution(
        self, sample: Sample, x: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Stored fields [n, n]."""
        return {"wave_speed": sample["wave_speed"], "solution": x}

    def features(self, sample: Sample) -> np.ndarray:
        """The series, [100]."""
        return sample["modes"]

    @functools.cached_property
    def mean_medium(self) -> sp.csr_array:
        """Preconditioning matrix: the medium c = 20; one object for all samples."""
        squares = np.full((3 * (int(self.n) - 1),) * 2, (self.omega / MEAN_SPEED) ** 2)
        return bilinear_operator(squares, self._grid.spacing).to_csr()

    @functools.cached_property
    def _load(self) -> np.ndarray:
        """Integrals of flux times hat functions over the top edge, [n, n]."""
        x = self._grid.coordinates()[0]  # j / (n - 1): the rounding that is asked for
        flux = (np.abs(x - LOAD_CENTER) <= LOAD_HALF_WIDTH).astype(np.float64)
        load = np.zeros(self._grid.shape)
        load[:, -1] = edge_load(flux, self._grid.spacing[0])
        return load

    @property
    def _grid(self) -> Grid:
        return Grid((int(self.n),) * 2, location="nodes")


@functools.lru_cache(maxsize=1)
def series_wave_numbers() -> np.ndarray:
    """Whole numbers (k_1, k_2) of the series, [100, 2], by |k|^2, then k_1."""
    k = np.stack(np.meshgrid(*2 * [np.arange(NUM_MODES)], indexing="ij"), -1)
    k = k.reshape(-1, 2)
    order = np.lexsort([k[:, 0], (k**2).sum(axis=1)])
    return k[order][1 : NUM_MODES + 1]


def series_deviations() -> np.ndarray:
    """Standard deviations (pi^2 |k|^2 + 9)^-1 of the coefficients, [100]."""
    return 1 / (np.pi**2 * (series_wave_numbers() ** 2).sum(axis=1) + 9)


def wave_speed(modes: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Speed 20 + tanh(U) on the tensor grid of x [n1] and y [n2], [n1, n2]."""
    k = series_wave_numbers()
    table = np.zeros(k.max(axis=0) + 1)
    table[tuple(k.T)] = modes
    pairs = zip((x, y), table.shape, strict=True)
    fx, fy = (_cosines(points, num) for points, num in pairs)
    return MEAN_SPEED + np.tanh(fx @ table @ fy.T)


def gauss_coordinates(num_elements: int) -> np.ndarray:
    """Coordinates of the Gauss points of equal elements on (0, 1), [3 num_elements]."""
    middles = np.arange(num_elements) + 0.5
    return ((middles[:, None] + GAUSS_POINTS) / num_elements).ravel()


def bilinear_operator(
    squares: np.ndarray, spacing: tuple[float, float]
) -> StencilOperator:
    """Integrals of grad u . grad v - q u v over bilinear quadrilaterals.

    Args:
        squares: q at the Gauss points of all elements, [3 (n1 - 1), 3 (n2 - 1)].
        spacing: side lengths of the elements.

    Returns:
        Operator on the nodes [n1, n2] of batch 1, float64, symmetric.
    """
    elements = tuple(m // 3 for m in squares.shape)
    q = squares.reshape(elements[0], 3, elements[1], 3)
    planes = np.zeros((9, elements[0] + 1, elements[1] + 1))
    values, gradients = _shape_functions(spacing)
    weights = np.multiply.outer(GAUSS_WEIGHTS, GAUSS_WEIGHTS) * np.prod(spacing)
    for row, here in enumerate(CORNERS):
        window = tuple(slice(here[d], here[d] + elements[d]) for d in (0, 1))
        for column, there in enumerate(CORNERS):
            stiffness = np.sum(weights * gradients[row] * gradients[column])
            mass = np.einsum("igjh,gh->ij", q, weights * values[row] * values[column])
            offset = (there[0] - here[0], there[1] - here[1])
            planes[(NINE_POINT.index(offset), *window)] += stiffness - mass
    return StencilOperator(np.moveaxis(planes, 0, -1)[None], NINE_POINT)


def edge_load(flux: np.ndarray, h: float) -> np.ndarray:
    """Integrals of flux, linear between nodes, times the hat functions of an edge.

    Args:
        flux: [n] at the nodes.
        h: spacing.
    """
    load = 4 * flux
    load[1:] += flux[:-1]
    load[:-1] += flux[1:]
    load[[0, -1]] -= 2 * flux[[0, -1]]  # half a hat
    return h / 6 * load


def _shape_functions(spacing: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Values [4, 3, 3] and gradients [4, 2, 3, 3] at the Gauss points of an element."""
    t = GAUSS_POINTS + 0.5
    hats, slopes = np.stack([1 - t, t]), np.array([[-1.0] * 3, [1.0] * 3])
    values = np.stack([np.outer(hats[i], hats[j]) for i, j in CORNERS])
    gradients = [
        [
            np.outer(slopes[i], hats[j]) / spacing[0],
            np.outer(hats[i], slopes[j]) / spacing[1],
        ]
        for i, j in CORNERS
    ]
    return values, np.array(gradients)


def _cosines(points: np.ndarray, num: int) -> np.ndarray:
    """phi_k(x_i) along one axis, [len(points), num]."""
    cosines = np.sqrt(2) * np.cos(np.pi * np.outer(points, np.arange(num)))
    cosines[:, 0] = 1.0
    return cosines
