import numpy as np
import pytest
import scipy.linalg
import scipy.sparse.linalg as spla

from solvers.krylov.deflated_cg import DeflationSpace, deflated_cg
from solvers.krylov.minres import minres
from solvers.krylov.ritz_harvest import RitzHarvest, ritz_coefficients

N, K = 120, 6


def hermitian(values, dtype=float, seed=0):
    """A dense matrix with these eigenvalues, and its eigenvectors."""
    rng = np.random.default_rng(seed)
    B = rng.standard_normal((len(values),) * 2)
    if dtype is complex:
        B = B + 1j * rng.standard_normal(B.shape)
    Q = np.linalg.qr(B)[0]
    A = (Q * np.asarray(values)) @ Q.conj().T
    return (A + A.conj().T) / 2, Q


def outlying(dtype=float, seed=0):
    """K tiny eigenvalues below a cluster in [1, 4]; and a right-hand side."""
    values = [*np.geomspace(1e-5, 1e-3, K), *np.linspace(1, 4, N - K)]
    A, Q = hermitian(values, dtype, seed)
    b = np.random.default_rng(seed + 1).standard_normal(N).astype(dtype)
    return A, Q, b


def solve(A, b, method=deflated_cg, rtol=1e-9, **settings):
    settings.setdefault("maxiter", 2000)
    return method(lambda v: A @ v, b, target=rtol * np.linalg.norm(b), **settings)


@pytest.mark.parametrize("dtype", [float, complex])
def test_without_a_space_it_is_scipys_cg(dtype):
    A, _ = hermitian(np.linspace(1, 50, N), dtype)
    b = np.random.default_rng(1).standard_normal(N).astype(dtype)
    scale = np.linspace(0.5, 2, N)
    M = np.diag(scale)
    steps = []
    x, _ = spla.cg(A, b, rtol=1e-9, M=M, callback=steps.append)
    result = solve(A, b, M=lambda r: scale * r)
    assert abs(result.iterations - len(steps)) <= 1
    assert not result.failure
    np.testing.assert_allclose(result.x, x, rtol=1e-7, atol=1e-8 * abs(x).max())
    assert len(result.residual_norms) == result.iterations + 1
    np.testing.assert_allclose(result.r, b - A @ result.x, atol=1e-12)
    assert result.residual_norms[-1] == np.linalg.norm(result.r)


@pytest.mark.parametrize("dtype", [float, complex])
@pytest.mark.parametrize("preconditioned", [False, True])
def test_deflation_leaves_the_steps_of_the_rest_of_the_spectrum(dtype, preconditioned):
    A, Q, b = outlying(dtype)
    scale = np.linspace(0.8, 1.25, N)
    M = (lambda r: scale * r) if preconditioned else None
    space = DeflationSpace.build(lambda v: A @ v, Q[:, :K])
    plain, result = solve(A, b, M=M), solve(A, b, M=M, space=space)
    rest, _ = hermitian(np.linspace(1, 4, N), dtype)
    assert result.iterations <= solve(rest, b, M=M).iterations + 2
    assert result.iterations < plain.iterations / 2
    assert np.linalg.norm(b - A @ result.x) <= 1e-9 * np.linalg.norm(b)


def test_the_directions_stay_a_orthogonal_to_the_space():
    A, Q, b = outlying()
    rng = np.random.default_rng(5)
    W = Q[:, :K] + 0.02 * rng.standard_normal((N, K))  # far from invariant
    space = DeflationSpace.build(lambda v: A @ v, W)

    class Look(RitzHarvest):
        def add(self, p, Ap, MAp):
            largest = np.abs(space.AW.T @ p) / np.linalg.norm(space.AW, axis=0)
            worst.append(largest.max() / np.linalg.norm(p))
            assert np.allclose(Ap, A @ p)
            assert np.allclose(MAp, scale * Ap, atol=1e-9 * np.abs(MAp).max())

    worst, scale = [], np.linspace(0.5, 2, N)
    look = Look(2, window=10**6)
    result = solve(A, b, M=lambda r: scale * r, space=space, harvest=look)
    assert len(worst) >= result.iterations - 1
    assert max(worst) < 1e-9
    assert np.abs(W.T @ result.r).max() < 1e-9 * np.linalg.norm(b)


