import importlib
import json

import numpy as np
import pytest
import skfem
import skfem.helpers
from exact import distance, factor
from exact import factored_solve as solve

from datagen import problems
from datagen.problems.convection_diffusion import (
    ConvectionDiffusion,
    convection_diffusion_operator,
)
from solvers.sequence import create


def solution(problem, sample):
    u = solve(problem.system(sample))
    return problem.fields_from_solution(sample, u)["solution"]


def tensor(shape, location):
    shift, gaps = (0.0, 1) if location == "nodes" else (0.5, 0)
    axes = ((np.arange(n) + shift) / (n - gaps) for n in shape)
    return np.meshgrid(*axes, indexing="ij")


def manufactured(shape, epsilon, scheme):
    """Error for u = sin(pi x) sin(2 pi y), psi = sin(x + 2 y) + x^2 y, through flow."""
    x, y = (t[1:-1, 1:-1] for t in tensor(shape, "nodes"))
    (sx, cx), (sy, cy) = ((np.sin(t), np.cos(t)) for t in (np.pi * x, 2 * np.pi * y))
    bx = 2 * np.cos(x + 2 * y) + x**2
    by = -np.cos(x + 2 * y) - 2 * x * y
    f = 5 * np.pi**2 * epsilon * sx * sy
    f += np.pi * bx * cx * sy + 2 * np.pi * by * sx * cy
    px, py = tensor([n - 1 for n in shape], "cells")
    psi = np.sin(px + 2 * py) + px**2 * py
    h = tuple(1 / (n - 1) for n in shape)
    A = convection_diffusion_operator(psi, epsilon, h, scheme).to_csr()
    return np.abs(factor(A).solve(f.ravel()) - (sx * sy).ravel()).max()


SHAPES = ((33, 49), (65, 97), (129, 193))


@pytest.mark.parametrize(
    ("scheme", "epsilon", "order", "atol"),
    [("upwind", 0.1, 1.0, 0.1), ("upwind", 0.01, 1.0, 0.2), ("central", 0.1, 2.0, 0.1)],
)
def test_schemes_have_their_orders(scheme, epsilon, order, atol):
    errors = [manufactured(shape, epsilon, scheme) for shape in SHAPES]
    orders = np.log2(np.divide(errors[:-1], errors[1:]))
    np.testing.assert_allclose(orders, order, atol=atol)


@pytest.mark.parametrize("scheme", ["upwind", "central"])
def test_operator_matches_fluxes_added_face_by_face(scheme):
    rng = np.random.default_rng(0)
    psi, epsilon, h = rng.standard_normal((5, 6)), 3.0, (0.2, 0.3)
    n1, n2 = 4, 5
    expected = np.zeros((n1, n2, n1, n2))
    for i in range(n1):
        for j in range(n2):
            for axis, step in ((0, -1), (0, 1), (1, -1), (1, 1)):
                # Flow out of the volume: psi at the left end minus the right end of
                # the face, seen in the direction of the flow, gives -+ d psi.
                if axis == 0:
                    k = i + (step > 0)
                    b = step * (psi[k, j + 1] - psi[k, j]) / h[1]
                else:
                    k = j + (step > 0)
                    b = -step * (psi[i + 1, k] - psi[i, k]) / h[0]
                there = (i + step, j) if axis == 0 else (i, j + step)
                share = 0.5 if scheme == "central" else float(b > 0)
                here_part = b * share / h[axis] + epsilon / h[axis] ** 2
                there_part = b * (1 - share) / h[axis] - epsilon / h[axis] ** 2
                expected[i, j, i, j] += here_part
                if 0 <= there[0] < n1 and 0 <= there[1] < n2:
                    expected[(i, j, *there)] += there_part
    A = convection_diffusion_operator(psi, epsilon, h, scheme).to_csr().toarray()
    np.testing.assert_allclose(A, expected.reshape(A.shape), atol=1e-12)


@pytest.mark.parametrize("family", ["grf", "low3"])
def test_upwind_matrix_is_an_m_matrix(family):
    """Off-diagonals <= 0, row and column sums >= 0, inverse >= 0."""
    problem = ConvectionDiffusion(n=21, family=family)
    assert problem.matrices == "general"
    A = problem.system(problem.sample(np.random.default_rng(1))).to_csr().toarray()
    assert (A - np.diag(np.diag(A)) <= 0).all()
    scale = np.abs(A).max()
    assert (A.sum(axis=1) > -1e-12 * scale).all()
    assert (A.sum(axis=0) > -1e-12 * scale).all()
    inner = A.sum(axis=1).reshape(19, 19)[1:-1, 1:-1]
    assert np.abs(inner).max() < 1e-12 * scale  # the discrete flow has no sources
    assert (np.linalg.inv(A) > 0).all()
    assert np.abs(A - A.T).max() > 0.1 * scale


