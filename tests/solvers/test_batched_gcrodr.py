"""Batched GCRO-DR: invariants, equality with the NumPy form, independence of chains."""

import functools
import os
import subprocess
import sys

import families
import jax
import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp

from solvers.krylov import batched_gcrodr, batched_spaces
from solvers.krylov.batched_cycle import run_cycle
from solvers.krylov.batched_gcrodr import (
    ChainResult,
    cut_into_chains,
    iter_chains,
    solve_chains,
)
from solvers.krylov.batched_position import CONVERGED, solve_position
from solvers.krylov.batched_spaces import carry_over, empty_space
from solvers.krylov.gcrodr import gcrodr
from solvers.sequence import LinearSystem
from solvers.stencils import FIVE_POINT, StencilOperator

SHAPE, CHAINS, LENGTH = (14, 11), 3, 4
SIZES = {"m": 16, "k": 6}
TRACES = []


def jacobi(operator, r):
    """The built-in one, which also notes that it was traced."""
    TRACES.append(r.shape)
    return batched_gcrodr.jacobi(operator, r)


# One setting for most tests: compiling takes far longer than solving.
solve_with_jacobi = functools.partial(solve_chains, precondition=jacobi, **SIZES)


def chains(shape=SHAPE, num_chains=CHAINS, length=LENGTH, shift=0.0):
    """Operators per position and right-hand sides of slowly changing diffusion."""
    operators, nodes = [], tuple(n + 2 for n in shape)
    for position in range(length):
        planes = []
        for c in range(num_chains):
            log_a, change = (
                families.gaussian_field(nodes, alpha=2.0, tau=3.0, seed=seed)
                for seed in (c, 100 + 10 * c + position)
            )
            a = np.exp(0.8 * log_a + 0.05 * change)
            planes.append(families.diffusion(a, None).operator.coefficients[0])
        coefficients = np.stack(planes)
        if shift:
            coefficients = coefficients.astype(np.result_type(shift, 1.0))
            coefficients[..., 0] += shift
        operators.append(StencilOperator(coefficients, FIVE_POINT))
    rng = np.random.default_rng(0)
    return operators, 1 + 0.1 * rng.standard_normal((num_chains, length, *shape))


@functools.cache
def reference():
    """The chains of most tests here and their result."""
    operators, rhs = chains()
    positions = zip(operators, np.moveaxis(rhs, 1, 0), strict=True)
    solutions, records, traces = [], [], []
    for x, found in iter_chains(positions, precondition=jacobi, **SIZES):
        solutions.append(x)
        records.append(found)
        traces.append(len(TRACES))
    assert traces[0] > 0
    assert traces == traces[:1] * LENGTH, "compiled again after the first position"
    records = [list(chain) for chain in zip(*records, strict=True)]
    return operators, rhs, ChainResult(np.stack(solutions, axis=1), records)


def numpy_form(operators, rhs, c, M=None, **settings):
    """Yields what the NumPy form returns for one chain."""
    space = None
    for position, operator in enumerate(operators):
        found = gcrodr(
            operator.to_csr(c),
            rhs[c, position].ravel(),
            M=None if M is None else M(operator.to_csr(c)),
            space=space,
            selection="singular",
            **settings,
        )
        space = found.space.for_another_matrix()
        yield found


def dense(operator):
    return [operator.to_csr(c).toarray() for c in range(operator.batch)]


@functools.partial(jax.jit, static_argnames="m")
def one_cycle(operator, r, space, target, budget, m):
    """A cycle and the residual that it leaves."""
    op = functools.partial(apply_flat, operator)
    cycle = run_cycle(op, r, space, target=target, budget=budget, m=m)
    return cycle, r - op(cycle.t)


def apply_flat(operator, v):
    shape = (operator.batch, *operator.grid_shape)
    return operator.apply(v.reshape(shape)).reshape(v.shape)


def cycles_of(operator, r, k, m, num_cycles, budget=None):
    """Yields cycles, each from the residual and the space that the one before left."""
    space = empty_space(CHAINS, k, r.shape[1], r.dtype)
    budget = np.full(CHAINS, m) if budget is None else np.array(budget)
    for _ in range(num_cycles):
        cycle, r = one_cycle(operator, r, space, np.zeros(CHAINS), budget, m)
        space = cycle.space
        yield jax.device_get(cycle), np.asarray(r)


