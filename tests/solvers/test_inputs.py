"""What a caller may get wrong, and what is said then."""

import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse as sp

from solvers import sequence
from solvers.diffusion import cell_diffusion
from solvers.inputs import has_mean, not_finite
from solvers.sequence import LinearSystem, solve_sequence
from solvers.stencils import StencilOperator

N = 12
A = sp.diags_array([-1.0, 2.5, -1.0], offsets=[-1, 0, 1], shape=(N, N)).tocsr()
ONE = LinearSystem(A, np.ones(N))


@pytest.mark.parametrize(
    ("method", "settings", "words"),
    [
        ("skr", {"precond": "ilu"}, "'skr' takes .*m, k, .*did you mean 'precondition"),
        ("skr", {"carry": False}, "got 'carry'"),
        ("gmres", {"gues": "none"}, "did you mean 'guess'"),
        ("direct", {"k": 3}, "'direct' takes no settings; got 'k'"),
        ("skr", {"k": 2.5}, "k is 2.5; expected an integer"),
        ("gmres", {"m": "40"}, "m is '40'; expected an integer"),
        ("gmres", {"maxiter": 1.5}, "maxiter is 1.5; expected an integer or None"),
        ("gmres", {"rtol": "1e-8"}, "rtol is '1e-8'; expected a number"),
    ],
)
def test_wrong_keywords_are_one_sentence(method, settings, words):
    with pytest.raises(TypeError, match=words):
        solve_sequence([ONE], method=method, **settings)


def test_unknown_methods_name_the_closest():
    with pytest.raises(ValueError, match=r"known: .*, did you mean 'gmres'\?"):
        sequence.create("gmress")


@pytest.mark.parametrize(
    ("systems", "words"),
    [
        (ONE, r"one LinearSystem; put it in a list"),
        ([(A, np.ones(N))], r"system 0 is a tuple; expected LinearSystem\(A, b\)"),
        ([LinearSystem(A, sp.csr_array(np.ones((N, 1))))], "rhs is a sparse matrix"),
        ([LinearSystem(A, ["a"] * N)], "system 0: rhs holds values of type"),
        ([LinearSystem([[1.0]], np.ones(1))], "the operator is a list"),
    ],
)
def test_what_is_no_system_is_refused(systems, words):
    with pytest.raises(TypeError, match=words):
        solve_sequence(systems, method="direct")


@pytest.mark.parametrize("method", ["direct", "frozen_lu", "gmres", "skr"])
def test_right_hand_sides_may_be_lists(method):
    result = solve_sequence([LinearSystem(A, [1] * N)], method=method)
    assert result.records[0].converged
    np.testing.assert_allclose(A @ result.solutions[0], 1, atol=1e-6)


@pytest.mark.parametrize(
    ("method", "preconditioner"),
    [
        ("direct", None),
        ("frozen_lu", None),
        ("gmres", "ilu"),
        ("gmres", "lu"),
        ("gmres", "ssor"),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.complex64, np.int64])
def test_other_precisions_are_converted(method, preconditioner, dtype):
    matrix = (2 * A).astype(dtype)
    settings = {} if preconditioner is None else {"preconditioner": preconditioner}
    for extra in (None, matrix):
        one = LinearSystem(matrix, np.ones(N, np.float32), extra)
        [x], [record] = solve_sequence([one], method=method, **settings)
        assert record.converged, record.status
        assert x.dtype == one.dtype


@pytest.mark.parametrize("method", ["direct", "frozen_lu", "skr", "petsc:-pc_type lu"])
def test_entries_that_are_not_finite_are_counted(method):
    if method.startswith("petsc:"):
        pytest.importorskip("petsc4py")
    A_bad, b_bad = A.copy(), np.ones(N)
    A_bad.data[:2], b_bad[0] = np.nan, np.inf
    expected = {
        "A holds 2 NaN or infinite entries": LinearSystem(A_bad, np.ones(N)),
        "b holds 1 NaN or infinite entry": LinearSystem(A, b_bad),
    }
    for words, one in expected.items():
        [record] = solve_sequence([one], method=method).records
        assert record.status == f"not converged: {words}; check the input"
    both = not_finite(LinearSystem(A_bad, b_bad))
    assert both == " and ".join(expected)


def test_mg_pcg_names_a_wrong_type_before_the_precision():
    code = (
        "import jax; jax.config.update('jax_enable_x64', False); "
        "import numpy as np, scipy.sparse as sp; from solvers import sequence; "
        "A = sp.eye_array(4).tocsr(); one = sequence.LinearSystem(A, np.ones(4)); "
        "sequence.solve_sequence([one], method='mg_pcg')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "TypeError: mg_pcg needs a StencilOperator" in done.stderr


def test_deflated_cg_names_the_setting_that_is_wrong():
    with pytest.raises(ValueError, match=r"^k is 0; expected at least 1$"):
        sequence.create("deflated_cg", k=0)


@pytest.mark.parametrize("unit", [1e-200, 1.0, 1e200])
def test_the_mean_counts_by_its_part_of_the_norm(unit):
    waves = np.resize([1.0, -1.0], 100)
    assert not has_mean(unit * waves, 1e-8)
    assert not has_mean(unit * (waves + 0.9e-3), 1e-3)
    assert has_mean(unit * (waves + 1.1e-3), 1e-3)


@pytest.mark.parametrize("method", ["fft_pcg", "mg_pcg"])
def test_methods_for_real_systems_refuse_complex_ones(method):
    real = cell_diffusion(np.ones((5, 6)), (1.0, 1.0))
    bent = StencilOperator(real.coefficients + 1j, real.offsets)
    one = LinearSystem(real, np.ones((5, 6)))
    solver = sequence.create(method)
    words = rf"is complex, but method '{method}' solves real systems; use 'direct'"
    with pytest.raises(TypeError, match="the operator " + words):
        solver.solve(one._replace(operator=bent), rtol=1e-8)
    with pytest.raises(TypeError, match="rhs " + words):
        solver.solve(one._replace(rhs=one.rhs + 1j), rtol=1e-8)
    with pytest.raises(TypeError, match="x0 " + words):
        solver.solve(one, rtol=1e-8, x0=one.rhs + 1j)
    with pytest.raises(TypeError, match="rhs " + words):
        solver.solve_batch([one._replace(rhs=one.rhs + 1j)], rtol=1e-8)