def test_no_oscillations_at_any_peclet_number():
    """An indicator is transported within its bounds: the discrete maximum principle."""
    problem = ConvectionDiffusion(n=33, epsilon=1e-6)
    system = problem.system(problem.sample(np.random.default_rng(2)))
    u = solve(system)
    assert u.min() > 0
    opposite = ConvectionDiffusion(n=33, epsilon=1e-6, forcing=-2.0)
    sample = opposite.sample(np.random.default_rng(2))
    np.testing.assert_allclose(solve(opposite.system(sample)), -2 * u, rtol=1e-9)


def test_central_fluxes_agree_with_quadratic_finite_elements():
    """A second discretisation at Peclet number 50: biquadratic quadrilaterals."""
    problem = ConvectionDiffusion(
        n=129, epsilon=0.02, scheme="central", num_modes=3, forcing=2.0
    )
    sample = problem.sample(np.random.default_rng(3))
    waves = np.pi * np.arange(1, 4)

    def velocity(x):
        s, t = (np.sin(np.multiply.outer(waves, p)) for p in x)
        ds, dt = (
            np.cos(np.multiply.outer(waves, p)) * waves.reshape(-1, *[1] * np.ndim(p))
            for p in x
        )
        mix = "jk,j...,k...->..."
        modes = 2 * sample["modes"]
        return np.einsum(mix, modes, s, dt), -np.einsum(mix, modes, ds, t)

    @skfem.BilinearForm
    def form(u, v, w):
        bx, by = velocity(w.x)
        diffusion = 0.02 * skfem.helpers.dot(u.grad, v.grad)
        return diffusion + (bx * u.grad[0] + by * u.grad[1]) * v

    @skfem.LinearForm
    def load(v, _):
        return 2.0 * v

    mesh = skfem.MeshQuad.init_tensor(np.linspace(0, 1, 33), np.linspace(0, 1, 33))
    basis = skfem.Basis(mesh, skfem.ElementQuad2())
    system = skfem.condense(
        form.assemble(basis), load.assemble(basis), D=basis.get_dofs()
    )
    vertices = skfem.solve(*system)[basis.nodal_dofs[0]]
    i, j = np.rint(mesh.p * 128).astype(int)
    u = solution(problem, sample)
    assert distance(u[i, j], vertices) < 3e-3
    assert distance(u[j, i], vertices) > 0.1
    upwind = ConvectionDiffusion(n=129, epsilon=0.02, num_modes=3, forcing=2.0)
    first_order = distance(solution(upwind, sample)[i, j], vertices)
    assert 0.02 < first_order < 0.2


def test_upwind_converges_to_the_central_solution():
    sample, gaps = None, []
    for n in (33, 65, 129):
        upwind, central = (
            ConvectionDiffusion(n=n, epsilon=0.1, num_modes=4, scheme=scheme)
            for scheme in ("upwind", "central")
        )
        sample = upwind.sample(np.random.default_rng(4))
        gaps.append(distance(solution(upwind, sample), solution(central, sample)))
    np.testing.assert_allclose(np.log2(np.divide(gaps[:-1], gaps[1:])), 1.0, atol=0.1)


@pytest.mark.parametrize("offset", range(5))
def test_certificate_notices_one_wrong_coefficient(offset):
    problem = ConvectionDiffusion(n=33)
    system = problem.system(problem.sample(np.random.default_rng(5)))
    x = solve(system)
    assert system.relative_residual(x) < 1e-10
    system.operator.coefficients[0, 15, 15, offset] += 50.0
    assert system.relative_residual(x) > 1e-2


def test_velocity_is_the_curl_of_the_stream_function():
    problem = ConvectionDiffusion(n=257, num_modes=5)
    sample = problem.sample(np.random.default_rng(6))
    fields = problem.fields_from_solution(sample, np.ones((255, 255)))
    assert [spec.name for spec in problem.fields] == list(fields)
    psi, h = fields["stream_function"], 1 / 256
    bx, by = np.gradient(psi, h, axis=1), -np.gradient(psi, h, axis=0)
    inside = (slice(1, -1), slice(1, -1))
    assert distance(fields["velocity_x"][inside], bx[inside]) < 1e-3
    assert distance(fields["velocity_y"][inside], by[inside]) < 1e-3
    for wall in ((0,), (-1,)):
        assert np.abs(fields["velocity_x"][wall]).max() < 1e-12
        assert np.abs(fields["velocity_y"][:, wall[0]]).max() < 1e-12
    assert np.count_nonzero(fields["solution"]) == 255**2


