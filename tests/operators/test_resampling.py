import jax
import jax.numpy as jnp
import numpy as np
import pytest

from operators.layers import resampling


def waves(grid, frequencies):
    """Random real field [1, *grid, 1] of |k| <= frequencies per axis, as a function."""
    rng = np.random.default_rng(0)
    points = np.meshgrid(*(np.arange(n) / n for n in grid), indexing="ij")
    field = np.zeros(grid)
    for k in np.ndindex(*(2 * f + 1 for f in frequencies)):
        k = np.subtract(k, frequencies)
        amplitude, phase = rng.normal(), rng.uniform(0, 2 * np.pi)
        angle = sum(a * b for a, b in zip(k, points, strict=True))
        field += amplitude * np.cos(2 * np.pi * angle + phase)
    return field[None, ..., None]


@pytest.mark.parametrize(
    ("grid", "out"),
    [
        ((7, 8), (9, 16)),
        ((16, 15), (10, 7)),
        ((15, 32), (32, 15)),
        ((33,), (20,)),
        ((7, 8, 9), (8, 7, 14)),
    ],
)
def test_fourier_is_exact_for_what_both_grids_resolve(grid, out):
    resolved = [(min(n, m) - 1) // 2 for n, m in zip(grid, out, strict=True)]
    with jax.enable_x64(True):
        result = resampling.fourier_resample(jnp.asarray(waves(grid, resolved)), out)
    np.testing.assert_allclose(result, waves(out, resolved), atol=1e-11)


def test_fourier_in_single_precision():
    u = waves((32, 33), (10, 10)).astype(np.float32)
    result = resampling.fourier_resample(jnp.asarray(u), (48, 64))
    expected = waves((48, 64), (10, 10))
    assert result.dtype == jnp.float32
    assert np.abs(result - expected).max() <= 1e-6 * np.abs(expected).max()


@pytest.mark.parametrize("n", [6, 7])
@pytest.mark.parametrize("m", [8, 9, 12, 13])
def test_refining_and_coarsening_is_the_identity_and_keeps_the_mean(n, m):
    up, down = resampling.fourier_matrix(n, m), resampling.fourier_matrix(m, n)
    np.testing.assert_allclose(down @ up, np.eye(n), atol=1e-14)
    np.testing.assert_allclose(up.sum(axis=1), 1.0, atol=1e-14)
    np.testing.assert_allclose(up.mean(axis=0), 1 / n, atol=1e-14)
    np.testing.assert_allclose(down.mean(axis=0), 1 / m, atol=1e-14)


def test_frequencies_above_the_coarse_nyquist_do_not_alias():
    i = np.arange(16)
    for k, m in ((5, 8), (4, 7), (8, 15)):
        wave = np.cos(2 * np.pi * k * i / 16)
        np.testing.assert_allclose(
            resampling.fourier_matrix(16, m) @ wave, 0, atol=1e-14
        )


def test_nyquist_is_split_when_refining_and_summed_when_coarsening():
    nyquist = np.cos(np.pi * np.arange(8))
    fine = np.cos(2 * np.pi * 4 * np.arange(12) / 12)
    np.testing.assert_allclose(
        resampling.fourier_matrix(8, 12) @ nyquist, fine, atol=1e-14
    )
    np.testing.assert_allclose(
        resampling.fourier_matrix(12, 8) @ fine, nyquist, atol=1e-14
    )


def test_long_axes_take_the_fft_and_give_the_same(monkeypatch):
    u = jnp.asarray(np.random.default_rng(0).normal(size=(2, 12, 9, 3)), jnp.float32)
    out = (18, 6)
    expected = resampling.fourier_resample(u, out)
    monkeypatch.setattr(resampling, "_LARGEST_MATRIX", 0)
    monkeypatch.setattr(resampling, "fourier_matrix", None)  # must not be called
    by_fft = jax.jit(lambda u: resampling.fourier_resample(u, out))(u)
    assert by_fft.dtype == u.dtype
    np.testing.assert_allclose(by_fft, expected, atol=2e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_ffts_take_short_floats(monkeypatch, dtype):
    monkeypatch.setattr(resampling, "_LARGEST_MATRIX", 0)
    u = jnp.asarray(waves((9,), (3,)), dtype)
    result = resampling.fourier_resample(u, (14,))
    assert result.dtype == u.dtype
    expected = waves((14,), (3,))
    assert np.abs(result.astype("float32") - expected).max() < 0.02 * expected.max()


@pytest.mark.parametrize(("num_points", "degree"), [(2, 1), (4, 3)])
@pytest.mark.parametrize(("n", "m"), [(5, 9), (9, 5), (6, 11), (7, 4), (8, 8)])
def test_lagrange_reproduces_polynomials_with_both_ends(num_points, degree, n, m):
    matrix = resampling.lagrange_matrix(n, m, num_points)
    for power in range(degree + 1):
        np.testing.assert_allclose(
            matrix @ np.linspace(0, 1, n) ** power,
            np.linspace(0, 1, m) ** power,
            atol=1e-14,
        )
    assert (matrix != 0).sum(axis=1).max() <= num_points


def test_lagrange_copies_points_that_coincide():
    assert np.array_equal(
        resampling.lagrange_matrix(421, 85, 4), np.eye(421)[::5]
    )  # the strides of the classic Darcy data
    up = resampling.lagrange_matrix(85, 421, 4)[::5]
    np.testing.assert_array_equal(up, np.eye(85))


def test_linear_is_the_interpolation_of_numpy_and_of_degenerate_axes():
    values = np.random.default_rng(0).normal(size=7)
    for m in (3, 7, 12, 14):
        expected = np.interp(np.linspace(0, 1, m), np.linspace(0, 1, 7), values)
        np.testing.assert_allclose(
            resampling.lagrange_matrix(7, m, 2) @ values, expected, atol=1e-14
        )
    assert np.array_equal(resampling.lagrange_matrix(7, 1, 2), np.eye(7)[:1])
    assert np.array_equal(resampling.lagrange_matrix(1, 3, 2), np.ones((3, 1)))


@pytest.mark.parametrize("order", [2, 4])
def test_orders_of_convergence(order):
    def field(n):
        return np.sin(7 * np.linspace(0, 1, n) + 0.3)

    errors = [
        np.abs(
            resampling.lagrange_matrix(n, 1999, order) @ field(n) - field(1999)
        ).max()
        for n in (129, 257, 513)
    ]
    orders = np.log2(np.divide(errors[:-1], errors[1:]))
    np.testing.assert_allclose(orders, order, atol=0.1)


def test_three_axes_and_every_kind_act_per_axis():
    u = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 5, 6, 3)), jnp.float32)
    for kind in ("cubic", "fourier", "linear"):
        result = resampling.resample(u, (5, 4, 6), kind)
        assert result.shape == (2, 5, 4, 6, 3)
        by_axes = resampling.resample(u, (5, 5, 6), kind)
        by_axes = resampling.resample(by_axes, (5, 4, 6), kind)
        np.testing.assert_allclose(result, by_axes, atol=1e-5)


def test_rejects_grids_that_do_not_fit():
    u = jnp.ones((1, 8, 8, 1))
    for out in ((8,), (8, 0), (4, 4, 4), (4, 4.7)):
        with pytest.raises(ValueError, match="out_grid must hold 2 numbers of points"):
            resampling.linear_resample(u, out)
    with pytest.raises(TypeError, match=r"u must hold floating-point .* got int32"):
        resampling.cubic_resample(u.astype("int32"), (4, 4))
    with pytest.raises(ValueError, match="'nearest'; known: cubic, fourier, linear"):
        resampling.resample(u, (4, 4), "nearest")
