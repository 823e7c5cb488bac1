"""Pictures of predicted trajectories: strips of frames, errors over time."""

import functools
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from operators.training.figures import create_canvas, draw_field, log_ticks

NUM_FRAMES = 4  # predicted ones in a strip


def plot_frames(
    truth: np.ndarray,
    predictions: Mapping[str, np.ndarray],
    times: Sequence[float],
    labels: Sequence[str],
    coordinates: Sequence[np.ndarray],
    *,
    given: np.ndarray | None = None,
    name: str = "u",
    axes: Sequence[str] = ("x", "y", "z"),
) -> Figure:
    """Draws truth, predictions and their errors, of the first field.

    In two dimensions a strip of frames for each row of pictures, from the last given
    one to the last predicted one; in a box the middle slice of its last axis; on a line
    the plane of space and time.

    Args:
        truth: [num, T, *space, fields].
        predictions: label -> the same.
        times: [T], in the units of the data set.
        labels: what each sample is.
        coordinates: of the points, [n] per axis of space.
        given: [num, *space], the last frame that was given; None: not drawn.
        name: of the field.
        axes: names of the axes of space, for lines.
    """
    truth = _planes(truth[..., 0])
    shown = {label: _planes(values[..., 0]) for label, values in predictions.items()}
    if truth.ndim == 3:
        return _planes_of_space_and_time(
            truth, shown, times, labels, coordinates[0], name, axes[0]
        )
    chosen = _spread(truth.shape[1])
    before = None if given is None else _planes(given[:, None])[:, 0]
    marks = ["last given"] * (given is not None)
    marks += [f"t = {times[frame]:.4g}" for frame in chosen]
    rows_each = 1 + 2 * len(shown)
    num_rows = len(truth) * rows_each
    figure, rows = create_canvas(num_rows, 1, size=(2.0 * len(marks) + 1, 2.1))
    spacing = [float(c[1] - c[0]) for c in coordinates[:2]]
    for sample, label in enumerate(labels):
        first = None if before is None else before[sample]
        empty = None if before is None else np.full_like(first, np.nan)
        values, panels = truth[sample, chosen], rows[sample * rows_each :, 0]
        field = _style(values)
        strip = functools.partial(_strip, marks=marks, spacing=spacing)
        strip(panels[0], first, values, field, title=f"{label}\n{name}: truth")
        errors = {key: v[sample, chosen] - values for key, v in shown.items()}
        both = _style(np.stack([*errors.values()]), difference=True)
        for index, (key, error) in enumerate(errors.items()):
            above, below = panels[1 + 2 * index : 3 + 2 * index]
            names = [""] * (given is not None) + marks[-len(chosen) :]
            strip(above, empty, values + error, field, title=key, marks=names)
            sizes = [100 * _relative(e, v) for e, v in zip(error, values, strict=True)]
            told = ["rel. $L^2$"] * (given is not None)
            told += [f"{size:.3g} %" for size in sizes]
            strip(below, empty, error, both, title=f"{key}: error", marks=told)
    return figure


def plot_errors(
    errors: Mapping[str, np.ndarray],
    times: Sequence[float],
    *,
    time: str = "time",
) -> Figure:
    """Draws the relative errors of each frame over time: medians and 5 to 95 %.

    Args:
        errors: label -> [num, T] relative L2 errors.
        times: [T].
        time: what the times are.
    """
    figure, ((panel,),) = create_canvas(1, 1, size=(6.0, 3.6))
    for label, values in errors.items():
        low, middle, high = np.quantile(values, (0.05, 0.5, 0.95), axis=0)
        (line,) = panel.plot(times, middle, "o-", ms=3, lw=1.4, label=label)
        panel.fill_between(times, low, high, color=line.get_color(), alpha=0.2, lw=0)
    panel.set_yscale("log")
    log_ticks(panel, percent=True)
    panel.set_xlabel(time)
    panel.set_ylabel("relative $L^2$ error of the frame")
    panel.set_title("median and 5 to 95 % of the samples", fontsize=9)
    panel.grid(alpha=0.3)
    panel.legend(fontsize=8)
    return figure


def _strip(panel, first, frames, style, *, marks, spacing, title) -> None:
    """Frames [T, n1, n2] side by side in one picture, x to the right, y upwards."""
    frames = [*([] if first is None else [first]), *frames]
    n1, n2 = frames[0].shape
    gap = np.full((max(n1 // 16, 1), n2), np.nan)
    parts = [part for frame in frames for part in (frame, gap)][:-1]
    image = panel.imshow(np.concatenate(parts).T, origin="lower", **style)
    panel.set_aspect(spacing[1] / spacing[0])
    places = [(n1 - 1) / 2 + i * (n1 + len(gap)) for i in range(len(frames))]
    panel.xaxis.tick_top()  # what is said of a frame stands above it
    panel.set_xticks(places, marks, fontsize=8)
    panel.set_yticks([])
    panel.tick_params(length=0)
    panel.spines[:].set_visible(False)
    panel.set_ylabel(title, fontsize=8)
    bar = panel.figure.colorbar(image, ax=panel, shrink=0.8, pad=0.02)
    bar.ax.tick_params(labelsize=7)


def _planes_of_space_and_time(truth, shown, times, labels, points, name, axis):
    """Rows of truth, and each prediction with its error, for values [num, T, n]."""
    figure, rows = create_canvas(len(truth), 1 + 2 * len(shown), size=(2.9, 2.4))
    axes = (points, np.asarray(times))
    for sample, (panels, label) in enumerate(zip(rows, labels, strict=True)):
        field = _style(truth[sample]) | {"aspect": "auto"}
        draw_field(panels[0], truth[sample].T, axes, **field)
        panels[0].set_title(f"truth: {name}", fontsize=9)
        panels[0].set_ylabel(f"{label}\ntime", fontsize=9)
        differences = {k: v[sample] - truth[sample] for k, v in shown.items()}
        both = _style(np.stack([*differences.values()]), True) | {"aspect": "auto"}
        for index, (key, difference) in enumerate(differences.items()):
            left, right = panels[1 + 2 * index : 3 + 2 * index]
            draw_field(left, shown[key][sample].T, axes, **field)
            draw_field(right, difference.T, axes, **both)
            left.set_title(f"{key}: prediction", fontsize=9)
            error = _relative(difference, truth[sample])
            right.set_title(f"error: {100 * error:.3g} % rel. $L^2$", fontsize=9)
        for panel in panels:
            panel.set_xlabel(axis, fontsize=9)
    return figure


def _planes(frames: np.ndarray) -> np.ndarray:
    """Frames [num, T, *space] of at most two dimensions, boxes by their middle."""
    return frames[..., frames.shape[-1] // 2] if frames.ndim == 5 else frames


def _spread(num: int) -> list[int]:
    """Some of num frames, the first and the last with them."""
    places = np.linspace(0, num - 1, min(num, NUM_FRAMES))
    return [int(place) for place in places.round()]


def _style(values: np.ndarray, difference: bool = False) -> dict:
    """Colours: diverging around 0 for differences and for fields of both signs."""
    largest = float(np.abs(values).max()) or 1.0
    if difference or values.min() < -0.1 * largest < 0.1 * largest < values.max():
        return {"cmap": "RdBu_r", "vmin": -largest, "vmax": largest}
    return {"cmap": "viridis", "vmin": float(values.min()), "vmax": float(values.max())}


def _relative(difference: np.ndarray, truth: np.ndarray) -> float:
    return float(np.linalg.norm(difference) / max(np.linalg.norm(truth), 1e-300))
