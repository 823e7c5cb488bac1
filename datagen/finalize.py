"""Closes a data set: stats.yaml, README.md, manifest.json and checksums.sha256."""

import dataclasses
import json
import math
from typing import Any

import h5py
import numpy as np

from datagen.ladder import rung_counts
from datagen.plan import SPLITS, Plan
from datagen.readme import readme
from datagen.storage import commit, ledger, read, schemas, well

FORMATS = ["the_well"]
FILES = ("stats.yaml", "README.md", "manifest.json", "checksums.sha256")


def is_finalized(plan: Plan) -> bool:
    """Whether all shards are committed and all that describes them is there."""
    described = all((plan.root / name).exists() for name in FILES)
    records = ledger.load_all(plan.root, plan.shards, plan.sha256)
    return described and len(records) == len(plan.shards)


def finalize(plan: Plan) -> dict[str, Any]:
    """Writes what describes the whole data set, and returns the manifest.

    Doing it again gives the same bytes.

    Raises:
        DatasetError: if a shard is not committed, or its file cannot be read.
        CommitError: if a file cannot be written.
    """
    commit.clean_staging(plan.staging)
    records = ledger.load_all(plan.root, plan.shards, plan.sha256)
    if missing := [shard.id for shard in plan.shards if shard.id not in records]:
        raise read.DatasetError(
            f"{plan.root}: {len(missing)} of {len(plan.shards)} shards are missing "
            f"(first {missing[0]}): run `python -m datagen run --out {plan.root}`"
        )
    manifest = make_manifest(plan, records)
    files = {
        "stats.yaml": stats_yaml(plan, records),
        "README.md": readme(plan, manifest),
        "manifest.json": json.dumps(manifest, indent=1) + "\n",
    }
    hashes = {record["file"]: record["sha256"] for record in records.values()}
    for name, text in files.items():
        _commit(plan, name, text)
        hashes[name] = commit.sha256(plan.root / name)
    arrays = ["order.npy"] if plan.parents is None else ["order.npy", "parents.npy"]
    for name in ("plan.json", *arrays):
        hashes[name] = commit.sha256(plan.root / name)
    lines = (f"{digest}  {name}\n" for name, digest in sorted(hashes.items()))
    _commit(plan, "checksums.sha256", "".join(lines))
    return manifest


def _commit(plan: Plan, name: str, text: str) -> None:
    kind = name.partition(".")[0]
    path = plan.root / name
    commit.commit(path, text.encode(), staging=plan.staging, kind=kind)


