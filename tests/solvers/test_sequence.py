import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as spla
from families import system
from sequences import COMPLEX, NEEDS, matrix, suits, systems, true_residual

from solvers import matrices, sequence
from solvers.sequence import LinearSystem
from solvers.stencils import FIVE_POINT, StencilOperator

RTOL = 1e-8
KRYLOV = [
    "skr",
    "gcrodr_cold",
    "gmres",
    "lgmres",
    "gcrotmk",
    "bicgstab",
    "minres",
    "cg",
    "recycled_cg",
    "deflated_cg",
]
MATRIX_METHODS = [*KRYLOV, "direct", "frozen_lu"]
CASES = [
    (method, kind)
    for method in MATRIX_METHODS
    for kind in NEEDS
    if suits(sequence.METHODS[method].needs, kind)
]


def test_the_registry_is_complete():
    on_grids = {name for name, info in sequence.METHODS.items() if info.grid}
    assert {"mg_pcg", "fft_pcg"} <= on_grids
    others = {*sequence.METHODS} - on_grids - {"auto"}
    assert {*MATRIX_METHODS} == others
    for name in sequence.names():
        if name in sequence.METHODS:
            assert sequence.create(name) is not None


@pytest.mark.parametrize(("method", "kind"), CASES)
def test_every_method_solves_what_it_says_it_solves(method, kind):
    made = systems(kind)
    result = sequence.solve_sequence(made, method=method, rtol=RTOL)
    for one, x, record in zip(made, result.solutions, result.records, strict=True):
        assert record.converged, record.status
        assert record.method == method
        assert true_residual(one, x) <= RTOL
        assert record.true_relative_residual == pytest.approx(
            true_residual(one, x), rel=1e-3, abs=1e-13
        )
        assert x.shape == one.rhs.shape
        assert np.iscomplexobj(x) == (kind in COMPLEX)
        exact = spla.spsolve(one.operator.tocsc(), one.rhs.ravel())
        assert np.linalg.norm(x.ravel() - exact) <= 1e-5 * np.linalg.norm(exact)


@pytest.mark.parametrize("method", KRYLOV)
@pytest.mark.parametrize("preconditioner", ["none", "jacobi"])
def test_records_count_every_product_and_application(method, preconditioner):
    solver = sequence.create(method, preconditioner=preconditioner)
    for one in systems("spd", 2):
        counts = {"A": 0, "M": 0}
        apply = one.operator
        scaling = solver.preconditioner

        def product(v, apply=apply, counts=counts):
            counts["A"] += 1
            return apply @ v.ravel()

        hidden = spla.LinearOperator(apply.shape, dtype=float, matvec=product)
        counted = one._replace(operator=hidden, preconditioning_matrix=apply)
        original = type(scaling).__call__

        def application(self, r, counts=counts, original=original):
            counts["M"] += 1 if r.ndim == 1 else r.shape[1]
            return original(self, r)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(scaling), "__call__", application)
            x, record = solver.solve(counted, rtol=RTOL)
            assert counts["A"] > record.iterations
            assert record.matvecs == counts["A"] - 1  # the certificate takes one
            if preconditioner == "jacobi":
                assert record.preconditioner_applications == counts["M"]
            else:
                assert record.preconditioner_applications == 0
        assert record.converged
        assert true_residual(one, x) <= RTOL


@pytest.mark.parametrize("method", MATRIX_METHODS)
def test_units_of_matrix_and_right_hand_side_do_not_matter(method):
    made = systems("spd", 2)
    plain = sequence.solve_sequence(made, method=method)
    scaled = sequence.solve_sequence(
        [LinearSystem(one.operator * 1e-20, one.rhs * 1e-30) for one in made],
        method=method,
    )
    for a, b in zip(plain.records, scaled.records, strict=True):
        assert b.converged, b.status
        assert b.iterations == pytest.approx(a.iterations, abs=2)
    np.testing.assert_allclose(
        scaled.solutions[1] * 1e10, plain.solutions[1], rtol=1e-4
    )


