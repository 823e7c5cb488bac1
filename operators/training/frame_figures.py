"""Pictures of predicted trajectories: strips of frames, errors over time."""

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
        axes: names of the axes of space.
    """
    truth = _planes(truth[..., 0])
    shown = {label: _planes(values[..., 0]) for label, values in predictions.items()}
    if truth.ndim == 3:
        return _planes_of_space_and_time(
            truth, shown, times, labels, coordinates[0], name, axes[0]
        )
    given = None if given is None else _planes(given[:, None])[:, 0]
    chosen = _spread(truth.shape[1])
    rows_each = 1 + 2 * len(shown)
    columns = len(chosen) + (given is not None)
    figure, rows = create_canvas(len(truth) * rows_each, columns, size=(2.3, 2.1))
    for sample, label in enumerate(labels):
        own = rows[sample * rows_each : (sample + 1) * rows_each]
        field = _style(truth[sample])
        for panel, frame in zip(own[0][-len(chosen) :], chosen, strict=True):
            draw_field(panel, truth[sample, frame], coordinates, **field)
            panel.set_title(f"t = {times[frame]:.4g}", fontsize=8)
        own[0][-len(chosen)].set_ylabel("truth", fontsize=8)
        if given is not None:
            draw_field(own[0][0], given[sample], coordinates, **field)
            own[0][0].set_title("last given", fontsize=8)
            for row in own[1:]:
                row[0].axis("off")
        own[0][0].set_ylabel(f"{label}\n{name}", fontsize=8)
        differences = {k: v[sample] - truth[sample] for k, v in shown.items()}
        both = _style(np.stack([d[list(chosen)] for d in differences.values()]), True)
        for index, (key, difference) in enumerate(differences.items()):
            above, below = (own[1 + 2 * index + i][-len(chosen) :] for i in (0, 1))
            above[0].set_ylabel(key, fontsize=8)
            below[0].set_ylabel(f"{key}: error", fontsize=8)
            for up, down, frame in zip(above, below, chosen, strict=True):
                draw_field(up, shown[key][sample, frame], coordinates, **field)
                draw_field(down, difference[frame], coordinates, **both)
                error = _relative(difference[frame], truth[sample, frame])
                down.set_title(f"{100 * error:.3g} % rel. $L^2$", fontsize=8)
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
