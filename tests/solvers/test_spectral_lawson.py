import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate

from solvers import spectral

START = np.array([0.6, -0.4, 0.9])
DECAY = np.array([-2.0, 0.5, -1.0])
COUNTS = {"if_rk5": (4, 16), "if_rk8": (2, 8)}  # steps whose errors give the order


def force(u, time, xp):
    """Smooth, coupled, and explicit in time."""
    rolled = xp.roll(u, 1, axis=-1)
    return rolled * u - u**3 + 0.5 * xp.cos(3 * time) * rolled


def integrate(name, symbol, count, start=START):
    """The end at t = 1 of three coupled equations after `count` steps."""
    equation = types.SimpleNamespace(
        linear_symbol=symbol, explicit_terms=lambda u, time: force(u, time, jnp)
    )
    step = spectral.stepper(name)(equation, 1 / count, start.dtype)
    u = jnp.asarray(start)
    return jax.lax.fori_loop(0, count, lambda i, u: step(u, i / count), u)


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        pytest.param(*item, marks=[pytest.mark.slow] * (item[0] == "if_rk8"))
        for item in COUNTS.items()
    ],
)
def test_orders_with_linear_part_and_time_dependent_force(name, counts):
    exact = scipy.integrate.solve_ivp(
        lambda t, u: DECAY * u + force(u, t, np),
        (0, 1),
        START,
        method="DOP853",
        rtol=1e-13,
        atol=1e-14,
    ).y[:, -1]
    run = jax.jit(lambda count: integrate(name, jnp.asarray(DECAY), count))
    errors = [abs(np.asarray(run(count)) - exact).max() for count in counts]
    order = np.log(errors[0] / errors[1]) / np.log(counts[1] / counts[0])
    # At least: on this problem the fifth-order method gains an order and a half.
    assert order > spectral.STEPPERS[name].order - 0.4, (order, errors)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["if_rk5", "if_rk8"])
def test_modes_that_decay_within_a_step_stay_finite_and_small(name, dtype):
    symbol = jnp.asarray([-1e7, -300.0, -1.0], dtype)
    end = integrate(name, symbol, 2, START.astype(dtype))
    assert end.dtype == dtype
    assert np.all(np.isfinite(end))
    assert np.all(abs(end[:2]) < 0.05)  # started at 0.6 and 0.4, forced by order 1


@pytest.mark.slow
def test_eighth_order_takes_an_eighth_of_the_transforms_on_the_reference_flow():
    grid = spectral.PeriodicGrid((48, 48), (2 * np.pi, 2 * np.pi))
    x, y = grid.mesh()
    field = np.cos(x) * np.cos(2 * y) + np.sin(2 * x + y) + np.cos(3 * y - x) / 2
    equation = spectral.NavierStokes2d(grid, viscosity=0.01)

    def solve(scheme, steps):
        dt = (1 + 1e-9) / steps
        end = spectral.rollout(equation, field, [1.0], scheme=scheme, dt=dt)
        assert end.steps == steps
        return np.asarray(end.fields[0]), steps * spectral.transforms_per_step(
            scheme, equation
        )

    exact = solve("if_rk8", 16)[0]
    transforms = {}
    for scheme, steps in {"cn_rk4": 60, "if_rk8": 3}.items():
        field_end, transforms[scheme] = solve(scheme, steps)
        error = np.linalg.norm(field_end - exact) / np.linalg.norm(exact)
        # 60 steps of CN-RK4 do not reach 1e-8, three of eighth order do.
        assert (error < 1e-8) == (scheme == "if_rk8")
    assert transforms == {"cn_rk4": 1200, "if_rk8": 144}
