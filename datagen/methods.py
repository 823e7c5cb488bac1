"""How a data set is solved: `config.solver` with every "auto" decided, checked early.

Everything here depends on config and problem alone, so that one config gives one plan.
"""

import re
from collections.abc import Mapping
from typing import Any

from datagen import sorting, trials

STRENGTH = {"any": 0, "general": 0, "symmetric": 1, "spd": 2}
WORDS = {"spd": "symmetric positive definite", "symmetric": "symmetric"}


class MethodError(ValueError):
    """A setting of `config.solver` is wrong or does not suit the problem."""


def resolve(
    solver: Mapping[str, Any],
    problem,
    sizes: list[int],
    choice: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Decides what `config.solver` leaves open.

    Args:
        solver: `config.solver`.
        problem: see `datagen.problems.base.Problem`.
        sizes: samples per split.
        choice: what was chosen before, by measurement or in the plan that is gone on
            with; None: `choose`.

    Returns:
        method, settings (keywords for `solvers.sequence.create`), preconditioner (a
        name, "none" if the method takes none), ordering, rtol, accept_rtol, maxiter
        (None: the method's own), carries, fallbacks, dicts of method and settings, and
        choice, see `choose`.

    Raises:
        MethodError: in one sentence that names the key.
    """
    from solvers import sequence

    if not solver["rtol"] <= solver["accept_rtol"] < 1:
        raise MethodError(
            f"config.solver: rtol is {solver['rtol']} and accept_rtol "
            f"{solver['accept_rtol']}; expected rtol <= accept_rtol < 1"
        )
    choice = dict(choice or choose(solver, problem))
    solver = {**filled(solver, choice["settings"]), "method": choice["method"]}
    settings = method_settings("method", solver["method"], solver, problem)
    fallbacks = [
        {
            "method": method,
            "settings": method_settings("fallbacks", method, solver, problem),
        }
        for method in solver["fallbacks"]
        if method != solver["method"]
    ]
    methods = [("method", solver["method"])]
    methods += [("fallbacks", fallback["method"]) for fallback in fallbacks]
    check_number_type(methods, problem)
    check_precision(methods)
    check_petsc_options("method", solver["method"], settings, problem)
    for fallback in fallbacks:
        check_petsc_options("fallbacks", *fallback.values(), problem)
    check_preconditioner(solver["method"], settings, problem)
    for fallback in fallbacks:
        check_preconditioner(fallback["method"], fallback["settings"], problem)
    goes_back = sequence.method_info(solver["method"]).carries or "guess" in settings
    carries = goes_back or _keeps_state(solver["method"], settings, problem)
    ordering = solver["ordering"]
    if ordering == "auto":
        ordering = "none"
        if carries:
            ordering = "greedy" if max(sizes) <= sorting.MAX_GREEDY else "cells"
    elif ordering == "tree" and not goes_back:
        does = "cannot go back to what it carried" if carries else "carries nothing"
        raise MethodError(
            f"config.solver.ordering is tree, but {solver['method']} {does} from "
            "sample to sample; use ordering=auto, or method=skr"
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
        "choice": choice,
    }


def filled(solver: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """`config.solver` with what it leaves open, and what it has no key for, chosen."""
    return {
        **solver,
        **{k: v for k, v in chosen.items() if solver.get(k, "auto") == "auto"},
    }


def traits_of(problem):
    """The `solvers.strategy.Traits` of the systems of three fixed seeds.

    Returns:
        None if none of them is finite.
    """
    from solvers import strategy

    if not (systems := trials.sequence_start(problem)):
        return None
    return strategy.describe(systems, spd=problem.matrices == "spd" or None)


def choose(solver: Mapping[str, Any], problem, *, traits=None) -> dict[str, Any]:
    """The method of `config.solver`; "auto" by the table of `solvers.strategy`.

    It is chosen for the systems of three fixed seeds among the methods that take what
    else is asked for (a guess, a goal for the error), so that one config gives one
    method on every machine.

    Args:
        solver: `config.solver`.
        problem: see `datagen.problems.base.Problem`.
        traits: from `traits_of`, if they are known already.

    Returns:
        asked, method, settings (those of the table), reason, calibrated (whether it was
        measured, see `datagen.calibrate`) and costs (of the measurement, else empty).

    Raises:
        MethodError: if no method takes what is asked for.
    """
    if (asked := solver["method"]) == "auto":
        method, settings, reason = _by_table(solver, traits or traits_of(problem))
    else:
        method, settings, reason = asked, {}, "named in the config"
    return {
        "asked": asked,
        "method": method,
        "settings": settings,
        "reason": reason,
        "calibrated": False,
        "costs": {},
    }


def _by_table(solver: Mapping[str, Any], traits):
    """Method, settings and reason of `solvers.strategy` for the traits."""
    from solvers import sequence, strategy

    if traits is None:
        return strategy.Choice("direct", {}, "none of the samples tried is finite")
    wanted = named_settings(solver)
    infos = sequence.METHODS.items()
    without = {name for name, info in infos if not wanted <= set(info.settings)}
    try:
        return strategy.choose(traits, without=without)
    except ValueError as error:
        raise MethodError(
            f"config.solver.method: {error}, which take no "
            f"{' and '.join(sorted(wanted))}; use guess=none, stop=residual"
        ) from error


def named_settings(solver: Mapping[str, Any]) -> set[str]:
    """Settings that a method must take for what else `config.solver` asks for."""
    wanted = {"guess"} if solver["guess"] != "none" else set()
    return wanted | ({"error_goal"} if solver["stop"] == "discretisation" else set())


def check_precision(methods: list[tuple[str, str]]) -> None:
    """Refuses methods that compute in float64 in JAX where JAX runs in 32 bit.

    Raises:
        MethodError: naming the key, the method and what to set.
    """
    from solvers.precision import require_x64
    from solvers.strategy import NEED_X64

    for key, method in methods:
        if method not in NEED_X64:
            continue
        try:
            require_x64(method)
        except RuntimeError as error:
            raise MethodError(
                f"config.solver.{key}: {error}; `python -m datagen` does that itself"
            ) from error


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
    if method == "auto":
        raise MethodError(
            f"config.solver.{key}: auto is for config.solver.method alone; name "
            "methods such as direct here"
        )
    offered = {
        "m": solver["m"],
        "k": solver["k"],
        "preconditioner": solver["preconditioner"],
        "frozen": solver["frozen"],
        "spd": problem.matrices == "spd",
        "inner": solver.get("inner", "auto"),
    }
    if offered["preconditioner"] == "auto":
        offered["preconditioner"] = problem.preconditioner
    settings = {name: offered[name] for name in info.settings if name in offered}
    if solver["guess"] != "none" and (key == "method" or "guess" in info.settings):
        settings |= {"guess": solver["guess"], "window": solver["window"]}
    tried = "preconditioner"
    try:
        if "preconditioner" in settings:
            preconditioners.create(settings["preconditioner"])
        tried = key
        sequence.create(method, **settings).close()
    except (ValueError, TypeError, ImportError, RuntimeError) as error:
        if tried == key and (numbers := _numbers_named(str(error), settings)):
            tried = numbers if key == "method" else f"{numbers} (for {key}: {method})"
        raise MethodError(f"config.solver.{tried}: {error}") from error
    if STRENGTH[info.needs] > STRENGTH[problem.matrices]:
        others = [
            n
            for n, other in sequence.METHODS.items()
            if _suits(other, problem) and n != "auto"
        ]
        raise MethodError(
            f"config.solver.{key}: {method} needs {WORDS[info.needs]} matrices, which "
            f"this problem does not promise ({problem.equation}); use "
            f"--config.solver.{key}=direct (suitable: {', '.join(others)})"
        )
    return settings


def _numbers_named(sentence: str, settings: Mapping[str, Any]) -> str:
    """Which of the numbers that a method was given its refusal is about."""
    numbers = [name for name in ("m", "k", "window") if name in settings]
    return " and ".join(n for n in numbers if re.search(rf"\b{n} is\b", sentence))


def _suits(info, problem) -> bool:
    return STRENGTH[info.needs] <= STRENGTH[problem.matrices]


def check_number_type(methods: list[tuple[str, str]], problem) -> None:
    """Refuses methods for real systems where the problem has complex ones.

    The first system of a random sample tells; it is drawn only if a method needs it.

    Args:
        methods: (key of `config.solver`, method).
        problem: see `datagen.problems.base.Problem`.

    Raises:
        MethodError: naming the key, the method and others.
    """
    from solvers import sequence

    real = [pair for pair in methods if not _info(pair[1]).complex_systems]
    if not real:
        return
    system = next(trials.systems(problem), None)
    if system is not None and system.dtype.kind == "c":
        key, method = real[0]
        others = [
            name
            for name, info in sequence.METHODS.items()
            if info.complex_systems and _suits(info, problem) and name != "auto"
        ]
        raise MethodError(
            f"config.solver.{key}: {method} solves real systems only and those of "
            f"this problem are complex ({problem.equation}); use "
            f"--config.solver.{key}=direct (suitable: {', '.join(others)})"
        )


def check_petsc_options(
    key: str, method: str, settings: Mapping[str, Any], problem
) -> None:
    """Tries the options of a method `petsc:...` on a system of a random sample.

    Raises:
        MethodError: naming the key and the option.
    """
    from solvers import sequence

    if method.startswith(sequence.PETSC_PREFIX) and (
        why := trials.petsc_complaint(method, settings, problem)
    ):
        raise MethodError(f"config.solver.{key}: {why}")


def check_preconditioner(method: str, settings: Mapping[str, Any], problem) -> None:
    """Tries the preconditioner of a method on systems of random samples.

    Raises:
        MethodError: naming the preconditioner and others.
    """
    if (name := settings.get("preconditioner", "none")) == "none":
        return
    needs, frozen = _info(method).needs, settings.get("frozen", False)
    if why := trials.complaint(name, frozen=frozen, needs=needs, problem=problem):
        others = trials.suitable(needs, problem, name)
        raise MethodError(
            f"config.solver.preconditioner: {name} does not suit {method} for "
            f"{problem.name}: {why}; use --config.solver.preconditioner={others[0]} "
            f"(suitable: {', '.join(others)})"
        )


def _info(method: str):
    from solvers import sequence

    return sequence.method_info(method)


def _keeps_state(method: str, settings: Mapping[str, Any], problem) -> bool:
    """Whether solves depend on earlier ones beyond what the registry says."""
    from solvers import sequence

    if method.startswith(sequence.PETSC_PREFIX):
        return _petsc_keeps_state(method.removeprefix(sequence.PETSC_PREFIX).split())
    name = settings.get("preconditioner", "none")
    if settings.get("frozen") and name != "none":
        return True  # that of the first system
    return name == "lu" and not trials.preconditioning_matrix_given(problem)


def _petsc_keeps_state(words: list[str]) -> bool:
    """Whether PETSc options recycle a space or keep a preconditioner."""
    values = dict(zip(words, [*words[1:], ""], strict=True))
    off = ("false", "0", "no", "off")
    ours = values.get("-ksp_python_type", "").endswith("GCRODR")
    return (
        (ours and values.get("-ksp_gcrodr_recycle", "true").lower() not in off)
        or values.get("-ksp_hpddm_recycle", "0") not in off
        or values.get("-ksp_reuse_preconditioner", "false").lower() not in off
    )
