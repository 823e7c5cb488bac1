import functools
import json

import numpy as np
import pytest
import skfem
import skfem.helpers
from exact import direct, distance, solution
from scipy.interpolate import make_interp_spline

from datagen import problems
from datagen.problems.darcy import Darcy, diffusion_operator
from solvers.sequence import LinearSystem

MODES = ("clean", "fno_compat")


def manufactured(shape):
    """u = sin(pi x) sin(2 pi y), a = 2 + x + y^2, f = -div(a grad u), at the nodes."""
    x, y = np.meshgrid(*(np.linspace(0, 1, n) for n in shape), indexing="ij")
    (sx, cx), (sy, cy) = ((np.sin(t), np.cos(t)) for t in (np.pi * x, 2 * np.pi * y))
    a = 2 + x + y**2
    f = 5 * np.pi**2 * a * sx * sy - np.pi * cx * sy - 4 * np.pi * y * sx * cy
    return a, f[1:-1, 1:-1], (sx * sy)[1:-1, 1:-1]


@pytest.mark.parametrize("face_mean", ["harmonic", "arithmetic"])
def test_discretisation_is_second_order(face_mean):
    errors = []
    for shape in ((17, 25), (33, 49), (65, 97)):
        a, f, u = manufactured(shape)
        spacing = tuple(1 / (n - 1) for n in shape)
        operator = diffusion_operator(a, spacing, face_mean)
        errors.append(np.abs(direct(LinearSystem(operator, f)) - u).max())
    orders = np.log2(np.divide(errors[:-1], errors[1:]))
    np.testing.assert_allclose(orders, 2.0, atol=0.05)


@pytest.mark.parametrize("face_mean", ["harmonic", "arithmetic"])
def test_operator_matches_a_matrix_built_entry_by_entry(face_mean):
    rng = np.random.default_rng(0)
    a, h = rng.uniform(1, 9, (6, 5)), (0.2, 0.3)

    def mean(p, q):
        return 2 / (1 / p + 1 / q) if face_mean == "harmonic" else (p + q) / 2

    expected = np.zeros((12, 12))
    for i in range(1, 5):
        for j in range(1, 4):
            row = (i - 1) * 3 + j - 1
            for di, dj in ((1, 0), (-1, 0), (0, 1), (0, -1)):
                link = mean(a[i, j], a[i + di, j + dj]) / h[0 if di else 1] ** 2
                expected[row, row] += link
                if 1 <= i + di <= 4 and 1 <= j + dj <= 3:
                    expected[row, (i + di - 1) * 3 + j + dj - 1] -= link
    operator = diffusion_operator(a, h, face_mean)
    np.testing.assert_allclose(operator.to_csr().toarray(), expected, rtol=1e-14)


@pytest.mark.parametrize("face_mean", ["harmonic", "arithmetic"])
def test_clean_operator_is_symmetric_positive_definite(face_mean):
    problem = Darcy(n=(9, 13), face_mean=face_mean)
    assert problem.matrices == "spd"
    A = problem.system(problem.sample(np.random.default_rng(1))).to_csr().toarray()
    np.testing.assert_array_equal(A, A.T)
    assert np.linalg.eigvalsh(A).min() > 3 * 2 * np.pi**2 * 0.9  # 3 min a (-Laplacian)
    off_diagonal = A - np.diag(np.diag(A))
    assert (off_diagonal <= 0).all()
    assert (A.sum(axis=1) > -1e-9).all()


def test_faces_between_the_phases_take_the_chosen_mean():
    a = np.full((4, 4), 3.0)
    a[:2] = 12.0
    harmonic, arithmetic = (
        diffusion_operator(a, (1.0, 1.0), mean).to_csr().toarray()
        for mean in ("harmonic", "arithmetic")
    )
    assert -harmonic[0, 2] == pytest.approx(4.8)
    assert -arithmetic[0, 2] == pytest.approx(7.5)
    assert harmonic[0, 0] == pytest.approx(12 + 4.8 + 12 + 12)


