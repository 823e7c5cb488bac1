"""The splits of a run on the devices, encoded, and the normalisers fitted to them."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from operators.training import data, normalizers, state
from operators.training.layouts import Layout
from operators.training.normalizers import Normalizer


@dataclasses.dataclass(frozen=True)
class Splits:
    """What training and validation read.

    Attributes:
        train: of the training split.
        valid: batches of the validation split.
        normalizers: "input" and "output".
        sample_ids: [num_train] global ids.
    """

    train: state.Arrays | state.Trajectories
    valid: list[state.Arrays]
    normalizers: dict[str, Normalizer]
    sample_ids: np.ndarray


def load(dataset, config: Mapping, layout: Layout, put: Callable) -> Splits:
    """Reads the splits, fits the normalisers, puts everything on the devices.

    Args:
        dataset: see `data.open_data`.
        config: of the run.
        layout: of its data.
        put: puts a pytree of arrays on the devices.

    Raises:
        ValueError: where the data cannot be read as asked for.
    """
    reader = _trajectories if layout.num_starts else _samples
    train, fitted, sample_ids = reader(dataset, config, layout)
    valid = data.load_split(dataset, config["data"], "valid")
    size = config["eval"]["batch_size"]
    parts = [slice(i, i + size) for i in range(0, len(valid.x), size)]
    batches = [put(_encoded(valid.x[p], valid.y[p], fitted)) for p in parts]
    return Splits(put(train), batches, fitted, sample_ids)


def stand_in(layout: Layout, num: int, kinds: Mapping[str, str]):
    """Arrays of the shapes of a training split, to time steps before there are data.

    The values do not matter, as long as nothing is divided by zero.

    Args:
        layout: of the data.
        num: training samples.
        kinds: `config.normalizers`.
    """
    if layout.num_starts:
        window = layout.window
        num_fields = 1 + max((*window.inputs, *window.outputs))
        shape = (num, window.num_frames, *layout.space, num_fields)
        frames = np.ones(shape, np.float32)
        return state.Trajectories(
            frames, **_fit_to_frames(kinds, frames[:2], layout), window=window
        )
    x = np.ones((num, *layout.input_grid, layout.in_channels), np.float32)
    y = np.ones((num, *layout.grid, layout.out_channels), np.float32)
    return state.Arrays(x, y, normalizers.fit(kinds["output"], y))


def _samples(dataset, config: Mapping, layout: Layout):
    """Training arrays of samples that are the same in every epoch."""
    split = data.load_split(dataset, config["data"], "train")
    kinds = config["normalizers"]
    fitted = {
        "input": normalizers.fit(
            kinds["input"],
            split.x,
            num_coordinates=split.num_coordinates,
            periodic=split.periodic,
        ),
        "output": normalizers.fit(kinds["output"], split.y, periodic=split.periodic),
    }
    return _encoded(split.x, split.y, fitted), fitted, split.sample_ids


def _trajectories(dataset, config: Mapping, layout: Layout):
    """Training trajectories, whose windows start anywhere."""
    loaded = data.load_frames(dataset, config["data"], "train")
    frames, sample_ids, periodic = loaded
    fitted = _fit_to_frames(config["normalizers"], frames, layout, periodic)
    train = state.Trajectories(frames, **fitted, window=layout.window)
    return train, fitted, sample_ids


def _fit_to_frames(kinds: Mapping, frames, layout: Layout, periodic=()) -> dict:
    """Normalisers of windows that start anywhere, fitted on whole trajectories.

    Args:
        kinds: `config.normalizers`.
        frames: [N, T, *space, fields].
        layout: of the data.
        periodic: one bool per axis of space.

    Raises:
        ValueError: for "pointwise", which needs frames that stay in their place.
    """
    window, fitted = layout.window, {}
    if layout.has_time and periodic:
        periodic = (*periodic, False)
    for key, fields in (("input", window.inputs), ("output", window.outputs)):
        if kinds[key] == "pointwise":
            raise ValueError(
                f"config.normalizers.{key} is 'pointwise', but windows that start "
                "anywhere have no statistics of their own at each time: set 'scalar' "
                "or 'none', or --config.data.window_fixed=True"
            )
        names = tuple(map(str, fields))
        channels = getattr(window, f"{key}_channels")(names)
        of_field = [names.index(name.partition("[")[0]) for name in channels]
        one = normalizers.fit(kinds[key], frames[..., list(fields)])
        shape = (1,) * (1 + len(layout.grid)) + (len(of_field),)
        mean, scale = (v[..., of_field].reshape(shape) for v in (one.mean, one.scale))
        fitted[key] = Normalizer(mean, scale, tuple(periodic))
    return fitted


def _encoded(x: np.ndarray, y: np.ndarray, fitted: Mapping) -> state.Arrays:
    return state.Arrays(fitted["input"].encode(x), y, fitted["output"])
