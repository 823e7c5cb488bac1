import json

import numpy as np
import pytest
from exact import direct, solution
from numpy.polynomial import chebyshev
from scipy.interpolate import RegularGridInterpolator

from datagen import problems
from datagen.problems.poisson import SIDES, Poisson, join_corners
from solvers.diffusion import diffusion_operator
from solvers.sequence import LinearSystem


def polynomial(x, y):
    """A polynomial of degree 5 and its Laplacian."""
    u = x**3 * y**2 - 2 * x * y**4 + x**5 - y
    return u, 6 * x * y**2 + 2 * x**3 - 24 * x * y**2 + 20 * x**3


def test_third_order_through_the_series():
    """f and the traces of a polynomial are series of degree 5: u is the polynomial."""
    errors, sizes = [], (0.1, 0.05, 0.025)
    t = (np.cos(np.pi * (np.arange(6) + 0.5) / 6) + 1) / 2  # interpolation is exact
    inverse = np.linalg.inv(chebyshev.chebvander(2 * t - 1, 5))
    for mesh_size in sizes:
        problem = Poisson(mesh_size=mesh_size)
        x, y = np.meshgrid(t, t, indexing="ij")
        modes = inverse @ polynomial(x, y)[1] @ inverse.T
        i, j = problem.source_degrees.T
        traces = {
            "bottom": polynomial(t, 0 * t)[0],
            "right": polynomial(1 + 0 * t, t)[0],
            "top": polynomial(t, 1 + 0 * t)[0],
            "left": polynomial(0 * t, t)[0],
        }
        boundary = np.zeros(len(problem.mesh.points))
        edge = problem.mesh.boundary
        boundary[edge] = polynomial(*problem.mesh.points[edge].T)[0]
        for side, (nodes, table) in problem._sides.items():
            expected = table @ (inverse @ traces[side])
            np.testing.assert_allclose(expected, boundary[nodes], atol=1e-12)
        sample = {"source_modes": modes[i, j], "boundary": boundary, "source": None}
        space = problem._space
        u = np.asarray(space.basis.interpolate(solution(problem, sample)))
        exact = polynomial(*space.quadrature_points.T)[0].reshape(u.shape)
        errors.append(np.sqrt(np.sum((u - exact) ** 2 * space.basis.dx)))
    slope = np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    assert slope == pytest.approx(3, abs=0.15)


@pytest.mark.parametrize("variant", ["as_stated", "as_coded"])
def test_solution_agrees_with_five_point_differences(variant):
    problem = Poisson(mesh_size=0.05, variant=variant)
    sample = problem.sample(np.random.default_rng(0))
    n = 65
    t = np.linspace(0, 1, n)
    x, y = (v.ravel() for v in np.meshgrid(t, t, indexing="ij"))
    i, j = problem.source_degrees.T
    argument = (lambda s: s) if variant == "as_coded" else (lambda s: 2 * s - 1)
    tables = [chebyshev.chebvander(argument(v), 5) for v in (x, y)]
    f = ((tables[0][:, i] * tables[1][:, j]) @ sample["source_modes"]).reshape(n, n)
    g = np.zeros((n, n))
    values = {
        side: chebyshev.chebval(argument(t), modes)
        for side, modes in zip(SIDES, sample["trace_modes"], strict=True)
    }
    if variant == "as_coded":  # functions of x, constant on the vertical sides
        values["left"], values["right"] = values["left"][0], values["right"][-1]
    g[0], g[-1] = values["left"], values["right"]
    g[:, 0], g[:, -1] = values["bottom"], values["top"]
    b = -f[1:-1, 1:-1]
    b[0] += g[0, 1:-1] * (n - 1) ** 2
    b[-1] += g[-1, 1:-1] * (n - 1) ** 2
    b[:, 0] += g[1:-1, 0] * (n - 1) ** 2
    b[:, -1] += g[1:-1, -1] * (n - 1) ** 2
    operator = diffusion_operator(np.ones((n, n)), (1 / (n - 1),) * 2)
    u = g.copy()
    u[1:-1, 1:-1] = direct(LinearSystem(operator, b))
    nodes = problem.mesh.points
    away = (np.minimum(nodes, 1 - nodes).max(axis=1) > 0.15) | (variant == "as_stated")
    found = solution(problem, sample)[away]
    reference = RegularGridInterpolator((t, t), u, method="cubic")(nodes[away])
    gap = np.linalg.norm(found - reference) / np.linalg.norm(reference)
    assert gap < (2e-3 if variant == "as_stated" else 2e-2)  # jumps at the corners