def test_solution_agrees_with_quadratic_finite_elements():
    """A second discretisation, quadratic triangles of scikit-fem, a = exp(U)."""
    problem = Darcy(n=65, coefficient="lognormal", num_modes=4)
    sample = problem.sample(np.random.default_rng(2))
    norms = np.array([1, *[np.sqrt(2)] * 3])
    modes = problem._field.draw(np.random.default_rng(2)) * np.outer(norms, norms)

    def coefficient(x):
        cosines = [np.cos(np.pi * np.multiply.outer(np.arange(4), t)) for t in x]
        return np.exp(np.einsum("kl,k...,l...->...", modes, *cosines))

    @skfem.BilinearForm
    def stiffness(u, v, w):
        return coefficient(w.x) * skfem.helpers.dot(u.grad, v.grad)

    @skfem.LinearForm
    def load(v, _):
        return 1.0 * v

    mesh = skfem.MeshTri.init_tensor(np.linspace(0, 1, 17), np.linspace(0, 1, 17))
    basis = skfem.Basis(mesh, skfem.ElementTriP2())
    system = skfem.condense(
        stiffness.assemble(basis), load.assemble(basis), D=basis.get_dofs()
    )
    values = skfem.solve(*system)
    vertices = values[basis.nodal_dofs[0]]
    i, j = np.rint(mesh.p * 64).astype(int)
    u = solution(problem, sample)
    assert distance(u[i, j], vertices) < 1e-3
    assert distance(1.01 * u[i, j], vertices) > 5e-3  # the bound means something


@pytest.mark.parametrize("offset", range(5))
def test_certificate_notices_one_wrong_coefficient(offset):
    problem = Darcy(n=33)
    system = problem.system(problem.sample(np.random.default_rng(3)))
    x = direct(system)
    assert system.relative_residual(x) < 1e-11
    system.operator.coefficients[0, 15, 15, offset] *= 2
    assert system.relative_residual(x) > 1e-2


def test_clean_fields_live_on_nodes_with_an_exactly_zero_edge():
    problem = Darcy(n=(17, 23), forcing=2.0)
    sample = problem.sample(np.random.default_rng(4))
    system = problem.system(sample)
    assert system.rhs.shape == system.operator.grid_shape == (15, 21)
    assert (system.rhs == 2.0).all()
    fields = problem.fields_from_solution(sample, direct(system))
    assert [spec.name for spec in problem.fields] == list(fields)
    u = fields["solution"]
    assert u.shape == fields["coefficient"].shape == (17, 23)
    assert u[1:-1, 1:-1].min() > 0
    assert np.count_nonzero(u) == 15 * 21
    for axis, n in (("x", 17), ("y", 23)):
        np.testing.assert_allclose(problem.coordinates[axis], np.linspace(0, 1, n))


def test_solution_is_proportional_to_the_forcing():
    sample = Darcy(n=17).sample(np.random.default_rng(5))
    once, thrice = (solution(Darcy(n=17, forcing=f), sample) for f in (1.0, -3.0))
    np.testing.assert_allclose(thrice, -3 * once, rtol=1e-9)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("coefficient", ["two_phase", "lognormal"])
def test_sample_depends_on_the_generator_alone(mode, coefficient):
    settings = {"n": 33, "mode": mode, "coefficient": coefficient}
    first, again, other = (
        problems.create("darcy", **settings).sample(np.random.default_rng(seed))
        for seed in (6, 6, 7)
    )
    assert first["coefficient"].tobytes() == again["coefficient"].tobytes()
    assert not np.array_equal(first["coefficient"], other["coefficient"])


def test_equal_modes_give_the_same_function_on_every_grid():
    coarse, fine = (
        Darcy(n=n, num_modes=129).sample(np.random.default_rng(8))["coefficient"]
        for n in (65, 129)
    )
    np.testing.assert_array_equal(coarse, fine[::2, ::2])


