"""Laws of the random initial fields: closed forms, statistics, resolutions."""

import numpy as np
import pytest

from datagen.initial_fields import (
    FilteredVelocityField,
    GaussianField,
    McWilliamsField,
    TaylorGreenField,
    fno_sigma,
    fourier_series,
    mean_square,
    normal_modes,
    taylor_green,
    velocity,
    wavenumber_length,
)

TWO_PI = 2 * np.pi


def fno_field(num_modes, scaling="old"):
    return GaussianField(2.5, 7.0, fno_sigma(2.5, 7.0, 2, scaling), num_modes)


LAWS = {
    "gaussian": fno_field,
    "gaussian_1d": lambda m: GaussianField(2.0, 5.0, 25.0, m, (1.0,)),
    "mcwilliams": McWilliamsField,
    "filtered_velocity": FilteredVelocityField,
    "taylor_green": lambda m: TaylorGreenField(m, counts=(1, 5)),
}
# How far the scale of a draw depends on the modes beyond the twelfth: these laws
# prescribe the energy or the largest speed of all of it.
SCALED = {"mcwilliams": 3e-4, "filtered_velocity": 2e-2}


def draws(law, num, shape, start=0):
    fields = [law.draw(np.random.default_rng(start + i)) for i in range(num)]
    return fourier_series(np.stack(fields), shape)


def test_series_on_a_grid_is_the_sum_of_its_modes():
    c = np.random.default_rng(0).normal(size=(5, 3, 2)) @ [1, 1j]
    c[3:, 0] = c[2:0:-1, 0].conj()
    c[0, 0] = 0.7
    x, y = np.arange(5) / 5, np.arange(6) / 6
    expected = np.full((5, 6), 0.7)
    for j1 in (0, 1, 2, -2, -1):
        for j2 in (0, 1, 2):
            if (j1, j2) == (0, 0):
                continue
            wave = np.exp(TWO_PI * 1j * np.add.outer(j1 * x, j2 * y))
            weight = 1 if j2 == 0 else 2  # column 0 holds j and -j
            expected += weight * (c[j1, j2] * wave).real
    np.testing.assert_allclose(fourier_series(c, (5, 6)), expected, atol=1e-14)


@pytest.mark.parametrize("name", LAWS)
def test_draw_is_the_same_field_at_every_resolution(name):
    """Finer grids hold the same values, more modes change no lower ones."""
    fine, coarse = (LAWS[name](m).draw(np.random.default_rng(3)) for m in (20, 12))
    shape = (60,) * coarse.ndim
    every_second = (slice(None, None, 2),) * coarse.ndim
    np.testing.assert_allclose(
        fourier_series(fine, (120,) * coarse.ndim)[every_second],
        fourier_series(fine, shape),
        atol=1e-13 * np.abs(fine).sum(),
    )
    truncated = fourier_series(fine, (25,) * coarse.ndim)  # holds |j| <= 12
    same = fourier_series(coarse, (25,) * coarse.ndim)
    scale = np.linalg.norm(truncated) / np.linalg.norm(same)
    assert abs(scale - 1) <= SCALED.get(name, 1e-14)
    np.testing.assert_allclose(truncated, scale * same, atol=1e-12 * np.abs(same).max())


@pytest.mark.parametrize("name", LAWS)
def test_fields_are_real_series_of_mean_zero(name):
    c = LAWS[name](9).draw(np.random.default_rng(1))
    assert c[(0,) * c.ndim] == 0
    u = fourier_series(c, (20,) * c.ndim)
    np.testing.assert_allclose(u.mean(), 0, atol=1e-13 * np.abs(u).max())
    assert (u**2).mean() == pytest.approx(mean_square(c, c.ndim), rel=1e-12)


def test_white_noise_has_unit_variance_in_every_mode():
    rng = np.random.default_rng(0)
    z = np.stack([normal_modes(rng, 2, 2)[0] for _ in range(4000)])
    power = (np.abs(z) ** 2).mean(axis=0)
    assert power[0, 0] == 0
    power[0, 0] = 1
    np.testing.assert_allclose(power, 1, atol=0.08)  # five standard errors
    np.testing.assert_allclose((z**2).mean(axis=0), 0, atol=0.1)  # circular