def test_a_space_with_the_solution_takes_no_step():
    A, _, b = outlying()
    W = np.stack([np.linalg.solve(A, b), b], axis=1)
    space = DeflationSpace.build(lambda v: A @ v, W * [1e6, 1e-9])
    result = solve(A, b, space=space)
    assert result.iterations == 0
    assert not result.failure


def test_dependent_columns_drop_out():
    A, Q, b = outlying()
    W = np.concatenate([Q[:, :K], Q[:, :K] @ np.ones((K, 2)), np.zeros((N, 1))], axis=1)
    full = DeflationSpace.build(lambda v: A @ v, Q[:, :K])
    space = DeflationSpace.build(lambda v: A @ v, W)
    assert np.linalg.matrix_rank(space.inverse, hermitian=True) == K
    assert space.definite
    assert solve(A, b, space=space).iterations == solve(A, b, space=full).iterations


def test_drift_is_noticed_and_mended():
    """Products that are a little off make the recursive residual lie."""
    A, _, b = outlying()
    noise = np.random.default_rng(3)

    def product(v):
        return (A @ v) * (1 + 1e-7 * noise.standard_normal(N))

    target = 1e-6 * np.linalg.norm(b)
    result = deflated_cg(product, b, target=target, maxiter=5000)
    assert result.cycles > 1
    assert np.linalg.norm(b - A @ result.x) <= 1.1 * target or result.failure


@pytest.mark.parametrize("deflated", [False, True])
def test_an_indefinite_matrix_is_named(deflated):
    A, Q = hermitian([-1.0, *np.linspace(1, 4, 39)])
    b = Q.sum(axis=1)
    space = DeflationSpace.build(lambda v: A @ v, Q[:, :3]) if deflated else None
    result = solve(A, b, space=space)
    assert "not positive definite" in result.failure
    assert "minres" in result.failure


def test_an_indefinite_preconditioner_is_named():
    A, _, b = outlying()
    for method in (deflated_cg, minres):
        result = solve(A, b, method, M=lambda r: -r)
        assert "the preconditioner is not positive definite" in result.failure


def test_the_step_limit_is_a_result():
    A, _, b = outlying()
    for method in (deflated_cg, minres):
        result = solve(A, b, method, maxiter=4)
        assert result.iterations == 4
        assert "4 steps were not enough" in result.failure


@pytest.mark.parametrize("dtype", [float, complex])
@pytest.mark.parametrize("windows", [1, None])
def test_a_harvest_finds_the_outlying_eigenvectors(dtype, windows):
    A, Q, b = outlying(dtype)
    harvest = RitzHarvest(K, window=60 if windows else 2 * K, max_windows=windows)
    result = solve(A, b, harvest=harvest)
    W, AW, MAW = harvest.vectors()
    assert W.shape == (N, K)
    np.testing.assert_allclose(AW, A @ W, atol=1e-7 * abs(AW).max())
    np.testing.assert_allclose(MAW, AW, atol=1e-7 * abs(MAW).max())
    np.testing.assert_allclose(W.conj().T @ AW, np.eye(K), atol=1e-6)
    cosines = np.linalg.svd(np.linalg.qr(W)[0].conj().T @ Q[:, :K])[1]
    assert cosines.min() > 0.99
    space = DeflationSpace.build(lambda v: A @ v, W)
    assert solve(A, b, space=space).iterations < 0.6 * result.iterations


