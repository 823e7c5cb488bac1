import importlib
import json

import numpy as np
import pytest
import scipy.sparse.linalg as spla
import scipy.special
import skfem
import skfem.helpers
from exact import distance

from datagen import problems
from datagen.problems.helmholtz import (
    LOW4_MODES,
    PEAK,
    Helmholtz,
    helmholtz_operator,
    node_weights,
)
from datagen.random_fields import cosine_series
from solvers.sequence import create

SMALL = {"n": 65, "wavelengths": 4.0}


def solve(system):
    settings = {"permc_spec": "MMD_AT_PLUS_A", "options": {"SymmetricMode": True}}
    factor = spla.splu(system.to_csr().tocsc(), diag_pivot_thresh=0.01, **settings)
    return factor.solve(system.rhs.ravel()).reshape(system.rhs.shape)


def manufactured(shape):
    """u = exp(i (3 x + 2 y)) + x^2 y, k = 5 + x + y^2: k, f, u, du/dn - i k u."""
    x, y = np.meshgrid(*(np.linspace(0, 1, n) for n in shape), indexing="ij")
    wave, k = np.exp(1j * (3 * x + 2 * y)), 5 + x + y**2
    u = wave + x**2 * y
    f = 13 * wave - 2 * y - k**2 * u
    ux, uy = 3j * wave + 2 * x * y, 2j * wave + x**2
    normal = [[-ux[0], ux[-1]], [-uy[:, 0], uy[:, -1]]]
    walls = [[(0,), (-1,)], [(slice(None), 0), (slice(None), -1)]]
    data = [
        [d - 1j * k[w] * u[w] for d, w in zip(*pair, strict=True)]
        for pair in zip(normal, walls, strict=True)
    ]
    return k, f, u, data


def test_discretisation_is_second_order_up_to_the_corners():
    errors = []
    for shape in ((17, 25), (33, 49), (65, 97)):
        k, f, u, data = manufactured(shape)
        h1, h2 = (1 / (n - 1) for n in shape)
        w1, w2 = (node_weights((n, 3))[:, 1] for n in shape)
        b = node_weights(shape) * f
        for end in (0, 1):
            b[-end] += data[0][end] * w2 / h1
            b[:, -end] += data[1][end] * w1 / h2
        A = helmholtz_operator(k, (h1, h2)).to_csr().tocsc()
        x = spla.splu(A, permc_spec="MMD_AT_PLUS_A").solve(b.ravel())
        errors.append(np.abs(x - u.ravel()).max())
    orders = np.log2(np.divide(errors[:-1], errors[1:]))
    np.testing.assert_allclose(orders, 2.0, atol=0.1)


def test_operator_matches_a_matrix_built_with_ghost_nodes():
    """Every row of the five-point scheme, ghosts u_in + 2 i h k u, times its weight."""
    rng = np.random.default_rng(0)
    k, h, damping = rng.uniform(1, 9, (4, 5)), (0.2, 0.3), 0.7
    n1, n2 = k.shape
    expected = np.zeros((n1, n2, n1, n2), complex)
    for i in range(n1):
        for j in range(n2):
            row, weight = expected[i, j], 1.0
            row[i, j] = -(1 + 0.7j) * k[i, j] ** 2
            for axis, n in enumerate((n1, n2)):
                place = (i, j)[axis]
                weight *= 0.5 if place in (0, n - 1) else 1.0
                row[i, j] += 2 / h[axis] ** 2
                for step in (-1, 1):
                    there = [i, j]
                    if not 0 <= place + step < n:
                        row[i, j] -= 2j * k[i, j] / h[axis]
                        step = -step
                    there[axis] += step
                    row[tuple(there)] -= 1 / h[axis] ** 2
            row *= weight
    A = helmholtz_operator(k, h, damping).to_csr().toarray()
    np.testing.assert_allclose(A, expected.reshape(A.shape), rtol=1e-13)


def test_matrix_is_symmetric_but_not_hermitian():
    problem = Helmholtz(**SMALL)
    system = problem.system(problem.sample(np.random.default_rng(1)))
    A = system.to_csr()
    assert system.dtype == np.complex128
    assert problem.matrices == "general"
    assert abs(A - A.T).max() == 0
    assert abs(A - A.conj().T).max() > 1


