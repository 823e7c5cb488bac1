"""A worker process: makes the shards that its parent names, one after the other.

    python -m datagen.worker <root>

Reads lines of JSON, {"shard": id, "attempt": 1, "workers": 2}, and writes others:
{"ready": true} once, then {"sample": report} for every sample and {"shard": record,
"made": true} or {"error": sentence} at the end. `datagen.workers` is the parent.
"""

import dataclasses
import json
import os
import queue
import sys
import threading
from pathlib import Path

from datagen.environment import settings

os.environ.update(settings())  # before NumPy and JAX load

from datagen import run
from datagen.interruption import EXIT_CODE, InterruptedRunError, StopFlag
from datagen.plan import Plan, load_plan
from datagen.storage.read import DatasetError

POLL_SECONDS = 0.2


def main(root: str) -> int:
    """Serves the parent at the other end of standard input and output."""
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not get between the messages

    def send(**message) -> None:
        channel.write(json.dumps(message) + "\n")

    tasks: queue.SimpleQueue = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(tasks,), daemon=True).start()
    try:
        with StopFlag() as stop:
            plan = load_plan(Path(root))
            send(ready=True)
            serve(plan, tasks, send, stop)
    except InterruptedRunError:
        return EXIT_CODE
    except BrokenPipeError:  # the parent is gone
        return EXIT_CODE
    except (DatasetError, OSError, RuntimeError) as error:
        send(error=" ".join(str(error).split()))
        return 1


def serve(plan: Plan, tasks: queue.SimpleQueue, send, stop: StopFlag) -> None:
    """Makes shards until the process is ended."""
    problem, shards = plan.problem(), {shard.id: shard for shard in plan.shards}

    def on_sample(report) -> None:
        send(sample=dataclasses.asdict(report))

    while True:
        try:
            task = tasks.get(timeout=POLL_SECONDS)
        except queue.Empty:
            stop.check()
            continue
        record, made = run.make_shard(
            plan,
            shards[task["shard"]],
            problem,
            poll=stop.check,
            on_sample=on_sample,
            attempts=task["attempt"],
            workers=task["workers"],
            engine="workers",
        )
        send(shard=record, made=made)


def _listen(tasks: queue.SimpleQueue) -> None:
    """Takes tasks; the end of the input ends the process, whatever it is doing.

    The parent closes it when nothing is left to do, and its death closes it too. An
    unfinished shard is dropped: files are committed whole.
    """
    for line in sys.stdin:
        tasks.put(json.loads(line))
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