@pytest.mark.parametrize(
    "shift", [0.0, pytest.param(-30.0 + 5.0j, marks=pytest.mark.slow)]
)
def test_cycle_keeps_its_invariants(shift):
    m, k = 16, 6
    operators, rhs = chains(length=1, shift=shift)
    operator = operators[0]
    b = rhs[:, 0].reshape(CHAINS, -1).astype(operator.coefficients.dtype)
    norms = [np.linalg.norm(b, axis=1)]
    budget = [m, m, 11]  # the last chain stops early in its first cycle
    for cycle, r in cycles_of(operator, b, k, m, 4, budget):
        for c, A in enumerate(dense(operator)):
            U, C, W = cycle.space.U[c], cycle.space.C[c], cycle.basis[c]
            assert cycle.space.alive[c].all()
            np.testing.assert_allclose(U @ A.T, C, atol=1e-11)
            np.testing.assert_allclose(C @ C.conj().T, np.eye(k), atol=1e-12)
            used = np.linalg.norm(W, axis=1) > 0
            gram = W[used] @ W[used].conj().T
            np.testing.assert_allclose(gram, np.eye(used.sum()), atol=1e-12)
            steps = cycle.steps[c]
            image = W[:steps] @ A.T
            error = image - cycle.coupling[c, :steps] @ W
            assert np.abs(error).max() < 1e-12 * np.abs(image).max()
            # The recurrence knows the residual of the minimiser.
            true = np.linalg.norm(r[c])
            np.testing.assert_allclose(cycle.norms[c, -1], true, rtol=1e-6)
            assert (np.diff(cycle.norms[c]) <= 1e-12 * norms[0][c]).all()
        norms.append(np.linalg.norm(r, axis=1))
    assert (np.diff(norms, axis=0) < 0).all()


def test_basis_is_orthonormal_where_products_are_nearly_parallel():
    operators, rhs = chains(length=1, shift=1e8)
    b = rhs[:, 0].reshape(CHAINS, -1)
    for cycle, _ in cycles_of(operators[0], b, 6, 16, 1, [9] * CHAINS):
        np.testing.assert_array_equal(cycle.steps, 9)
        for W in cycle.basis[:, :10]:
            np.testing.assert_allclose(W @ W.T, np.eye(10), atol=1e-12)


def test_new_space_is_the_best_of_the_search_space():
    operators, rhs = chains(length=1)
    operator, b = operators[0], rhs[:, 0].reshape(CHAINS, -1)
    first, second = (c for c, _ in cycles_of(operator, b, 6, 16, 2))
    for c, A in enumerate(dense(operator)):
        search = np.concatenate([second.basis[c, :10], first.space.U[c]]).T
        image = A @ search
        pencil = (image.T @ image, search.T @ search)
        expected = search @ scipy.linalg.eigh(*pencil)[1][:, :6]
        found = second.space.U[c].T
        sine = np.sin(scipy.linalg.subspace_angles(expected, found)).max()
        assert sine < 1e-6


def test_without_recycling_every_step_is_one_of_gmres():
    operators, rhs = chains(length=1)
    operator, b = operators[0], rhs[:, 0].reshape(CHAINS, -1)
    found = [cycle.norms for cycle, _ in cycles_of(operator, b, 0, 8, 3)]
    for c, A in enumerate(dense(operator)):
        r = b[c]
        for cycle in found:
            krylov = [r]
            expected = [np.linalg.norm(r)]
            for _ in range(8):
                Q = np.linalg.qr(np.array(krylov).T)[0]
                y = np.linalg.lstsq(A @ Q, r, rcond=None)[0]
                expected.append(np.linalg.norm(r - A @ Q @ y))
                krylov.append(A @ Q[:, -1])
            np.testing.assert_allclose(cycle[c], expected, rtol=1e-8)
            r = r - A @ Q @ y


@pytest.mark.slow
def test_counts_are_those_of_the_numpy_form():
    operators, rhs, result = reference()
    assert result.field("converged").all()
    for c in range(CHAINS):
        ours = numpy_form(
            operators, rhs, c, M=lambda A: sp.diags_array(1 / A.diagonal()), **SIZES
        )
        for position, one in enumerate(ours):
            record = result.records[c][position]
            assert abs(record.iterations - one.iterations) <= 2
            if record.iterations == one.iterations:
                assert record.matvecs == one.matvecs
                assert record.cycles == one.cycles
                applications = one.preconditioner_applications
                assert record.preconditioner_applications == applications
                assert record.recycle_dim == one.recycle_dim
            x = result.x[c, position].ravel()
            np.testing.assert_allclose(x, one.x, rtol=1e-5)
    cold, warm = result.field("iterations")[:, 0], result.field("iterations")[:, 1:]
    assert (warm.mean(axis=1) < 0.75 * cold).all()


