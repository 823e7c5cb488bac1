import json

import numpy as np
import pytest
import skfem
import skfem.helpers
from exact import direct

from datagen import problems
from datagen.problems.composites_unstructured import CompositesUnstructured
from solvers.sequence import LinearSystem


def exact(shape, points):
    """p, -div grad p and the values a of u = p / a, with a kink on the inclusion.

    p vanishes on the boundary and on the interface of one inclusion in the middle, so
    that u and a du/dn are continuous there.
    """
    x, y = points.T
    if shape == "square":
        px, py = (np.polynomial.Polynomial.fromroots([0, 0.2, 0.8, 1]) for _ in "xy")
        return px(x) * py(y), -px.deriv(2)(x) * py(y) - px(x) * py.deriv(2)(y)
    r = (x - 0.5) ** 2 + (y - 0.5) ** 2 - 0.3**2
    gx, gy = x * (1 - x), y * (1 - y)
    # div grad (g r) = r div grad g + 2 grad g . grad r + g div grad r
    inner = (1 - 2 * x) * gy * (2 * x - 1) + gx * (1 - 2 * y) * (2 * y - 1)
    return gx * gy * r, -(r * -2 * (gx + gy) + 2 * inner + gx * gy * 4)


@pytest.mark.parametrize(
    ("shape", "degree", "order"),
    [("square", 1, 2), ("square", 2, 3), ("circle", 1, 2), ("circle", 2, 2)],
)
def test_order_with_a_kink_on_the_interface(shape, degree, order):
    """In L2. Circles are polygons of the mesh size, which limits them to order 2."""
    errors, sizes = [], (0.1, 0.05, 0.025)
    for mesh_size in sizes:
        problem = CompositesUnstructured(
            mesh_size=mesh_size, degree=degree, num_inclusions=1, shape=shape
        )
        sample = problem.sample(np.random.default_rng(0))
        space, A = problem._space, problem.system(sample).operator
        f = exact(shape, space.quadrature_points)[1]
        x = direct(LinearSystem(A, space.load(f)[problem._free]))
        u = problem.fields_from_solution(sample, x)["solution"]
        values = np.where(problem.mesh.regions == 1, 10 ** sample["log_contrasts"], 1.0)
        reference = exact(shape, space.quadrature_points)[0]
        gap = np.asarray(space.basis.interpolate(u)) * values[:, None]
        gap -= reference.reshape(gap.shape)
        errors.append(np.sqrt(np.sum((gap / values[:, None]) ** 2 * space.basis.dx)))
    slope = np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    assert slope == pytest.approx(order, abs=0.25)


@pytest.mark.parametrize("degree", [1, 2])
def test_system_is_the_one_scikit_fem_assembles(degree):
    problem = CompositesUnstructured(mesh_size=0.05, degree=degree, num_inclusions=2)
    sample = problem.sample(np.random.default_rng(1))
    system, free = problem.system(sample), problem._free
    values = np.concatenate([[1.0], 10 ** sample["log_contrasts"]])
    c = sample["source_center"]
    basis = problem._space.basis

    @skfem.BilinearForm
    def stiffness(u, v, w):
        return w["a"] * skfem.helpers.dot(u.grad, v.grad)

    @skfem.LinearForm
    def load(v, w):
        return np.exp(-((w.x[0] - c[0]) ** 2 + (w.x[1] - c[1]) ** 2) / 0.02) * v

    a = np.broadcast_to(values[problem.mesh.regions][:, None], basis.dx.shape)
    K = stiffness.assemble(basis, a=a)[free][:, free]
    assert abs(K - system.operator).max() < 1e-13 * abs(K).max()
    np.testing.assert_allclose(system.rhs, load.assemble(basis)[free], atol=1e-16)


@pytest.mark.parametrize("degree", [1, 2])
def test_matrices_are_spd_and_share_their_pattern(degree):
    problem = CompositesUnstructured(mesh_size=0.15, degree=degree, num_inclusions=1)
    rng = np.random.default_rng(2)
    first, second = (problem.system(problem.sample(rng)).operator for _ in range(2))
    assert np.shares_memory(first.indices, second.indices)
    assert np.shares_memory(first.indptr, second.indptr)
    assert not np.array_equal(first.data, second.data)
    assert first.has_canonical_format
    assert abs(first - first.T).max() == 0
    np.linalg.cholesky(first.toarray())  # raises unless positive definite


def test_few_small_eigenvalues_belong_to_the_inclusions():
    """After scaling by the diagonal: one per inclusion, far below the others."""
    problem = CompositesUnstructured(mesh_size=0.1, num_inclusions=2)
    sample = problem.sample(np.random.default_rng(3))
    A = problem.system(sample).operator.toarray()
    scale = 1 / np.sqrt(np.diag(A))
    values = np.linalg.eigvalsh(scale[:, None] * A * scale)
    assert values[4] > 5 * values[3]


def test_coefficients_belong_to_regions_and_interfaces_to_inclusions():
    problem = CompositesUnstructured(mesh_size=0.06, num_inclusions=2, degree=2)
    sample = problem.sample(np.random.default_rng(4))
    centers = np.array([[0.25, 0.25], [0.25, 0.75], [0.75, 0.25], [0.75, 0.75]])
    distance = np.linalg.norm(problem.mesh.points[:, None] - centers, axis=2)
    values = 10 ** sample["log_contrasts"]
    a = sample["coefficient"]
    for j in range(4):
        assert (a[distance[:, j] < 0.149] == values[j]).all()
        assert (a[np.abs(distance[:, j] - 0.15) < 1e-12] == values[j]).all()
    assert (a[distance.min(axis=1) > 0.1501] == 1).all()
    used = problem.mesh.regions
    assert np.bincount(used).tolist()[1:] == [np.sum(used == j + 1) for j in range(4)]


def test_draws_match_those_on_the_grid():
    grid = problems.create("composites", n=20).sample(np.random.default_rng(5))
    nodes = CompositesUnstructured(mesh_size=0.07).sample(np.random.default_rng(5))
    np.testing.assert_array_equal(grid["log_contrasts"], nodes["log_contrasts"])


def test_problem_describes_itself():
    problem = CompositesUnstructured(mesh_size=0.07, degree=2, source="constant")
    assert (problem.axes, problem.matrices) == (("node",), "spd")
    sample = problem.sample(np.random.default_rng(6))
    assert (sample["source"] == 1).all()
    np.testing.assert_array_equal(problem.features(sample), sample["log_contrasts"])
    fields = problem.fields_from_solution(sample, direct(problem.system(sample)))
    num = len(problem.mesh.points)
    assert {name: v.shape for name, v in fields.items()} == {
        spec.name: (num,) for spec in problem.fields
    }
    assert (fields["solution"][problem.mesh.boundary] == 0).all()
    assert problem.coordinates["node"].tolist() == list(range(num))
    assert "16 circle inclusions; P2" in problem.equation
    settings = json.loads(json.dumps(problem.settings))
    assert problems.create("composites_unstructured", **settings) == problem


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shape": "hexagon"}, "shape is 'hexagon'; known: "),
        ({"source": "point"}, "source is 'point'; known: "),
        ({"mesh_size": 0.07, "degree": 3}, "degree is 3; known: "),
        ({"mesh_size": 0.0}, "expected a positive number, at most"),
        ({"mesh_size": 0.1}, "at most the half-width of the inclusions"),
        ({"num_inclusions": 0}, "num_inclusions is 0"),
        ({"contrasts": (1.0,)}, "expected two positive numbers"),
    ],
)
def test_rejects_impossible_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        CompositesUnstructured(**settings)