def test_energy_leaves_through_the_boundary():
    """Im u^H A u = - integral of k |u|^2 over the boundary: what f puts in."""
    problem = Helmholtz(**SMALL)
    sample = problem.sample(np.random.default_rng(2))
    system, k = problem.system(sample), sample["wave_number"]
    u = solve(system)
    weights = np.ones(problem.n)
    weights[[0, -1]] = 0.5
    flux = sum(
        np.sum(weights * (k * np.abs(u) ** 2)[wall])
        for wall in (0, -1, (slice(None), 0), (slice(None), -1))
    ) * (problem.n - 1)
    power = np.vdot(u, system.rhs).imag
    assert power == pytest.approx(-flux, rel=1e-9)
    assert flux > 0


def test_waves_travel_outwards_like_the_free_space_solution():
    """Homogeneous medium: (i / 4) H0(k r) times the transform of the Gaussian."""
    problem = Helmholtz(n=97, wavelengths=4.0, eta=0.0)
    k, w = problem.mean_wave_number, problem.source_width
    u = solve(problem.system(problem.sample(np.random.default_rng(3))))
    x, y = np.meshgrid(*problem.coordinates.values(), indexing="ij")
    r = np.hypot(x - 0.5, y - 0.2)
    ring = (r > 0.1) & (r < 0.3) & (y > 0.15)
    free = 0.25j * scipy.special.hankel1(0, k * r[ring]) * np.exp(-((k * w) ** 2) / 2)
    assert distance(u[ring], free) < 0.15  # what the walls reflect
    assert distance(u[ring].conj(), free) > 1.0


def test_solution_agrees_with_quadratic_finite_elements():
    """A second discretisation: biquadratic quadrilaterals of scikit-fem."""
    problem = Helmholtz(
        n=81, wavelengths=2.0, eta=0.1, family="low4", source_width=0.08
    )
    sample = problem.sample(np.random.default_rng(4))
    norms = np.array([1, np.sqrt(2), np.sqrt(2)])
    modes = problem._draw_modes(np.random.default_rng(4)) * np.outer(norms, norms)

    def wave_number(x):
        cosines = [np.cos(np.pi * np.multiply.outer(np.arange(3), t)) for t in x]
        g = np.einsum("kl,k...,l...->...", modes, *cosines)
        return problem.mean_wave_number * (1 + 0.1 * g)

    @skfem.BilinearForm(dtype=np.complex128)
    def volume(u, v, w):
        gradients = skfem.helpers.dot(u.grad, v.grad)
        return gradients - wave_number(w.x) ** 2 * u * v

    @skfem.BilinearForm(dtype=np.complex128)
    def edge(u, v, w):
        return -1j * wave_number(w.x) * u * v

    @skfem.LinearForm
    def load(v, w):
        squares = (w.x[0] - 0.5) ** 2 + (w.x[1] - 0.2) ** 2
        return np.exp(-squares / (2 * 0.08**2)) / (2 * np.pi * 0.08**2) * v

    mesh = skfem.MeshQuad.init_tensor(np.linspace(0, 1, 17), np.linspace(0, 1, 17))
    basis = skfem.Basis(mesh, skfem.ElementQuad2())
    A = volume.assemble(basis) + edge.assemble(basis.boundary())
    vertices = skfem.solve(A, load.assemble(basis))[basis.nodal_dofs[0]]
    i, j = np.rint(mesh.p * 80).astype(int)
    u = solve(problem.system(sample))
    assert distance(u[i, j], vertices) < 0.01
    assert distance(u[j, i], vertices) > 0.5  # axes are not mixed up
    assert distance(1.02 * u[i, j], vertices) > 0.015  # the bound means something


