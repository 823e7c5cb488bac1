"""How long a run will take: measured on a few steps before it starts."""

import time
from collections.abc import Callable

import jax


def seconds_per_step(step_fn: Callable, state, *arguments, num: int = 2) -> float:
    """Times a compiled training step, after one call that compiles it.

    Args:
        step_fn: (state, *arguments) -> (state, metrics); donates its state.
        state: a state to use up.
        *arguments: the other arguments.
        num: timed steps.

    Returns:
        Seconds per step, the fastest of `num`.
    """
    state, _ = jax.block_until_ready(step_fn(state, *arguments))
    seconds = []
    for _ in range(num):
        start = time.perf_counter()
        state, _ = jax.block_until_ready(step_fn(state, *arguments))
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def spell_duration(seconds: float) -> str:
    """A duration for people: "42 s", "8 min", "3.5 h", "4.2 days"."""
    for limit, divisor, unit in ((90, 1, "s"), (5400, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            digits = 1 if unit == "h" else 0
            return f"{seconds / divisor:.{digits}f} {unit}"
    return f"{seconds / 86400:.1f} days"
