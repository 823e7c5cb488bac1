"""SIGTERM and SIGINT as a flag: finish the step, save, leave with exit code 75."""

import contextlib
import os
import signal
import time

EXIT_CODE = 75  # EX_TEMPFAIL: run the same command again
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


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
        for number in SIGNALS:
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception):
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number, frame):
        if self.requested and time.monotonic() - self._since > 2:
            os._exit(EXIT_CODE)
        if not self.requested:
            self._since = time.monotonic()
            self.requested = signal.Signals(number).name
            with contextlib.suppress(OSError):  # the terminal may be gone
                os.write(2, b"\nstopping after this step; again to end at once\n")
