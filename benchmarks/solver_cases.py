"""The cases of `benchmarks.solvers`: random systems on grids, one family each."""

import dataclasses
from collections.abc import Callable

import numpy as np

from datagen import problems
from datagen.random_fields import NeumannField, cosine_series
from solvers.diffusion import cell_diffusion, diffusion_operator
from solvers.sequence import LinearSystem

Draw = Callable[[np.random.Generator, int], LinearSystem]
FACTORISING = frozenset(
    (
        "direct",
        "scipy_spsolve",
        "petsc_mumps_reused",
        "cholmod_reused",
        "pardiso_reused",
    )
)


@dataclasses.dataclass(frozen=True)
class Case:
    """Independent random systems of one kind.

    Attributes:
        name: key in the JSON.
        title: one line for readers.
        n: solved unknowns per axis.
        num: timed systems.
        draw: one system from a random generator and n.
        quick_n: n of `--quick`; None: left out there.
        too_large_for: methods that take minutes or gigabytes.
        constant: whether all systems share one matrix, -Laplace.
    """

    name: str
    title: str
    n: int
    num: int
    draw: Draw
    quick_n: int | None = None
    too_large_for: frozenset[str] = frozenset()
    constant: bool = False

    def systems(self, num: int, *, n: int, seed: int) -> list[LinearSystem]:
        """The first systems of this case; entry i depends on the seed and i alone."""
        streams = np.random.SeedSequence(seed).spawn(num)
        return [self.draw(np.random.default_rng(stream), n) for stream in streams]


def from_problem(name: str, *, boundary_nodes: int = 2, **settings) -> Draw:
    """Samples of a problem of datagen whose n counts that many nodes more."""

    def draw(rng, n):
        problem = problems.create(name, n=n + boundary_nodes, **settings)
        return problem.system(problem.sample(rng))

    return draw


