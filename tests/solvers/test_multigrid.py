import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
from families import system

from solvers.multigrid import cycles, symmetric, transfer
from solvers.stencils import StencilOperator

FAMILIES = ("constant", "two_phase", "white")


def planes_of(operator):
    """Halves [*n], in float64."""
    return {
        o: jnp.asarray(operator.coefficients[0, ..., operator.offsets.index(o)])
        for o in symmetric.half(len(operator.grid_shape))
        if o in operator.offsets
    }


def stencil_of(operator):
    """Halves with halo and even sizes, in float64."""
    return symmetric.pad_to_even(planes_of(operator))


def nine_point(shape, seed=0):
    """A random symmetric M-matrix with nine-point rows, and its stencil."""
    rng = np.random.default_rng(seed)
    halves = {}
    for o in symmetric.half(2)[1:]:
        plane = -rng.uniform(0.1, 1.0, shape)
        inside = np.zeros(shape, bool)
        inside[: shape[0] - o[0], max(0, -o[1]) : shape[1] - max(0, o[1])] = True
        halves[o] = np.where(inside, plane, 0.0)
    halves[0, 0] = np.ones(shape)
    stencil = {o: jnp.pad(halves[o], 1) for o in symmetric.half(2)}
    off = sum(
        abs(symmetric.coupling(stencil, o)) for o in symmetric.full_offsets(stencil)
    )
    stencil[0, 0] = jnp.pad(off - 1 + rng.uniform(0, 0.1, shape), 1)
    return stencil


def matrix(apply, shape):
    """Columns of a linear map on [m1, m2]."""
    units = jnp.eye(int(np.prod(shape))).reshape(-1, *shape)
    columns = jax.jit(jax.vmap(apply))(units)
    return np.asarray(columns.reshape(len(units), -1)).T


@pytest.mark.parametrize("shape", [(7, 10), (8, 5)])
def test_symmetric_half_equals_the_matrix(shape):
    operator = system("white", shape).operator
    stencil = stencil_of(operator)
    grown = symmetric.even_shape(shape)
    u = np.random.default_rng(0).standard_normal(grown)
    u[shape[0] :], u[:, shape[1] :] = 0, 0
    inside = u[: shape[0], : shape[1]]
    expected = np.zeros(grown)
    expected[: shape[0], : shape[1]] = (operator.to_csr() @ inside.ravel()).reshape(
        shape
    )
    for form, apply in (
        (stencil, symmetric.apply),
        (symmetric.row_sum_form(stencil, jnp.float64), symmetric.apply_row_sum_form),
    ):
        result = apply(form, jnp.pad(u, 1))
        np.testing.assert_allclose(result, expected, atol=1e-9 * abs(expected).max())


def test_row_sum_form_keeps_float32_exact_on_smooth_fields():
    n = 127
    operator = system("white", (n, n)).operator
    stencil = stencil_of(operator)
    x = np.linspace(0, 1, n + 3)[1:-1]
    u = np.float32(np.sin(np.pi * x)[:, None] * np.sin(np.pi * x))
    exact = symmetric.apply(stencil, jnp.pad(u.astype(float), 1))

    def error(values):
        return np.linalg.norm(values - exact) / np.linalg.norm(exact)

    low = {o: a.astype(jnp.float32) for o, a in stencil.items()}
    form = symmetric.row_sum_form(stencil, jnp.float32)
    good = error(symmetric.apply_row_sum_form(form, jnp.pad(u, 1)))
    assert good < 1e-6
    assert good < 0.1 * error(symmetric.apply(low, jnp.pad(u, 1)))


def test_nine_point_half_equals_dense_reference():
    stencil = nine_point((4, 6))
    dense = np.asarray(symmetric.dense(stencil))
    applied = matrix(lambda u: symmetric.apply(stencil, jnp.pad(u, 1)), (4, 6))
    np.testing.assert_array_equal(dense, applied)
    np.testing.assert_array_equal(dense, dense.T)
    reference = sp.lil_array((24, 24))
    for o, values in stencil.items():
        for i, j in np.ndindex(4, 6):
            if 0 <= i + o[0] < 4 and 0 <= j + o[1] < 6:
                row, column = i * 6 + j, (i + o[0]) * 6 + j + o[1]
                reference[row, column] = reference[column, row] = values[i + 1, j + 1]
    np.testing.assert_array_equal(dense, reference.toarray())


