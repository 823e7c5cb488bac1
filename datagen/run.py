"""Makes the shards of a plan, one after the other, and commits each as it is done."""

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import platform
import shutil
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from datagen.batches import Batches
from datagen.chain import Chain
from datagen.ladder import Solved
from datagen.plan import Plan, Shard, steps_of
from datagen.provenance import provenance
from datagen.reports import SampleReport
from datagen.storage import commit, ledger, well

Record = dict[str, Any]
SampleFn = Callable[[SampleReport], None]
LONG_SECONDS = 60.0  # a batch that takes longer is timed once, compilation included


class RunError(RuntimeError):
    """Samples cannot be made: one sentence, with the cause."""


@dataclasses.dataclass(frozen=True)
class Timing:
    """What one sample costs.

    Attributes:
        compile_seconds: what the first sample took beyond a later one.
        seconds: sampling, solving and checking one sample.
        num_bytes: room it takes in a file, about.
        failures: why the planned method did not solve it; empty if it did.
        solved: whether any method did.
    """

    compile_seconds: float
    seconds: float
    num_bytes: int
    failures: tuple[str, ...] = ()
    solved: bool = True


def time_sample(plan: Plan, shard: Shard) -> Timing:
    """Solves the first two samples of a shard, or its first batch twice.

    The first time compiles. The second sample is the first again where there is only
    one, and a batch that takes long is not integrated again. Nothing is kept.
    """
    solver, seconds = shard_solver(plan, shard, plan.problem()), []
    with contextlib.closing(solver):
        for place in (0, 1):
            if seconds and seconds[0] > LONG_SECONDS and plan.evolves:
                break
            start = time.perf_counter()
            several = solver.solve_some(place)
            seconds.append((time.perf_counter() - start) / len(several))
    solved = several[0]
    dtype = plan.config["storage"]["dtype"]
    fields = (solved.fields or {}).values()
    num_bytes = sum(well.stored_bytes(values.astype(dtype)) for values in fields)
    first = max(0.0, seconds[0] - seconds[-1]) * len(several)
    return Timing(first, seconds[-1], num_bytes, solved.failures, solved.accepted)


def pending(plan: Plan) -> list[Shard]:
    """Shards without a ledger record."""
    done = ledger.load_all(plan.root, plan.shards, plan.sha256)
    return [shard for shard in plan.shards if shard.id not in done]


def run(
    plan: Plan,
    *,
    poll: Callable[[], None],
    on_sample: SampleFn,
    on_shard: Callable[[Record, bool], None],
) -> None:
    """Makes what is missing in this process, shard by shard.

    Args:
        plan: see `datagen.plan`.
        poll: called before every sample; raises to stop.
        on_sample: called with a report of every solved sample.
        on_shard: called with every ledger record as it is committed, and whether its
            samples were solved here just now.

    Raises:
        RunError: if not one sample of a shard can be solved.
        CommitError: if a file cannot be written.
        DatasetError: if committed files contradict the plan.
    """
    commit.clean_staging(plan.staging)
    problem = plan.problem()
    for shard in pending(plan):
        poll()
        on_shard(*make_shard(plan, shard, problem, poll=poll, on_sample=on_sample))


def make_shard(
    plan: Plan, shard: Shard, problem, *, poll, on_sample: SampleFn, **cost: Any
) -> tuple[Record, bool]:
    """Makes a shard unless it is there, and returns its record and whether it did.

    Another run in the same folder may have been faster, or may make the same shard at
    this moment; both are harmless.

    Args:
        plan: the plan.
        shard: the shard.
        problem: `plan.problem()`.
        poll: called before every sample; raises to stop.
        on_sample: called with a report of every solved sample.
        **cost: entries of the ledger record, such as attempts and workers.
    """
    record = ledger.load(plan.root, shard.id, plan.sha256) or adopt(plan, shard)
    if record is not None:
        return record, False
    kwargs = {"poll": poll, "on_sample": on_sample, **cost}
    return run_shard(plan, shard, problem, **kwargs), True