@pytest.mark.parametrize("method", MATRIX_METHODS)
def test_zero_right_hand_side_gives_zero(method):
    one = systems("spd", 1)[0]
    x, record = sequence.create(method).solve(
        one._replace(rhs=np.zeros_like(one.rhs)), rtol=RTOL
    )
    assert record.converged
    assert not x.any()
    assert record.matvecs <= 1


@pytest.mark.parametrize("method", KRYLOV)
def test_an_exact_guess_takes_no_step(method):
    one = systems("spd", 1)[0]
    x, _ = sequence.create("direct").solve(one, rtol=1e-12)
    solver = sequence.create(method)
    again, record = solver.solve(one, rtol=RTOL, x0=x)
    assert record.iterations == 0
    assert record.converged
    np.testing.assert_allclose(again, x)
    _, cold = sequence.create(method).solve(one, rtol=RTOL)
    _, near = sequence.create(method).solve(one, rtol=RTOL, x0=x * (1 + 1e-4))
    assert near.converged
    assert 0 < near.iterations < cold.iterations


@pytest.mark.parametrize("method", KRYLOV)
def test_too_few_steps_are_reported(method):
    made = systems("spd", 1)
    [record] = sequence.solve_sequence(made, method=method, maxiter=5).records
    assert not record.converged
    assert record.status.startswith("not converged")
    assert 5 <= record.iterations <= (5 if method not in ("lgmres", "gcrotmk") else 45)


@pytest.mark.parametrize("method", MATRIX_METHODS)
@pytest.mark.parametrize("place", ["matrix", "rhs"])
def test_nan_never_comes_out_as_converged(method, place):
    good, bad = systems("spd", 2)
    if place == "matrix":
        bad.operator.data[7] = np.nan
    else:
        bad.rhs[3, 3] = np.inf
    result = sequence.solve_sequence([good, bad, good], method=method)
    assert [record.converged for record in result.records] == [True, False, True]
    assert "NaN" in result.records[1].status


@pytest.mark.parametrize("method", KRYLOV)
def test_an_operator_that_returns_nan_is_reported(method):
    one = systems("spd", 1)[0]
    calls = []

    def product(v):
        calls.append(1)
        return one.operator @ v * (np.nan if len(calls) == 4 else 1.0)

    operator = spla.LinearOperator(one.operator.shape, dtype=float, matvec=product)
    _, record = sequence.create(method).solve(
        one._replace(operator=operator), rtol=RTOL
    )
    assert record.matvecs < 500  # nobody goes on with NaN
    if record.converged:  # some methods start again and get there
        assert record.true_relative_residual <= RTOL
    else:
        assert record.status.startswith("not converged")


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        (method, kind)
        for method in KRYLOV
        for kind in ("nonsymmetric", "indefinite")
        if not suits(sequence.METHODS[method].needs, kind)
    ],
)
def test_methods_never_hand_out_wrong_solutions_of_unsuitable_matrices(method, kind):
    made = [*systems("spd", 2), *systems(kind, 2)]
    result = sequence.solve_sequence(made, method=method, maxiter=400)
    for one, x, record in zip(made, result.solutions, result.records, strict=True):
        assert record.converged == (true_residual(one, x) <= RTOL)
        if not record.converged and kind == "nonsymmetric":
            assert "A is not symmetric" in record.status
    if kind == "nonsymmetric":
        assert not result.records[-1].converged


@pytest.mark.parametrize("method", ["cg", "recycled_cg", "deflated_cg"])
def test_conjugate_gradients_name_an_indefinite_matrix(method):
    A = sp.diags_array([*np.linspace(1, 2, 30), -1.0]).tocsr()
    [record] = sequence.solve_sequence(
        [LinearSystem(A, np.ones(31))], method=method
    ).records
    assert not record.converged
    assert "not positive definite" in record.status
    assert "minres" in record.status


