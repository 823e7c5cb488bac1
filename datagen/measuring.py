"""Times methods on the same few systems of a problem, interleaved and on one thread.

A clock belongs here and in what is built on it, `explain` and `plan --calibrate`; how
a plan is carried out never depends on one.
"""

import contextlib
import ctypes
import dataclasses
import gc
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from datagen import sorting
from datagen.plan import PlanError
from solvers import sequence

COMPILED = 20  # times slower than the second time: the first one compiled
MAX_SYSTEMS = 40  # of problems with many steps
NUM_SAMPLES = 8


class TooSlowError(Exception):
    """A solve ran past its limit."""


@dataclasses.dataclass
class Measured:
    """A method, and what it cost on the systems that it solved.

    Attributes:
        name: for tables.
        method: name in `solvers.sequence`.
        settings: its keywords.
        chosen: those that the strategy table set, for what the config leaves open.
        auto: whether it is what auto chooses, settings included.
        refused: why it was not tried, or not used; empty if it was.
        seconds: of every system solved, its set-up included.
        iterations: of every system solved.
        compile_seconds: what the very first call took beyond a later one.
        num_bytes: growth of the process's peak memory while the first system was
            solved, solver set-up included; None where the system does not tell.
        residual: largest true relative residual.
        missed: systems whose true residual is above the tolerance.
        note: why it was stopped early; empty if it was not.
    """

    name: str
    method: str
    settings: dict[str, Any]
    chosen: dict[str, Any] = dataclasses.field(default_factory=dict)
    auto: bool = False
    refused: str = ""
    seconds: list[float] = dataclasses.field(default_factory=list)
    iterations: list[int] = dataclasses.field(default_factory=list)
    compile_seconds: float = 0.0
    num_bytes: int | None = None
    residual: float = 0.0
    missed: int = 0
    note: str = ""

    @property
    def usable(self) -> bool:
        """Whether it solved all that it was given."""
        return not self.refused and bool(self.seconds) and not self.missed

    @property
    def median(self) -> float:
        """Median seconds per system."""
        return statistics.median(self.seconds)

    def cost(self, length: int) -> float:
        """Seconds per system in a sequence of `length`.

        What was measured stands for the beginning, where methods that carry build what
        they carry; the median for the rest.
        """
        num = len(self.seconds)
        if num >= length:
            return sum(self.seconds) / num
        return (sum(self.seconds) + (length - num) * self.median) / length


def number_of_samples(num: int | None, config: Mapping[str, Any]) -> int:
    """How many samples to measure on: what was asked for, or `NUM_SAMPLES`.

    Raises:
        PlanError: if it is not a number of samples that the training set has.
    """
    most = config["splits"]["train"]
    if num is None:
        return min(NUM_SAMPLES, most)
    if not 1 <= num <= most:
        raise PlanError(f"--num is {num}; expected 1 to {most}")
    return num


def samples_in_order(problem, draw: Callable[[int], Any], num: int) -> list[Any]:
    """The first samples, each followed by the nearest one not yet taken."""
    samples = [draw(i) for i in range(num)]
    features = np.stack([np.ravel(problem.features(s)).astype(float) for s in samples])
    return [samples[i] for i in sorting.order(features, "greedy").order]


def measure(
    entries: list[Measured],
    problem,
    samples: list[Any],
    *,
    rtol: float,
    seconds: float,
    poll: Callable[[], None] = lambda: None,
) -> None:
    """Solves the systems of the samples with all methods in turn; fills in the entries.

    Every method meets every system in the same order, right after the others, to the
    same true residual. A method stops early when it used up its share of the time, or
    failed.

    Args:
        entries: from `candidates`; those refused are left alone.
        problem: see `datagen.problems.base.Problem`.
        samples: in the order to solve.
        rtol: largest true relative residual.
        seconds: for all together, compilation apart.
        poll: called between solves; may raise to stop.
    """
    share = seconds / max(1, sum(not entry.refused for entry in entries))
    solvers: dict[str, sequence.SequenceSolver] = {}
    follows = getattr(problem, "starts_from_previous", False)
    first = problem.system(samples[0], 0, None)
    try:
        for entry in entries:
            poll()
            if not entry.refused and (
                solver := _prepare(entry, first, rtol, share, follows)
            ):
                solvers[entry.name] = solver
        for sample, step, previous in _steps(problem, samples):
            system = problem.system(sample, step, previous.x)
            x0 = previous.x if follows else None
            for entry in entries:
                if entry.name not in solvers:
                    continue
                poll()
                x = _timed(entry, solvers[entry.name], system, rtol, share, x0)
                previous.offer(system, x)
                if x is None or sum(entry.seconds) > share:
                    entry.note = entry.note or f"stopped after {share:.2g} s"
                    solvers.pop(entry.name).close()
            previous.advance()
            if not solvers:
                break
    finally:
        for solver in solvers.values():
            solver.close()


