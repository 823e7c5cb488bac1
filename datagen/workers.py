"""Local worker processes over one ledger: the parent hands out shards one by one.

A worker that dies loses the shard it had and nothing else: another one takes its place
and the shard is made again, `MAX_ATTEMPTS` times at most and after all the others. What
a worker says in a sentence (a full disk, a shard without a solvable sample) ends the
run at once, as it would in one process. The bytes are the same for any number of
workers, since a shard is a function of plan and shard number.
"""

import collections
import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from datagen import run
from datagen.environment import settings, usable_cores
from datagen.plan import Plan, PlanError, Shard
from datagen.reports import SampleReport
from datagen.storage import commit

COMMAND = (sys.executable, "-m", "datagen.worker")
MAX_ATTEMPTS = 3  # of a shard; and starts in a row that come to nothing
MAX_PER_CORE = 4
POLL_SECONDS = 0.1
GRACE_SECONDS = 2.0  # for workers to leave by themselves, before they are killed


def number(text: str) -> int:
    """The number of workers from `--workers`.

    Raises:
        PlanError: if it is none, or makes no sense on this machine.
    """
    cores = usable_cores()
    if text == "auto":
        return cores
    num, limit = int(text) if text.isdecimal() else 0, MAX_PER_CORE * cores
    if not 1 <= num <= limit:
        raise PlanError(
            f"--workers is {text!r}; expected 'auto' or 1 to {limit}, as {cores} "
            f"core{'s' * (cores > 1)} can be used here"
        )
    return num