def adopt(plan: Plan, shard: Shard) -> Record | None:
    """Takes over a file whose run died between file and ledger record.

    A file that does not hold up is moved to quarantine/ and made again.
    """
    file = plan.root / shard.file
    if not file.exists():
        return None
    try:
        summary = _inspect(plan, shard, file)
    except well.ShardError as error:
        folder = plan.root / "quarantine"
        folder.mkdir(exist_ok=True)
        os.replace(file, folder / f"{shard.id}.{time.time_ns()}.damaged")
        log_event(plan, {"event": "damaged", "shard": shard.id, "cause": str(error)})
        return None
    cost = _cost(plan, ledger.now(), 0.0, 0.0, adopted=True)
    record = ledger.make_record(
        shard,
        file,
        commit.sha256(file),
        summary,
        plan_sha256=plan.sha256,
        cost=cost,
    )
    ledger.write(plan.root, record)
    log_event(plan, {"event": "adopted", "shard": shard.id})
    return record


def run_shard(
    plan: Plan, shard: Shard, problem, *, poll, on_sample: SampleFn, **more: Any
) -> Record:
    """Solves and commits one shard, and returns its ledger record."""
    began, wall, cpu = ledger.now(), time.perf_counter(), time.process_time()
    content, rejected, solve_seconds = solve_shard(
        plan, shard, problem, poll, on_sample
    )
    for sample_id, solved in rejected.items():
        quarantine(plan, shard, sample_id, solved)
    image = well.encode(content)
    file = plan.root / shard.file
    summary = commit.commit(
        file,
        image,
        staging=plan.staging,
        kind="shard",
        check=lambda path: _inspect(plan, shard, path),
    )
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    cost = _cost(plan, began, cpu, wall) | {"solve_s": solve_seconds} | more
    record = ledger.make_record(
        shard,
        file,
        hashlib.sha256(image).hexdigest(),
        summary,
        plan_sha256=plan.sha256,
        cost=cost,
    )
    ledger.write(plan.root, record)
    log_event(plan, {"event": "committed", "shard": shard.id, **cost})
    return record


def solve_shard(
    plan: Plan, shard: Shard, problem, poll: Callable[[], None], on_sample: SampleFn
) -> tuple[well.ShardContent, dict[int, Solved], float]:
    """Solves the samples of a shard in order.

    Returns:
        The content of the file, the rejected samples by id, and the CPU seconds spent
        inside solvers.

    Raises:
        RunError: if none of several samples could be solved, which no sample's bad luck
            explains.
    """
    ids = plan.sample_ids(shard)
    fields = _empty_fields(plan, problem, len(ids))
    columns = plan.content.get("quality", {})
    kinds = well.QUALITY_COLUMNS | dict.fromkeys(columns, np.float64)
    quality = {name: np.zeros(len(ids), kind) for name, kind in kinds.items()}
    rejected = {}
    with contextlib.closing(shard_solver(plan, shard, problem)) as solver:
        everything = zip(ids.tolist(), solver.solve_all(poll), strict=True)
        for row, (sample_id, solved) in enumerate(everything):
            for name, values in _quality(plan, sample_id, row, solved).items():
                quality[name][row] = values
            if solved.accepted:
                for name, values in solved.fields.items():
                    fields[name][row] = values
            else:
                rejected[sample_id] = solved
            on_sample(SampleReport.of(shard.id, sample_id, solved))
    if len(rejected) == len(ids) > 1:
        cause = "; ".join(next(iter(rejected.values())).failures)
        raise RunError(
            f"not one of the {len(ids)} samples of {shard.id} could be solved: {cause}"
        )
    content = well.ShardContent(
        dataset_name=plan.config["name"],
        shard_id=shard.id,
        plan_sha256=plan.sha256,
        coordinates={axis: problem.coordinates[axis] for axis in problem.axes},
        boundaries=problem.boundaries,
        scalars=problem.scalars,
        specs=problem.fields,
        fields=fields,
        quality=quality,
        provenance=provenance(plan.solver),
        steps=steps_of(problem),
        step_name=plan.content["steps"]["name"],
        mesh=getattr(problem, "mesh", None),
        quality_columns=columns,
    )
    return content, rejected, solver.solve_seconds


