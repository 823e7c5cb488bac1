"""Refines predictions of a trained SFNO, trajectory by trajectory, without the truth.

    python -m operators.training.refine --workdir runs/sfno_ns_mcwilliams_small \
        --config configs/refine_ns_mcwilliams.py:small

For each test trajectory the output operator, widened to all resolved modes, is trained
anew to make the H^-1 norm of a residual of the equation small, in float64; everything
before it stays as it is. Writes refinement.json, refinement.png and refinement.npz (the
trajectories) into the workdir, and prints a table: true errors before and after,
residuals, the best approximation that the free parameters allow, wall times, and what
it costs to solve the equation anew to the same error. An interrupted refinement goes
on with the batch of trajectories that it was at.
"""

import argparse
import functools
import json
import os
import platform
import sys
import time
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from configs import loading
from datagen.storage.read import DatasetError
from operators.training import data, interruption, runs, workdir
from operators.training.refinement import (
    best_approximation,
    cases,
    checks,
    minimizers,
    objective,
    reports,
    residuals,
    resolving,
    trial_space,
    widening,
)


@runs.plain_warnings()
def refine(
    folder: str | Path,
    config: Mapping,
    *,
    name: str = "",
    show: Callable[[str], None] = print,
) -> dict:
    """Refines test trajectories of a run and writes the three files into its folder.

    Args:
        folder: workdir of the trained SFNO.
        config: see `configs/refine_ns_mcwilliams.py`.
        name: the config's name, for the record.
        show: receives lines of progress.

    Returns:
        The content of `refinement.json`.

    Raises:
        ValueError: if the run, the data or the settings do not fit.
        OSError: if the folder cannot be written.
        RuntimeError: unless JAX is in 64-bit mode.
    """
    if not jax.config.jax_enable_x64:
        raise RuntimeError("refinement needs float64: set JAX_ENABLE_X64=1")
    folder = Path(folder)
    checks.experiment(config)
    operator = runs.load(folder, checkpoint=config["checkpoint"])
    checks.model(operator, config)
    checks.flows(operator.config["data"], config["data"], loading.load)
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"--workdir {folder} is not writable")
    with workdir.Lock(folder):
        return _refine_all(folder, operator, config, name, show)


def _refine_all(folder: Path, operator, config: Mapping, name: str, show) -> dict:
    """Does the work of `refine` once the folder is ours alone."""
    case, facts = open_case(operator, config)
    if widening.beyond_mask(operator.model, case.equation.grid.shape):
        show("modes of the model beyond the 2/3 mask of the grid are set to zero")
    if left_out := set(config["minimizers"]) - set(checks.chosen(config)):
        show(f"{', '.join(left_out)} needs the residual defect and is left out")
    settings = workdir.plain_config(config)
    store = reports.Parts(folder, {"config": settings, "step": operator.step, **facts})
    size = config["batch_size"]
    parts = []
    for i in range(0, len(case.truth), size):
        some = case.part(slice(i, i + size))
        work = functools.partial(_refine_part, operator.model, some, config, show)
        parts.append(store.part(i, work))
    report = {
        "workdir": str(folder),
        "checkpoint": config["checkpoint"],
        "step": operator.step,
        "config_name": name,
        "config": settings,
        **facts,
        "grid": list(case.equation.grid.shape),
        "times": case.times[case.num_in :].tolist(),
        "sample_ids": case.sample_ids.tolist(),
        "residual": {
            "kind": config["residual"]["kind"],
            **settings["residual"][config["residual"]["kind"]],
        },
        "device": f"{jax.devices()[0].device_kind} ({platform.machine()})",
        **_merge([part[0] for part in parts]),
    }
    for result in report["minimizers"].values():
        result["anew"] = resolving.as_accurate(
            report["anew"], float(np.mean(result["error"]))
        )
    frames = {
        name: np.concatenate([part[1][name] for part in parts]) for name in parts[0][1]
    }
    _write(folder, report, {**frames, "truth": case.truth, "given": case.given}, case)
    store.clear()
    return report


