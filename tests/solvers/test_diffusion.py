import functools
import itertools

import numpy as np
import pytest
import scipy.sparse.linalg as spla

from solvers.boundaries import Robin, control_volumes, sides_of, unknown_nodes
from solvers.diffusion import cell_diffusion, diffusion_operator

ALPHA, A_AT_ROBIN = 1.5, 2.0
TRANSFER = Robin(ALPHA)
WALL, INSULATED, ROUND = "dirichlet", "neumann", "periodic"
BEND = -ALPHA / (ALPHA + 2 * A_AT_ROBIN)  # of 1 + c x^2 with the Robin condition at 1
SAG = -(ALPHA + A_AT_ROBIN) / (ALPHA + 2 * A_AT_ROBIN)  # of x + c x^2 likewise

# One factor of u per pair of conditions, which it meets at x = 0 and x = 1.
FACTORS = {
    (WALL, WALL): lambda x: np.sin(np.pi * x) * (1 + x / 2),
    (INSULATED, INSULATED): lambda x: 1.5 + np.cos(np.pi * x),
    (WALL, INSULATED): lambda x: np.sin(np.pi * x / 2),
    (INSULATED, WALL): lambda x: np.cos(np.pi * x / 2),
    (ROUND, ROUND): lambda x: np.sin(2 * np.pi * x) + np.cos(4 * np.pi * x),
    (INSULATED, TRANSFER): lambda x: 1 + BEND * x**2,
    (WALL, TRANSFER): lambda x: x + SAG * x**2,
    (TRANSFER, INSULATED): lambda x: 1 + BEND * (1 - x) ** 2,
}


def bump(pair):
    """Smooth, periodic where u is, and 0 on Robin sides."""
    if ROUND in pair:
        return lambda x: np.sin(2 * np.pi * x)
    if TRANSFER in pair:
        return lambda x: (1 - x) if pair[1] == TRANSFER else x
    return lambda x: 0.3 + x


def derivatives(fn, x):
    """Values of a smooth function and of its first two derivatives, to 1e-11."""
    series = np.polynomial.Chebyshev.interpolate(fn, 30, [0, 1])
    return [series.deriv(order)(x) for order in range(3)]


def on_grid(lines):
    return functools.reduce(np.multiply.outer, lines)


def coefficient(pairs, axes):
    """a: constant on Robin sides, so that products of FACTORS meet the condition."""
    lines = [bump(pair)(x) for pair, x in zip(pairs, axes, strict=True)]
    return A_AT_ROBIN + on_grid(lines)


def reaction(axes):
    return on_grid([1 + axes[0] ** 2, *(np.ones_like(x) for x in axes[1:])])


def solution(pairs, axes):
    return on_grid([FACTORS[pair](x) for pair, x in zip(pairs, axes, strict=True)])


def source(pairs, axes):
    """-div(a grad u) + c u."""
    u = [derivatives(FACTORS[p], x) for p, x in zip(pairs, axes, strict=True)]
    a = [derivatives(bump(p), x) for p, x in zip(pairs, axes, strict=True)]

    def differentiated(factors, axis, order):
        lines = [line[order * (k == axis)] for k, line in enumerate(factors)]
        return on_grid(lines)

    total = reaction(axes) * solution(pairs, axes)
    for axis in range(len(axes)):
        total -= differentiated(a, axis, 1) * differentiated(u, axis, 1)
        total -= coefficient(pairs, axes) * differentiated(u, axis, 2)
    return total


