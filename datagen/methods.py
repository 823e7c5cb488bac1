"""How a data set is solved: `config.solver` with every "auto" decided, checked early.

Everything here depends on config and problem alone, so that one config gives one plan.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from datagen import sorting

STRENGTH = {"any": 0, "general": 0, "symmetric": 1, "spd": 2}
WORDS = {"spd": "symmetric positive definite", "symmetric": "symmetric"}


class MethodError(ValueError):
    """A setting of `config.solver` is wrong or does not suit the problem."""


def resolve(solver: Mapping[str, Any], problem, sizes: list[int]) -> dict[str, Any]:
    """Decides what `config.solver` leaves open.

    Args:
        solver: `config.solver`.
        problem: see `datagen.problems.base.Problem`.
        sizes: samples per split.

    Returns:
        method, settings (keywords for `solvers.sequence.create`), preconditioner (a
        name, "none" if the method takes none), ordering, rtol, accept_rtol, maxiter
        (None: the method's own), carries, and fallbacks, dicts of method and settings.

    Raises:
        MethodError: in one sentence that names the key.
    """
    from solvers import sequence

    if not solver["rtol"] <= solver["accept_rtol"] < 1:
        raise MethodError(
            f"config.solver: rtol is {solver['rtol']} and accept_rtol "
            f"{solver['accept_rtol']}; expected rtol <= accept_rtol < 1"
        )
    settings = method_settings("method", solver["method"], solver, problem)
    fallbacks = [
        {
            "method": method,
            "settings": method_settings("fallbacks", method, solver, problem),
        }
        for method in solver["fallbacks"]
        if method != solver["method"]
    ]
    check_number_type([solver["method"], *(f["method"] for f in fallbacks)], problem)
    carries = sequence.method_info(solver["method"]).carries or "guess" in settings
    ordering = solver["ordering"]
    if ordering == "auto":
        ordering = "none"
        if carries:
            ordering = "greedy" if max(sizes) <= sorting.MAX_GREEDY else "cells"
    elif ordering == "tree" and not carries:
        raise MethodError(
            f"config.solver.ordering is tree, but {solver['method']} carries nothing "
            "from sample to sample; use ordering=auto, or method=skr"
        )
    return {
        "method": solver["method"],
        "settings": settings,
        "preconditioner": settings.get("preconditioner", "none"),
        "ordering": ordering,
        "rtol": solver["rtol"],
        "accept_rtol": solver["accept_rtol"],
        "maxiter": solver["maxiter"] or None,
        "carries": carries,
        "fallbacks": fallbacks,
    }


def method_settings(
    key: str, method: str, solver: Mapping[str, Any], problem
) -> dict[str, Any]:
    """Keywords of one method, tried out.

    Raises:
        MethodError: if there is no such method here, it refuses the settings, or it
            needs other matrices than those of the problem.
    """
    from solvers import preconditioners, sequence

    try:
        info = sequence.method_info(method)
    except ValueError as error:
        raise MethodError(f"config.solver.{key}: {error}") from error
    offered = {
        "m": solver["m"],
        "k": solver["k"],
        "preconditioner": solver["preconditioner"],
        "frozen": solver["frozen"],
        "spd": problem.matrices == "spd",
    }
    if offered["preconditioner"] == "auto":
        offered["preconditioner"] = problem.preconditioner
    settings = {name: offered[name] for name in info.settings if name in offered}
    if solver["guess"] != "none" and (key == "method" or "guess" in info.settings):
        settings |= {"guess": solver["guess"], "window": solver["window"]}
    try:
        if "preconditioner" in settings:
            key = "preconditioner"
            preconditioners.create(settings["preconditioner"])
            key = "method"
        sequence.create(method, **settings).close()
    except (ValueError, TypeError, ImportError, RuntimeError) as error:
        raise MethodError(f"config.solver.{key}: {error}") from error
    if STRENGTH[info.needs] > STRENGTH[problem.matrices]:
        others = [n for n, other in sequence.METHODS.items() if _suits(other, problem)]
        raise MethodError(
            f"config.solver.{key}: {method} needs {WORDS[info.needs]} matrices, which "
            f"this problem does not promise ({problem.equation}); use "
            f"--config.solver.{key}=direct (suitable: {', '.join(others)})"
        )
    return settings


def _suits(info, problem) -> bool:
    return STRENGTH[info.needs] <= STRENGTH[problem.matrices]


def check_number_type(methods: list[str], problem) -> None:
    """Refuses methods for real systems where the problem has complex ones.

    The first system of a random sample tells; it is drawn only if a method needs it.

    Raises:
        MethodError: naming the method and others.
    """
    from solvers import sequence

    real = [m for m in methods if not sequence.method_info(m).complex_systems]
    if not real:
        return
    try:
        sample = problem.sample(np.random.default_rng(0))
        system = problem.system(sample, 0, None)
    except Exception:  # what is wrong with samples is the ladder's to tell
        return
    if system.dtype.kind == "c":
        others = [
            name
            for name, info in sequence.METHODS.items()
            if info.complex_systems and _suits(info, problem)
        ]
        raise MethodError(
            f"config.solver.method: {real[0]} solves real systems only and those of "
            f"this problem are complex ({problem.equation}); use "
            f"--config.solver.method=direct (suitable: {', '.join(others)})"
        )