def test_traces_meet_at_the_corners_and_stay_series():
    modes = np.random.default_rng(1).uniform(-1, 1, (4, 6))
    joined = join_corners(modes)
    ends = chebyshev.chebval(np.array([-1.0, 1.0]), joined.T)  # [4, (start, end)]
    bottom, right, top, left = ends
    np.testing.assert_allclose(
        [bottom[0], bottom[1], top[0], top[1]],
        [left[0], right[0], left[1], right[1]],
        atol=1e-14,
    )
    before = chebyshev.chebval(np.array([-1.0, 1.0]), modes.T)
    assert bottom[0] == pytest.approx((before[0, 0] + before[3, 0]) / 2)
    np.testing.assert_array_equal(joined[:, 2:], modes[:, 2:])
    np.testing.assert_allclose(join_corners(joined), joined, atol=1e-15)


def test_series_have_independent_uniform_coefficients():
    problem, rng = Poisson(mesh_size=0.3), np.random.default_rng(2)
    samples = [problem.sample(rng) for _ in range(300)]
    modes = np.array([s["source_modes"] for s in samples])
    assert modes.shape == (300, 21)
    assert -1 < modes.min() < -0.99 < 0.99 < modes.max() < 1
    assert modes.var() == pytest.approx(1 / 3, rel=0.05)
    traces = np.array([s["trace_modes"][:, 2:] for s in samples])
    assert traces.var() == pytest.approx(1 / 3, rel=0.05)
    assert np.abs(np.corrcoef(modes.T) - np.eye(21)).max() < 0.25


def test_coded_variant_has_functions_of_x_alone():
    problem = Poisson(mesh_size=0.1, variant="as_coded")
    sample = problem.sample(np.random.default_rng(3))
    x, y = problem.mesh.points.T
    assert sample["source_modes"].shape == (6,)
    np.testing.assert_allclose(
        sample["source"], chebyshev.chebval(x, sample["source_modes"]), atol=1e-14
    )
    sides = [np.ptp(sample["boundary"][(x == s) & (y > 0) & (y < 1)]) for s in (0, 1)]
    assert sides == [0, 0]
    top = np.flatnonzero(y == 1)
    np.testing.assert_allclose(
        sample["boundary"][top],
        chebyshev.chebval(x[top], sample["trace_modes"][SIDES.index("top")]),
        atol=1e-14,
    )


def test_all_samples_share_one_positive_definite_matrix():
    problem, rng = Poisson(mesh_size=0.15), np.random.default_rng(4)
    first, second = (problem.system(problem.sample(rng)) for _ in range(2))
    assert first.operator is second.operator
    assert not np.array_equal(first.rhs, second.rhs)
    A = first.to_csr().toarray()
    np.testing.assert_array_equal(A, A.T)
    np.linalg.cholesky(A)  # raises unless positive definite


def test_fields_and_description():
    problem = Poisson(mesh_size=0.2)
    sample = problem.sample(np.random.default_rng(5))
    fields = problem.fields_from_solution(sample, direct(problem.system(sample)))
    assert list(fields) == [spec.name for spec in problem.fields]
    assert all(v.shape == (len(problem.mesh.points),) for v in fields.values())
    edge = problem.mesh.boundary
    np.testing.assert_array_equal(fields["solution"][edge], fields["boundary"][edge])
    inner = np.setdiff1d(np.arange(len(problem.mesh.points)), edge)
    assert (fields["boundary"][inner] == 0).all()
    assert problem.features(sample).shape == (21 + 24,)
    assert problem.boundaries[0].axis == "node"
    settings = json.loads(json.dumps(problem.settings))
    assert problems.create("poisson", **settings) == problem


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"variant": "as_said"}, "variant is 'as_said'; known: "),
        ({"series_degree": 0}, "series_degree is 0"),
        ({"mesh_size": 0.0}, "mesh_size is 0.0"),
        ({"mesh_size": 0.6}, "mesh_size is 0.6"),
    ],
)
def test_rejects_impossible_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        Poisson(**settings)
