"""Composites: a box with square or cubic inclusions of random contrasts."""

import dataclasses

import numpy as np

from datagen.problems.base import Boundary, FieldSpec, Sample, Settings
from solvers.diffusion import WALLS, cell_diffusion
from solvers.grids import Grid
from solvers.sequence import LinearSystem

LAYOUTS = ("fixed", "jittered", "scaled")
SOURCES = ("gaussian", "constant")
HALF_WIDTH = 0.3  # of an inclusion, in widths of its lattice cell
JITTER, SCALING = 0.1, (0.8, 1.2)  # of centres (lattice cells) and of half-widths
SOURCE_SPREAD, SOURCE_CENTERS = 0.02, (0.2, 0.8)


class CellGrid:
    """The n^d cells of the unit square or cube, u = 0 on the boundary."""

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the axes."""
        return ("x", "y", "z")[: self.num_dims]

    @property
    def boundaries(self) -> tuple[Boundary, ...]:
        """Zero on all walls."""
        return tuple(Boundary(axis, "WALL", "dirichlet:0") for axis in self.axes)

    @property
    def coordinates(self) -> dict[str, np.ndarray]:
        """Cell centres, one array [n] per axis."""
        return dict(zip(self.axes, self.grid.coordinates(), strict=True))

    @property
    def grid(self) -> Grid:
        """The cells."""
        zeros, ones = (0.0,) * self.num_dims, (1.0,) * self.num_dims
        return Grid(self.n, lower=zeros, upper=ones, location="cells")


@dataclasses.dataclass(frozen=True)
class Composites(CellGrid, Settings):
    """-div(a grad u) = f on the unit square or cube, u = 0 on its boundary.

    a is 1 outside of nb^d inclusions, squares or cubes with centres (i + 1/2) / nb and
    half-width 0.3 / nb; every inclusion has its own a = 10^U, U uniform between the
    logarithms of `contrasts`. The source is f(x) = exp(-|x - c|^2 / 0.02), every
    coordinate of c uniform in (0.2, 0.8), or 1. Dimensionless: lengths in domain
    widths, a in units of the matrix material.

    Where the inclusions are fixed, the matrices of all samples share a few outlying
    eigenvectors (u nearly constant in every inclusion), which solvers can keep. Two
    other layouts are controls in which they move: "jittered" shifts every centre by
    U(-0.1, 0.1) / nb per coordinate, "scaled" multiplies every half-width by
    U(0.8, 1.2). All layouts read the same random numbers for contrasts and source.

    Flux form on n^d cells, harmonic face means; a is its value at the cell centre. The
    order in h = 1 / n is that of `walls`, as long as cell faces lie on the interfaces
    (n a multiple of 5 nb in the fixed layout); otherwise first order, because an
    interface is moved by up to half a cell.

    Attributes:
        n: cells per axis, one number or one per axis; two or three axes.
        num_dims: axes, if n is one number.
        num_inclusions: nb, inclusions per axis.
        contrasts: smallest and largest a of an inclusion, positive.
        layout: "fixed", "jittered" or "scaled".
        source: "gaussian" or "constant".
        walls: "half_cells" puts u = 0 on the boundary (second order); "ghost_row" half
            a cell outside of it, as in the measurements in which recycling was tried
            first (first order, the same counts of iterations).

    Raises:
        ValueError: if a setting is unknown or out of range.

    References:
        The setting of high-contrast inclusions whose few small eigenvalues deflation
        removes: Vuik, Segal, Meijerink (1999), J. Comput. Phys. 152, 385-403.
    """

    n: int | tuple[int, ...] = 260
    num_dims: int = 2
    num_inclusions: int = 4
    contrasts: tuple[float, float] = (1e2, 1e4)
    layout: str = "fixed"
    source: str = "gaussian"
    walls: str = "half_cells"

    name = "composites"
    matrices = "spd"
    preconditioner = "ssor"
    num_systems = 1
    mesh = None
    fields = (
        FieldSpec("coefficient", False, "dimensionless", "Conductivity a."),
        FieldSpec("source", False, "dimensionless", "Source f."),
        FieldSpec("solution", True, "dimensionless", "Potential u."),
    )

    def __post_init__(self):
        for key, known in (("layout", LAYOUTS), ("source", SOURCES), ("walls", WALLS)):
            if getattr(self, key) not in known:
                raise ValueError(f"{key} is {getattr(self, key)!r}; known: {[*known]}")
        set_shape(self)
        check_inclusions(self.num_inclusions, self.contrasts)
        object.__setattr__(self, "contrasts", tuple(map(float, self.contrasts)))
        if min(self.n) < 3 * self.num_inclusions:
            raise ValueError(
                f"n is {self.n}; {self.num_inclusions} inclusions per axis need at "
                f"least {3 * self.num_inclusions} cells"
            )

    @property
    def equation(self) -> str:
        """Equation, boundary condition and discretisation in one line."""
        f = "f" if self.source == "gaussian" else "1"
        return (
            f"-div(a grad u) = {f} on (0,1)^{self.num_dims}, u = 0 on the boundary; "
            f"{self.num_inclusions**self.num_dims} inclusions, layout {self.layout}; "
            f"flux form on cells, harmonic face means, {self.walls}"
        )

    @property
    def scalars(self) -> dict[str, float]:
        """Parameters shared by all samples."""
        low, high = self.contrasts
        return {"contrast_low": low, "contrast_high": high}

    def sample(self, rng: np.random.Generator) -> Sample:
        """Draws the inclusions and the source.

        Returns:
            coefficient and source [*n]; log_contrasts [nb^d], decadic; centers
            [nb^d, d] and half_widths [nb^d] of the inclusions.
        """
        shape = (self.num_inclusions**self.num_dims, self.num_dims)
        log_contrasts = rng.uniform(*np.log10(self.contrasts), shape[0])
        source_center = rng.uniform(*SOURCE_CENTERS, self.num_dims)
        centers = lattice(self.num_inclusions, self.num_dims)
        half_widths = np.full(shape[0], HALF_WIDTH / self.num_inclusions)
        if self.layout == "jittered":
            centers += rng.uniform(-JITTER, JITTER, shape) / self.num_inclusions
        if self.layout == "scaled":
            half_widths *= rng.uniform(*SCALING, shape[0])
        x = self.grid.coordinates()
        f = np.ones(self.n)
        if self.source == "gaussian":
            f = gaussian(x, source_center)
        return {
            "coefficient": paint(x, centers, half_widths, 10**log_contrasts),
            "source": f,
            "log_contrasts": log_contrasts,
            "centers": centers,
            "half_widths": half_widths,
        }

    def system(
        self, sample: Sample, step: int = 0, previous: np.ndarray | None = None
    ) -> LinearSystem:
        """Five- or seven-point system for u at the cell centres, [*n].

        Raises:
            ValueError: if the coefficient has another shape or is not positive.
        """
        a = sample["coefficient"]
        check_coefficient(a, self.n)
        operator = cell_diffusion(a, self.grid.spacing, self.walls)
        return LinearSystem(operator, sample["source"])

    def fields_from_solution(
        self, sample: Sample, x: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Stored fields [*n]."""
        return {
            "coefficient": sample["coefficient"],
            "source": sample["source"],
            "solution": x,
        }

    def features(self, sample: Sample) -> np.ndarray:
        """What the matrix depends on: log contrasts, and what moves of the layout.

        Lengths are scaled to the width of their distribution, as the logarithms are
        by themselves.
        """
        parts, num = [sample["log_contrasts"]], self.num_inclusions
        if self.layout == "jittered":
            parts.append(sample["centers"].ravel() * num / (2 * JITTER))
        if self.layout == "scaled":
            scale = HALF_WIDTH / num * (SCALING[1] - SCALING[0])
            parts.append(sample["half_widths"] / scale)
        return np.concatenate(parts)


