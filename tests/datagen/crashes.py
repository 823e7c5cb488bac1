"""Kills `datagen generate` again and again, in children of one process.

Run as a script with a JSON list of attempts on standard input, each {"arguments",
"fault" or "kill_after"}; prints the exit codes, negative for signals. A child is forked
after the imports and before JAX starts a thread, which saves seconds per attempt.
"""

import json
import os
import signal
import sys
import time
import warnings

# Whatever a run imports late is imported here, before the forks.
from datagen import finalize, problems, progress, run, verify  # noqa: F401
from datagen.cli import main
from solvers import direct  # noqa: F401


def attempt(arguments, fault=None, kill_after=None):
    child = os.fork()
    if child == 0:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        if fault:
            os.environ["DATAGEN_FAULT"] = fault
        os._exit(main(arguments))
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # JAX warns of forks; no thread of it runs yet
    print(json.dumps([attempt(**entry) for entry in json.load(sys.stdin)]))
