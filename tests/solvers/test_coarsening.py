import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
from families import gaussian_field, system

from solvers.diffusion import diffusion_operator
from solvers.multigrid import coarsening, cycles, symmetric, transfer
from solvers.multigrid.solver import MultigridPCG
from solvers.sequence import LinearSystem

RTOL = 1e-8


def box(shape, lengths, boundaries="dirichlet", log_a=0.0):
    """-div(a grad u) = f on a box, f random with mean zero; shape counts all nodes."""
    rng = np.random.default_rng(0)
    a = np.exp(log_a * rng.standard_normal(shape))
    spacing = [length / (n - 1) for length, n in zip(lengths, shape, strict=True)]
    operator = diffusion_operator(a, spacing, boundaries=boundaries)
    f = rng.standard_normal(operator.grid_shape)
    return LinearSystem(operator, f - f.mean())


def halves(operator):
    """Couplings [*n] per offset, NumPy."""
    return {
        o: operator.coefficients[0, ..., operator.offsets.index(o)]
        for o in symmetric.half(len(operator.grid_shape))
        if o in operator.offsets
    }


def iterations(one, **settings):
    x, record = MultigridPCG(**settings).solve(one, rtol=RTOL, maxiter=200)
    assert record.converged, record.status
    r = one.operator.residual(x[None], one.rhs[None])
    assert np.linalg.norm(r) <= RTOL * np.linalg.norm(one.rhs)
    return record.iterations


@pytest.mark.parametrize(
    ("shape", "lengths", "expected"),
    [
        ((66, 66), (1, 1), ()),
        ((66, 66), (1, 1.5), ()),  # couplings 2.25 : 1
        ((66, 66), (1, 2), ((0,),)),
        ((66, 66), (256, 32), ((1,), (1,), (1,))),
        ((10, 258), (1, 1), ((1,),) * 5),  # 8 and 256 unknowns
        ((18, 18, 18), (4, 4, 1), ((2,), (2,))),
        ((18, 18, 18), (1, 4, 16), ((0,), (0,), (0, 1), (0, 1))),
        ((10, 10), (1, 1e4), ((0,),) * 3),  # until one layer is left
        ((34,), (1,), ()),
    ],
)
def test_strong_axes_are_coarsened_first(shape, lengths, expected):
    for log_a in (0.0, 1.0):
        planes = halves(box(shape, lengths, log_a=log_a).operator)
        assert coarsening.schedule([planes, planes]) == expected


def test_couplings_that_leave_the_grid_do_not_matter():
    planes = halves(box((66, 66), (1, 1)).operator)
    planes[1, 0][-1] = -1e9
    assert coarsening.schedule([planes]) == ()


@pytest.mark.parametrize("name", ["white", "two_phase_1e4", "multiscale"])
def test_rough_fields_without_direction_coarsen_all_axes(name):
    for seed in range(3):
        planes = halves(system(name, (60, 64), seed).operator)
        assert coarsening.schedule([planes]) == ()


def columns(apply, shape):
    """Matrix of a linear map on arrays of a shape."""
    units = jnp.eye(int(np.prod(shape))).reshape(-1, *shape)
    return jax.vmap(apply)(units).reshape(len(units), -1).T