def test_grids_share_their_low_modes_by_default():
    """Modes from 65 on have variance 3.2e-6 in sum: little changes on common nodes."""
    coarse, fine = (
        Darcy(n=n, coefficient="lognormal").sample(np.random.default_rng(8))
        for n in (65, 129)
    )
    gap = np.log(coarse["coefficient"]) - np.log(fine["coefficient"][::2, ::2])
    assert 0 < np.sqrt(np.mean(gap**2)) < 2 * np.sqrt(3.2e-6)
    phases = [
        Darcy(n=n).sample(np.random.default_rng(8))["coefficient"] for n in (65, 129)
    ]
    assert np.mean(phases[0] != phases[1][::2, ::2]) < 0.01


def test_two_phases_cut_the_field_of_the_lognormal_case_at_zero():
    two_phase = Darcy(n=33, values=(12.0, 2.0)).sample(np.random.default_rng(9))
    lognormal = Darcy(n=33, coefficient="lognormal").sample(np.random.default_rng(9))
    expected = np.where(np.log(lognormal["coefficient"]) >= 0, 12.0, 2.0)
    np.testing.assert_array_equal(two_phase["coefficient"], expected)


def test_half_of_the_domain_is_of_each_phase():
    """Spec of the published set: mean 0.501, range 0.38 to 0.62 over 80 samples."""
    rng, problem = np.random.default_rng(10), Darcy(n=65)
    shares = [np.mean(problem.sample(rng)["coefficient"] == 12.0) for _ in range(200)]
    assert np.mean(shares) == pytest.approx(0.5, abs=4 * np.std(shares) / np.sqrt(200))
    assert 0.3 < min(shares) < 0.42
    assert 0.58 < max(shares) < 0.7


STATISTICS = [  # mean of u, its std inside a sample, its maximum; means over samples
    pytest.param({"n": 65}, 60, (0.00562, 0.00376, 0.0133), id="smooth-65"),
    pytest.param(
        {"n": 129}, 80, (0.00562, 0.00376, 0.0133), id="smooth", marks=pytest.mark.slow
    ),
    pytest.param(
        {"n": 129, "tau": 5.0, "values": (12.0, 2.0)},
        40,
        (0.0070, 0.0046, 0.0163),
        id="rough",
        marks=pytest.mark.slow,
    ),
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("settings", "num", "expected"), STATISTICS)
def test_solutions_have_the_expected_statistics(settings, num, expected, mode):
    """Figures of an independent implementation, 80 and 40 samples, each +-0.8 %."""
    problem, rng = Darcy(**settings, mode=mode), np.random.default_rng(11)
    fields = [solution(problem, problem.sample(rng)) for _ in range(num)]
    rows = np.array([(u.mean(), u.std(), u.max()) for u in fields])
    errors = rows.std(axis=0) / np.sqrt(num) + 0.01 * np.array(expected)
    assert (np.abs(rows.mean(axis=0) - expected) < 3 * errors).all()
    assert (errors < 0.04 * np.array(expected)).all()


def test_compatible_system_follows_the_published_script():
    """solve_gwf.m step by step, with splines of another routine and a dense matrix."""
    K = 14
    problem = Darcy(n=K, mode="fno_compat")
    sample = problem.sample(np.random.default_rng(12))
    cells, nodes = (np.arange(K) + 0.5) / K, np.linspace(0, 1, K)
    spline = functools.partial(make_interp_spline, k=3)  # not-a-knot
    a = spline(cells, sample["coefficient"])(nodes)
    a = spline(cells, a.T)(nodes).T
    n, A = K - 2, np.zeros(2 * (K - 2,) * 2)
    for i in range(n):
        for j in range(n):
            for di, dj in ((0, 1), (1, 0), (0, -1), (-1, 0)):
                link = (a[i + 1, j + 1] + a[i + 1 + di, j + 1 + dj]) / 2 * (K - 1) ** 2
                A[i, j, i, j] += link
                if 0 <= i + di < n and 0 <= j + dj < n:
                    A[i, j, i + di, j + dj] -= link
    u = np.zeros((K, K))
    u[1:-1, 1:-1] = np.linalg.solve(A.reshape(n * n, -1), np.ones(n * n)).reshape(n, n)
    expected = spline(nodes, spline(nodes, u)(cells).T)(cells).T
    np.testing.assert_allclose(solution(problem, sample), expected, rtol=1e-9)
    np.testing.assert_allclose(problem.coordinates["x"], cells)


