"""Settings and data that cannot fit together, told before any work is done."""

import itertools
import math
from collections.abc import Mapping

import numpy as np

from operators.training import data, losses


def experiment(config) -> None:
    """Checks that a config describes a training run.

    Raises:
        ValueError: naming the first section that is missing.
    """
    needed = ("data", "model", "loss", "optimizer", "schedule", "num_epochs", "eval")
    if missing := [key for key in needed if key not in config]:
        raise ValueError(
            f"the config has no section {missing[0]!r}, so it trains no model: configs "
            "of train.py are listed by --list; those of the refiner and of data sets "
            "are for operators.training.refine and datagen"
        )


def positive_counts(config) -> None:
    """Raises a ValueError for a count that must be at least one and is not."""
    counts = {
        "num_epochs": config.num_epochs,
        "batch_size": config.batch_size,
        "data.stride": config.data.stride,
        "data.num_train": config.data.num_train,
        "data.num_valid": config.data.num_valid,
        "data.num_test": config.data.num_test,
        "eval.every_epochs": config.eval.every_epochs,
        "eval.batch_size": config.eval.batch_size,
        "log.every_steps": config.log.every_steps,
        "checkpoint.every_epochs": config.checkpoint.every_epochs,
        "checkpoint.keep": config.checkpoint.keep,
    }
    for key, count in counts.items():
        if count < 1:
            raise ValueError(f"config.{key} is {count}; expected at least 1")


def request_fits(dataset, settings: Mapping) -> None:
    """Checks the numbers of samples of all splits; warns of strides that do not fit.

    Args:
        dataset: see `data.open_data`.
        settings: `config.data`.

    Raises:
        datagen.storage.read.DatasetError: where a split has fewer samples than asked
            for.
    """
    data.check_sizes(dataset, settings)
    stride = settings["stride"]
    periodic = {b["axis"] for b in dataset.boundaries if b["bc_type"] == "PERIODIC"}
    intervals = {
        axis: len(c) - (axis not in periodic) for axis, c in dataset.coordinates.items()
    }
    if not (lost := [axis for axis, n in intervals.items() if n % stride]):
        return
    common = math.gcd(*intervals.values())
    fitting = [s for s in range(1, min(intervals.values()) + 1) if not common % s]
    nearest = sorted(sorted(fitting, key=lambda s: abs(s - stride))[:4])
    nearest = " or ".join(map(str, nearest))
    shape = " x ".join(str(len(c)) for c in dataset.coordinates.values())
    ends = [axis for axis in lost if axis not in periodic]
    reason = (
        f"leaves out the end of axis {', '.join(ends)} ({shape} points), where the "
        "model then sees nothing of the domain"
        if ends
        else f"does not divide the period of axis {', '.join(lost)} ({shape} points), "
        "so that the points left are not periodic"
    )
    keeps = "both ends" if ends else "the period"
    print(
        f"warning: config.data.stride is {stride}, which {reason}: "
        f"--config.data.stride={nearest} keeps {keeps}",
        flush=True,
    )


def model_fits(model, settings, layout) -> None:
    """Raises a ValueError where a model cannot take the data, with what to set.

    Args:
        model: the module, which knows `in_channels`, `out_channels` and `num_axes`.
        settings: `config.model`.
        layout: `layouts.Layout` of the data.
    """
    name, num_axes = settings["name"], len(layout.grid)
    takes_points = getattr(model, "takes_points", False)
    if layout.on_nodes != takes_points:
        kinds = ("a grid", "the nodes of a mesh")
        raise ValueError(
            f"model {name} is for values on {kinds[takes_points]}, but the data lie on "
            f"{kinds[layout.on_nodes]} ({layout.spell_grid()}): choose another model"
        )
    changes = {
        key: wanted
        for key, wanted in (
            ("in_channels", layout.in_channels),
            ("out_channels", layout.out_channels),
        )
        if settings[key] != wanted
    }
    if not takes_points and model.num_axes != num_axes:
        changes |= _for_axes(settings, layout.grid)
    if changes:
        values = (f"--config.model.{k}={_quoted(v)}" for k, v in changes.items())
        raise ValueError(
            f"model {name} takes {settings['in_channels']} channels to "
            f"{settings['out_channels']} on {model.num_axes} axes, but the data have "
            f"{layout.in_channels} ({_names(layout)}) to {layout.out_channels} on "
            f"{layout.spell_grid()}: set {' '.join(values)}"
        )
    if getattr(model, "continues_input", False):
        _inputs_begin_with_outputs(name, layout)
    if settings.get("divergence_free"):
        _lengths_fit(settings, layout)


