import inclusions
import numpy as np
import pytest
import scipy.sparse.linalg as spla
from families import system

from solvers import pooling, sequence

RTOL = 1e-6


def counts(systems, method, **settings):
    result = sequence.solve_sequence(systems, method=method, rtol=RTOL, **settings)
    assert all(record.converged for record in result.records)
    return np.array([record.matvecs for record in result.records])


@pytest.fixture(scope="module")
def fixed_layout():
    return inclusions.systems(8, 40)


@pytest.mark.parametrize("harvest", ["cg", "gcrodr"])
def test_a_pool_pays_where_the_layout_is_fixed(fixed_layout, harvest):
    settings = {"preconditioner": "ssor"}
    plain = counts(fixed_layout, "cg", **settings)
    pooled = counts(fixed_layout, "deflated_cg", harvest=harvest, k=20, **settings)
    assert pooled[5:].mean() < 0.5 * plain[5:].mean()
    assert pooled[0] == plain[0]


def test_the_frozen_space_costs_k_products_per_matrix_and_none_for_the_same(
    fixed_layout,
):
    solver = sequence.create("deflated_cg", k=20, preconditioner="ssor")
    for one in fixed_layout[:5]:
        _, record = solver.solve(one, rtol=RTOL)
    assert solver.pool.mode == "frozen"
    W = solver.pool.carried.W
    assert record.matvecs == record.iterations + 20 + 1
    assert record.recycle_dim == 20
    assert record.phases.carry_over > 0
    again = fixed_layout[4]._replace(rhs=np.roll(fixed_layout[4].rhs, 7, axis=0))
    again = again._replace(operator=again.operator.copy())
    _, record = solver.solve(again, rtol=RTOL)
    assert record.matvecs == record.iterations + 1
    assert solver.pool.carried.W is W


def test_records_of_the_pool_are_reproducible(fixed_layout):
    settings = {"method": "deflated_cg", "preconditioner": "ssor", "rtol": RTOL}
    one = sequence.solve_sequence(fixed_layout[:5], **settings)
    two = sequence.solve_sequence(fixed_layout[:5], **settings)
    for x, y in zip(one.solutions, two.solutions, strict=True):
        assert x.tobytes() == y.tobytes()


def moving(num):
    """Log-normal fields without outlying eigenvalues, new ones every time."""
    return [system("smooth", (12, 13), seed) for seed in range(num)]


def test_a_pool_that_never_paid_is_dropped_for_a_while(monkeypatch):
    monkeypatch.setattr(pooling, "FIRST_BREAK", 3)
    settings = {"k": 30, "num_harvest": 2}
    solver = sequence.create("deflated_cg", **settings)
    solver.pool = pooling.Pool(pause=3)
    modes, notes = [], []
    for one in moving(22):
        modes.append(solver.pool.mode)
        _, record = solver.solve(one, rtol=RTOL)
        assert record.converged
        notes.append(record.fallbacks)
        if modes[-1] == "plain":
            assert record.recycle_dim == 0
    round_ = ["harvest"] * 2 + ["frozen"] * 2
    assert modes[:11] == [*round_, *["plain"] * 3, *round_]
    assert modes[11:17] == ["plain"] * 6  # the break has doubled
    assert modes[17] == "harvest"
    assert "pool dropped" in notes[3][0]
    assert not any(notes[:3])


def test_a_pool_that_used_to_pay_is_harvested_anew(fixed_layout):
    solver = sequence.create("deflated_cg", k=20, preconditioner="ssor")
    for one in fixed_layout:
        solver.solve(one, rtol=RTOL)
    assert solver.pool.paid == 5
    other = inclusions.systems(7, 40, per_axis=3, seed=5)
    plain = counts(other, "cg", preconditioner="ssor")
    records = [solver.solve(one, rtol=RTOL)[1] for one in other]
    assert all(record.converged for record in records)
    assert any("a new one is harvested" in str(r.fallbacks) for r in records[:2])
    assert solver.pool.mode == "frozen"
    assert records[-1].matvecs < 0.5 * plain[-1]


def test_a_space_that_fails_falls_back_to_plain_cg(fixed_layout, monkeypatch):
    solver = sequence.create("deflated_cg", k=20, preconditioner="ssor")
    for one in fixed_layout[:4]:
        solver.solve(one, rtol=RTOL)
    broken = solver.pool.carried._replace(
        W=solver.pool.carried.W * np.nan, space=None, memory=None
    )
    plain = pooling.Plain(100, 6.0)
    solver.pool = pooling.Pool(mode="frozen", carried=broken, plain=plain)
    _, record = solver.solve(fixed_layout[5], rtol=RTOL)
    assert record.converged
    assert "deflated CG" in record.fallbacks[0]
    assert solver.pool.carried is None


