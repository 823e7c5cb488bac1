"""From `config.data` to arrays: the one module of `operators` that opens data sets."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from configs import loading
from datagen.storage import arrays, read
from operators.training import layouts
from operators.training.layouts import spacing

EXIT_QUARANTINE, EXIT_STOPPED = 3, 75  # of `datagen`: some rejected; stopped
FRAMES_AT_ONCE = 16  # read together: the files are opened once for each such part


class Samples(NamedTuple):
    """Samples of one split, as models take them.

    Attributes:
        x: [N, *grid, c_in] inputs, float32; at the nodes of a mesh [N, node, d + c_in],
            the d coordinates of every node first.
        y: [N, *grid, c_out] outputs, float32.
        sample_ids: [N] int64, unique over the splits of a data set.
        coordinates: one float64 array [n] per axis, of the points loaded, with the
            times of y where time is an axis.
        num_coordinates: d, 0 on grids.
        periodic: one bool per axis, True where the points loaded leave out the right
            end of a period.
    """

    x: np.ndarray
    y: np.ndarray
    sample_ids: np.ndarray
    coordinates: tuple[np.ndarray, ...]
    num_coordinates: int
    periodic: tuple[bool, ...]

    @property
    def spacing(self) -> tuple | None:
        """Distance of neighbouring points per axis; None at the nodes of a mesh."""
        return None if self.num_coordinates else spacing(self.coordinates)


def dataset_folder(settings: Mapping) -> Path:
    """Where the data of `config.data` lie (or will lie once they are generated).

    `data/<set>[_<variant>]` for a data config `configs/data/<set>.py[:variant]`.

    Raises:
        ValueError: if `config` and `path` are both set or both empty.
    """
    if bool(settings["config"]) == bool(settings["path"]):
        raise ValueError(
            "config.data needs either `config` (a data config, generated on first use) "
            "or `path` (a data set or an .npz file), and the other one empty: "
            f"config is {settings['config']!r}, path is {settings['path']!r}"
        )
    if settings["path"]:
        return Path(settings["path"])
    return Path("data") / loading.run_name(settings["config"])


def describe(settings: Mapping) -> layouts.Layout:
    """Points and channels of the data of `config.data`.

    Read from the data set where it exists; else a process of its own builds the problem
    of the data config and tells, so that a model can be checked and timed before the
    data are made.

    Raises:
        ValueError: where there is nothing to describe, or it cannot be read as asked.
    """
    path = dataset_folder(settings)
    if path.suffix == ".npz" or (path / "manifest.json").exists() or settings["path"]:
        return layout(open_data(settings, verify=False), settings)
    loading.load(settings["config"])  # mistakes in its name are told by this process
    command = [sys.executable, "-m", "datagen.describe", "--config", settings["config"]]
    process = subprocess.run(command, capture_output=True, text=True)
    if process.returncode:
        reason = (process.stderr.strip() or "no reason given").splitlines()[-1]
        raise ValueError(f"{settings['config']} describes no data: {reason}")
    told = json.loads(process.stdout)
    defaults = read.default_fields(told["fields"])
    return layouts.layout(layouts.Facts(**told, defaults=defaults), settings)


def layout(dataset, settings: Mapping) -> layouts.Layout:
    """Points and channels of an open data set as `config.data` reads it.

    Raises:
        ValueError: where it cannot be read as asked for.
    """
    if isinstance(dataset, arrays.ArrayDataset):  # one x and one y, without names
        if settings.get("window"):
            raise ValueError(
                f"{dataset.root} has no trajectories to cut windows from: set "
                "--config.data.window='()', or store the windows as x and y"
            )
        settings = {**settings, "inputs": (), "outputs": ()}
    return layouts.layout(_facts(dataset), settings)


def generate(settings: Mapping, stop) -> bool:
    """Generates the data set of `config.data.config`, unless it is there.

    A process of its own does it, because solvers need float64 and training does not.

    Args:
        settings: `config.data`.
        stop: object whose `requested` turns true when the run has to stop.

    Returns:
        True when the data are complete, False when they were stopped by a signal.

    Raises:
        ValueError: if the generation failed; the reason was printed.
    """
    folder = dataset_folder(settings)
    if settings["path"] or (folder / "manifest.json").exists():
        return True
    command = ["generate", "--config", settings["config"], "--out", str(folder)]
    process = subprocess.Popen([sys.executable, "-m", "datagen", *command])
    told = False
    while (code := _poll(process)) is None:
        if stop.requested and not told:
            process.terminate()
            told = True
    if code and stop.requested:  # by its own flag, or by the signal as it left
        return False
    if code not in (0, EXIT_QUARANTINE, EXIT_STOPPED):
        raise ValueError(
            f"generating {folder} failed with exit code {code} (see above); to try it "
            f"alone: python -m datagen {' '.join(command)}"
        )
    return code != EXIT_STOPPED


def open_data(settings: Mapping, *, verify: bool = True):
    """Opens the data set or .npz file of `config.data`.

    Raises:
        read.DatasetError: where the files are missing, damaged or not as recorded.
        ValueError: if the target of a sample of an .npz file vanishes.
    """
    path = dataset_folder(settings)
    if path.suffix == ".npz":
        try:
            dataset = arrays.open_npz(path, splits=split_sizes(settings))
        except arrays.TooFewSamplesError as error:
            raise read.DatasetError(
                f"{error} (set --config.data.num_train, num_valid and num_test)"
            ) from error
        num = sum(dataset.splits.values())
        _refuse_vanishing(dataset, dataset.y[:num], np.arange(num))
        return dataset
    return read.open_dataset(path, verify=verify)


def split_sizes(settings: Mapping) -> dict[str, int]:
    """Samples asked for per split."""
    return {split: settings[f"num_{split}"] for split in ("train", "valid", "test")}


def tested_on(dataset, settings: Mapping) -> dict:
    """What decides which test samples a run reads and which channels they have.

    Stride and layout of windows are left out. An .npz file is cut into splits in turn,
    so there the test samples depend on the numbers of the others too.

    Args:
        dataset: see `open_data`.
        settings: `config.data`.

    Returns:
        Key of `config.data` -> value, with defaults and steps from the end resolved.

    Raises:
        ValueError: where the data cannot be read as asked for.
    """
    if isinstance(dataset, arrays.ArrayDataset):
        return {f"num_{split}": num for split, num in split_sizes(settings).items()}
    asked = layouts.request(_facts(dataset), settings)
    return {
        "num_test": settings["num_test"],
        "inputs": asked.inputs,
        "outputs": asked.outputs,
        "steps": asked.outputs_at,
        "input_steps": asked.inputs_at,
        "time_axis": asked.time_axis,
    }


def check_sizes(dataset, settings: Mapping) -> None:
    """Raises a DatasetError where a split has fewer samples than asked for."""
    for split, num in split_sizes(settings).items():
        read.check_request(dataset.name, dataset.splits, split, num)


def load_split(
    dataset, settings: Mapping, split: str, *, stride: int | None = None
) -> Samples:
    """Loads the samples of one split as `config.data` asks for them.

    Args:
        dataset: see `open_data`.
        settings: `config.data`.
        split: "train", "valid" or "test".
        stride: keeps every stride-th point per axis; None: `config.data.stride`.

    Raises:
        ValueError: where the data cannot be read as asked for, or the target of a
            sample vanishes.
    """
    stride = settings["stride"] if stride is None else stride
    options = {"num": settings[f"num_{split}"], "stride": stride}
    facts = _facts(dataset)
    if isinstance(dataset, arrays.ArrayDataset):
        loaded = dataset.load(split, **options)
        x, y, coordinates = loaded.x, loaded.y, loaded.coordinates
    else:
        asked = layouts.request(facts, settings)
        if asked.window:
            at = (*asked.inputs_at, *asked.outputs_at)
            loaded, frames = _load_frames(dataset, asked, split, at, options)
            x, y = map(np.ascontiguousarray, asked.window.split(frames))
        else:
            loaded, x = _load_fields(dataset, asked, split, options)
            y = loaded.y
            if asked.time_axis:
                num = len(asked.outputs_at)
                x = asked.on_time_axis(x, asked.inputs, num)
                y = asked.on_time_axis(y, asked.outputs, num)
        coordinates = loaded.coordinates
        if asked.time_axis:
            times = np.asarray(facts.steps, float)[list(asked.outputs_at)]
            coordinates = (*coordinates, times)
    _refuse_vanishing(dataset, y, loaded.sample_ids)
    points, num_coordinates = dataset.points, 0
    if points is not None:
        num_coordinates = points.shape[-1]
        if points.ndim == 3:
            points = points[loaded.sample_ids]
        points = np.broadcast_to(points, (*x.shape[:2], num_coordinates))
        x = np.concatenate([points.astype(np.float32), x], axis=-1)
    return Samples(
        x,
        y,
        loaded.sample_ids,
        coordinates,
        num_coordinates,
        periodic_axes(dataset, stride, len(coordinates)),
    )


def load_frames(dataset, settings: Mapping, split: str) -> tuple:
    """Loads the whole trajectories that windows of training are cut from.

    The arguments are those of `load_split`.

    Returns:
        frames [N, T, *grid, fields] float32, the fields as in `Request.frame_fields`;
        sample_ids [N]; and the periodic axes as in `Samples`, time left out.
    """
    asked = layouts.request(_facts(dataset), settings)
    options = {"num": settings[f"num_{split}"], "stride": settings["stride"]}
    at = tuple(range(asked.window.num_frames))
    loaded, frames = _load_frames(dataset, asked, split, at, options)
    # Every window has a target: some frames of y, one after the other.
    window = asked.window
    there = frames.any(axis=tuple(range(2, frames.ndim - 1)))  # [N, T, fields]
    there = there[:, window.num_in :, list(window.outputs)].any(axis=-1)
    targets = np.lib.stride_tricks.sliding_window_view(there, window.num_out, axis=1)
    _refuse_vanishing(dataset, targets.any(axis=-1).all(axis=1), loaded.sample_ids)
    periodic = periodic_axes(dataset, settings["stride"], len(loaded.coordinates))
    return frames, loaded.sample_ids, periodic


def _load_frames(dataset: read.Dataset, asked: layouts.Request, split, at, options):
    """`read.Samples` for ids and points, and the frames `at`, [N, len(at), ...]."""
    fields, frames = asked.frame_fields, None
    for first in range(0, len(at), FRAMES_AT_ONCE):
        some = at[first : first + FRAMES_AT_ONCE]
        loaded = dataset.load(split, inputs=fields, outputs=(), steps=some, **options)
        part = asked.on_time_axis(loaded.x, fields, len(some))
        if frames is None:
            shape = (len(part), len(at), *part.shape[1:-2], len(fields))
            frames = np.empty(shape, np.float32)
        frames[:, first : first + len(some)] = np.moveaxis(part, -2, 1)
    return loaded, frames


def periodic_axes(dataset, stride: int, num_axes: int) -> tuple[bool, ...]:
    """Which axes are periodic at this stride; an axis of time, the last one, is not.

    Args:
        dataset: see `open_data`.
        stride: of the points; one that does not divide their number breaks the period.
        num_axes: of the grid, that of time included.
    """
    named = {b["axis"] for b in dataset.boundaries if b["bc_type"] == "PERIODIC"}
    periodic = [
        axis in named and len(c) % stride == 0
        for axis, c in dataset.coordinates.items()
    ]
    return (*periodic, *(False,) * (num_axes - len(periodic)))


def _refuse_vanishing(dataset, y: np.ndarray, sample_ids: np.ndarray) -> None:
    """Raises a ValueError for targets y [N, *grid, c_out] that are zero everywhere.

    Or for flags y [N] of samples with a target that is not.
    """
    zero = sample_ids[~y.any(axis=tuple(range(1, y.ndim)))].tolist()
    if zero:
        listed = ", ".join(map(str, zero[:10])) + ", ..." * (len(zero) > 10)
        raise ValueError(
            f"{dataset.root}: the target y must not vanish, because relative errors "
            f"divide by its norm, but it is zero at all points of {len(zero)} samples "
            f"(sample_ids {listed}): leave these samples out"
        )


def _load_fields(dataset: read.Dataset, asked: layouts.Request, split, options):
    """The samples, and x, which is read apart if its steps are others than those of y.

    Returns:
        `read.Samples` with y, and x [N, *grid, channels].
    """
    if asked.inputs_at == asked.outputs_at:
        loaded = dataset.load(
            split,
            inputs=asked.inputs,
            outputs=asked.outputs,
            steps=asked.outputs_at,
            **options,
        )
        return loaded, loaded.x
    given = dataset.load(
        split, inputs=asked.inputs, outputs=(), steps=asked.inputs_at, **options
    )
    loaded = dataset.load(
        split, inputs=(), outputs=asked.outputs, steps=asked.outputs_at, **options
    )
    return loaded, given.x


def _facts(dataset) -> layouts.Facts:
    """What an open data set says of itself."""
    points = dataset.points
    num_dims = len(dataset.coordinates) if points is None else points.shape[-1]
    if isinstance(dataset, read.Dataset):
        fields = dataset.manifest["fields"]
        defaults = read.default_fields(fields)
        steps, step_name = dataset.steps, dataset.step_name
    else:  # one's own arrays: every channel is a field
        defaults = tuple(
            tuple(f"{key}{i}" for i in range(values.shape[-1]))
            for key, values in (("x", dataset.x), ("y", dataset.y))
        )
        fields = [
            {"name": name, "time_varying": False} for part in defaults for name in part
        ]
        steps, step_name = np.zeros(1), "time"
    return layouts.Facts(
        dataset.name,
        dataset.coordinates,
        num_dims,
        fields,
        defaults,
        steps,
        step_name,
    )


def _poll(process: subprocess.Popen) -> int | None:
    """Waits half a second for the process; its exit code once it has ended."""
    try:
        return process.wait(timeout=0.5)
    except subprocess.TimeoutExpired:
        return None
