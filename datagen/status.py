"""How far a data set is, from its ledger, and whether the flows in it are resolved."""

import calendar
import collections
import time
from collections.abc import Mapping
from typing import Any

from datagen.finalize import is_finalized
from datagen.ladder import RUNG_NAMES
from datagen.plan import Plan
from datagen.problems.periodic import RESOLVED
from datagen.progress import duration, fallback_words, megabytes
from datagen.storage import ledger, read

NUM_RECENT = 10  # commits that the rate is taken from


def describe(plan: Plan) -> str:
    """A few lines: shards and samples done, rejected, rate, time left, size."""
    records = list(ledger.load_all(plan.root, plan.shards, plan.sha256).values())
    done = sum(record["num_samples"] for record in records)
    rejected = sum(len(record["quarantined"]) for record in records)
    finished = is_finalized(plan)
    state = "finished" if finished else "not finished"
    if not finished and len(records) == len(plan.shards):
        state = "solved, not finalized"
    lines = [
        f"{plan.root}: {plan.config['name']}, {state}",
        f"shards    {len(records)} of {len(plan.shards)}",
        f"samples   {done} of {plan.num_samples}, {rejected} rejected",
        f"size      {megabytes(sum(record['bytes'] for record in records))}",
    ]
    if records:
        iterations = sum(r["iterations_mean"] * r["num_samples"] for r in records)
        what = "time steps" if plan.evolves else "iterations"
        line = f"solver    {iterations / done:.1f} {what} per sample on average"
        if not plan.evolves and (num := len(plan.content["steps"]["values"])) > 1:
            line += f", over its {num} steps together"
        lines.append(line)
        if fallbacks := fallback_words(plan, _rungs(records)):
            lines.append(f"fallbacks {fallbacks}")
        worst = max(record["true_residual_max"] for record in records)
        words = "residual  {:.2e} at most, recomputed in float64"
        if plan.evolves:
            words = "defect    {:.2e} at most, of the balance laws, relative"
        lines.append(words.format(worst))
        if finished and (warning := unresolved(read.read_manifest(plan.root))):
            lines.append(f"warning   {warning}")
    if (costs := _costs(records)) is not None:
        lines.append(
            "cost      {:.1f} core-ms per sample, {:.1f} in solvers".format(*costs)
        )
    if records and done < plan.num_samples:
        rate = _rate(records)
        left = duration((plan.num_samples - done) / rate) if rate else "unknown"
        lines.append(f"rate      {rate:.1f} samples/s, {left} left once it runs")
    return "\n".join(lines)


def unresolved(manifest: Mapping[str, Any]) -> str:
    """A sentence if the grid of the solver does not resolve the flows, else ""."""
    tail = manifest.get("quality", {}).get("spectrum_tail", {})
    if not tail.get("max", 0.0) > RESOLVED:
        return ""
    return (
        f"spectrum_tail is up to {tail['max']:.1e} (median {tail['q50']:.1e}), but a "
        f"grid that resolves the flow leaves at most {RESOLVED:g} in its highest "
        "modes: choose a larger --config.problem.solver_n"
    )


def _rungs(records: list[dict]) -> dict[str, int]:
    """Samples per rung of all records that tell."""
    counts = collections.Counter()
    for record in records:
        for rung, num in record.get("rungs", {}).items():
            counts[RUNG_NAMES[int(rung)]] += num
    return counts


def _costs(records: list[dict]) -> tuple[float, float] | None:
    """CPU milliseconds per sample, and those inside solvers; None if none tells."""
    timed = [record for record in records if "solve_s" in record]
    if not timed:
        return None
    samples = sum(record["num_samples"] for record in timed)
    cpu, solve = (sum(r[key] for r in timed) for key in ("cpu_s", "solve_s"))
    return 1e3 * cpu / samples, 1e3 * solve / samples


def _rate(records: list[dict]) -> float:
    """Samples per second of the last commits; an adopted file says nothing."""
    timed = [record for record in records if not record["adopted"]]
    recent = sorted(timed, key=lambda record: _seconds(record["end"]))[-NUM_RECENT:]
    wall = sum(record["wall_s"] / record.get("workers", 1) for record in recent)
    return sum(record["num_samples"] for record in recent) / wall if wall else 0.0


def _seconds(stamp: str) -> int:
    return calendar.timegm(time.strptime(stamp, "%Y-%m-%dT%H:%M:%SZ"))
