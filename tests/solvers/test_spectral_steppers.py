import decimal
import math
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
from test_spectral_lawson import COUNTS as LAWSON

from benchmarks import time_steppers
from solvers import spectral
from solvers.spectral.exponential import phi

TWO_PI = 2 * np.pi
# Order in F alone (lambda = 0), and with the linear part.
ORDERS = {
    "imex_euler": (1, 1),
    "imex_cn": (1, 1),
    "cn_rk2": (2, 2),
    "cn_rk3": (3, 2),
    "cn_rk4": (4, 2),
    "if_rk4": (4, 4),
    "etdrk4": (4, 4),
    "etdrk4_krogstad": (4, 4),
}
START = np.array([0.6, -0.4, 0.9])
DECAY = np.array([-2.0, 0.5, -1.0])


def force(u, time, xp):
    """Smooth, coupled, and explicit in time."""
    rolled = xp.roll(u, 1, axis=-1)
    return rolled * u - u**3 + 0.5 * xp.cos(3 * time) * rolled


def toy(symbol):
    """Three coupled ordinary differential equations as the schemes see them."""
    return types.SimpleNamespace(
        linear_symbol=symbol, explicit_terms=lambda u, time: force(u, time, jnp)
    )


def integrate(name):
    """A compiled function (symbol, start, h, count) for one scheme."""

    @jax.jit
    def run(symbol, start, h, count):
        step = spectral.stepper(name)(toy(symbol), h)
        carry = step.start(start, 0.0)
        carry = jax.lax.fori_loop(0, count, lambda i, c: step(c, i * h), carry)
        return step.finish(carry)

    return run


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name == "etdrk4_krogstad"))
        for name in ORDERS
    ],
)
def test_orders_with_and_without_the_linear_part(name):
    run = integrate(name)
    for symbol, order in zip((0 * DECAY, DECAY), ORDERS[name], strict=True):
        exact = scipy.integrate.solve_ivp(
            lambda t, u, symbol=symbol: symbol * u + force(u, t, np),
            (0, 1),
            START,
            method="DOP853",
            rtol=1e-13,
            atol=1e-14,
        ).y[:, -1]
        batch = np.stack([START, START])  # coefficients reach all of a batch
        errors = []
        for n in (32, 64):
            end = np.asarray(run(symbol, batch, 1 / n, n))
            errors.append(abs(end - exact).max())
        assert abs(np.log2(errors[0] / errors[1]) - order) < 0.15, errors


def test_every_registered_scheme_is_held_to_its_order():
    measured_elsewhere = {*LAWSON, "legacy_fno"}  # the latter by its formula, below
    assert {*ORDERS, *measured_elsewhere} == {*spectral.STEPPERS}
    for name, orders in ORDERS.items():
        assert spectral.STEPPERS[name].order == orders[1], name


def test_the_benchmark_names_no_order_of_rounding_errors():
    assert time_steppers.order(1.6e-7, 1e-8) == pytest.approx(4)
    assert math.isnan(time_steppers.order(3e-13, 1e-13))


def test_phi_functions_are_accurate_to_rounding():
    z = np.array([-60.0, -7.3, -1.0, -0.9999, -0.3, -1e-3, -1e-9, 0.0, 0.7, 1.0, 2.5])

    def exact(value, k):
        with decimal.localcontext(prec=80):
            value = decimal.Decimal(value)
            terms = (value**j / math.factorial(j + k) for j in range(1, 260))
            return float(1 / decimal.Decimal(math.factorial(k)) + sum(terms))

    for k, got in enumerate(jax.jit(lambda z: phi(z, 3))(z), start=1):
        want = [exact(value, k) for value in z]
        np.testing.assert_allclose(got, want, rtol=2e-15 * 4**k)


def written_out(w, f, viscosity, dt, steps):
    """The update of the released generator, on the unit torus, in NumPy."""
    n = w.shape[-1]
    k1 = np.fft.fftfreq(n, 1 / n)[:, None]
    k2 = np.fft.rfftfreq(n, 1 / n)[None, :]
    square = 4 * np.pi**2 * (k1**2 + k2**2)
    divisor = np.where(square > 0, square, 1.0)
    mask = (abs(k1) <= 2 / 3 * (n // 2)) & (abs(k2) <= 2 / 3 * (n // 2))
    w, f = np.fft.rfft2(w), np.fft.rfft2(f)
    for _ in range(steps):
        psi = w / divisor
        parts = [1j * k2 * psi, -1j * k1 * psi, 1j * k1 * w, 1j * k2 * w]
        u, v, w1, w2 = (np.fft.irfft2(TWO_PI * part, s=(n, n)) for part in parts)
        advection = mask * np.fft.rfft2(u * w1 + v * w2)
        half = dt * viscosity * square / 2
        w = ((1 - half) * w - dt * advection + dt * f) / (1 + half)
    return np.fft.irfft2(w, s=(n, n))


@pytest.mark.slow
def test_legacy_scheme_is_its_formula_written_out():
    n, dt, viscosity = 18, 2e-3, 1e-3  # n / 3 is an integer: the mask keeps it
    grid = spectral.PeriodicGrid((n, n), (1.0, 1.0))
    x, y = grid.mesh()
    f = 0.1 * (np.sin(TWO_PI * (x + y)) + np.cos(TWO_PI * (x + y)))
    w = np.random.default_rng(5).normal(size=(n, n))  # up to the Nyquist frequencies
    w -= w.mean()
    equation = spectral.NavierStokes2d(
        grid, viscosity, forcing=f, dealias="legacy", advection="convective"
    )
    times = [50 * dt, 100 * dt]
    got = spectral.rollout(equation, w, times, scheme="legacy_fno", dt=dt)
    assert got.steps == 100
    for field, steps in zip(got.fields, (50, 100), strict=True):
        want = written_out(w, f, viscosity, dt, steps)
        error = np.linalg.norm(field - want) / np.linalg.norm(want)
        assert error < 1e-12
    assert abs(want - w).max() > 1  # far from the start


def test_refuses_unknown_schemes_and_equations_that_legacy_is_not_for():
    with pytest.raises(ValueError, match="did you mean 'etdrk4'"):
        spectral.stepper("etdrk")
    equation = spectral.NavierStokes2d(spectral.PeriodicGrid((8, 8), (1.0, 1.0)))
    with pytest.raises(ValueError, match="dealias='legacy'"):
        spectral.stepper("legacy_fno")(equation, 0.1)


def test_counts_transforms():
    grid = spectral.PeriodicGrid((8, 8), (1.0, 1.0))
    fast = spectral.NavierStokes2d(grid)
    slow = spectral.NavierStokes2d(grid, advection="convective")
    assert spectral.transforms_per_step("cn_rk4", fast) == 20
    assert spectral.transforms_per_step("etdrk4", slow) == 20