class _Previous:
    """The best solution of a step, for the next one."""

    def __init__(self):
        self.x, self._next, self._residual = None, None, np.inf

    def offer(self, system, x) -> None:
        if x is not None and (residual := system.relative_residual(x)) < self._residual:
            self._next, self._residual = x, residual

    def advance(self) -> None:
        self.x, self._next, self._residual = self._next, None, np.inf


def _steps(problem, samples) -> Iterator[tuple[Any, int, _Previous]]:
    num = 0
    for sample in samples:
        previous = _Previous()
        for step in range(problem.num_systems):
            if num >= max(MAX_SYSTEMS, len(samples)) or (step and previous.x is None):
                return
            num += 1
            yield sample, step, previous


def _prepare(entry: Measured, system, rtol: float, share: float, follows: bool):
    """Builds the solver, compiles it and measures its memory; None if it is no use.

    With a start, as systems that follow others have one, another program may be
    compiled.
    """
    info = sequence.method_info(entry.method)
    solver = sequence.create(entry.method, **entry.settings)
    try:
        if info.grid:  # these are compiled at the first call
            began = time.perf_counter()
            x, _ = solver.solve(system, rtol=rtol)
            if follows:
                solver.solve(system, rtol=rtol, x0=x)
            entry.compile_seconds = time.perf_counter() - began
            solver.reset()
        began = time.perf_counter()
        (_, record), entry.num_bytes = _within(
            share, info, lambda: _with_memory(lambda: solver.solve(system, rtol=rtol))
        )
        once = time.perf_counter() - began
        entry.compile_seconds = max(0.0, entry.compile_seconds - once)
        solver.reset()
        if once <= share:
            return solver
        entry.note = f"one system only, of a share of {share:.2g} s"
        _take(entry, record, once, rtol)
    except TooSlowError:
        entry.refused = f"a system takes more than {share:.2g} s"
    except Exception as error:
        entry.refused = " ".join(str(error).split()).partition(";")[0]
    solver.close()
    return None


def _timed(entry, solver, system, rtol, share, x0):
    """Solves one system; returns x, or None if that failed."""
    info = sequence.method_info(entry.method)
    try:
        if info.grid:  # another kind of system may need another program
            began = time.perf_counter()
            solver.solve(system, rtol=rtol, x0=x0)
            first = time.perf_counter() - began
        began = time.perf_counter()
        x, record = _within(
            2 * share, info, lambda: solver.solve(system, rtol=rtol, x0=x0)
        )
    except TooSlowError:
        entry.note = f"a system took more than {2 * share:.2g} s"
        return None
    except Exception as error:
        entry.refused = " ".join(str(error).split()).partition(";")[0]
        return None
    seconds = time.perf_counter() - began
    if info.grid and first > COMPILED * seconds:
        entry.compile_seconds += first - seconds
    _take(entry, record, seconds, rtol)
    return x


def _take(entry, record, seconds, rtol):
    entry.seconds.append(seconds)
    entry.iterations.append(record.iterations)
    entry.residual = float(np.maximum(entry.residual, record.true_relative_residual))
    entry.missed += not record.true_relative_residual <= rtol


def _within(seconds: float, info: sequence.Method, call: Callable[[], Any]) -> Any:
    """The result of a call, which `TooSlowError` ends after a time.

    Compiled code is waited for. Methods on grids have no limit: their steps are few,
    and an exception in the middle of JAX would leave it half done. An alarm that comes
    when there is a result already changes nothing.
    """
    if info.grid or threading.current_thread() is not threading.main_thread():
        return call()
    results, armed = [], True

    def stop(*_):
        if armed and not results:
            raise TooSlowError

    before = signal.signal(signal.SIGALRM, stop)
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            results.append(call())
        finally:
            armed = False
    finally:  # also if the alarm came just before it was disarmed
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return results[0]


def _with_memory(call: Callable[[], Any]) -> tuple[Any, int | None]:
    """Result of a call, and by how much peak memory rose above what was there."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak starts anew
        before = _status("VmRSS")
    except (OSError, KeyError):
        return call(), None
    result = call()
    return result, max(0, _status("VmHWM") - before)


def _status(key: str) -> int:
    """Bytes that Linux tells of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    table = dict(line.partition(":")[::2] for line in lines)
    return int(table[key].split()[0]) * 1024