def test_speed_has_root_mean_square_one():
    problem, rng = ConvectionDiffusion(n=129), np.random.default_rng(7)
    for _ in range(5):
        sample = problem.sample(rng)
        fields = problem.fields_from_solution(sample, np.zeros((127, 127)))
        speed = fields["velocity_x"] ** 2 + fields["velocity_y"] ** 2
        weights = np.ones(129)
        weights[[0, -1]] = 0.5
        assert weights @ speed @ weights / 128**2 == pytest.approx(1, rel=1e-6)


def test_amplitudes_follow_the_stated_law():
    """(1 + (0.25 pi |j|)^2)^-1.75: ratios of root mean squares over many draws."""
    problem, rng = ConvectionDiffusion(num_modes=6), np.random.default_rng(8)
    modes = np.stack([problem.sample(rng)["modes"] for _ in range(4000)])
    j = np.arange(1, 7.0)
    expected = (1 + (0.25 * np.pi) ** 2 * np.add.outer(j**2, j**2)) ** -1.75
    # Signs and sizes of high modes are untouched by the common scale of a draw.
    measured = np.median(np.abs(modes), axis=0) / 0.6745
    correlation = np.corrcoef(modes.reshape(4000, -1).T) - np.eye(36)
    assert np.abs(correlation).max() < 0.1
    ratio = measured / expected
    np.testing.assert_allclose(ratio[2:, 2:] / ratio[4, 4], 1.0, atol=0.12)


def test_low3_is_a_fixed_flow_with_three_small_parts():
    problem, rng = ConvectionDiffusion(n=33, family="low3"), np.random.default_rng(9)
    modes = np.stack([problem.sample(rng)["modes"] for _ in range(40)])
    base = problem._low3_modes[0]
    speeds = np.sqrt(problem._squares)
    assert np.linalg.norm(speeds * base) == pytest.approx(1)
    differences = (speeds * (modes - base)).reshape(40, -1)
    singular = np.linalg.svd(differences, compute_uv=False)
    assert singular[2] > 0.1
    assert singular[3] < 1e-12
    assert np.linalg.norm(differences, axis=1).max() < 0.1 * 3
    other = ConvectionDiffusion(n=65, family="low3")
    np.testing.assert_array_equal(base, other._low3_modes[0])


def test_low3_shares_the_matrix_of_the_fixed_flow():
    problem, rng = ConvectionDiffusion(n=33, family="low3"), np.random.default_rng(10)
    first, second = (problem.system(problem.sample(rng)) for _ in range(2))
    assert first.preconditioning_matrix is second.preconditioning_matrix
    assert first.preconditioning_matrix is problem.fixed_flow
    assert abs(problem.fixed_flow - first.to_csr()).max() > 0
    base = problem.system({"modes": problem._low3_modes[0]})
    assert abs(problem.fixed_flow - base.to_csr()).max() == 0
    assert problem.preconditioner == "lu"
    grf = ConvectionDiffusion(n=33)
    assert grf.system(grf.sample(rng)).preconditioning_matrix is None
    assert grf.preconditioner == "ilu"


@pytest.mark.parametrize("family", ["grf", "low3"])
def test_sample_depends_on_the_generator_alone_not_on_the_grid(family):
    coarse, fine, other = (
        ConvectionDiffusion(n=n, family=family).sample(np.random.default_rng(seed))
        for n, seed in ((33, 11), (65, 11), (65, 12))
    )
    np.testing.assert_array_equal(coarse["modes"], fine["modes"])
    assert not np.array_equal(fine["modes"], other["modes"])


def test_fewer_modes_truncate_the_series():
    few, many = (
        ConvectionDiffusion(num_modes=num).sample(np.random.default_rng(13))["modes"]
        for num in (8, 24)
    )
    ratio = many[:8, :8] / few
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-12)
    assert 0.95 < ratio[0, 0] < 1


def test_features_measure_the_distance_of_the_flows():
    problem = ConvectionDiffusion(n=65, num_modes=4)
    rng = np.random.default_rng(14)
    first, second = problem.sample(rng), problem.sample(rng)
    gap = np.linalg.norm(problem.features(first) - problem.features(second))
    fields = [
        problem.fields_from_solution(s, np.zeros((63, 63))) for s in (first, second)
    ]
    weights = np.full(65, 1 / 64)
    weights[[0, -1]] = 1 / 128
    squares = sum(
        weights @ (fields[0][name] - fields[1][name]) ** 2 @ weights
        for name in ("velocity_x", "velocity_y")
    )
    assert gap == pytest.approx(np.sqrt(squares), rel=1e-9)
    assert ConvectionDiffusion().features(ConvectionDiffusion().sample(rng)).size == 36


