"""The shard file: The Well's HDF5 layout with the groups `quality` and `provenance`.

A file is built in memory and handed over as bytes: the bytes are a function of its
content (no dates, hosts or file offsets of an earlier life), they are hashed once, and
a full disk is met by one plain write instead of inside the HDF5 library.

References:
    Ohana et al. (2024), The Well, arXiv:2412.00568, and the layout its reader expects.
"""

import dataclasses
import hashlib
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from datagen.storage.schemas import SCHEMA_VERSION

GROUPS = (
    "dimensions",
    "boundary_conditions",
    "scalars",
    "t0_fields",
    "t1_fields",
    "t2_fields",
)
SMALL_CHUNK, LARGE_CHUNK = 16 * 1024, 64 * 1024  # bytes
# Fields of at most so many distinct values, or of one per so many points, compress.
MAX_PHASES, POINTS_PER_VALUE = 16, 64
READ_BYTES = 1 << 22  # read back at once
DELTA = ":delta"

QUALITY_COLUMNS = {
    "sample_id": np.int64,
    "chain_pos": np.int32,
    "method": np.int16,  # rung of the ladder
    "converged_reason": np.int32,
    "iterations": np.int32,
    "matvecs": np.int32,
    "recycle_dim": np.int32,
    "fallbacks": np.int32,
    "solver_rel_residual": np.float64,
    "true_rel_residual": np.float64,
    "algebraic_error": np.float64,  # relative, energy norm; NaN: not estimated
    "discretisation_error": np.float64,  # relative, L2; NaN: not estimated
    "failed_step": np.int32,
    "accepted": np.bool_,
}


class ShardError(ValueError):
    """A shard file is not as it should be."""


@dataclasses.dataclass(frozen=True)
class ShardContent:
    """What goes into one file.

    Attributes:
        dataset_name: name of the data set.
        shard_id: name of the shard.
        plan_sha256: hash of its plan.
        coordinates: axis -> [n], in array order.
        boundaries: objects with axis, bc_type and detail.
        scalars: parameters shared by all samples.
        specs: objects with name, time_varying, units and description.
        fields: name -> [samples, *grid], in the dtype to store; rows of rejected
            samples are NaN. With `steps`, time varying ones are [samples, T, *grid].
        quality: column -> [samples], see `QUALITY_COLUMNS`, and those of
            `quality_columns`.
        provenance: names and versions.
        steps: [T] times or frequencies of the stored steps; None for stationary
            problems, whose solution is stored as a trajectory of one step.
        step_name: what the steps are: "time", "frequency".
        mesh: `datagen.problems.meshes.Mesh` if the only axis is `node`, else None.
        quality_columns: float64 columns that this set has beyond those of every set,
            with their descriptions.
    """

    dataset_name: str
    shard_id: str
    plan_sha256: str
    coordinates: dict[str, np.ndarray]
    boundaries: tuple[Any, ...]
    scalars: dict[str, float]
    specs: tuple[Any, ...]
    fields: dict[str, np.ndarray]
    quality: dict[str, np.ndarray]
    provenance: dict[str, str]
    steps: np.ndarray | None = None
    step_name: str = "time"
    mesh: Any = None
    quality_columns: Mapping[str, str] = dataclasses.field(default_factory=dict)


