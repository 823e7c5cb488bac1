"""SIGTERM and SIGINT as a flag: finish the step, save, leave with exit code 75."""

import os
import signal

EXIT_CODE = 75  # EX_TEMPFAIL: run the same command again
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class StopFlag:
    """Context manager that turns the first signal into `requested`.

    A second signal ends the process at once.

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
        if self.requested:
            os._exit(EXIT_CODE)
        self.requested = signal.Signals(number).name