def open_case(operator: runs.Operator, config: Mapping) -> tuple[cases.Case, dict]:
    """The trajectories to refine, and what is recorded of them.

    Raises:
        KeyboardInterrupt: if the generation of the data was stopped.
        ValueError: unless the data are trajectories with the window inside.
    """
    settings = config["data"]
    if not data.generate(settings, types.SimpleNamespace(requested=False)):
        raise KeyboardInterrupt
    dataset = data.open_data(settings)
    trained = operator.config["data"]
    num_in, num_out = trained["window"]
    start, num = settings["window_start"], settings["num_test"]
    times = np.asarray(dataset.steps, float)[start : start + num_in + num_out]
    (field,) = trained["outputs"]
    frames = dataset.trajectories("test", field, num=num)
    frames = frames[:, start : start + num_in + num_out]
    ids = dataset.load("test", inputs=(field,), outputs=(), num=num, steps=0).sample_ids
    problem = json.loads((dataset.root / "plan.json").read_text())["settings"]
    case = cases.create(problem, frames, times, num_in, ids, config["grid"])
    return case, {"data": str(dataset.root), "data_manifest": dataset.manifest_sha256}


def _refine_part(model, case: cases.Case, config: Mapping, show) -> tuple[dict, dict]:
    """Report and frames [batch, T, n1, n2] by name of some of the trajectories."""
    began = _begin(model, case, config)
    space, parameters, known = began.space, began.parameters, began.known
    frames = known.frames
    report = {
        "trial_space": {
            "num_parameters": space.num_parameters,
            "num_functions": space.shape[0],
            "modes": list(began.modes),
        },
        "start": {"error": np.asarray(case.errors(frames))},
        "seconds_before": began.seconds,
        "best_approximation": _best(case, frames, space),
        "floor": resolving.floor(case),
        "anew": resolving.measure(case),
        "minimizers": {},
    }
    trajectories = {"model": frames[:, 1:]}
    for name in checks.chosen(config):
        minimizer, stop = checks.create_minimizer(
            config,
            name,
            began.residual,
            space=space,
            graph=began.graph,
            times=began.times,
        )
        show(f"{name}, samples {case.sample_ids.tolist()}")
        variables = jnp.zeros((len(frames), *space.shape))
        done = minimizers.minimize(
            minimizer,
            known,
            parameters if name == "adam" else variables,
            stop,
            error=case.errors,
            show=show,
        )
        report["minimizers"][name] = _result(done)
        report["start"]["residual"] = done.residuals[0]
        refined = jax.jit(jax.vmap(minimizer.objective.frames))(known, done.variables)
        trajectories[name] = refined[:, 1:]
    return report, {
        name: np.asarray(case.on_data_grid(f)) for name, f in trajectories.items()
    }


class _Begun(NamedTuple):
    """What all minimisers start from; seconds: of the forward pass and the widening."""

    residual: residuals.Residual
    known: objective.Known
    space: trial_space.TrialSpace
    graph: Any
    parameters: Any
    times: np.ndarray
    modes: tuple[int, int, int]
    seconds: float


def _begin(model, case: cases.Case, config: Mapping) -> _Begun:
    """Widens the model and predicts, timed without compilation."""
    grid = case.equation.grid
    given = np.moveaxis(case.given, 1, -1)[..., None]
    times = np.arange(1.0, case.truth.shape[1] + 1)
    wide = widening.widen(model, grid.shape, config["time_modes"])
    graph, _ = widening.split(wide)
    predict = jax.jit(jax.vmap(lambda p, f: widening.predict(graph, p, f, times)))
    for _ in range(2):  # the first one compiles
        began = time.perf_counter()
        wide = widening.widen(model, grid.shape, config["time_modes"])
        frozen = widening.freeze(wide, given)
        parameters = widening.repeated(widening.split(wide)[1], len(case.truth))
        frames = jax.block_until_ready(predict(parameters, frozen))
        seconds = time.perf_counter() - began
    residual = checks.create_residual(config, case.equation, case.times, case.num_in)
    history = jnp.asarray(case.given[:, :-1])
    if not getattr(residual, "history_times", ()):
        history = None
    return _Begun(
        residual=residual,
        known=objective.known(residual, frames, history, frozen),
        space=trial_space.create(wide.output, times, grid),
        graph=graph,
        parameters=parameters,
        times=times,
        modes=wide.output.modes,
        seconds=seconds,
    )


