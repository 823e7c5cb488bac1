import numpy as np
import pytest
import scipy.sparse as sp
from families import system
from sequences import matrix, systems, true_residual

from solvers import frozen_lu, patterns, sequence
from solvers.direct import ATTEMPTS, Factor
from solvers.sequence import LinearSystem

RTOL = 1e-8


def solver_and_records(made, **settings):
    solver = sequence.create("frozen_lu", **settings)
    records = []
    for one in made:
        x, record = solver.solve(one, rtol=RTOL)
        assert record.converged, record.status
        assert true_residual(one._replace(operator=one.to_csr()), x) <= RTOL
        records.append(record)
    return solver, records


@pytest.mark.parametrize("kind", ["spd", "nonsymmetric", "complex", "indefinite"])
def test_factors_of_one_system_serve_its_neighbours(kind):
    solver, records = solver_and_records(systems(kind, 5, drift=1e-4))
    assert solver.factorizations == 1
    for record in records[1:]:
        assert 0 < record.iterations <= 6
        assert record.preconditioner_applications == record.iterations + 1
        assert record.phases.setup < 0.1 * records[0].phases.setup
    assert records[0].iterations == 0


@pytest.mark.parametrize("size", [1, 2, 39])
def test_small_systems_take_old_factors_too(size):
    rng = np.random.default_rng(size)
    made = []
    for step in range(3):
        A = sp.diags_array(np.linspace(1, 2, size) * (1 + 1e-3 * step)).tolil()
        A[0, -1] += 1e-3 * step
        made.append(LinearSystem(A.tocsr(), rng.standard_normal(size)))
    solver, records = solver_and_records(made)
    assert solver.factorizations == 1
    assert all(record.iterations > 0 for record in records[1:])


def test_the_same_matrix_takes_one_back_substitution():
    one = systems("nonsymmetric", 1)[0]
    made = [
        one._replace(rhs=one.rhs + i, operator=one.operator.copy()) for i in range(3)
    ]
    solver, records = solver_and_records(made)
    assert solver.factorizations == 1
    for record in records:
        assert record.matvecs == record.preconditioner_applications == 1
        assert record.iterations == 0


def test_factors_are_as_sparse_as_those_of_direct():
    one = system("two_phase", (40, 42))
    direct, frozen = sequence.create("direct"), sequence.create("frozen_lu")
    direct.solve(one, rtol=RTOL)
    frozen.solve(one, rtol=RTOL)
    assert frozen.snapshot().factor.entries == direct._factors[0].entries


@pytest.mark.parametrize("form", ["stencil", "csr"])
def test_patterns_are_ordered_once_and_leave_no_trace(form, monkeypatch):
    monkeypatch.setattr(frozen_lu, "PATIENCE", 1)
    orders = []
    made = [system("two_phase_1e4", (24, 26), seed) for seed in range(3)]
    if form == "csr":
        made = [one._replace(operator=one.to_csr()) for one in made]
        original = patterns.MatrixPattern.__init__
        monkeypatch.setattr(
            patterns.MatrixPattern,
            "__init__",
            lambda self, A: orders.append(1) or original(self, A),
        )
    solver, _ = solver_and_records(made)
    assert solver.factorizations == 3
    assert len(orders) == (form == "csr")
    solver._frozen = None
    x, _ = solver.solve(made[0], rtol=RTOL)
    y, _ = sequence.create("frozen_lu").solve(made[0], rtol=RTOL)
    assert x.tobytes() == y.tobytes()


def test_far_systems_are_refactored_and_then_no_longer_tried(monkeypatch):
    monkeypatch.setattr(frozen_lu, "BREAK", 3)
    made = [system("two_phase_1e4", (24, 26), seed) for seed in range(9)]
    solver, records = solver_and_records(made)
    tried = [bool(record.iterations) for record in records]
    assert tried == [False, True, True, False, False, False, True, False, False]
    assert solver.factorizations == len(made)
    assert "old factors: given up after" in records[1].fallbacks[0]


def test_steps_never_cost_more_than_new_factors():
    made = [system("two_phase_1e4", (24, 26), seed) for seed in range(2)]
    solver = sequence.create("frozen_lu")
    solver.solve(made[0], rtol=RTOL)
    limit = solver.snapshot().affordable_steps
    _, record = solver.solve(made[1], rtol=RTOL)
    assert record.iterations == limit


