"""The strategy table on made-up traits, and what real systems are found to be."""

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as spla

from solvers import automatic, sequence, strategy
from solvers.diffusion import diffusion_operator
from solvers.results import certify
from solvers.sequence import LinearSystem, solve_sequence
from solvers.stencils import StencilOperator
from solvers.strategy import Traits, choose, describe

GRID = {"kind": "spd", "star": True, "num_unknowns": 10_000}


@pytest.mark.parametrize(
    ("traits", "method", "words"),
    [
        ({**GRID, "num_dims": 2, "separable": True}, "fast_direct", "transforms solve"),
        ({**GRID, "num_dims": 2, "contrast": 1e4, "step": 9}, "mg_pcg", "2-D grid"),
        ({**GRID, "num_dims": 2, "step": 0.1}, "mg_pcg", "a dozen steps"),
        ({**GRID, "num_dims": 3, "contrast": 1e4, "step": 0.3}, "fft_pcg", "smooth"),
        ({**GRID, "num_dims": 3, "contrast": 4, "step": 1.3}, "mg_pcg", "contrast 4)"),
        ({**GRID, "num_dims": 2, "step": 0.1, "separable": True}, "fast_direct", ""),
        ({**GRID, "num_dims": 1, "step": 9, "separable": True}, "direct", ""),
        ({**GRID, "num_dims": 3, "contrast": 1e3, "step": 7}, "mg_pcg", "3-D grid"),
        ({**GRID, "num_dims": 1, "contrast": 1e3, "step": 7}, "direct", ""),
        ({**GRID, "num_dims": 2, "same_matrix": True}, "direct", "factorised once"),
        (
            {**GRID, "num_dims": 3, "same_matrix": True, "num_unknowns": 10**6},
            "fft_pcg",
            "3-D",
        ),
        ({"num_unknowns": 9000, "same_matrix": True}, "direct", "factorised once"),
        ({"num_unknowns": 9000, "kind": "spd"}, "direct", "factors of 9000 unknowns"),
        ({"num_unknowns": 9000, "old_factors": 0.5}, "frozen_lu", "takes 50% of"),
        ({"num_unknowns": 9000, "old_factors": 0.9}, "direct", "affordable"),
        (
            {"num_unknowns": 9000, "old_factors": 0.3, "preconditioner_given": True},
            "bicgstab",
            "30% of the work",
        ),
        (
            {"num_unknowns": 9000, "is_complex": True, "preconditioner_given": True},
            "direct",
            "affordable",
        ),
        ({"num_unknowns": 10**6, "kind": "spd"}, "deflated_cg", "1000000 unknowns"),
        ({"num_unknowns": 10**6}, "bicgstab", "too large"),
        ({"num_unknowns": 10**5, "num_dims": 3}, "bicgstab", "too large"),
        ({"num_unknowns": 9, "kind": "spd", "has_entries": False}, "cg", "only the"),
        ({"num_unknowns": 9, "has_entries": False}, "skr", "only the action"),
    ],
)
def test_the_table_gives(traits, method, words):
    choice = choose(Traits(**traits))
    assert choice.method == method
    assert words in choice.reason
    assert "{" not in choice.reason


def test_the_next_row_holds_without_a_method():
    traits = Traits(**GRID, num_dims=3, contrast=1e3, step=0.1)
    assert choose(traits).method == "fft_pcg"
    assert choose(traits, without=("fft_pcg",)).method == "mg_pcg"
    assert choose(traits, without=("fft_pcg", "mg_pcg")).method == "direct"
    with pytest.raises(ValueError, match="no method is left"):
        choose(traits, without={row.method for row in strategy.TABLE})


def test_the_table_sets_what_its_first_row_for_a_method_says():
    traits = Traits(**GRID, num_dims=2, contrast=1e4, step=9.0, separable=True)
    assert choose(traits).method == "fast_direct"
    assert strategy.settings("mg_pcg", traits) == {"inner": "float64"}
    for contrast, step in ((9.0, 9.0), (1e4, 1.0)):  # without jumps it is not rough
        mild = Traits(**GRID, num_dims=2, contrast=contrast, step=step)
        assert strategy.settings("mg_pcg", mild) == {"inner": "float32"}
    assert strategy.settings("minres", traits) == {}


def test_rows_name_methods_that_exist_and_take_their_settings():
    for row in strategy.TABLE:
        sequence.create(row.method, **row.settings).close()


def darcy(n, num=2, dims=2, log_std=0.3, seed=0):
    """Log-normal Darcy systems of smooth coefficients, n nodes per axis."""
    rng = np.random.default_rng(seed)
    x = np.meshgrid(*dims * [np.linspace(0, 1, n)], indexing="ij")
    systems = []
    for _ in range(num):
        wave = sum(c * y for c, y in zip(1 + rng.random(dims), x, strict=True))
        operator = diffusion_operator(np.exp(log_std * wave**2), dims * [1 / (n - 1)])
        systems.append(LinearSystem(operator, np.ones(operator.grid_shape)))
    return systems