def encode(content: ShardContent) -> bytes:
    """Builds the file in memory and returns its bytes."""
    with h5py.File(
        "shard",
        "w",
        driver="core",
        backing_store=False,
        libver=("v110", "v110"),
    ) as file:
        groups = {name: file.create_group(name) for name in GROUPS}
        file.attrs.update(
            {
                "dataset_name": content.dataset_name,
                "grid_type": "cartesian" if content.mesh is None else "unstructured",
                "n_spatial_dims": len(content.coordinates),
                "n_trajectories": len(content.quality["sample_id"]),
                "schema_version": SCHEMA_VERSION,
                "plan_sha256": content.plan_sha256,
                "shard_id": content.shard_id,
            }
        )
        _write_dimensions(groups["dimensions"], content)
        _write_boundaries(groups["boundary_conditions"], content)
        _write_scalars(file, groups["scalars"], content)
        if content.mesh is not None:
            _write_mesh(file.create_group("mesh"), content.mesh)
        for order in range(3):
            specs = content.specs if order == 0 else ()
            group = groups[f"t{order}_fields"]
            group.attrs["field_names"] = _strings(spec.name for spec in specs)
            for spec in specs:
                _write_field(group, spec, content)
        _write_quality(file.create_group("quality"), content)
        file.create_group("provenance").attrs.update(content.provenance)
        file.attrs["complete"] = True
        file.flush()
        return file.id.get_file_image()


def _write_quality(group: h5py.Group, content: ShardContent) -> None:
    more = dict.fromkeys(content.quality_columns, np.float64)
    for name, dtype in (QUALITY_COLUMNS | more).items():
        column = np.asarray(content.quality[name], dtype)
        data = group.create_dataset(
            name, data=column, chunks=column.shape, fletcher32=True
        )
        if name in more:
            data.attrs["description"] = content.quality_columns[name]


def _strings(values) -> np.ndarray:
    # Variable-length UTF-8: The Well's reader takes bytes for something else.
    return np.array(list(values), dtype=h5py.string_dtype())


def _write_dimensions(group: h5py.Group, content: ShardContent) -> None:
    group.attrs["spatial_dims"] = _strings(content.coordinates)
    # The Well knows one kind of step, time: frequencies go under that name as well.
    steps = np.zeros(1) if content.steps is None else content.steps
    time = group.create_dataset("time", data=np.asarray(steps, np.float32))
    time.attrs.update({"sample_varying": False, "time_varying": True})
    if content.steps is not None:
        time.attrs["step_name"] = content.step_name
    for axis, points in content.coordinates.items():
        data = group.create_dataset(axis, data=np.asarray(points, np.float32))
        data.attrs.update({"sample_varying": False, "time_varying": False})


def _write_boundaries(group: h5py.Group, content: ShardContent) -> None:
    for boundary in content.boundaries:
        entry = group.create_group(f"{boundary.axis}_{boundary.bc_type.lower()}")
        entry.attrs.update(
            {
                "bc_type": boundary.bc_type,
                "bc_detail": boundary.detail,
                "associated_dims": _strings([boundary.axis]),
                "associated_fields": _strings([]),
                "sample_varying": False,
                "time_varying": False,
            }
        )
        mask = np.zeros(len(content.coordinates[boundary.axis]), bool)
        if content.mesh is None:
            mask[[0, -1]] = True
        else:
            mask[content.mesh.boundary] = True
        entry.create_dataset("mask", data=mask)


def _write_mesh(group: h5py.Group, mesh: Any) -> None:
    """Nodes and cells of an unstructured set; attributes say how nodes are numbered."""
    group.attrs.update({"cell_type": mesh.cell_type, "numbering": mesh.numbering})
    for name, data in (
        ("points", np.asarray(mesh.points, np.float64)),  # [num_nodes, d]
        ("cells", np.asarray(mesh.cells, np.int32)),  # [num_cells, nodes per cell]
        ("regions", np.asarray(mesh.regions, np.int32)),  # [num_cells]
    ):
        group.create_dataset(name, data=data, chunks=data.shape, fletcher32=True)


def _write_scalars(file: h5py.File, group: h5py.Group, content: ShardContent) -> None:
    file.attrs["simulation_parameters"] = _strings(content.scalars)
    group.attrs["field_names"] = _strings(content.scalars)
    for name, value in content.scalars.items():
        file.attrs[name] = value
        data = group.create_dataset(name, data=np.float64(value))
        data.attrs.update({"sample_varying": False, "time_varying": False})


