import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as spla
from sequences import matrix, systems, true_residual

from solvers import sequence
from solvers.diffusion import cell_diffusion
from solvers.guesses import ProjectionGuess, minimal_residual
from solvers.sequence import LinearSystem

RTOL = 1e-8


def sweep(num, *, same=False, complex_=False):
    """One smooth parameter moves the matrix; the right-hand side stays."""
    shift = 0.1j if complex_ else 0.0
    A = matrix("spd")
    scale = A.diagonal().mean()
    eye = sp.eye_array(A.shape[0])
    steps = np.zeros(num) if same else np.linspace(0, 0.02, num)
    b = np.random.default_rng(0).standard_normal(A.shape[0])
    return [
        LinearSystem(sp.csr_array(A + scale * (0.05 + t + shift) * eye), b)
        for t in steps
    ]


def solve(made, method="cg", **settings):
    result = sequence.solve_sequence(made, method=method, rtol=RTOL, **settings)
    for one, x, record in zip(made, result.solutions, result.records, strict=True):
        assert record.converged
        assert record.method == method
        assert true_residual(one, x) <= RTOL
    return result.records


@pytest.mark.parametrize(
    ("method", "complex_"),
    [("cg", False), ("gmres", True), ("bicgstab", True), ("minres", False)],
)
def test_a_guess_saves_steps_along_a_sweep(method, complex_):
    made = sweep(7, complex_=complex_)
    plain = solve(made, method)
    guessed = solve(made, method, guess="projection")
    assert guessed[0].iterations == plain[0].iterations
    assert guessed[-1].iterations < 0.5 * plain[-1].iterations


@pytest.mark.parametrize(
    "method",
    [name for name, info in sequence.METHODS.items() if "guess" in info.settings],
)
def test_every_method_that_takes_a_guess_uses_it_on_grids(method):
    rng, made = np.random.default_rng(0), []
    a, b = np.exp(0.3 * rng.standard_normal((12, 11))), rng.standard_normal((12, 11))
    for reaction, factor in ((1.0, 1.0), (1.1, 1.0), (1.1, 3.0)):
        A = cell_diffusion(a, (0.1, 0.1), reaction=reaction)
        made.append(LinearSystem(A, factor * b))
    result = sequence.solve_sequence(made, method=method, rtol=RTOL, guess="projection")
    for one, x, record in zip(made, result.solutions, result.records, strict=True):
        assert record.converged, record.status
        assert one.relative_residual(x) <= RTOL
    first, *_, last = result.records
    assert last.iterations <= max(1, first.iterations // 3)


def test_products_of_the_guess_are_counted():
    made = sweep(6)
    counts = []
    for i, record in enumerate(solve(made, guess="projection", window=3)):
        carried = min(i, 3)
        start = 1 if i else 0  # b - A x0
        counts.append(record.matvecs - record.iterations - carried - start)
        assert record.phases.carry_over > 0
    assert set(counts) == {1}


def test_products_are_kept_while_the_matrix_stays():
    one = sweep(1)[0]
    rng = np.random.default_rng(1)
    base = rng.standard_normal((2, one.rhs.size))
    made = [
        LinearSystem(one.operator.copy(), rng.standard_normal(2) @ base)
        for _ in range(5)
    ]
    records = solve(made, guess="projection")
    for record in records[2:]:  # all solutions lie in a plane
        assert record.iterations <= 1
        assert record.matvecs <= record.iterations + 2


def test_the_guess_is_the_least_residual():
    rng = np.random.default_rng(2)
    AX, b = rng.standard_normal((4, 30)) + 1j, rng.standard_normal(30)
    y = minimal_residual(list(AX), b)
    best = np.linalg.lstsq(AX.T, b.astype(complex), rcond=None)[0]
    np.testing.assert_allclose(y, best)


def test_dependent_and_broken_candidates_drop_out():
    rng = np.random.default_rng(2)
    v, w, b = rng.standard_normal((3, 30))
    products = [v, v * 1e9, np.zeros(30), w, w * np.nan, v + w]
    y = minimal_residual(products, b)
    assert np.isfinite(y).all()
    assert y[2] == y[4] == 0
    best = np.linalg.lstsq(np.stack([v, w], 1), b, rcond=None)[0]
    fit = sum(c * p for c, p in zip(y, products, strict=True) if c)
    np.testing.assert_allclose(fit, np.stack([v, w], 1) @ best, rtol=1e-8)
    assert np.abs(y).max() < 10
    assert minimal_residual([], b) is None
    assert minimal_residual([np.zeros(30)], b) is None
    apart = v - (v @ b) / (b @ b) * b
    assert minimal_residual([apart], b) is None


def test_the_window_forgets_the_oldest():
    solver = sequence.create("cg", guess="projection", window=2)
    made = sweep(4)
    for one in made:
        solver.solve(one, rtol=RTOL)
    kept = solver.snapshot()[0].solutions
    assert len(kept) == 2
    exact = spla.spsolve(made[-1].operator.tocsc(), made[-1].rhs)
    np.testing.assert_allclose(kept[-1], exact / np.linalg.norm(exact), rtol=1e-5)


def test_the_callers_guess_joins_the_window():
    one = sweep(1)[0]
    exact = spla.spsolve(one.operator.tocsc(), one.rhs)
    solver = sequence.create("cg", guess="projection")
    _, record = solver.solve(one, rtol=RTOL, x0=7 * exact)
    assert record.iterations == 0


def test_failed_solutions_are_not_remembered():
    solver = sequence.create("cg", guess="projection")
    _, record = solver.solve(sweep(1)[0], rtol=RTOL, maxiter=3)
    assert not record.converged
    assert solver.snapshot()[0].solutions == ()


def test_grids_and_kinds_may_change():
    made = [*sweep(2), *systems("complex", 1), *systems("spd", 1), *sweep(2)]
    solve(made, "gmres", guess="projection")


def test_nan_passes_through_to_the_record():
    bad = systems("spd", 1)[0]
    bad.operator.data[3] = np.nan
    solver = sequence.create("cg", guess="projection")
    solver.solve(systems("spd", 1)[0], rtol=RTOL)
    _, record = solver.solve(bad, rtol=RTOL)
    assert not record.converged
    _, record = solver.solve(systems("spd", 1)[0], rtol=RTOL)
    assert record.converged


@pytest.mark.parametrize("window", [0, 21])
def test_window_sizes_are_checked(window):
    with pytest.raises(ValueError, match=f"window is {window}; expected 1 to 20"):
        sequence.create("cg", guess="projection", window=window)


def test_reset_and_close_reach_the_solver():
    calls = []

    class Inner:
        def reset(self):
            calls.append("reset")

        def close(self):
            calls.append("close")

    guess = ProjectionGuess(Inner())
    guess.reset()
    guess.close()
    assert calls == ["reset", "close"]


def test_complex_solutions_are_no_guess_for_a_real_right_hand_side():
    """The same real matrix: the products are kept, but only real ones are of use."""
    one = sweep(1)[0]
    rhs = np.random.default_rng(3).standard_normal((2, one.rhs.size))
    made = [one._replace(rhs=b) for b in (rhs[0] + 1j * rhs[1], rhs[0], rhs[1], rhs[0])]
    records = solve(made, guess="projection")
    assert records[2].matvecs >= records[2].iterations > 0
    assert records[3].iterations == 0
