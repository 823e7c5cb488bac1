"""What a run tells its user: size and time beforehand, then a bar or lines."""

import heapq
import time
from typing import Any

import tqdm

from datagen import run
from datagen.environment import usable_cores
from datagen.plan import SPLITS, Plan
from datagen.reports import SampleReport
from datagen.storage import ledger

FILE_OVERHEAD = 60_000  # bytes of groups and attributes per file


class Progress:
    """Samples done, rate, time left, current shard and worst true residual so far.

    On a terminal a bar; otherwise one line per committed shard.

    Args:
        plan: the plan.
        stream: where to write; None: standard error.
    """

    def __init__(self, plan: Plan, stream=None):
        records = ledger.load_all(plan.root, plan.shards, plan.sha256).values()
        self._residual = max((r["true_residual_max"] for r in records), default=0.0)
        self._rejected = sum(len(r["quarantined"]) for r in records)
        self._num_shards, self._total = len(plan.shards), plan.num_samples
        self._shards, self._done = len(records), sum(r["num_samples"] for r in records)
        self._recycled, self._reason = 0, ""
        self._measure = measure(plan)
        self._start, self._solved, self._shown = time.monotonic(), 0, 0.0
        self._bar = tqdm.tqdm(
            total=self._total,
            initial=self._done,
            unit="sample",
            file=stream,
            disable=None,  # where it is no terminal
            dynamic_ncols=True,
            mininterval=0.2,
        )

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._bar.close()

    def sample(self, report: SampleReport) -> None:
        """Counts one solved sample."""
        self._solved += 1
        self._recycled += report.recycled
        self._reason = report.bypass or self._reason
        if report.accepted:
            self._residual = max(self._residual, report.true_residual)
        else:
            self._rejected += 1
            self.write(
                f"{report.shard}: sample {report.sample_id} goes to quarantine: "
                f"{'; '.join(report.failures)}"
            )
        if not self._bar.disable:
            if time.monotonic() - self._shown > 0.2:
                self._shown = time.monotonic()
                self._bar.set_postfix_str(self._details(report.shard), refresh=False)
            self._bar.update()

    def shard(self, record, made: bool) -> None:
        """Counts one committed shard, made here or found finished."""
        self._shards += 1
        self._done += record["num_samples"]
        if not (made or self._bar.disable):
            self._bar.update(record["num_samples"])
        self._residual = max(self._residual, record["true_residual_max"])
        if self._bar.disable:
            seconds = max(time.monotonic() - self._start, 1e-9)
            rate = self._solved / seconds
            left = (self._total - self._done) / rate if rate else 0.0
            self.write(
                f"{self._done}/{self._total} samples, {self._shards}/{self._num_shards}"
                f" shards, {rate:.1f} samples/s, {duration(left)} left, "
                f"{self._details(record['shard'])}"
            )

    def lost(self, reports: list[SampleReport], sentence: str) -> None:
        """Takes back the samples of a shard whose process died, and says so."""
        self._solved -= len(reports)
        self._recycled -= sum(report.recycled for report in reports)
        self._rejected -= sum(not report.accepted for report in reports)
        if not self._bar.disable:
            self._bar.update(-len(reports))
        self.write(sentence)

    def recycling(self) -> str:
        """In how many samples of this run something was recycled, and why not in all.

        Systems of one sample count as one: recycled if any of them was.
        """
        text = recycled(self._recycled, self._solved)
        return f"{text} (last reason: {self._reason})" if self._reason else text

    def _details(self, shard_id: str) -> str:
        rejected = f", {self._rejected} rejected" if self._rejected else ""
        return f"{shard_id}, {self._measure} <= {self._residual:.1e}{rejected}"

    def write(self, line: str) -> None:
        """Prints a line above the bar."""
        if self._bar.disable:
            print(line, flush=True)
        else:
            self._bar.write(line)


def announce(
    plan: Plan, missing: list, timing: run.Timing, num_workers: int = 1
) -> None:
    """Says what a run will make, how large it is and how long it takes."""
    samples = sum(shard.stop - shard.start for shard in missing)
    tried = "a batch integrated" if plan.evolves else "two solved"
    splits = ", ".join(f"{plan.config['splits'][split]} {split}" for split in SPLITS)
    size = plan.num_samples * timing.num_bytes + FILE_OVERHEAD * len(plan.shards)
    print(
        f"{plan.config['name']}: {plan.num_samples} samples ({splits}), {points(plan)}"
    )
    print(f"{plan.content['equation']}")
    print(describe_solver(plan))
    print(f"{plan.root}: about {megabytes(size)} in {len(plan.shards)} files")
    hands = ""
    if num_workers > 1:
        hands = f" in {num_workers} processes, once they have started,"
    print(
        f"{samples} samples to make, about "
        f"{duration(makespan(missing, timing.seconds, num_workers))}{hands} at "
        f"{milliseconds(timing.seconds)} each ({tried} to tell"
        f"{_compilation(timing)})",
        flush=True,
    )
    if timing.failures:
        what = "the sample timed could not be made"
        if timing.solved:
            what = f"{plan.solver['method']} failed on the sample timed; a fallback did"
            if plan.evolves:
                what = "the sample timed needed a smaller time step"
        print(f"warning: {what}: {timing.failures[0]}", flush=True)
    needed = size * samples / max(plan.num_samples, 1)
    if needed > (free := run.free_bytes(plan)):
        print(
            f"warning: {megabytes(needed)} may be needed and {megabytes(free)} are "
            "free; if the disk fills up, make room and run the same command again",
            flush=True,
        )