def test_compatible_mode_overshoots_and_is_not_called_positive_definite():
    problem = Darcy(n=65, mode="fno_compat")
    assert problem.matrices == "symmetric"
    sample = problem.sample(np.random.default_rng(13))
    assert set(np.unique(sample["coefficient"])) == {3.0, 12.0}
    operator = problem.system(sample).operator
    A = operator.to_csr()
    assert abs(A - A.T).max() == 0
    faces = -operator.coefficients[..., 1:] / (65 - 1) ** 2  # zero at the edge
    assert faces.max() > 12.5  # beyond the larger phase
    assert faces[faces != 0].min() < 2.5  # and the smaller one
    u = solution(problem, sample)
    edge = np.abs([u[0], u[-1], u[:, 0], u[:, -1]]).max()
    assert 0 < edge < 0.1 * u.max()


DISTANCES = [  # relative L2 between the modes for one array a: spec, arithmetic means
    pytest.param(85, 0.026, id="85"),
    pytest.param(211, 0.0095, id="211", marks=pytest.mark.slow),
    pytest.param(421, 0.0051, id="421", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("n", "expected"), DISTANCES)
def test_modes_differ_by_more_than_a_good_operator_errs(n, expected):
    compatible = Darcy(n=n, mode="fno_compat")
    clean = Darcy(n=n, face_mean="arithmetic")
    rng = np.random.default_rng(14)
    samples = [compatible.sample(rng) for _ in range(4 if n < 400 else 2)]
    gaps = [distance(solution(clean, s), solution(compatible, s)) for s in samples]
    assert np.mean(gaps) == pytest.approx(expected, rel=0.2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "bounds"),
    [  # twice the means of docs/data.md
        ({}, (0.024, 0.010, 0.0034)),
        ({"face_mean": "arithmetic"}, (0.028, 0.016, 0.0055)),
        ({"tau": 5.0, "values": (12.0, 2.0)}, (0.044, 0.022, 0.0060)),
    ],
)
def test_discretisation_error_of_two_phases_shrinks(settings, bounds):
    settings = {"num_modes": 421, **settings}
    fine = Darcy(n=841, **settings)
    reference = solution(fine, fine.sample(np.random.default_rng(15)))
    errors = []
    for n in (43, 85, 211):
        problem, stride = Darcy(n=n, **settings), 840 // (n - 1)
        u = solution(problem, problem.sample(np.random.default_rng(15)))
        errors.append(distance(u, reference[::stride, ::stride]))
    assert (np.array(errors) < bounds).all()
    assert errors[2] < errors[1] < errors[0]


def test_lognormal_case_is_second_order():
    errors, settings = [], {"coefficient": "lognormal", "num_modes": 9}
    fine = Darcy(n=257, **settings)
    reference = solution(fine, fine.sample(np.random.default_rng(16)))
    for n in (17, 33, 65):
        problem, stride = Darcy(n=n, **settings), 256 // (n - 1)
        u = solution(problem, problem.sample(np.random.default_rng(16)))
        errors.append(distance(u, reference[::stride, ::stride]))
    orders = np.log2(np.divide(errors[:-1], errors[1:]))
    np.testing.assert_allclose(orders, 2.0, atol=0.1)


@pytest.mark.parametrize("mode", MODES)
def test_features_are_the_low_modes_of_the_log_coefficient(mode):
    problem = Darcy(n=(33, 29), coefficient="lognormal", mode=mode, num_modes=16)
    features = problem.features(problem.sample(np.random.default_rng(17)))
    A = problem._field.draw(np.random.default_rng(17))
    expected = [A[k1, k2] for k1 in range(8) for k2 in range(8 - k1)]
    np.testing.assert_allclose(features, expected, atol=1e-13)


