import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
from families import diffusion, system

from solvers import direct, results, sequence
from solvers.multigrid import pcg
from solvers.sequence import LinearSystem
from solvers.stencils import FIVE_POINT, StencilOperator

RTOL = 1e-8


def solve(one, method="mg_pcg", **settings):
    [(x, record)] = sequence.iter_solve([one], method=method, **settings)
    return x, record


def recomputed(one, x):
    """True relative residual by SciPy, apart from everything under test."""
    b = one.rhs.ravel()
    return np.linalg.norm(b - one.to_csr() @ x.ravel()) / np.linalg.norm(b)


@pytest.mark.parametrize("inner", ["float32", "float64"])
@pytest.mark.parametrize(
    ("family", "most"),
    # Counts of a prototype at 64 to 255 unknowns per axis are 11, 11, 11, 14, 20;
    # bilinear interpolation would need 91 iterations for two_phase_1e4.
    [
        ("constant", 13),
        ("smooth", 13),
        ("two_phase", 13),
        ("multiscale", 18),
        ("two_phase_1e4", 19),
        ("white", 26),
    ],
)
def test_iterations_stay_within_the_table(family, most, inner):
    for seed in range(2):
        one = system(family, (60, 64), seed)
        x, record = solve(one, inner=inner)
        assert record.converged, record.status
        assert recomputed(one, x) <= RTOL
        assert 3 < record.iterations <= most
        assert record.true_relative_residual == pytest.approx(recomputed(one, x), 1e-3)


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (8, 8), (9, 5), (17, 40), (33, 1)])
def test_any_size_gives_the_direct_solution(shape):
    one = system("two_phase", shape)
    x, record = solve(one, rtol=1e-10)
    reference, exact = solve(one, method="direct")
    assert record.converged, record.status
    assert exact.converged
    assert np.linalg.norm(x - reference) <= 1e-7 * np.linalg.norm(reference)


def test_nine_point_systems_are_solved():
    shape = (13, 20)
    rng = np.random.default_rng(0)
    offsets = tuple((i, j) for i in (-1, 0, 1) for j in (-1, 0, 1))
    planes = {(0, 0): np.full(shape, 0.01)}
    for o in ((0, 1), (1, 0), (1, 1), (1, -1)):
        weights = np.zeros((shape[0] + 2, shape[1] + 2))
        rows = slice(1, 1 + shape[0] - o[0])
        columns = slice(1 + max(0, -o[1]), 1 + shape[1] - max(0, o[1]))
        inside = weights[rows, columns].shape
        weights[rows, columns] = rng.uniform(0.1, 1.0, inside)
        back = np.roll(weights, o, axis=(0, 1))
        planes[o] = -weights[1:-1, 1:-1]
        planes[-o[0], -o[1]] = -back[1:-1, 1:-1]
        planes[0, 0] = planes[0, 0] + weights[1:-1, 1:-1] + back[1:-1, 1:-1]
    operator = StencilOperator.from_planes([planes[o] for o in offsets], offsets)
    one = LinearSystem(operator, rng.standard_normal(shape))
    assert abs(one.to_csr() - one.to_csr().T).max() == 0
    x, record = solve(one)
    assert record.converged, record.status
    assert recomputed(one, x) <= RTOL
    assert record.iterations <= 20


def test_manufactured_solution_converges_at_second_order():
    errors = []
    for n in (7, 15, 31):
        x, y = np.meshgrid(*2 * [np.linspace(0, 1, n + 2)], indexing="ij")
        (sx, cx), (sy, cy) = (
            (np.sin(t), np.cos(t)) for t in (np.pi * x, 2 * np.pi * y)
        )
        a = 2 + x + y**2
        f = 5 * np.pi**2 * a * sx * sy - np.pi * cx * sy - 4 * np.pi * y * sx * cy
        u, _ = solve(diffusion(a, f[1:-1, 1:-1]))
        errors.append(abs(u - (sx * sy)[1:-1, 1:-1]).max())
    orders = np.log2(np.divide(errors[:-1], errors[1:]))
    np.testing.assert_allclose(orders, 2.0, atol=0.1)


@pytest.mark.parametrize("factor", [1e-30, 1e30])
def test_units_do_not_matter(factor):
    one = system("two_phase", (21, 34))
    x, record = solve(one)
    operator = StencilOperator(one.operator.coefficients * factor, FIVE_POINT)
    scaled, other = solve(LinearSystem(operator, one.rhs / factor))
    assert other.iterations == record.iterations
    np.testing.assert_allclose(scaled * factor * factor, x, rtol=1e-6)


def test_couplings_that_leave_the_grid_are_never_used():
    one = system("two_phase", (21, 34))
    planes = np.moveaxis(one.operator.coefficients[0], -1, 0).copy()
    planes[1][0] = planes[2][-1] = planes[3][:, 0] = planes[4][:, -1] = 1e6
    dirty = one._replace(operator=StencilOperator.from_planes(planes, FIVE_POINT))
    np.testing.assert_array_equal(solve(dirty)[0], solve(one)[0])


