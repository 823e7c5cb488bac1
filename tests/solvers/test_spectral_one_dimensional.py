import jax
import numpy as np
import pytest
import scipy.integrate

from solvers import spectral
from solvers.spectral import diagnostics

TWO_PI = 2 * np.pi


def cole_hopf(n, start, potential, viscosity, time, fine=1024):
    """Burgers' solution on n points: u = -2 nu phi_x / phi, phi_t = nu phi_xx.

    phi(x, 0) = exp(-potential / (2 nu)), potential' = u(x, 0), on the unit interval.
    """
    x = np.arange(fine) / fine
    phi = np.fft.rfft(np.exp(-potential(x) / (2 * viscosity)))
    k = TWO_PI * np.arange(len(phi))
    phi = phi * np.exp(-viscosity * k**2 * time)
    u = -2 * viscosity * np.fft.irfft(1j * k * phi) / np.fft.irfft(phi)
    return u[:: fine // n]


def wave(x):
    return np.sin(TWO_PI * x) + 0.5 * np.cos(2 * TWO_PI * x)


def potential(x):
    return (1 - np.cos(TWO_PI * x)) / TWO_PI + np.sin(2 * TWO_PI * x) / (4 * TWO_PI)


@pytest.fixture(scope="module")
def burgers():
    grid = spectral.PeriodicGrid((128,), (1.0,))
    return spectral.Burgers1d(grid, viscosity=0.02)


def test_burgers_is_the_cole_hopf_solution_to_fourth_order(burgers):
    start = wave(burgers.grid.mesh()[0])
    times = [0.1, 0.5]
    exact = [cole_hopf(128, wave, potential, 0.02, t) for t in times]
    errors = []
    for dt in (5e-3, 2.5e-3):
        run = spectral.rollout(burgers, start, times, dt=dt)
        errors.append(abs(np.asarray(run.fields) - exact).max())
        assert run.steps == round(0.5 / dt)
        np.testing.assert_array_equal(run.times, times)
    assert errors[1] < 1e-6
    assert abs(np.log2(errors[0] / errors[1]) - 4) < 0.3


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "order"), [("etdrk4", 4), ("cn_rk4", 2)])
def test_balance_defect_is_of_the_size_of_the_error(burgers, scheme, order):
    start = wave(burgers.grid.mesh()[0])
    exact = cole_hopf(128, wave, potential, 0.02, 0.5)
    defects = []
    for dt in (5e-3, 2.5e-3):
        run = spectral.rollout(
            burgers, start, [0, 0.5], dt=dt, scheme=scheme, record=("balance",)
        )
        first, last = np.asarray(run.diagnostics["balance"])
        error = abs(np.asarray(run.fields[1]) - exact).max()
        assert first == 0
        assert error / 100 < last < 10 * error
        defects.append(last)
    assert abs(np.log2(defects[0] / defects[1]) - order) < 0.3


def sivashinsky_rate(u, length):
    """du/dt in NumPy, products on twice as many points, cut off at n / 3."""
    n = len(u)
    spectrum = np.fft.rfft(u)
    j = np.arange(len(spectrum))
    k = TWO_PI * j / length
    padded = np.fft.irfft(np.append(spectrum, np.zeros(n // 2)), 2 * n) * 2
    square = np.fft.rfft(padded**2)[: len(spectrum)] / 2
    rate = (k**2 - k**4) * spectrum - 0.5j * k * square
    return np.fft.irfft(rate * (3 * j < n), n)


@pytest.mark.slow
def test_kuramoto_sivashinsky_agrees_with_an_adaptive_integrator():
    length, n = 22.0, 48
    grid = spectral.PeriodicGrid((n,), (length,))
    x = TWO_PI * grid.mesh()[0] / length
    start = np.cos(x) + 0.3 * np.sin(2 * x) - 0.5 * np.cos(3 * x)
    exact = scipy.integrate.solve_ivp(
        lambda _, u: sivashinsky_rate(u, length),
        (0, 4),
        start,
        method="DOP853",
        rtol=1e-11,
        atol=1e-11,
    ).y[:, -1]
    equation = spectral.KuramotoSivashinsky1d(grid)
    errors = []
    for dt in (0.05, 0.025):
        run = spectral.rollout(equation, start, [4.0], dt=dt, scheme="etdrk4_krogstad")
        errors.append(abs(np.asarray(run.fields[0]) - exact).max())
    assert errors[1] < 1e-8
    assert abs(np.log2(errors[0] / errors[1]) - 4) < 0.35, errors


@pytest.mark.slow
def test_energy_rates_are_exact():
    grid = spectral.PeriodicGrid((24,), (30.0,))
    equation = spectral.KuramotoSivashinsky1d(grid)
    u = np.random.default_rng(2).normal(size=(3, 24))

    @jax.jit
    def rates(u):
        state = equation.to_state(u)
        values, rate = equation.budget(state)
        return (
            equation.to_field(state),
            equation.to_field(equation.tendency(state)),
            (
                values[..., 0],
                rate[..., 0],
            ),
        )

    u, tendency, (values, rate) = rates(u)
    np.testing.assert_allclose(values, (u**2).mean(-1) / 2, rtol=1e-13)
    np.testing.assert_allclose(rate, (u * tendency).mean(-1), rtol=1e-12)


def test_balance_defect_of_a_series():
    values = np.array([[1.0, 3.0, 2.0], [0.0, 0.0, 0.0]])
    integrals = np.array([[0.0, 2.0, 1.3], [0.0, 0.0, 0.5]])
    got = diagnostics.balance_defect(values, integrals)
    np.testing.assert_allclose(got, [0.1, 0.5], rtol=1e-12)


def test_refuses_other_grids_and_settings():
    square = spectral.PeriodicGrid((8, 8), (1.0, 1.0))
    line = spectral.PeriodicGrid((8,), (1.0,))
    with pytest.raises(ValueError, match="Burgers1d needs a grid of 1 axes"):
        spectral.Burgers1d(square, viscosity=0.1)
    with pytest.raises(ValueError, match="KuramotoSivashinsky1d needs a grid"):
        spectral.KuramotoSivashinsky1d(square)
    with pytest.raises(ValueError, match="viscosity is -2"):
        spectral.Burgers1d(line, viscosity=-2)
    with pytest.raises(ValueError, match="dealias is 'all'"):
        spectral.Burgers1d(line, viscosity=1, dealias="all")
