"""Settings and data that cannot fit together, told before any work is done."""

import itertools

from operators.training import losses


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


def loss_fits(settings, dataset) -> None:
    """Raises a ValueError for a loss by Fourier series on data that are not periodic.

    Args:
        settings: `config.loss`.
        dataset: see `data.open_data`.
    """
    kinds = {b["axis"]: b["bc_type"] for b in dataset.boundaries}
    walls = [axis for axis in dataset.coordinates if kinds.get(axis) != "PERIODIC"]
    if settings["name"] in losses.PERIODIC and walls:
        raise ValueError(
            f"loss {settings['name']} is for periodic fields, but axis "
            f"{', '.join(walls)} of {dataset.root} is not: set "
            "--config.loss=\"{'name': 'relative_h1'}\""
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
    return f"'{value}'" if isinstance(value, tuple) else str(value)
