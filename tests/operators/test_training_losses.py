"""Norms against closed forms, and JAX against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from operators.training import losses, metrics


def fields(n1, n2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((2, 3, n1, n2, 2))


def test_relative_l2_of_a_scaled_field_is_the_scale_error():
    target = fields(9, 12)[0]
    np.testing.assert_allclose(losses.relative_l2(1.25 * target, target), 0.25)


def test_errors_are_per_sample_over_points_and_channels():
    prediction, target = fields(9, 12)
    expected = [
        np.linalg.norm(p - t) / np.linalg.norm(t)
        for p, t in zip(prediction, target, strict=True)
    ]
    np.testing.assert_allclose(losses.relative_l2(prediction, target), expected)


def test_relative_h1_converges_to_the_closed_form_on_a_rectangle():
    # u = x^2 y, e = u (1 - s) has the relative error |1 - s|; use e = x y instead:
    # ||xy||^2 = 1/9, |grad|^2 = 1/3 + 1/3; ||u||^2 = 1/15, |grad u|^2 = 4/9 + 1/5.
    expected = np.sqrt((1 / 9 + 2 / 3) / (1 / 15 + 4 / 9 + 1 / 5))
    observed = []
    for n in (40, 80, 160):
        n1, n2 = n + 1, 2 * n + 1
        x, y = np.meshgrid(np.linspace(0, 1, n1), np.linspace(0, 1, n2), indexing="ij")
        u, e = (x**2 * y)[None, ..., None], (x * y)[None, ..., None]
        observed.append(losses.relative_h1(u + e, u, (1 / n, 0.5 / n))[0])
    errors = np.abs(np.array(observed) - expected)
    assert errors[-1] < 0.02
    assert errors[2] < 0.6 * errors[1] < 0.4 * errors[0]


@pytest.mark.parametrize(("n1", "n2"), [(16, 16), (15, 16), (16, 15), (64, 45)])
@pytest.mark.parametrize("weight", [1.0, 2.0])
def test_spectral_h1_matches_the_full_complex_transform(n1, n2, weight):
    prediction, target = fields(n1, n2)

    def norm(v):
        spectrum = np.fft.fft2(v, axes=(1, 2), norm="ortho")
        k1 = np.abs(np.fft.fftfreq(n1, 1 / n1))
        k2 = np.abs(np.fft.fftfreq(n2, 1 / n2))
        k1, k2 = np.where(k1 < 20, k1, 0), np.where(k2 < 20, k2, 0)
        w = np.sqrt(1 + weight**2 * (k1[:, None] ** 2 + k2[None] ** 2))
        return np.sqrt((np.abs(spectrum * w[None, :, :, None]) ** 2).sum((1, 2, 3)))

    expected = norm(prediction - target) / norm(target)
    observed = losses.relative_h1_spectral(prediction, target, weight)
    np.testing.assert_allclose(observed, expected, rtol=1e-12)


def test_spectral_h1_gives_no_derivative_weight_from_the_cutoff_on():
    x = np.arange(64) / 64
    for k, expected in ((19, np.sqrt(1 + 19**2)), (20, 1.0)):
        wave = np.cos(2 * np.pi * k * x)[None, :, None, None] * np.ones((1, 1, 8, 1))
        constant = np.full_like(wave, np.sqrt(0.5))
        error = losses.relative_h1_spectral(constant + wave, constant)[0]
        assert error == pytest.approx(expected)


@pytest.mark.parametrize("name", sorted(losses.LOSSES))
def test_jax_float32_agrees_with_numpy_float64(name):
    prediction, target = fields(17, 12)
    loss_fn = losses.create(name, (1 / 16, 1 / 11))
    single = loss_fn(jnp.asarray(prediction, "float32"), jnp.asarray(target, "float32"))
    assert single.dtype == jnp.float32
    double = loss_fn(prediction, target)
    assert double.dtype == np.float64
    np.testing.assert_allclose(single, double, rtol=2e-6)


def test_a_zero_target_has_a_finite_gradient_free_error():
    zero = np.zeros((1, 8, 8, 1))
    assert losses.relative_l2(zero, zero)[0] == 0


@pytest.mark.parametrize("name", sorted(losses.LOSSES))
def test_a_perfect_prediction_has_error_and_gradient_zero(name):
    prediction, target = (jnp.asarray(v, "float32") for v in fields(6, 5))
    loss_fn = losses.create(name, (0.2, 0.25))
    prediction = prediction.at[1].set(target[1])  # one perfect sample among others
    errors, gradient = jax.jit(
        lambda v: (loss_fn(v, target), jax.grad(lambda w: loss_fn(w, target).sum())(v))
    )(prediction)
    assert errors[1] == 0
    np.testing.assert_array_equal(gradient[1], 0)
    assert np.isfinite(gradient).all()
    assert (jnp.abs(gradient[::2]).max(axis=(1, 2, 3)) > 0).all()


def test_errors_keep_every_bit_and_show_what_is_not_finite():
    prediction, target = (v.astype(np.float32) for v in fields(6, 5))
    squares = [(v**2).sum(axis=(1, 2, 3)) for v in (prediction - target, target)]
    expected = np.sqrt(squares[0]) / np.sqrt(squares[1])
    np.testing.assert_array_equal(losses.relative_l2(prediction, target), expected)
    prediction[0, 0, 0, 0], prediction[1, 0, 0, 0] = np.nan, np.inf
    observed = losses.relative_l2(prediction, target)
    np.testing.assert_array_equal(observed, [np.nan, np.inf, expected[2]])


def test_losses_reject_unknown_names_and_shapes_that_differ():
    with pytest.raises(ValueError, match="relative_l2"):
        losses.create("l2", (1, 1))
    with pytest.raises(ValueError, match=r"\(3, 9, 12, 2\)"):
        losses.relative_l2(fields(9, 12)[0], fields(12, 9)[0])


def test_summary_has_mean_spread_quantiles_and_all_samples():
    summary = metrics.summarize(np.array([0.1, 0.2, 0.3]))
    assert summary["mean"] == pytest.approx(0.2)
    assert summary["std"] == pytest.approx(0.1)
    assert summary["quantiles"]["0.5"] == pytest.approx(0.2)
    assert summary["per_sample"] == [0.1, 0.2, 0.3]


def test_spectrum_finds_the_shell_of_a_wave_and_its_mean_square():
    x = np.arange(31) / 31
    wave = 3 * np.cos(2 * np.pi * (4 * x[:, None] - 3 * np.arange(24) / 24))
    energy = metrics.spectrum(wave[None, ..., None])
    assert energy.shape == (13,)
    assert energy[5] == pytest.approx(np.mean(wave**2))  # |(4, -3)| = 5
    assert energy.sum() == pytest.approx(energy[5])


@pytest.mark.parametrize("grid", [(9,), (16,), (7, 6, 5), (4, 5, 8)])
def test_norms_and_spectrum_on_a_line_and_in_space(grid):
    rng = np.random.default_rng(len(grid))
    prediction, target = rng.standard_normal((2, 3, *grid, 2))
    axes = tuple(range(1, len(grid) + 1))
    spacing = tuple(0.1 * (axis + 1) for axis in axes)

    def h1(v):
        slopes = [np.diff(v, axis=a) / h for a, h in zip(axes, spacing, strict=True)]
        return np.sqrt(sum((d.reshape(3, -1) ** 2).sum(1) for d in (v, *slopes)))

    def h1_spectral(v):
        spectrum = np.fft.fftn(v, axes=axes)
        numbers = [np.abs(np.fft.fftfreq(n, 1 / n)) for n in grid]
        squares = [np.where(k < 3, k, 0) ** 2 for k in numbers]
        w = 1 + sum(np.meshgrid(*squares, indexing="ij"))
        power = np.abs(spectrum) ** 2 * w[None, ..., None]
        return np.sqrt(power.reshape(3, -1).sum(1))

    error = prediction - target
    observed = losses.relative_h1(prediction, target, spacing)
    np.testing.assert_allclose(observed, h1(error) / h1(target))
    observed = losses.relative_h1_spectral(prediction, target, cutoff=3)
    np.testing.assert_allclose(observed, h1_spectral(error) / h1_spectral(target))
    low = np.fft.fftn(target, axes=axes)
    radius = np.sqrt(
        sum(np.meshgrid(*[np.fft.fftfreq(n, 1 / n) ** 2 for n in grid], indexing="ij"))
    )
    low = np.where((radius < min(grid) // 2)[None, ..., None], low, 0)
    low = np.fft.ifftn(low, axes=axes).real
    assert metrics.spectrum(low).shape == (min(grid) // 2 + 1,)
    assert metrics.spectrum(low).sum() == pytest.approx(np.mean(low**2))


def test_slopes_follow_points_that_are_not_equidistant():
    x = np.array([0.0, 0.1, 0.4, 1.0])
    field = (3 * x)[None, :, None]  # slope 3 on each of three faces
    zero = np.zeros_like(field)
    squared = (field**2).sum()
    observed = losses.relative_h1(zero, field, (np.diff(x),))
    np.testing.assert_allclose(observed, 1)
    other = field + np.array([1.0, 1, 1, 1])[None, :, None]  # no slope in the error
    expected = np.sqrt(4 / (squared + 3 * 9))
    observed = losses.relative_h1(other, field, (np.diff(x),))
    np.testing.assert_allclose(observed, expected)
    with pytest.raises(ValueError, match="one entry per axis"):
        losses.relative_h1(field, field, (0.1, 0.1))


def test_nodes_of_a_mesh_have_no_norm_that_needs_a_grid():
    prediction, target = np.random.default_rng(0).random((2, 3, 11, 1))
    report = metrics.evaluate_fields(prediction, target, None)
    assert set(report) == {"relative_l2"}
    losses.create("relative_l2", None)
    with pytest.raises(ValueError, match="nodes of a mesh"):
        losses.create("relative_h1_spectral", None)