def measure(plan: Plan) -> str:
    """What samples are accepted on."""
    return "balance defect" if plan.evolves else "true residual"


def makespan(shards: list, seconds: float, num_workers: int) -> float:
    """How long so many processes are busy, on no more cores than there are.

    Args:
        shards: handed out in this order, each to the first process that is free.
        seconds: of one sample on one core.
        num_workers: processes.
    """
    free = [0] * num_workers  # samples that each has made when it is free again
    for shard in shards:
        heapq.heapreplace(free, free[0] + shard.stop - shard.start)
    crowding = max(1.0, num_workers / usable_cores())
    return max(free) * seconds * crowding


def recycles(solver: dict[str, Any]) -> bool:
    """Whether the planned method keeps vectors from one system to the next."""
    return solver["carries"] and "k" in solver["settings"]


def recycled(num: int, total: int) -> str:
    """In how many samples vectors were recycled."""
    text = f"recycled in {num} of {total} samples"
    if num < total:
        text += f"; started, bypassed or dropped in {total - num}"
    return text


def fallback_words(plan: Plan, rungs: dict[str, int]) -> str:
    """How many samples needed a fallback: "96 of 96 samples by fallback direct".

    Args:
        plan: the plan.
        rungs: samples per rung, as in the manifest.

    Returns:
        The words, empty if none did; of trajectories, how many needed smaller steps.
    """
    others = [f["method"] for f in plan.solver["fallbacks"] if f["method"] != "direct"]
    names = {"fallback": " or ".join(others), "direct": "direct"}
    total = sum(rungs.values())
    if num := rungs.get("half_step"):
        return f"{num} of {total} samples with a smaller time step"
    return ", ".join(
        f"{rungs[rung]} of {total} samples by fallback {name}"
        for rung, name in names.items()
        if rungs.get(rung)
    )


def points(plan: Plan) -> str:
    """Grid or mesh, and steps, of a sample."""
    grid, steps = plan.content["grid"], plan.content["steps"]
    text = f"grid {' x '.join(map(str, grid['shape']))}"
    if grid["axes"] == ["node"]:
        text = f"mesh of {grid['shape'][0]} nodes"
    if len(values := steps["values"]) > 1:
        text += f", {len(values)} steps ({steps['name']} {values[0]:g} to "
        text += f"{values[-1]:g})"
    return text


def _compilation(timing: run.Timing) -> str:
    if timing.compile_seconds < 0.1:
        return ""
    return f"; the first one took {timing.compile_seconds:.1f} s more"


def solver_words(solver: dict[str, Any]) -> list[str]:
    """What is worth telling of the settings of a method: "m 40", "k 20"."""
    hidden = {"spd", *(() if solver["settings"].get("frozen") else ("frozen",))}
    return [f"{k} {v}" for k, v in solver["settings"].items() if k not in hidden]


def describe_solver(plan: Plan) -> str:
    """Method, settings and ordering in a line, and one per split that was sorted."""
    solver = plan.solver
    words = solver_words(solver)
    if plan.evolves:
        return (
            f"scheme {' '.join([solver['method'], *words])}; accepted up to a balance "
            f"defect of {solver['accept_rtol']:g}"
        )
    fallbacks = " then ".join(f["method"] for f in solver["fallbacks"]) or "none"
    line = f"method {' '.join([solver['method'], *words])}; ordering "
    line += f"{solver['ordering']}; fallbacks {fallbacks}"
    if why := choice_words(solver):
        line += f"\n{why}"
    if solver["ordering"] != "none" and not solver["carries"]:
        line += (
            f"\nnote: {solver['method']} carries nothing from sample to sample, so "
            f"ordering {solver['ordering']} saves it nothing"
        )
    for split, steps in plan.content["sort_statistics"].items():
        if plan.config["splits"][split] == steps.get("not_sortable"):
            line += f"\norder of {split}: by id, no sample has finite features"
            continue
        line += (
            f"\norder of {split}: mean step {steps['mean_step']:.4g}, unsorted "
            f"{steps['unsorted']:.4g}, nearest neighbours {steps['nearest']:.4g}"
        )
        if num := steps.get("not_sortable"):
            line += f"; {num:.0f} without finite features come last"
    return line


def choice_words(solver: dict[str, Any]) -> str:
    """Why auto chose the method; empty where the config names it."""
    choice = solver["choice"]
    return f"auto chose it: {choice['reason']}" if choice["asked"] == "auto" else ""


def milliseconds(seconds: float) -> str:
    """The time of a sample for people."""
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def megabytes(num: float) -> str:
    """A number of bytes for people."""
    return f"{num / 1e9:.2f} GB" if num >= 1e9 else f"{num / 1e6:.1f} MB"


def duration(seconds: float) -> str:
    """A time span for people."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
