"""The pictures of a run: fields with their errors, and the course of the training."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

MODEL_NAMES = {"UNet": "U-Net", "UNO": "U-NO"}  # class -> name in papers, where other


def model_name(label: str) -> str:
    """The name of a model in papers, from that of its class."""
    return MODEL_NAMES.get(label, label)


def plot_samples(
    x: np.ndarray,
    y: np.ndarray,
    predictions: Mapping[str, np.ndarray],
    errors: Mapping[str, Sequence[float]],
    sample_ids: Sequence[int],
    coordinates: Sequence[np.ndarray] = (),
    num_coordinates: int = 0,
    title: str = "coefficient $a$",
    *,
    output: str = "$u$",
    axes: Sequence[str] = ("x", "y", "z"),
    ranks: Sequence[str] = (),
) -> Figure:
    """Draws input, truth, and each model's prediction and error, a row a sample.

    Fields on a line are drawn as curves, truth and predictions in one panel, in a box
    as the middle slice of the last axis, at the nodes of a mesh as coloured dots.

    Args:
        x: [num, *grid, c_in] inputs; the first channel that is no coordinate is drawn.
        y: [num, *grid, c_out] true solutions; the first channel is drawn.
        predictions: label -> [num, *grid, c_out].
        errors: label -> relative L2 error of each sample, over all points and channels.
        sample_ids: global ids, for the row labels.
        coordinates: of the points, [n] per axis; (): of [0, 1]; unused at nodes.
        num_coordinates: so many channels of x are coordinates of points; 0 on grids.
        title: of the input.
        output: what the channel of y is.
        axes: names of the axes.
        ranks: what each row is among all samples, "best" for one.
    """
    coordinates = coordinates or [np.linspace(0, 1, n) for n in y.shape[1:-1]]
    ranks = [f"{rank}: " for rank in ranks] or [""] * len(x)
    labels = [f"{r}sample {i}" for r, i in zip(ranks, sample_ids, strict=True)]
    channel = min(num_coordinates, x.shape[-1] - 1)
    errors = {k: [f"{100 * e:.2f} %" for e in errors[k]] for k in predictions}
    shown = {k: v[..., 0] for k, v in predictions.items()}
    on_line = y.ndim == 3 and not num_coordinates
    scope = ["all outputs"] * (y.shape[-1] > 1)
    scope += ["whole box"] * (y.ndim == 5)
    scope = "rel. $L^2$" + (f" ({', '.join(scope)})" if scope else "")
    titles, names = (title, output, scope), (labels, axes)
    if on_line:
        line = coordinates[0]
        return _lines(line, x[..., channel], y[..., 0], shown, errors, titles, names)
    place = [{"coordinates": coordinates}] * len(x)
    if num_coordinates:
        place = [{"points": points} for points in x[..., :num_coordinates]]
    figure = _fields(place, x[..., channel], y[..., 0], shown, errors, titles, names)
    if y.ndim == 5:
        where = coordinates[-1][y.shape[-2] // 2]
        figure.suptitle(f"slice {axes[-1]} = {where:.3g}", fontsize=10)
    return figure


def _lines(points, x, y, predictions, errors, titles, names) -> Figure:
    """Rows of input, truth with predictions, and errors, for x and y [num, n]."""
    (title, output, scope), (labels, axes) = titles, names
    figure, rows = create_canvas(len(x), 3, size=(3.9, 2.45))
    for row, panels in enumerate(rows):
        panels[0].plot(points, x[row], lw=1)
        panels[1].plot(points, y[row], color="k", lw=2.5, alpha=0.4, label="truth")
        for label, values in predictions.items():
            panels[1].plot(points, values[row], "--", lw=1.2, label=label)
            error = f"{label}: {errors[label][row]} {scope}"
            panels[2].plot(points, values[row] - y[row], lw=1, label=error)
        panels[2].axhline(0, color="0.7", lw=0.8, zorder=0)
        panels[0].set_ylabel(labels[row], fontsize=9)
        for panel in panels:
            panel.tick_params(labelsize=7)
        for panel in panels[1:]:
            panel.legend(fontsize=7)
    titles = (title, f"{output}: truth and prediction", "error")
    for panel, text in zip(rows[0], titles, strict=True):
        panel.set_title(text, fontsize=9)
    for panel in rows[-1]:
        panel.set_xlabel(axes[0], fontsize=9)
    return figure


def _fields(place, x, y, predictions, errors, titles, names) -> Figure:
    """Rows of input, truth, and each prediction with its error, x and y [num, *grid].

    `place` holds the `coordinates` or `points` of `_field` for each sample.
    """
    (title, output, scope), (labels, axes) = titles, names
    figure, rows = create_canvas(len(x), 2 + 2 * len(predictions), size=(2.75, 2.45))
    flat = place[0].get("points", x).shape[-1] == 1  # nodes on a line
    for row, panels in enumerate(rows):
        truth = y[row]
        limits = {"vmin": min(truth.min(), 0), "vmax": truth.max()}
        draw_field(panels[0], x[row], **place[row], cmap="cividis")
        draw_field(panels[1], truth, **place[row], cmap="viridis", **limits)
        across = "" if flat else f"\n{axes[1]}"
        panels[0].set_ylabel(f"{labels[row]}{across}", fontsize=9)
        differences = {k: v[row] - truth for k, v in predictions.items()}
        largest = max(np.abs(d).max() for d in differences.values())
        both = {"cmap": "RdBu_r", "vmin": -largest, "vmax": largest}
        for index, (label, difference) in enumerate(differences.items()):
            left, right = panels[2 + 2 * index : 4 + 2 * index]
            draw_field(left, truth + difference, **place[row], cmap="viridis", **limits)
            draw_field(right, difference, **place[row], **both)
            right.set_title(f"{errors[label][row]} {scope}", fontsize=8)
    titles = [title, f"truth: {output}"]
    for label in predictions:
        titles += [f"{label}: prediction", f"{label}: error"]
    for panel, text in zip(rows[0], titles, strict=True):
        below = panel.get_title()
        panel.set_title("\n".join(filter(None, (text, below))), fontsize=9)
    for panel in rows[-1]:
        panel.set_xlabel(axes[0], fontsize=9)
    return figure


def plot_curves(
    histories: Mapping[str, Sequence[Mapping]], losses: Sequence[str] = ()
) -> Figure:
    """Draws loss, validation error and learning rate over the epochs.

    Args:
        histories: label -> records of `metrics.jsonl` that hold `epoch`, `loss`,
            `valid_relative_l2` and `learning_rate`. Rates far below the largest one, to
            which schedules fall at last, are left out of the picture.
        losses: names of the losses that were trained, one per label or (); where all
            are the same, the title tells it.
    """
    figure, axes = create_canvas(1, 3, size=(3.9, 3.1))
    loss = f" {losses[0]}" if len(set(losses)) == 1 else ""
    names = {
        "loss": f"training loss{loss} (mean over the epoch)",
        "valid_relative_l2": "validation error, relative $L^2$",
        "learning_rate": "learning rate",
    }
    for panel, (key, title) in zip(axes[0], names.items(), strict=True):
        for label, history in histories.items():
            points = [(r["epoch"], r[key]) for r in history if key in r]
            if points:
                style = "o-" if len(points) < 3 else "-"
                panel.plot(*zip(*points, strict=True), style, label=label, lw=1.4, ms=3)
        panel.set_title(title, fontsize=9)
        panel.set_xlabel("epoch")
        panel.set_yscale("log")
        if key == "learning_rate":
            rates = [r[key] for h in histories.values() for r in h if key in r]
            floor = max(rates, default=0) / 1e4
            panel.set_ylim(bottom=max(panel.get_ylim()[0], floor))
        log_ticks(panel, percent=key == "valid_relative_l2")
        panel.tick_params(labelsize=8)
        panel.grid(alpha=0.3)
    axes[0][0].legend(fontsize=8)
    return figure


def log_ticks(panel, *, percent: bool) -> None:
    """Labels the vertical logarithmic axis by a few round numbers."""
    low, high = panel.get_ylim()
    panel.yaxis.set_minor_locator(NullLocator())
    if high < 4 * low:
        panel.yaxis.set_major_locator(MaxNLocator(5))
    else:
        many = (1, 2, 5) if high < 1e3 * low else (1,)
        subs = (1, 1.5, 2, 3, 5, 7) if high < 20 * low else many
        panel.yaxis.set_major_locator(LogLocator(subs=subs, numticks=40))
    panel.yaxis.set_major_formatter(
        lambda value, _: f"{100 * value:.3g} %" if percent else f"{value:.3g}"
    )


def create_canvas(rows: int, columns: int, size: tuple[float, float]):
    """A figure for the Agg back end, whatever the user's matplotlib is set to."""
    figure = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def draw_field(panel, values: np.ndarray, coordinates=(), points=None, **style) -> None:
    """One field: an image, x to the right and y upwards, with its colour bar.

    Dots for values at points [n, d], of which the first two coordinates count.
    """
    if points is None:
        middle = values if values.ndim == 2 else values[..., values.shape[-1] // 2]
        extent = [end for c in coordinates[:2] for end in (c[0], c[-1])]
        image = panel.imshow(middle.T, origin="lower", extent=extent, **style)
    else:
        height = points[:, 1] if points.shape[1] > 1 else values
        image = panel.scatter(points[:, 0], height, c=values, s=4, **style)
        panel.set_aspect("equal" if points.shape[1] > 1 else "auto")
    bar = panel.figure.colorbar(image, ax=panel, shrink=0.8, pad=0.02)
    bar.ax.tick_params(labelsize=7)
    bar.formatter.set_powerlimits((-2, 3))
    bar.ax.yaxis.get_offset_text().set_fontsize(7)
    panel.tick_params(labelsize=7)
