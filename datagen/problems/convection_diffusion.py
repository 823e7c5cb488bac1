"""Steady convection and diffusion in a random incompressible flow in a closed box."""

import dataclasses
import functools

import numpy as np
import scipy.sparse as sp

from datagen.problems.base import Boundary, FieldSpec, Sample, Settings
from solvers.grids import Grid
from solvers.sequence import LinearSystem
from solvers.stencils import FIVE_POINT, StencilOperator

FAMILIES = ("grf", "low3")
SCHEMES = ("upwind", "central")
LOW3_SEED = 20240115  # of the four fixed fields of family "low3"
LOW3_AMPLITUDE = 0.1
NUM_FEATURE_DEGREES = 10  # sines of total degree below this: 36 sort features


@dataclasses.dataclass(frozen=True)
class ConvectionDiffusion(Settings):
    """-epsilon Delta u + b . grad u = f on the unit square, u = 0 on its boundary.

    b = (d psi / dy, -d psi / dx) for a random stream function without flow through the
    walls, psi = sum_j c_j 2 sin(pi j_1 x) sin(pi j_2 y), j_1, j_2 = 1 ... num_modes:

    - "grf": c_j = a_j xi_j, xi_j standard normal, a_j = (1 + (pi |j| / tau)^2)^-alpha,
      scaled to root mean square speed 1, independent in every sample;
    - "low3": a fixed draw of that kind plus three more with coefficients 0.1 U(-1, 1).

    f is constant. Dimensionless: lengths in domain widths, speeds in the root mean
    square speed, hence a Peclet number of 1 / epsilon. Layers at the walls and between
    eddies are about sqrt(epsilon) wide.

    Finite volumes around the (n - 2)^2 interior nodes. The flow through a face is the
    difference of psi at its ends, so the discrete flow is free of divergence, exactly.

    - "upwind": first order; an M-matrix at any Peclet number, so u has the sign of f
      and no oscillations, but a numerical diffusion of |b| h / 2: with cell Peclet
      numbers |b| h / epsilon above 2 it exceeds epsilon. Measured for epsilon = 1e-3:
      u is 46 to 48 % off at n = 129, 32 to 34 % at n = 257.
    - "central": second order; diffusion plus an exactly skew-symmetric matrix, so it is
      positive definite in the sense of x^T A x > 0. No flow crosses the walls, hence no
      layer is thinner than sqrt(epsilon), and cell Peclet numbers above 2 do no harm
      while h <= sqrt(epsilon), which is required. Measured for epsilon = 1e-3: 0.1 to
      0.2 % at n = 129, 0.03 to 0.05 % at n = 257, no negative values from n = 33 on.

    Matrices are not symmetric. Family "low3" comes with the matrix of its fixed flow as
    preconditioning matrix, the same object for all samples.

    Attributes:
        n: nodes per axis, edge included.
        epsilon: diffusivity, 1 / Peclet number.
        family: "grf" or "low3".
        scheme: "upwind" or "central".
        forcing: f, not zero.
        alpha: decay of the amplitudes of psi, above 1 for finite speeds.
        tau: inverse correlation length of psi, in 1 / domain widths.
        num_modes: sines per axis; the same function on every grid.

    Raises:
        ValueError: if a setting is unknown or out of range.

    References:
        Roos, Stynes and Tobiska (2008), "Robust numerical methods for singularly
        perturbed differential equations", part III, for upwind schemes.
    """

    n: int = 257
    epsilon: float = 1e-3
    family: str = "grf"
    scheme: str = "upwind"
    forcing: float = 1.0
    alpha: float = 1.75
    tau: float = 4.0
    num_modes: int = 32

    name = "convection_diffusion"
    matrices = "general"
    num_systems = 1
    axes = ("x", "y")
    boundaries = tuple(Boundary(axis, "WALL", "dirichlet:0") for axis in ("x", "y"))
    fields = (
        FieldSpec("stream_function", False, "dimensionless", "Stream function psi."),
        FieldSpec("velocity_x", False, "dimensionless", "Velocity d psi / dy."),
        FieldSpec("velocity_y", False, "dimensionless", "Velocity -d psi / dx."),
        FieldSpec("solution", True, "dimensionless", "Concentration u."),
    )

    def __post_init__(self):
        for key, known in (("family", FAMILIES), ("scheme", SCHEMES)):
            if getattr(self, key) not in known:
                raise ValueError(f"{key} is {getattr(self, key)!r}; known: {known}")
        for key, low in (("epsilon", 0.0), ("tau", 0.0), ("alpha", 1.0)):
            if not low < getattr(self, key) < np.inf:
                raise ValueError(
                    f"{key} is {getattr(self, key)}; expected a number above {low:g}"
                )
        for key, least in (("n", 3), ("num_modes", 1)):
            value = getattr(self, key)
            if int(value) != value or value < least:
                raise ValueError(
                    f"{key} is {value!r}; expected a whole number of at least {least}"
                )
        if not (np.isfinite(self.forcing) and self.forcing != 0):
            raise ValueError(f"forcing is {self.forcing}; expected a nonzero number")
        least = int(np.ceil(1 / np.sqrt(self.epsilon) - 1e-9)) + 1
        if self.scheme == "central" and self.n < least:
            raise ValueError(
                f"n is {self.n}; scheme 'central' needs a spacing of at most "
                f"sqrt(epsilon) = {np.sqrt(self.epsilon):.3g}: set n to at least "
                f"{least}, or scheme to 'upwind'"
            )

    @property
    def preconditioner(self) -> str:
        """Factors of the fixed flow for "low3", incomplete ones of each flow else."""
        return "lu" if self.family == "low3" else "ilu"

    @property
    def equation(self) -> str:
        """Equation, boundary condition and discretisation in one line."""
        return (
            f"-{self.epsilon:g} Delta u + b . grad u = {self.forcing:g} on (0,1)^2, "
            "u = 0 on the boundary; b of divergence 0 from a random sine series "
            f"({self.family}); finite volumes around nodes, {self.scheme} fluxes"
        )

    @property
    def coordinates(self) -> dict[str, np.ndarray]:
        """Coordinates of the nodes, one array [n] per axis."""
        return dict(zip(self.axes, self._nodes.coordinates(), strict=True))

    @property
    def scalars(self) -> dict[str, float]:
        """Parameters shared by all samples."""
        keys = ("epsilon", "forcing", "alpha", "tau")
        return {key: float(getattr(self, key)) for key in keys}

    def sample(self, rng: np.random.Generator) -> Sample:
        """Draws psi as coefficients of its sines, {"modes": [num_modes, num_modes]}."""
        if self.family == "grf":
            return {"modes": self._draw_modes(rng)}
        base, *others = self._low3_modes
        coefficients = LOW3_AMPLITUDE * rng.uniform(-1, 1, len(others))
        return {"modes": base + np.tensordot(coefficients, others, axes=1)}

    def system(
        self, sample: Sample, step: int = 0, previous: np.ndarray | None = None
    ) -> LinearSystem:
        """Five-point system for u at the interior nodes, [n - 2, n - 2].

        Raises:
            ValueError: if the modes have another shape or are not finite.
        """
        modes = sample["modes"]
        expected = (int(self.num_modes),) * 2
        if modes.shape != expected or not np.isfinite(modes).all():
            raise ValueError(
                f"modes must be finite, of shape {expected}; got shape {modes.shape}"
            )
        operator = self._operator(modes)
        source = np.full(operator.grid_shape, float(self.forcing))
        matrix = self.fixed_flow if self.family == "low3" else None
        return LinearSystem(operator, source, matrix)

    def fields_from_solution(
        self, sample: Sample, x: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Stored fields [n, n]; u is exactly zero on the edge."""
        sines, cosines = self._sines(self._nodes), self._cosines(self._nodes)
        modes = sample["modes"]
        return {
            "stream_function": sines @ modes @ sines.T,
            "velocity_x": sines @ modes @ cosines.T,
            "velocity_y": -(cosines @ modes @ sines.T),
            "solution": np.pad(x, 1),
        }

    def features(self, sample: Sample) -> np.ndarray:
        """Lowest sine modes of the speed, pi |j| c_j, [36] (fewer if there are less).

        Their distance is that of the velocities in the mean square.
        """
        modes = sample["modes"] * np.sqrt(self._squares)
        return modes[np.indices(modes.shape).sum(axis=0) + 2 < NUM_FEATURE_DEGREES]

    @functools.cached_property
    def fixed_flow(self) -> sp.csr_array:
        """Preconditioning matrix of "low3": that of the fixed flow; one object."""
        return self._operator(self._low3_modes[0]).to_csr()

    def _operator(self, modes: np.ndarray) -> StencilOperator:
        sines = self._sines(Grid((self._nodes.shape[0] - 1,) * 2, location="cells"))
        psi = sines @ modes @ sines.T
        return convection_diffusion_operator(
            psi, self.epsilon, self._nodes.spacing, self.scheme
        )

    def _draw_modes(self, rng: np.random.Generator) -> np.ndarray:
        # Shell by shell, so that low modes do not depend on num_modes.
        num = int(self.num_modes)
        modes = np.empty((num, num))
        for j in range(num):
            shell = rng.standard_normal(2 * j + 1)
            modes[j, : j + 1], modes[:j, j] = shell[: j + 1], shell[j + 1 :]
        modes *= (1 + self._squares / self.tau**2) ** -self.alpha
        return modes / np.sqrt(np.sum(self._squares * modes**2))

    @functools.cached_property
    def _low3_modes(self) -> tuple[np.ndarray, ...]:
        return tuple(
            self._draw_modes(np.random.default_rng([LOW3_SEED, i])) for i in range(4)
        )

    @functools.cached_property
    def _squares(self) -> np.ndarray:
        """pi^2 |j|^2, [num_modes, num_modes]."""
        j = np.pi * np.arange(1, int(self.num_modes) + 1)
        return np.add.outer(j**2, j**2)

    def _sines(self, grid: Grid) -> np.ndarray:
        """sqrt(2) sin(pi j x_i) along one axis, [points, num_modes]."""
        j = np.arange(1, int(self.num_modes) + 1)
        return np.sqrt(2) * np.sin(np.pi * np.outer(grid.coordinates()[0], j))

    def _cosines(self, grid: Grid) -> np.ndarray:
        """Derivatives of `_sines`."""
        j = np.arange(1, int(self.num_modes) + 1)
        return (
            np.sqrt(2) * np.pi * j * np.cos(np.pi * np.outer(grid.coordinates()[0], j))
        )

    @property
    def _nodes(self) -> Grid:
        return Grid((int(self.n),) * 2, location="nodes")


def convection_diffusion_operator(
    psi: np.ndarray, epsilon: float, spacing: tuple[float, float], scheme: str
) -> StencilOperator:
    """-epsilon Delta u + div(b u) on interior nodes, u = 0 on the edge.

    Args:
        psi: [n1 - 1, n2 - 1] stream function at the cell centres between the n1 x n2
            nodes, which are the corners of the volumes; b = (psi_y, -psi_x).
        epsilon: diffusivity.
        spacing: distance of neighbouring nodes, one per axis.
        scheme: "upwind"; or "central", which oscillates where flow leaves through the
            edge and cell Peclet numbers exceed 2.

    Returns:
        Operator on [n1 - 2, n2 - 2] of batch 1, float64.

    Raises:
        ValueError: for an unknown scheme.
    """
    if scheme not in SCHEMES:
        raise ValueError(f"scheme is {scheme!r}; known: {SCHEMES}")
    h1, h2 = spacing
    b1 = np.diff(psi, axis=1) / h2  # [n1 - 1, n2 - 2], faces across axis 1
    b2 = -np.diff(psi, axis=0) / h1  # [n1 - 2, n2 - 1]
    # Flow per volume out of a node into the next one: out1 u_i - back1 u_{i+1}.
    out1, back1 = _split(b1 / h1, epsilon / h1**2, scheme)
    out2, back2 = _split(b2 / h2, epsilon / h2**2, scheme)
    planes = np.zeros((5, psi.shape[0] - 1, psi.shape[1] - 1))
    planes[0] = out1[1:] + back1[:-1] + out2[:, 1:] + back2[:, :-1]
    planes[1, 1:], planes[2, :-1] = -out1[1:-1], -back1[1:-1]
    planes[3, :, 1:], planes[4, :, :-1] = -out2[:, 1:-1], -back2[:, 1:-1]
    return StencilOperator(np.moveaxis(planes, 0, -1)[None], FIVE_POINT)


def _split(b: np.ndarray, diffusion: float, scheme: str) -> tuple[np.ndarray, ...]:
    """Forward and backward exchange through faces; their difference is b."""
    if scheme == "central":
        return diffusion + b / 2, diffusion - b / 2
    return diffusion + np.maximum(b, 0), diffusion + np.maximum(-b, 0)