def shard_solver(plan: Plan, shard: Shard, problem) -> Chain | Batches:
    """What solves the samples of a shard, in order."""
    return (Batches if plan.evolves else Chain)(plan, shard, problem)


def _empty_fields(plan: Plan, problem, num: int) -> dict[str, np.ndarray]:
    """NaN for every field: [num, *grid], or [num, T, *grid] with steps."""
    grid, dtype = plan.content["grid"]["shape"], plan.config["storage"]["dtype"]
    steps = steps_of(problem)
    steps = () if steps is None else (len(steps),)
    return {
        spec.name: np.full(
            (num, *(steps if spec.time_varying else ()), *grid), np.nan, dtype
        )
        for spec in problem.fields
    }


def _quality(plan: Plan, sample_id: int, row: int, solved: Solved) -> dict[str, Any]:
    records = solved.records
    residuals = [record.relative_residual for record in records]
    converged = all(record.converged for record in records)
    return {
        "sample_id": sample_id,
        "chain_pos": row,
        "method": solved.rung,
        "converged_reason": (1 if converged else -1) if records else 0,
        "iterations": solved.total("iterations"),
        "matvecs": solved.total("matvecs"),
        "recycle_dim": max((record.recycle_dim for record in records), default=0),
        "fallbacks": len(solved.failures) + sum(len(r.fallbacks) for r in records),
        "solver_rel_residual": max(residuals, default=np.nan),
        "true_rel_residual": solved.true_residual,
        "algebraic_error": solved.algebraic_error,
        "discretisation_error": solved.discretisation_error,
        "failed_step": solved.failed_step,
        "accepted": solved.accepted,
    } | {k: solved.quality.get(k, np.nan) for k in plan.content.get("quality", {})}


def quarantine(plan: Plan, shard: Shard, sample_id: int, solved: Solved) -> None:
    """Writes what is known of a rejected sample, so that it can be looked at."""
    buffer = io.BytesIO()
    np.savez(buffer, **(solved.sample or {}))
    reason = {
        "sample_id": sample_id,
        "shard": shard.id,
        "seed": plan.config["seed"],
        "failures": list(solved.failures),
        "failed_step": solved.failed_step,
        "true_rel_residual": repr(solved.true_residual),
        "plan_sha256": plan.sha256,
    }
    for suffix, content in (
        (".npz", buffer.getvalue()),
        (".json", (json.dumps(reason, indent=1) + "\n").encode()),
    ):
        path = plan.root / "quarantine" / f"{sample_id}{suffix}"
        commit.commit(path, content, staging=plan.staging, kind="quarantine")


def _inspect(plan: Plan, shard: Shard, path) -> well.ShardSummary:
    return well.inspect(
        path,
        plan_sha256=plan.sha256,
        shard_id=shard.id,
        sample_ids=plan.sample_ids(shard),
    )


def _cost(plan: Plan, start: str, cpu: float, wall: float, *, adopted: bool = False):
    choice = plan.solver["choice"]
    return {
        "method": choice["method"],
        "reason": choice["reason"],
        "attempts": 1,
        "adopted": adopted,
        "start": start,
        "end": ledger.now(),
        "cpu_s": cpu,
        "wall_s": wall,
    }


def log_event(plan: Plan, event: dict[str, Any]) -> None:
    """Appends a line to this process's log, if that can be written."""
    folder = plan.root / "logs"
    name = f"{platform.node()}-{os.getpid()}.jsonl"
    try:
        folder.mkdir(exist_ok=True)
        with (folder / name).open("a") as file:
            file.write(json.dumps({"time": ledger.now(), **event}) + "\n")
    except OSError:
        pass


def free_bytes(plan: Plan) -> int:
    """Room on the file system of the data set."""
    return shutil.disk_usage(plan.root).free


def num_rejected(plan: Plan) -> int:
    """Samples in quarantine, over all committed shards."""
    records = ledger.load_all(plan.root, plan.shards, plan.sha256)
    return sum(len(record["quarantined"]) for record in records.values())