def test_recycled_cg_improves_its_space(fixed_layout):
    settings = {"preconditioner": "ssor", "k": 20}
    plain = counts(fixed_layout, "cg", preconditioner="ssor")
    recycled = counts(fixed_layout, "recycled_cg", **settings)
    assert recycled[0] == plain[0]
    assert recycled[-3:].mean() < 0.5 * plain[-3:].mean()
    once = counts(fixed_layout, "recycled_cg", max_windows=1, **settings)
    assert recycled[1] < once[1]


def test_recycled_cg_applies_a_new_preconditioner_to_its_space(fixed_layout):
    solver = sequence.create("recycled_cg", k=20, preconditioner="ssor")
    for one in fixed_layout[:3]:
        _, record = solver.solve(one, rtol=RTOL)
    assert record.preconditioner_applications == record.iterations + 20
    assert record.matvecs == record.iterations + 20 + 1


def test_recycled_cg_keeps_its_products_while_the_matrix_stays():
    one = inclusions.systems(1, 32)[0]
    rng = np.random.default_rng(0)
    solver = sequence.create("recycled_cg", k=10, preconditioner="jacobi")
    for _ in range(3):
        new = one._replace(rhs=rng.standard_normal(one.rhs.shape))
        _, record = solver.solve(new, rtol=RTOL)
    assert record.recycle_dim == 10
    assert record.matvecs == record.iterations + 1
    assert record.preconditioner_applications <= record.iterations + 1


def test_the_space_survives_another_preconditioner(fixed_layout):
    """W lives in the variable of x: it does not depend on M."""
    solver = sequence.create("deflated_cg", k=20, preconditioner="ssor")
    for one in fixed_layout[:5]:
        solver.solve(one, rtol=RTOL)
    other = fixed_layout[5]
    other = other._replace(preconditioning_matrix=fixed_layout[0].operator)
    _, record = solver.solve(other, rtol=RTOL)
    _, plain = sequence.create("cg", preconditioner="ssor").solve(other, rtol=RTOL)
    assert record.converged
    assert record.iterations < 0.6 * plain.iterations


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "k", "plain_count", "pool_count"),
    # Spec 9.2: 359 and 61 products in 2-D, 199 and 50 in 3-D.
    [
        ({"n": 128, "dim": 2, "per_axis": 4}, 20, 359, 61),
        ({"n": 32, "dim": 3, "per_axis": 3}, 30, 199, 50),
    ],
)
@pytest.mark.parametrize("harvest", ["cg", "gcrodr"])
def test_counts_of_the_specification(size, k, plain_count, pool_count, harvest):
    pytest.importorskip("petsc4py")
    systems = inclusions.systems(9, **size)
    plain = counts(systems, "cg", preconditioner="icc0")
    pooled = counts(systems, "deflated_cg", k=k, preconditioner="icc0", harvest=harvest)
    assert plain[4:].mean() == pytest.approx(plain_count, rel=0.06)
    assert pooled[4:].mean() == pytest.approx(pool_count, rel=0.08)
    if harvest == "cg":  # one cold solve and a little more
        assert pooled[:3].sum() < 2.1 * plain[0]


def test_flux_matrices_of_the_test_problem_are_exact_for_linear_solutions():
    """Constant a: the five-point Laplacian with a zero row of ghost cells."""
    A = inclusions.flux_matrix(np.full((6, 6), 2.0)).toarray()
    assert np.allclose(A, A.T)
    row = A[7 + 6 * 2].reshape(6, 6) / 36  # an inner cell
    assert np.count_nonzero(row) == 5
    assert row.sum() == pytest.approx(0)
    assert A[0].sum() / 36 == pytest.approx(4.0)
    assert spla.eigsh(A, k=1, sigma=0)[0][0] > 0


def guided(num, *, first=False):
    """Systems with the solution 1, and a start that is off by 2e-6 for each.

    Without `first`, system 0 has no start.
    """
    made, starts = [], []
    for i, one in enumerate(inclusions.systems(num, 32)):
        x = np.ones(one.rhs.size)
        made.append(one._replace(rhs=(one.operator @ x).reshape(one.rhs.shape)))
        start = ((1 + 2e-6 * (i > 0)) * x).reshape(one.rhs.shape)
        starts.append(start if i or first else None)
    return made, starts


def test_a_pool_is_compared_with_solves_from_starts_as_good():
    """The plain count of a cold solve says nothing about solves from good guesses."""
    made, starts = guided(9)
    solver = sequence.create("deflated_cg", preconditioner="ssor")
    plain = sequence.create("cg", preconditioner="ssor")
    counts, notes = [], []
    for one, x0 in zip(made, starts, strict=True):
        _, record = solver.solve(one, rtol=1e-6, x0=x0)
        _, other = plain.solve(one, rtol=1e-6, x0=x0)
        counts.append((record.matvecs, other.matvecs))
        notes.append(" ".join(record.fallbacks))
    assert solver.pool.mode == "plain"
    assert notes[3] == "solved plainly to compare"
    assert sum("pool dropped" in note for note in notes) == 1
    assert counts[-1][0] == counts[-1][1]