def test_phase_error_is_that_of_the_docstring():
    """Along an axis waves gain k^3 h^2 / 24 radians per unit length."""
    n, k = 65, 40.0
    A = helmholtz_operator(np.full((n, 3), k), (1 / (n - 1), 1.0)).to_csr().toarray()
    row = A[3 * (n // 2) + 1].reshape(n, 3).sum(axis=1)  # a wave along axis 1
    h = 1 / (n - 1)
    discrete = np.arccos(-row[n // 2].real * h**2 / -2) / h
    assert discrete - k == pytest.approx(k**3 * h**2 / 24, rel=0.05)


@pytest.mark.parametrize("offset", range(5))
def test_certificate_notices_one_wrong_coefficient(offset):
    problem = Helmholtz(**SMALL)
    system = problem.system(problem.sample(np.random.default_rng(5)))
    x = solve(system)
    assert system.relative_residual(x) < 1e-11
    system.operator.coefficients[0, 32, 16, offset] *= 2
    assert system.relative_residual(x) > 1e-2


def test_preconditioning_matrix_is_one_object_of_the_mean_medium():
    problem = Helmholtz(**SMALL)
    rng = np.random.default_rng(6)
    first, second = (problem.system(problem.sample(rng)) for _ in range(2))
    assert first.preconditioning_matrix is second.preconditioning_matrix
    assert problem.preconditioner == "lu"
    k = np.full((65, 65), 8 * np.pi)
    expected = helmholtz_operator(k, (1 / 64, 1 / 64)).to_csr()
    expected.setdiag(
        expected.diagonal() - 0.5j * (k**2 * node_weights(k.shape)).ravel()
    )
    gap = abs(first.preconditioning_matrix - expected).max()
    assert gap < 1e-12 * abs(expected).max()
    undamped = Helmholtz(**SMALL, eta=0.0, damping=0.0)
    system = undamped.system(undamped.sample(rng))
    assert abs(system.preconditioning_matrix - system.to_csr()).max() == 0


@pytest.mark.parametrize(("damping", "bound"), [(0.5, 60), (0.0, 20)])
def test_shifted_laplacian_bounds_the_products_of_gmres(damping, bound):
    """A spectrum on an arc: measured 44 and 13 steps at 4 wavelengths."""
    problem = Helmholtz(**SMALL, damping=damping)
    system = problem.system(problem.sample(np.random.default_rng(7)))
    A, factor = system.to_csr(), spla.splu(problem.shifted_laplacian.tocsc())
    count = []
    M = spla.LinearOperator(
        A.shape, lambda v: count.append(1) or A @ factor.solve(v), dtype=A.dtype
    )
    _, info = spla.gmres(M, system.rhs.ravel(), rtol=1e-8, restart=80, maxiter=1)
    assert info == 0
    assert 5 < len(count) < bound


@pytest.mark.parametrize("family", ["grf", "low4"])
def test_medium_has_the_stated_mean_and_fluctuations(family):
    problem = Helmholtz(n=65, wavelengths=4.0, eta=0.1, family=family)
    rng = np.random.default_rng(8)
    weights = node_weights((65, 65)) / 64**2
    for _ in range(20):
        g = problem.sample(rng)["wave_number"] / problem.mean_wave_number / 0.1 - 10
        assert np.sum(weights * g) == pytest.approx(0, abs=1e-12)
        assert np.sum(weights * g**2) > 0.5
        assert np.abs(g).max() <= PEAK * (1 + 1e-12)
        assert np.sum(weights * g**2) < 1 + 1e-3


def test_peaks_are_bounded_by_scaling_the_whole_field():
    """About every tenth field of unit variance exceeds 4 in a corner."""
    problem, rng = Helmholtz(**SMALL), np.random.default_rng(9)
    norms = np.array([np.linalg.norm(problem._draw_modes(rng)) for _ in range(100)])
    assert norms.max() == pytest.approx(1, abs=1e-12)
    assert 2 <= np.sum(norms < 1 - 1e-9) <= 30
    assert norms.min() > 0.5


def test_random_amplitudes_follow_the_stated_law():
    """(1 + (0.2 pi |j|)^2)^-1.5 with the default alpha 3 and tau 5."""
    field = Helmholtz(**SMALL)._field
    j = np.add.outer(np.arange(32.0) ** 2, np.arange(32.0) ** 2)
    expected = (1 + 0.04 * np.pi**2 * j) ** -1.5
    ratio = np.sqrt(field.eigenvalues().ravel()[1:]) / expected.ravel()[1:]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-12)


@pytest.mark.parametrize("source", ["fixed", "random"])
@pytest.mark.parametrize("family", ["grf", "low4"])
def test_sample_depends_on_the_generator_alone_not_on_the_grid(family, source):
    coarse, fine, again, other = (
        Helmholtz(n=n, wavelengths=2.0, family=family, source=source).sample(
            np.random.default_rng(seed)
        )
        for n, seed in ((65, 10), (129, 10), (129, 10), (129, 11))
    )
    for name, values in fine.items():
        assert values.tobytes() == again[name].tobytes()
        assert not np.array_equal(values, other[name])
        np.testing.assert_allclose(coarse[name], values[::2, ::2], rtol=1e-12)


def test_source_has_unit_integral_and_the_stated_centre():
    problem = Helmholtz(**SMALL, source="random")
    rng, weights = np.random.default_rng(12), node_weights((65, 65)) / 64**2
    x, y = np.meshgrid(*problem.coordinates.values(), indexing="ij")
    centers = []
    for _ in range(50):
        f = problem.sample(rng)["source"]
        assert np.sum(weights * f) == pytest.approx(1, rel=1e-6)
        centers.append((np.sum(weights * f * x), np.sum(weights * f * y)))
    centers = np.array(centers)
    assert 0.2 < centers.min() < 0.25
    assert 0.75 < centers.max() < 0.8
    fixed = Helmholtz(**SMALL)
    b = fixed.system(fixed.sample(rng)).rhs
    assert np.sum(b * x).real / 64**2 == pytest.approx(0.5)
    assert np.sum(b * y).real / 64**2 == pytest.approx(0.2)
    assert np.sum(b * (x - 0.5) ** 2).real / 64**2 == pytest.approx(0.02**2, rel=1e-5)


def test_random_source_is_stored_and_used():
    problem = Helmholtz(**SMALL, source="random")
    sample = problem.sample(np.random.default_rng(13))
    system = problem.system(sample)
    np.testing.assert_array_equal(system.rhs, node_weights((65, 65)) * sample["source"])
    fields = problem.fields_from_solution(sample, solve(system))
    assert [spec.name for spec in problem.fields] == list(fields)
    assert list(fields) == ["wave_number", "source", "solution_real", "solution_imag"]
    assert "source_x" not in problem.scalars


def test_fields_are_real_and_make_up_the_solution():
    problem = Helmholtz(**SMALL)
    sample = problem.sample(np.random.default_rng(14))
    x = solve(problem.system(sample))
    fields = problem.fields_from_solution(sample, x)
    assert [spec.name for spec in problem.fields] == list(fields)
    assert all(values.dtype == np.float64 for values in fields.values())
    assert all(values.shape == (65, 65) for values in fields.values())
    u = fields["solution_real"] + 1j * fields["solution_imag"]
    np.testing.assert_array_equal(u, x)


def test_features_are_the_modes_of_the_relative_wave_number():
    problem = Helmholtz(n=81, wavelengths=4.0, family="low4", eta=0.2)
    features = problem.features(problem.sample(np.random.default_rng(15)))
    modes = problem._draw_modes(np.random.default_rng(15))
    expected = 0.2 * modes[[0, 0, 0, 1, 1, 2], [0, 1, 2, 0, 1, 0]]
    np.testing.assert_allclose(features, expected, atol=1e-13)
    assert np.count_nonzero(np.abs(features) > 1e-12) == len(LOW4_MODES)
    problem = Helmholtz(**SMALL)
    sample = problem.sample(np.random.default_rng(15))
    modes = problem._draw_modes(np.random.default_rng(15))
    low = [modes[k1, k2] for k1 in range(8) for k2 in range(8 - k1)]
    np.testing.assert_allclose(
        problem.features(sample), 0.05 * np.array(low), atol=1e-13
    )
    k = problem.mean_wave_number * (1 + 0.05 * cosine_series(modes, (65, 65), "nodes"))
    np.testing.assert_allclose(sample["wave_number"], k, rtol=1e-14)


def test_resolution_is_enforced_at_the_largest_wave_number():
    """10 wavelengths, k up to 1.2 k0: 120 intervals."""
    assert Helmholtz(n=121).n == 121
    with pytest.raises(ValueError, match=r"n is 120: 9\.92 points per .* at least 121"):
        Helmholtz(n=120)
    assert Helmholtz(n=120, min_points=9.9).n == 120
    assert Helmholtz(n=101, eta=0.0).n == 101


def test_problem_describes_itself():
    problem = problems.create("helmholtz", **SMALL)
    assert (problem.name, problem.axes, problem.num_systems) == (
        "helmholtz",
        ("x", "y"),
        1,
    )
    for boundary, axis in zip(problem.boundaries, "xy", strict=True):
        assert (boundary.axis, boundary.bc_type) == (axis, "OPEN")
        assert "i k u" in boundary.detail
    assert [(f.name, f.time_varying) for f in problem.fields] == [
        ("wave_number", False),
        ("solution_real", True),
        ("solution_imag", True),
    ]
    assert problem.scalars["mean_wave_number"] == pytest.approx(8 * np.pi)
    assert problem.scalars["source_y"] == 0.2
    assert "du/dn = i k u" in problem.equation
    np.testing.assert_allclose(problem.coordinates["y"], np.linspace(0, 1, 65))


def test_settings_make_the_problem_again():
    problem = Helmholtz(**SMALL, source="random", family="low4")
    settings = json.loads(json.dumps(problem.settings))
    assert problems.create("helmholtz", **settings) == problem


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"family": "grv"}, r"family is 'grv'; known: \('grf', 'low4'\)"),
        ({"source": "moving"}, "source is 'moving'; known: "),
        ({"wavelengths": 0.0}, "wavelengths is 0.0; expected a positive number"),
        ({"wavelengths": float("nan")}, "wavelengths is nan"),
        ({"eta": 0.25}, "eta is 0.25; expected 0 <= eta < 0.25"),
        ({"eta": -0.1}, "eta is -0.1"),
        ({"damping": -1.0}, "damping is -1.0; expected at least 0"),
        ({"min_points": 0.0}, "min_points is 0.0"),
        ({"n": 64.5}, "n is 64.5; expected a whole number"),
        ({"n": 2}, "n is 2; expected a whole number of at least 3"),
        ({"n": 65}, "expected at least 10: set n to at least 121"),
        ({"source_width": 0.001}, "expected at least the spacing 0.00391 of n = 257"),
        ({"alpha": 1.0}, "alpha is 1.0"),
        ({"tau": 0.0}, "tau is 0.0"),
        ({"num_modes": 1}, "num_modes is 1"),
        ({"wavelength": 4.0}, "no setting 'wavelength'; did you mean 'wavelengths'"),
    ],
)
def test_rejects_impossible_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        problems.create("helmholtz", **settings)


