"""The compiled loops of a rollout: over snapshots, and over the steps between them."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from solvers.spectral.diagnostics import relative_defect
from solvers.spectral.equations import Equation
from solvers.spectral.schemes import Scheme

RECORDS = ("cfl", "balance")  # beside the names of an equation's budget
MAX_STEPS = 100_000  # between two snapshots; a flow that needs more has blown up
MOST_UNMEASURED = 16  # adaptive steps between two looks at the speed
MOST_GROWTH = 0.25  # of the CFL number between them


class Plan(NamedTuple):
    """What is fixed when a march is compiled; see `rollout`."""

    scheme: type[Scheme]
    store_shape: tuple[int, ...]
    record: tuple[str, ...]
    checkpoint: bool


class March(NamedTuple):
    """Snapshots [T, ...] by name, number of steps, largest CFL numbers [...]."""

    frames: dict[str, jax.Array]
    steps: int | jax.Array
    max_cfl: jax.Array


class Progress(NamedTuple):
    """What is carried from snapshot to snapshot.

    Attributes:
        carry: what the scheme carries: between the compiled parts the state.
        rate: speed / spacing [...] when last measured.
        cfl: largest CFL number since the latest snapshot [...].
        max_cfl: largest CFL number so far [...].
        initial: the budget's values at the start [..., b]; None unless asked for.
        defect: worst defect of the balance laws so far [..., b], or None.
        size: largest absolute value of what they balance so far [..., b], or None.
    """

    carry: jax.Array | tuple
    rate: jax.Array
    cfl: jax.Array
    max_cfl: jax.Array
    initial: jax.Array | None
    defect: jax.Array | None
    size: jax.Array | None


class _Budgeted:
    """An equation with the integrals of its budget's rates as further unknowns.

    The state is (state, integrals [..., b]), and every scheme treats both alike.
    """

    def __init__(self, equation: Equation):
        self._equation = equation
        zeros = jnp.zeros(len(equation.budget_names))
        self.linear_symbol = (equation.linear_symbol, zeros)

    def explicit_terms(self, state, time):
        """Those of the equation, and the rates of change."""
        rates = self._equation.budget(state[0], time)[1]
        return self._equation.explicit_terms(state[0], time), rates

    def __getattr__(self, name):
        return getattr(self._equation, name)


def march_fixed(equation, field, times, start, dt, plan) -> March:
    """Steps of at most dt; one compiled scan per run of equal intervals.

    Loops of a known number of steps can be differentiated, and spare accelerators a
    question to the host per step; others need no new compilation for another dt.
    """
    traced = any(
        isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((equation, field))
    )
    static = traced or jax.default_backend() != "cpu"
    scan = _scan_counted if static else _scan_uncounted
    starts = np.concatenate([[start], times[:-1]])
    lengths = times - starts
    counts = np.ceil(lengths / dt * (1 - 1e-9)).astype(int)
    counts = np.where(lengths > 0, np.maximum(counts, 1), 0)
    progress = _begin(equation, field, start, "balance" in plan.record)
    parts, first = [], 0
    for last in range(1, len(times) + 1):
        if (
            last < len(times)
            and counts[last] == counts[first]
            and math.isclose(lengths[last], lengths[first], rel_tol=1e-9)
        ):
            continue
        run, count = slice(first, last), int(counts[first])
        h = lengths[run].mean() / max(count, 1)
        progress, frames = scan(equation, progress, starts[run], h, count, plan=plan)
        parts.append(frames)
        first = last
    frames = {name: jnp.concatenate([p[name] for p in parts]) for name in parts[0]}
    return March(frames, int(counts.sum()), progress.max_cfl)


def _scan_fixed(equation, progress, starts, h, count, *, plan):
    """Intervals of `count` steps of size h, which may be 0 for the initial field."""
    step = _scheme(equation, h, plan, progress.rate.dtype)

    def interval(progress, start):
        def advance(progress):
            return _advance(equation, step, progress, start, h, count)

        progress = (jax.checkpoint(advance) if plan.checkpoint else advance)(progress)
        state = step.finish(progress.carry)
        progress = _measure(equation, progress, state, h)
        return _snapshot(equation, progress, state, start + count * h, plan)

    state = progress.carry
    progress = progress._replace(carry=step.start(state, starts[0]))
    progress, frames = jax.lax.scan(interval, progress, starts)
    return progress._replace(carry=step.finish(progress.carry)), frames


_scan_counted = jax.jit(_scan_fixed, static_argnames=("count", "plan"))
_scan_uncounted = jax.jit(_scan_fixed, static_argnames="plan")


def march_adaptive(equation, field, times, start, dt, cfl, plan) -> March:
    """Steps of at most dt, if given, and of at most the CFL number `cfl`."""
    starts = np.concatenate([[start], times[:-1]])
    progress = _begin(equation, field, start, "balance" in plan.record)
    inverse_dt = 0.0 if dt is None else 1 / dt
    frames, counts, max_cfl = _scan_adaptive(
        equation, progress, starts, times - starts, inverse_dt, cfl, plan
    )
    return March(frames, counts.sum(), max_cfl)


@functools.partial(jax.jit, static_argnames="plan")
def _scan_adaptive(equation, progress, starts, lengths, inverse_dt, cfl, plan):
    def chunk(start, length, loop):
        """Up to `MOST_UNMEASURED` equal steps of those that the rest would need."""
        progress, elapsed, done = loop
        h, num_left, count, lost = _choose(
            equation, progress, start + elapsed, length - elapsed, inverse_dt, cfl
        )
        state = _mark(lost, progress.carry)
        step = _scheme(equation, h, plan, progress.rate.dtype)
        progress = progress._replace(carry=step.start(state, start + elapsed))
        progress = _advance(equation, step, progress, start + elapsed, h, count)
        state = step.finish(progress.carry)
        progress = _measure(equation, progress._replace(carry=state), state, h)
        elapsed = jnp.where(count == num_left, length, elapsed + count * h)
        return progress, elapsed, done + count

    def interval(progress, item):
        start, length = item
        loop = progress, jnp.zeros_like(length), jnp.zeros((), int)
        loop = jax.lax.while_loop(
            lambda loop: loop[1] < length, lambda loop: chunk(start, length, loop), loop
        )
        progress, _, count = loop
        state, time = progress.carry, start + length
        progress, frames = _snapshot(equation, progress, state, time, plan)
        return progress, (frames, count)

    progress, (frames, counts) = jax.lax.scan(interval, progress, (starts, lengths))
    return frames, counts, progress.max_cfl


def _choose(equation, progress, time, length, inverse_dt, cfl):
    """Step size of a batch, how many steps remain, how many to take, who is lost.

    With the speed v and its growth a by the explicit terms, in units of the spacing, a
    step h is to keep h (v + h a) <= cfl: from rest a force alone limits it. Speeds are
    looked at again before they could have grown by `MOST_GROWTH` of the bound.
    """
    state = progress.carry if progress.defect is None else progress.carry[0]
    growth = equation.courant_rate(equation.explicit_terms(state, time))
    root = jnp.sqrt(progress.rate**2 + 4 * cfl * growth)
    needed = length * jnp.maximum((progress.rate + root) / (2 * cfl), inverse_dt)
    lost = ~(needed <= MAX_STEPS)
    num_left = jnp.max(jnp.where(lost, 0, jnp.ceil(needed * (1 - 1e-6))))
    num_left = jnp.maximum(num_left, 1)
    h = length / num_left
    growth = jnp.max(jnp.where(lost, 0, growth))
    count = jnp.floor(MOST_GROWTH * cfl / (growth * h**2))  # infinite without growth
    count = jnp.clip(count, 1, jnp.minimum(num_left, MOST_UNMEASURED))
    return h, num_left.astype(int), count.astype(int), lost


@functools.partial(jax.jit, static_argnames="balance")
def _begin(equation, field, start, balance):
    state = equation.to_state(field)
    rate = equation.courant_rate(jax.lax.stop_gradient(state))
    initial = defect = size = None
    if balance:
        initial = equation.budget(state, start)[0]
        defect, size = jnp.zeros_like(initial), abs(initial)
        state = (state, jnp.zeros_like(initial))
    none = jnp.zeros_like(rate)
    return Progress(state, rate, none, none, initial, defect, size)


def _scheme(equation, h, plan, dtype):
    if "balance" in plan.record:
        equation = _Budgeted(equation)
    return plan.scheme(equation, h, dtype)


def _advance(equation, step, progress, start, h, count):
    """`count` steps of size h from time `start`."""

    def body(i, progress):
        progress = progress._replace(carry=step(progress.carry, start + i * h))
        if progress.defect is not None:
            state, integral = step.finish(progress.carry)
            values = equation.budget(state, start + (i + 1) * h)[0]
            defect = abs(values - progress.initial - integral)
            progress = progress._replace(  # `maximum` keeps NaN
                defect=jnp.maximum(progress.defect, defect),
                size=jnp.maximum(progress.size, abs(values)),
            )
        return progress

    return jax.lax.fori_loop(0, count, body, progress)


def _measure(equation, progress, state, h):
    """Brings speed and CFL numbers up to date after steps of size h."""
    if progress.defect is not None:
        state = state[0]
    rate = equation.courant_rate(jax.lax.stop_gradient(state))
    cfl = jnp.maximum(progress.rate, rate) * jnp.asarray(h, rate.dtype)
    return progress._replace(
        rate=rate,
        cfl=jnp.maximum(progress.cfl, cfl),
        max_cfl=jnp.maximum(progress.max_cfl, cfl),
    )


def _snapshot(equation, progress, state, time, plan):
    """What is returned at a snapshot."""
    if progress.defect is not None:
        state = state[0]
    field = equation.to_field(state, plan.store_shape)
    finite = jnp.all(jnp.isfinite(field), axis=equation.grid.axes)
    frames = {"field": field, "finite": finite}
    values = equation.budget(state, time)[0]
    for name in plan.record:
        if name in equation.budget_names:
            frames[name] = values[..., equation.budget_names.index(name)]
    if "cfl" in plan.record:
        frames["cfl"] = progress.cfl
    if "balance" in plan.record:
        ratios = relative_defect(progress.defect, progress.size)
        frames["balance"] = jnp.max(ratios, axis=-1)
    return progress._replace(cfl=jnp.zeros_like(progress.cfl)), frames


def _mark(lost, state):
    """NaN in the samples that have blown up, so that nobody takes them for results."""

    def mark(leaf):
        mask = lost.reshape(lost.shape + (1,) * (leaf.ndim - lost.ndim))
        return jnp.where(mask, jnp.nan, leaf)

    return jax.tree.map(mark, state)
