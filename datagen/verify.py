"""Compares a data set with its plan, ledger and manifest; names all that is wrong."""

import re
from collections.abc import Callable, Iterator

from datagen.finalize import stats_yaml
from datagen.plan import Plan
from datagen.progress import measure
from datagen.storage import commit, ledger, read, well


def problems(
    plan: Plan, *, full: bool = True, poll: Callable[[], None] = lambda: None
) -> Iterator[str]:
    """Yields one sentence per problem; none if the data set is whole.

    Args:
        plan: a plan that was read with its own hash checked.
        full: read every file through HDF5 and compare its content with plan and
            ledger; otherwise bytes are compared with the manifest only.
        poll: called before every file; raises to stop.
    """
    try:
        manifest = read.read_manifest(plan.root)
    except read.DatasetError as error:
        yield str(error)
        return
    if manifest["plan_sha256"] != plan.sha256:
        yield (
            f"{plan.root}/manifest.json belongs to another plan: delete it and run "
            f"`python -m datagen generate --out {plan.root}`"
        )
        return
    planned = {shard.file: shard for shard in plan.shards}
    listed = {entry["path"]: entry for entry in manifest["files"]}
    if set(planned) != set(listed):
        names = sorted(set(planned) ^ set(listed))
        yield f"{plan.root}: plan and manifest name different files: {names}"
    yield from _strangers(plan, set(planned))
    for entry in manifest["files"]:
        poll()
        problem = read.file_problem(plan.root, entry, manifest["files"])
        if problem:
            yield problem
        elif full and entry["path"] in planned:
            yield from _content(plan, planned[entry["path"]], entry)
    yield from _small_files(plan)


def _strangers(plan: Plan, planned: set[str]) -> Iterator[str]:
    """Files that foreign readers would take for a part of the data."""
    for path in sorted((plan.root / "data").rglob("*")):
        name = path.relative_to(plan.root).as_posix()
        if path.is_file() and name not in planned:
            yield f"{path} is not in the plan: move it away"


def _content(plan: Plan, shard, entry) -> Iterator[str]:
    path = plan.root / shard.file
    advice = (
        f"delete it and {ledger.path(plan.root, shard.id)} and run `python -m datagen "
        f"generate --out {plan.root}` to make it again"
    )
    try:
        summary = well.inspect(
            path,
            plan_sha256=plan.sha256,
            shard_id=shard.id,
            sample_ids=plan.sample_ids(shard),
        )
    except well.ShardError as error:
        yield f"{path}: {error}; {advice}"
        return
    if summary.content_sha256 != entry["content_sha256"]:
        yield f"{path}: its content is not what the manifest records; {advice}"
    quality = summary.quality
    accepted = quality["accepted"]
    limit = plan.solver["accept_rtol"]
    if not (quality["true_rel_residual"][accepted] <= limit).all():
        yield (
            f"{path}: an accepted sample has a {measure(plan)} above {limit}; {advice}"
        )
    record = ledger.load(plan.root, shard.id, plan.sha256)
    if record is None:
        yield f"{ledger.path(plan.root, shard.id)} is missing or torn; {advice}"
    elif record["content_sha256"] != summary.content_sha256:
        yield f"{path}: its content is not what the ledger records; {advice}"


def _small_files(plan: Plan) -> Iterator[str]:
    """Files beside the data, against checksums.sha256 and, for stats, the ledger."""
    path = plan.root / "checksums.sha256"
    advice = f"delete it and run `python -m datagen generate --out {plan.root}`"
    if not path.exists():
        yield f"{path} is missing: run `python -m datagen generate --out {plan.root}`"
        return
    for line in path.read_text().splitlines():
        if not (match := re.fullmatch(r"([0-9a-f]{64})  (.+)", line)):
            yield f"{path} has a line that is no checksum: {line!r}; {advice}"
            continue
        digest, name = match.groups()
        file = plan.root / name
        if name.startswith("data/"):
            continue  # compared with the manifest
        if not file.exists():
            yield f"{file} is missing; {advice.replace('delete it and ', '')}"
        elif commit.sha256(file) != digest:
            yield f"{file} was changed after it was written; {advice}"
    records = ledger.load_all(plan.root, plan.shards, plan.sha256)
    stats = plan.root / "stats.yaml"
    complete = len(records) == len(plan.shards)
    if complete and stats.exists() and stats.read_text() != stats_yaml(plan, records):
        yield f"{stats} does not fit the data; {advice}"
