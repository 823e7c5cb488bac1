"""The pictures of a run: fields with their errors, and the course of the training."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def plot_samples(
    x: np.ndarray,
    y: np.ndarray,
    predictions: Mapping[str, np.ndarray],
    errors: Mapping[str, Sequence[float]],
    sample_ids: Sequence[int],
    extent: Sequence[float] = (0.0, 1.0, 0.0, 1.0),
    num_coordinates: int = 0,
    title: str = "coefficient $a$",
) -> Figure:
    """Draws input, truth, and each model's prediction and error, a row a sample.

    Fields on a line are drawn as curves, in a box as the middle slice of the last
    axis, at the nodes of a mesh as coloured dots.

    Args:
        x: [num, *grid, c_in] inputs; the first channel that is no coordinate is drawn.
        y: [num, *grid, c_out] true solutions; the first channel is drawn.
        predictions: label -> [num, *grid, c_out].
        errors: label -> relative L2 error of each sample.
        sample_ids: global ids, for the row labels.
        extent: (x_min, x_max, y_min, y_max, ...) of the domain; unused at nodes.
        num_coordinates: so many channels of x are coordinates of points; 0 on grids.
        title: of the input.
    """
    columns = 2 + 2 * len(predictions)
    figure, axes = _canvas(len(x), columns, size=(2.75, 2.45))
    across = "\ny" if num_coordinates or y.ndim > 3 else ""
    channel = min(num_coordinates, x.shape[-1] - 1)
    for row, panels in enumerate(axes):
        truth = y[row, ..., 0]
        limits = {"vmin": min(truth.min(), 0), "vmax": truth.max()}
        place = {"extent": extent}
        if num_coordinates:
            place = {"points": x[row, :, :num_coordinates]}
        _field(panels[0], x[row, ..., channel], **place, cmap="cividis")
        _field(panels[1], truth, **place, cmap="viridis", **limits)
        panels[0].set_ylabel(f"sample {sample_ids[row]}{across}", fontsize=9)
        differences = {k: v[row, ..., 0] - truth for k, v in predictions.items()}
        largest = max(np.abs(d).max() for d in differences.values())
        for index, (label, difference) in enumerate(differences.items()):
            left, right = panels[2 + 2 * index : 4 + 2 * index]
            _field(left, truth + difference, **place, cmap="viridis", **limits)
            _field(
                right, difference, **place, cmap="RdBu_r", vmin=-largest, vmax=largest
            )
            right.set_title(f"{errors[label][row]:.2%} rel. $L^2$", fontsize=8)
    titles = [title, "truth $u$"]
    for label in predictions:
        titles += [f"{label}: prediction", f"{label}: error"]
    for panel, title in zip(axes[0], titles, strict=True):
        below = panel.get_title()
        panel.set_title("\n".join(filter(None, (title, below))), fontsize=9)
    for panel in axes[-1]:
        panel.set_xlabel("x", fontsize=9)
    return figure


def plot_curves(histories: Mapping[str, Sequence[Mapping]]) -> Figure:
    """Draws loss, validation error and learning rate over the epochs.

    Args:
        histories: label -> records of `metrics.jsonl` that hold `epoch`, `loss`,
            `valid_relative_l2` and `learning_rate`.
    """
    figure, axes = _canvas(1, 3, size=(3.9, 3.1))
    names = {
        "loss": "training loss (mean over the epoch)",
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
        panel.grid(alpha=0.3, which="both")
    axes[0][0].legend(fontsize=8)
    return figure


def _canvas(rows: int, columns: int, size: tuple[float, float]):
    """A figure for the Agg back end, whatever the user's matplotlib is set to."""
    figure = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _field(panel, values: np.ndarray, extent=(), points=None, **style) -> None:
    """One field: an image, x to the right and y upwards, with its colour bar.

    A curve for values [n], dots for values at points [n, d], of which the first two
    coordinates count.
    """
    if points is None and values.ndim == 1:
        _curve(panel, values, extent, style)
        return
    if points is None:
        middle = values if values.ndim == 2 else values[..., values.shape[-1] // 2]
        image = panel.imshow(middle.T, origin="lower", extent=extent[:4], **style)
    else:
        height = points[:, 1] if points.shape[1] > 1 else values
        image = panel.scatter(points[:, 0], height, c=values, s=4, **style)
        panel.set_aspect("equal" if points.shape[1] > 1 else "auto")
    bar = panel.figure.colorbar(image, ax=panel, shrink=0.8, pad=0.02)
    bar.ax.tick_params(labelsize=7)
    bar.formatter.set_powerlimits((-2, 3))
    bar.ax.yaxis.get_offset_text().set_fontsize(7)
    panel.tick_params(labelsize=7)


def _curve(panel, values: np.ndarray, extent, style: Mapping) -> None:
    """One field on a line, between the limits that images of it would have."""
    points = np.linspace(extent[0], extent[1], len(values))
    panel.plot(points, values, lw=1)
    low, high = style.get("vmin", values.min()), style.get("vmax", values.max())
    margin = 0.05 * (high - low) or 1.0
    panel.set_ylim(low - margin, high + margin)
    panel.tick_params(labelsize=7)