def test_slow_drift_is_followed_by_refactoring():
    made = systems("spd", 12, drift=0.01)
    solver, records = solver_and_records(made)
    steps = [record.iterations for record in records]
    assert 1 < solver.factorizations < 9
    assert max(steps) > min(steps[1:])


def test_measured_costs_use_the_clock():
    solver, _ = solver_and_records(systems("spd", 2, drift=1e-5), costs="measured")
    state = solver.snapshot()
    assert 0 < state.step < 1
    assert 0 < state.price < 10
    counted, _ = solver_and_records(systems("spd", 2, drift=1e-5))
    assert counted.snapshot().price > 1e3


def test_flops_of_a_factorisation_match_a_dense_one():
    n = 40
    rng = np.random.default_rng(0)
    A = rng.standard_normal((n, n)) + n * np.eye(n)
    exact = sum(2 * (n - 1 - j) ** 2 + (n - 1 - j) for j in range(n))
    assert Factor(sp.csr_array(A), ATTEMPTS[0]).flops() == exact
    assert Factor(sp.csr_array(A + 0j), ATTEMPTS[0]).flops() == 4 * exact
    assert exact == pytest.approx(2 * n**3 / 3, rel=0.05)


def test_factors_of_another_kind_are_not_used():
    made = [
        systems("complex", 1)[0],
        systems("spd", 1)[0],
        system("two_phase", (9, 11)),
        system("two_phase", (12, 9)),
    ]
    solver, records = solver_and_records(made)
    assert solver.factorizations == 4
    assert all(record.iterations == 0 for record in records)


def test_real_factors_precondition_complex_systems():
    A = matrix("spd")
    b = np.ones(A.shape[0])
    shifted = sp.csr_array(A + 1e-3j * A.diagonal().mean() * sp.eye_array(A.shape[0]))
    solver, records = solver_and_records([LinearSystem(A, b), LinearSystem(shifted, b)])
    assert solver.factorizations == 1
    assert 0 < records[1].iterations < 15


def test_singular_matrices_are_reported_and_leave_no_factors():
    good = systems("spd", 1)[0]
    A = good.operator.tolil()
    A[3, :] = 0
    bad = good._replace(operator=sp.csr_array(A.tocsr()))
    solver = sequence.create("frozen_lu")
    solver.solve(good, rtol=RTOL)
    _, record = solver.solve(bad, rtol=RTOL)
    assert not record.converged
    assert "singular" in record.status
    assert solver.snapshot() is None
    _, record = solver.solve(good, rtol=RTOL)
    assert record.converged


@pytest.mark.parametrize("kind", ["spd", "complex"])
def test_direct_factorises_once_per_matrix(kind, monkeypatch):
    made = []
    monkeypatch.setattr(
        "solvers.direct.Factor", lambda *a: made.append(1) or Factor(*a)
    )
    one = systems(kind, 1)[0]
    others = [
        one._replace(rhs=one.rhs * i, operator=one.operator.copy()) for i in (1, 2)
    ]
    solver = sequence.create("direct")
    x, _ = solver.solve(others[0], rtol=RTOL)
    y, record = solver.solve(others[1], rtol=RTOL)
    assert len(made) == 1
    assert record.phases.setup < 0.5 * record.seconds
    np.testing.assert_allclose(y, 2 * x)
    changed = others[1].operator
    changed.data *= 2
    z, record = solver.solve(others[1], rtol=RTOL)
    assert record.converged
    assert len(made) == 2
    np.testing.assert_allclose(z, x)
    solver.reset()
    solver.solve(others[1], rtol=RTOL)
    assert len(made) == 3


def test_direct_solves_complex_right_hand_sides_of_real_matrices():
    one = systems("spd", 1)[0]
    b = one.rhs + 1j * np.roll(one.rhs, 3)
    x, record = sequence.create("direct").solve(one._replace(rhs=b), rtol=1e-12)
    assert record.converged
    assert np.iscomplexobj(x)
    assert true_residual(one._replace(rhs=b), x) <= 1e-12
