import functools
import itertools

import numpy as np
import pytest
from lines import FAST, HALF, line_of

from solvers import fast_inverse, sequence, transforms
from solvers.boundaries import Robin
from solvers.diffusion import cell_diffusion, diffusion_operator
from solvers.fast_diagonalization import Line, basis
from solvers.sequence import LinearSystem
from solvers.transforms import Dense, cost, fast_transform, transform

WALL, INSULATED, ROUND = "dirichlet", "neumann", "periodic"


def applied(kinds, r):
    """(1 + sum of T_k)^-1 r by the bases of the axes."""
    total, factors, y = 1.0, np.ones(()), r
    for axis, one in enumerate(kinds):
        total = np.add.outer(total, one.values)
        part = np.broadcast_to(one.factors, one.values.shape)
        factors = np.multiply.outer(factors, part)
        y = one.forward(y, axis)
    y = y * (factors / total)
    for axis, one in enumerate(kinds):
        y = one.backward(y, axis)
    return y


@pytest.mark.parametrize("name", [*FAST, "periodic"])
def test_transforms_by_fft_agree_with_matrix_products(name):
    for n in (3, 8, 33, 127):
        line = line_of(name, n)
        fast, dense = fast_transform(line), Dense(*basis(line))
        for axis in range(3):
            shape = np.insert([2, 4], axis, n)
            r = np.random.default_rng(n).standard_normal(shape)
            before = r.copy()
            results = []
            for one in (fast, dense):
                factors = one.factors / (1 + one.values)
                factors = factors.reshape([-1 if k == axis else 1 for k in range(3)])
                results.append(one.backward(one.forward(r, axis) * factors, axis))
            assert abs(results[0] - results[1]).max() <= 1e-12
            np.testing.assert_array_equal(r, before)


@pytest.mark.parametrize("n", [1, 2])
def test_shortest_lines(n):
    for name in FAST:
        line = line_of(name, n)
        if (fast := fast_transform(line)) is None:
            assert (name, n) == ("nodes, closed", 1)
            continue
        r = np.ones(n)
        expected = applied([Dense(*basis(line))], r)
        np.testing.assert_allclose(applied([fast], r), expected, atol=1e-14)


def test_mixed_kinds_agree():
    for names in itertools.combinations([*FAST, "periodic"], 2):
        lines = [line_of(name, n) for name, n in zip(names, (9, 14), strict=True)]
        r = np.random.default_rng(0).standard_normal((9, 14))
        fast = applied([fast_transform(line) for line in lines], r)
        mixed = applied([fast_transform(lines[0]), Dense(*basis(lines[1]))], r)
        dense = applied([Dense(*basis(line)) for line in lines], r)
        assert abs(fast - dense).max() <= 1e-12
        assert abs(mixed - dense).max() <= 1e-12


def test_other_lines_have_no_fast_transform():
    assert fast_transform(Line(9, (1.0, 2.0))) is None
    assert fast_transform(Line(9, (0.3, 0.0), HALF)) is None
    assert cost(Line(9, (1.0, 2.0))) == 81


def test_lengths_decide_by_counted_operations():
    walls = functools.partial(Line, ends=(1.0, 1.0))
    assert isinstance(transform(walls(255)), transforms.Fast)  # 512 = 2^9
    for n in (32, 64, 98, 256, 421):  # 514 and 844 have large prime factors
        assert isinstance(transform(walls(n)), Dense), n
    assert transforms.fft_steps(512) == 512 * 18
    assert transforms.fft_steps(2 * 5003) < 2 * 5003 * 5003


@pytest.mark.parametrize("build", [diffusion_operator, cell_diffusion])
@pytest.mark.parametrize(
    "pairs",
    [
        (WALL, WALL),
        (INSULATED, INSULATED),
        (ROUND, (WALL, INSULATED)),
        ((INSULATED, WALL), ROUND),
        ((INSULATED, Robin(1.5)), INSULATED, ROUND),
        (WALL, WALL, INSULATED),
        (INSULATED,),
    ],
)
def test_all_ways_to_solve_agree(build, pairs, monkeypatch):
    a = np.full((9, 12, 7)[: len(pairs)], 3.0)
    A = build(a, (0.1, 0.2, 0.15)[: len(pairs)], boundaries=pairs)
    b = np.random.default_rng(0).standard_normal(A.grid_shape)
    one = LinearSystem(A, b - b.mean())
    found = []
    for step, elimination in itertools.product((0.0, 1e9), repeat=2):
        monkeypatch.setattr(transforms, "STEP", step)
        monkeypatch.setattr(fast_inverse, "ELIMINATION", elimination)
        [(x, record)] = sequence.iter_solve([one], method="fast_direct", rtol=1e-12)
        assert record.converged, record.status
        found.append(x)
    for x in found[1:]:
        assert abs(x - found[0]).max() <= 1e-12 * abs(x).max()


def test_negative_and_indefinite_operators(monkeypatch):
    monkeypatch.setattr(fast_inverse, "ELIMINATION", 0.0)
    for sign, reaction in ((-1.0, 0.0), (1.0, -40.0)):
        A = cell_diffusion(np.ones((8, 12)), (0.1, 0.1), reaction=reaction)
        A = type(A)(sign * A.coefficients, A.offsets)
        solver = sequence.create("fast_direct")
        _, record = solver.solve(LinearSystem(A, np.ones((8, 12))), rtol=1e-11)
        assert record.converged, record.status
        assert solver._inverse.eliminates == (reaction == 0)


@pytest.mark.parametrize("reaction", [0.0, 0.7])
def test_constant_coefficients_are_recognised_along_every_axis(reaction, monkeypatch):
    monkeypatch.delattr(fast_inverse, "generalised_basis")
    pairs = (WALL, (INSULATED, WALL), ROUND)
    for build in (diffusion_operator, cell_diffusion):
        A = build(np.ones((31, 17, 9)), (0.1,) * 3, boundaries=pairs, reaction=reaction)
        solver = sequence.create("fast_direct")
        _, record = solver.solve(LinearSystem(A, np.ones(A.grid_shape)), rtol=1e-11)
        assert record.converged, record.status


def test_changes_in_place_are_noticed():
    A = cell_diffusion(np.ones((8, 9)), (0.1, 0.1))
    one = LinearSystem(A, np.ones((8, 9)))
    solver = sequence.create("fast_direct")
    x, _ = solver.solve(one, rtol=1e-11)
    A.coefficients[...] *= 2
    y, record = solver.solve(one, rtol=1e-11)
    assert record.converged, record.status
    np.testing.assert_allclose(y, x / 2, rtol=1e-13)


def test_complex_systems():
    A = cell_diffusion(np.ones((8, 9)), (0.1, 0.1))
    b = np.ones((8, 9)) + 1j * np.arange(9)
    solver = sequence.create("fast_direct")
    _, record = solver.solve(LinearSystem(A, b), rtol=1e-11)
    assert record.converged, record.status
    shifted = type(A)(A.coefficients + 1e-3j, A.offsets)
    _, record = solver.solve(LinearSystem(shifted, b), rtol=1e-11)
    assert "A is complex" in record.status
