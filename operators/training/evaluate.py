"""Recomputes a run's test errors from its checkpoint: `evaluation.json` and figures.

    python -m operators.training.evaluate --workdir runs/mgno_darcy_small

The model runs in its own dtype, the norms in NumPy float64, per sample.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from datagen.storage.read import DatasetError
from operators.training import data, figures, metrics, runs, workdir

NUM_DRAWN = 3  # samples in the picture
RANKS = {1: (), 2: ("best", "worst"), 3: ("best", "median", "worst")}
SYMBOLS = {"coefficient": "coefficient $a$", "solution": "$u$", "y0": "$u$"}


@runs.plain_warnings()
def evaluate(
    folder: str | Path,
    *,
    checkpoint: str = "best",
    split: str = "test",
    baseline: str | Path | None = None,
    dataset=None,
) -> dict:
    """Evaluates a run on a split and writes `evaluation.json`, PNG figures beside it.

    Args:
        folder: workdir of the run.
        checkpoint: "best" or "latest".
        split: "train", "valid" or "test". Anything but the best checkpoint on the test
            split goes to `evaluation_<split>_<checkpoint>.json`, without figures.
        baseline: workdir of a second run on the same samples, drawn beside the first.
        dataset: the open data set, where the caller has it already.

    Returns:
        The content of `evaluation.json`.

    Raises:
        ValueError: if there is no run, checkpoint or data, or the baseline has other
            test samples or was trained on other points.
    """
    folder = Path(folder)
    operator = runs.load(folder, checkpoint=checkpoint)
    settings = operator.config["data"]
    dataset = dataset or data.open_data(settings)
    _check_manifest(operator, dataset)
    beside = None if baseline is None else _open(baseline, dataset, settings)
    samples = data.load_split(dataset, settings, split)
    prediction = operator(samples.x)
    errors = metrics.evaluate_fields(prediction, samples.y, samples.spacing)
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
    other = (checkpoint, split) != ("best", "test")
    suffix = f"_{split}_{checkpoint}" if other else ""
    workdir.write_json(folder / f"evaluation{suffix}.json", report)
    if other:
        return report
    titles = captions(dataset, settings)
    draw(folder, operator, samples, prediction, errors, beside, **titles)
    return report


def draw(folder, operator, samples, prediction, errors, baseline, **captions) -> None:
    """Writes `samples.png` and `curves.png`, with the baseline's lines if given.

    `baseline` is an `Operator` or None, `captions` go to `figures.plot_samples`.
    """
    label = figures.model_name(type(operator.model).__name__)
    per_sample = np.array(errors["relative_l2"]["per_sample"])
    chosen = _spread(per_sample, NUM_DRAWN)
    predictions = {label: prediction[chosen]}
    drawn_errors = {label: per_sample[chosen]}
    histories = {label: workdir.read_metrics(folder)}
    if baseline is not None:
        name = figures.model_name(type(baseline.model).__name__)
        name = f"{name} (baseline)" if name == label else name
        predictions[name] = baseline(samples.x[chosen])
        beside = metrics.evaluate_fields(
            predictions[name], samples.y[chosen], samples.spacing
        )
        drawn_errors[name] = beside["relative_l2"]["per_sample"]
        histories[name] = workdir.read_metrics(baseline.workdir)
    picture = figures.plot_samples(
        samples.x[chosen],
        samples.y[chosen],
        predictions,
        drawn_errors,
        samples.sample_ids[chosen],
        samples.coordinates,
        samples.num_coordinates,
        ranks=RANKS[len(chosen)],
        **captions,
    )
    picture.savefig(folder / "samples.png", dpi=130)
    figures.plot_curves(histories).savefig(folder / "curves.png", dpi=130)


def captions(dataset, settings: Mapping) -> dict:
    """What is drawn of the input and the output, and the axes, for `draw`.

    Args:
        dataset: see `data.open_data`.
        settings: `config.data`.
    """
    layout, asked = data.layout(dataset, settings), data.tested_on(dataset, settings)
    fields = dataset.manifest.get("fields", ())  # one's own arrays have no names
    varying = {f["name"] for f in fields if f["time_varying"]}

    def caption(kind, names, steps):
        name = names[0].partition("[")[0] if names else "coordinates"
        text = SYMBOLS.get(name, name.replace("_", " "))
        text = f"{kind} 1 of {len(names)}: {text}" if len(names) > 1 else text
        if name in varying and len(dataset.steps) > 1 and not asked["time_axis"]:
            step, num = steps[0], len(dataset.steps)
            text += f"\nstep {step + 1} of {num} ({dataset.step_name} = "
            text += f"{dataset.steps[step]:.3g})"
        return text

    return {
        "title": caption("input", layout.inputs, asked.get("input_steps")),
        "output": caption("output", layout.outputs, asked.get("steps")),
    } | ({} if layout.on_nodes else {"axes": layout.axes})


def describe(report: Mapping) -> str:
    """The errors of a report as a small table for the terminal."""
    rows = [
        f"  {name:22s} {100 * e['mean']:8.3f} %   median {100 * median:.3f} %, "
        f"worst {100 * max(e['per_sample']):.3f} %"
        for name in ("relative_l2", "relative_h1", "relative_h1_spectral")
        if (e := report.get(name)) and (median := e["quantiles"]["0.5"]) is not None
    ]
    grid = " x ".join(map(str, report["grid"]))
    grid += "" if "relative_h1" in report else " nodes"
    head = (
        f"{report['model']}: {report['num_parameters']:,} parameters, "
        f"{report['num_samples']} {report['split']} samples on {grid}, "
        f"{report['checkpoint']} checkpoint (step {report['step']})"
    )
    return "\n".join([head, *rows])


def _spread(errors: np.ndarray, num: int) -> np.ndarray:
    """Indices of num samples from the least to the largest error."""
    places = np.linspace(0, len(errors) - 1, min(num, len(errors))).round().astype(int)
    return np.argsort(errors, kind="stable")[places]


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
    options = parser.parse_args(argv)
    try:
        report = evaluate(
            options.workdir,
            checkpoint=options.checkpoint,
            split=options.split,
            baseline=options.baseline,
        )
    except (ValueError, DatasetError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(describe(report))
    print(f"written to {options.workdir}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
