"""From `config.data` to arrays: the one module of `operators` that opens data sets."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from configs import loading
from datagen.storage import arrays, read

EXIT_QUARANTINE, EXIT_STOPPED = 3, 75  # of `datagen`: some rejected; stopped


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


def stored_coordinates(settings: Mapping) -> tuple[np.ndarray, ...]:
    """Coordinates ([n1], [n2]) of the training grid, after the stride.

    Read from the data set where it exists, else computed from its config, so that a
    model can be checked and timed before the data are made.
    """
    stride = settings["stride"]
    path = dataset_folder(settings)
    if path.suffix == ".npz" or (path / "manifest.json").exists() or settings["path"]:
        coordinates = open_data(settings, verify=False).coordinates.values()
    else:
        n = loading.load(settings["config"]).problem.n
        coordinates = (np.linspace(0, 1, n),) * 2
    strided = tuple(np.asarray(c)[::stride] for c in coordinates)
    if min(len(c) for c in strided) < 2:
        raise ValueError(
            f"config.data.stride is {stride}, which leaves a single point of an axis"
        )
    return strided


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
    """
    path = dataset_folder(settings)
    if path.suffix == ".npz":
        try:
            return arrays.open_npz(path, splits=split_sizes(settings))
        except read.DatasetError as error:
            raise read.DatasetError(
                f"{error} (set --config.data.num_train, num_valid and num_test)"
            ) from error
    return read.open_dataset(path, verify=verify)


def split_sizes(settings: Mapping) -> dict[str, int]:
    """Samples asked for per split."""
    return {split: settings[f"num_{split}"] for split in ("train", "valid", "test")}


def load_split(dataset, settings: Mapping, split: str, *, stride: int | None = None):
    """Loads the samples of one split as `config.data` asks for them.

    Args:
        dataset: see `open_data`.
        settings: `config.data`.
        split: "train", "valid" or "test".
        stride: keeps every stride-th point per axis; None: `config.data.stride`.
    """
    return dataset.load(
        split,
        inputs=tuple(settings["inputs"]),
        outputs=tuple(settings["outputs"]),
        num=settings[f"num_{split}"],
        stride=settings["stride"] if stride is None else stride,
    )


def spacing(coordinates) -> tuple[float, float]:
    """Distance of neighbouring points per axis, from coordinates ([n1], [n2])."""
    return tuple(float(c[1] - c[0]) for c in coordinates)


def _poll(process: subprocess.Popen) -> int | None:
    """Waits half a second for the process; its exit code once it has ended."""
    try:
        return process.wait(timeout=0.5)
    except subprocess.TimeoutExpired:
        return None