@pytest.mark.parametrize("method", ["mg_pcg", "direct"])
def test_bytes_do_not_depend_on_what_was_solved_before(method):
    systems = [system("two_phase", (21, 34), seed) for seed in range(3)]
    systems.insert(1, system("white", (17, 40)))
    together = sequence.solve_sequence(systems, method=method)
    for one, x in zip(systems, together.solutions, strict=True):
        alone, _ = solve(one, method=method)
        assert alone.tobytes() == x.tobytes()


def test_good_initial_guess_saves_iterations():
    one = system("two_phase", (21, 34))
    solver = sequence.create("mg_pcg")
    x, cold = solver.solve(one, rtol=RTOL)
    guess = x * (1 + 1e-6)
    near, warm = solver.solve(one, rtol=RTOL, x0=guess)
    assert recomputed(one, near) <= RTOL
    assert warm.converged
    assert warm.iterations < cold.iterations / 2
    _, none = solver.solve(one, rtol=1e-7, x0=x)
    assert none.iterations == 0


def test_zero_right_hand_side_gives_zero():
    one = system("two_phase", (9, 5))
    one = one._replace(rhs=np.zeros((9, 5)))
    for method in ("mg_pcg", "direct"):
        x, record = solve(one, method=method)
        assert record.converged
        assert record.relative_residual == 0 or method == "direct"
        assert not x.any()


def test_too_few_iterations_are_reported():
    one = system("two_phase", (21, 34))
    x, record = solve(one, maxiter=3)
    assert not record.converged
    assert record.iterations == 3
    assert record.true_relative_residual == pytest.approx(recomputed(one, x), 1e-3)
    assert "not converged" in record.status
    assert "direct" in record.status


def laplace_neumann(shape):
    """Singular: constants are in the null space, and f = 1 is not in the range."""
    one = system("constant", shape)
    planes = np.moveaxis(one.operator.coefficients[0], -1, 0).copy()
    planes[0] = -planes[1:].sum(0)
    return one._replace(operator=StencilOperator.from_planes(planes, FIVE_POINT))


def changed(one, change):
    coefficients = one.operator.coefficients.copy()
    change(coefficients)
    return one._replace(operator=StencilOperator(coefficients, FIVE_POINT))


def one_nan(c):
    c[0, 3, 4, 0] = np.nan


def no_diagonal(c):
    c[..., 0] = 0


def negative(c):
    c *= -1


def shifted(c):
    c[..., 0] -= 0.15 * c[..., 0].mean()


def lopsided(c):
    c[..., 1] *= 1.5


def all_zero(c):
    c[:] = 0


@pytest.mark.parametrize("change", [one_nan, all_zero])
def test_hopeless_systems_are_refused_by_every_method(change):
    one = changed(system("two_phase", (9, 5)), change)
    for method in ("mg_pcg", "direct"):
        _, record = solve(one, method=method)
        assert not record.converged
        assert record.status.startswith("not converged")


def test_negative_definite_systems_are_solved():
    one = system("two_phase", (21, 34))
    x, record = solve(changed(one, negative))
    assert record.converged
    np.testing.assert_allclose(x, -solve(one)[0], rtol=1e-6)


@pytest.mark.parametrize("change", [no_diagonal, shifted, lopsided])
def test_multigrid_reports_systems_that_are_not_positive_definite(change):
    one = changed(system("two_phase", (21, 34)), change)
    x, record = solve(one)
    assert not record.converged
    assert not recomputed(one, x) <= RTOL
    x, record = solve(one, method="direct")  # regular all the same
    assert record.converged
    assert recomputed(one, x) <= RTOL


def test_singular_inconsistent_system_is_refused():
    _, record = solve(laplace_neumann((21, 34)))
    assert not record.converged
    assert not record.true_relative_residual <= RTOL


@pytest.mark.parametrize("error", [1e-3, np.nan])
def test_a_solver_cannot_lie_about_its_residual(error):
    one = system("two_phase", (17, 9))
    x, _ = solve(one, method="direct")
    wrong = x.copy()
    wrong[3, 3] *= 1 + error
    claimed = {
        "method": "liar",
        "iterations": 1,
        "matvecs": 1,
        "preconditioner_applications": 1,
        "seconds": 0.0,
        "relative_residual": 1e-16,
    }
    honest = results.certify(one, x, rtol=RTOL, advice="-", **claimed)
    caught = results.certify(one, wrong, rtol=RTOL, advice="try direct", **claimed)
    assert honest.converged
    assert not caught.converged
    assert "try direct" in caught.status


def test_direct_solves_sparse_matrices_and_nonsymmetric_ones():
    rng = np.random.default_rng(0)
    A = sp.random_array((40, 40), density=0.2, rng=rng) + 3 * sp.eye_array(40)
    one = LinearSystem(sp.csr_array(A), rng.standard_normal(40))
    x, record = solve(one, method="direct")
    assert record.converged
    np.testing.assert_allclose(x, np.linalg.solve(A.toarray(), one.rhs), rtol=1e-8)


