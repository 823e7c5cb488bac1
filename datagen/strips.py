"""Pictures of a few trajectories: a strip of frames per sample."""

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from datagen.evolution import STREAM, Evolver
from datagen.plan import Plan, sample_rng
from datagen.preview import LETTERS_PER_INCH, pixels
from datagen.storage.read import DatasetError

NUM_FRAMES = 6
COLOURS = "RdBu_r"  # zero is white


def preview(plan: Plan, num: int, poll: Callable[[], None]) -> Path:
    """Integrates the first samples, which need not be a whole batch, and draws them.

    Args:
        plan: of a set that is integrated in time.
        num: samples, at least 1.
        poll: called before each integration; may raise to stop.

    Returns:
        The picture, preview.png in the folder of the plan.

    Raises:
        DatasetError: if a sample is not accepted.
    """
    problem, ids = plan.problem(), plan.order[:num].tolist()
    size = min(num, plan.solver["settings"]["batch_size"])
    settings = plan.solver["settings"] | {"batch_size": size}
    evolver = Evolver(problem, plan.solver | {"settings": settings})
    rngs = (sample_rng(plan.config["seed"], i, STREAM) for i in ids)
    solved = list(evolver.solve_all(rngs, poll))
    for sample_id, sample in zip(ids, solved, strict=True):
        if not sample.accepted:
            raise DatasetError(f"sample {sample_id}: {'; '.join(sample.failures)}")
    name = next(spec.name for spec in problem.fields if spec.time_varying)
    values = np.stack([sample.fields[name] for sample in solved])
    labels = [f"t = {step:.4g}" for step in problem.steps]
    if "initial" in solved[0].fields:
        first = np.stack([sample.fields["initial"] for sample in solved])[:, None]
        values, labels = np.concatenate([first, values], axis=1), ["initial", *labels]
    plan.root.mkdir(parents=True, exist_ok=True)
    path = plan.root / "preview.png"
    plot_strips(
        path,
        values,
        labels=labels,
        coordinates=[problem.coordinates[axis] for axis in problem.axes],
        name=name,
        title=problem.equation,
        captions=[
            f"sample {i}\ndefect {sample.true_residual:.1e}"
            for i, sample in zip(ids, solved, strict=True)
        ],
    )
    return path


def plot_strips(
    path: str | Path,
    values: np.ndarray,
    *,
    labels: Sequence[str],
    coordinates: Sequence[np.ndarray],
    name: str,
    title: str,
    captions: Sequence[str],
) -> None:
    """Draws a row of frames per sample, or the curves of fields on one axis, as PNG.

    The frames of a sample share their colours, symmetric about zero. Axis x runs to the
    right and y upwards.

    Args:
        path: file to write; its folder must exist.
        values: [N, T, n1, n2], or [N, T, n].
        labels: [T] words above the frames.
        coordinates: [n] per axis.
        name: of the field.
        title: line above the pictures.
        captions: one per sample.

    Raises:
        ValueError: for fields on more than two axes, or without a sample.
    """
    if values.ndim not in (3, 4) or len(values) == 0:
        raise ValueError(
            f"values have shape {values.shape}; expected [N, T, n] or [N, T, n1, n2]"
        )
    frames = np.unique(np.linspace(0, len(labels) - 1, NUM_FRAMES).round().astype(int))
    curves = values.ndim == 3
    rows, columns = (1, len(values)) if curves else (len(values), len(frames))
    width = 1.9 * max(columns, 2) + 1.6
    figure = Figure(figsize=(width, 2.1 * rows + 0.9), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(textwrap.fill(title, int(LETTERS_PER_INCH * width)))
    axes = figure.subplots(rows, columns, squeeze=False)
    labels = [labels[frame] for frame in frames]
    if curves:
        for ax, sample, caption in zip(axes[0], values, captions, strict=True):
            _draw_curves(ax, coordinates[0], sample[frames], labels)
            ax.set_title(caption, fontsize="medium")
        axes[0, 0].set_ylabel(name)
        axes[0, -1].legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    else:
        draw, _ = pixels(coordinates)
        for row, sample, caption in zip(axes, values, captions, strict=True):
            bar = figure.colorbar(_draw_frames(row, draw, sample[frames]), ax=[*row])
            bar.set_label(name)
            bar.formatter.set_powerlimits((-2, 3))
            row[0].set_ylabel(caption)
        for ax, label in zip(axes[0], labels, strict=True):
            ax.set_title(label, fontsize="medium")
    figure.savefig(path, bbox_inches="tight", pad_inches=0.1)


def _draw_frames(axes, draw, frames: np.ndarray):
    """One picture per frame [k, n1, n2] with common colours; returns the last image."""
    top = np.abs(frames).max() or 1.0
    for ax, frame in zip(axes, frames, strict=True):
        image = draw(ax, frame, vmin=-top, vmax=top, cmap=COLOURS)
        ax.set(xticks=[], yticks=[])
    return image


def _draw_curves(ax, x: np.ndarray, frames: np.ndarray, labels: Sequence[str]) -> None:
    """One curve per frame [k, n], darker as time goes on."""
    colours = colormaps["viridis_r"](np.linspace(0.1, 1, len(frames)))
    for frame, colour, label in zip(frames, colours, labels, strict=True):
        ax.plot(x, frame, color=colour, label=label, linewidth=1)
    ax.set_xlabel("x")
    ax.spines[["top", "right"]].set_visible(False)
