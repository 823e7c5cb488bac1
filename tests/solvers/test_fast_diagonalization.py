import functools

import numpy as np
import pytest
import scipy.sparse.linalg as spla
from lines import HALF, LINES, line_of

from solvers import sequence
from solvers.boundaries import Robin, control_volumes
from solvers.diffusion import cell_diffusion, diffusion_operator
from solvers.fast_diagonalization import Line, basis, generalised_basis
from solvers.separable import basis_of, separate
from solvers.sequence import LinearSystem
from solvers.star import planes_of, star_of

WALL, INSULATED, ROUND, TRANSFER = "dirichlet", "neumann", "periodic", Robin(1.5)


@pytest.mark.parametrize("name", [*LINES, "periodic"])
def test_bases_diagonalise_the_tridiagonal_matrices(name):
    for n in (3, 4, 8, 33, 128):
        line = line_of(name, n)
        T, W = line.matrix(), line.weights()
        values, Q = basis(line)
        assert abs(T @ Q - W[:, None] * Q * values).max() <= 1e-13
        assert abs(Q.T @ (W[:, None] * Q) - np.eye(n)).max() <= 1e-13
        assert not Q.flags.writeable


@pytest.mark.parametrize("n", [1, 2])
def test_bases_of_shortest_lines(n):
    for name in LINES:
        line = line_of(name, n)
        values, Q = basis(line)
        expected = generalised_basis(line.matrix(), line.weights())
        np.testing.assert_allclose(np.sort(values), expected.values, atol=1e-14)
        assert abs(Q.T @ (line.weights()[:, None] * Q) - np.eye(n)).max() <= 1e-14


def test_matrices_are_those_of_the_boundary_conditions():
    expected = [[3, -1, 0], [-1, 2, -1], [0, -1, 1.5]]
    np.testing.assert_array_equal(Line(3, (2.0, 0.5)).matrix(), expected)
    expected = [[2, -1, -1], [-1, 2, -1], [-1, -1, 2]]
    np.testing.assert_array_equal(Line(3, periodic=True).matrix(), expected)
    np.testing.assert_array_equal(Line(3, halves=HALF).weights(), [0.5, 1, 0.5])


def field(kind, shape):
    if kind == "constant":
        return np.full(shape, 3.0)
    lines = (
        np.exp(np.random.default_rng(k).standard_normal(n)) for k, n in enumerate(shape)
    )
    return functools.reduce(np.multiply.outer, lines)


def system(build, kind, pairs, reaction=0.0):
    shape = (9, 12, 7)[: len(pairs)]
    A = build(
        field(kind, shape),
        (0.1, 0.2, 0.15)[: len(pairs)],
        boundaries=pairs,
        reaction=reaction,
    )
    b = np.random.default_rng(0).standard_normal(A.grid_shape)
    return LinearSystem(A, b)


@pytest.mark.parametrize("build", [diffusion_operator, cell_diffusion])
@pytest.mark.parametrize(
    ("kind", "pairs", "reaction"),
    [
        ("constant", (WALL, WALL), 0.0),
        ("constant", (INSULATED, (WALL, INSULATED)), 0.7),
        ("constant", (ROUND, TRANSFER), 0.0),
        ("constant", ((INSULATED, TRANSFER), INSULATED, ROUND), 0.7),
        ("constant", (ROUND, INSULATED), -40.0),  # indefinite
        ("constant", (INSULATED,), 0.7),
        ("product", ((WALL, INSULATED), INSULATED), 0.0),
        ("product", (ROUND, INSULATED, (INSULATED, WALL)), 0.0),
    ],
)
def test_separable_operators_are_solved_to_rounding(build, kind, pairs, reaction):
    one = system(build, kind, pairs, reaction)
    [(x, record)] = sequence.iter_solve([one], method="fast_direct", rtol=1e-11)
    assert record.converged, record.status
    assert record.matvecs == 1
    exact = spla.spsolve(one.to_csr().tocsc(), one.rhs.ravel())
    np.testing.assert_allclose(x.ravel(), exact, atol=1e-11 * abs(exact).max())


@pytest.mark.parametrize("kind", ["constant", "product"])
@pytest.mark.parametrize("pairs", [(INSULATED, ROUND), (INSULATED, INSULATED, ROUND)])
def test_singular_systems_get_the_solution_of_mean_zero(kind, pairs):
    one = system(diffusion_operator, kind, pairs)
    consistent = one._replace(rhs=one.rhs - one.rhs.mean())
    solver = sequence.create("fast_direct")
    x, record = solver.solve(consistent, rtol=1e-11)
    assert record.converged, record.status
    assert abs(x.mean()) <= 1e-15 * abs(x).max() * x.size
    _, record = solver.solve(one, rtol=1e-8)
    assert "subtract the mean of b" in record.status
    assert not record.converged


