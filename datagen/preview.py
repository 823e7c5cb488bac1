"""Pictures of a few samples of a data set, input above, solution below."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure
from matplotlib.tri import Triangulation

MAX_COLUMNS = 6
LETTERS_PER_INCH = 10  # of the title
MAX_PHASES = 5  # fields of at most so many distinct values get discrete colours


def plot_samples(
    path: str | Path,
    samples: Any,
    fields: tuple[str, str],
    title: str,
    residuals: Sequence[float] | None = None,
    mesh: Any = None,
) -> None:
    """Draws the first samples, one per column, and writes a PNG.

    All pictures of a row share their colour scale. Axis x runs to the right and y
    upwards, whatever the order of the array. Of three axes a slice across the last one
    is drawn, where the inputs vary most.

    Args:
        path: file to write; its folder must exist.
        samples: `datagen.storage.read.Samples` or anything with x [N, *grid, c],
            y [N, *grid, c], sample_ids [N] and coordinates, [n] per axis of the grid;
            the first channels are drawn.
        fields: names of the input and of the output.
        title: line above the pictures.
        residuals: [N] true relative residuals of the solutions; None leaves them out.
        mesh: `datagen.problems.meshes.Mesh` of fields on nodes, whose grid is one axis.

    Raises:
        ValueError: if there is no sample or the residuals do not match.
    """
    num = min(len(samples.x), MAX_COLUMNS)
    if num == 0:
        raise ValueError("there is no sample to draw; expected at least one")
    if residuals is not None and len(residuals) != len(samples.x):
        raise ValueError(
            f"got {len(residuals)} residuals for {len(samples.x)} samples; "
            "expected one for each"
        )
    width = 2.5 * num + 1.5
    figure = Figure(figsize=(width, 5.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    inputs, outputs = (np.asarray(v[:num, ..., 0]) for v in (samples.x, samples.y))
    if inputs.ndim == 4:
        cut = _slice(inputs)
        inputs, outputs = inputs[..., cut], outputs[..., cut]
        title += f"; slice at {samples.coordinates[2][cut]:.2g}"
    figure.suptitle(textwrap.fill(title, int(LETTERS_PER_INCH * width)))
    cells = figure.subplots(
        2, num + 1, width_ratios=[1.0] * num + [0.06], squeeze=False
    )
    axes, bars = cells[:, :-1], cells[:, -1]
    draw, corners = pixels(samples.coordinates) if mesh is None else _triangles(mesh)
    xticks, yticks = (np.round(np.linspace(a, b, 3), 2) for a, b in corners)
    rows = ((inputs, fields[0], "cividis"), (outputs, fields[1], "magma"))
    for row, bar, (arrays, name, colours) in zip(axes, bars, rows, strict=True):
        scale, ticks = _colour_scale(arrays)
        for ax, array in zip(row, arrays, strict=True):
            image = draw(ax, array, cmap=colours, **scale)
            ax.set(xticks=xticks, yticks=yticks, xticklabels=[], yticklabels=[])
        bar = figure.colorbar(image, cax=bar, ticks=ticks, label=name)
        if ticks is None:
            bar.formatter.set_powerlimits((-2, 3))
        else:
            bar.ax.set_yticks(ticks, [f"{value:g}" for value in ticks])
            bar.ax.minorticks_off()
    for j, ax in enumerate(axes[0]):
        text = f"sample {int(samples.sample_ids[j])}"
        if residuals is not None:
            text += f"\nresidual {residuals[j]:.1e}"
        ax.set_title(text, fontsize="medium")
    for ax in axes[1]:
        ax.set(xlabel="x", xticklabels=[f"{t:g}" for t in xticks])
    for ax in axes[:, 0]:
        ax.set(ylabel="y", yticklabels=[f"{t:g}" for t in yticks])
    figure.savefig(path, bbox_inches="tight", pad_inches=0.1)


def _slice(inputs: np.ndarray) -> int:
    """Where to cut the last axis of [N, n1, n2, n3]: near the middle if possible."""
    spread = inputs.std(axis=(0, 1, 2))
    places = np.flatnonzero(spread >= 0.9 * spread.max())
    return int(places[np.argmin(np.abs(places - inputs.shape[-1] // 2))])


def pixels(coordinates: Sequence[np.ndarray]):
    """How arrays on the first two axes are drawn, and the ends of these axes."""
    extent = []
    for x in coordinates[:2]:  # pixels reach half a spacing beyond the outer points
        half = (x[-1] - x[0]) / (2 * (len(x) - 1))
        extent += [x[0] - half, x[-1] + half]

    def draw(ax, array, **style):
        style |= {"origin": "lower", "extent": extent, "interpolation": "nearest"}
        return ax.imshow(array.T, **style)

    return draw, [(x[0], x[-1]) for x in coordinates[:2]]


def _triangles(mesh: Any):
    """How arrays on the nodes of a mesh are drawn, and the ends of its box."""
    cells = mesh.cells[:, :3]
    if mesh.cells.shape[1] == 6:  # four triangles show all nodes of a quadratic one
        parts = ([0, 3, 5], [3, 1, 4], [5, 4, 2], [3, 4, 5])
        cells = np.concatenate([mesh.cells[:, part] for part in parts])
    triangulation = Triangulation(*mesh.points.T, cells)

    def draw(ax, array, **style):
        ax.set_aspect("equal")
        return ax.tripcolor(triangulation, array, shading="flat", **style)

    return draw, list(
        zip(mesh.points.min(axis=0), mesh.points.max(axis=0), strict=True)
    )


def _colour_scale(arrays: np.ndarray) -> tuple[dict[str, Any], np.ndarray | None]:
    """Keywords of imshow and ticks: a colour per value for phases, else one range."""
    values = np.unique(arrays)
    if 1 < len(values) <= MAX_PHASES:
        middles = (values[:-1] + values[1:]) / 2
        bounds = [2 * values[0] - middles[0], *middles, 2 * values[-1] - middles[-1]]
        return {"norm": BoundaryNorm(bounds, 256)}, values
    return {"vmin": float(values[0]), "vmax": float(values[-1])}, None