@pytest.mark.parametrize("damage", [0.0, -1.0, np.nan, np.inf])
def test_rejects_wave_numbers_that_are_not_positive(damage):
    problem = Helmholtz(**SMALL)
    sample = problem.sample(np.random.default_rng(16))
    sample["wave_number"][4, 5] = damage
    with pytest.raises(ValueError, match="must be positive and finite"):
        problem.system(sample)


def test_rejects_wave_numbers_of_another_shape():
    with pytest.raises(ValueError, match=r"of shape \(65, 65\); got shape \(65, 64\)"):
        Helmholtz(**SMALL).system({"wave_number": np.ones((65, 64))})


@pytest.mark.parametrize("variant", ["full", "small", "quick"])
def test_config_describes_a_resolved_problem(variant):
    config = importlib.import_module("configs.data.helmholtz").get_config(variant)
    problem = problems.create(**config.problem.to_dict())
    assert config.name == problem.name == "helmholtz"
    k = problem.mean_wave_number * (1 + PEAK * problem.eta)
    assert 2 * np.pi / k * (problem.n - 1) > 10
    assert 2 <= problem.wavelengths <= 20


def test_quick_sample_is_solved_by_the_named_method():
    config = importlib.import_module("configs.data.helmholtz").get_config("quick")
    problem = problems.create(**config.problem.to_dict())
    system = problem.system(problem.sample(np.random.default_rng(config.seed)))
    solver = create(config.solver.method)
    x, record = solver.solve(system, rtol=config.solver.rtol)
    solver.close()
    assert record.converged
    assert record.true_relative_residual <= config.solver.accept_rtol
    assert distance(x, solve(system)) < 1e-6
