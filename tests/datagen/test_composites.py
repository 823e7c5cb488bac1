import json

import numpy as np
import pytest
import skfem
from exact import direct

from datagen import problems
from datagen.problems.composites import Composites
from datagen.problems.composites_unstructured import CompositesUnstructured
from solvers.diffusion import cell_diffusion
from solvers.sequence import LinearSystem


def orders(errors, ratio=2.0):
    return np.log(np.divide(errors[:-1], errors[1:])) / np.log(ratio)


def cells(shape):
    return np.meshgrid(*((np.arange(n) + 0.5) / n for n in shape), indexing="ij")


def smooth(shape):
    """u = prod sin(pi k_j x_j), a = 2 + x + y^2 (+ z), f = -div(a grad u), in cells."""
    x, k = cells(shape), np.pi * np.arange(1, len(shape) + 1)
    sines = [np.sin(kj * xj) for kj, xj in zip(k, x, strict=True)]
    u = np.prod(sines, axis=0)
    slopes = [
        kj * np.cos(kj * xj) * np.prod(sines[:j] + sines[j + 1 :], axis=0)
        for j, (kj, xj) in enumerate(zip(k, x, strict=True))
    ]
    a = 2 + x[0] + x[1] ** 2 + (x[2] if len(shape) == 3 else 0)
    f = (k**2).sum() * a * u - slopes[0] - 2 * x[1] * slopes[1]
    return a, f - (slopes[2] if len(shape) == 3 else 0), u


def kinked(x, y):
    """p = 0 on the sides of the square and of (0.2, 0.8)^2, and -div grad p.

    With a constant on each side of the inner square u = p / a is continuous, and so is
    a du/dn: div(a grad u) = div grad p exactly.
    """
    px, py = (np.polynomial.Polynomial.fromroots([0, 0.2, 0.8, 1]) for _ in "xy")
    p = 100 * px(x) * py(y)
    return p, -100 * (px.deriv(2)(x) * py(y) + px(x) * py.deriv(2)(y))


@pytest.mark.parametrize(("walls", "order"), [("half_cells", 2), ("ghost_row", 1)])
@pytest.mark.parametrize("shapes", [((32, 48), (64, 96)), ((12, 13, 14), (24, 26, 28))])
def test_order_for_smooth_coefficients(shapes, walls, order):
    errors = []
    for shape in shapes:
        a, f, u = smooth(shape)
        operator = cell_diffusion(a, [1 / n for n in shape], walls)
        error = direct(LinearSystem(operator, f)) - u
        errors.append(np.sqrt(np.mean(error**2)))
    np.testing.assert_allclose(orders(errors), order, atol=0.1)


def test_second_order_across_interfaces_on_cell_faces():
    errors = []
    for n in (20, 40, 80):
        problem = Composites(n=n, num_inclusions=1, contrasts=(1e3, 1e3))
        a = problem.sample(np.random.default_rng(0))["coefficient"]
        p, f = kinked(*cells((n, n)))
        system = problem.system({"coefficient": a, "source": f})
        errors.append(np.linalg.norm(direct(system) - p / a) / n)
    np.testing.assert_allclose(orders(errors), 2.0, atol=0.05)


@pytest.mark.parametrize("walls", ["half_cells", "ghost_row"])
def test_operator_matches_a_matrix_built_entry_by_entry(walls):
    shape, h = (3, 4, 2), (0.5, 0.2, 0.3)
    a = np.random.default_rng(1).uniform(1, 9, shape)
    expected = np.zeros((24, 24))
    for here in np.ndindex(shape):
        row = np.ravel_multi_index(here, shape)
        for axis in range(3):
            for step in (-1, 1):
                there = tuple(i + step * (j == axis) for j, i in enumerate(here))
                if 0 <= there[axis] < shape[axis]:
                    link = 2 / (1 / a[here] + 1 / a[there]) / h[axis] ** 2
                    expected[row, np.ravel_multi_index(there, shape)] -= link
                else:
                    link = a[here] / h[axis] ** 2 * (2 if walls == "half_cells" else 1)
                expected[row, row] += link
    A = cell_diffusion(a, h, walls).to_csr().toarray()
    np.testing.assert_allclose(A, expected, rtol=1e-14)
    np.testing.assert_array_equal(A, A.T)
    assert np.linalg.eigvalsh(A).min() > 0


def test_solution_agrees_with_finite_elements_on_triangles():
    """Square inclusions on faces and on edges; corners leave an error of about 1 %."""
    grid = Composites(n=120, num_inclusions=2, contrasts=(1e2, 1e3))
    triangles = CompositesUnstructured(
        mesh_size=0.02, degree=2, num_inclusions=2, contrasts=(1e2, 1e3), shape="square"
    )
    fields = []
    for problem in (grid, triangles):
        sample = problem.sample(np.random.default_rng(2))
        x = direct(problem.system(sample))
        fields.append(problem.fields_from_solution(sample, x)["solution"])
    space = triangles._space.basis
    points = np.stack([v[4::10, 4::10].ravel() for v in cells(grid.n)])
    reference = space.probes(points) @ fields[1]
    u = fields[0][4::10, 4::10].ravel()
    gap = np.linalg.norm(u - reference) / np.linalg.norm(reference)
    assert gap < 0.01
    linear = skfem.Basis(space.mesh, skfem.ElementTriP1())
    assert linear.N < space.N  # the reference is quadratic