def test_chains_do_not_influence_each_other():
    operators, rhs, result = reference()
    order, flipped = [2, 0, 1], []
    for operator in operators:
        coefficients = operator.coefficients[order].copy()
        coefficients[2] *= 3.0  # chain 1 becomes another one
        coefficients[2, ..., 0] += 50.0
        flipped.append(StencilOperator(coefficients, FIVE_POINT))
    other = solve_with_jacobi(flipped, rhs[order])
    for new, old in ((0, 2), (1, 0)):
        np.testing.assert_array_equal(other.x[new], result.x[old])
        for name in ("iterations", "matvecs", "cycles", "true_relative_residual"):
            np.testing.assert_array_equal(
                other.field(name)[new], result.field(name)[old]
            )


def test_nan_in_one_chain_harms_only_one_system():
    operators, rhs, result = reference()
    broken = [StencilOperator(o.coefficients.copy(), o.offsets) for o in operators]
    broken[1].coefficients[1, 3, 4, 2] = np.nan
    rhs = rhs.copy()
    rhs[2, 2, 0, 0] = np.inf
    found = solve_with_jacobi(broken, rhs)
    expected = np.ones((CHAINS, LENGTH), bool)
    expected[1, 1] = expected[2, 2] = False
    np.testing.assert_array_equal(found.field("converged"), expected)
    for c, position in ((1, 1), (2, 2)):
        record = found.records[c][position]
        assert "NaN" in record.status
        assert "recycle space" in record.fallbacks[0]
        assert found.records[c][position + 1].recycle_dim == 0
    np.testing.assert_array_equal(found.x[0], result.x[0])
    assert np.isfinite(found.x).all()


def test_zero_right_hand_side_gives_zero_and_keeps_the_space():
    operators, rhs, result = reference()
    rhs = rhs.copy()
    rhs[1, 1] = 0
    found = solve_with_jacobi(operators, rhs)
    assert found.field("converged").all()
    assert not found.x[1, 1].any()
    assert found.records[1][1].iterations == 0
    assert found.records[1][2].recycle_dim == SIZES["k"]
    cold = found.records[1][0].iterations
    assert found.records[1][2].iterations < 0.75 * cold
    np.testing.assert_array_equal(found.x[0], result.x[0])


def test_systems_out_of_reach_are_flagged():
    operators, rhs, _ = reference()
    exhausted = solve_with_jacobi(operators[:1], rhs[:, :1], maxiter=20)
    assert exhausted.field("iterations").max() == 20
    assert "maxiter" in exhausted.records[0][0].status
    tight = solve_with_jacobi(operators[:1], rhs[:, :1], rtol=1e-17)
    assert not tight.field("converged").any()
    assert "stagnates" in tight.records[0][0].status
    assert tight.field("true_relative_residual").max() < 1e-12
    loose = solve_with_jacobi(operators[:1], rhs[:, :1], atol=0.1)
    assert loose.field("converged").all()
    assert loose.field("true_relative_residual").min() > 1e-4


def test_one_program_serves_all_positions_and_tolerances():
    operators, rhs, _ = reference()  # asserts it for the positions
    del TRACES[:]
    found = solve_with_jacobi(operators, rhs, rtol=1e-6, atol=1e-9, maxiter=99)
    assert found.field("converged").all()
    assert not TRACES


@pytest.mark.slow
def test_single_precision_cycles_reach_double_precision():
    # Physical units that overflow in single precision when squared.
    operators, rhs = chains()
    operators = [StencilOperator(o.coefficients * 1e25, o.offsets) for o in operators]
    result = solve_chains(operators, rhs, inner="float32", rtol=1e-10, **SIZES)
    assert result.field("converged").all()
    assert result.field("true_relative_residual").max() <= 1e-10
    assert (result.field("recycle_dim")[:, 1:] == SIZES["k"]).all()
    double = numpy_form(operators, rhs, 0, rtol=1e-10, **SIZES)
    steps = np.array([one.iterations for one in double])
    np.testing.assert_allclose(result.field("iterations")[0], steps, rtol=0.2)


