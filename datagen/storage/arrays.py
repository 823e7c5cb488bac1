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
    check_stride,
    subsample,
)

AXES = ("x", "y", "z")
MOST_CHANNELS = 8  # a longer last axis of x and y may as well be the third of a grid


class TooFewSamplesError(DatasetError):
    """The file has fewer samples than its splits need."""


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
        boundaries: dicts of axis, bc_type "PERIODIC" and detail, one per periodic axis.
        x: [N, *grid, c_in].
        y: [N, *grid, c_out].
        points: [n, d] or [N, n, d] where the only axis is `node`, None on grids.
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
    points: np.ndarray | None = None

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
        check_stride(self.name, self.coordinates, stride)
        coordinates = subsample(self.coordinates, stride, self.name)
        start = sum(self.splits[s] for s in SPLITS[: SPLITS.index(split)])
        stop = start + (self.splits[split] if num is None else num)
        points = (slice(start, stop), *(slice(None, None, stride),) * len(coordinates))
        x, y = (np.ascontiguousarray(a[points], np.float32) for a in (self.x, self.y))
        return Samples(x, y, np.arange(start, stop), coordinates)


def open_npz(path: str | Path, *, splits: Mapping[str, int]) -> ArrayDataset:
    """Opens one's own arrays: `np.savez(path, x=x, y=y)`.

    Args:
        path: file with x and y, [N, *grid] or [N, *grid, channels], and optionally
            `coordinates_x` [n1], `coordinates_y` [n2], `coordinates_z` [n3] (default:
            equidistant on [0, 1], without the end 1 along periodic axes), strictly
            increasing. The grid has one axis for x [N, n], two for
            x [N, n1, n2] and [N, n1, n2, channels], three for
            x [N, n1, n2, n3, channels]; a number `num_axes` in the file says otherwise,
            and must say so where x and y have one shape [N, n1, n2, n] with n > 8.
            Values at points without a grid: `points` [n, d], or [N, n, d] where they
            differ from sample to sample, beside x and y [N, n] or [N, n, channels].
            All arrays are real numbers. `periodic`, one bool or one per axis: True
            where the grid leaves out the right end of a period.
        splits: samples per split, cut from the file in the order train, valid, test.

    Raises:
        DatasetError: if the file is missing, lacks an array, holds values that are not
            numbers, not real or not finite in float32, or the shapes do not fit each
            other, or may be read in two ways.
        TooFewSamplesError: if the splits need more samples than there are.
    """
    path = Path(path)
    arrays = _read(path)
    num_axes = _num_axes(arrays)
    x, y = (_with_channels(path, key, arrays[key], num_axes) for key in ("x", "y"))
    _check_shapes(path, arrays, x, y)
    splits = {split: int(splits.get(split, 0)) for split in SPLITS}
    if sum(splits.values()) > len(x):
        needed = " + ".join(map(str, splits.values()))
        raise TooFewSamplesError(
            f"{path} has {len(x)} samples, but the splits need {needed} samples"
        )
    points, boundaries = _points(path, arrays, x), ()
    if points is None:
        periodic = _periodic(path, arrays, num_axes)
        coordinates = _coordinates(path, arrays, x.shape[1:-1], periodic)
        boundaries = _boundaries(periodic)
    else:
        coordinates = {"node": np.arange(x.shape[1], dtype=float)}
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    manifest = {"name": path.stem, "manifest_sha256": digest}
    return ArrayDataset(
        path,
        manifest,
        digest,
        path.stem,
        splits,
        coordinates,
        {},
        boundaries,
        x,
        y,
        points,
    )