def normalizers_fit(model, kinds: Mapping, settings, layout) -> None:
    """Refuses normalisers that differ for a model whose output continues its input.

    The last frame goes in encoded and comes out decoded, so it stays what it is only
    if both are the same map: none, or statistics of the same frames.

    Args:
        model: the module.
        kinds: `config.normalizers`.
        settings: `config.model`.
        layout: `layouts.Layout` of the data.

    Raises:
        ValueError: for other normalisers.
    """
    pair = (kinds["input"], kinds["output"])
    # Windows that start anywhere are normalised by whole trajectories.
    same = {("none", "none")} | ({("scalar", "scalar")} if layout.num_starts else set())
    if getattr(model, "continues_input", False) and pair not in same:
        raise ValueError(
            f"config.normalizers are {pair[0]!r} for the input and {pair[1]!r} for the "
            f"output, but model {settings['name']} adds its output to the last frame "
            "given, so both must be the same: set --config.normalizers.input=none "
            "--config.normalizers.output=none"
            + " (or scalar for both)"
            * bool(layout.num_starts)
        )


def output_fits(output, settings, layout) -> None:
    """Raises a ValueError where a model's output has not the shape of the target.

    Args:
        output: what the model makes of one sample, an array or its shape.
        settings: `config.model`.
        layout: `layouts.Layout` of the data.
    """
    expected = (*layout.grid, layout.out_channels)
    if output.shape[1:] == expected:
        return
    advice = "choose another model"
    if layout.window and layout.grid != layout.input_grid:
        advice = "set --config.data.window_layout=repeated, or choose a model for it"
        if "out_steps" in settings:
            advice = f"set --config.model.out_steps={layout.window.num_out}"
    raise ValueError(
        f"model {settings['name']} makes {output.shape[1:]} of a sample "
        f"{(*layout.input_grid, layout.in_channels)}, but the target is {expected}, "
        f"points and channels: {advice}"
    )


def loss_fits(settings, dataset, layout, stride: int = 1) -> None:
    """Raises a ValueError for a loss by Fourier series on data that are not periodic.

    Also for the released loss with several fields, which it would take for times.

    Args:
        settings: `config.loss`.
        dataset: see `data.open_data`.
        layout: `layouts.Layout` of the data.
        stride: `config.data.stride`; one that does not divide the points of a periodic
            axis leaves others, which are not periodic.
    """
    name, axes = settings["name"], tuple(dataset.coordinates)
    periodic = data.periodic_axes(dataset, stride, len(axes))
    walls = [axis for axis, kept in zip(axes, periodic, strict=True) if not kept]
    if name in losses.PERIODIC and walls:
        at = f" at config.data.stride {stride}" if stride > 1 else ""
        raise ValueError(
            f"loss {name} is for periodic fields, but axis "
            f"{', '.join(walls)} of {dataset.root} is not{at}: set "
            "--config.loss=\"{'name': 'relative_h1'}\""
            + ", or a stride that divides the points of the axis"
            * (stride > 1)
        )
    fields = sorted({channel.partition("[")[0] for channel in layout.outputs})
    if name == "sobolev_released" and len(fields) > 1:
        raise ValueError(
            f"loss {name} is for one field, but config.data.outputs are "
            f"{', '.join(fields)}: set --config.loss=\"{{'name': 'bochner_h1'}}\""
        )


def _inputs_begin_with_outputs(name: str, layout) -> None:
    """Refuses inputs whose last frame is not that of the outputs, in their order."""
    if not layout.has_time:  # one's own arrays, whose channels have no names
        return
    outputs = layout.outputs
    if layout.inputs[: len(outputs)] == outputs:
        return
    advice = "--config.data.window_layout=time_axis"
    if layout.window is None or layout.window.layout == "time_axis":
        others = (field for field in layout.inputs if field not in outputs)
        advice = f"--config.data.inputs={_quoted((*outputs, *others))}"
    raise ValueError(
        f"model {name} adds its output {', '.join(outputs)} to the last frame of its "
        f"first inputs, but these are {', '.join(layout.inputs)}: set {advice}"
    )


def _lengths_fit(settings, layout) -> None:
    """Refuses sides of a periodic domain that are not those of the data."""
    sides = [n * h for n, h in zip(layout.space, layout.spacing, strict=False)]
    if not np.allclose(settings.get("lengths", (1.0, 1.0)), sides, rtol=1e-6):
        told = tuple(float(f"{side:.9g}") for side in sides)
        raise ValueError(
            f"config.model.lengths are {settings.get('lengths', (1.0, 1.0))}, but the "
            f"domain of the data has the sides {told}, on which the divergence "
            f"depends: set --config.model.lengths={_quoted(told)}"
        )


def _for_axes(settings, grid: tuple[int, ...]) -> dict:
    """Settings that hold one entry per axis, brought to the axes of a grid."""

    def stretch(entries):
        if entries and isinstance(entries[0], tuple | list):
            return tuple(map(stretch, entries))
        return tuple(itertools.islice(itertools.cycle(entries), len(grid)))

    changes = {}
    if "num_axes" in settings:
        changes["num_axes"] = len(grid)
    if "grid" in settings:
        changes["grid"] = grid
    if "modes" in settings:
        changes["modes"] = stretch(settings["modes"])
    return changes


def _names(layout) -> str:
    places = [f"coordinate {i + 1}" for i in range(layout.num_coordinates)]
    return ", ".join((*places, *layout.inputs))


def _quoted(value) -> str:
    if not isinstance(value, tuple):
        return str(value)
    mark = '"' if "'" in str(value) else "'"
    return f"{mark}{value}{mark}"