@pytest.mark.slow
def test_complex_chains():
    operators, rhs = chains(length=3, shift=-30.0 + 5.0j)
    result = solve_chains(operators, rhs * (1 + 2j), **SIZES)
    assert result.field("converged").all()
    steps = result.field("iterations")
    assert (steps[:, 1:] < steps[:, :1]).all()
    for c in range(CHAINS):
        x = np.linalg.solve(dense(operators[2])[c], (1 + 2j) * rhs[c, 2].ravel())
        np.testing.assert_allclose(result.x[c, 2].ravel(), x, rtol=1e-6)


def test_known_solutions_take_no_steps():
    operators, rhs = chains(length=1)
    operator, b = operators[0], np.ones((CHAINS, 154))
    solutions = np.stack([np.linalg.solve(A, np.ones(154)) for A in dense(operator)])
    Y, other = np.zeros((CHAINS, 6, 154)), rhs.reshape(CHAINS, -1)
    # Vectors that say the same twice are dropped; scaling does not matter.
    Y[:, 0], Y[:, 2], Y[:, 3] = solutions, 1e6 * solutions, other
    Y[:, 4] = other + 4e-6 * np.random.default_rng(1).standard_normal(other.shape)
    op = functools.partial(apply_flat, operator)
    carry = jax.jit(functools.partial(carry_over, op))
    space = carry(Y, np.any(Y != 0, axis=-1))
    spaces = jax.device_get((space.alive, space.U, space.C))
    for alive, U, C, A in zip(*spaces, dense(operator), strict=True):
        assert alive.sum() == 3
        np.testing.assert_allclose(C @ C.T, np.diag(alive), atol=1e-12)
        np.testing.assert_allclose(U @ A.T, C, atol=1e-8)
    budget = np.full(CHAINS, 9)
    cycle, _ = one_cycle(operator, b, space, np.full(CHAINS, 1e-8), budget, 16)
    assert not cycle.steps.any()
    np.testing.assert_allclose(cycle.t, solutions, rtol=1e-8)


@pytest.mark.slow
def test_a_harmful_space_is_dropped():
    # A swaps neighbours; U = e_0 has A U = e_1, so that the first product, A e_0, is
    # gone once C is projected out, and the cycle can do nothing.
    coefficients = np.zeros((2, 8, 2))
    coefficients[:, 1::2, 0] = coefficients[:, ::2, 1] = 1
    operator = StencilOperator(coefficients, ((-1,), (1,)))
    b, Y = np.zeros((2, 8)), np.zeros((2, 2, 8))
    b[:, 0], Y[0, 0, 0] = 1, 1
    solve = functools.partial(solve_position, m=4, precondition=None, inner="float64")
    carried = (Y, np.any(Y != 0, axis=-1))
    limits = np.array([1e-8, 0.0, 100.0])
    x, _, _, counts = jax.jit(solve)(operator, b, carried, limits)
    np.testing.assert_allclose(x, np.eye(8)[[1, 1]], atol=1e-14)
    np.testing.assert_array_equal(counts.drops, [1, 0])
    np.testing.assert_array_equal(counts.status, CONVERGED)
    np.testing.assert_array_equal(counts.iterations, [3, 2])
    np.testing.assert_array_equal(counts.matvecs, [1 + 2 + 3, 3])


def test_dependent_search_vectors_leave_a_smaller_sound_space():
    rng = np.random.default_rng(0)
    A = np.diag(np.arange(1.0, 31.0)) + np.diag(np.ones(29), 1)
    V = np.linalg.qr(rng.standard_normal((30, 30)))[0]
    search = np.stack([V[0], V[1], V[2], V[0] + V[1], V[1] - V[2]])[None]
    W, R = np.linalg.qr((search[0] @ A.T).T)
    basis, coupling = np.zeros((1, 6, 30)), np.zeros((1, 5, 6))
    basis[0, :5], coupling[0, :, :5] = W.T, R.T
    refresh = jax.jit(functools.partial(batched_spaces.refresh, k=4))
    space = refresh(basis, coupling, search, np.ones((1, 5), bool))
    alive = np.asarray(space.alive[0])
    assert alive.sum() == 3
    np.testing.assert_allclose(space.U[0] @ A.T, space.C[0], atol=1e-10)
    gram = np.asarray(space.C[0] @ space.C[0].T)
    np.testing.assert_allclose(gram, np.diag(alive), atol=1e-10)