def test_systems_on_grids_are_described():
    traits = describe(darcy(9, dims=3))
    assert (traits.num_unknowns, traits.num_dims, traits.kind) == (343, 3, "spd")
    assert traits.star
    assert (traits.same_matrix, traits.separable, traits.singular) == 3 * (False,)
    assert 0.1 < traits.step < 1
    assert 2 < traits.contrast < 1e3
    assert traits.old_factors == np.inf  # not tried where the grid decides
    assert describe(darcy(9, log_std=0.0)).separable
    assert describe(2 * darcy(9, 1)).same_matrix
    one, other = darcy(9)
    assert not describe([one, one, other]).same_matrix  # nor do two stand for all
    walls = diffusion_operator(np.ones((9, 9)), (1, 1), boundaries="neumann")
    assert describe([LinearSystem(walls, np.zeros((9, 9)))]).singular


def random_matrix(n=60, shift=3.0, seed=0):
    rng = np.random.default_rng(seed)
    A = sp.random_array((n, n), density=0.05, rng=rng) + shift * sp.eye_array(n)
    return sp.csr_array(A)


def test_matrices_are_described():
    b, A = np.ones(60), random_matrix(shift=6.0)
    assert describe([LinearSystem(A, b)]).kind == "general"
    symmetric = (A + A.T) / 2
    assert describe([LinearSystem(symmetric, b)]).kind == "spd"  # dominant diagonal
    indefinite = symmetric - 5.0 * sp.eye_array(60)
    assert describe([LinearSystem(indefinite, b)]).kind == "symmetric"
    assert describe([LinearSystem(indefinite, b)], spd=True).kind == "spd"
    assert describe([LinearSystem(1j * A, b)]).is_complex
    action = spla.aslinearoperator(A)
    assert not describe([LinearSystem(action, b)]).has_entries
    with pytest.raises(ValueError, match="systems is empty"):
        describe([])


def test_what_old_factors_are_worth_is_counted():
    b = np.random.default_rng(1).standard_normal(400)
    A = random_matrix(400, shift=6.0)
    near = A + 1e-3 * random_matrix(400, seed=1)
    far = random_matrix(400, shift=6.0, seed=2)
    systems = [LinearSystem(matrix, b) for matrix in (A, near, far)]
    assert 0 < describe(systems[:2]).old_factors < 0.5
    assert describe(systems[::2]).old_factors > describe(systems[:2]).old_factors
    given = [system._replace(preconditioning_matrix=near) for system in systems]
    assert describe(given[:2]).old_factors <= 1e-9
    assert describe(systems[:2]) == describe(systems[:2])
    A, _, far = systems
    assert describe([A, A, far]).old_factors == describe([A, far]).old_factors


def test_automatic_goes_on_with_the_method_of_the_table():
    made = darcy(9, 3)
    result = solve_sequence(made, method="auto", rtol=1e-8)
    for record in result.records:
        assert record.converged
        assert record.method == "mg_pcg"
        assert record.fallbacks == ()
        assert "auto chose mg_pcg: symmetric positive definite" in record.status


def test_automatic_learns_from_the_second_system_whether_the_matrix_stays():
    A, b = random_matrix(400, shift=6.0), np.ones(400)
    near = [A + 1e-3 * random_matrix(400, seed=i) for i in range(4)]
    for matrices, method in (([A] * 4, "direct"), (near, "frozen_lu")):
        systems = [LinearSystem(matrix, b) for matrix in matrices]
        records = solve_sequence(systems, method="auto").records
        assert [r.method for r in records] == ["direct", method, method, method]
        assert all(r.converged for r in records)


def test_automatic_decides_again_when_the_matrix_does_not_stay_after_all():
    A, b = random_matrix(400, shift=6.0), np.ones(400)
    near = [A + 1e-3 * random_matrix(400, seed=i) for i in range(3)]
    systems = [LinearSystem(matrix, b) for matrix in (A, A, *near)]
    records = solve_sequence(systems, method="auto").records
    assert [r.method for r in records] == [*2 * ["direct"], *3 * ["frozen_lu"]]
    assert all(r.converged and not r.fallbacks for r in records)


def test_automatic_decides_again_when_its_method_refuses_a_system(monkeypatch):
    """Constant coefficients in the first two systems say nothing about the third."""
    fast = strategy.Row("fast_direct", {}, lambda t: t.separable, "separable")
    cg = strategy.Row("cg", {}, lambda t: True, "any other")
    monkeypatch.setattr(strategy, "TABLE", (fast, cg))
    [one] = darcy(9, 1, log_std=0.0)
    double = StencilOperator(2 * one.operator.coefficients, one.operator.offsets)
    systems = [one, one._replace(operator=double), *darcy(9, 3)]
    solver = sequence.create("auto")
    described, describe = [], strategy.describe
    monkeypatch.setattr(
        "solvers.automatic.describe",
        lambda systems, **_: described.append(len(systems)) or describe(systems),
    )
    records = [solver.solve(system, rtol=1e-8)[1] for system in systems]
    assert [r.method for r in records] == [*2 * ["fast_direct"], *3 * ["cg"]]
    assert all(r.converged for r in records)
    assert [len(r.fallbacks) for r in records] == [0, 0, 1, 0, 0]
    assert "not separable" in records[2].fallbacks[0]
    assert "auto chose cg: any other" in records[2].status
    assert described == [1, 2, 2]