def test_problem_describes_itself():
    problem = problems.create("darcy", n=33)
    assert "darcy" in problems.names()
    assert (problem.name, problem.axes) == ("darcy", ("x", "y"))
    assert [(b.axis, b.bc_type, b.detail) for b in problem.boundaries] == [
        ("x", "WALL", "dirichlet:0"),
        ("y", "WALL", "dirichlet:0"),
    ]
    assert [(f.name, f.time_varying) for f in problem.fields] == [
        ("coefficient", False),
        ("solution", True),
    ]
    assert problem.scalars == {
        "alpha": 2.0,
        "tau": 3.0,
        "forcing": 1.0,
        "value_high": 12.0,
        "value_low": 3.0,
    }
    assert Darcy(n=(17, 33)).num_modes == 33
    assert "value_high" not in Darcy(coefficient="lognormal").scalars
    assert "mode clean" in problem.equation
    assert "harmonic" in problem.equation
    assert "mode fno_compat" in Darcy(mode="fno_compat").equation


@pytest.mark.parametrize("mode", MODES)
def test_settings_make_the_problem_again(mode):
    problem = Darcy(n=(33, 17), values=(12, 2), mode=mode)
    settings = json.loads(json.dumps(problem.settings))
    assert problems.create("darcy", **settings) == problem


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"coefficient": "three_phase"}, r"coefficient is 'three_phase'; known: \("),
        ({"mode": "fno"}, "mode is 'fno'; known: "),
        ({"face_mean": "geometric"}, "face_mean is 'geometric'; known: "),
        ({"n": 2}, r"n is \(2, 2\); mode clean needs at least 3"),
        ({"n": 3, "mode": "fno_compat"}, "needs at least 4 points"),
        ({"n": (33, 33, 33)}, "expected one or two whole numbers"),
        ({"n": 33.5}, "n is 33.5; expected one or two whole numbers"),
        ({"mode": "fno_compat", "face_mean": "harmonic"}, "arithmetic face means"),
        ({"values": (12.0, 0.0)}, "expected two positive ones"),
        ({"values": (12.0, 3.0, 1.0)}, "expected two positive ones"),
        ({"values": (12.0, float("nan"))}, "expected two positive ones"),
        ({"coefficient": "lognormal", "values": (12.0, 3.0)}, "leave them out"),
        ({"forcing": 0.0}, "forcing is 0.0; expected a nonzero number"),
        ({"forcing": float("inf")}, "forcing is inf"),
        ({"alpha": 1.0}, "alpha is 1.0"),
        ({"tau": -3.0}, "tau is -3.0"),
        ({"num_modes": 1}, "num_modes is 1"),
        ({"valeus": (12.0, 3.0)}, "no setting 'valeus'; did you mean 'values'"),
        ({"zzz": 1}, r"no setting 'zzz'; known: \['n', 'coefficient'"),
    ],
)
def test_rejects_impossible_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        problems.create("darcy", **settings)


def test_rejects_unknown_problems():
    with pytest.raises(ValueError, match=r"unknown problem 'stokes'; known: .*darcy"):
        problems.create("stokes")


@pytest.mark.parametrize("damage", [0.0, -1.0, np.nan, np.inf])
def test_rejects_coefficients_that_are_not_positive(damage):
    problem = Darcy(n=9)
    sample = problem.sample(np.random.default_rng(18))
    sample["coefficient"][4, 5] = damage
    with pytest.raises(ValueError, match="must be positive and finite"):
        problem.system(sample)


def test_rejects_coefficients_of_another_shape():
    with pytest.raises(ValueError, match=r"of shape \(9, 9\); got shape \(9, 8\)"):
        Darcy(n=9).system({"coefficient": np.ones((9, 8))})