def test_inclusions_are_where_they_should_be():
    problem = Composites(n=(30, 40), num_inclusions=2, layout="jittered")
    sample = problem.sample(np.random.default_rng(3))
    x, y = cells(problem.n)
    expected = np.ones(problem.n)
    for (cx, cy), w, log in zip(
        sample["centers"], sample["half_widths"], sample["log_contrasts"], strict=True
    ):
        expected[(abs(x - cx) < w) & (abs(y - cy) < w)] = 10**log
    np.testing.assert_allclose(sample["coefficient"], expected, rtol=1e-14)
    assert len(np.unique(expected)) == 5
    peak = np.unravel_index(sample["source"].argmax(), problem.n)
    fx, fy = x[peak], y[peak]
    assert 0.15 < min(fx, fy) < max(fx, fy) < 0.85


def test_layouts_share_contrasts_and_source_and_move_as_stated():
    fixed, jittered, scaled = (
        Composites(n=64, layout=layout).sample(np.random.default_rng(4))
        for layout in ("fixed", "jittered", "scaled")
    )
    for sample in (jittered, scaled):
        np.testing.assert_array_equal(sample["log_contrasts"], fixed["log_contrasts"])
        np.testing.assert_array_equal(sample["source"], fixed["source"])
        assert (sample["coefficient"] != fixed["coefficient"]).any()
    shift = (jittered["centers"] - fixed["centers"]) * 4
    assert 0.05 < np.abs(shift).max() <= 0.1
    scale = scaled["half_widths"] / fixed["half_widths"]
    assert 0.8 <= scale.min() < 0.9 < 1.1 < scale.max() <= 1.2
    np.testing.assert_array_equal(scaled["centers"], fixed["centers"])


def test_contrasts_fill_their_range_in_logarithms():
    problem, rng = Composites(n=16, num_dims=2), np.random.default_rng(5)
    logs = np.concatenate([problem.sample(rng)["log_contrasts"] for _ in range(100)])
    assert 2 <= logs.min() < 2.01 < 3.99 < logs.max() <= 4
    assert logs.mean() == pytest.approx(3, abs=0.06)


@pytest.mark.parametrize(
    ("layout", "num"), [("fixed", 8), ("jittered", 8 + 24), ("scaled", 8 + 8)]
)
def test_features_are_what_the_matrix_depends_on(layout, num):
    problem = Composites(n=8, num_dims=3, num_inclusions=2, layout=layout)
    first, second = (problem.sample(np.random.default_rng(6)) for _ in range(2))
    second["source"] = first["source"] * 2
    assert problem.features(first).shape == (num,)
    np.testing.assert_array_equal(problem.features(first), problem.features(second))
    np.testing.assert_array_equal(problem.features(first)[:8], first["log_contrasts"])


def test_problem_describes_itself():
    flat, cube = Composites(n=32), Composites(n=12, num_dims=3)
    assert (flat.axes, cube.axes) == (("x", "y"), ("x", "y", "z"))
    assert (flat.matrices, flat.num_systems, flat.mesh) == ("spd", 1, None)
    assert [b.axis for b in cube.boundaries] == ["x", "y", "z"]
    np.testing.assert_allclose(cube.coordinates["z"], (np.arange(12) + 0.5) / 12)
    assert "64 inclusions" in cube.equation
    fields = cube.fields_from_solution(
        sample := cube.sample(np.random.default_rng(7)), np.ones(cube.n)
    )
    assert list(fields) == [spec.name for spec in cube.fields]
    assert cube.system(sample).rhs.shape == cube.n
    constant = Composites(n=32, source="constant").sample(np.random.default_rng(7))
    assert (constant["source"] == 1).all()


def test_settings_make_the_problem_again():
    problem = Composites(n=(33, 35), contrasts=(5, 7), layout="scaled")
    settings = json.loads(json.dumps(problem.settings))
    assert problems.create("composites", **settings) == problem


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layout": "random"}, "layout is 'random'; known: "),
        ({"source": "point"}, "source is 'point'; known: "),
        ({"walls": "open"}, "walls is 'open'; known: "),
        ({"n": 32, "num_dims": 4}, "num_dims is 4; expected"),
        ({"n": (32,)}, r"n is \(32,\)"),
        ({"n": 32.5}, "n is 32.5"),
        ({"n": 11}, "need at least 12 cells"),
        ({"num_inclusions": 0}, "num_inclusions is 0; expected 1"),
        ({"contrasts": (0.0, 1.0)}, "expected two positive numbers"),
        ({"contrasts": (2.0, 1.0)}, "the smaller one first"),
        ({"contrast": (1.0, 2.0)}, "did you mean 'contrasts'"),
    ],
)
def test_rejects_impossible_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        problems.create("composites", **settings)


def test_rejects_coefficients_that_are_not_positive():
    problem = Composites(n=12)
    sample = problem.sample(np.random.default_rng(8))
    sample["coefficient"][3, 4] = np.nan
    with pytest.raises(ValueError, match="must be positive and finite"):
        problem.system(sample)
