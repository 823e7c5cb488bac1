import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as spla
from sequences import systems, true_residual

from solvers import scipy_krylov, sequence
from solvers.sequence import LinearSystem

RTOL = 1e-8
METHODS = ["gmres", "lgmres", "gcrotmk", "bicgstab"]


def run(made, method, **settings):
    result = sequence.solve_sequence(made, method=method, **settings)
    assert all(record.converged for record in result.records)
    return result.records


@pytest.mark.parametrize("method", METHODS)
def test_the_true_residual_decides_under_a_preconditioner_that_hides_it(method):
    """Row scalings of 1e8 make the left-preconditioned residual useless."""
    one = systems("nonsymmetric", 1)[0]
    n = one.operator.shape[0]
    scale = np.geomspace(1, 1e4, n)
    A = sp.csr_array(sp.diags_array(scale) @ one.operator)
    b = (scale * one.rhs.ravel()).reshape(one.rhs.shape)
    made = [LinearSystem(A, b)]
    [record] = run(made, method, preconditioner="jacobi", rtol=RTOL)
    assert 1e-3 * RTOL < record.true_relative_residual <= RTOL
    assert record.relative_residual == pytest.approx(
        record.true_relative_residual, rel=1e-3
    )


def test_gmres_is_scipys():
    one = systems("nonsymmetric", 1)[0]
    norms = []
    b = one.rhs.ravel()
    spla.gmres(
        one.operator,
        b,
        rtol=RTOL,
        restart=7,
        callback=norms.append,
        callback_type="pr_norm",
    )
    [record] = run([one], "gmres", m=7)
    assert abs(record.iterations - len(norms)) <= 1
    np.testing.assert_allclose(record.residual_norms[1:30], norms[:29], rtol=1e-10)
    assert record.cycles == -(-record.iterations // 7)
    assert record.matvecs >= record.iterations + record.cycles


def test_gmres_minimises_over_the_preconditioned_krylov_space():
    one = systems("nonsymmetric", 1)[0]
    [record] = run([one], "gmres", preconditioner="jacobi")
    D = 1 / one.operator.diagonal()
    Op = one.operator.toarray() * D
    b = one.rhs.ravel()
    space = []
    v = b
    for j in range(1, 9):
        space.append(v / np.linalg.norm(v))
        v = Op @ space[-1]
        K = np.stack(space, axis=1)
        y = np.linalg.lstsq(Op @ K, b, rcond=None)[0]
        best = np.linalg.norm(b - Op @ K @ y) / np.linalg.norm(b)
        assert record.residual_norms[j] == pytest.approx(best, rel=1e-7)


@pytest.mark.parametrize("method", ["lgmres", "gcrotmk"])
def test_carried_vectors_help_the_same_system_again(method):
    one = systems("spd", 1)[0]
    settings = {"m": 60, "k": 3}  # so large that their corrections span the solution
    records = run([one, one], method, **settings)
    assert records[1].recycle_dim in (2, 3)
    assert records[0].recycle_dim == 0
    assert records[1].iterations < 0.65 * records[0].iterations
    cold = sequence.solve_sequence(
        [one, one], method=method, parents=[-1, -1], **settings
    )
    assert cold.records[1].iterations == records[0].iterations


def test_gcrotmk_recomputes_products_with_a_new_matrix():
    """Keeping C of the matrix before would be cheaper, and wrong."""
    made = systems("spd", 2, drift=0.3)
    records = run(made, "gcrotmk", m=12, k=4)
    assert records[1].matvecs >= records[1].iterations + 4


def test_bicgstab_takes_two_products_per_step():
    [record] = run(systems("nonsymmetric", 1), "bicgstab", preconditioner="ssor")
    assert 0 <= record.matvecs - 2 * record.iterations <= 2
    assert record.residual_norms == ()


@pytest.mark.parametrize("method", METHODS)
def test_a_drifted_residual_is_resumed(method, monkeypatch):
    """The first call of SciPy is told a loose tolerance, as if its residual drifted."""
    aims = iter([1e-4])
    exact = scipy_krylov.Task.aim.fget
    monkeypatch.setattr(
        scipy_krylov.Task,
        "aim",
        property(lambda task: next(aims, 0) * task.norm_b or exact(task)),
    )
    one = systems("nonsymmetric", 1)[0]
    x, record = sequence.create(method).solve(one, rtol=1e-7)
    assert next(aims, None) is None
    assert record.converged, record.status
    assert true_residual(one, x) <= 1e-7


@pytest.mark.parametrize("method", METHODS)
def test_singular_inconsistent_systems_stop_with_a_sentence(method):
    A = sp.diags_array([*np.linspace(1, 2, 20), 0.0]).tocsr()
    [record] = sequence.solve_sequence(
        [LinearSystem(A, np.ones(21))], method=method, maxiter=500
    ).records
    assert not record.converged
    assert "not converged" in record.status
    assert record.matvecs < 2000


def test_lgmres_keeps_its_own_number_of_vectors():
    """The k that data configs share suits deflation; LGMRES would waste steps on it."""
    assert "k" not in sequence.method_info("lgmres").settings
    assert sequence.create("lgmres").k == 3