def test_plain_counts_are_per_decade():
    plain = pooling.Plain(120, 6.0)
    assert plain.expected(2.0) == pytest.approx(40)
    assert plain.like(3.1)
    assert not plain.like(2.9)
    assert not plain.like(12.1)


def test_a_first_system_that_starts_from_its_solution_is_no_comparison():
    made, starts = guided(1, first=True)
    settings = {"preconditioner": "ssor", "k": 20}
    solver = sequence.create("deflated_cg", **settings)
    _, record = solver.solve(made[0], rtol=RTOL, x0=starts[0])
    assert record.converged
    assert record.iterations == 0
    assert solver.pool == pooling.Pool()
    records = [solver.solve(one, rtol=RTOL)[1] for one in inclusions.systems(8, 32)]
    assert solver.pool.mode == "frozen"
    assert solver.pool.paid == 5
    assert solver.pool.plain.products == records[0].iterations


def test_starts_from_the_solution_leave_a_pool_alone(fixed_layout):
    solver = sequence.create("deflated_cg", preconditioner="ssor")
    for one in fixed_layout[:5]:
        x, _ = solver.solve(one, rtol=RTOL)
    before = solver.pool
    again = fixed_layout[4]
    _, record = solver.solve(again, rtol=RTOL, x0=x)
    assert record.matvecs == 1
    assert solver.pool is before


def test_plain_solves_keep_the_comparison_up_to_date(fixed_layout, monkeypatch):
    monkeypatch.setattr(pooling, "PROBE_EVERY", 5)
    solver = sequence.create("deflated_cg", preconditioner="ssor", k=20)
    records = [solver.solve(one, rtol=RTOL)[1] for one in fixed_layout]
    assert [r.fallbacks for r in records if r.fallbacks] == [
        ("solved plainly to compare",)
    ]
    probe = next(r for r in records if r.fallbacks)
    assert records.index(probe) == 6
    assert probe.recycle_dim == 0
    assert solver.pool.plain.products == probe.iterations
    assert records[-1].recycle_dim == 20


def test_a_plain_solve_that_fails_is_no_count(fixed_layout):
    solver = sequence.create("deflated_cg", preconditioner="ssor", k=20)
    _, record = solver.solve(fixed_layout[0], rtol=RTOL, maxiter=100)
    assert not record.converged
    for one in fixed_layout[1:6]:
        _, record = solver.solve(one, rtol=RTOL)
        assert record.converged
    assert solver.pool.plain.products == np.inf
    assert solver.pool.paid == 3


@pytest.mark.parametrize("method", ["recycled_cg", "deflated_cg", "cg", "skr"])
@pytest.mark.parametrize(("preconditioner", "frozen"), [("ssor", True), ("lu", False)])
def test_a_line_goes_on_with_its_own_preconditioner(method, preconditioner, frozen):
    """A, B cold, then the line of A again: M is that of A, not of B."""
    one, two = inclusions.systems(2, 20)
    scale = np.geomspace(1, 1e3, one.rhs.size)
    other = two.operator.multiply(scale[:, None]).multiply(scale).tocsr()
    made = [one, two._replace(operator=other), two]
    settings = {"method": method, "preconditioner": preconditioner, "frozen": frozen}
    settings |= {} if method == "cg" else {"k": 8}
    branched = sequence.solve_sequence(made, parents=[-1, -1, 0], **settings)
    straight = sequence.solve_sequence([one, two], **settings)
    assert branched.records[2].converged
    assert branched.records[2].matvecs == straight.records[1].matvecs
    assert branched.solutions[2].tobytes() == straight.solutions[1].tobytes()


def test_products_with_another_preconditioner_are_not_used_again():
    """A space back with its matrix, but under the M that came in between."""
    one = inclusions.systems(1, 24)[0]
    base = np.random.default_rng(0).standard_normal((3, *one.rhs.shape))
    first, second, third = (one._replace(rhs=b) for b in base)
    P = inclusions.systems(2, 24, seed=7)[1].operator
    solver = sequence.create("recycled_cg", k=8, preconditioner="ssor")
    solver.solve(first, rtol=RTOL)
    solver.solve(second._replace(preconditioning_matrix=P), rtol=RTOL)
    state = solver.snapshot()
    solver.solve(first, rtol=RTOL)
    solver.restore(state._replace(preconditioner=solver.preconditioner.snapshot()))
    _, record = solver.solve(third, rtol=RTOL)
    assert record.converged
    assert record.preconditioner_applications >= record.iterations + 8
    solver.restore(state)
    _, record = solver.solve(third._replace(preconditioning_matrix=P), rtol=RTOL)
    assert record.preconditioner_applications <= record.iterations + 1
