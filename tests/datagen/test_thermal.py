import json

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as spla
from exact import direct, solution
from scipy.interpolate import RegularGridInterpolator

from datagen import problems
from datagen.problems.thermal import PLATE, SLOT, Thermal


def test_third_order_for_a_smooth_temperature():
    """T = x^3 / 3 - x / 400: dT/dn = 0 on the slot and on top and bottom."""
    errors, sizes = [], (0.1, 0.05, 0.025)
    for mesh_size in sizes:
        problem = Thermal(mesh_size=mesh_size)
        space, free = problem._space, problem._free
        exact = space.points[:, 0] ** 3 / 3 - space.points[:, 0] / 400
        K = space.stiffness()
        b = space.load(-2 * space.quadrature_points[:, 0])
        given = np.concatenate(problem.side_nodes)
        u = exact.copy()
        A = problem.system(problem.sample(np.random.default_rng(0))).operator
        rhs = b[free] - K[free][:, given] @ exact[given]
        u[free] = spla.spsolve(A.tocsc(), rhs)
        gap = np.asarray(space.basis.interpolate(u))
        x = space.quadrature_points[:, 0].reshape(gap.shape)
        gap = gap - (x**3 / 3 - x / 400)
        errors.append(np.sqrt(np.sum(gap**2 * space.basis.dx)))
    slope = np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    assert slope == pytest.approx(3, abs=0.25)


@pytest.mark.parametrize("variant", ["as_stated", "as_coded"])
def test_solution_agrees_with_finite_volumes(variant):
    """Square cells; no flux into the slot or through top and bottom."""
    problem = Thermal(mesh_size=0.025, variant=variant)
    sample = problem.sample(np.random.default_rng(1))
    h = 0.0125
    nx, ny = 80, 128
    x = PLATE[0][0] + h * (np.arange(nx) + 0.5)
    y = PLATE[0][1] + h * (np.arange(ny) + 0.5)
    solid = ~np.logical_and.outer(np.abs(x) < SLOT[1][0], np.abs(y) < SLOT[1][1])
    number = np.full((nx, ny), -1)
    number[solid] = np.arange(solid.sum())
    pairs = np.concatenate(
        [
            np.stack([number[:-1].ravel(), number[1:].ravel()], 1),
            np.stack([number[:, :-1].ravel(), number[:, 1:].ravel()], 1),
        ]
    )
    p, q = pairs[(pairs >= 0).all(axis=1)].T
    num = solid.sum()
    A = sp.coo_array(
        (np.ones(2 * len(p)), (np.r_[p, q], np.r_[q, p])), shape=(num, num)
    )
    diagonal, b = A.sum(axis=1), np.zeros(num)
    left, right = sample["sides"]
    diagonal[number[0]] += 2
    b[number[0]] += 2 * left
    if variant == "as_stated":
        diagonal[number[-1]] += 2
        b[number[-1]] += 2 * right
    else:
        b[number[-1]] += right * h
    T = np.full((nx, ny), np.nan)
    T[solid] = spla.spsolve((sp.diags_array(diagonal) - A).tocsc(), b)
    nodes = problem.mesh.points
    away = (np.abs(nodes[:, 0]) > 0.1) & (np.abs(nodes[:, 0]) < 0.45)
    away &= np.abs(nodes[:, 1]) < 0.75
    halves = []
    for side in (-1, 1):
        chosen = away & (np.sign(nodes[:, 0]) == side)
        cut = np.sign(x) == side
        cut &= np.abs(x) > 0.06
        table = RegularGridInterpolator((x[cut], y), T[cut])
        halves.append((solution(problem, sample)[chosen], table(nodes[chosen])))
    found, reference = (np.concatenate(part) for part in zip(*halves, strict=True))
    assert len(found) > 1000
    assert np.abs(found - reference).max() < 0.01 * np.ptp(reference)


