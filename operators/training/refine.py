"""Refines predictions of a trained SFNO, trajectory by trajectory, without the truth.

    python -m operators.training.refine --workdir runs/sfno_ns_mcwilliams_small \
        --config configs/refine_ns_mcwilliams.py:small

For each test trajectory the output operator, widened to all resolved modes, is trained
anew to make the H^-1 norm of a residual of the equation small, in float64; everything
before it stays as it is. Writes refinement.json, refinement.png and refinement.npz (the
trajectories) into the workdir, and prints a table: true errors before and after,
residuals, the best approximation that the free parameters allow, wall times, and what
it costs to solve the equation anew to the same error.
"""

import argparse
import json
import platform
import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from configs import loading
from datagen.storage.read import DatasetError
from operators.training import data, runs, workdir
from operators.training.refinement import (
    best_approximation,
    cases,
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
    folder: str | Path, config: Mapping, *, show: Callable[[str], None] = print
) -> dict:
    """Refines test trajectories of a run and writes the three files into its folder.

    Args:
        folder: workdir of the trained SFNO.
        config: see `configs/refine_ns_mcwilliams.py`.
        show: receives lines of progress.

    Returns:
        The content of `refinement.json`.

    Raises:
        ValueError: if the run, the data or the settings do not fit.
        RuntimeError: unless JAX is in 64-bit mode.
    """
    if not jax.config.jax_enable_x64:
        raise RuntimeError("refinement needs float64: set JAX_ENABLE_X64=1")
    folder = Path(folder)
    operator = runs.load(folder, checkpoint=config["checkpoint"])
    widening.check_model(operator.model)
    case, facts = open_case(operator, config)
    parts = [
        _refine_part(operator.model, case.part(slice(i, i + size)), config, show)
        for size in [config["batch_size"]]
        for i in range(0, len(case.truth), size)
    ]
    report = {
        "workdir": str(folder),
        "checkpoint": config["checkpoint"],
        "step": operator.step,
        **facts,
        "grid": list(case.equation.grid.shape),
        "times": case.times[case.num_in :].tolist(),
        "sample_ids": case.sample_ids.tolist(),
        "residual": dict(config["residual"]),
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
    return report


def open_case(operator: runs.Operator, config: Mapping) -> tuple[cases.Case, dict]:
    """The trajectories to refine, and what is recorded of them.

    Raises:
        ValueError: unless the data are trajectories whose frames are as far apart as
            those that the model was trained on, with the window inside.
    """
    settings = config["data"]
    if not data.generate(settings, types.SimpleNamespace(requested=False)):
        raise ValueError("the generation of the data was stopped: start again")
    dataset = data.open_data(settings)
    trained = operator.config["data"]
    num_in, num_out = trained["window"]
    start, num = settings["window_start"], settings["num_test"]
    times = np.asarray(dataset.steps, float)[start : start + num_in + num_out]
    if len(times) < num_in + num_out:
        raise ValueError(
            f"config.data.window_start is {start}, but {dataset.root} has "
            f"{len(dataset.steps)} frames, and {num_in} + {num_out} are needed"
        )
    _check_spacing(trained, times)
    (field,) = trained["outputs"]
    frames = dataset.trajectories("test", field, num=num)
    frames = frames[:, start : start + num_in + num_out]
    ids = dataset.load("test", inputs=(field,), outputs=(), num=num, steps=0).sample_ids
    problem = json.loads((dataset.root / "plan.json").read_text())["settings"]
    case = cases.create(problem, frames, times, num_in, ids, config["grid"])
    return case, {"data": str(dataset.root), "data_manifest": dataset.manifest_sha256}


def _check_spacing(trained: Mapping, times: np.ndarray) -> None:
    """Refuses frames that are not as far apart as those of the training."""
    folder = data.dataset_folder(trained)
    if not (folder / "manifest.json").exists():
        return  # the training data may be elsewhere
    manifest = json.loads((folder / "manifest.json").read_text())
    expected = np.diff(manifest["steps"]["values"][:2])[0]
    if not np.allclose(np.diff(times), expected, rtol=1e-6):
        raise ValueError(
            f"the frames are {np.diff(times)[0]:g} apart, but the model was trained on "
            f"frames {expected:g} apart: choose another config.data"
        )


def _refine_part(model, case: cases.Case, config: Mapping, show) -> tuple[dict, dict]:
    """Report and frames [batch, T, n1, n2] by name of some of the trajectories."""
    grid = case.equation.grid
    wide = widening.widen(model, grid.shape, config["time_modes"])
    frozen = widening.freeze(wide, np.moveaxis(case.given, 1, -1)[..., None])
    graph, parameters = widening.split(wide)
    times = np.arange(1.0, case.truth.shape[1] + 1)
    space = trial_space.create(wide.output, times, grid)
    residual, history = _residual(case, config["residual"])
    parameters = widening.repeated(parameters, len(case.truth))
    predict = jax.jit(
        jax.vmap(lambda p, frozen: widening.predict(graph, p, frozen, times))
    )
    frames = predict(parameters, frozen)
    known = objective.known(residual, frames, history, frozen)
    report = {
        "trial_space": {
            "num_parameters": space.num_parameters,
            "num_functions": space.shape[0],
            "modes": list(wide.output.modes),
        },
        "start": {"error": np.asarray(case.errors(frames))},
        "best_approximation": _best(case, frames, space),
        "anew": resolving.measure(case),
        "minimizers": {},
    }
    trajectories = {"model": frames[:, 1:]}
    for name in config["minimizers"]:
        settings = {**config["settings"][name]}
        stop = minimizers.StopRule(settings.pop("maxiter"), **config["stop"])
        minimizer = minimizers.create(
            name, residual, space=space, graph=graph, times=times, **settings
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


def _residual(case: cases.Case, settings: Mapping):
    """The residual, and the frames before the last given one where it reads them."""
    settings, history = dict(settings), None
    kind, times = settings.pop("kind"), case.times[case.num_in - 1 :]
    if kind == "fd" and case.num_in > 1:
        settings["history_times"] = tuple(case.times[: case.num_in - 1])
        history = jnp.asarray(case.given[:, :-1])
    return residuals.create(kind, case.equation, times, **settings), history


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
        "error": done.errors[-1],
        "residual": done.residuals[-1],
        "reason": done.reason,
        "errors": done.errors,
        "residuals": done.residuals,
        "details": done.details,
        "seconds": done.seconds,
    }


def _merge(parts: list[dict]) -> dict:
    """One report of those of several batches; times add up."""
    merged = {"trial_space": parts[0]["trial_space"]}
    for key in ("start", "best_approximation"):
        merged[key] = {
            name: np.concatenate([part[key][name] for part in parts]).tolist()
            for name in parts[0][key]
        }
    count = min(len(part["anew"]) for part in parts)
    merged["anew"] = [
        {
            "substeps": rows[0]["substeps"],
            "error": np.concatenate([row["error"] for row in rows]).tolist(),
            "seconds": sum(row["seconds"] for row in rows),
        }
        for rows in zip(*(part["anew"][:count] for part in parts), strict=True)
    ]
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
        config, _ = loading.from_arguments(rest)
        report = refine(options.workdir, config.to_dict())
    except (ValueError, DatasetError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(reports.table(report))
    print(f"written to {options.workdir}: refinement.json, .png, .npz")
    return 0


if __name__ == "__main__":
    sys.exit(main())
