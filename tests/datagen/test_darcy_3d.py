import json

import numpy as np
import pytest
import skfem
import skfem.helpers
from exact import direct

from datagen import problems
from datagen.problems.darcy import Darcy
from datagen.problems.darcy_3d import Darcy3d
from solvers.diffusion import diffusion_operator
from solvers.sequence import LinearSystem
from solvers.stencils import FIVE_POINT


def test_discretisation_is_second_order():
    """u = sin(pi x) sin(2 pi y) sin(pi z), a = 2 + x + y^2 + z, at the nodes."""
    errors = []
    for n in (9, 17, 33):
        x, y, z = np.meshgrid(*[np.linspace(0, 1, n)] * 3, indexing="ij")
        sines = np.sin(np.pi * x), np.sin(2 * np.pi * y), np.sin(np.pi * z)
        slopes = (
            np.pi * np.cos(np.pi * x) * sines[1] * sines[2],
            2 * np.pi * np.cos(2 * np.pi * y) * sines[0] * sines[2],
            np.pi * np.cos(np.pi * z) * sines[0] * sines[1],
        )
        u, a = np.prod(sines, axis=0), 2 + x + y**2 + z
        f = 6 * np.pi**2 * a * u - slopes[0] - 2 * y * slopes[1] - slopes[2]
        inner = (slice(1, -1),) * 3
        operator = diffusion_operator(a, (1 / (n - 1),) * 3)
        solved = direct(LinearSystem(operator, f[inner]))
        errors.append(np.abs(solved - u[inner]).max())
    orders = np.log2(np.divide(errors[:-1], errors[1:]))
    np.testing.assert_allclose(orders, 2.0, atol=0.15)


def test_operator_matches_a_matrix_built_entry_by_entry():
    a, h = np.random.default_rng(0).uniform(1, 9, (5, 4, 6)), (0.2, 0.3, 0.7)
    shape = tuple(n - 2 for n in a.shape)
    expected = np.zeros((np.prod(shape),) * 2)
    for here in np.ndindex(shape):
        row = np.ravel_multi_index(here, shape)
        for axis in range(3):
            for step in (-1, 1):
                there = tuple(i + step * (j == axis) for j, i in enumerate(here))
                p, q = (a[tuple(i + 1 for i in node)] for node in (here, there))
                link = 2 / (1 / p + 1 / q) / h[axis] ** 2
                expected[row, row] += link
                if 0 <= there[axis] < shape[axis]:
                    expected[row, np.ravel_multi_index(there, shape)] -= link
    A = diffusion_operator(a, h).to_csr().toarray()
    np.testing.assert_allclose(A, expected, rtol=1e-14)
    np.testing.assert_array_equal(A, A.T)


def test_the_two_dimensional_matrix_is_a_slice():
    """Constant along z, the first two axes couple exactly as in two dimensions."""
    a = np.random.default_rng(1).uniform(1, 9, (6, 7))
    flat = diffusion_operator(a, (0.2, 0.3))
    cube = diffusion_operator(np.repeat(a[..., None], 4, axis=2), (0.2, 0.3, 1e9))
    assert flat.offsets == FIVE_POINT
    assert [offset[:2] for offset in cube.offsets[:5]] == list(FIVE_POINT)
    np.testing.assert_array_equal(
        cube.coefficients[:, :, :, 0, 1:5], flat.coefficients[..., 1:]
    )


