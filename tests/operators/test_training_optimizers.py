"""Schedules against the released scripts' figures, Adam against its formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from operators.training import optimizers

ONE_CYCLE = {
    "name": "one_cycle",
    "per": "epoch",
    "peak": 5e-4,
    "pct_start": 0.2,
    "div_factor": 2.0,
    "final_div_factor": 100.0,
}
CONSTANT = {"name": "constant", "per": "step", "peak": 2.0}
DECAY = {"name": "step_decay", "per": "epoch", "peak": 1.0, "every": 100, "factor": 0.5}


@pytest.mark.parametrize(
    ("epoch", "rate", "b1"),
    [  # measured on torch's OneCycleLR, 500 epochs
        (0, 2.5e-4, 0.95),
        (99, 5e-4, 0.85),
        (250, 3.446e-4, 0.8812),
        (499, 2.5e-6, 0.95),
    ],
)
def test_one_cycle_is_that_of_the_darcy_script(epoch, rate, b1):
    rate_fn, b1_fn = optimizers.create_schedules(ONE_CYCLE, (0.95, 0.85), 500, 125)
    for step in (125 * epoch, 125 * epoch + 124):  # constant within an epoch
        assert float(rate_fn(jnp.asarray(step))) == pytest.approx(rate, rel=2e-4)
        assert float(b1_fn(jnp.asarray(step))) == pytest.approx(b1, abs=5e-5)


def test_one_cycle_per_step_moves_within_an_epoch_and_ends_at_its_end():
    settings = {**ONE_CYCLE, "per": "step"}
    rate_fn, _ = optimizers.create_schedules(settings, (0.95, 0.85), 10, 10)
    rates = [float(rate_fn(jnp.asarray(step))) for step in range(100)]
    assert np.argmax(rates) == 19
    assert rates[-1] == pytest.approx(2.5e-6, rel=1e-5)
    assert len(set(rates)) > 90


def test_other_schedules_have_their_closed_forms():
    rate_fn, _ = optimizers.create_schedules(DECAY, (0.9, 0.9), 500, 7)
    assert float(rate_fn(jnp.asarray(7 * 100 - 1))) == 1.0
    assert float(rate_fn(jnp.asarray(7 * 250))) == 0.25
    cosine = {"name": "cosine", "per": "step", "peak": 2.0}
    rate_fn, _ = optimizers.create_schedules(cosine, (0.9, 0.9), 3, 7)
    assert float(rate_fn(jnp.asarray(10))) == pytest.approx(1.0)
    rate_fn, b1_fn = optimizers.create_schedules(CONSTANT, (0.9, 0.9), 3, 7)
    assert float(rate_fn(jnp.asarray(10))) == 2.0
    assert float(b1_fn(jnp.asarray(10))) == pytest.approx(0.9)


@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_adam_couples_its_decay_and_adamw_does_not(name):
    schedule = {**ONE_CYCLE, "per": "step"}
    settings = {"name": name, "b1": (0.95, 0.85), "b2": 0.999, "weight_decay": 0.1}
    optimizer = optimizers.create(settings, schedule, 2, 10)
    rate_fn, b1_fn = optimizers.create_schedules(schedule, (0.95, 0.85), 2, 10)
    params = {"w": jnp.asarray([1.0, -2.0])}
    opt_state = optimizer.init(params)
    w, m, v = np.array([1.0, -2.0]), np.zeros(2), np.zeros(2)
    for t in range(1, 6):
        gradient = np.cos(w) + t
        grads = {"w": jnp.asarray(gradient, jnp.float32)}
        updates, opt_state = optimizer.update(grads, opt_state, params)
        params = jax.tree.map(lambda p, u: p + u, params, updates)
        rate, b1 = (float(f(jnp.asarray(t - 1))) for f in (rate_fn, b1_fn))
        g = gradient + 0.1 * w if name == "adam" else gradient
        m, v = b1 * m + (1 - b1) * g, 0.999 * v + 0.001 * g**2
        step = m / (1 - b1**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        step += 0.1 * w if name == "adamw" else 0
        w = w - rate * step
        np.testing.assert_allclose(params["w"], w, rtol=2e-6)


def test_unknown_names_are_listed():
    settings = {"name": "sgd", "b1": (0.9, 0.9), "b2": 0.999, "weight_decay": 0.0}
    with pytest.raises(ValueError, match="adamw"):
        optimizers.create(settings, ONE_CYCLE, 2, 10)
    with pytest.raises(ValueError, match="one_cycle"):
        optimizers.create_schedules({**ONE_CYCLE, "name": "x"}, (0.9, 0.9), 2, 10)
    with pytest.raises(ValueError, match="per"):
        optimizers.create_schedules({**ONE_CYCLE, "per": "batch"}, (0.9, 0.9), 2, 10)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "name is None; known"),
        ({"name": "constant"}, "constant lacks 'per' and lacks 'peak': set the whole"),
        ({**CONSTANT, "every": 3}, "has 'every', which it does not use: set the whole"),
        ({**DECAY, "every": 0}, "every is 0; expected a positive number"),
        ({**DECAY, "factor": -0.5}, "factor is -0.5; expected a positive"),
        ({**DECAY, "factor": None}, "factor is None; expected a positive"),
        ({**CONSTANT, "peak": float("nan")}, "peak is nan; expected a positive"),
        ({**ONE_CYCLE, "pct_start": 1.5}, "pct_start is 1.5; .* at most 1"),
        ({**ONE_CYCLE, "div_factor": 0}, "div_factor is 0; expected a positive"),
    ],
)
def test_a_schedule_has_its_own_keys_with_positive_numbers(settings, message):
    with pytest.raises(ValueError, match=message):
        optimizers.create_schedules(settings, (0.9, 0.9), 2, 10)
