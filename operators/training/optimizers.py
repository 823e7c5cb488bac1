"""Optimisers and learning-rate schedules, matched to the released training scripts."""

import math
from collections.abc import Callable, Mapping

import jax.numpy as jnp
import optax

COMMON_KEYS = ("name", "per", "peak")
SCHEDULES = {  # name -> its further keys
    "constant": (),
    "cosine": (),
    "one_cycle": ("pct_start", "div_factor", "final_div_factor"),
    "step_decay": ("every", "factor"),
}
OPTIMIZERS = ("adam", "adamw")

Schedule = Callable[[jnp.ndarray], jnp.ndarray]


def one_cycle(
    num_steps: int, peak: float, *, start: float, end: float, pct_start: float
) -> Schedule:
    """Cosine ramp from start to peak and on to end, as torch's OneCycleLR does it.

    The peak is reached at step pct_start * num_steps - 1, the end at step
    num_steps - 1; later steps keep the end value.

    Args:
        num_steps: length of the cycle in schedule steps.
        peak: value at the top.
        start: value at step 0.
        end: value at the last step.
        pct_start: share of the cycle up to the peak, in (0, 1].

    Returns:
        A traceable function step -> value.
    """
    top, last = max(pct_start * num_steps - 1, 1e-9), num_steps - 1

    def schedule(step):
        step = jnp.minimum(jnp.asarray(step, jnp.float32), last)
        up = jnp.clip(step / top, 0, 1)
        down = jnp.clip((step - top) / max(last - top, 1e-9), 0, 1)
        rising = peak + (start - peak) * (1 + jnp.cos(math.pi * up)) / 2
        falling = end + (peak - end) * (1 + jnp.cos(math.pi * down)) / 2
        return jnp.where(step <= top, rising, falling)

    return schedule


def check_schedule(settings: Mapping) -> None:
    """Checks `config.schedule`.

    Args:
        settings: see `create_schedules`.

    Raises:
        ValueError: for an unknown name or `per`, keys that are missing or belong to
            another schedule, and numbers that are not positive.
    """
    name = settings.get("name")
    if name not in SCHEDULES:
        raise ValueError(f"config.schedule.name is {name!r}; known: {[*SCHEDULES]}")
    keys = (*COMMON_KEYS, *SCHEDULES[name])
    missing = [f"lacks {k!r}" for k in keys if k not in settings]
    unknown = [f"has {k!r}, which it does not use" for k in settings if k not in keys]
    if missing or unknown:
        section = ", ".join([f"'name': '{name}'", *(f"'{k}': ..." for k in keys[1:])])
        raise ValueError(
            f"config.schedule of {name} {' and '.join(missing + unknown)}: set the "
            f'whole section, --config.schedule="{{{section}}}"'
        )
    if settings["per"] not in ("epoch", "step"):
        raise ValueError(
            f"config.schedule.per is {settings['per']!r}; known: 'epoch', 'step'"
        )
    for key in (k for k in keys if k not in ("name", "per")):
        value, largest = settings[key], 1 if key == "pct_start" else float("inf")
        number = isinstance(value, int | float) and math.isfinite(value)
        if not number or not 0 < value <= largest:
            raise ValueError(
                f"config.schedule.{key} is {value!r}; expected a positive number"
                + ", at most 1" * (key == "pct_start")
            )


def create_schedules(
    settings: Mapping, b1: tuple[float, float], num_epochs: int, steps_per_epoch: int
) -> tuple[Schedule, Schedule]:
    """Learning rate and Adam's beta_1 as functions of the optimiser step.

    Args:
        settings: `name`, `peak` and `per`: "epoch" (the scripts' habit: constant
            within an epoch) or "step". "one_cycle" also takes `pct_start`,
            `div_factor` (start = peak / div_factor) and `final_div_factor` (end =
            start / final_div_factor); "step_decay" takes `every` (in units of `per`)
            and `factor`.
        b1: (at the ends, at the peak) of the one-cycle schedule, which cycles beta_1
            against the learning rate; the other schedules use the first.
        num_epochs: length of the run in epochs.
        steps_per_epoch: optimiser steps per epoch.

    Raises:
        ValueError: for an unknown name or `per`, keys that are missing or belong to
            another schedule, and numbers that are not positive.
    """
    check_schedule(settings)
    name, per, peak = settings["name"], settings["per"], settings["peak"]
    if len(b1) != 2:
        raise ValueError(f"config.optimizer.b1 is {b1}; expected (ends, peak)")
    num_steps = num_epochs if per == "epoch" else num_epochs * steps_per_epoch
    momentum = optax.constant_schedule(b1[0])
    if name == "constant":
        rate = optax.constant_schedule(peak)
    elif name == "cosine":
        rate = optax.cosine_decay_schedule(peak, max(num_steps - 1, 1))
    elif name == "step_decay":
        every, factor = settings["every"], settings["factor"]
        rate = optax.exponential_decay(peak, every, factor, staircase=True)
    else:
        start, share = peak / settings["div_factor"], settings["pct_start"]
        end = start / settings["final_div_factor"]
        rate = one_cycle(num_steps, peak, start=start, end=end, pct_start=share)
        momentum = one_cycle(num_steps, b1[1], start=b1[0], end=b1[0], pct_start=share)
    if per == "step":
        return rate, momentum
    return tuple(
        lambda step, schedule=schedule: schedule(step // steps_per_epoch)
        for schedule in (rate, momentum)
    )


def create(
    settings: Mapping, schedule: Mapping, num_epochs: int, steps_per_epoch: int
) -> optax.GradientTransformationExtraArgs:
    """Builds the optimiser with scheduled learning rate and beta_1.

    "adam" adds weight_decay * parameters to the gradient before the moments, as
    torch.optim.Adam does (coupled); "adamw" decays the parameters themselves.

    Args:
        settings: `name`, `b1` (see `create_schedules`), `b2`, `weight_decay`.
        schedule: see `create_schedules`.
        num_epochs: length of the run in epochs.
        steps_per_epoch: optimiser steps per epoch.

    Raises:
        ValueError: for an unknown optimiser or schedule.
    """
    name = settings["name"]
    if name not in OPTIMIZERS:
        raise ValueError(f"config.optimizer.name is {name!r}; known: {OPTIMIZERS}")
    rate, momentum = create_schedules(
        schedule, settings["b1"], num_epochs, steps_per_epoch
    )

    def build(learning_rate, b1):
        decay = optax.add_decayed_weights(settings["weight_decay"])
        adam = optax.scale_by_adam(b1=b1, b2=settings["b2"], eps=1e-8)
        parts = (decay, adam) if name == "adam" else (adam, decay)
        return optax.chain(*parts, optax.scale_by_learning_rate(learning_rate))

    return optax.inject_hyperparams(build)(learning_rate=rate, b1=momentum)
