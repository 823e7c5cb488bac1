import builtins
import sys

import numpy as np
import pytest
import scipy.sparse as sp
from sequences import COMPLEX, matrix, systems, true_residual

from solvers import preconditioners, sequence
from solvers.sequence import LinearSystem

OWN = ["none", "jacobi", "ssor", "ilu", "lu"]
PETSC = ["ilu0", "icc0", "petsc:-pc_type gamg", "petsc:-pc_type sor"]


def needs_petsc(name):
    if name in PETSC:
        pytest.importorskip("petsc4py")


def made_for(A, name, **settings):
    M = preconditioners.create(name, **settings)
    M.update(LinearSystem(A, np.ones(A.shape[0])))
    return M


def as_matrix(M, n, dtype=float):
    return np.stack([M(e) for e in np.eye(n, dtype=dtype)], axis=1)


@pytest.mark.parametrize("kind", ["spd", "nonsymmetric", "complex"])
def test_closed_forms(kind):
    A = matrix(kind)[:40, :40].tocsr()
    dense, dtype = A.toarray(), A.dtype
    D, L, U = np.diag(np.diag(dense)), np.tril(dense, -1), np.triu(dense, 1)
    expected = {
        "none": np.eye(40),
        "jacobi": np.linalg.inv(D),
        "ssor": np.linalg.inv(D + U) @ D @ np.linalg.inv(D + L),
        "lu": np.linalg.inv(dense),
    }
    for name, inverse in expected.items():
        got = as_matrix(made_for(A, name), 40, dtype)
        np.testing.assert_allclose(got, inverse, atol=1e-12 * abs(inverse).max())


@pytest.mark.parametrize("name", ["ilu0", "icc0"])
def test_factors_without_fill_match_a_matrix_that_has_none(name):
    """A tridiagonal matrix has no fill, so its incomplete factors are exact."""
    needs_petsc(name)
    n = 30
    A = sp.diags_array([-1.0, 2.5, -1.0], offsets=[-1, 0, 1], shape=(n, n)).tocsr()
    M = made_for(A, name)
    assert M.name == name
    np.testing.assert_allclose(as_matrix(M, n) @ A.toarray(), np.eye(n), atol=1e-12)
    five_point = matrix("spd")
    M = made_for(five_point, name)
    product = as_matrix(M, five_point.shape[0]) @ five_point.toarray()
    assert 0.1 < np.abs(product - np.eye(five_point.shape[0])).max() < 10


@pytest.mark.parametrize("name", OWN + PETSC)
def test_blocks_and_vectors_agree(name):
    needs_petsc(name)
    A = matrix("spd")
    M = made_for(A, name)
    block = np.random.default_rng(0).standard_normal((A.shape[0], 3))
    columns = np.stack([M(column) for column in block.T], axis=1)
    np.testing.assert_allclose(M(block), columns, rtol=1e-13)


@pytest.mark.parametrize("name", OWN)
def test_real_matrices_precondition_complex_residuals(name):
    A = matrix("spd")
    M = made_for(A, name)
    r = np.random.default_rng(0).standard_normal((2, A.shape[0]))
    np.testing.assert_allclose(M(r[0] + 1j * r[1]), M(r[0]) + 1j * M(r[1]), rtol=1e-12)


@pytest.mark.parametrize("name", OWN + PETSC)
def test_they_follow_the_values_of_the_matrix(name):
    needs_petsc(name)
    one, two = (LinearSystem(matrix("spd", d), np.ones(1)) for d in (0.0, 0.3))
    again = one._replace(operator=one.operator.copy())
    M = preconditioners.create(name)
    r = np.random.default_rng(0).standard_normal(one.operator.shape[0])
    assert M.update(one)
    first = M(r)
    assert not M.update(again)
    changed = M.update(two)
    assert changed == (name not in ("none", "lu"))
    fresh = made_for(two.operator, name)(r)
    if name == "lu":  # that of the first system is kept
        np.testing.assert_array_equal(M(r), first)
    elif "gamg" not in name:  # GAMG keeps its interpolation while the pattern stays
        np.testing.assert_allclose(M(r), fresh, rtol=1e-10)
        assert name == "none" or not np.allclose(M(r), first)
    M.reset()
    assert M.update(two)
    np.testing.assert_allclose(M(r), fresh, rtol=1e-10)