@pytest.mark.parametrize("points", [5, 9])
def test_coarse_operator_is_galerkin_and_restriction_the_transpose(points):
    shape, cells = (10, 12), (5, 6)
    if points == 5:
        stencil = stencil_of(system("white", shape).operator)
    else:
        stencil = nine_point(shape)
    weights = transfer.interpolation_weights(stencil)
    A = np.asarray(symmetric.dense(stencil))
    P = matrix(lambda e: transfer.interpolate(weights, jnp.pad(e, 1)), cells)
    R = matrix(lambda r: transfer.restrict(weights, jnp.pad(r, 1)), shape)
    np.testing.assert_array_equal(R, P.T)
    coarse = transfer.galerkin(stencil, weights)
    coarse = symmetric.dense({o: jnp.pad(a, 1) for o, a in coarse.items()})
    A_sparse, P_sparse = sp.csr_array(A), sp.csr_array(P)
    expected = (P_sparse.T @ A_sparse @ P_sparse).toarray()
    np.testing.assert_allclose(coarse, expected, atol=1e-12 * abs(expected).max())


def test_interpolation_solves_the_one_dimensional_jump_exactly():
    """Across a jump a u' is continuous: weights a_left, a_right over their sum."""
    stencil = nine_point((6, 6))
    values = {o: np.zeros((8, 8)) for o in ((0, 0), (0, 1), (1, 0))}
    values[0, 0][1:-1, 1:-1] = 5.0 + 1.0
    values[1, 0][1:-2, 1:-1] = -1.0
    values[1, 0][2, 1:-1] = -5.0  # from row 1 to row 2
    stencil = {o: jnp.asarray(v) for o, v in values.items()}
    weights = transfer.interpolation_weights(stencil)
    lower = symmetric.window(weights[1, 0][0, 0])[0]
    upper = symmetric.window(weights[1, 0][1, 0])[0]
    np.testing.assert_allclose(lower, 1 / 6)
    np.testing.assert_allclose(upper, 5 / 6)


@jax.jit
def run_cycle(values, u):
    hierarchy = cycles.build_hierarchy(values)
    return jax.vmap(lambda b: cycles.v_cycle(hierarchy, b))(u)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "shape", [pytest.param((21, 34), marks=pytest.mark.slow), (17, 9)]
)
def test_cycle_is_symmetric_and_positive(family, shape):
    values = planes_of(system(family, shape).operator)
    scale = float(jnp.mean(values[0, 0]))
    values = {o: a / scale for o, a in values.items()}
    u = np.random.default_rng(0).standard_normal((6, *shape))
    Mu = np.asarray(run_cycle(values, u))
    gram = np.tensordot(u, Mu, axes=([1, 2], [1, 2]))
    assert abs(gram - gram.T).max() <= 1e-12 * abs(gram).max()
    assert np.linalg.eigvalsh(gram).min() > 0


def test_smoother_converges_on_any_spd_stencil():
    stencil = nine_point((8, 8), seed=3)
    W = np.asarray(symmetric.row_sum_weights(stencil)).ravel()
    spectrum = np.linalg.eigvals(W[:, None] * np.asarray(symmetric.dense(stencil)))
    assert abs(1 - spectrum).max() < 1
    assert spectrum.real.max() <= 1.6 + 1e-12


def test_padding_changes_nothing_but_adds_decoupled_unknowns():
    operator = StencilOperator(
        np.random.default_rng(0).standard_normal((1, 3, 5, 1)), ((0, 0),)
    )
    dense = np.asarray(symmetric.dense(stencil_of(operator)))
    expected = np.ones((4, 6))
    expected[:3, :5] = operator.coefficients[0, ..., 0]
    np.testing.assert_array_equal(dense, np.diag(expected.ravel()))