def _best(case: cases.Case, frames, space: trial_space.TrialSpace) -> dict:
    """Least errors [batch] in the trial space, and what modes and times cost of them.

    What the model predicts beyond the free modes stays as it is and is counted.
    """
    predicted = np.asarray(case.on_data_grid(frames))
    found = best_approximation.best_approximation(
        case.truth,
        predicted[:, 0],
        space.basis,
        retained=best_approximation.box(case.truth.shape[-2:], space.modes.cutoffs),
    )
    return {
        "error": found.relative_l2,
        "time_part": found.time_part,
        "space_part": found.space_part,
    }


def _result(done: minimizers.History) -> dict:
    return {
        "error": done.error,
        "residual": done.residual,
        "reason": done.reason,
        "errors": done.errors,
        "residuals": done.residuals,
        "details": done.details,
        "seconds": done.seconds,
    }


def _merge(parts: list[dict]) -> dict:
    """One report of those of several batches; times add up."""
    merged = {
        "trial_space": parts[0]["trial_space"],
        "seconds_before": sum(part["seconds_before"] for part in parts),
        "floor": np.concatenate([part["floor"] for part in parts]).tolist(),
    }
    for key in ("start", "best_approximation"):
        merged[key] = {
            name: np.concatenate([part[key][name] for part in parts]).tolist()
            for name in parts[0][key]
        }
    merged["anew"] = resolving.merge([part["anew"] for part in parts])
    start = np.mean(merged["start"]["error"])
    merged["minimizers"] = {}
    for name in parts[0]["minimizers"]:
        result = _merge_results([part["minimizers"][name] for part in parts])
        error = np.array(result["error"])
        best = np.array(merged["best_approximation"]["error"])
        result["reduction"] = float(start / error.mean())
        result["over_best"] = float(np.mean(error) / max(np.mean(best), 1e-300))
        merged["minimizers"][name] = result
    return merged


def _merge_results(results: list[dict]) -> dict:
    """Histories of several batches side by side, the shorter ones held at their end."""
    longest = max(len(result["seconds"]) for result in results)

    def hold(values, length):
        missing = length - len(values)
        return np.concatenate([values, np.repeat(values[-1:], missing, axis=0)])

    merged = {
        key: np.concatenate([result[key] for result in results]).tolist()
        for key in ("error", "residual", "reason")
    }
    for key in ("errors", "residuals", "details"):
        length = longest + (key != "details")
        columns = [hold(result[key], length) for result in results]
        merged[key] = np.concatenate(columns, axis=1).tolist()
    seconds = np.zeros(longest)
    for result in results:
        seconds[: len(result["seconds"])] += result["seconds"]
    merged["seconds"] = seconds.tolist()
    return merged


def _write(folder: Path, report: dict, frames: dict, case: cases.Case) -> None:
    workdir.write_json(folder / "refinement.json", report)
    reports.figure(report).savefig(folder / "refinement.png", dpi=130)
    np.savez_compressed(
        folder / "refinement.npz",
        times=case.times[case.num_in :],
        given_times=case.times[: case.num_in],
        sample_ids=case.sample_ids,
        **frames,
    )


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m operators.training.refine",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--workdir", required=True, help="folder of the trained SFNO")
    options, rest = parser.parse_known_args(argv)
    jax.config.update("jax_enable_x64", True)
    try:
        config, name = loading.from_arguments(rest)
        report = refine(options.workdir, config.to_dict(), name=name)
    except KeyboardInterrupt:
        print("stopped; run the same command again to go on", file=sys.stderr)
        return interruption.EXIT_CODE
    except (ValueError, DatasetError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(reports.table(report))
    print(f"written to {options.workdir}: refinement.json, .png, .npz")
    return 0


if __name__ == "__main__":
    sys.exit(main())