def test_other_operators_are_refused_with_a_reason():
    n1, n2 = np.meshgrid(np.arange(6.0), np.arange(5.0), indexing="ij")
    cases = {
        "links along axis 0": {"a": 1 + n1 * n2},
        "reaction term or sides": {"a": np.ones((6, 5)), "reaction": n1 * n2},
        "both signs": {"a": np.where(n1 < 3, 1.0, -1.3)},
    }
    solver = sequence.create("fast_direct")
    for reason, settings in cases.items():
        a = settings.pop("a")
        one = LinearSystem(cell_diffusion(a, (1, 1), **settings), np.ones((6, 5)))
        for _ in range(2):  # the second time what is kept gives the answer
            x, record = solver.solve(one, rtol=1e-8)
            assert not record.converged
            assert reason in record.status
            assert "try method 'fft_pcg'" in record.status
            assert np.isnan(x).all()


def test_sums_of_reactions_are_separable():
    n1, n2 = np.meshgrid(np.arange(6.0), np.arange(5.0), indexing="ij")
    A = cell_diffusion(np.ones((6, 5)), (1, 1), reaction=n1 + n2**2)
    one = LinearSystem(A, np.ones((6, 5)))
    [(_, record)] = sequence.iter_solve([one], method="fast_direct", rtol=1e-12)
    assert record.converged, record.status


def test_slightly_disturbed_operators_are_refined():
    rng = np.random.default_rng(0)
    a = 1 + 3e-8 * rng.standard_normal((12, 9))
    one = LinearSystem(cell_diffusion(a, (1, 1)), rng.standard_normal((12, 9)))
    [(_, record)] = sequence.iter_solve([one], method="fast_direct", rtol=1e-12)
    assert record.converged, record.status
    assert record.matvecs == 2


def test_factors_multiply_to_the_operator():
    one = system(diffusion_operator, "product", ((INSULATED, WALL), ROUND, INSULATED))
    star = star_of(*planes_of(one.operator, "-"), one.operator.periodic)
    matrices, weights = separate(star)
    total = 0.0
    for axis, T in enumerate(matrices):
        parts = [np.diag(w) for w in weights]
        parts[axis] = T
        total = total + functools.reduce(np.kron, parts)
    A = one.to_csr().toarray()
    np.testing.assert_allclose(total, A, atol=1e-13 * abs(A).max())


def test_constant_coefficients_get_closed_formulas():
    for name in LINES:
        line = line_of(name, 9)
        values, vectors = basis_of(7 * line.matrix(), line.weights(), periodic=False)
        if name not in ("Robin", "cells, ghost row"):
            np.testing.assert_array_equal(vectors, basis(line).vectors)
            np.testing.assert_array_equal(values, 7 * basis(line).values)
        Q, W = vectors, line.weights()[:, None]
        assert abs(7 * line.matrix() @ Q - W * Q * values).max() <= 1e-13


def test_bytes_do_not_depend_on_what_was_solved_before():
    systems = [system(cell_diffusion, "product", (WALL, INSULATED))]
    systems.insert(0, system(cell_diffusion, "constant", (WALL, INSULATED)))
    systems.insert(0, systems[1]._replace(rhs=np.ones((9, 12))))
    together = sequence.solve_sequence(systems, method="fast_direct")
    for one, x in zip(systems, together.solutions, strict=True):
        [(alone, _)] = sequence.iter_solve([one], method="fast_direct")
        assert alone.tobytes() == x.tobytes()


def test_not_finite_or_zero_systems():
    one = system(cell_diffusion, "constant", (WALL, WALL))
    broken = one._replace(rhs=np.full(one.rhs.shape, np.nan))
    [(_, record)] = sequence.iter_solve([broken], method="fast_direct")
    assert "b holds 108 NaN" in record.status
    idle = one._replace(rhs=np.zeros(one.rhs.shape))
    [(x, record)] = sequence.iter_solve([idle], method="fast_direct")
    assert record.converged
    assert not x.any()


def test_second_order_with_control_volumes():
    """-u'' = pi^2 cos(pi x) between closed ends; u has mean zero."""
    errors = []
    for n in (17, 33):
        x = np.linspace(0, 1, n)
        A = diffusion_operator(np.ones(n), (1 / (n - 1),), boundaries=INSULATED)
        (volume,) = control_volumes((n,), INSULATED)
        b = np.pi**2 * np.cos(np.pi * x) * volume
        one = LinearSystem(A, b - b.mean())
        [(u, _)] = sequence.iter_solve([one], method="fast_direct")
        errors.append(abs(u - np.cos(np.pi * x)).max())
    assert errors[0] / errors[1] == pytest.approx(4, 0.05)
