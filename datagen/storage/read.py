"""Opens finished data sets: what `datagen` wrote, or arrays in an .npz file.

    dataset = open_dataset("data/darcy_smooth")
    train = dataset.load("train", num=1000, stride=2)
    train.x, train.y  # [1000, n1, n2, 1], float32

Needs numpy and h5py, nothing else, so that any script can use it.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from datagen.storage import schemas

SPLITS = ("train", "valid", "test")
FIELD_GROUPS = ("t0_fields", "t1_fields", "t2_fields")


class DatasetError(ValueError):
    """Files are missing, damaged or not as asked for: one sentence, with advice."""


class Samples(NamedTuple):
    """Samples of one split.

    Attributes:
        x: [N, *grid, c_in] inputs, float32; grid is [n1, n2] as a rule, [num_nodes] on
            an unstructured mesh.
        y: [N, *grid, c_out] outputs, float32.
        sample_ids: [N] int64, unique over the splits of a data set.
        coordinates: one float64 array [n] per axis, of the points loaded.
    """

    x: np.ndarray
    y: np.ndarray
    sample_ids: np.ndarray
    coordinates: tuple[np.ndarray, ...]


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A finished data set on disk; `load` reads arrays from it.

    Attributes:
        root: its folder.
        manifest: content of manifest.json.
        manifest_sha256: identity of the data: equal for equal plan, files and hashes,
            whatever it cost to make them.
        name: name of the data set.
        splits: accepted samples per split.
        coordinates: axis -> [n] float64.
        scalars: parameters shared by all samples.
        boundaries: dicts of axis, bc_type and detail.
        steps: [T] times or frequencies of the steps of time-varying fields; [0] for
            stationary problems.
        step_name: what the steps are.
    """

    root: Path
    manifest: dict[str, Any]
    manifest_sha256: str
    name: str
    splits: dict[str, int]
    coordinates: dict[str, np.ndarray]
    scalars: dict[str, float]
    boundaries: tuple[dict[str, str], ...]
    steps: np.ndarray
    step_name: str

    def load(
        self,
        split: str,
        *,
        inputs: tuple[str, ...] | None = None,
        outputs: tuple[str, ...] | None = None,
        num: int | None = None,
        stride: int = 1,
        steps: int | tuple[int, ...] | None = None,
    ) -> Samples:
        """Reads accepted samples in the order of their ids.

        The order does not depend on how the data set was cut into files or sorted, so
        the first `num` samples are the same random draws for every solver.

        Args:
            split: "train", "valid" or "test".
            inputs: names of the fields that make up x, in channel order; None: all but
                the solution, see `default_fields`.
            outputs: names of the fields that make up y; None: the solution, both parts
                of a complex one.
            num: number of samples; None for all.
            stride: keep every stride-th point of each axis; 1 on unstructured meshes,
                whose cells need every node.
            steps: which steps of time-varying fields to read, by index, -1 the last;
                each is a channel, the steps of one field side by side. Must be given
                where there are several steps (`self.steps`).

        Raises:
            DatasetError: if the split, a field, a step, that many samples or that
                stride do not exist, or a file cannot be read.
        """
        check_request(self.name, self.splits, split, num)
        chosen = self._chosen_steps(steps)
        known = [field["name"] for field in self.manifest["fields"]]
        defaults = default_fields(self.manifest["fields"])
        inputs = defaults[0] if inputs is None else inputs
        outputs = defaults[1] if outputs is None else outputs
        for name in (*inputs, *outputs):
            if name not in known:
                raise DatasetError(f"{self.name} has no field {name!r}; known: {known}")
        check_stride(self.name, self.coordinates, stride)
        coordinates = subsample(self.coordinates, stride, self.name)
        ids, parts = self._accepted(split, num)
        shape = tuple(len(c) for c in coordinates)
        varying = {f["name"]: f["time_varying"] for f in self.manifest["fields"]}
        channels = [
            [(n, step) for n in names for step in (chosen if varying[n] else [None])]
            for names in (inputs, outputs)
        ]
        x, y = (np.empty((len(ids), *shape, len(c)), np.float32) for c in channels)
        for path, rows, positions in parts:
            with _open(path) as file:
                for array, wanted in zip((x, y), channels, strict=True):
                    for channel, (name, step) in enumerate(wanted):
                        values = _read_field(file, name, step, rows, stride)
                        array[positions, ..., channel] = values
        return Samples(x, y, ids, coordinates)

    def trajectories(
        self, split: str, field: str, *, num: int | None = None, stride: int = 1
    ) -> np.ndarray:
        """Reads all steps of a field of accepted samples, in the order of their ids.

        Args:
            split: "train", "valid" or "test".
            field: name of a time-varying field.
            num: number of samples; None for all.
            stride: keep every stride-th point of each axis.

        Returns:
            [N, T, *grid] in the dtype that is stored; T are the `steps`.

        Raises:
            DatasetError: if the split, the field, that many samples or that stride do
                not exist, or a file cannot be read.
        """
        check_request(self.name, self.splits, split, num)
        known = [f["name"] for f in self.manifest["fields"] if f["time_varying"]]
        if field not in known:
            raise DatasetError(
                f"{self.name} has no field {field!r} that varies in time; known: "
                f"{known}"
            )
        check_stride(self.name, self.coordinates, stride)
        shape = [len(c) for c in subsample(self.coordinates, stride, self.name)]
        points = (slice(None), slice(None), *(slice(None, None, stride),) * len(shape))
        ids, parts = self._accepted(split, num)
        values = np.empty((len(ids), len(self.steps), *shape), self.manifest["dtype"])
        for path, rows, places in parts:
            with _open(path) as file:
                values[places] = _read_field(file, field, None, rows, 1)[points]
        return values

    def _chosen_steps(self, steps: int | tuple[int, ...] | None) -> list[int]:
        """Indices of the steps asked for, from 0."""
        num = len(self.steps)
        if steps is None:
            if num > 1:
                raise DatasetError(
                    f"{self.name} has {num} steps ({self.step_name} "
                    f"{self.steps[0]:g} to {self.steps[-1]:g}): say which to load, for "
                    f"instance steps=-1 for the last or steps=({0}, {num - 1})"
                )
            return [0]
        steps = [steps] if isinstance(steps, int) else list(steps)
        for step in steps:
            if not -num <= step < num:
                raise DatasetError(
                    f"step {step} does not exist; {self.name} has {num} (0 ... "
                    f"{num - 1}, or -1 ... {-num} from the end)"
                )
        return [step % num for step in steps]

    @property
    def points(self) -> np.ndarray | None:
        """Nodes [num_nodes, d] of an unstructured mesh, float64; None on grids."""
        if list(self.coordinates) != ["node"]:
            return None
        with _open(self.root / self.manifest["files"][0]["path"]) as file:
            return file["mesh/points"][()]

    def quality(self, split: str) -> dict[str, np.ndarray]:
        """The `quality` records of a split, rejected samples included, by sample id."""
        tables = []
        for path in self._paths(split):
            with _open(path) as file:
                tables.append({key: d[()] for key, d in file["quality"].items()})
        if not tables:
            return {}
        table = {key: np.concatenate([t[key] for t in tables]) for key in tables[0]}
        order = np.argsort(table["sample_id"])
        return {key: column[order] for key, column in table.items()}

    def _paths(self, split: str) -> Iterator[Path]:
        for entry in self.manifest["files"]:
            if entry["split"] == split:
                yield self.root / entry["path"]

    def _accepted(self, split: str, num: int | None):
        """Ids of the first `num` accepted samples and where they lie.

        Returns:
            The ids [N], ascending, and per file (path, rows in it, places among ids).
        """
        tables = []
        for path in self._paths(split):
            with _open(path) as file:
                rows = np.flatnonzero(file["quality/accepted"][()])
                tables.append((path, rows, file["quality/sample_id"][()][rows]))
        ids = np.sort(np.concatenate([table[2] for table in tables]))[:num]
        parts = []
        for path, rows, found in tables:
            wanted = np.isin(found, ids)
            if wanted.any():
                places = np.searchsorted(ids, found[wanted])
                parts.append((path, rows[wanted], places))
        return ids, parts