def discrete(grid, pairs, cells):
    """Axes of the unknowns, the operator and b, `cells` intervals per axis."""
    spacing = [1 / m for m in cells]
    if grid == "cells":
        axes = [(np.arange(m) + 0.5) / m for m in cells]
        a, c = coefficient(pairs, axes), reaction(axes)
        A = cell_diffusion(a, spacing, boundaries=pairs, reaction=c)
        return axes, A, source(pairs, axes)
    nodes = [
        np.arange(m + (ROUND not in pair)) / m
        for m, pair in zip(cells, pairs, strict=True)
    ]
    inner = unknown_nodes(pairs, len(cells))
    axes = [x[window] for x, window in zip(nodes, inner, strict=True)]
    a, c = coefficient(pairs, nodes), reaction(axes)
    A = diffusion_operator(a, spacing, boundaries=pairs, reaction=c)
    return axes, A, source(pairs, axes) * on_grid(control_volumes(a.shape, pairs))


def observed_orders(grid, pairs, sizes):
    errors = []
    for cells in sizes:
        axes, A, b = discrete(grid, pairs, cells)
        u = spla.spsolve(A.to_csr().tocsc(), b.ravel()).reshape(b.shape)
        errors.append(abs(u - solution(pairs, axes)).max())
    return np.log2(np.divide(errors[:-1], errors[1:]))


@pytest.mark.parametrize("grid", ["nodes", "cells"])
@pytest.mark.parametrize(
    "pairs",
    [
        ((WALL, WALL), (WALL, INSULATED)),
        ((INSULATED, WALL), (INSULATED, INSULATED)),
        ((ROUND, ROUND), (WALL, TRANSFER)),
        ((INSULATED, TRANSFER), (INSULATED, INSULATED)),
        ((TRANSFER, INSULATED), (INSULATED, TRANSFER)),
        ((ROUND, ROUND), (ROUND, ROUND)),
    ],
)
def test_scheme_is_second_order(grid, pairs):
    sizes = [(12, 17), (24, 34), (48, 68)]
    orders = observed_orders(grid, pairs, sizes)
    np.testing.assert_allclose(orders[-1], 2.0, atol=0.1)
    np.testing.assert_allclose(orders, 2.0, atol=0.25)


@pytest.mark.parametrize("grid", ["nodes", "cells"])
def test_scheme_is_second_order_in_three_dimensions(grid):
    pairs = ((WALL, TRANSFER), (INSULATED, INSULATED), (ROUND, ROUND))
    orders = observed_orders(grid, pairs, [(6, 5, 7), (12, 10, 14)])
    np.testing.assert_allclose(orders, 2.0, atol=0.25)


@pytest.mark.parametrize("build", [diffusion_operator, cell_diffusion])
@pytest.mark.parametrize(
    "pairs",
    [
        ((WALL, INSULATED), (TRANSFER, WALL)),
        ((ROUND, ROUND), (INSULATED, TRANSFER)),
        ((INSULATED, TRANSFER), (ROUND, ROUND), (WALL, WALL)),
        ((TRANSFER, INSULATED), (INSULATED, INSULATED), (INSULATED, WALL)),
    ],
)
def test_matrix_is_exactly_symmetric_and_positive(build, pairs):
    a = np.exp(2 * np.random.default_rng(0).standard_normal((5, 7, 6)[: len(pairs)]))
    A = build(a, (0.3, 0.2, 0.7)[: len(pairs)], boundaries=pairs).to_csr()
    assert abs(A - A.T).max() == 0
    values = np.linalg.eigvalsh(A.toarray())
    assert values[0] > 1e-6 * values[-1]


@pytest.mark.parametrize("build", [diffusion_operator, cell_diffusion])
@pytest.mark.parametrize("pairs", list(itertools.product([INSULATED, ROUND], repeat=2)))
def test_constants_are_the_null_space_without_walls_and_reaction(build, pairs):
    a = np.exp(np.random.default_rng(0).standard_normal((6, 5)))
    A = build(a, (0.3, 0.2), boundaries=pairs).to_csr().toarray()
    assert abs(A.sum(1)).max() <= 4e-16 * abs(A).sum(1).max()
    values = np.linalg.eigvalsh(A)
    assert abs(values[0]) <= 1e-14 * values[-1] < values[1]
    # Reaction times the control volume is all that a constant feels then.
    c = np.random.default_rng(1).uniform(1, 2, a.shape)
    volumes = np.ones(a.shape)
    if build is diffusion_operator:
        volumes = on_grid(control_volumes(a.shape, pairs))
    B = build(a, (0.3, 0.2), boundaries=pairs, reaction=c).to_csr()
    np.testing.assert_allclose(B.sum(1), (c * volumes).ravel(), rtol=1e-12)


