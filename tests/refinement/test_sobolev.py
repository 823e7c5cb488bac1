"""Sobolev and Bochner norms against closed forms, and the released loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from operators.training import sobolev

UNIT = (1.0, 1.0)
ALPHA = 10**-1.5


def waves(n1, n2=None):
    """cos 2 pi x cos 2 pi y on the unit square."""
    x, y = (np.arange(n) / n for n in (n1, n2 or n1))
    return np.cos(2 * np.pi * x)[:, None] * np.cos(2 * np.pi * y)


@pytest.mark.parametrize(
    ("xp", "n"),
    [(np, 8), (np, 9), (np, (12, 7)), (jnp, (12, 7))],
    ids=["8", "9", "12x7", "jax"],
)
@pytest.mark.parametrize(
    ("order", "alpha", "expected"),
    [
        (0, 0.0, 0.5),
        (-1, 0.0, 0.05626976975981913),
        (-1, ALPHA, 0.05625850492104076),
        (1, 0.0, 0.5 * np.sqrt(8) * np.pi),
        (-0.5, 2.0, 0.5 * (2 + 8 * np.pi**2) ** -0.25),
    ],
)
def test_norms_of_one_wave(xp, n, order, alpha, expected):
    field = xp.asarray(waves(*np.atleast_1d(n)))
    norm = sobolev.sobolev_norm(field, order=order, lengths=UNIT, alpha=alpha)
    assert norm.dtype == np.float64
    np.testing.assert_allclose(norm, expected, rtol=1e-14)


def test_nyquist_waves_and_the_mean_count_once():
    for n in (4, 6):
        alternating = np.broadcast_to((-1.0) ** np.arange(n), (n, n))
        norm = sobolev.sobolev_norm(alternating, order=-2, lengths=(3.0, 2.0))
        np.testing.assert_allclose(norm, (np.pi * n / 2.0) ** -2, rtol=1e-14)
    ones = np.ones((5, 6))
    values = [(0, 0.0, 1.0), (-1, 0.0, 0.0), (1, 0.0, 0.0), (-1, 4.0, 0.5)]
    for order, alpha, expected in values:
        norm = sobolev.sobolev_norm(ones, order=order, lengths=UNIT, alpha=alpha)
        assert norm == pytest.approx(expected, abs=1e-15)


def test_lengths_scale_the_wave_numbers_of_their_own_axis():
    x = np.arange(10) / 10
    along = np.sin(2 * np.pi * x)[:, None] * np.ones(7)
    for field, length in ((along, 2.0), (along.T, 5.0)):
        norm = sobolev.sobolev_norm(field, order=1, lengths=(2.0, 5.0))
        assert norm == pytest.approx(2 * np.pi / length / np.sqrt(2), rel=1e-13)


def test_order_zero_is_the_root_mean_square_of_any_field():
    field = np.random.default_rng(0).normal(size=(2, 3, 9, 8))
    norm = sobolev.sobolev_norm(field, order=0, lengths=UNIT)
    np.testing.assert_allclose(norm, np.sqrt((field**2).mean((2, 3))), rtol=1e-13)


def test_negative_order_is_the_dual_of_the_positive_one():
    f, g = np.random.default_rng(1).normal(size=(2, 8, 9))
    norms = [
        sobolev.sobolev_norm(v, order=s, lengths=UNIT, alpha=1.0)
        for v, s in ((f, -1), (g, 1))
    ]
    assert abs((f * g).mean()) <= norms[0] * norms[1]
    # Equality where g is (1 - Laplacian)^-1 f.
    k2 = sobolev.squared_wavenumbers(f.shape, UNIT)
    solved = np.fft.irfft2(np.fft.rfft2(f) / (1 + k2), s=f.shape)
    squared = sobolev.squared_sobolev_norm(f, order=-1, lengths=UNIT, alpha=1.0)
    assert (f * solved).mean() == pytest.approx(squared, rel=1e-12)


def test_parseval_weights_make_the_spectrum_a_vector_of_that_length():
    field = np.random.default_rng(2).normal(size=(7, 10))
    weights = sobolev.parseval_weights(field.shape, -1.0, (1.0, 3.0), alpha=0.3)
    vector = np.sqrt(weights) * np.fft.rfft2(field)
    norm = sobolev.sobolev_norm(field, order=-1, lengths=(1.0, 3.0), alpha=0.3)
    assert np.linalg.norm(vector) == pytest.approx(norm, rel=1e-13)


@pytest.mark.parametrize(("space", "time"), [((-2, -1), -3), ((1, 2), 3)])
def test_bochner_norms_sum_over_time_first(space, time):
    rng = np.random.default_rng(3)
    field, other = rng.normal(size=(2, 2, 5, 8, 6))
    if time == 3:  # [batch, n1, n2, time]
        field, other = (np.moveaxis(v, 1, 3) for v in (field, other))
    settings = {"order": -1, "lengths": (1.0, 2.0), "axes": space}
    each = sobolev.sobolev_norm(field, **settings)  # [batch, time]
    settings["time_axis"] = time
    mean = sobolev.bochner_norm(field, **settings)
    np.testing.assert_allclose(mean, np.sqrt((each**2).mean(1)), rtol=1e-13)
    steps = np.array([0.1, 0.1, 0.2, 0.3, 0.1])
    weighted = sobolev.bochner_norm(field, weights=steps, **settings)
    np.testing.assert_allclose(weighted, np.sqrt((steps * each**2).sum(1)), rtol=1e-13)
    equal = sobolev.bochner_norm(field, weights=0.2, **settings)
    np.testing.assert_allclose(equal, mean, rtol=1e-13)
    relative = sobolev.relative_bochner(field + 0.1 * other, other, **settings)
    error = sobolev.bochner_norm(field - 0.9 * other, **settings)
    reference = sobolev.bochner_norm(other, **settings)
    np.testing.assert_allclose(relative, error / reference, rtol=1e-12)


def test_a_perfect_prediction_has_error_and_gradient_zero():
    target = jnp.asarray(np.random.default_rng(4).normal(size=(1, 3, 6, 6)))

    def loss(v):
        error = sobolev.relative_bochner(v, target, order=-1, lengths=UNIT)
        return error.sum()

    both = jax.jit(jax.value_and_grad(loss))
    value, gradient = both(target)
    assert value == 0
    assert not np.asarray(gradient).any()
    assert np.asarray(both(target + 1e-3 * waves(6)[None, None])[1]).any()


def test_single_precision_stays_single():
    field = waves(8)[None].astype(np.float32)
    for v in (field, jnp.asarray(field)):
        norm = sobolev.bochner_norm(v, order=-1, lengths=UNIT, weights=np.ones(1))
        assert norm.dtype == np.float32
        assert norm == pytest.approx(0.05626976975981913, rel=1e-6)


@pytest.mark.parametrize(
    ("n", "expected"), [(32, 171.743), (64, 686.972), (128, 2747.888)]
)
def test_released_loss_of_one_wave(n, expected):
    field = waves(n)[None]
    loss = sobolev.compat_sobolev_loss(field, None, order=-1, alpha=ALPHA)
    assert loss == pytest.approx(expected, abs=6e-4)
    assert loss == pytest.approx(n**2 * 0.16771777622100878, rel=1e-13)
    # What it computes is the norm of order -1/2 without the 1 / n^2.
    norm = sobolev.bochner_norm(field, order=-0.5, lengths=UNIT, alpha=ALPHA)
    assert loss == pytest.approx(n**2 * norm, rel=1e-12)


@pytest.mark.parametrize(("order", "really"), [(0, 1), (2, 1), (1, 0.5), (-1, -0.5)])
def test_released_relative_loss_is_too_small_by_the_root_of_the_times(order, really):
    target = np.random.default_rng(5).normal(size=(2, 10, 8, 8))
    prediction = target + np.random.default_rng(6).normal(size=target.shape)
    settings = {"alpha": 0.1, "lengths": (2.0, 2.0)}
    released = sobolev.compat_sobolev_loss(
        prediction, target, order=order, relative=True, **settings
    )
    true = sobolev.relative_bochner(prediction, target, order=really, **settings)
    np.testing.assert_allclose(released, true / np.sqrt(10), rtol=1e-12)


# Values of torch-cfd 475c738, fno/losses.py, SobolevLoss(n_grid=6, freq_cutoff=2,
# alpha=0.3, diam=2) in float64, time last: (absolute, relative) by order.
RELEASED = {
    -1: (15.367102294269673, 0.6985294399230885),
    0: (221.02412458700715, 0.7866923024372937),
    1: (86.33305312939694, 0.8089875798647715),
}


@pytest.mark.parametrize("order", RELEASED)
def test_released_loss_agrees_with_the_released_code(order):
    b, t, i, j = np.meshgrid(*map(np.arange, (2, 3, 6, 6)), indexing="ij")
    prediction = np.sin(b + 2 * t + 3 * i**2 + 5 * j + i * j)
    target = np.cos(b - 2 * t + i**2 - 4 * j + 2 * i * j)
    settings = {"order": order, "alpha": 0.3, "lengths": (2.0, 2.0), "cutoff": 2}
    for relative, expected in zip((False, True), RELEASED[order], strict=True):
        for xp in (np, jnp):
            loss = sobolev.compat_sobolev_loss(
                xp.asarray(prediction),
                xp.asarray(target),
                relative=relative,
                **settings,
            )
            assert loss.mean() == pytest.approx(expected, rel=1e-13)


def test_settings_that_do_not_fit_are_refused():
    field = np.zeros((2, 3, 4, 4))
    norm = {"order": -1, "lengths": UNIT}
    with pytest.raises(ValueError, match="alpha must not be negative, but is -1"):
        sobolev.sobolev_norm(field, alpha=-1, **norm)
    with pytest.raises(ValueError, match="one per entry of lengths"):
        sobolev.sobolev_norm(field, order=0, lengths=(1.0,))
    with pytest.raises(ValueError, match="rising order"):
        sobolev.sobolev_norm(field, axes=(3, 2), **norm)
    with pytest.raises(ValueError, match=r"\(2,\), but there are 3 times"):
        sobolev.bochner_norm(field, weights=np.ones(2), **norm)
    with pytest.raises(ValueError, match="one of the axes of space"):
        sobolev.bochner_norm(field, time_axis=-1, **norm)
    with pytest.raises(ValueError, match="must have one shape"):
        sobolev.relative_bochner(field, field[:1], **norm)
    with pytest.raises(ValueError, match="must have one shape"):
        sobolev.compat_sobolev_loss(field, field[:1])
    with pytest.raises(ValueError, match="needs a target"):
        sobolev.compat_sobolev_loss(field, None, relative=True)
    with pytest.raises(ValueError, match="alpha must be positive for order -1"):
        sobolev.compat_sobolev_loss(field, field, alpha=0.0)
    with pytest.raises(ValueError, match="the length of the domain along every axis"):
        sobolev.parseval_weights((4, 4), 0, (1.0,))
