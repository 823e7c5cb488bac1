"""One's own arrays in an .npz file, read like a generated data set."""

import dataclasses
import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from datagen.storage.read import (
    SPLITS,
    DatasetError,
    Samples,
    check_request,
    subsample,
)


@dataclasses.dataclass(frozen=True)
class ArrayDataset:
    """Arrays of an .npz file, with the interface of `read.Dataset`.

    Attributes:
        root: the file.
        manifest: name and manifest_sha256.
        manifest_sha256: SHA-256 of the file.
        name: the file's name without its ending.
        splits: samples per split, cut in the order train, valid, test.
        coordinates: axis -> [n] float64.
        scalars: none.
        boundaries: none.
        x: [N, n1, n2, c_in].
        y: [N, n1, n2, c_out].
    """

    root: Path
    manifest: dict[str, Any]
    manifest_sha256: str
    name: str
    splits: dict[str, int]
    coordinates: dict[str, np.ndarray]
    scalars: dict[str, float]
    boundaries: tuple[dict[str, str], ...]
    x: np.ndarray
    y: np.ndarray

    def load(
        self,
        split: str,
        *,
        inputs: tuple[str, ...] = ("x",),
        outputs: tuple[str, ...] = ("y",),
        num: int | None = None,
        stride: int = 1,
    ) -> Samples:
        """Like `read.Dataset.load`; the file has one x and one y, so names are ignored.

        Raises:
            DatasetError: if the split, that many samples or that stride do not exist.
        """
        del inputs, outputs
        check_request(self.name, self.splits, split, num)
        coordinates = subsample(self.coordinates, stride, self.name)
        start = sum(self.splits[s] for s in SPLITS[: SPLITS.index(split)])
        stop = start + (self.splits[split] if num is None else num)
        points = (slice(start, stop), *(slice(None, None, stride),) * len(coordinates))
        x, y = (np.ascontiguousarray(a[points], np.float32) for a in (self.x, self.y))
        return Samples(x, y, np.arange(start, stop), coordinates)


def open_npz(path: str | Path, *, splits: Mapping[str, int]) -> ArrayDataset:
    """Opens one's own arrays: `np.savez(path, x=x, y=y)`.

    Args:
        path: file with x and y, [N, n1, n2] or [N, n1, n2, c], and optionally
            `coordinates_x` [n1], `coordinates_y` [n2] (default: equidistant on [0, 1]).
        splits: samples per split, cut from the file in the order train, valid, test.

    Raises:
        DatasetError: if the file is missing, lacks an array, holds values that are not
            finite, or the shapes do not fit each other or the splits.
    """
    path = Path(path)
    try:
        with np.load(path) as file:
            arrays = {key: file[key] for key in file.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise DatasetError(f"{path} cannot be read as an .npz file: {error}") from error
    for key in ("x", "y"):
        if key not in arrays:
            raise DatasetError(
                f"{path} has no array {key!r}; it has {sorted(arrays)}: save it with "
                "np.savez(path, x=x, y=y)"
            )
        if arrays[key].ndim not in (3, 4):
            raise DatasetError(
                f"{path}: {key} has shape {arrays[key].shape}, expected [N, n1, n2] or "
                "[N, n1, n2, channels]"
            )
        if not np.isfinite(arrays[key]).all():
            raise DatasetError(f"{path}: {key} has values that are not finite")
        if arrays[key].ndim == 3:
            arrays[key] = arrays[key][..., None]
    x, y = arrays["x"], arrays["y"]
    if x.shape[:3] != y.shape[:3]:
        raise DatasetError(f"{path}: x has shape {x.shape}, but y has {y.shape}")
    splits = {split: int(splits.get(split, 0)) for split in SPLITS}
    if sum(splits.values()) > len(x):
        raise DatasetError(f"{path} has {len(x)} samples, but the splits need {splits}")
    coordinates = {}
    for axis, n in zip(("x", "y"), x.shape[1:3], strict=True):
        c = np.asarray(arrays.get(f"coordinates_{axis}", np.linspace(0, 1, n)), float)
        if c.shape != (n,):
            raise DatasetError(
                f"{path}: coordinates_{axis} has shape {c.shape}, expected ({n},)"
            )
        coordinates[axis] = c
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    manifest = {"name": path.stem, "manifest_sha256": digest}
    return ArrayDataset(
        path, manifest, digest, path.stem, splits, coordinates, {}, (), x, y
    )
