"""Progress of a training run on the terminal, or as lines in a log file."""

import sys
import time
from collections.abc import Mapping

from tqdm import tqdm

from operators.training.timing import spell_duration

SECONDS_BETWEEN_LINES = 10.0  # where the output is no terminal


class Bar:
    """Steps done, rate, ETA and the last errors.

    On a terminal a bar; elsewhere a line per finished epoch, not more often than every
    ten seconds.

    Args:
        first: steps done by earlier calls.
        total: steps of the whole run.
    """

    def __init__(self, first: int, total: int):
        self._bar = tqdm(
            total=total,
            initial=first,
            unit="step",
            smoothing=0.02,
            dynamic_ncols=True,
            disable=not sys.stderr.isatty(),
        )
        self._first, self._total = first, total
        self._start, self._spoken = time.monotonic(), float("-inf")

    def update(self) -> None:
        """One more step was dispatched."""
        self._bar.update()

    def report(self, record: Mapping, num_epochs: int) -> None:
        """Shows the record of a finished epoch."""
        last = record["epoch"] == num_epochs
        parts = [f"loss {record['loss']:.4f}"]
        if "valid_relative_l2" in record:
            parts.append(f"valid {record['valid_relative_l2']:.2%}")
        if not self._bar.disable:
            self._bar.set_description(f"epoch {record['epoch']}/{num_epochs}")
            self._bar.set_postfix_str(", ".join(parts))
        elif last or time.monotonic() - self._spoken > SECONDS_BETWEEN_LINES:
            self._spoken = time.monotonic()
            share = record["epoch"] / num_epochs
            done = share * self._total - self._first
            left = (1 - share) * self._total * (self._spoken - self._start) / done
            parts.append(f"{record['samples_per_second']:.0f} samples/s")
            parts.append(f"{spell_duration(left)} left")
            line = f"epoch {record['epoch']}/{num_epochs}: {', '.join(parts)}"
            print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Ends the bar."""
        self._bar.close()
