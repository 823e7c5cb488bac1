import builtins
import importlib
import sys

import numpy as np
import pytest
import scipy.sparse as sp
from families import system

from solvers import sequence
from solvers.sequence import LinearSystem

GAMG = "petsc:-ksp_type cg -pc_type gamg"
LU = "petsc:-ksp_type preonly -pc_type lu"
CHOLESKY = "petsc:-ksp_type preonly -pc_type cholesky"
RTOL = 1e-8


def test_missing_petsc_is_one_sentence(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] in ("petsc4py", "mpi4py"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    for module in ("solvers.petsc", "solvers.petsc_solver"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match="need petsc4py"):
        importlib.import_module("solvers.petsc")


@pytest.fixture
def petsc():
    pytest.importorskip("petsc4py", reason="petsc4py is not installed")


def solve_all(systems, method, **settings):
    return sequence.solve_sequence(systems, method=method, rtol=RTOL, **settings)


@pytest.mark.usefixtures("petsc")
@pytest.mark.parametrize("method", [GAMG, LU, CHOLESKY])
def test_sequence_on_one_solver_equals_the_direct_solutions(method):
    systems = [system("two_phase", (21, 34), seed) for seed in range(3)]
    systems.insert(2, system("white", (9, 5)))  # another pattern in between
    result = solve_all(systems, method, spd=True)
    reference = solve_all(systems, "direct")
    for x, record, exact in zip(*result, reference.solutions, strict=True):
        assert record.converged, record.status
        assert record.method == method
        assert np.linalg.norm(x - exact) <= 1e-6 * np.linalg.norm(exact)


@pytest.mark.usefixtures("petsc")
def test_mumps_analyses_once_per_pattern():
    solver = sequence.create(f"{CHOLESKY} -pc_factor_mat_solver_type mumps", spd=True)
    ksp = []
    for seed in range(2):
        one = system("two_phase", (21, 34), seed)
        _, record = solver.solve(one, rtol=RTOL)
        assert record.converged
        ksp.append(solver._ksp)
    assert ksp[0] is ksp[1]
    factor = solver._ksp.getPC().getFactorMatrix()
    assert factor.getMumpsInfog(1) == 0
    solver.close()
    assert solver._ksp is None


@pytest.mark.usefixtures("petsc")
def test_iterative_method_reports_too_few_iterations():
    one = system("two_phase", (21, 34))
    result = solve_all([one], GAMG, maxiter=2)
    assert not result.records[0].converged
    assert result.records[0].iterations == 2
    assert "reason" in result.records[0].status


@pytest.mark.usefixtures("petsc")
def test_stopping_norm_is_the_unpreconditioned_one():
    one = system("white", (21, 34))
    jacobi = "petsc:-ksp_type cg -pc_type jacobi"
    [record] = solve_all([one], jacobi).records
    assert record.converged
    assert record.relative_residual == pytest.approx(
        record.true_relative_residual, rel=1e-2
    )


@pytest.mark.usefixtures("petsc")
@pytest.mark.parametrize("value", [0.0, np.nan])
def test_broken_systems_become_records(value):
    one = LinearSystem(sp.csr_array(np.diag([1.0, value])), np.ones(2))
    [record] = solve_all([one], LU).records
    assert not record.converged
    assert record.status.startswith("not converged")


@pytest.mark.usefixtures("petsc")
def test_good_initial_guess_saves_iterations():
    one = system("two_phase", (21, 34))
    solver = sequence.create(GAMG, spd=True)
    x, cold = solver.solve(one, rtol=RTOL)
    _, warm = solver.solve(one, rtol=RTOL, x0=x * (1 + 1e-6))
    assert warm.converged
    assert warm.iterations < cold.iterations
    solver.close()


@pytest.mark.usefixtures("petsc")
def test_complex_systems_are_refused_by_a_real_petsc():
    from petsc4py import PETSc

    if np.issubdtype(PETSc.ScalarType, np.complexfloating):
        pytest.skip("this PETSc is built with complex numbers")
    one = LinearSystem(sp.csr_array(np.eye(2) * 1j), np.ones(2))
    with pytest.raises(TypeError, match="real numbers"):
        sequence.create(LU).solve(one, rtol=RTOL)


@pytest.mark.usefixtures("petsc")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("-ksp_type cgg -pc_type gamg", "option -ksp_type cgg: Unable to find"),
        ("-pc_type gammg", "option -pc_type gammg: Unable to find"),
        ("-pc_typ gamg", "never asked for the option -pc_typ;"),
        ("-ksp_norm_type foo", "option -ksp_norm_type foo: .*Available options"),
        ("-pc_type lu -pc_factor_mat_solver_type mmumps", "_solver_type mmumps:"),
        ("-pc_type mg -mg_levels_ksp_type foo", "option -mg_levels_ksp_type foo:"),
        ("-ksp_type python -ksp_python_type no.Such", "_python_type no.Such:"),
    ],
)
def test_misspelt_options_are_one_sentence_each_time(options, words):
    solver = sequence.create(f"petsc:{options}")
    for _ in range(2):
        with pytest.raises(ValueError, match=words) as caught:
            solver.solve(system("white", (5, 5)), rtol=RTOL, maxiter=1)
        assert "\n" not in str(caught.value)
        assert "solvers_" not in str(caught.value)
    solver.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("", "'petsc:' needs PETSc options after it, for instance"),
        ("cg gamg", "'cg' is neither an option"),
        ("-ksp_type cg gamg", "'gamg' is neither an option"),
        ("-ksp_max_it 3", "-ksp_max_it would be overridden.*set maxiter="),
        ("-ksp_rtol 1e-3", "set rtol="),
        ("-ksp_atol 1e-3", "set rtol="),
    ],
)
def test_words_that_are_no_options_are_refused_without_petsc(options, words):
    with pytest.raises(ValueError, match=words):
        sequence.method_info(f"petsc:{options}")