def test_solution_agrees_with_triquadratic_finite_elements():
    problem = Darcy3d(n=25, num_modes=3)
    sample = problem.sample(np.random.default_rng(2))
    norms = np.array([1, np.sqrt(2), np.sqrt(2)])
    modes = problem._field.draw(np.random.default_rng(2))
    modes = modes * np.einsum("i,j,k->ijk", norms, norms, norms)
    modes *= problem.log_std / np.sqrt(problem._field.variance())

    def coefficient(x):
        cosines = [np.cos(np.pi * np.multiply.outer(np.arange(3), t)) for t in x]
        return np.exp(np.einsum("ijk,i...,j...,k...->...", modes, *cosines))

    @skfem.BilinearForm
    def stiffness(u, v, w):
        return coefficient(w.x) * skfem.helpers.dot(u.grad, v.grad)

    @skfem.LinearForm
    def load(v, _):
        return 1.0 * v

    mesh = skfem.MeshHex.init_tensor(*[np.linspace(0, 1, 7)] * 3)
    basis = skfem.Basis(mesh, skfem.ElementHex2(), intorder=5)
    values = skfem.solve(
        *skfem.condense(
            stiffness.assemble(basis), load.assemble(basis), D=basis.get_dofs()
        )
    )
    u = problem.fields_from_solution(sample, direct(problem.system(sample)))["solution"]
    i, j, k = np.rint(basis.doflocs * 24).astype(int)
    gap = np.linalg.norm(u[i, j, k] - values) / np.linalg.norm(values)
    assert gap < 0.01


def test_logarithms_have_the_stated_deviation():
    problem, rng = Darcy3d(n=9, log_std=0.7, num_modes=9), np.random.default_rng(3)
    logs = np.array([np.log(problem.sample(rng)["coefficient"]) for _ in range(300)])
    variance = problem._field.pointwise_variance((9,) * 3, "nodes")
    expected = 0.7**2 * variance / problem._field.variance()
    assert logs.var(axis=0).mean() == pytest.approx(expected.mean(), rel=0.1)


def test_two_phases_cut_the_same_field():
    lognormal, phases = (
        Darcy3d(n=9, coefficient=c).sample(np.random.default_rng(4))["coefficient"]
        for c in ("lognormal", "two_phase")
    )
    np.testing.assert_array_equal(phases, np.where(lognormal >= 1, 12.0, 3.0))


def test_fields_features_and_description():
    problem = Darcy3d(n=(9, 10, 11), num_modes=5, forcing=2.0)
    sample = problem.sample(np.random.default_rng(5))
    system = problem.system(sample)
    assert system.rhs.shape == (7, 8, 9)
    assert (system.rhs == 2).all()
    fields = problem.fields_from_solution(sample, direct(system))
    assert fields["solution"].shape == (9, 10, 11)
    assert np.count_nonzero(fields["solution"]) == 7 * 8 * 9
    assert problem.features(sample).shape == (35,)
    np.testing.assert_allclose(problem.coordinates["z"], np.linspace(0, 1, 11))
    assert problem.scalars["log_std"] == 1.0
    settings = json.loads(json.dumps(problem.settings))
    assert problems.create("darcy_3d", **settings) == problem


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n": (9, 9)}, "expected one or three whole numbers"),
        ({"n": 2}, "at least 3"),
        ({"coefficient": "smooth"}, "coefficient is 'smooth'; known: "),
        ({"alpha": 1.5}, "alpha is 1.5"),
        ({"values": (1.0, -1.0)}, "expected two positive ones"),
        ({"log_std": 0.0}, "log_std is 0.0"),
        ({"forcing": 0.0}, "forcing is 0.0"),
    ],
)
def test_rejects_impossible_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        Darcy3d(**settings)


def test_two_dimensional_matrices_keep_their_bytes():
    """The diagonal is summed as before 3-D came; files of old plans must not change."""
    problem = Darcy(n=9)
    sample = problem.sample(np.random.default_rng(6))
    coefficients = problem.system(sample).operator.coefficients
    a = sample["coefficient"]
    a1 = 2 * a[:-1, 1:-1] * a[1:, 1:-1] / (a[:-1, 1:-1] + a[1:, 1:-1]) / (1 / 8) ** 2
    a2 = 2 * a[1:-1, :-1] * a[1:-1, 1:] / (a[1:-1, :-1] + a[1:-1, 1:]) / (1 / 8) ** 2
    diagonal = a1[:-1] + a1[1:] + a2[:, :-1] + a2[:, 1:]
    assert coefficients[0, ..., 0].tobytes() == diagonal.tobytes()
