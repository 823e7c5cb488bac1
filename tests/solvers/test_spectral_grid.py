import jax
import numpy as np
import pytest

from solvers import fourier, spectral

TWO_PI = 2 * np.pi


def series(grid, frequencies, seed=0):
    """A real field with random coefficients at the given integer frequencies."""
    rng = np.random.default_rng(seed)
    axes = zip(grid.mesh(), grid.lengths, strict=True)
    x = [TWO_PI * points / length for points, length in axes]
    field = np.zeros(grid.shape)
    for j in frequencies:
        phase = sum(f * a for f, a in zip(j, x, strict=True))
        a, b = rng.normal(size=2)
        field += a * np.cos(phase) + b * np.sin(phase)
    return field


LOW = [(0, 0), (1, 2), (-2, 1), (2, 0), (0, 2), (-1, 2), (2, 2)]


@pytest.mark.parametrize("coarse", [(6, 7), (5, 8), (7, 6)])
@pytest.mark.parametrize("fine", [(9, 12), (10, 11), (7, 8)])
def test_resampling_is_exact_both_ways_for_what_both_grids_resolve(coarse, fine):
    lengths = (2.0, 3.0)
    low, high = (spectral.PeriodicGrid(shape, lengths) for shape in (coarse, fine))
    a, b = series(low, LOW), series(high, LOW)
    np.testing.assert_allclose(low.resample(a, fine), b, atol=1e-13)
    np.testing.assert_allclose(high.resample(b, coarse), a, atol=1e-13)


@pytest.mark.parametrize(("n", "m"), [(6, 9), (6, 8), (8, 6), (9, 6), (5, 8), (8, 5)])
def test_resampling_shares_the_nyquist_frequency_on_both_axes(n, m):
    # A random field has all frequencies of its grid: refining and coarsening gives it
    # back, and the values agree with the sum of its series, cosines at n / 2.
    grid = spectral.PeriodicGrid((n, n + 2), (1.0, 2.0))
    field = np.random.default_rng(3).normal(size=grid.shape)

    def matrix(n, m):
        j = fourier.wavenumbers(n)
        at = np.exp(2j * np.pi * np.outer(np.arange(m), j) / m)
        if n % 2 == 0:
            at[:, n // 2] = at[:, n // 2].real
        if m < n:
            at[:, 2 * abs(j) > m] = 0
        return (at @ np.fft.fft(np.eye(n), axis=0) / n).real

    got = grid.resample(field, (m, m + 2))
    want = matrix(n, m) @ field @ matrix(n + 2, m + 2).T
    np.testing.assert_allclose(got, want, atol=1e-13)
    if m >= n:
        back = grid.refined((m, m + 2)).resample(got, grid.shape)
        np.testing.assert_allclose(back, field, atol=1e-13)


def test_wavenumbers_differentiate_on_a_rectangle():
    grid = spectral.PeriodicGrid((12, 9), (2.0, 5.0))
    x, y = grid.mesh()
    a, b = TWO_PI * 2 / 2.0, TWO_PI * 3 / 5.0
    field = np.sin(a * x + b * y)
    k1, k2 = grid.angular_wavenumbers
    spectrum = grid.transform(field)
    assert spectrum.shape == grid.spectrum_shape == (12, 5)
    slope = np.cos(a * x + b * y)
    np.testing.assert_allclose(grid.inverse(1j * k1 * spectrum), a * slope, atol=1e-12)
    np.testing.assert_allclose(grid.inverse(1j * k2 * spectrum), b * slope, atol=1e-12)


def test_one_axis_and_single_precision():
    grid = spectral.PeriodicGrid((8,), (1.0,))
    field = np.float32(np.cos(TWO_PI * grid.mesh()[0]))
    finer = grid.resample(field, 16)
    assert finer.dtype == np.float32
    assert finer.shape == (16,)
    np.testing.assert_allclose(finer[::2], field, atol=1e-6)


def test_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="one positive number per axis"):
        spectral.PeriodicGrid((8, 8), (1.0,))
    with pytest.raises(ValueError, match="one positive number per axis"):
        spectral.PeriodicGrid((8,), (0.0,))
    with pytest.raises(ValueError, match="positive integers"):
        spectral.PeriodicGrid((8, 0), (1.0, 1.0))
    with pytest.raises(ValueError, match="positive integers"):
        spectral.PeriodicGrid((8, 2.5), (1.0, 1.0))
    grid = spectral.PeriodicGrid((8, 6), (1.0, 1.0))
    with pytest.raises(ValueError, match=r"\[\.\.\., 8, 6\]"):
        grid.transform(np.zeros((6, 8)))
    with pytest.raises(TypeError, match="real floating-point"):
        grid.transform(np.zeros((8, 6), int))
    with pytest.raises(ValueError, match="spectrum must have"):
        grid.inverse(np.zeros((8, 6), complex))
    with pytest.raises(ValueError, match="2 numbers of points"):
        grid.resample(np.zeros((8, 6)), (8,))


def test_jax_arrays_are_transformed_alike():
    grid = spectral.PeriodicGrid((6, 8), (1.0, 2.0))
    field = np.random.default_rng(3).normal(size=(2, 6, 8))
    for shape in ((8, 5), (4, 9)):
        resample = jax.jit(lambda u, shape=shape: grid.resample(u, shape))
        want = grid.resample(field, shape)
        np.testing.assert_allclose(resample(field), want, atol=1e-13)