@pytest.mark.parametrize("variant", ["as_stated", "as_coded"])
def test_solutions_lie_in_a_space_of_dimension_two(variant):
    problem, rng = Thermal(mesh_size=0.1, variant=variant), np.random.default_rng(2)
    fields = [solution(problem, problem.sample(rng)) for _ in range(6)]
    values = np.linalg.svd(np.array(fields), compute_uv=False)
    assert values[1] > 1e-2 * values[0]
    assert values[2] < 1e-10 * values[0]


def test_equal_temperatures_give_a_constant():
    problem = Thermal(mesh_size=0.1)
    sample = problem.sample(np.random.default_rng(3))
    sample["sides"][:] = 7.0
    for nodes in problem.side_nodes:
        sample["boundary"][nodes] = 7.0
    np.testing.assert_allclose(solution(problem, sample), 7.0, rtol=1e-12)


def test_heat_that_leaves_on_the_right_enters_on_the_left():
    problem = Thermal(mesh_size=0.05, variant="as_coded")
    sample = problem.sample(np.random.default_rng(4))
    temperature = solution(problem, sample)
    reaction = problem._space.stiffness() @ temperature
    outflow = -sample["sides"][1] * 1.6  # the right side is 1.6 long
    assert outflow > 0
    assert reaction[problem.side_nodes[0]].sum() == pytest.approx(outflow)
    left = temperature[problem.side_nodes[0]]
    assert (left == sample["sides"][0]).all()
    assert temperature[problem.side_nodes[1]].max() < sample["sides"][0]


@pytest.mark.parametrize(
    ("variant", "limits"),
    [("as_stated", ((-100, 0), (0, 100))), ("as_coded", ((0, 100), (-100, 0)))],
)
def test_both_sides_are_uniform_in_their_ranges(variant, limits):
    problem, rng = Thermal(mesh_size=0.1, variant=variant), np.random.default_rng(5)
    sides = np.array([problem.sample(rng)["sides"] for _ in range(300)])
    for column, (low, high) in zip(sides.T, limits, strict=True):
        assert low <= column.min() < low + 3
        assert high - 3 < column.max() <= high
        assert column.mean() == pytest.approx((low + high) / 2, abs=6)


def test_all_samples_share_one_positive_definite_matrix():
    problem, rng = Thermal(mesh_size=0.1), np.random.default_rng(6)
    first, second = (problem.system(problem.sample(rng)) for _ in range(2))
    assert first.operator is second.operator
    A = first.to_csr().toarray()
    np.testing.assert_array_equal(A, A.T)
    np.linalg.cholesky(A)  # raises unless positive definite


@pytest.mark.parametrize(("mesh_size", "num"), [(0.03, 7821), (0.025, 11063)])
def test_sizes_are_close_to_the_published_ones(mesh_size, num):
    nodes = Thermal(mesh_size=mesh_size).coordinates["node"]
    assert len(nodes) == pytest.approx(num, rel=0.04)


def test_fields_and_description():
    problem = Thermal(mesh_size=0.1)
    sample = problem.sample(np.random.default_rng(7))
    fields = problem.fields_from_solution(sample, direct(problem.system(sample)))
    assert list(fields) == [spec.name for spec in problem.fields]
    x = problem.mesh.points[:, 0]
    low, high = fields["solution"][x == -0.5], fields["solution"][x == 0.5]
    assert low.tolist() == [sample["sides"][0]] * len(low)
    assert high.tolist() == [sample["sides"][1]] * len(high)
    np.testing.assert_array_equal(problem.features(sample), sample["sides"])
    detail = problem.boundaries[0].detail
    assert detail.startswith("left dirichlet, right dirichlet")
    assert "right neumann" in Thermal(variant="as_coded").boundaries[0].detail
    settings = json.loads(json.dumps(problem.settings))
    assert problems.create("thermal", **settings) == problem


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"variant": "coded"}, "variant is 'coded'; known: "),
        ({"mesh_size": 0.2}, "the width of the slot"),
        ({"mesh_size": -1.0}, "mesh_size is -1.0"),
    ],
)
def test_rejects_impossible_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        Thermal(**settings)