def default_fields(
    fields: list[dict[str, Any]],
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What `load` reads if nobody says: everything given, and everything solved for.

    Outputs are the time-varying fields named solution..., inputs all others. So a
    coefficient that drifts or a source that moves is an input, at the steps that are
    loaded; the solution depends on its earlier steps as well.

    Args:
        fields: of the manifest.

    Returns:
        Names of inputs and of outputs.
    """
    outputs = tuple(
        field["name"]
        for field in fields
        if field["time_varying"] and field["name"].startswith("solution")
    )
    names = tuple(field["name"] for field in fields)
    return tuple(name for name in names if name not in outputs), outputs


def open_dataset(root: str | Path, *, verify: bool = True) -> Dataset:
    """Opens a finished data set.

    Args:
        root: folder that holds manifest.json.
        verify: compare size and SHA-256 of every data file with the manifest; reads
            all files once.

    Raises:
        DatasetError: if there is none, it is unfinished, damaged, or of another format.
    """
    root = Path(root)
    manifest = read_manifest(root)
    for entry in manifest["files"]:
        if problem := file_problem(root, entry, manifest["files"], hashes=verify):
            raise DatasetError(problem)
    steps = manifest.get("steps", {"name": "time", "values": [0.0]})
    return Dataset(
        root,
        manifest,
        manifest["manifest_sha256"],
        manifest["name"],
        {split: manifest["counts"][split]["accepted"] for split in SPLITS},
        {axis: np.array(points) for axis, points in manifest["coordinates"].items()},
        manifest["scalars"],
        tuple(manifest["boundaries"]),
        np.array(steps["values"]),
        steps["name"],
    )


def read_manifest(root: Path) -> dict[str, Any]:
    """Reads and checks manifest.json.

    Raises:
        DatasetError: if it is missing, damaged or edited.
    """
    path = root / "manifest.json"
    if not path.exists():
        if (root / "plan.json").exists():
            raise DatasetError(
                f"{root} holds an unfinished data set: finish it with `python -m "
                f"datagen generate --out {root}`"
            )
        raise DatasetError(
            f"{root} holds no data set (there is no manifest.json): make one with "
            f"`python -m datagen generate --config <data config> --out {root}`"
        )
    manifest = read_json(path, schemas.MANIFEST)
    if manifest["manifest_sha256"] != manifest_sha256(manifest):
        raise DatasetError(
            f"{path} was changed after it was written: delete it and run `python -m "
            f"datagen generate --out {root}`"
        )
    return manifest


def read_json(path: Path, schema: dict[str, Any]) -> dict[str, Any]:
    """Reads a JSON file and checks it against a schema.

    Raises:
        DatasetError: if it cannot be read or does not fit.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
    found = content.get("schema_version") if isinstance(content, dict) else None
    if isinstance(found, int) and found > schemas.SCHEMA_VERSION:
        raise DatasetError(
            f"{path} has format version {found}, this program knows up to "
            f"{schemas.SCHEMA_VERSION}: use a newer one"
        )
    if problem := schemas.violation(content, schema):
        raise DatasetError(f"{path} is not as its schema says: {problem}")
    return content


def canonical_sha256(content: Mapping[str, Any]) -> str:
    """Hash of JSON content that does not depend on key order or white space."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def manifest_sha256(manifest: Mapping[str, Any]) -> str:
    """Identity of a data set: the manifest without what it cost and who made it."""
    aside = ("manifest_sha256", "costs", "code")
    return canonical_sha256({k: v for k, v in manifest.items() if k not in aside})


def file_problem(
    root: Path,
    entry: Mapping[str, Any],
    entries: list[Mapping[str, Any]],
    *,
    hashes: bool = True,
) -> str:
    """Compares one data file with its entry in the manifest.

    Args:
        root: folder of the data set.
        entry: the file's entry.
        entries: all entries, to recognise files that were swapped.
        hashes: read the file and compare its SHA-256; otherwise only its size.

    Returns:
        What is wrong and what to do, or "".
    """
    path = root / entry["path"]
    advice = (
        f"delete it and {root / 'ledger' / entry['shard']}.json and run `python -m "
        f"datagen generate --out {root}` to make it again"
    )
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            fits = size == entry["bytes"]
            if fits and not hashes:
                return ""
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return f"{path} is missing; {advice}"
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}; {advice}"
    if found == entry["sha256"]:
        return ""
    for other in entries:
        if found == other["sha256"]:
            return f"{path} holds the content of {other['path']}; {advice}"
    if not fits:
        return (
            f"{path} is damaged: it has {size} bytes, expected {entry['bytes']}; "
            f"{advice}"
        )
    return f"{path} is damaged: its SHA-256 is not as recorded; {advice}"


def check_stride(name: str, coordinates: Mapping[str, np.ndarray], stride: int) -> None:
    """Refuses to leave out nodes of a mesh.

    Raises:
        DatasetError: for a stride on a data set without a grid.
    """
    if stride != 1 and list(coordinates) == ["node"]:
        raise DatasetError(
            f"stride is {stride}, but {name} lies on an unstructured mesh, where every "
            "second node makes no mesh; leave stride=1"
        )


def check_request(
    name: str, splits: Mapping[str, int], split: str, num: int | None
) -> None:
    """Raises a DatasetError unless the split has that many samples (None: any)."""
    if split not in splits:
        raise DatasetError(f"{name} has no split {split!r}; known: {list(splits)}")
    if num is not None and not 1 <= num <= splits[split]:
        raise DatasetError(
            f"{name} has {splits[split]} samples in {split}, {num} were asked for"
        )
    if splits[split] == 0:
        raise DatasetError(f"{name} has no samples in {split}")


def subsample(
    coordinates: Mapping[str, np.ndarray], stride: int, name: str
) -> tuple[np.ndarray, ...]:
    """Every stride-th coordinate per axis.

    Raises:
        DatasetError: for a stride that leaves a single point of an axis.
    """
    shape = tuple(len(c) for c in coordinates.values())
    if stride < 1 or stride >= min(shape):
        raise DatasetError(f"stride is {stride}; {name} has {shape} points")
    return tuple(c[::stride] for c in coordinates.values())


def _open(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r", locking="best-effort")
    except OSError as error:
        raise DatasetError(f"{path} cannot be opened: {error}") from error


def _read_field(
    file: h5py.File, name: str, step: int | None, rows: np.ndarray, stride: int
) -> np.ndarray:
    """Values [len(rows), *grid] of a scalar field, at a step if it varies in time."""
    group = next(g for g in FIELD_GROUPS if name in file[g])
    data = file[group][name]
    # One index array at a time is all that HDF5 takes; a whole read is the fastest.
    place = (slice(None) if len(rows) == data.shape[0] else rows,)
    place += () if step is None else (step,)
    try:
        values = data[place]
    except OSError as error:
        raise DatasetError(f"{file.filename} is damaged at {name}: {error}") from error
    points = (slice(None), *(slice(None, None, stride),) * (values.ndim - 1))
    return values[points]
