"""The ledger: one JSON record per committed shard. What it names is done, no more."""

import collections
import json
import os
import platform
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from datagen.storage import commit, read, schemas, well


def path(root: Path, shard_id: str) -> Path:
    """File of a shard's record."""
    return root / "ledger" / f"{shard_id}.json"


def load(root: Path, shard_id: str, plan_sha256: str) -> dict[str, Any] | None:
    """The record of a shard, or None if it is not committed.

    A torn record (of a crash on a file system without links) counts as none.

    Raises:
        DatasetError: if the record belongs to another plan or shard.
    """
    file = path(root, shard_id)
    if not file.exists():
        return None
    try:
        record = read.read_json(file, schemas.LEDGER)
    except read.DatasetError:
        return None
    if (record["plan_sha256"], record["shard"]) != (plan_sha256, shard_id):
        raise read.DatasetError(
            f"{file} is the record of {record['shard']} of another plan; the plan or "
            "this record was replaced: put the former one back"
        )
    return record


def load_all(root: Path, shards, plan_sha256: str) -> dict[str, dict[str, Any]]:
    """Records of all committed shards, by shard id, in the order of the plan."""
    found = ((shard.id, load(root, shard.id, plan_sha256)) for shard in shards)
    return {shard_id: record for shard_id, record in found if record is not None}


def make_record(
    shard,
    file: Path,
    sha256: str,
    summary: well.ShardSummary,
    *,
    plan_sha256: str,
    cost: Mapping[str, Any],
) -> dict[str, Any]:
    """Describes a shard file that was read back whole.

    Args:
        shard: `datagen.plan.Shard`.
        file: the file, for its size.
        sha256: hash of its bytes.
        summary: what `well.inspect` found.
        plan_sha256: the plan it belongs to.
        cost: attempts, adopted, start, end, cpu_s, wall_s.
    """
    quality = summary.quality
    accepted = quality["accepted"]
    residuals = quality["true_rel_residual"][accepted]
    return {
        "schema_version": schemas.SCHEMA_VERSION,
        "plan_sha256": plan_sha256,
        "shard": shard.id,
        "split": shard.split,
        "file": shard.file,
        "bytes": file.stat().st_size,
        "sha256": sha256,
        "content_sha256": summary.content_sha256,
        "num_samples": len(accepted),
        "num_accepted": int(accepted.sum()),
        "quarantined": quality["sample_id"][~accepted].tolist(),
        "iterations_mean": float(np.mean(quality["iterations"])),
        "true_residual_max": float(residuals.max(initial=0.0)),
        "moments": summary.moments,
        "rungs": {
            str(rung): n
            for rung, n in collections.Counter(quality["method"].tolist()).items()
        },
        "engine": "serial",
        "host": socket.gethostname(),
        "cpu": cpu_model(),
        "job_id": os.environ.get("SLURM_JOB_ID", ""),
        **cost,
    }


def write(root: Path, record: Mapping[str, Any]) -> None:
    """Commits a record; of two equal shards the first one stays.

    Raises:
        DatasetError: if another process committed other content for this shard.
        CommitError: if it cannot be written.
    """
    file = path(root, record["shard"])
    text = json.dumps(record, indent=1) + "\n"
    try:
        commit.commit(
            file,
            text.encode(),
            staging=root / "staging",
            kind="ledger",
            exclusive=True,
        )
    except FileExistsError:
        twin = load(root, record["shard"], record["plan_sha256"])
        if twin is None:  # torn: replace it
            file.unlink(missing_ok=True)
            write(root, record)
        elif twin["content_sha256"] != record["content_sha256"]:
            raise read.DatasetError(
                f"{file}: two runs made different content for {record['shard']}; they "
                "ran with other library versions or on other processors: delete "
                f"{root / record['file']} and this record and run once more"
            ) from None


def cpu_model() -> str:
    """Name of the processor; bytes are promised per processor type."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def now() -> str:
    """Date and time, UTC, for records."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
