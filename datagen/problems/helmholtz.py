"""Time-harmonic waves in a random medium: Helmholtz equation, impedance boundary."""

import dataclasses
import functools

import numpy as np
import scipy.sparse as sp

from datagen.problems.base import Boundary, FieldSpec, Sample, Settings
from datagen.random_fields import NeumannField, cosine_series, low_modes
from solvers.grids import Grid
from solvers.sequence import LinearSystem
from solvers.stencils import FIVE_POINT, StencilOperator

FAMILIES = ("grf", "low4")
SOURCES = ("fixed", "random")
LOW4_MODES = ((1, 0), (0, 1), (1, 1), (2, 0))  # cosines of family "low4"
PEAK = 4.0  # bound of |g|; only the corners of a random field come near it
MIN_POINTS = 10.0  # per wavelength, at the largest wave number
SOURCE_CENTER = (0.5, 0.2)
SOURCE_BOX = (0.2, 0.8)  # both coordinates of random centres are uniform in it
NUM_FEATURE_DEGREES = {"grf": 8, "low4": 3}  # cosines of total degree below this


@dataclasses.dataclass(frozen=True)
class Helmholtz(Settings):
    """-Delta u - k(x)^2 u = f on the unit square, du/dn = i k u on its boundary.

    Time factor exp(-i omega t), so that exp(i k r) travels outwards and the boundary
    lets waves out (exactly at normal incidence). The wave number is k = k0 (1 + eta g)
    with k0 = 2 pi wavelengths and g a random cosine series without constant mode:

    - "grf": Gaussian `NeumannField`, amplitudes (1 + (pi |j| / tau)^2)^(-alpha / 2);
    - "low4": the modes (1, 0), (0, 1), (1, 1), (2, 0) with coefficients U(-1, 1).

    g is scaled to root mean square 1, and further down where |g| would exceed 4. f is a
    Gaussian of unit integral, exp(-|x - c|^2 / (2 w^2)) / (2 pi w^2), around a fixed or
    a random centre. Dimensionless: lengths in domain widths, k in radians per width.

    Five-point differences at the n x n nodes i / (n - 1), all of them unknowns; ghost
    nodes are eliminated by the central difference of the boundary condition, and edge
    rows are halved (corner rows quartered), which makes the matrix complex symmetric
    (not Hermitian, so CG and MINRES do not apply: `matrices` is "general").

    Second order, but phases drift: discrete waves are too short, by k^3 h^2 / 24
    radians per unit length along the axes and half of that along diagonals. At 10
    wavelengths that is 0.16 across the domain for n = 257 and 0.63 for n = 129: the
    data are those of the discrete equation, grids of different n must not be mixed.

    Systems come with the shifted Laplacian of the constant k0 as preconditioning matrix
    (wave number squared times 1 + damping i, one matrix for all samples).

    Attributes:
        n: nodes per axis.
        wavelengths: k0 / (2 pi), wavelengths across the domain.
        eta: relative root mean square of the fluctuations of k, 0 <= eta < 1 / 4.
        family: "grf" or "low4".
        source: "fixed" centre (0.5, 0.2) or "random", uniform in (0.2, 0.8)^2.
        source_width: w, at least the spacing of the nodes.
        alpha: smoothness exponent of "grf".
        tau: inverse correlation length of "grf", in 1 / domain widths.
        num_modes: cosines per axis of "grf"; the same function on every grid.
        damping: of the preconditioning matrix; 0 is the mean medium itself. Decides
            nothing but the work of preconditioned methods.
        min_points: nodes per wavelength below which a setting is refused, at the
            largest wave number that can occur, k0 (1 + 4 eta).

    Raises:
        ValueError: if a setting is unknown or out of range.

    References:
        Erlangga, Vuik and Oosterlee (2004), "On a class of preconditioners for solving
        the Helmholtz equation", Appl. Numer. Math. 50, for the shifted Laplacian.
    """

    n: int = 257
    wavelengths: float = 10.0
    eta: float = 0.05
    family: str = "grf"
    source: str = "fixed"
    source_width: float = 0.02
    alpha: float = 3.0
    tau: float = 5.0
    num_modes: int = 32
    damping: float = 0.5
    min_points: float = MIN_POINTS

    name = "helmholtz"
    matrices = "general"
    preconditioner = "lu"
    axes = ("x", "y")
    boundaries = tuple(
        Boundary(axis, "OPEN", "impedance: du/dn = i k u") for axis in ("x", "y")
    )

    def __post_init__(self):
        for key, known in (("family", FAMILIES), ("source", SOURCES)):
            if getattr(self, key) not in known:
                raise ValueError(f"{key} is {getattr(self, key)!r}; known: {known}")
        for key, low, high in (
            ("wavelengths", 0.0, np.inf),
            ("source_width", 0.0, np.inf),
            ("min_points", 0.0, np.inf),
        ):
            if not low < getattr(self, key) < high:
                raise ValueError(
                    f"{key} is {getattr(self, key)}; expected a positive number"
                )
        if not 0 <= self.eta < 1 / PEAK:
            raise ValueError(
                f"eta is {self.eta}; expected 0 <= eta < {1 / PEAK}, so that k stays "
                "positive"
            )
        if not 0 <= self.damping < np.inf:
            raise ValueError(f"damping is {self.damping}; expected at least 0")
        if int(self.n) != self.n or self.n < 3:
            raise ValueError(f"n is {self.n!r}; expected a whole number of at least 3")
        self._field  # noqa: B018 - checks alpha, tau and num_modes now
        self._check_resolution()

    def _check_resolution(self) -> None:
        needed = self.min_points * self._largest_wave_number() / (2 * np.pi)
        least = int(np.ceil(needed - 1e-9)) + 1
        if self.n < least:
            points = self.min_points * (self.n - 1) / needed
            raise ValueError(
                f"n is {self.n}: {points:.3g} points per wavelength at the largest "
                f"wave number {self._largest_wave_number():.4g}; expected at least "
                f"{self.min_points:g}: set n to at least {least}, or lower wavelengths "
                "or eta"
            )
        if self.source_width * (self.n - 1) < 1:
            raise ValueError(
                f"source_width is {self.source_width}; expected at least the spacing "
                f"{1 / (self.n - 1):.3g} of n = {self.n} nodes"
            )

    def _largest_wave_number(self) -> float:
        return self.mean_wave_number * (1 + PEAK * self.eta)

    @property
    def mean_wave_number(self) -> float:
        """k0 = 2 pi wavelengths."""
        return 2 * np.pi * self.wavelengths

    @property
    def num_systems(self) -> int:
        """One system per sample."""
        return 1

    @property
    def equation(self) -> str:
        """Equation, boundary condition and discretisation in one line."""
        return (
            "-Delta u - k(x)^2 u = f on (0,1)^2, du/dn = i k u on the boundary, time "
            f"factor exp(-i omega t); k = 2 pi {self.wavelengths:g} (1 + {self.eta:g} "
            f"g), g a random cosine series ({self.family}); f a Gaussian of width "
            f"{self.source_width:g} and unit integral, {self.source} centre; "
            "five-point differences on nodes"
        )

    @property
    def fields(self) -> tuple[FieldSpec, ...]:
        """Wave number, source if it varies, real and imaginary part of u."""
        source = FieldSpec("source", False, "dimensionless", "Source f.")
        return (
            FieldSpec("wave_number", False, "1 / domain width", "Wave number k."),
            *([source] if self.source == "random" else []),
            FieldSpec("solution_real", True, "dimensionless", "Real part of u."),
            FieldSpec("solution_imag", True, "dimensionless", "Imaginary part of u."),
        )

    @property
    def coordinates(self) -> dict[str, np.ndarray]:
        """Coordinates of the nodes, one array [n] per axis."""
        return dict(zip(self.axes, self._grid.coordinates(), strict=True))

    @property
    def scalars(self) -> dict[str, float]:
        """Parameters shared by all samples."""
        scalars = {
            "mean_wave_number": self.mean_wave_number,
            "wavelengths": self.wavelengths,
            "eta": self.eta,
            "source_width": self.source_width,
        }
        if self.source == "fixed":
            scalars |= dict(zip(("source_x", "source_y"), SOURCE_CENTER, strict=True))
        return {key: float(value) for key, value in scalars.items()}

    def sample(self, rng: np.random.Generator) -> Sample:
        """Draws {"wave_number": k [n, n]} and, for random centres, "source" [n, n]."""
        sample = {}
        if self.source == "random":  # before the field: not touched by num_modes
            sample["source"] = self._source_at(rng.uniform(*SOURCE_BOX, size=2))
        g = cosine_series(self._draw_modes(rng), self._grid.shape, "nodes")
        return {"wave_number": self.mean_wave_number * (1 + self.eta * g)} | sample

    def system(
        self, sample: Sample, step: int = 0, previous: np.ndarray | None = None
    ) -> LinearSystem:
        """Complex symmetric five-point system for u at all nodes, [n, n].

        Raises:
            ValueError: if the wave number has another shape or is not positive.
        """
        k = self._checked(sample["wave_number"])
        operator = helmholtz_operator(k, self._grid.spacing)
        return LinearSystem(operator, self._rhs(sample), self.shifted_laplacian)

    def fields_from_solution(
        self, sample: Sample, x: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Stored fields from u, as the arrays of `sample` and two parts of x."""
        fields = {"solution_real": np.real(x), "solution_imag": np.imag(x)}
        return dict(sample) | fields

    def features(self, sample: Sample) -> np.ndarray:
        """Lowest cosine modes of k / k0; [36] for "grf", [6] for "low4"."""
        relative = sample["wave_number"] / self.mean_wave_number - 1
        return low_modes(relative, "nodes", NUM_FEATURE_DEGREES[self.family])

    @functools.cached_property
    def shifted_laplacian(self) -> sp.csr_array:
        """Preconditioning matrix: constant k0, k0^2 times 1 + damping i; one object."""
        k = np.full(self._grid.shape, self.mean_wave_number)
        return helmholtz_operator(k, self._grid.spacing, self.damping).to_csr()

    def _draw_modes(self, rng: np.random.Generator) -> np.ndarray:
        """Cosine coefficients of g, root mean square 1 or less, |g| at most PEAK."""
        if self.family == "low4":
            modes = np.zeros((3, 3))
            modes[tuple(zip(*LOW4_MODES, strict=True))] = rng.uniform(-1, 1, 4)
        else:
            modes = self._field.draw(rng)
        modes /= np.linalg.norm(modes)
        # The peak is looked for on a grid of its own: it does not depend on n.
        fine = (4 * len(modes) + 1,) * 2
        peak = np.abs(cosine_series(modes, fine, "nodes")).max()
        return modes * min(1.0, PEAK / peak)

    def _source_at(self, center: np.ndarray) -> np.ndarray:
        w = self.source_width
        x, y = np.meshgrid(*self._grid.coordinates(), indexing="ij")
        squares = (x - center[0]) ** 2 + (y - center[1]) ** 2
        return np.exp(-squares / (2 * w**2)) / (2 * np.pi * w**2)

    def _rhs(self, sample: Sample) -> np.ndarray:
        f = sample.get("source")
        if f is None:
            f = self._source_at(SOURCE_CENTER)
        return node_weights(self._grid.shape) * f.astype(np.complex128)

    def _checked(self, k: np.ndarray) -> np.ndarray:
        if k.shape != self._grid.shape or not (k.min() > 0 and np.isfinite(k.max())):
            raise ValueError(
                "the wave number must be positive and finite, of shape "
                f"{self._grid.shape}; got shape {k.shape}, minimum {k.min():.3g}, "
                f"maximum {k.max():.3g}"
            )
        return k

    @functools.cached_property
    def _field(self) -> NeumannField:
        return NeumannField(self.alpha, self.tau, self.num_modes)

    @property
    def _grid(self) -> Grid:
        return Grid((int(self.n),) * 2, location="nodes")


def node_weights(shape: tuple[int, int]) -> np.ndarray:
    """Share of a cell that belongs to each node: 1, 1/2 on edges, 1/4 in corners."""
    return np.multiply.outer(*(_end_weights(n) for n in shape))


def helmholtz_operator(
    k: np.ndarray, spacing: tuple[float, float], damping: float = 0.0
) -> StencilOperator:
    """-Delta u - (1 + damping i) k^2 u on nodes, du/dn = i k u on the boundary.

    Rows are multiplied by `node_weights`: right-hand sides must be too. A boundary
    condition du/dn = i k u + g adds g times (weight along the edge) / (spacing across)
    to the right-hand side.

    Args:
        k: [n1, n2] wave number at all nodes, edge included.
        spacing: distance of neighbouring nodes, one per axis.
        damping: absorption relative to k^2, 0 or more.

    Returns:
        Operator on [n1, n2] of batch 1, complex128, exactly symmetric.
    """
    w1, w2 = (_end_weights(n) for n in k.shape)
    h1, h2 = spacing
    planes = np.zeros((5, *k.shape), np.complex128)  # in the order of FIVE_POINT
    planes[1, 1:] = planes[2, :-1] = -w2 / h1**2
    planes[3, :, 1:] = planes[4, :, :-1] = -w1[:, None] / h2**2
    planes[0] = (
        -planes[1:].sum(axis=0) - (1 + 1j * damping) * node_weights(k.shape) * k**2
    )
    ends = [0, -1]
    planes[0][ends] -= 1j * k[ends] * w2 / h1
    planes[0][:, ends] -= 1j * k[:, ends] * w1[:, None] / h2
    return StencilOperator(np.moveaxis(planes, 0, -1)[None], FIVE_POINT)


def _end_weights(n: int) -> np.ndarray:
    weights = np.ones(n)
    weights[[0, -1]] = 0.5
    return weights
