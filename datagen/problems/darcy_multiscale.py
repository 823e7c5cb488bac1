"""Darcy flow with a multiscale trigonometric permeability on [-1, 1]^2."""

import dataclasses
from typing import Any

import numpy as np

from datagen.problems.base import Boundary, FieldSpec, Sample, Settings
from solvers.diffusion import from_links
from solvers.grids import Grid
from solvers.sequence import LinearSystem

COEFFICIENTS = ("randomised", "original")
ELEMENTS = ("triangles", "squares")


@dataclasses.dataclass(frozen=True)
class DarcyMultiscale(Settings):
    """-div(a grad u) = f on [-1, 1]^2, u = 0 on its boundary, f constant.

        a(x) = prod_k (1 + cos(w_k pi (x1 + x2)) / 2) (1 + sin(w_k pi (x2 - 3 x1)) / 2),

    k = 1 ... num_scales. "original": w_k = 2^k, the same coefficient in every sample.
    "randomised": w_k uniform in [2^(k-1), 1.5 * 2^(k-1)], one draw per scale and
    sample. a lies between 0.5^(2 num_scales) and 1.5^(2 num_scales): with 6 scales max
    a / min a is 1e4 to 1e5 on a fine grid. Dimensionless.

    Piecewise linear finite elements on right triangles, every square of the grid cut
    from its lower left to its upper right corner (x1 to the right, x2 up), with a
    constant in every element, that at its centre. On such triangles they are a
    five-point star: the conductance of an edge is the mean of a over the two triangles
    beside it, and diagonals carry nothing. The matrix is divided by the area of a
    square, so that the right-hand side is f. Second order in h once the finest scale
    is resolved; sin(w_6 pi (x2 - 3 x1)) has at w_6 = 48 a period of 1/72 along x1, 7
    spacings of 1025 nodes, and coarse variants (`:small`, `:quick`) do not see it: they
    are the problem of their own discrete coefficient. The coarser twin of this problem
    (`coarsened`) has the same a at its own, fewer centres.

    Attributes:
        n: nodes per axis, those on the boundary included. 1025 has the 1023 x 1023
            interior nodes of the published arrays, which leave the boundary out; every
            fourth node of it, both edges included, makes 257.
        coefficient: "randomised" or "original".
        num_scales: number of w_k.
        elements: where a is constant: "triangles", taken at their centroids, or
            "squares", taken at the centres, both halves alike. The sources say
            "element centres" and leave it open.
        forcing: f, not zero.

    Raises:
        ValueError: if a setting is unknown or out of range.

    References:
        Owhadi (2017), SIAM Review 59, 99-149 (arXiv:1503.03467), for the original; He,
        Liu, Xu (2024), arXiv:2310.19809, Darcy multiscale, for the randomised version,
        whose range of w_k is known second hand.
    """

    n: int = 1025
    coefficient: str = "randomised"
    num_scales: int = 6
    elements: str = "triangles"
    forcing: float = 1.0

    name = "darcy_multiscale"
    matrices = "spd"
    preconditioner = "ssor"
    num_systems = 1
    mesh = None
    axes = ("x", "y")
    boundaries = tuple(Boundary(axis, "WALL", "dirichlet:0") for axis in ("x", "y"))
    fields = (
        FieldSpec("coefficient", False, "dimensionless", "Permeability a."),
        FieldSpec("solution", True, "dimensionless", "Pressure u."),
    )

    def __post_init__(self):
        for key, known in (("coefficient", COEFFICIENTS), ("elements", ELEMENTS)):
            if getattr(self, key) not in known:
                raise ValueError(f"{key} is {getattr(self, key)!r}; known: {known}")
        if np.ndim(self.n) != 0 or int(self.n) != self.n or self.n < 3:
            raise ValueError(
                f"n is {self.n!r}; expected one whole number, at least 3 nodes per axis"
            )
        if int(self.num_scales) != self.num_scales or not 1 <= self.num_scales <= 30:
            raise ValueError(
                f"num_scales is {self.num_scales}; expected a whole number, 1 to 30"
            )
        if not (np.isfinite(self.forcing) and self.forcing != 0):
            raise ValueError(f"forcing is {self.forcing}; expected a nonzero number")

    @property
    def equation(self) -> str:
        """Equation, boundary condition and discretisation in one line."""
        return (
            f"-div(a grad u) = {self.forcing:g} on (-1,1)^2, u = 0 on the boundary; "
            f"{self.coefficient} a of {self.num_scales} scales; linear finite elements "
            f"on right triangles, a constant on {self.elements}"
        )

    @property
    def coordinates(self) -> dict[str, np.ndarray]:
        """Coordinates of the nodes, one array [n] per axis."""
        return dict(zip(self.axes, self._nodes.coordinates(), strict=True))

    @property
    def scalars(self) -> dict[str, float]:
        """Parameters shared by all samples."""
        return {
            "num_scales": float(self.num_scales),
            "forcing": float(self.forcing),
        }

    def coarsened(self) -> "DarcyMultiscale | None":
        """The problem on every second node; None if that leaves out an edge."""
        if self.n % 2 == 0 or self.n < 5:
            return None
        return dataclasses.replace(self, n=(self.n + 1) // 2)

    def sample(self, rng: np.random.Generator) -> Sample:
        """Draws the frequencies.

        Returns:
            coefficient [n, n], a at the nodes; frequencies w [num_scales].
        """
        w = 2.0 ** np.arange(1, self.num_scales + 1)
        if self.coefficient == "randomised":
            w = rng.uniform(0.5 * w, 0.75 * w)
        return {"coefficient": self._at_points(w, 0.0, 0.0), "frequencies": w}

    def system(
        self, sample: Sample, step: int = 0, previous: np.ndarray | None = None
    ) -> LinearSystem:
        """Five-point system for u at the interior nodes, [n - 2, n - 2].

        Raises:
            ValueError: if there is another number of frequencies, or one is infinite.
        """
        w = sample["frequencies"]
        if w.shape != (self.num_scales,) or not np.isfinite(w).all():
            raise ValueError(
                f"frequencies are {w}; expected {self.num_scales} finite numbers"
            )
        below, above = self._element_values(w)
        # An edge along x1 has the square above it (its triangle below the diagonal) and
        # the square under it (its triangle above the diagonal); along x2 likewise.
        across = (below[:, 1:] + above[:, :-1]) / 2
        upwards = (above[1:] + below[:-1]) / 2
        h1, h2 = self._nodes.spacing
        operator = from_links([across / h1**2, upwards / h2**2])
        return LinearSystem(operator, np.full(operator.grid_shape, float(self.forcing)))

    def fields_from_solution(
        self, sample: Sample, x: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Stored fields [n, n] from u at the interior nodes."""
        return {"coefficient": sample["coefficient"], "solution": np.pad(x, 1)}

    def features(self, sample: Sample) -> np.ndarray:
        """Where each frequency lies in its interval, [num_scales], 0 to 1."""
        low = 2.0 ** np.arange(self.num_scales)
        return (sample["frequencies"] - low) / (0.5 * low)

    def _element_values(self, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values of a below and above the diagonals, [n - 1, n - 1] each."""
        if self.elements == "squares":
            values = self._at_points(w, 0.5, 0.5)[:-1, :-1]
            return values, values
        below = self._at_points(w, 2 / 3, 1 / 3)[:-1, :-1]
        return below, self._at_points(w, 1 / 3, 2 / 3)[:-1, :-1]

    def _at_points(self, w: np.ndarray, shift1: float, shift2: float) -> np.ndarray:
        """a(x) [n, n] at the nodes, shifted by fractions of a spacing.

        Both factors are functions of one number, x1 + x2 and x2 - 3 x1, of which an
        equidistant grid has few values: they are computed once and read by views.
        """
        h, n = self._nodes.spacing[0], self.n
        i = np.arange(2 * n - 1) + (shift1 + shift2)  # i1 + i2
        first = _product(np.cos, w, -2.0 + h * i)
        j = np.arange(-3 * (n - 1), n) + (shift2 - 3 * shift1)  # i2 - 3 i1
        second = _product(np.sin, w, 2.0 + h * j)
        windows = np.lib.stride_tricks.sliding_window_view
        return windows(first, n) * windows(second, n)[::-3]

    @property
    def _nodes(self) -> Grid:
        return Grid((self.n, self.n), lower=(-1.0, -1.0), upper=(1.0, 1.0))


def _product(wave: Any, w: np.ndarray, s: np.ndarray) -> np.ndarray:
    """prod_k (1 + wave(w_k pi s) / 2) at the numbers s."""
    return np.prod([1 + 0.5 * wave(w_k * np.pi * s) for w_k in w], axis=0)