def make_manifest(plan: Plan, records: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Puts the manifest together from ledger and quality records."""
    problem = plan.problem()
    quality, provenance = _quality(plan)
    accepted = quality["accepted"]
    counts = {}
    for split in SPLITS:
        planned = plan.config["splits"][split]
        ours = [r for r in records.values() if r["split"] == split]
        good = sum(r["num_accepted"] for r in ours)
        counts[split] = {
            "planned": planned,
            "accepted": good,
            "quarantined": planned - good,
        }
    manifest = {
        "schema_version": schemas.SCHEMA_VERSION,
        "name": plan.config["name"],
        "equation": plan.content["equation"],
        "plan_sha256": plan.sha256,
        "files": [
            {
                "path": record["file"],
                "shard": record["shard"],
                "split": record["split"],
                "n": record["num_samples"],
                "accepted": record["num_accepted"],
                "bytes": record["bytes"],
                "sha256": record["sha256"],
                "content_sha256": record["content_sha256"],
            }
            for record in records.values()
        ],
        "counts": counts,
        "fields": plan.content["fields"],
        "coordinates": {a: problem.coordinates[a].tolist() for a in problem.axes},
        "boundaries": [dataclasses.asdict(b) for b in problem.boundaries],
        "scalars": problem.scalars,
        "dtype": plan.config["storage"]["dtype"],
        "true_residual": _quantiles(quality["true_rel_residual"][accepted]),
        "iterations": _quantiles(quality["iterations"][accepted]),
        "algebraic_error": _known(quality["algebraic_error"][accepted]),
        "discretisation_error": _known(quality["discretisation_error"][accepted]),
        "ladder": rung_counts(quality["method"]),
        "fallbacks": {
            "samples": int(np.count_nonzero(quality["fallbacks"])),
            "total": int(quality["fallbacks"].sum()),
        },
        "recycling": {
            "samples": len(accepted),
            "recycled": int(np.count_nonzero(quality["recycle_dim"])),
        },
        "steps": plan.content["steps"],
        "solver": plan.solver,
        "versions": provenance,
        "formats": FORMATS,
        "costs": {"cpu_seconds": sum(r["cpu_s"] for r in records.values())},
        "code": plan.content["code"],
    }
    if columns := plan.content.get("quality"):
        manifest["quality"] = {c: _range(quality[c][accepted]) for c in columns}
    manifest["manifest_sha256"] = read.manifest_sha256(manifest)
    if problem := schemas.violation(manifest, schemas.MANIFEST):
        raise read.DatasetError(f"the manifest would break its schema: {problem}")
    return manifest


def _quantiles(values: np.ndarray) -> dict[str, float]:
    if values.size == 0:
        return {}
    q50, q95, q99, largest = np.quantile(values, [0.5, 0.95, 0.99, 1.0]).tolist()
    return {"q50": q50, "q95": q95, "q99": q99, "max": largest}


def _known(values: np.ndarray) -> dict[str, float]:
    """Number, mean and quantiles of the estimates there are; {} without any."""
    found = values[np.isfinite(values)]
    if found.size == 0:
        return {}
    return {"num": found.size, "mean": float(found.mean()), **_quantiles(found)}


def _range(values: np.ndarray) -> dict[str, float]:
    """As `_known`, with the smallest one; for numbers that need not be small."""
    known = _known(values)
    return known and {"min": float(values[np.isfinite(values)].min()), **known}


def _quality(plan: Plan):
    """All quality columns, and the provenance of the first file."""
    tables, provenance = [], {}
    columns = [*well.QUALITY_COLUMNS, *plan.content.get("quality", {})]
    for shard in plan.shards:
        path = plan.root / shard.file
        try:
            with h5py.File(path, "r", locking="best-effort") as file:
                group = file["quality"]
                tables.append({k: group[k][()] for k in columns})
                provenance = provenance or dict(file["provenance"].attrs)
        except (OSError, KeyError) as error:
            raise read.DatasetError(
                f"{path} cannot be read ({error}): delete it and "
                f"{ledger.path(plan.root, shard.id)} and run `python -m datagen "
                f"generate --out {plan.root}`"
            ) from error
    table = {k: np.concatenate([t[k] for t in tables]) for k in tables[0]}
    return table, provenance


def stats_yaml(plan: Plan, records: dict[str, dict[str, Any]]) -> str:
    """Mean, std and rms of every field over the accepted training samples.

    Where there are none, as in sets for tests alone, over all accepted ones. Merged
    from the moments of the shards in their order, in float64; deltas are the changes
    from one step to the next. A stationary solution has one step and so none:
    mean_delta is 0 and std_delta and rms_delta are 1, with which foreign normalisers do
    nothing.
    """
    train = [r["moments"] for r in records.values() if r["split"] == "train"]
    train = train or [r["moments"] for r in records.values()]
    stats: dict[str, dict[str, float]] = {"mean": {}, "std": {}, "rms": {}}
    stats |= {"mean_delta": {}, "std_delta": {}, "rms_delta": {}}
    for field in plan.content["fields"]:
        name = field["name"]
        entries = [("", name)]
        if field["time_varying"]:
            entries.append(("_delta", name + well.DELTA))
        for suffix, key in entries:
            total = [0.0, 0.0, 0.0]
            for moments in train:
                total = well.merge_moments(total, moments.get(key, [0.0] * 3))
            count, mean, m2 = total
            variance = m2 / count if count else float(suffix == "_delta")
            stats[f"mean{suffix}"][name] = mean
            stats[f"std{suffix}"][name] = math.sqrt(variance)
            stats[f"rms{suffix}"][name] = math.sqrt(variance + mean**2)
    lines = []
    for key, values in stats.items():
        lines.append(f"{key}:\n" if values else f"{key}: {{}}\n")
        # YAML takes 1e-05 for a string; 1.0e-05 is a number everywhere.
        lines += [f"  {name}: {_yaml(value)}\n" for name, value in values.items()]
    return "".join(lines)


def _yaml(value: float) -> str:
    mantissa, e, exponent = repr(float(value)).partition("e")
    return (mantissa if "." in mantissa else f"{mantissa}.0") + e + exponent
