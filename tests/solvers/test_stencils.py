import jax
import numpy as np
import pytest
from families import diffusion, system

from solvers.boundaries import Robin
from solvers.diffusion import cell_diffusion, diffusion_operator
from solvers.stencils import FIVE_POINT, StencilOperator, is_singular

NINE_POINT = tuple((i, j) for i in (-1, 0, 1) for j in (-1, 0, 1))


def random_operator(grid, offsets, batch=2, seed=0):
    rng = np.random.default_rng(seed)
    shape = (batch, *grid, len(offsets))
    return StencilOperator(rng.standard_normal(shape), offsets)


@pytest.mark.parametrize(
    ("grid", "offsets"),
    [
        ((5, 8), FIVE_POINT),
        ((7, 4), NINE_POINT),
        ((6, 9), ((0, 0), (2, -1), (-3, 0), (0, 4))),
        ((4, 5, 3), ((0, 0, 0), (1, 0, -1), (0, 2, 0))),
        ((6,), ((0,), (-1,), (2,))),
    ],
)
def test_three_forms_of_one_operator_agree(grid, offsets):
    A = random_operator(grid, offsets)
    u = np.random.default_rng(1).standard_normal((2, *grid))
    b = np.random.default_rng(2).standard_normal((2, *grid))
    applied = np.asarray(jax.jit(lambda A, u: A.apply(u))(A, u))
    for k in range(2):
        expected = (A.to_csr(k) @ u[k].ravel()).reshape(grid)
        np.testing.assert_allclose(applied[k], expected, atol=1e-13)
        residual = A.residual(u, b)[k]
        np.testing.assert_allclose(residual, b[k] - expected, atol=1e-13)


def test_entries_couple_a_row_with_its_offset():
    A = random_operator((3, 4), ((0, 0), (1, -1)), batch=1)
    row, column = np.ravel_multi_index(([1, 2], [2, 1]), (3, 4))
    assert A.to_csr()[row, column] == A.coefficients[0, 1, 2, 1]
    assert A.to_csr()[column, row] == 0


def test_apply_of_symmetric_operator_is_self_adjoint():
    A = system("two_phase", (9, 14)).operator
    u, v = np.random.default_rng(0).standard_normal((2, 1, 9, 14))
    left, right = np.vdot(A.apply(u), v), np.vdot(u, A.apply(v))
    assert abs(left - right) <= 1e-12 * abs(left)


def test_five_point_scheme_is_second_order():
    """u = sin(pi x) sin(2 pi y), a = 2 + x + y^2, f = -div(a grad u)."""
    errors = []
    for n in (15, 31, 63):
        x, y = np.meshgrid(*2 * [np.linspace(0, 1, n + 2)], indexing="ij")
        (sx, cx), (sy, cy) = (
            (np.sin(t), np.cos(t)) for t in (np.pi * x, 2 * np.pi * y)
        )
        a = 2 + x + y**2
        f = 5 * np.pi**2 * a * sx * sy - np.pi * cx * sy - 4 * np.pi * y * sx * cy
        A = diffusion(a, f[1:-1, 1:-1]).operator
        exact = (sx * sy)[None, 1:-1, 1:-1]
        # Consistency: away from the boundary the residual of the exact u is O(h^2).
        errors.append(abs(A.residual(exact, f[None, 1:-1, 1:-1])).max())
    orders = np.log2(np.divide(errors[:-1], errors[1:]))
    np.testing.assert_allclose(orders, 2.0, atol=0.1)


def test_pattern_of_csr_depends_on_the_grid_alone():
    zero = StencilOperator(np.zeros((1, 4, 5, 5)), FIVE_POINT).to_csr()
    other = system("white", (4, 5)).operator.to_csr()
    np.testing.assert_array_equal(zero.indices, other.indices)
    assert zero.nnz == 5 * 20 - 2 * (4 + 5)


def test_relative_residual_of_special_cases():
    A = random_operator((3, 4), FIVE_POINT, batch=3)
    u = np.zeros((3, 3, 4))
    b = np.zeros((3, 3, 4))
    u[1], u[2] = 1.0, np.nan
    np.testing.assert_array_equal(A.relative_residual(u, b), [0, np.inf, np.inf])
    b[:] = 1.0
    u[1] = 0.0
    relative = A.relative_residual(u, b)
    assert relative[0] == relative[1] == 1
    assert np.isnan(relative[2])


def test_diagonal_and_shapes():
    A = random_operator((3, 4), ((0, 1), (0, 0)))
    np.testing.assert_array_equal(A.diagonal(), A.coefficients[..., 1])
    assert (A.batch, A.grid_shape, A.num_unknowns) == (2, (3, 4), 12)
    B = StencilOperator(A.coefficients[..., :1], ((0, 1),))
    assert not np.any(B.diagonal())


def test_operator_is_a_pytree_of_its_coefficients():
    A = random_operator((3, 4), FIVE_POINT)
    leaves, treedef = jax.tree.flatten(A)
    assert len(leaves) == 1
    assert jax.tree.unflatten(treedef, leaves).offsets == FIVE_POINT


@pytest.mark.parametrize(
    ("shape", "offsets", "message"),
    [
        ((1, 3, 4, 2), ((0, 0), (0, 0)), "distinct"),
        ((1, 3, 4, 2), ((0, 0), (0,)), "one length"),
        ((1, 3, 4, 3), ((0, 0), (0, 1)), "expected"),
        ((1, 3, 2), ((0, 0), (0, 1)), "expected"),
    ],
)
def test_rejects_bad_offsets(shape, offsets, message):
    with pytest.raises(ValueError, match=message):
        StencilOperator(np.zeros(shape), offsets)


def test_rejects_fields_of_another_shape():
    A = random_operator((3, 4), FIVE_POINT)
    for call in (A.apply, lambda u: A.residual(u, u)):
        with pytest.raises(ValueError, match="u has shape"):
            call(np.zeros((2, 4, 3)))
    with pytest.raises(ValueError, match="b has shape"):
        A.residual(np.zeros((2, 3, 4)), np.zeros((1, 3, 4)))


@pytest.mark.parametrize(
    ("boundaries", "reaction", "singular"),
    [
        ("neumann", 0.0, True),
        ("periodic", 0.0, True),
        (["periodic", "neumann"], 0.0, True),
        (["neumann", ("neumann", Robin(0.0))], 0.0, True),
        (["neumann", ("neumann", Robin(1e-3))], 0.0, False),
        ("neumann", 1e-6, False),
        ("dirichlet", 0.0, False),
    ],
)
def test_singular_systems_are_recognised(boundaries, reaction, singular):
    a = np.exp(3 * np.random.default_rng(0).standard_normal((7, 6)))
    for build in (diffusion_operator, cell_diffusion):
        operator = build(a, (0.1, 0.3), boundaries=boundaries, reaction=reaction)
        assert is_singular(operator) == singular


def test_singular_is_said_only_of_whole_matrices():
    a = np.random.default_rng(0).uniform(1, 2, (7, 6))
    operator = cell_diffusion(a, (1.0, 1.0), boundaries="neumann")
    for row, value in ((3, 1.0), (3, np.nan)):  # corners alone do not tell
        changed = operator.coefficients.copy()
        changed[0, row, 3, 0] += value
        assert not is_singular(StencilOperator(changed, operator.offsets))
    outside = operator.coefficients.copy()
    outside[0, 0, :, 1] = 5.0  # leaves the grid
    assert is_singular(StencilOperator(outside, operator.offsets))
    zero = np.zeros_like(operator.coefficients)
    assert not is_singular(StencilOperator(zero, operator.offsets))