def neumann(compatible):
    """The Laplacian with insulated walls; constants are in its null space."""
    one = system("constant", (12, 15))
    planes = np.moveaxis(one.operator.coefficients[0], -1, 0).copy()
    planes[0] = -planes[1:].sum(0)
    b = np.random.default_rng(0).standard_normal((12, 15))
    if compatible:
        b -= b.mean()
    return LinearSystem(StencilOperator.from_planes(planes, FIVE_POINT), b)


@pytest.mark.parametrize("method", KRYLOV)
def test_incompatible_neumann_problems_get_a_sentence(method):
    _, record = sequence.create(method).solve(
        neumann(compatible=False), rtol=RTOL, maxiter=500
    )
    assert not record.converged
    assert "the sum of b is not zero: there is no solution" in record.status
    assert "control volumes" in record.status
    one = neumann(compatible=True)
    _, record = sequence.create(method).solve(one, rtol=RTOL, maxiter=500)
    assert record.converged, record.status


def test_shapes_that_do_not_fit_are_refused():
    one = systems("spd", 1)[0]
    for wrong, message in [
        (one._replace(rhs=np.ones(7)), r"system 0: rhs has shape \(7,\), 7 entries"),
        (one._replace(operator=one.operator[:5]), "expected a square one"),
        (
            one._replace(preconditioning_matrix=sp.eye_array(3)),
            "preconditioning_matrix has shape",
        ),
        (
            one._replace(preconditioning_matrix=one.operator * 1j),
            "complex, but the system is real",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            sequence.solve_sequence([wrong], method="gmres")
    stencil = system("two_phase", (8, 9))
    with pytest.raises(ValueError, match="acts on the grid"):
        sequence.solve_sequence(
            [stencil._replace(rhs=np.ones((9, 8)))], method="direct"
        )
    two = StencilOperator(np.ones((2, 4, 4, 5)), FIVE_POINT)
    with pytest.raises(ValueError, match="holds 2 systems"):
        sequence.solve_sequence([LinearSystem(two, np.ones((4, 4)))], method="cg")
    solver = sequence.create("cg")
    with pytest.raises(ValueError, match="x0 has shape"):
        solver.solve(one, rtol=RTOL, x0=np.ones(3))
    with pytest.raises(ValueError, match="x0 is complex"):
        solver.solve(one, rtol=RTOL, x0=1j * one.rhs)
    with pytest.raises(ValueError, match="x0 holds NaN"):
        solver.solve(one, rtol=RTOL, x0=np.nan * one.rhs)


def test_complex_systems_need_methods_for_them():
    with pytest.raises(TypeError, match="system 0 is complex, but method 'mg_pcg'"):
        sequence.solve_sequence(systems("complex", 1), method="mg_pcg")


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown method 'sor'.*deflated_cg.*skr"):
        sequence.solve_sequence([], method="sor")
    with pytest.raises(ValueError, match=r"unknown preconditioner 'amg'.*icc0.*ssor"):
        sequence.create("cg", preconditioner="amg")
    with pytest.raises(ValueError, match=r"guess is 'pod'; known: .*projection"):
        sequence.create("cg", guess="pod")
    with pytest.raises(ValueError, match="takes no guess"):
        sequence.create("direct", guess="projection")


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("gmres", {"m": 0}, "m is 0"),
        ("lgmres", {"m": 3, "k": 3}, "0 <= k < m"),
        ("gcrotmk", {"k": 0}, "1 <= k < m"),
        ("recycled_cg", {"k": 0}, "k is 0"),
        ("deflated_cg", {"k": 0}, "k is 0"),
        ("deflated_cg", {"num_harvest": 0}, "num_harvest is 0"),
        ("deflated_cg", {"harvest": "svd"}, "harvest is 'svd'"),
        ("frozen_lu", {"costs": "guessed"}, "costs is 'guessed'"),
    ],
)
def test_settings_out_of_range_are_refused(method, settings, message):
    with pytest.raises(ValueError, match=message):
        sequence.create(method, **settings)