def test_problem_describes_itself():
    problem = problems.create("convection_diffusion", n=33)
    assert (problem.name, problem.num_systems) == ("convection_diffusion", 1)
    assert [(b.axis, b.bc_type, b.detail) for b in problem.boundaries] == [
        ("x", "WALL", "dirichlet:0"),
        ("y", "WALL", "dirichlet:0"),
    ]
    assert [f.name for f in problem.fields if f.time_varying] == ["solution"]
    assert problem.scalars["epsilon"] == 1e-3
    assert "upwind" in problem.equation
    np.testing.assert_allclose(problem.coordinates["x"], np.linspace(0, 1, 33))
    settings = json.loads(json.dumps(problem.settings))
    assert problems.create("convection_diffusion", **settings) == problem


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"family": "low4"}, r"family is 'low4'; known: \('grf', 'low3'\)"),
        ({"scheme": "supg"}, "scheme is 'supg'; known: "),
        ({"epsilon": 0.0}, "epsilon is 0.0; expected a number above 0"),
        ({"tau": -1.0}, "tau is -1.0"),
        ({"alpha": 1.0}, "alpha is 1.0; expected a number above 1"),
        ({"n": 2}, "n is 2; expected a whole number of at least 3"),
        ({"n": 9.5}, "n is 9.5"),
        ({"num_modes": 0}, "num_modes is 0"),
        ({"forcing": 0.0}, "forcing is 0.0; expected a nonzero number"),
        ({"forcing": float("nan")}, "forcing is nan"),
        ({"epsilom": 1.0}, "did you mean 'epsilon'"),
    ],
)
def test_rejects_impossible_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        problems.create("convection_diffusion", **settings)


def test_central_fluxes_are_refused_where_layers_are_not_resolved():
    assert ConvectionDiffusion(n=33, scheme="central").n == 33
    assert ConvectionDiffusion(n=101, epsilon=1e-4, scheme="central").n == 101
    with pytest.raises(ValueError, match=r"= 0\.01: set n to at least 101"):
        ConvectionDiffusion(n=100, epsilon=1e-4, scheme="central")


def test_central_matrix_is_diffusion_plus_a_skew_symmetric_one():
    """Hence x^T A x > 0 at every Peclet number: nonsingular."""
    problem = ConvectionDiffusion(n=33, scheme="central")
    A = problem.system(problem.sample(np.random.default_rng(15))).to_csr()
    diffusion = convection_diffusion_operator(
        np.zeros((32, 32)), 1e-3, (1 / 32, 1 / 32), "central"
    ).to_csr()
    gap = abs((A + A.T) / 2 - diffusion).max()
    assert gap < 1e-13 * abs(A).max()
    assert abs(A - A.T).max() > 10 * abs(diffusion).max()  # high Peclet numbers


def test_central_fluxes_are_accurate_at_high_peclet_numbers():
    """Cell Peclet numbers up to 40: second order, u >= 0; upwind is 50 % off."""
    solutions = {}
    for n, scheme in ((65, "central"), (65, "upwind"), (129, "central")):
        problem = ConvectionDiffusion(n=n, scheme=scheme)
        sample = problem.sample(np.random.default_rng(16))
        u = solution(problem, sample)
        assert u.min() >= 0
        solutions[n, scheme] = u[:: (n - 1) // 64, :: (n - 1) // 64]
    reference = solutions[129, "central"]
    assert distance(solutions[65, "central"], reference) < 0.02
    assert distance(solutions[65, "upwind"], reference) > 0.3


@pytest.mark.parametrize("modes", [np.zeros((32, 31)), np.full((32, 32), np.inf)])
def test_rejects_modes_that_do_not_fit(modes):
    with pytest.raises(ValueError, match=r"modes must be finite, of shape \(32, 32\)"):
        ConvectionDiffusion(n=9).system({"modes": modes})


def test_rejects_unknown_schemes():
    with pytest.raises(ValueError, match="scheme is 'supg'"):
        convection_diffusion_operator(np.zeros((4, 4)), 1.0, (0.25, 0.25), "supg")


@pytest.mark.parametrize("variant", ["full", "small", "quick"])
def test_config_describes_the_problem(variant):
    module = importlib.import_module("configs.data.convection_diffusion")
    config = module.get_config(variant)
    problem = problems.create(**config.problem.to_dict())
    assert config.name == problem.name == "convection_diffusion"
    assert problem.epsilon == 1e-3


def test_quick_sample_is_solved_by_the_named_method():
    module = importlib.import_module("configs.data.convection_diffusion")
    config = module.get_config("quick")
    problem = problems.create(**config.problem.to_dict())
    system = problem.system(problem.sample(np.random.default_rng(config.seed)))
    solver = create(config.solver.method)
    x, record = solver.solve(system, rtol=config.solver.rtol)
    solver.close()
    assert record.converged
    assert distance(x, solve(system)) < 1e-6
