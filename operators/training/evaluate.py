"""Recomputes a run's test errors from its checkpoint: `evaluation.json` and figures.

    python -m operators.training.evaluate --workdir runs/mgno_darcy_small
    python -m operators.training.evaluate --workdir runs/sfno_ns_forced --data \
        data/ns_forced_fine

The model runs in its own dtype, the norms in NumPy float64, per sample. `--data` is
another data set of the same fields, on finer points for one, all of whose test samples
are read. Runs on windows of trajectories have an error for each frame as well.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from datagen.storage.read import DatasetError
from operators.training import data, metrics, pictures, runs, workdir

NORMS = ("relative_l2", "relative_h1", "relative_h1_spectral", "bochner_h1")


@runs.plain_warnings()
def evaluate(
    folder: str | Path,
    *,
    checkpoint: str = "best",
    split: str = "test",
    baseline: str | Path | None = None,
    dataset=None,
    other_data: str | Path | None = None,
) -> dict:
    """Evaluates a run on a split and writes `evaluation.json`, PNG figures beside it.

    Args:
        folder: workdir of the run.
        checkpoint: "best" or "latest".
        split: "train", "valid" or "test". Anything but the best checkpoint on the test
            split goes to `evaluation_<split>_<checkpoint>.json`, without figures.
        baseline: workdir of a second run on the same samples, drawn beside the first.
        dataset: the open data set, where the caller has it already.
        other_data: folder of another data set of the same fields, to evaluate on all of
            a split of it; the names of the files get that of the folder.

    Returns:
        The content of `evaluation.json`.

    Raises:
        ValueError: if there is no run, checkpoint or data, the other data have another
            domain or other times than those of training, or the baseline has other
            test samples or was trained on other points.
    """
    folder = Path(folder)
    operator = runs.load(folder, checkpoint=checkpoint)
    settings, suffix = operator.config["data"], ""
    if other_data is None:
        dataset = dataset or data.open_data(settings)
        _check_manifest(operator, dataset)
    else:
        settings, suffix = _elsewhere(settings, other_data), f"_{Path(other_data).name}"
        dataset = data.open_data(settings)
        _check_domain(operator, dataset)
        settings["num_test"] = dataset.splits[split]
        settings[f"num_{split}"] = dataset.splits[split]
    beside = None if baseline is None else _open(baseline, dataset, settings)
    samples = data.load_split(dataset, settings, split)
    # As many samples at once as in validation.
    size = min(16, operator.config["eval"]["batch_size"])
    prediction = operator(samples.x, batch_size=size)
    layout = data.layout(dataset, settings)
    errors = measure(prediction, samples.y, samples, layout)
    report = {
        "model": operator.config["model"]["name"],
        "num_parameters": operator.num_parameters,
        "checkpoint": checkpoint,
        "step": operator.step,
        "split": split,
        "num_samples": len(samples.y),
        "grid": list(samples.y.shape[1:-1]),
        **errors,
        "sample_ids": [int(i) for i in samples.sample_ids],
        "data_manifest_sha256": dataset.manifest_sha256,
    }
    if layout.window:
        times = np.asarray(dataset.steps, float)
        report["frames"]["times"] = times[list(layout.window.predicted)].tolist()
        report["frames"]["given"] = times[list(layout.window.given)].tolist()
    other = (checkpoint, split) != ("best", "test")
    suffix += f"_{split}_{checkpoint}" if other else ""
    workdir.write_json(folder / f"evaluation{suffix}.json", report)
    if other:
        return report
    if layout.window:
        frames = layout.window.frames_of(prediction)
        pictures.draw_frames(
            folder, operator, dataset, settings, samples, frames, beside, suffix
        )
        return report
    titles = pictures.captions(dataset, settings)
    pictures.draw(
        folder, operator, samples, prediction, errors, beside, suffix, **titles
    )
    return report


def measure(prediction, target, samples: data.Samples, layout) -> dict[str, dict]:
    """The errors of `evaluation.json`, for windows those of frames.

    Args:
        prediction: [num, *grid, channels].
        target: same shape, all or some of `samples.y`.
        samples: of the grid.
        layout: `layouts.Layout` of the data.
    """
    if layout.window is None:
        return metrics.evaluate_fields(prediction, target, samples.spacing)
    frames, truth = map(layout.window.frames_of, (prediction, target))
    num_axes = len(layout.space)
    periodic = all(samples.periodic[:num_axes])
    spacing = samples.spacing[:num_axes]
    return metrics.evaluate_frames(frames, truth, spacing, periodic=periodic)


def describe(report: Mapping) -> str:
    """The errors of a report as a small table for the terminal."""
    rows = [
        f"  {name:22s} {100 * e['mean']:8.3f} %   median {100 * median:.3f} %, "
        f"worst {100 * max(e['per_sample']):.3f} %"
        for name in NORMS
        if (e := report.get(name)) and (median := e["quantiles"]["0.5"]) is not None
    ]
    grid = " x ".join(map(str, report["grid"]))
    grid += "" if "relative_h1" in report else " nodes"
    head = (
        f"{report['model']}: {report['num_parameters']:,} parameters, "
        f"{report['num_samples']} {report['split']} samples on {grid}, "
        f"{report['checkpoint']} checkpoint (step {report['step']})"
    )
    if frames := report.get("frames"):
        means = np.array(frames["relative_l2"]["mean"])
        places = sorted({0, len(means) // 2, len(means) - 1})
        parts = [f"{100 * means[i]:.3f} % at {frames['times'][i]:.4g}" for i in places]
        rows.append(f"  frames, relative_l2    {', '.join(parts)}")
    return "\n".join([head, *rows])


def _elsewhere(settings: Mapping, folder: str | Path) -> dict:
    """`config.data` for another data set of the same fields, all its points."""
    if not (Path(folder) / "manifest.json").exists():
        raise ValueError(
            f"{folder} holds no data set: make one with python -m datagen generate "
            "--config <data config> --out <folder>"
        )
    return {**settings, "config": "", "path": str(folder), "stride": 1}


def _check_domain(operator: runs.Operator, dataset) -> None:
    """Refuses data on another domain, or at other times, than those of the training."""
    settings = operator.config["data"]
    try:
        trained = data.open_data(settings, verify=False)
    except (DatasetError, OSError):
        return  # the training data may be elsewhere
    if trained.manifest_sha256 != operator.info["data_manifest_sha256"]:
        return
    expected, found = (_domain(d, settings) for d in (trained, dataset))
    for what, values in expected.items():
        if what not in found:
            continue
        if np.shape(found[what]) != np.shape(values) or not np.allclose(
            found[what], values, rtol=1e-6
        ):
            raise ValueError(
                f"{dataset.root} has {what} {_spell(found[what])}, but "
                f"{operator.workdir} was trained on {_spell(values)}: give data of the "
                "same domain and times"
            )


def _domain(dataset, settings: Mapping) -> dict[str, np.ndarray]:
    """What another data set must share with that of training: sides and times."""
    axes, layout = tuple(dataset.coordinates), data.layout(dataset, settings)
    if layout.on_nodes:
        return {}
    periodic = data.periodic_axes(dataset, 1, len(axes))
    points = dataset.coordinates.values()
    # A periodic axis leaves out its right end.
    sides = [
        c[-1] - c[0] + (c[1] - c[0]) * repeats
        for c, repeats in zip(points, periodic, strict=True)
    ]
    asked, times = data.tested_on(dataset, settings), np.asarray(dataset.steps, float)
    domain = {"sides of the domain": np.array(sides)}
    if window := layout.window:
        frames = times[window.start : window.start + window.length]
        return domain | {"distances of frames": np.diff(frames)}
    if "steps" not in asked:  # one's own arrays
        return domain
    at = (*asked["input_steps"], *asked["steps"])
    return domain | {f"values of {dataset.step_name}": times[list(at)]}


def _spell(values: np.ndarray) -> str:
    """Numbers for people, one where all are the same."""
    alike = len(values) and np.allclose(values, values[0], rtol=1e-6)
    return ", ".join(f"{value:.6g}" for value in (values[:1] if alike else values))


def _open(baseline: str | Path, dataset, settings: Mapping) -> runs.Operator:
    """The second run, which must have the samples and the points of the first."""
    other = runs.load(baseline)
    if reason := runs.other_samples(other, dataset, settings):
        raise ValueError(
            f"the baseline {baseline} {reason}: choose a run on the same samples"
        )
    return other


def _check_manifest(operator: runs.Operator, dataset) -> None:
    trained = operator.info["data_manifest_sha256"]
    if dataset.manifest_sha256 != trained:
        raise ValueError(
            f"{operator.workdir} was trained on data with manifest {trained[:12]}, but "
            f"{dataset.root} has {dataset.manifest_sha256[:12]}: regenerate the data "
            "with the config of the run, or train again in another --workdir"
        )


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m operators.training.evaluate", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--workdir", required=True, help="folder of the run")
    parser.add_argument("--checkpoint", default="best", choices=("best", "latest"))
    parser.add_argument("--split", default="test", choices=("train", "valid", "test"))
    parser.add_argument(
        "--baseline", help="workdir of a second run on the same samples"
    )
    parser.add_argument(
        "--data", help="folder of another data set of the same fields to evaluate on"
    )
    options = parser.parse_args(argv)
    try:
        report = evaluate(
            options.workdir,
            checkpoint=options.checkpoint,
            split=options.split,
            baseline=options.baseline,
            other_data=options.data,
        )
    except (ValueError, DatasetError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(describe(report))
    print(f"written to {options.workdir}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