def test_windows_carry_what_was_found_before():
    A, Q, b = outlying()
    harvests = [RitzHarvest(K, window=8, max_windows=w) for w in (1, None)]
    sines = []
    for harvest in harvests:
        solve(A, b, harvest=harvest)
        W = np.linalg.qr(harvest.vectors()[0])[0]
        sines.append(np.linalg.norm(Q[:, :K] - W @ (W.T @ Q[:, :K]), 2))
    assert sines[1] < 0.2 < sines[0]


def test_ritz_vectors_of_an_invariant_space_are_exact():
    A, Q = hermitian(np.linspace(1, 9, 9))
    Z = Q[:, [8, 0, 4, 1]] @ np.random.default_rng(0).standard_normal((4, 4))
    Z = np.concatenate([Z, Z[:, :1] * 1e5], axis=1)  # and a dependent column
    Y = ritz_coefficients(Z, A @ Z, A @ Z, 2)
    W = Z @ Y
    np.testing.assert_allclose(A @ W, W * [1.0, 2.0], atol=1e-8)


def test_ritz_vectors_belong_to_the_preconditioned_matrix():
    A, _ = hermitian(np.linspace(1, 9, 9))
    scale = np.geomspace(0.1, 10, 9)
    values, vectors = scipy.linalg.eigh(A, np.diag(1 / scale))  # A v = theta M^-1 v
    Z = vectors[:, [8, 0, 4, 1]] @ np.random.default_rng(0).standard_normal((4, 4))
    W = Z @ ritz_coefficients(Z, A @ Z, scale[:, None] * (A @ Z), 2)
    np.testing.assert_allclose(
        scale[:, None] * (A @ W), W * values[:2], atol=1e-8 * abs(W).max()
    )


def test_harvest_sizes_are_checked():
    with pytest.raises(ValueError, match="k is 0"):
        RitzHarvest(0, window=3)
    with pytest.raises(ValueError, match="window is 0"):
        RitzHarvest(3, window=0)


@pytest.mark.parametrize("preconditioned", [False, True])
@pytest.mark.parametrize("dtype", [float, complex])
def test_minres_minimises_the_residual_of_indefinite_matrices(dtype, preconditioned):
    values = [*np.linspace(-3, -1, 15), *np.linspace(0.5, 5, 45)]
    A, _ = hermitian(values, dtype)
    b = np.random.default_rng(2).standard_normal(60).astype(dtype)
    scale = np.linspace(0.5, 2, 60)
    M = (lambda r: scale * r) if preconditioned else None
    result = solve(A, b, minres, M=M)
    assert not result.failure
    assert np.linalg.norm(b - A @ result.x) <= 1e-9 * np.linalg.norm(b)
    root = np.sqrt(scale) if preconditioned else np.ones(60)
    space, v = [], root * b
    for steps in range(1, 12):
        space.append(v / np.linalg.norm(v))
        v = root * (A @ (root * space[-1]))
        K_ = np.stack(space, axis=1)
        image = (root[:, None] * A * root) @ K_
        y = np.linalg.lstsq(image, root * b, rcond=None)[0]
        best = (root * b - image @ y) / root
        norm = solve(A, b, minres, M=M, maxiter=steps).residual_norms[-1]
        assert norm == pytest.approx(np.linalg.norm(best), rel=1e-6)
        assert result.residual_norms[steps] == pytest.approx(norm, rel=1e-8)


def test_minres_ends_on_an_invariant_space():
    A, Q = hermitian([-2.0, -1.0, 1.0, 3.0, 4.0])
    b = Q[:, 0] + Q[:, 3]
    result = solve(A, b, minres, rtol=1e-12)
    assert result.iterations == 2
    np.testing.assert_allclose(result.x, -Q[:, 0] / 2 + Q[:, 3] / 3, atol=1e-10)
    result = solve(np.diag([2.0, 3.0]), np.array([4.0, 0.0]), minres)  # exactly
    np.testing.assert_array_equal(result.x, [2.0, 0.0])
    assert not result.failure