def test_direct_falls_back_to_full_pivoting(monkeypatch):
    """Without pivoting the tiny diagonal wipes out the rest."""
    A = sp.csr_array([[1e-17, 1.0], [1.0, 1e-17]])
    one = LinearSystem(A, np.array([1.0, 2.0]))
    careless = {**direct.ATTEMPTS[0], "diag_pivot_thresh": 0.0}
    monkeypatch.setattr(direct, "ATTEMPTS", (careless, *direct.ATTEMPTS[1:]))
    monkeypatch.setattr(direct, "MAX_REFINEMENTS", 0)
    x, record = solve(one, method="direct")
    assert record.converged
    np.testing.assert_allclose(x, [2.0, 1.0])
    assert len(record.fallbacks) == 1
    assert "MMD_AT_PLUS_A" in record.fallbacks[0]


def test_iter_solve_is_lazy_and_keeps_the_order():
    taken = []

    def systems():
        for seed in range(3):
            taken.append(seed)
            yield system("two_phase", (8, 8), seed)

    solutions = sequence.iter_solve(systems(), method="direct")
    first, _ = next(solutions)
    assert taken == [0]
    np.testing.assert_array_equal(
        first, solve(system("two_phase", (8, 8), 0), method="direct")[0]
    )


def test_registry_names():
    assert {"direct", "mg_pcg", "petsc:<options>", "skr"} <= set(sequence.names())
    with pytest.raises(ValueError, match=r"unknown method 'gauss'.*direct.*mg_pcg"):
        sequence.iter_solve([], method="gauss")
    with pytest.raises(ValueError, match="rtol is 0"):
        sequence.iter_solve([], method="direct", rtol=0)
    with pytest.raises(ValueError, match="inner is 'bfloat16'"):
        sequence.create("mg_pcg", inner="bfloat16")


def test_multigrid_needs_64_bit_mode():
    jax.config.update("jax_enable_x64", False)
    solver = sequence.create("mg_pcg")  # what A is comes first
    with pytest.raises(RuntimeError, match="jax_enable_x64"):
        solver.solve(system("white", (5, 5)), rtol=1e-8)


@pytest.mark.parametrize(
    ("shape", "offsets", "message"),
    [
        ((2, 5, 5, 5), FIVE_POINT, "one system on a grid"),
        ((1, 5, 5, 2), ((0, 0), (0, 2)), "next neighbours"),
        ((1, 3, 3, 3, 3, 1), ((0, 0, 0, 0),), "at most three axes"),
        ((1, 5, 5, 2), ((0, 1), (1, 0)), "lack the diagonal"),
        ((1, 5, 5, 3), ((0, 0), (0, 1), (-1, 0)), "cannot be symmetric"),
        ((1, 5, 5, 2), ((0, 0), (0, 1)), r"lack \(1, 0\)"),
    ],
)
def test_multigrid_rejects_other_stencils(shape, offsets, message):
    operator = StencilOperator(np.ones(shape), offsets)
    with pytest.raises(ValueError, match=message):
        solve(LinearSystem(operator, np.ones(shape[1:-1])))


def test_multigrid_rejects_matrices_and_other_shapes():
    one = system("two_phase", (8, 9))
    with pytest.raises(TypeError, match="StencilOperator"):
        solve(LinearSystem(one.to_csr(), one.rhs))
    with pytest.raises(ValueError, match="rhs has shape"):
        solve(one._replace(rhs=np.ones((9, 8))))
    solver = sequence.create("mg_pcg")
    with pytest.raises(ValueError, match="x0 has shape"):
        solver.solve(one, rtol=RTOL, x0=np.ones(72))


UNHURRIED = pcg.Budget(1e-8, 50, np.inf, patience=0, done=0, norm=1.0, rtol=1e-8)


def spd(size, condition, seed=0):
    rng = np.random.default_rng(seed)
    Q = np.linalg.qr(rng.standard_normal((size, size)))[0]
    return Q * np.geomspace(1, condition, size) @ Q.T, rng.standard_normal(size)


@pytest.mark.parametrize("preconditioned", [False, True])
def test_cg_ends_within_the_number_of_distinct_eigenvalues(preconditioned):
    size = 12
    A, b = spd(size, 100.0)
    M = np.linalg.inv(A + np.diag([5.0] * 3 + [0.0] * 9)) if preconditioned else None
    result = pcg.pcg(
        lambda p: A @ p,
        lambda r: r if M is None else M @ r,
        jnp.asarray(b),
        UNHURRIED._replace(target=1e-10, maxiter=50),
    )
    assert int(result.iterations) <= (5 if preconditioned else size + 2)
    np.testing.assert_allclose(result.x, np.linalg.solve(A, b), rtol=1e-8)
    assert not result.breakdown


def test_cg_reports_indefinite_matrices():
    result = pcg.pcg(
        lambda p: jnp.array([1.0, -2.0]) * p,
        lambda r: r,
        jnp.ones(2),
        UNHURRIED._replace(target=1e-8, maxiter=9),
    )
    assert result.breakdown
    assert np.isfinite(result.x).all()
