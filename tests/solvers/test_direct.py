import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as spla

from solvers import direct, matrices, patterns, sequence
from solvers.diffusion import cell_diffusion, diffusion_operator
from solvers.nested_dissection import dissection
from solvers.sequence import LinearSystem
from solvers.stencils import StencilOperator

NINE_POINT = tuple((i, j) for i in (-1, 0, 1) for j in (-1, 0, 1))


def cells(shape, boundaries, seed=0, **settings):
    a = np.exp(np.random.default_rng(seed).standard_normal(shape))
    spacing = [1 / n for n in shape]
    return cell_diffusion(a, spacing, boundaries=boundaries, **settings)


def rhs(shape, seed=1, mean=0.0):
    b = np.random.default_rng(seed).standard_normal(shape)
    return b - b.mean() + mean


def fill(A, order):
    B = A[order][:, order].tocsc()
    return spla.splu(B, **direct.ATTEMPTS[0] | {"permc_spec": "NATURAL"}).nnz


def nine_point(shape, seed=0):
    rng = np.random.default_rng(seed)
    planes = [-rng.random(shape) for _ in NINE_POINT]
    planes[4] = np.full(shape, 9.0)
    return StencilOperator.from_planes(planes, NINE_POINT)


@pytest.mark.parametrize(
    ("operator", "gain"),
    [
        (cells((60, 50), "dirichlet"), 1.0),
        (cells((11, 13, 12), "dirichlet"), 1.2),
        (nine_point((50, 60)), 1.04),
        (cells((70, 60), "periodic", reaction=1.0), 1.1),
    ],
    ids=["5-point", "7-point", "9-point", "periodic"],
)
def test_dissection_is_a_permutation_with_little_fill(operator, gain):
    order = dissection(operator.grid_shape, operator.offsets, operator.periodic)
    np.testing.assert_array_equal(np.sort(order), np.arange(operator.num_unknowns))
    A = operator.to_csr()
    ours, natural = fill(A, order), fill(A, np.arange(len(order)))
    minimum_degree = spla.splu(A.tocsc(), **direct.ATTEMPTS[0]).nnz
    assert 2 * ours < natural
    assert gain * ours < minimum_degree


@pytest.mark.parametrize("form", ["stencil", "csr"])
def test_reused_symbolic_work_gives_the_bytes_of_a_fresh_solver(form, monkeypatch):
    orders = []
    for name in ("stencil_pattern", "MatrixPattern"):
        made = getattr(direct, name)
        if form == "csr" and name == "MatrixPattern":

            class Counted(patterns.MatrixPattern):
                def __init__(self, A):
                    orders.append(1)
                    super().__init__(A)

            made = Counted
        monkeypatch.setattr(direct, name, made)
    shape = (23, 31)
    systems = [
        LinearSystem(cells(shape, "dirichlet", seed), rhs(shape)) for seed in range(3)
    ]
    if form == "csr":
        systems = [s._replace(operator=s.operator.to_csr()) for s in systems]
    reused = sequence.create("direct")
    for system in systems:
        reused.solve(system, rtol=1e-10)
    again, _ = reused.solve(systems[0], rtol=1e-10)
    assert len(orders) == (form == "csr")
    fresh, record = sequence.create("direct").solve(systems[0], rtol=1e-10)
    assert record.converged
    assert again.tobytes() == fresh.tobytes()


def test_patterns_and_kinds_of_matrices_may_change():
    solver = sequence.create("direct")
    for shape in [(9, 7), (7, 9), (5, 4, 3)]:
        operator = cells(shape, "dirichlet")
        for A in (operator, operator.to_csr()):
            x, record = solver.solve(LinearSystem(A, rhs(shape)), rtol=1e-12)
            assert record.converged
            exact = np.linalg.solve(operator.to_csr().toarray(), rhs(shape).ravel())
            np.testing.assert_allclose(x.ravel(), exact, rtol=1e-9)


def test_repeated_entries_are_added():
    rows, columns = np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1])
    A = sp.csr_array((np.array([1.0, 2.0, 1.0, 4.0]), columns, [0, 2, 4]))
    assert rows.size == A.nnz
    x, record = sequence.create("direct").solve(
        LinearSystem(A, np.array([3.0, 5.0])), rtol=1e-12
    )
    assert record.converged
    np.testing.assert_allclose(x, [1.0, 1.0])
    assert A.nnz == 4  # the caller's matrix stays as it is


SINGULAR = {
    "neumann": lambda: cells((17, 12), "neumann"),
    "periodic": lambda: cells((6, 7, 8), "periodic"),
    "mixed": lambda: cells((17, 12), ["periodic", "neumann"]),
    "nodes": lambda: diffusion_operator(
        np.ones((9, 12)), (0.1, 0.1), boundaries="neumann"
    ),
}


@pytest.mark.parametrize("form", ["stencil", "csr"])
@pytest.mark.parametrize("kind", SINGULAR)
def test_singular_systems_have_the_solution_of_mean_zero(kind, form):
    operator = SINGULAR[kind]()
    A = operator.to_csr()
    b = rhs(operator.grid_shape)
    one = LinearSystem(operator if form == "stencil" else A, b)
    x, record = sequence.create("direct").solve(one, rtol=1e-10)
    assert record.converged, record.status
    assert not record.fallbacks
    exact = np.linalg.lstsq(A.toarray(), b.ravel(), rcond=None)[0]
    np.testing.assert_allclose(x.ravel(), exact, atol=1e-9 * np.abs(exact).max())
    assert abs(x.mean()) <= 1e-14 * np.abs(x).max()


def test_singular_systems_without_solution_are_refused_with_advice():
    one = LinearSystem(SINGULAR["neumann"](), rhs((17, 12), mean=1e-3))
    _, record = sequence.create("direct").solve(one, rtol=1e-8)
    assert not record.converged
    assert "subtract the mean of b" in record.status


def test_only_matrices_that_annihilate_constants_are_singular():
    A = SINGULAR["neumann"]().to_csr()
    assert matrices.is_singular(A)
    assert not matrices.is_singular(cells((9, 8), "dirichlet").to_csr())
    tiny = sp.eye_array(A.shape[0]) * 1e-12 * A.diagonal().max()
    assert not matrices.is_singular(A + tiny)
    lopsided = sp.csr_array(np.array([[1.0, -1.0, 0], [-2, 3, -1], [0, -1, 1]]))
    assert not matrices.is_singular(lopsided)
    assert not matrices.is_singular(sp.csr_array((3, 3)))
