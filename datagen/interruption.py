"""SIGTERM, SIGINT and SIGUSR1: drop the unfinished shard and leave within five seconds.

The flag is polled between samples. Where one solve or compilation takes longer than the
grace time, a thread ends the process: nothing is lost, since files are committed whole.
"""

import os
import signal
import sys
import threading
import time

EXIT_CODE = 75  # EX_TEMPFAIL: run the same command again
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
GRACE_SECONDS = 4.0


class InterruptedRunError(Exception):
    """A signal came; everything committed is safe."""


class StopFlag:
    """Context manager that turns the first signal into `requested`.

    A second signal, not within two seconds of the first (process groups and launchers
    often send it twice), ends the process at once.

    Attributes:
        requested: name of the signal that came, or "".
    """

    def __init__(self):
        self.requested = ""
        self._previous = {}

    def __enter__(self):
        # Python runs handlers between two byte codes only; the wake-up pipe is written
        # by the signal itself, so the thread knows even during a long C call.
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._old_wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in SIGNALS:
            self._previous[number] = signal.signal(number, self._handle)
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception):
        self._left.set()
        signal.set_wakeup_fd(self._old_wakeup)
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        os.close(self._writer)  # ends the thread's read
        self._thread.join()
        os.close(self._reader)

    def check(self) -> None:
        """Raises InterruptedRunError once a signal has come."""
        if self.requested:
            raise InterruptedRunError(self.requested)

    def _handle(self, number, frame):
        if self.requested and time.monotonic() - self._since > 2:
            os._exit(EXIT_CODE)
        if not self.requested:
            self._since = time.monotonic()
            self.requested = signal.Signals(number).name

    def _watch(self):
        while received := os.read(self._reader, 1):
            if received[0] in SIGNALS and not self._left.wait(GRACE_SECONDS):
                try:  # a closed terminal must not keep it alive
                    sys.stderr.write("\n" + farewell(signal.Signals(received[0]).name))
                    sys.stderr.flush()
                finally:
                    os._exit(EXIT_CODE)


def farewell(name: str) -> str:
    """What the user reads when a signal ended the run."""
    return (
        f"datagen: interrupted by {name}; what is committed is safe: run the same "
        "command again to go on\n"
    )