class Worker:
    """One child process and the shard it is making.

    Args:
        root: folder of the data set.

    Attributes:
        shard: the shard; None while it has none.
        reports: its samples so far.
        ready: whether it has started up.
    """

    def __init__(self, root: Path):
        self.shard: Shard | None = None
        self.reports: list[SampleReport] = []
        self.ready = False
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `close`
        self._rest = b""
        package = str(Path(__file__).parents[1])
        paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
        self.process = subprocess.Popen(
            [*COMMAND, str(root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=os.environ | settings() | {"PYTHONPATH": os.pathsep.join(paths)},
        )

    def give(self, shard: Shard, attempt: int, num_workers: int) -> None:
        """Hands over a shard; a worker that is dead by now is found out later."""
        self.shard, self.reports = shard, []
        task = {"shard": shard.id, "attempt": attempt, "workers": num_workers}
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(task).encode() + b"\n")
            self.process.stdin.flush()

    def messages(self) -> Iterator[dict[str, Any] | None]:
        """What came, None at the end of its life; call when there is something."""
        content = os.read(self.process.stdout.fileno(), 1 << 16)
        *lines, self._rest = (self._rest + content).split(b"\n")
        yield from map(json.loads, lines)
        if not content:
            yield None

    def cause_of_death(self) -> str:
        """Why a process ended, with the last line it wrote about that."""
        code = self.process.wait()
        text = f"ended with code {code}"
        if code < 0:
            text = f"was killed by {signal.Signals(-code).name}"
            if code == -signal.SIGKILL:
                text += " (if by the system, for lack of memory)"
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f"{text}: {last[:200]}" if last else text

    def ask_to_leave(self) -> None:
        """Lets it drop its shard and leave before the next sample."""
        if self.process.poll() is None:
            self.process.terminate() if self.ready else self.process.kill()

    def close(self, deadline: float) -> None:
        """Waits until the deadline, then kills; frees the pipes."""
        with contextlib.suppress(OSError):
            self.process.stdin.close()  # ends a process without a shard at once
        try:
            self.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self._errors.close()


class Farm:
    """Shards that are left, and the workers that make them.

    Args:
        plan: the plan.
        missing: shards to make.
        num: number of workers.
        display: `datagen.progress.Progress`, or what has its methods sample, shard and
            lost.
    """

    def __init__(self, plan: Plan, missing: list[Shard], num: int, display):
        self._plan, self._num, self._display = plan, num, display
        self._queue = collections.deque(missing)
        self._attempts = collections.Counter()
        self._workers: list[Worker] = []
        self._failed_starts = 0
        self._given_up: dict[str, str] = {}
        self._selector = selectors.DefaultSelector()

    def work(self, poll: Callable[[], None]) -> None:
        """Makes all shards, or as many as can be.

        Args:
            poll: called often; raises to stop.

        Raises:
            RunError: if a worker says why it cannot go on, workers cannot be started,
                or a shard ended its worker `MAX_ATTEMPTS` times.
        """
        try:
            while self._hire():
                poll()
                for key, _ in self._selector.select(POLL_SECONDS):
                    for message in key.data.messages():
                        self._hear(key.data, message)
        finally:
            self.close()
        if self._given_up:
            shard, cause = next(iter(self._given_up.items()))
            others = len(self._given_up) - 1
            raise run.RunError(
                f"{shard} could not be made in {MAX_ATTEMPTS} attempts: its worker "
                f"{cause}" + (f"; {others} more shards as well" if others else "")
            )

    def close(self) -> None:
        """Ends all workers within `GRACE_SECONDS`."""
        deadline = time.monotonic() + GRACE_SECONDS
        for worker in self._workers:
            if worker.shard is not None or not worker.ready:
                worker.ask_to_leave()
        while self._workers:
            self._workers.pop().close(deadline)
        self._selector.close()

    def _hire(self) -> bool:
        """Gives shards to idle workers, starts missing ones; False when all is done."""
        busy = sum(worker.shard is not None for worker in self._workers)
        wanted = min(self._num, busy + len(self._queue))
        while len(self._workers) < wanted:
            worker = Worker(self._plan.root)
            self._workers.append(worker)
            self._selector.register(worker.process.stdout, selectors.EVENT_READ, worker)
        for worker in self._workers:
            if worker.ready and worker.shard is None and self._queue:
                shard = self._queue.popleft()
                self._attempts[shard.id] += 1
                worker.give(shard, self._attempts[shard.id], self._num)
        return wanted > 0

    def _hear(self, worker: Worker, message: dict[str, Any] | None) -> None:
        if message is None:
            self._bury(worker)
        elif "error" in message:
            raise run.RunError(message["error"])
        elif "sample" in message:
            report = message["sample"]
            report = SampleReport(**report | {"failures": tuple(report["failures"])})
            worker.reports.append(report)
            self._display.sample(report)
        elif "shard" in message:
            worker.shard = None
            self._display.shard(message["shard"], message["made"])
        else:
            worker.ready, self._failed_starts = True, 0

    def _bury(self, worker: Worker) -> None:
        """Takes a dead worker's shard back."""
        self._selector.unregister(worker.process.stdout)
        self._workers.remove(worker)
        cause, shard = worker.cause_of_death(), worker.shard
        worker.close(time.monotonic())
        if not worker.ready:
            self._failed_starts += 1
            if self._failed_starts >= MAX_ATTEMPTS:
                raise run.RunError(f"workers cannot be started: the last one {cause}")
        if shard is None:
            return
        if (done := len(worker.reports)) < shard.stop - shard.start:
            cause += f" while solving sample {self._plan.sample_ids(shard)[done]}"
        attempt = self._attempts[shard.id]
        if attempt < MAX_ATTEMPTS:
            self._queue.append(shard)
            what = "it is made again"
        else:
            self._given_up[shard.id] = cause
            what = "it is given up, the others are made"
        self._display.lost(
            worker.reports,
            f"{shard.id}: the worker {cause}, attempt {attempt} of {MAX_ATTEMPTS}; "
            f"{what}",
        )


def run_workers(
    plan: Plan, missing: list[Shard], num: int, *, poll: Callable[[], None], display
) -> None:
    """Makes missing shards in `num` processes; see `Farm`."""
    commit.clean_staging(plan.staging)
    Farm(plan, missing, num, display).work(poll)