@pytest.mark.parametrize("method", MATRIX_METHODS)
def test_declared_settings_are_keywords(method):
    values = {
        "m": 30,
        "k": 5,
        "preconditioner": "jacobi",
        "frozen": True,
        "guess": "projection",
        "window": 3,
    }
    settings = {name: values[name] for name in sequence.METHODS[method].settings}
    made = systems("spd", 2)
    result = sequence.solve_sequence(made, method=method, **settings)
    assert all(record.converged for record in result.records)


class Memorious:
    """Carries the numbers of the systems it descends from."""

    log = None

    def __init__(self):
        self.line, self.alive = (), set()
        type(self).log = []

    def solve(self, system, *, rtol, maxiter=None, x0=None):
        number = int(system.rhs[0])
        self.line = (*self.line, number)
        self.log.append(self.line)
        return system.rhs, None

    def reset(self):
        self.line = ()

    def close(self):
        self.alive.clear()

    def snapshot(self):
        state = _State(self.line)
        self.alive.add(state)
        return state

    def restore(self, snapshot):
        self.line = snapshot.line


class _State:
    def __init__(self, line):
        self.line = line


def numbered(num):
    eye = sp.eye_array(1).tocsr()
    return [LinearSystem(eye, np.array([float(i)])) for i in range(num)]


def test_parents_decide_what_is_carried(monkeypatch):
    entry = sequence.Method(Memorious, carries=True)
    monkeypatch.setitem(sequence.METHODS, "memory", entry)
    parents = [-1, 0, 0, 2, 1, -1, 3]
    sequence.solve_sequence(numbered(7), method="memory", parents=parents)
    assert Memorious.log == [
        (0,),
        (0, 1),
        (0, 2),
        (0, 2, 3),
        (0, 1, 4),
        (5,),
        (0, 2, 3, 6),
    ]
    sequence.solve_sequence(numbered(3), method="memory")
    assert Memorious.log[-1] == (0, 1, 2)


def test_parents_keep_only_the_states_still_needed(monkeypatch):
    import weakref

    alive = weakref.WeakSet()

    class Watched(Memorious):
        def snapshot(self):
            state = _State(self.line)
            alive.add(state)
            return state

    monkeypatch.setitem(sequence.METHODS, "memory", sequence.Method(Watched))
    parents = [-1, 0, 0, 1, 1, 1]  # 1 is kept until 5, 0 until 2
    counts = []
    solved = sequence.iter_solve(numbered(6), method="memory", parents=parents)
    for _ in solved:
        counts.append(len(alive))
    assert max(counts) <= 2
    assert counts[3] == 1  # 0 has gone


@pytest.mark.parametrize("parents", [[0], [-1, 1], [-2]])
def test_parents_must_come_earlier(parents):
    with pytest.raises(ValueError, match=r"expected -1 or an earlier system"):
        sequence.iter_solve(numbered(2), method="cg", parents=parents)


def test_too_few_parents_are_refused(monkeypatch):
    monkeypatch.setitem(sequence.METHODS, "memory", sequence.Method(Memorious))
    with pytest.raises(ValueError, match="more systems than parents, 1"):
        sequence.solve_sequence(numbered(2), method="memory", parents=[-1])


@pytest.mark.parametrize(
    "method", [m for m in MATRIX_METHODS if sequence.METHODS[m].carries]
)
@pytest.mark.parametrize("guess", ["none", "projection"])
def test_a_restored_state_solves_as_if_nothing_came_after(method, guess):
    made = systems("spd", 4, drift=0.02)
    solver = sequence.create(method, guess=guess)
    for one in made[:2]:
        solver.solve(one, rtol=RTOL)
    state = solver.snapshot()
    first, one = solver.solve(made[2], rtol=RTOL)
    solver.solve(made[3], rtol=RTOL)
    solver.solve(systems("spd", 1, drift=0.5)[0], rtol=RTOL)
    solver.restore(state)
    second, other = solver.solve(made[2], rtol=RTOL)
    assert first.tobytes() == second.tobytes()
    assert one.matvecs == other.matvecs
    solver.reset()
    cold, _ = solver.solve(made[2], rtol=RTOL)
    fresh, _ = sequence.create(method, guess=guess).solve(made[2], rtol=RTOL)
    assert cold.tobytes() == fresh.tobytes()


