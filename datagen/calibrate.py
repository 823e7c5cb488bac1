"""Chooses the method of a data set by measuring all that apply on this machine."""

import statistics
from collections.abc import Callable, Mapping
from typing import Any

from datagen import candidates, measuring
from datagen.methods import MethodError, choose, named_settings, traits_of
from datagen.plan import sample_rng
from datagen.storage.ledger import cpu_model
from solvers import strategy

SECONDS = 40.0  # for all methods together, compilation apart
DIGITS = 3
TIE = 1.1  # a method this much slower than the fastest may be as fast


def calibrate(
    config: Mapping[str, Any],
    problem,
    *,
    num: int | None = None,
    seconds: float = SECONDS,
    poll: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Measures the methods that need no PETSc on samples of the training set.

    Args:
        config: the data config; its method is not looked at.
        problem: its problem.
        num: samples to solve; None: 8, or all if there are fewer.
        seconds: for all methods together, compilation apart.
        poll: called between solves; may raise to stop.

    Returns:
        A choice as `datagen.methods.choose` gives it: the fastest method over a shard,
        at the same true residual; `costs` holds seconds per system and per iteration of
        every method that reached it, the thresholds of the strategy table, and what was
        measured where. Of methods that are equally fast the table's one is taken.

    Raises:
        MethodError: if no method solved the samples.
        PlanError: if `num` is out of range.
    """
    num = measuring.number_of_samples(num, config)
    solver, traits = config["solver"], traits_of(problem)
    by_table = choose({**solver, "method": "auto"}, problem, traits=traits)
    entries = candidates.candidates(problem, solver, by_table, traits=traits)
    wanted = named_settings(solver)
    entries = [e for e in entries if wanted <= candidates.settings_of(e.method)]
    samples = measuring.samples_in_order(
        problem, lambda i: problem.sample(sample_rng(config["seed"], i)), num
    )
    measuring.measure(
        entries, problem, samples, rtol=solver["rtol"], seconds=seconds, poll=poll
    )
    length = config["shard_size"] * problem.num_systems
    usable = sorted((e for e in entries if e.usable), key=lambda e: e.cost(length))
    if not usable:
        raise MethodError(
            f"config.solver: no method solved {num} samples to a true residual of "
            f"{solver['rtol']:g} when they were measured; raise config.solver.rtol, or "
            "name a method and leave --calibrate out"
        )
    ties = [e for e in usable if e.cost(length) <= TIE * usable[0].cost(length)]
    best = next((entry for entry in ties if entry.auto), usable[0])
    return {
        "asked": solver["method"],
        "method": best.method,
        "settings": best.chosen,
        "reason": _reason(best, usable, length, num),
        "calibrated": True,
        "costs": {
            "methods": {e.name: _costs(e, length) for e in usable},
            "thresholds": thresholds(),
            "num_samples": num,
            "systems_per_shard": length,
            "cpu": cpu_model(),
        },
    }


def _reason(best, usable, length: int, num: int) -> str:
    """How much faster than the next best one."""
    text = f"fastest of {len(usable)} methods measured here on {num} samples"
    others = [entry for entry in usable if entry is not best]
    if not others:
        return text
    ratio = others[0].cost(length) / best.cost(length)
    if ratio < TIE:
        return f"{text}, as fast as {others[0].name}"
    return f"{text}, {ratio:.1f} times faster than {others[0].name}"


def thresholds() -> dict[str, float]:
    """The numbers of the strategy table, to tell later what it said."""
    return {
        "smooth_step": strategy.SMOOTH_STEP,
        "rough_contrast": strategy.ROUGH_CONTRAST,
        "rough_step": strategy.ROUGH_STEP,
        "worthwhile": strategy.WORTHWHILE,
        "max_plane_factors": strategy.MAX_PLANE_FACTORS,
        "max_space_factors": strategy.MAX_SPACE_FACTORS,
    }


def _costs(entry: measuring.Measured, length: int) -> dict[str, float]:
    seconds, iterations = entry.cost(length), statistics.mean(entry.iterations)
    costs = {"seconds": seconds, "iterations": iterations}
    if iterations:
        costs["seconds_per_iteration"] = seconds / iterations
    return {key: float(f"{value:.{DIGITS}g}") for key, value in costs.items()}