def test_a_sorted_list_is_cut_into_neighbours():
    systems = [
        LinearSystem(StencilOperator(np.full((1, 2, 2, 1), i), ((0, 0),)), np.ones(4))
        for i in range(6)
    ]
    operators = [operator for operator, _ in cut_into_chains(systems, 2)]
    found = [o.coefficients[:, 0, 0, 0].tolist() for o in operators]
    assert found == [[0, 3], [1, 4], [2, 5]]
    with pytest.raises(ValueError, match="divisor of 6"):
        cut_into_chains(systems, 4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"m": 5, "k": 5}, "0 <= k < m"),
        ({"m": 5, "k": -1}, "0 <= k < m"),
        ({"m": 200, "k": 5}, "m is 200; expected at most 154"),
        ({"rtol": 0.0}, "rtol"),
        ({"maxiter": 0}, "maxiter"),
        ({"inner": "float16"}, "float16"),
        ({"precondition": "ilu"}, "known: none, jacobi"),
        ({"devices": range(2)}, "divided evenly"),
    ],
)
def test_refuses_bad_settings(settings, message):
    operators, rhs = chains(length=1)
    with pytest.raises(ValueError, match=message):
        solve_chains(operators, rhs, **settings)


def test_refuses_systems_that_do_not_fit():
    operators, rhs, _ = reference()
    with pytest.raises(ValueError, match="shape"):
        solve_with_jacobi(operators, rhs[:2])
    with pytest.raises(TypeError, match="StencilOperator"):
        solve_with_jacobi([operators[0].to_csr()], rhs[:, :1])
    with pytest.raises(ValueError, match="empty"):
        solve_with_jacobi([], np.ones((CHAINS, 0, *SHAPE)))
    both = [operators[0], StencilOperator(operators[1].coefficients * 1j, FIVE_POINT)]
    with pytest.raises(ValueError, match="first position"):
        solve_with_jacobi(both, rhs[:, :2])


def test_needs_64_bit():
    jax.config.update("jax_enable_x64", False)
    with pytest.raises(RuntimeError, match="jax_enable_x64"):
        solve_chains([], np.ones((1, 0, 3, 3)))


def lognormal(nodes, seed):
    """exp of the periodic Gaussian field of Wang et al. (2024) for Darcy flow."""
    wave = np.fft.fftfreq(nodes, 1 / nodes)
    square = 4 * np.pi**2 * (wave[:, None] ** 2 + wave[None] ** 2) + 7.0**2
    size = nodes**2 * np.sqrt(2) * 7.0**1.5 * square ** (-2.5 / 2)
    size[0, 0] = 0
    real, imaginary = np.random.default_rng(seed).standard_normal((2, nodes, nodes))
    noise = (real + 1j * imaginary) / np.sqrt(2)
    return np.exp(np.fft.ifft2(noise * size).real)


@pytest.mark.slow
def test_darcy_counts_of_the_specification():
    # Independent implementation, same fields: 92-104 steps recycled, 203 cold.
    systems = [
        families.diffusion(lognormal(50, seed), np.ones((48, 48))) for seed in range(24)
    ]
    found = [records for _, records in iter_chains(cut_into_chains(systems, 2))]
    steps = np.array([[r.iterations for r in records] for records in found])
    assert all(r.converged for records in found for r in records)
    assert 190 <= steps[0].mean() <= 225
    assert 88 <= steps[4:].mean() <= 104


@pytest.mark.slow
def test_chains_sharded_over_devices_give_the_same():
    code = """
import jax
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_num_cpu_devices", 8)
import numpy as np
from test_batched_gcrodr import SIZES, chains
from solvers.krylov.batched_gcrodr import solve_chains
operators, rhs = chains(num_chains=8, length=3)
together = solve_chains(operators, rhs, **SIZES)
apart = solve_chains(operators, rhs, devices=jax.devices(), **SIZES)
assert len(jax.devices()) == 8
assert apart.field("converged").all()
for name in ("iterations", "matvecs", "recycle_dim"):
    difference = together.field(name) - apart.field(name)
    assert abs(difference).max() <= 1, (name, difference)
np.testing.assert_allclose(together.x, apart.x, rtol=1e-6)
"""
    folder = os.path.dirname(__file__)
    path = os.pathsep.join([folder, os.path.join(folder, "..", ".."), *sys.path])
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": path},
    )