@pytest.mark.parametrize("method", KRYLOV)
def test_grids_may_change_along_the_sequence(method):
    made = [
        systems("spd", 1)[0],
        system("two_phase", (9, 11)),
        system("two_phase", (11, 9)),
        systems("hermitian", 1)[0],
        systems("spd", 1)[0],
    ]
    result = sequence.solve_sequence(made, method=method)
    assert all(record.converged for record in result.records)


def test_matrix_free_systems_are_solved():
    one = systems("nonsymmetric", 1)[0]
    free = one._replace(operator=spla.aslinearoperator(one.operator))
    x, record = sequence.create("gmres").solve(free, rtol=RTOL)
    assert record.converged
    assert true_residual(one, x) <= RTOL
    for method, settings in [("direct", {}), ("gmres", {"preconditioner": "ssor"})]:
        with pytest.raises(TypeError, match="needs the entries of A"):
            sequence.create(method, **settings).solve(free, rtol=RTOL)
    helped = free._replace(preconditioning_matrix=matrix("nonsymmetric", 0.1))
    _, better = sequence.create("gmres", preconditioner="lu").solve(helped, rtol=RTOL)
    assert better.converged
    assert better.iterations < record.iterations / 2


@pytest.mark.parametrize("method", MATRIX_METHODS)
@pytest.mark.parametrize("form", ["coo", "csc", "dia", "lil", "dok", "bsr"])
def test_matrices_of_every_scipy_format_are_taken(method, form):
    made = [
        LinearSystem(one.operator.asformat(form), one.rhs, one.operator.asformat(form))
        for one in systems("spd", 2)
    ]
    solved = sequence.solve_sequence(made, method=method, rtol=RTOL)
    for one, x, record in zip(made, *solved, strict=True):
        assert record.converged, record.status
        assert true_residual(one, x) <= RTOL


def test_formats_with_equal_arrays_are_different_matrices():
    A = matrix("nonsymmetric")
    turned = sp.csc_array((A.data, A.indices, A.indptr), shape=A.shape)
    memory = matrices.remember(A)
    assert matrices.same(A, memory)
    assert matrices.same(A.tocoo(), memory)
    assert not matrices.same(turned, memory)
    wider = sp.csr_array((A.data, A.indices, A.indptr), shape=(238, 239))
    assert not matrices.same(wider, memory)
    b = systems("nonsymmetric", 1)[0].rhs
    solver = sequence.create("skr", adaptive=False)
    for one in (LinearSystem(A, b), LinearSystem(turned, b)):
        x, record = solver.solve(one, rtol=RTOL)
        assert record.converged, record.status
        assert true_residual(one, x) <= RTOL
    assert record.matvecs > record.iterations + record.cycles  # brought to turned


@pytest.mark.parametrize("size", [1e-169, 1e-290, 1e200])
@pytest.mark.parametrize("method", MATRIX_METHODS)
def test_right_sides_of_any_size_are_solved(method, size):
    one = systems("spd", 1)[0]
    x0 = np.full(one.rhs.shape, 1e-8)
    solver, plain = sequence.create(method), sequence.create(method)
    x, record = solver.solve(
        one._replace(rhs=one.rhs * size), rtol=RTOL, x0=x0 * size, maxiter=500
    )
    other, expected = plain.solve(one, rtol=RTOL, x0=x0, maxiter=500)
    assert record.converged, record.status
    assert true_residual(one, x / size) <= 1.01 * RTOL
    np.testing.assert_allclose(x / size, other, atol=1e-5 * np.abs(other).max())
    assert abs(record.iterations - expected.iterations) <= 5


def test_a_wrong_solution_of_a_tiny_system_is_not_certified():
    for one in (systems("spd", 1)[0], system("two_phase", (14, 17))):
        tiny = one._replace(rhs=one.rhs * 1e-169)
        assert tiny.relative_residual(0 * tiny.rhs) == pytest.approx(1.0)
        assert not tiny.relative_residual(np.ones(tiny.rhs.shape)) <= 1
