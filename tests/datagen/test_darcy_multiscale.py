import importlib
import itertools

import numpy as np
import pytest
import skfem
import skfem.helpers

from datagen import problems
from datagen.problems.darcy_multiscale import DarcyMultiscale
from solvers.sequence import create
from solvers.stencils import FIVE_POINT


def formula(w, x1, x2):
    a = np.ones(np.broadcast_shapes(np.shape(x1), np.shape(x2)))
    for w_k in w:
        a = a * (1 + np.cos(w_k * np.pi * (x1 + x2)) / 2)
        a = a * (1 + np.sin(w_k * np.pi * (x2 - 3 * x1)) / 2)
    return a


def solution(problem, seed=0):
    sample = problem.sample(np.random.default_rng(seed))
    system = problem.system(sample)
    x, record = create("direct").solve(system, rtol=1e-10)
    assert record.converged
    return problem.fields_from_solution(sample, x)["solution"]


def test_original_coefficient_at_points_known_in_closed_form():
    problem = DarcyMultiscale(n=9, coefficient="original", num_scales=2)
    sample = problem.sample(np.random.default_rng(0))
    assert sample["frequencies"].tolist() == [2.0, 4.0]
    a = sample["coefficient"]
    # All cosines are 1 and all sines 0 at whole x; at (1/4, 0) the cosines are 0 and
    # -1 and the sines of -3/2 pi and -3 pi are 1 and 0; at (0, 1/4): 0, -1 and 1, 0.
    assert a[4, 4] == pytest.approx(1.5**2)
    assert a[0, 8] == pytest.approx(1.5**2)
    assert a[5, 4] == pytest.approx(1.0 * 0.5 * 1.5 * 1.0)
    assert a[4, 3] == pytest.approx(1.0 * 0.5 * 0.5 * 1.0)


@pytest.mark.parametrize("elements", ["triangles", "squares"])
def test_coefficient_is_the_formula_at_nodes_and_centres(elements):
    problem = DarcyMultiscale(n=17, elements=elements)
    sample = problem.sample(np.random.default_rng(1))
    w, h = sample["frequencies"], 2 / 16
    x1, x2 = np.meshgrid(*problem.coordinates.values(), indexing="ij")
    np.testing.assert_allclose(sample["coefficient"], formula(w, x1, x2), rtol=1e-10)
    shifts = {"triangles": (2 / 3, 1 / 3), "squares": (1 / 2, 1 / 2)}[elements]
    x1, x2 = x1[:-1, :-1], x2[:-1, :-1]
    below, above = problem._element_values(w)
    expected = formula(w, x1 + shifts[0] * h, x2 + shifts[1] * h)
    np.testing.assert_allclose(below, expected, rtol=1e-10)
    expected = formula(w, x1 + shifts[1] * h, x2 + shifts[0] * h)
    np.testing.assert_allclose(above, expected, rtol=1e-10)


@pytest.mark.parametrize("elements", ["triangles", "squares"])
def test_matrix_is_that_of_linear_finite_elements(elements):
    problem = DarcyMultiscale(n=8, elements=elements, forcing=2.5)
    sample = problem.sample(np.random.default_rng(2))
    x = np.linspace(-1, 1, 8)
    i, j = (k.ravel() for k in np.indices((7, 7)))
    corners = [i * 8 + j, (i + 1) * 8 + j, (i + 1) * 8 + j + 1, i * 8 + j + 1]
    below, above = corners[:3], [corners[0], *corners[2:]]
    points = np.stack([k.ravel() for k in np.meshgrid(x, x, indexing="ij")])
    mesh = skfem.MeshTri(points, np.concatenate([below, above], axis=1))
    centres = points[:, mesh.t].mean(axis=1)
    if elements == "squares":
        squares = points[:, np.array(corners)].mean(axis=1)
        centres = np.concatenate([squares, squares], axis=1)
    a = formula(sample["frequencies"], *centres)

    @skfem.BilinearForm
    def stiffness(u, v, w):
        return a[:, None] * skfem.helpers.dot(u.grad, v.grad)

    @skfem.LinearForm
    def load(v, _):
        return 2.5 * v

    basis = skfem.Basis(mesh, skfem.ElementTriP1())
    inside = np.abs(points).max(axis=0) < 1 - 1e-12
    A = stiffness.assemble(basis)[np.ix_(inside, inside)].toarray()
    b = load.assemble(basis)[inside]
    system, area = problem.system(sample), (2 / 7) ** 2
    ours = area * system.to_csr().toarray()
    np.testing.assert_allclose(ours, A, atol=1e-13 * np.abs(A).max())
    np.testing.assert_allclose(area * system.rhs.ravel(), b, rtol=1e-12)