def _write_field(group: h5py.Group, spec: Any, content: ShardContent) -> None:
    values = content.fields[spec.name]
    has_steps = spec.time_varying and content.steps is not None
    grid = values.shape[2 if has_steps else 1 :]
    # A stationary solution is a trajectory of one step.
    stored = values[:, None] if spec.time_varying and not has_steps else values
    step_bytes = max(1, values.dtype.itemsize * int(np.prod(grid)))
    per_chunk = 1 if step_bytes >= SMALL_CHUNK else LARGE_CHUNK // step_bytes
    if has_steps:  # a chunk holds steps of one sample
        num = stored.shape[1]  # in equal parts: HDF5 stores whole chunks
        chunks = (1, -(-num // -(-num // per_chunk)), *grid)
    else:
        chunks = (min(per_chunk, len(values)), *stored.shape[1:])
    # Compression pays for fields of few values only; smooth floats gain 1.24x and cost
    # 13 times the time. Without fletcher32 a flipped bit is read without a word.
    packing = {"compression": "gzip", "compression_opts": 1, "shuffle": True}
    data = group.create_dataset(
        spec.name,
        data=stored,
        chunks=chunks,
        fletcher32=True,
        **(packing if _is_compressed(values[0]) else {}),
    )
    data.attrs.update(
        {
            "sample_varying": True,
            "time_varying": spec.time_varying,
            "dim_varying": np.ones(len(grid), bool),
            "units": spec.units,
            "description": spec.description,
        }
    )


def _is_compressed(values: np.ndarray) -> bool:
    return len(np.unique(values)) <= max(MAX_PHASES, values.size // POINTS_PER_VALUE)


def stored_bytes(values: np.ndarray) -> int:
    """About what one sample of a field, in the dtype to store, takes in a file."""
    if not _is_compressed(values):
        return values.nbytes
    shuffled = values.reshape(-1, 1).view(np.uint8).T
    return len(zlib.compress(shuffled.tobytes(), 1))


@dataclasses.dataclass(frozen=True)
class ShardSummary:
    """What reading a whole file found.

    Attributes:
        content_sha256: hash of (path, dtype, shape, bytes) of all data sets, in path
            order; equal content is equal over HDF5 versions and filters.
        quality: column -> [samples].
        moments: field -> [count, mean, M2] over accepted samples, M2 the sum of
            squared distances from the mean, in float64. Fields of several steps have
            another entry, field + `DELTA`, for the changes from step to step.
    """

    content_sha256: str
    quality: dict[str, np.ndarray]
    moments: dict[str, list[float]]


def inspect(path: Path, *, plan_sha256: str, shard_id: str, sample_ids: np.ndarray):
    """Reads every byte of a shard file and checks it.

    Args:
        path: the file.
        plan_sha256: the plan it must belong to.
        shard_id: the shard it must be.
        sample_ids: [samples] the ids it must hold, in order.

    Returns:
        A `ShardSummary`.

    Raises:
        ShardError: if it cannot be read, belongs elsewhere, is incomplete, or has an
            accepted sample that is not finite.
    """
    try:
        with h5py.File(path, "r", locking="best-effort") as file:
            _check_identity(file, plan_sha256, shard_id)
            return _read_all(file, sample_ids)
    except (OSError, KeyError, RuntimeError) as error:
        raise ShardError(f"cannot be read: {error}") from error


def _check_identity(file: h5py.File, plan_sha256: str, shard_id: str) -> None:
    expected = {"plan_sha256": plan_sha256, "shard_id": shard_id, "complete": True}
    for key, value in expected.items():
        if (found := file.attrs.get(key)) != value:
            raise ShardError(f"{key} is {found!r}, expected {value!r}")
    if missing := [name for name in GROUPS if name not in file]:
        raise ShardError(f"groups are missing: {missing}")


def _read_all(file: h5py.File, sample_ids: np.ndarray) -> ShardSummary:
    datasets: dict[str, h5py.Dataset] = {}
    file.visititems(
        lambda name, item: (
            datasets.update({name: item}) if isinstance(item, h5py.Dataset) else None
        )
    )
    quality = {name: file["quality"][name][()] for name in QUALITY_COLUMNS}
    if not np.array_equal(quality["sample_id"], sample_ids):
        raise ShardError("the sample ids are not those of the plan")
    accepted, digest = quality["accepted"], hashlib.sha256()
    moments: dict[str, list[float]] = {}
    for name in sorted(datasets):
        data = datasets[name]
        shape = data.shape or (1,)
        digest.update(f"{name}\0{data.dtype.str}\0{shape}\0".encode())
        is_field = name.startswith(("t0_fields/", "t1_fields/", "t2_fields/"))
        if is_field and len(data) != len(sample_ids):
            raise ShardError(f"{name} has {len(data)} samples")
        for first, values in _blocks(data):
            digest.update(values.reshape(-1).view(np.uint8))
            if is_field:
                rows = first + np.flatnonzero(accepted[first : first + len(values)])
                _add_moments(moments, data, first, values, rows)
    return ShardSummary(digest.hexdigest(), quality, moments)


def _blocks(data: h5py.Dataset) -> Iterator[tuple[int, np.ndarray]]:
    """Reads a data set in blocks of rows, so that memory stays small.

    Yields:
        Number of the first row and the rows, in a buffer that the next block reuses.
    """
    if data.nbytes <= READ_BYTES or data.ndim == 0:
        yield 0, np.ascontiguousarray(data[()])
        return
    per_chunk = data.chunks[0] if data.chunks else 1
    chunk_bytes = per_chunk * data.nbytes // len(data)
    num = per_chunk * max(1, READ_BYTES // chunk_bytes)
    buffer = np.empty((num, *data.shape[1:]), data.dtype)
    for first in range(0, len(data), num):
        values = buffer[: len(data) - first]
        data.read_direct(values, np.s_[first : first + len(values)])
        yield first, values


def _add_moments(moments, data: h5py.Dataset, first: int, values, rows) -> None:
    """Merges the moments of a block of a field, and those of its changes in time.

    Args:
        moments: field -> moments so far.
        data: the field.
        first: number of the first row of the block.
        values: [rows of the block, ...].
        rows: numbers of the accepted rows in the block.
    """
    name = data.name.rsplit("/")[-1]
    kinds = {name: values}
    if data.attrs["time_varying"] and values.shape[1] > 1:
        kinds[f"{name}{DELTA}"] = np.diff(values, axis=1)
    for key, block in kinds.items():
        total = moments.get(key, [0.0, 0.0, 0.0])
        for row in rows:
            if (added := _moments(block[row - first])) is None:
                raise ShardError(f"{data.name[1:]} is not finite at row {row}")
            total = merge_moments(total, added)
        moments[key] = total


def _moments(values: np.ndarray) -> list[float] | None:
    """Count, mean and M2 of a sample, two passes in float64; None if not finite."""
    sample = values.astype(np.float64).ravel()
    mean = float(sample.mean())
    if not np.isfinite(mean):  # cheap, and exact: NaN and inf reach the mean
        return None
    sample -= mean
    np.square(sample, out=sample)
    # Not sample @ sample: BLAS sums in an order that depends on its threads.
    return [sample.size, mean, float(sample.sum())]


def merge_moments(a: list[float], b: list[float]) -> list[float]:
    """Joins [count, mean, M2] of two sets of numbers.

    References:
        Chan, Golub, LeVeque (1983), The American Statistician 37(3), equation 2.1.
    """
    count = a[0] + b[0]
    if count == 0:
        return [0.0, 0.0, 0.0]
    delta = b[1] - a[1]
    mean = a[1] + delta * b[0] / count
    return [count, mean, a[2] + b[2] + delta**2 * a[0] * b[0] / count]