@pytest.mark.parametrize(
    ("scaling", "deviation"), [("old", 0.26196), ("new", 0.185), ("paper", 0.043)]
)
def test_pointwise_deviation_of_the_fno_initial_field(scaling, deviation):
    """Published: 0.068623 = 0.26196^2 at 256 points; 0.185 and 0.043 otherwise."""
    law = fno_field(127, scaling)
    assert np.sqrt(law.variance()) == pytest.approx(deviation, abs=5e-4)
    if scaling == "old":
        assert law.variance() == pytest.approx(0.068623, abs=5e-7)
    spread = draws(law, 60, (32, 32)).std()
    assert spread == pytest.approx(deviation, rel=0.06)


@pytest.mark.parametrize(
    ("alpha", "tau", "sigma", "num_modes", "deviation"),
    [(2.5, 7.0, 49.0, 511, 0.274), (2.0, 5.0, 25.0, 4095, 0.594)],
)
def test_pointwise_deviation_of_burgers_initial_fields(
    alpha, tau, sigma, num_modes, deviation
):
    """Script and paper measure; the closed sum sqrt(2) sigma (...) ^ (-alpha / 2)."""
    law = GaussianField(alpha, tau, sigma, num_modes, (1.0,))
    k = TWO_PI * np.arange(1, num_modes + 1)
    closed = (2 * sigma**2 * (k**2 + tau**2) ** -alpha).sum()
    assert law.variance() == pytest.approx(closed, rel=1e-12)
    assert np.sqrt(law.variance()) == pytest.approx(deviation, abs=5e-4)


def test_gaussian_field_on_another_domain_uses_physical_wave_numbers():
    law = GaussianField(2.0, 3.0, 5.0, 4, (2.0, 1.0))
    expected = 5 * ((2 * TWO_PI) ** 2 + (TWO_PI / 2 * 3) ** 2 + 9) ** -1.0
    assert law.deviations[3, 2] == pytest.approx(expected, rel=1e-13)
    assert law.deviations[-3, 2] == law.deviations[3, 2]


def test_mcwilliams_field_has_its_energy_exactly_and_the_usual_sizes():
    """Published for 256 points: speed 1.8, enstrophy 2.6, largest vorticity 7.7."""
    law = McWilliamsField(85)
    c = np.stack([law.draw(np.random.default_rng(i)) for i in range(24)])
    u = np.stack([velocity(w, law.lengths) for w in c])
    np.testing.assert_allclose(mean_square(u, 2).sum(axis=1) / 2, 0.25, rtol=1e-12)
    assert (mean_square(c, 2) / 2).mean() == pytest.approx(2.6, rel=0.06)
    speed = np.hypot(*np.moveaxis(fourier_series(u, (128, 128)), 1, 0))
    assert speed.max(axis=(1, 2)).mean() == pytest.approx(1.8, rel=0.06)
    largest = np.abs(fourier_series(c, (128, 128))).max(axis=(1, 2)).mean()
    assert largest == pytest.approx(7.7, rel=0.08)


@pytest.mark.parametrize(("density", "power"), [("amplitude", 2), ("power", 1)])
def test_mcwilliams_spectrum_of_the_stream_function(density, power):
    """Averages of |psi_j|^2 over many draws fall like D^2, or like D."""
    law = McWilliamsField(8, density=density, tau=0.5, peak_wavenumber=3.0)
    k = wavenumber_length(8, law.lengths)
    k[0, 0] = np.inf
    rng = np.random.default_rng(5)
    psi = np.mean([np.abs(law.draw(rng) / k**2) ** 2 for _ in range(1500)], axis=0)
    expected = (k * (0.25 + (k / 3) ** 4)) ** -float(power)
    ratio = psi[1:, 1:] / expected[1:, 1:]
    np.testing.assert_allclose(ratio / ratio.mean(), 1, atol=0.25)


def test_velocity_is_divergence_free_and_has_the_vorticity():
    law = FilteredVelocityField(7, (1.0, 2.0), peak_wavenumber=12.0)
    c = law.draw(np.random.default_rng(2))
    u, v = velocity(c, law.lengths)
    k1, k2 = TWO_PI * np.fft.fftfreq(15, 1 / 15)[:, None], np.pi * np.arange(8)
    np.testing.assert_allclose(k1 * u + k2 * v, 0, atol=1e-12 * np.abs(c).max())
    np.testing.assert_allclose(1j * (k1 * v - k2 * u), c, atol=1e-12)