def test_operator_is_a_symmetric_positive_definite_star():
    problem = DarcyMultiscale(n=9)
    operator = problem.system(problem.sample(np.random.default_rng(3))).operator
    assert set(operator.offsets) == set(FIVE_POINT)
    A = operator.to_csr().toarray()
    np.testing.assert_array_equal(A, A.T)
    assert np.linalg.eigvalsh(A).min() > 0
    assert problem.matrices == "spd"


@pytest.mark.parametrize("elements", ["triangles", "squares"])
def test_second_order_where_the_coefficient_is_resolved(elements):
    settings = {"coefficient": "original", "num_scales": 1, "elements": elements}
    grids = [solution(DarcyMultiscale(n=n, **settings)) for n in (33, 65, 129, 257)]
    steps = [
        np.linalg.norm(coarse - fine[::2, ::2]) / np.linalg.norm(coarse)
        for coarse, fine in itertools.pairwise(grids)
    ]
    orders = np.log2(np.divide(steps[:-1], steps[1:]))
    np.testing.assert_allclose(orders[-1], 2.0, atol=0.1)


def test_randomised_frequencies_and_bounds():
    problem = DarcyMultiscale(n=65)
    low = 2.0 ** np.arange(6)
    drawn = []
    for seed in range(200):
        sample = problem.sample(np.random.default_rng(seed))
        drawn.append(sample["frequencies"])
        a = sample["coefficient"]
        assert 0.5**12 <= a.min() < a.max() <= 1.5**12
        features = problem.features(sample)
        np.testing.assert_allclose(features, drawn[-1] / (0.5 * low) - 2, atol=1e-12)
    drawn = np.array(drawn) / low
    assert (drawn >= 1).all()
    assert (drawn <= 1.5).all()
    np.testing.assert_allclose(drawn.mean(axis=0), 1.25, atol=0.04)
    np.testing.assert_allclose(drawn.std(axis=0), 0.5 / np.sqrt(12), atol=0.02)


def test_contrast_of_full_size_fields():
    """Expected: 2e4 to 1e5, mean 1.05 (six draws of the formula on 1023^2 points)."""
    problem = DarcyMultiscale()
    for seed in range(3):
        a = problem.sample(np.random.default_rng(seed))["coefficient"]
        assert 1e4 < a.max() / a.min() < 2e5
        assert a.mean() == pytest.approx(1.05, abs=0.05)


def test_coarsened_problem_has_the_same_coefficient_on_every_second_node():
    fine = DarcyMultiscale(n=33, elements="squares", forcing=3.0)
    coarse = fine.coarsened()
    assert (coarse.n, coarse.elements, coarse.forcing) == (17, "squares", 3.0)
    a, b = (p.sample(np.random.default_rng(5))["coefficient"] for p in (fine, coarse))
    np.testing.assert_allclose(a[::2, ::2], b, rtol=1e-10)
    assert DarcyMultiscale(n=32).coarsened() is None
    assert DarcyMultiscale(n=3).coarsened() is None


@pytest.mark.parametrize("variant", ["full", "small", "quick"])
def test_config_describes_the_problem(variant):
    module = importlib.import_module("configs.data.darcy_multiscale")
    config = module.get_config(variant)
    problem = problems.create(**config.problem.to_dict())
    n = {"full": 1025, "small": 257, "quick": 33}[variant]
    assert len(problem.coordinates["x"]) == n
    assert (n - 1) % 4 == 0  # the models' stride
    assert problem.scalars == {"num_scales": 6.0, "forcing": 1.0}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n": 2}, "n is 2; expected one whole number, at least 3"),
        ({"n": (9, 9)}, r"n is \(9, 9\); expected one whole number"),
        ({"coefficient": "smooth"}, "coefficient is 'smooth'; known"),
        ({"elements": "nodes"}, "elements is 'nodes'; known"),
        ({"num_scales": 0}, "num_scales is 0; expected a whole number"),
        ({"forcing": 0.0}, "forcing is 0.0; expected a nonzero number"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        DarcyMultiscale(**settings)


def test_other_samples_are_refused():
    problem = DarcyMultiscale(n=9)
    with pytest.raises(ValueError, match="expected 6 finite numbers"):
        problem.system({"frequencies": np.ones(5)})