def _read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of the file, x and y among them."""
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
    return arrays


def _num_axes(arrays: Mapping[str, np.ndarray]) -> int:
    """Axes of the grid: as the file says, else by the rank of x."""
    if "num_axes" in arrays:
        return int(arrays["num_axes"])
    if "points" in arrays:
        return 1
    if "coordinates_z" in arrays:
        return 3
    return {2: 1, 5: 3}.get(arrays["x"].ndim, 2)


def _check_shapes(path: Path, arrays: Mapping[str, np.ndarray], x, y) -> None:
    """Refuses x and y that do not fit each other or may be read in two ways.

    `x`, `y` are the `arrays` of these names as [N, *grid, channels].
    """
    shapes = [arrays[key].shape for key in ("x", "y")]
    told = {"num_axes", "points", "coordinates_z"} & set(arrays)
    if x.shape[:-1] != y.shape[:-1]:
        ranks = {len(shape) for shape in shapes}
        lines = not told and ranks == {3} and shapes[0][:2] == shapes[1][:2]
        raise DatasetError(
            f"{path}: x has shape {shapes[0]}, but y has {shapes[1]}: both need the "
            "same samples and points"
            + "; arrays [N, n, channels] on a line need a num_axes beside them, "
            "np.savez(path, x=x, y=y, num_axes=1)" * lines
        )
    same = shapes[0] == shapes[1] and len(shapes[0]) == 4
    if same and not told and shapes[0][-1] > MOST_CHANNELS:
        raise DatasetError(
            f"{path}: x and y have shape {shapes[0]}, which may be three axes or a "
            "plane: for three axes save a number beside them, np.savez(path, x=x, y=y, "
            "num_axes=3), or add a channel axis, x[..., None]; for "
            f"{shapes[0][-1]} channels on a plane save num_axes=2"
        )


def _with_channels(path: Path, key: str, values: np.ndarray, num_axes: int):
    """The array x or y as [N, *grid, channels]."""
    if not 1 <= num_axes <= 3 or values.ndim - num_axes not in (1, 2):
        axes = ", ".join(["N", *(f"n{i + 1}" for i in range(num_axes))])
        raise DatasetError(
            f"{path}: {key} has shape {values.shape}, expected [{axes}] or [{axes}, "
            "channels]; for another number of axes (1, 2 or 3) save it beside the "
            "arrays, np.savez(path, x=x, y=y, num_axes=...)"
        )
    _check_numbers(path, key, values)
    return values if values.ndim == num_axes + 2 else values[..., None]


def _points(path: Path, arrays: Mapping[str, np.ndarray], x: np.ndarray):
    """Points [n, d] or [N, n, d] of values without a grid; None on grids."""
    if "points" not in arrays:
        return None
    if np.any(arrays.get("periodic", False)):
        raise DatasetError(
            f"{path}: periodic is {arrays['periodic'].tolist()}, but the values lie at "
            "points, which form no grid to be periodic: save it without periodic"
        )
    _check_numbers(path, "points", arrays["points"])
    points = np.asarray(arrays["points"], float)
    if points.shape[:-1] not in (x.shape[1:2], x.shape[:2]):
        raise DatasetError(
            f"{path}: points has shape {points.shape}, but x has {x.shape}: expected "
            "[n, d] or [N, n, d] beside x [N, n, channels]"
        )
    return points


def _periodic(path: Path, arrays: Mapping[str, np.ndarray], num_axes: int):
    """One bool per axis, from the file or all False."""
    periodic = arrays.get("periodic", np.array(False))
    if periodic.dtype != bool or periodic.shape not in ((), (num_axes,)):
        raise DatasetError(
            f"{path}: periodic must be one bool, or one for each of the {num_axes} "
            f"axes of the grid, but is {periodic.tolist()}: save it beside the arrays, "
            "np.savez(path, x=x, y=y, periodic=True)"
        )
    return tuple(np.broadcast_to(periodic, num_axes).tolist())


def _boundaries(periodic: tuple[bool, ...]) -> tuple[dict[str, str], ...]:
    """The periodic axes, as manifests describe them."""
    return tuple(
        {"axis": axis, "bc_type": "PERIODIC", "detail": "periodic"}
        for axis, repeats in zip(AXES, periodic, strict=False)
        if repeats
    )


def _coordinates(
    path: Path,
    arrays: Mapping[str, np.ndarray],
    grid: tuple[int, ...],
    periodic: tuple[bool, ...],
):
    """Coordinates per axis, from the file or equidistant."""
    coordinates = {}
    for axis, n, repeats in zip(AXES, grid, periodic, strict=False):
        key = f"coordinates_{axis}"
        given = arrays.get(key, np.linspace(0, 1, n, endpoint=not repeats))
        if given.shape != (n,):
            raise DatasetError(
                f"{path}: {key} has shape {given.shape}, expected ({n},)"
            )
        _check_numbers(path, key, given)
        c = np.asarray(given, float)
        if (bad := np.flatnonzero(np.diff(c) <= 0)).size:
            i = int(bad[0])
            raise DatasetError(
                f"{path}: {key} must increase strictly, but entry {i} is {c[i]:g} and "
                f"the next one {c[i + 1]:g}: sort the points of this axis, and x and y "
                "with them"
            )
        coordinates[axis] = c
    return coordinates


def _check_numbers(path: Path, key: str, values: np.ndarray) -> None:
    """Refuses arrays that are not real numbers, finite in float32."""
    if values.dtype.kind == "c":
        raise DatasetError(
            f"{path}: {key} must be real, but is {values.dtype}: put real and "
            "imaginary part into two channels, np.stack([z.real, z.imag], axis=-1)"
        )
    if values.dtype.kind not in "biuf":
        raise DatasetError(
            f"{path}: {key} must hold real numbers, but is {values.dtype}: convert it, "
            "for instance with astype(np.float32)"
        )
    with np.errstate(over="ignore"):
        finite = np.isfinite(values.astype(np.float32, copy=False))
    if not finite.all():
        first = tuple(map(int, np.argwhere(~finite)[0]))
        raise DatasetError(
            f"{path}: {key} has {np.sum(~finite)} values that are not finite in "
            f"float32, the first at {first}, {values[first]}: leave these samples out, "
            "or rescale the values"
        )