def set_shape(problem) -> None:
    """Makes n a tuple and sets num_dims to its length.

    Raises:
        ValueError: if n is not one to three whole numbers that fit num_dims.
    """
    n = problem.n
    shape = (n,) * problem.num_dims if np.ndim(n) == 0 else tuple(n)
    if len(shape) not in (2, 3) or any(int(m) != m for m in shape):
        raise ValueError(
            f"n is {n!r} and num_dims is {problem.num_dims}; expected one whole number "
            "and num_dims 2 or 3, or two or three whole numbers"
        )
    object.__setattr__(problem, "n", tuple(map(int, shape)))
    object.__setattr__(problem, "num_dims", len(shape))


def check_inclusions(num_inclusions: int, contrasts: tuple[float, float]) -> None:
    """Raises a ValueError if there are no inclusions or their range is empty."""
    if num_inclusions < 1 or int(num_inclusions) != num_inclusions:
        raise ValueError(f"num_inclusions is {num_inclusions}; expected 1, 2, ...")
    if len(contrasts) != 2 or not 0 < contrasts[0] <= contrasts[1] < np.inf:
        raise ValueError(
            f"contrasts are {contrasts}; expected two positive numbers, the smaller "
            "one first"
        )


def check_coefficient(a: np.ndarray, shape: tuple[int, ...]) -> None:
    """Raises a ValueError if a is not positive and finite, or of another shape."""
    if a.shape != shape or not (a.min() > 0 and np.isfinite(a.max())):
        raise ValueError(
            f"the coefficient must be positive and finite, of shape {shape}; got "
            f"shape {a.shape}, minimum {a.min():.3g}, maximum {a.max():.3g}"
        )


def lattice(num: int, num_dims: int) -> np.ndarray:
    """Centres (i + 1/2) / num of a lattice on the unit box, [num^d, d], row-major."""
    indices = np.indices((num,) * num_dims).reshape(num_dims, -1).T
    return (indices + 0.5) / num


def gaussian(x: tuple[np.ndarray, ...], center: np.ndarray) -> np.ndarray:
    """exp(-|x - c|^2 / 0.02) on the tensor grid of the coordinates x, [*n]."""
    factors = [
        np.exp(-((points - c) ** 2) / SOURCE_SPREAD)
        for points, c in zip(x, center, strict=True)
    ]
    product = factors[0]
    for factor in factors[1:]:
        product = np.multiply.outer(product, factor)
    return product


def paint(
    x: tuple[np.ndarray, ...],
    centers: np.ndarray,
    half_widths: np.ndarray,
    values: np.ndarray,
) -> np.ndarray:
    """1 outside of boxes |x - c|_max <= w and their values inside, [*n].

    Args:
        x: coordinates [n] per axis.
        centers: [num, d].
        half_widths: [num].
        values: [num]; of boxes that overlap the last one counts.
    """
    a = np.ones(tuple(map(len, x)))
    for center, width, value in zip(centers, half_widths, values, strict=True):
        window = tuple(
            slice(*np.searchsorted(points, (c - width, c + width), side="left"))
            for points, c in zip(x, center, strict=True)
        )
        a[window] = value
    return a