def periodic_field(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Smooth periodic Gaussian field, standard deviation about 0.18 in 2-D, [*shape].

    Spectrum (4 pi^2 |k|^2 + 49)^(-5/4), the coefficient of the sorted Krylov recycling
    paper (arXiv:2401.09516, as coded); in 3-D scaled to the same deviation.
    """
    k = np.meshgrid(*(np.fft.fftfreq(n, 1 / n) for n in shape), indexing="ij")
    spectrum = (4 * np.pi**2 * sum(part**2 for part in k) + 49.0) ** -1.25
    spectrum[(0,) * len(shape)] = 0.0
    noise = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    field = np.fft.ifftn(noise * spectrum).real
    return 0.184 * field / np.sqrt((spectrum**2).sum()) * field.size


def neumann_field(
    rng: np.random.Generator, shape: tuple[int, ...], tau: float, location="nodes"
) -> np.ndarray:
    """`NeumannField` with alpha = 2, scaled to variance 1 on average, [*shape]."""
    field = NeumannField(2.0, tau, max(shape), len(shape))
    values = cosine_series(field.draw(rng), shape, location)
    return values / np.sqrt(field.variance())


def on_nodes(coefficient, *, num_dims: int = 2, stretch: float = 1.0) -> Draw:
    """-div(a grad u) = 1 on nodes, u = 0 on the walls.

    Args:
        coefficient: a [*shape] from a generator and the shape, walls included.
        num_dims: of the box.
        stretch: factor of the spacing along the last axis.
    """

    def draw(rng, n):
        a = coefficient(rng, (n + 2,) * num_dims)
        spacing = [1 / (n + 1)] * (num_dims - 1) + [stretch / (n + 1)]
        operator = diffusion_operator(a, spacing)
        return LinearSystem(operator, np.ones(operator.grid_shape))

    return draw


def on_cells(boundaries: str) -> Draw:
    """Log-normal a on cells without Dirichlet sides; a random f of mean zero."""

    def draw(rng, n):
        a = lognormal(rng, (n, n), "cells")
        f = neumann_field(rng, (n, n), 3.0, "cells")
        operator = cell_diffusion(a, [1 / n] * 2, boundaries=boundaries)
        return LinearSystem(operator, f - f.mean())

    return draw


def smooth(rng, shape):
    """Contrast about 2.6."""
    return np.exp(periodic_field(rng, shape))


def lognormal(rng, shape, location="nodes"):
    """Contrast about 400."""
    return np.exp(1.2 * neumann_field(rng, shape, 3.0, location))


def channels(value: float):
    """1, and `value` in winding channels that are one to three cells wide."""

    def coefficient(rng, shape):
        near = np.abs(neumann_field(rng, shape, 12.0)) < 0.08
        return np.where(near, value, 1.0)

    return coefficient


def many_right_hand_sides(rng, n):
    """-Laplace u = f with white noise f."""
    operator = diffusion_operator(np.ones((n + 2,) * 2), [1 / (n + 1)] * 2)
    return LinearSystem(operator, rng.standard_normal((n, n)))


_CASES = (
    Case(
        "two_phase",
        "Darcy, two phases 12 and 3",
        421,
        10,
        from_problem("darcy", coefficient="two_phase"),
        quick_n=47,
    ),
    Case(
        "smooth_98",
        "smooth periodic field, contrast 2.6",
        98,
        30,
        on_nodes(smooth),
        quick_n=47,
    ),
    Case("smooth_198", "the same, finer", 198, 20, on_nodes(smooth)),
    Case("lognormal", "log-normal, contrast 400", 198, 20, on_nodes(lognormal)),
    Case(
        "multiscale",
        "trigonometric multiscale, randomised, contrast 1e4 ... 1e5",
        255,
        12,
        from_problem("darcy_multiscale"),
    ),
    Case(
        "rough",
        "Darcy, two phases 12 and 2, short correlation length",
        255,
        12,
        from_problem("darcy", coefficient="two_phase", tau=5.0, values=(12.0, 2.0)),
    ),
    Case(
        "channels_low", "thin channels, a = 1e-4 in 1", 421, 6, on_nodes(channels(1e-4))
    ),
    Case(
        "channels_high",
        "thin channels, a = 1e4 in 1",
        255,
        8,
        on_nodes(channels(1e4)),
        quick_n=47,
    ),
    Case(
        "two_phase_3d",
        "Darcy in the cube, two phases 12 and 3",
        64,
        6,
        from_problem("darcy_3d", coefficient="two_phase"),
        too_large_for=FACTORISING,
    ),
    Case(
        "smooth_3d",
        "smooth periodic field, contrast 2.6, in the cube",
        64,
        6,
        on_nodes(smooth, num_dims=3),
        quick_n=15,
        too_large_for=FACTORISING,
    ),
    Case(
        "composites",
        "16 fixed square inclusions, contrasts 1e3 ... 1e4",
        128,
        20,
        from_problem(
            "composites", boundary_nodes=0, num_inclusions=4, contrasts=(1e3, 1e4)
        ),
    ),
    Case(
        "composites_3d",
        "27 fixed cubic inclusions, contrasts 1e2 ... 1e4",
        48,
        6,
        from_problem(
            "composites",
            boundary_nodes=0,
            num_dims=3,
            num_inclusions=3,
            contrasts=(1e2, 1e4),
        ),
        too_large_for=FACTORISING - {"pardiso_reused"},  # the fastest of them
    ),
    Case(
        "constant",
        "constant coefficient, one matrix, many right-hand sides",
        255,
        20,
        many_right_hand_sides,
        constant=True,
    ),
    Case(
        "anisotropic",
        "smooth field, couplings 1:100",
        255,
        10,
        on_nodes(smooth, stretch=10.0),
    ),
    Case(
        "neumann",
        "log-normal cells, no flux on all sides (singular)",
        256,
        10,
        on_cells("neumann"),
        quick_n=48,
    ),
    Case(
        "periodic",
        "log-normal cells, periodic (singular)",
        256,
        10,
        on_cells("periodic"),
    ),
)
CASES = {case.name: case for case in _CASES}
