"""The pictures that an evaluation leaves in the folder of its run."""

from collections.abc import Mapping

import numpy as np

from operators.training import data, figures, frame_figures, metrics, workdir

NUM_DRAWN = 3  # samples in the picture
RANKS = {1: (), 2: ("best", "worst"), 3: ("best", "median", "worst")}
SYMBOLS = {"coefficient": "coefficient $a$", "solution": "$u$", "y0": "$u$"}


def draw(
    folder, operator, samples, prediction, errors, baseline, suffix="", **captions
) -> None:
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
    picture.savefig(folder / f"samples{suffix}.png", dpi=130)
    _draw_curves(folder, histories, operator, baseline)


def draw_frames(
    folder, operator, dataset, settings, samples, frames, baseline, suffix=""
) -> None:
    """Writes `samples.png` (strips of frames), `frames.png` (error over time), curves.

    Args:
        folder: workdir of the run.
        operator: the run.
        dataset: open data set.
        settings: `config.data` to read it by.
        samples: the test samples.
        frames: [num, T, *space, fields] predicted.
        baseline: an `Operator` or None.
        suffix: of the names of the files.
    """
    layout = data.layout(dataset, settings)
    window, label = layout.window, figures.model_name(type(operator.model).__name__)
    truth = window.frames_of(samples.y)
    predictions, histories = {label: frames}, {label: workdir.read_metrics(folder)}
    if baseline is not None:
        name = figures.model_name(type(baseline.model).__name__)
        name = f"{name} (baseline)" if name == label else name
        keys = ("window_layout", "inputs")  # the same frames in its own order
        own = settings | {key: baseline.config["data"][key] for key in keys}
        x = data.load_split(dataset, own, "test").x
        other = data.layout(dataset, own).window
        predictions[name] = other.frames_of(baseline(x, batch_size=4))
        histories[name] = workdir.read_metrics(baseline.workdir)
    errors = {k: metrics.frame_errors(v, truth) for k, v in predictions.items()}
    num = NUM_DRAWN if baseline is None else 2  # each model adds two strips
    chosen = _spread(metrics.relative_l2(frames, truth), num)
    ranks = RANKS[len(chosen)] or ("",)
    ids = samples.sample_ids[chosen]
    given, times = window.last_given(samples.x), dataset.steps[list(window.predicted)]
    if given is not None:
        kept = np.broadcast_to(given[:, None], truth.shape)
        errors["last given frame"] = metrics.frame_errors(kept, truth)
    picture = frame_figures.plot_frames(
        truth[chosen],
        {key: values[chosen] for key, values in predictions.items()},
        times,
        [f"{r}: sample {i}".lstrip(": ") for r, i in zip(ranks, ids, strict=True)],
        samples.coordinates[: len(layout.space)],
        given=None if given is None else given[chosen][..., 0],
        name=layout.outputs[0].partition("[")[0],
        axes=layout.axes,
    )
    picture.savefig(folder / f"samples{suffix}.png", dpi=110)
    beside = frame_figures.plot_errors(errors, times, time=dataset.step_name)
    beside.savefig(folder / f"frames{suffix}.png", dpi=130)
    _draw_curves(folder, histories, operator, baseline)


def _draw_curves(folder, histories, operator, baseline) -> None:
    """Writes `curves.png`, whose title names the loss where all have the same."""
    runs = [operator] if baseline is None else [operator, baseline]
    losses = [run.config["loss"]["name"] for run in runs]
    picture = figures.plot_curves(histories, losses)
    picture.savefig(folder / "curves.png", dpi=130)


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


def _spread(errors: np.ndarray, num: int) -> np.ndarray:
    """Indices of num samples from the least to the largest error."""
    places = np.linspace(0, len(errors) - 1, min(num, len(errors))).round().astype(int)
    return np.argsort(errors, kind="stable")[places]