def test_a_matrix_changed_in_place_is_noticed():
    one = LinearSystem(matrix("spd"), np.ones(1))
    M = preconditioners.create("jacobi")
    M.update(one)
    one.operator.data *= 2
    assert M.update(one)
    np.testing.assert_allclose(
        M(np.ones(one.operator.shape[0])), 1 / one.operator.diagonal()
    )


@pytest.mark.parametrize("name", ["jacobi", "ssor", "ilu", "ilu0"])
def test_frozen_ones_stay(name):
    needs_petsc(name)
    one, two = (LinearSystem(matrix("spd", d), np.ones(1)) for d in (0.0, 0.3))
    M = preconditioners.create(name, frozen=True)
    r = np.ones(one.operator.shape[0])
    assert M.update(one)
    first = M(r)
    assert not M.update(two)
    np.testing.assert_array_equal(M(r), first)
    assert M.name == name
    M.reset()
    assert M.update(two)
    assert not np.allclose(M(r), first)


def test_the_preconditioning_matrix_replaces_a():
    A, P = matrix("spd"), matrix("spd", 0.5)
    system = LinearSystem(A, np.ones(A.shape[0]), P)
    for name in ("jacobi", "lu"):
        M = preconditioners.create(name)
        M.update(system)
        np.testing.assert_allclose(
            M(P @ np.ones(A.shape[0]))[:2],
            made_for(P, name)(P @ np.ones(A.shape[0]))[:2],
        )
    M = preconditioners.create("lu")
    assert M.update(system)
    assert not M.update(system._replace(operator=matrix("spd", 1.0)))
    assert M.update(system._replace(preconditioning_matrix=A))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("jacobi", "hole", "the diagonal holds zeros; use"),
        ("ssor", "hole", "the diagonal holds zeros; use"),
        ("ilu", "zero row", "use preconditioner"),
        ("lu", "zero row", "singular"),
        ("ilu0", "zero row", "use preconditioner"),
    ],
)
def test_breakdown_ends_in_the_record_with_advice(name, change, message):
    needs_petsc(name)
    good = systems("spd", 1)[0]
    A = good.operator.tolil()
    if change == "hole":
        A[3, 3] = 0
    else:
        A[3, :] = 0
    bad = good._replace(operator=sp.csr_array(A.tocsr()))
    solver = sequence.create("gmres", preconditioner=name)
    _, record = solver.solve(bad, rtol=1e-8)
    assert not record.converged
    assert message in record.status
    x, record = solver.solve(good, rtol=1e-8)
    assert record.converged
    assert true_residual(good, x) <= 1e-8


@pytest.mark.parametrize("name", ["ilu0", "petsc:-pc_type sor"])
def test_missing_petsc_is_explained(name, monkeypatch):
    original = builtins.__import__

    def without(module, *args, **kwargs):
        if module.split(".")[0] in ("petsc4py", "mpi4py"):
            raise ImportError(f"No module named {module!r}")
        return original(module, *args, **kwargs)

    for module in ("solvers.petsc", "solvers.petsc_solver"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"uv sync --group petsc.*use 'ilu', 'ssor'"):
        sequence.create("cg", preconditioner=name)
    with pytest.raises(ImportError, match="uv sync --group petsc"):
        sequence.create("petsc:-ksp_type cg")
    sequence.create("cg", preconditioner="ssor")


def test_complex_matrices_and_a_real_petsc():
    PETSc = pytest.importorskip("petsc4py.PETSc")
    if np.issubdtype(PETSc.ScalarType, np.complexfloating):
        pytest.skip("this PETSc is complex")
    with pytest.raises(TypeError, match="real numbers"):
        sequence.create("gmres", preconditioner="ilu0").solve(
            systems("complex", 1)[0], rtol=1e-8
        )