def test_automatic_looks_again_at_few_systems_that_are_not_solved(monkeypatch):
    row = strategy.Row("minres", {}, lambda t: True, "for the test")
    monkeypatch.setattr(strategy, "TABLE", (row,))
    monkeypatch.setattr(
        "solvers.short_recurrences.MINRES.solve",
        lambda self, system, **_: (0 * system.rhs, unsolved(system)),
    )
    looks, describe = [], strategy.describe
    monkeypatch.setattr(
        "solvers.automatic.describe",
        lambda systems, **_: looks.append(systems) or describe(systems),
    )
    records = solve_sequence(darcy(5, 9), method="auto").records
    assert {r.method for r in records} == {"direct"}
    assert {len(r.fallbacks) for r in records} == {1}
    assert len(looks) == 2 + automatic.MAX_LOOKS


@pytest.fixture
def cg_first(monkeypatch):
    """A table that begins with conjugate gradients."""
    row = strategy.Row("cg", {}, lambda t: not t.is_complex, "for the test")
    monkeypatch.setattr(strategy, "TABLE", (row, *strategy.TABLE))


@pytest.mark.usefixtures("cg_first")
def test_automatic_decides_again_for_another_kind():
    complex_one = LinearSystem(sp.eye_array(3).tocsr() * 1j, np.ones(3))
    systems = [*darcy(9, 2), complex_one, *darcy(12, 2)]
    records = solve_sequence(systems, method="auto").records
    assert [r.method for r in records] == [*2 * ["cg"], "direct", *2 * ["cg"]]
    assert all(r.converged and not r.fallbacks for r in records)


@pytest.mark.parametrize("fits", [True, False])
def test_automatic_falls_back_and_says_so(monkeypatch, fits):
    row = strategy.Row("minres", {}, lambda t: True, "for the test")
    monkeypatch.setattr(strategy, "TABLE", (row,))
    monkeypatch.setattr(
        "solvers.short_recurrences.MINRES.solve",
        lambda self, system, **_: (0 * system.rhs, unsolved(system)),
    )
    if not fits:
        monkeypatch.setattr(strategy, "MAX_PLANE_FACTORS", 10)
    [record] = solve_sequence(darcy(12, 1), method="auto").records
    assert record.converged
    assert record.method == ("direct" if fits else "cg")
    assert record.fallbacks == ("minres: not converged: for the test; try again",)
    assert "auto chose minres: for the test" in record.status


def unsolved(system):
    """The record of a solve that gave zero."""
    return certify(
        system,
        0 * system.rhs,
        rtol=1e-8,
        advice="try again",
        failure="for the test",
        method="minres",
        iterations=1,
        matvecs=1,
        preconditioner_applications=0,
        seconds=0.0,
        relative_residual=1.0,
    )


@pytest.mark.usefixtures("cg_first")
def test_automatic_starts_from_x0():
    [system] = darcy(12, 1)
    solver = sequence.create("auto")
    x, _ = solver.solve(system, rtol=1e-10)
    _, record = solver.solve(system, rtol=1e-8, x0=x)
    assert (record.method, record.iterations) == ("cg", 0)
    solver.reset()
    assert solver.choice is None
    solver.close()


def test_automatic_does_without_jax_in_32_bit(monkeypatch):
    monkeypatch.setattr("solvers.automatic.methods_without_x64", lambda: ("mg_pcg",))
    with pytest.warns(UserWarning, match="jax_enable_x64"):
        [record] = solve_sequence(darcy(9, 1), method="auto").records
    assert record.converged
    assert record.method == "direct"
    assert "mg_pcg would be faster but computes in float64" in record.status


def test_64_bit_is_asked_of_the_methods_on_grids():
    import jax

    assert strategy.methods_without_x64() == ()
    jax.config.update("jax_enable_x64", False)
    try:
        missing = strategy.methods_without_x64()
    finally:
        jax.config.update("jax_enable_x64", True)
    assert "mg_pcg" in missing
    assert "direct" not in missing


def test_stencils_of_any_kind_are_described():
    """Complex ones, and some that reach further, have no grid method."""
    [system] = darcy(9, 1)
    twisted = StencilOperator(
        system.operator.coefficients * (1 + 0.1j), system.operator.offsets
    )
    traits = describe([LinearSystem(twisted, system.rhs)])
    assert (traits.is_complex, traits.star) == (True, False)
    planes = [np.full((5, 5), v) for v in (4.0, -1.0, -1.0)]
    wide = StencilOperator.from_planes(planes, ((0, 0), (2, 0), (-2, 0)))
    traits = describe([LinearSystem(wide, np.ones((5, 5)))])
    assert (traits.kind, traits.star) == ("spd", False)