def test_insulation_is_a_robin_side_without_transfer():
    a = np.exp(np.random.default_rng(0).standard_normal((6, 5)))
    for build in (diffusion_operator, cell_diffusion):
        closed = build(a, (0.3, 0.2), boundaries=INSULATED)
        idle = build(a, (0.3, 0.2), boundaries=Robin(0.0))
        np.testing.assert_array_equal(closed.coefficients, idle.coefficients)


def test_fast_transfer_on_cells_is_a_wall():
    a = np.exp(np.random.default_rng(0).standard_normal((6, 5)))
    wall = cell_diffusion(a, (0.3, 0.2))
    fast = cell_diffusion(a, (0.3, 0.2), boundaries=Robin(1e14))
    np.testing.assert_allclose(fast.coefficients, wall.coefficients, rtol=1e-12)


def test_walls_of_cells_lie_half_a_cell_or_a_whole_one_away():
    a, h = np.full(3, 5.0), 0.1
    for walls, link in (("half_cells", 2.0), ("ghost_row", 1.0)):
        diagonal = cell_diffusion(a, (h,), walls).diagonal()[0]
        np.testing.assert_allclose(diagonal * h**2 / 5, [1 + link, 2, 1 + link])


def test_sides_can_be_named_at_once_per_axis_or_one_by_one():
    assert sides_of("neumann", 2) == ((INSULATED, INSULATED),) * 2
    assert sides_of([TRANSFER, ROUND], 2) == ((TRANSFER,) * 2, (ROUND,) * 2)
    assert sides_of([(WALL, TRANSFER)], 1) == ((WALL, TRANSFER),)


@pytest.mark.parametrize(
    ("boundaries", "message"),
    [
        ("walls", r"boundary 'walls'; expected one of .*'periodic'.* or Robin"),
        ([("neumann", "dirichlet", "neumann"), "neumann"], "a pair of them"),
        ([3.0, "neumann"], "boundary 3.0; expected"),
        ([("periodic", "neumann"), "neumann"], "both sides or none are periodic"),
        (["neumann"], "has 1 entries; expected one per axis, 2"),
    ],
)
def test_rejects_other_boundaries(boundaries, message):
    with pytest.raises(ValueError, match=message):
        diffusion_operator(np.ones((4, 5)), (1, 1), boundaries=boundaries)


@pytest.mark.parametrize("alpha", [-1.0, np.inf, np.nan])
def test_rejects_transfer_coefficients_that_are_negative_or_not_finite(alpha):
    with pytest.raises(ValueError, match=r"alpha is .*; expected a number >= 0"):
        Robin(alpha)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"spacing": (1.0,)}, r"spacing has 1 entries; expected one per axis, 2"),
        ({"reaction": np.ones(5)}, r"reaction has shape \(5,\); expected a number or"),
    ],
)
def test_rejects_arguments_that_do_not_fit_the_grid(settings, message):
    for build in (diffusion_operator, cell_diffusion):
        with pytest.raises(ValueError, match=message):
            build(np.ones((4, 5)), **{"spacing": (1, 1), **settings})


def test_rejects_unknown_means_and_walls():
    with pytest.raises(ValueError, match=r"face_mean is 'mean'; known: .*'harmonic'"):
        diffusion_operator(np.ones((4, 5)), (1, 1), "mean")
    with pytest.raises(ValueError, match="walls is 'far'; known: 'half_cells'"):
        cell_diffusion(np.ones((4, 5)), (1, 1), "far")