@pytest.mark.parametrize(
    ("shape", "axes", "boundaries"),
    [
        ((5, 6), (1,), "dirichlet"),
        pytest.param((6, 5), (0,), ("neumann", "periodic"), marks=pytest.mark.slow),
        pytest.param((4, 3, 4), (0, 2), "dirichlet", marks=pytest.mark.slow),
        pytest.param((4, 4, 3), (1,), "periodic", marks=pytest.mark.slow),
    ],
)
def test_partial_coarsening_is_galerkin(shape, axes, boundaries):
    pads = 2 if boundaries == "dirichlet" else 0
    one = box(tuple(n + pads for n in shape), (1,) * len(shape), boundaries, log_a=1.0)
    periodic = one.operator.periodic
    halo = functools.partial(symmetric.halo, periodic=periodic)

    @jax.jit
    def coarsen(values):
        stencil = symmetric.pad_to_even(values, periodic, axes)
        weights = transfer.interpolation_weights(stencil, periodic, axes)
        fine = symmetric.window(stencil[symmetric.center_of(stencil)]).shape
        coarse = tuple(n // 2 if k in axes else n for k, n in enumerate(fine))
        P = columns(lambda e: transfer.interpolate(weights, halo(e)), coarse)
        R = columns(lambda r: transfer.restrict(weights, halo(r), axes), fine)
        values = transfer.galerkin(stencil, weights, periodic, axes)
        result = symmetric.dense({o: halo(a) for o, a in values.items()}, periodic)
        return values, symmetric.dense(stencil, periodic), P, R, result

    values = {o: jnp.asarray(a) for o, a in halves(one.operator).items()}
    for _ in range(1 if periodic else 2):  # the second has diagonal couplings
        values, A, P, R, result = coarsen(values)
        np.testing.assert_array_equal(R, P.T)
        A, R, P = (sp.csr_array(np.asarray(a)) for a in (A, R, P))
        expected = (R @ A @ P).toarray()
        np.testing.assert_allclose(result, expected, atol=1e-12 * abs(expected).max())


@pytest.mark.parametrize(
    ("shape", "boundaries"),
    [
        ((17, 20), "dirichlet"),
        pytest.param((17, 22), ("periodic", "dirichlet"), marks=pytest.mark.slow),
        pytest.param((9, 12, 8), "dirichlet", marks=pytest.mark.slow),
    ],
)
def test_cycle_of_partial_coarsening_is_symmetric_and_positive(shape, boundaries):
    lengths = (1, 10, 1)[: len(shape)]
    operator = box(shape, lengths, boundaries, log_a=1.0).operator
    plan = coarsening.schedule([halves(operator)])
    assert len(plan) >= 2
    scale = operator.diagonal().mean()
    values = {o: jnp.asarray(a / scale) for o, a in halves(operator).items()}

    @jax.jit
    def run(u):
        hierarchy = cycles.build_hierarchy(values, operator.periodic, coarsening=plan)
        return jax.vmap(functools.partial(cycles.v_cycle, hierarchy))(u)

    u = np.random.default_rng(0).standard_normal((6, *operator.grid_shape))
    gram = u.reshape(6, -1) @ np.asarray(run(u)).reshape(6, -1).T
    assert abs(gram - gram.T).max() <= 1e-12 * abs(gram).max()
    assert np.linalg.eigvalsh(gram).min() > 0


def test_anisotropy_needs_no_more_iterations_than_the_cube():
    """Couplings 94 : 1; coarsening all axes is the negative control."""
    one = box((34, 18), (1, 5))
    good = iterations(one)
    assert good <= 12
    assert iterations(one, variant="point") > 3 * good


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "lengths", "boundaries", "most"),
    [
        ((67, 65), (1, 100), "neumann", 13),
        ((64, 64), (10, 1), "periodic", 13),
        ((63, 64), (10, 1), "periodic", 18),  # one layer inserted into the weak axis
        ((130, 10), (1, 1), "dirichlet", 13),
        ((18, 20, 14), (1, 10, 1), "dirichlet", 13),
    ],
)
def test_boxes_of_any_shape_take_a_dozen_iterations(shape, lengths, boundaries, most):
    assert iterations(box(shape, lengths, boundaries, log_a=0.5)) <= most


@pytest.mark.slow
def test_thin_channels_run_in_float64():
    """Cells of high contrast between all coarse points: weights lose their digits."""
    shape = (130, 130)
    field = gaussian_field(shape, alpha=2.0, tau=12.0, seed=0)
    a = np.where(abs(field) < 0.08, 1e4, 1.0)
    operator = diffusion_operator(a, (1 / 129, 1 / 129))
    one = LinearSystem(operator, np.ones(operator.grid_shape))
    assert iterations(one) < 0.8 * iterations(one, inner="float32")