def test_filtered_velocity_has_its_largest_speed_and_peaks_at_its_wave_number():
    law = FilteredVelocityField(20, peak_wavenumber=4.0, max_speed=5.0)
    peaks = []
    for seed in range(20):
        u = velocity(law.draw(np.random.default_rng(seed)), law.lengths)
        speed = np.hypot(*fourier_series(u, (84, 84)))
        assert speed.max() == pytest.approx(5.0, rel=1e-12)
        power = (np.abs(u) ** 2).sum(axis=0)
        shells = np.rint(wavenumber_length(20, law.lengths)).astype(int)
        weights = np.where(np.arange(21) > 0, 2.0, 1.0)
        peaks.append(np.bincount(shells.ravel(), (power * weights).ravel()))
    spectrum = np.mean(peaks, axis=0)
    # Energy goes like k (density / k)^2: for s = 1/4 it is largest at k0 exp(-s / 2).
    assert spectrum.argmax() in (3, 4)
    assert spectrum[9:].sum() < 0.1 * spectrum.sum()


def test_components_of_the_filtered_velocity_have_their_own_numbers():
    first = normal_modes(np.random.default_rng(1), 6, 2, num_fields=2)
    second = normal_modes(np.random.default_rng(2), 6, 2, num_fields=2)
    overlap = [
        abs(np.vdot(a, b)) / np.linalg.norm(a) / np.linalg.norm(b)
        for a, b in [(first[0], first[1]), (first[1], second[0])]
    ]
    assert max(overlap) < 0.3


def test_taylor_green_closed_form():
    """Energy 1/4, enstrophy kappa^2 / 2, and the formula at every point."""
    kappa = TWO_PI * 3
    c = taylor_green(3, (0.25, 0.7), 4, 1.0)
    x = np.arange(16) / 16
    cosines = [np.cos(kappa * (x - x0)) for x0 in (0.25, 0.7)]
    expected = -2 * kappa * np.multiply.outer(*cosines)
    np.testing.assert_allclose(fourier_series(c, (16, 16)), expected, atol=1e-12)
    assert mean_square(c, 2) / 2 == pytest.approx(kappa**2 / 2, rel=1e-13)
    energy = mean_square(velocity(c, (1.0, 1.0)), 2).sum() / 2
    assert energy == pytest.approx(0.25, rel=1e-13)


def test_taylor_green_draws_every_count_and_no_other():
    law = TaylorGreenField(6, counts=(2, 4))
    rng = np.random.default_rng(0)
    counts = [np.flatnonzero(np.abs(law.draw(rng)).sum(axis=0))[0] for _ in range(40)]
    assert set(counts) == {2, 3, 4}


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: GaussianField(1.0, 7.0, 1.0, 4), "needs alpha > 1.0"),
        (lambda: GaussianField(2.0, 0.0, 1.0, 4), "tau is 0.0; expected a positive"),
        (lambda: GaussianField(2.0, 1.0, 1.0, 0), "num_modes is 0; expected 1, 2"),
        (lambda: GaussianField(2.0, 1.0, 1.0, 4, (1.0, -1.0)), "positive periods"),
        (lambda: McWilliamsField(4, (1.0,)), "expected 2 positive periods"),
        (lambda: McWilliamsField(4, density="x"), "known: amplitude, power"),
        (lambda: FilteredVelocityField(4, max_speed=-1.0), "max_speed is -1.0"),
        (lambda: TaylorGreenField(4, (1.0, 2.0)), "expected equal ones"),
        (lambda: TaylorGreenField(4, counts=(1, 5)), "between 1 and num_modes = 4"),
        (lambda: fno_sigma(2.5, 7.0, 2, "newer"), "known: old, new, paper"),
        (lambda: fourier_series(np.zeros(3), (4, 4)), "have 1 axes, but the grid"),
    ],
)
def test_bad_settings_are_refused_by_name(build, message):
    with pytest.raises(ValueError, match=message):
        build()