@pytest.mark.parametrize("name", OWN + PETSC)
@pytest.mark.parametrize("kind", ["spd", "nonsymmetric", "complex"])
def test_they_help(name, kind):
    needs_petsc(name)
    if name in PETSC and kind in COMPLEX:
        pytest.skip("PETSc is built with real numbers")
    if name == "icc0" and kind != "spd":
        pytest.skip("for symmetric matrices")
    made = systems(kind, 1)
    plain = sequence.solve_sequence(made, method="gmres").records[0]
    better = sequence.solve_sequence(made, method="gmres", preconditioner=name)
    record = better.records[0]
    assert record.converged
    if name not in ("none", "jacobi"):
        assert record.iterations < 0.75 * plain.iterations


def test_settings_of_ilu():
    A = matrix("spd")
    rough = preconditioners.create("ilu", drop_tol=0.5, fill_factor=1.0)
    rough.update(LinearSystem(A, np.ones(1)))
    x = np.ones(A.shape[0])
    coarse, fine = rough(A @ x) - x, made_for(A, "ilu")(A @ x) - x
    assert np.linalg.norm(fine) < 0.1 * np.linalg.norm(coarse)


@pytest.mark.parametrize(
    ("name", "frozen"), [("lu", False), ("ssor", True), ("ilu0", True)]
)
def test_what_is_kept_is_built_anew_for_another_size_or_kind(name, frozen):
    needs_petsc(name)
    small, large = (
        LinearSystem(A, np.ones(A.shape[0]))
        for A in (matrix("spd")[:30, :30].tocsr(), matrix("spd")[:40, :40].tocsr())
    )
    made = [small, large, small]
    if name != "ilu0":  # PETSc is real
        wave = matrix("complex")[:40, :40].tocsr()
        made[2:] = [LinearSystem(wave, np.ones(40) + 1j), large, small]
    settings = {"method": "gmres", "preconditioner": name, "frozen": frozen}
    result = sequence.solve_sequence(made, **settings)
    for one, x, record in zip(made, result.solutions, result.records, strict=True):
        assert record.converged
        assert true_residual(one, x) <= 1e-8
        alone = sequence.solve_sequence([one], **settings).records[0]
        assert record.iterations == alone.iterations


@pytest.mark.parametrize(
    ("name", "frozen"),
    [
        ("ssor", False),
        ("ilu", True),
        ("lu", False),
        ("ilu0", True),
        ("petsc:-pc_type gamg", False),
    ],
)
def test_snapshots_bring_back_what_was_kept(name, frozen):
    needs_petsc(name)
    scale = sp.diags_array(np.geomspace(1, 1e3, matrix("spd").shape[0]))
    first, second = (LinearSystem(matrix("spd", d), np.ones(1)) for d in (0.0, 0.1))
    other = LinearSystem(sp.csr_array(scale @ first.operator @ scale), np.ones(1))
    r = np.random.default_rng(0).standard_normal(first.operator.shape[0])
    M = preconditioners.create(name, frozen=frozen)
    assert M.snapshot() in (None, (None, None), (None, None, None))
    for one in (first, second):
        M.update(one)
    before, build, state = M(r), M.build, M.snapshot()
    M.restore(state)
    assert M.build == build
    third = LinearSystem(matrix("spd", 0.2), np.ones(1))
    changed = M.update(third)
    after = M(r)
    assert changed == (M.build != build)
    M.reset()
    M.update(other)
    assert M.build not in (None, build)
    assert not np.allclose(M(r), before)
    M.restore(state)
    assert M.build == build
    np.testing.assert_allclose(M(r), before, rtol=1e-12)
    assert not M.update(second)
    M.reset()
    M.update(other)
    M.restore(state)
    assert M.update(third) == changed
    np.testing.assert_allclose(M(r), after, rtol=1e-12)
    M.restore(None)
    assert M.build is None
    assert M.update(other)


def test_ilu_only_advises_what_can_be_set():
    A = sp.csr_array(np.diag([1.0, 0.0, 2.0]))
    with pytest.raises(ArithmeticError, match=r"use preconditioner 'lu' or 'jacobi'$"):
        made_for(A, "ilu")
