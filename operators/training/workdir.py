"""The folder of a run: its config, its metrics, and safe ways to write them."""

import fcntl
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

from operators.training import layouts

# Settings that may change between a run and its continuation.
FREE_KEYS = (
    "log",
    "checkpoint",
    "num_devices",
    "micro_batch",
    "data.path",
    "eval.batch_size",
)
NOTHING = (None, False, 0, "", [], {})
FORMER = {f"data.{key}": value for key, value in layouts.FORMER.items()}


def prepare(workdir: Path, config: Mapping) -> bool:
    """Creates the folder, or checks that it holds a run of this config.

    The config itself is written by `record_config`, once the run can start, so that a
    config that does not work leaves nothing behind that stands in the way.

    Returns:
        True where the folder already holds the run.

    Raises:
        OSError: if the folder cannot be written.
        ValueError: if it holds a run of another config.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    if not os.access(workdir, os.W_OK):
        raise PermissionError(f"--workdir {workdir} is not writable")
    path = workdir / "config.json"
    if not path.exists():
        return False
    before = _flatten(json.loads(path.read_text()))
    now = _flatten(plain_config(config))
    keys = [
        key
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key)
        and not key.startswith(FREE_KEYS)
        # A setting younger than the run, and left alone.
        and (key in before or now[key] not in (*NOTHING, FORMER.get(key)))
    ]
    if keys:
        changes = ", ".join(f"{k}: {before.get(k)} -> {now.get(k)}" for k in keys[:4])
        more = f" and {len(keys) - 4} more" if len(keys) > 4 else ""
        raise ValueError(
            f"{workdir} holds a run of another config ({changes}{more}): give another "
            "--workdir, or the config it was started with"
        )
    return True


def record_config(workdir: Path, config: Mapping) -> None:
    """Writes `config.json`."""
    write_json(workdir / "config.json", plain_config(config))


def plain_config(config: Mapping) -> dict:
    """A config as JSON sees it: dicts, lists, numbers, strings."""
    to_dict = getattr(config, "to_dict", None)
    return json.loads(json.dumps(to_dict() if to_dict else dict(config)))


def write_json(path: Path, content: dict) -> None:
    """Writes JSON atomically, indented, with sorted keys as given."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(content, indent=2) + "\n")
    temporary.replace(path)


class Lock:
    """Context manager that keeps a second process out of the folder.

    Raises:
        ValueError: on entry, if another process holds it.
    """

    def __init__(self, workdir: Path):
        self._path = workdir / ".lock"

    def __enter__(self):
        self._file = self._path.open("w")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise ValueError(
                f"{self._path.parent} is in use by another process: wait for it, or "
                "give another --workdir"
            ) from None
        except OSError:
            pass  # a file system without locks: nothing to hold on to
        return self

    def __exit__(self, *exception):
        self._file.close()


class MetricsLog:
    """Appends one JSON line per record to `metrics.jsonl`, TensorBoard beside it.

    Args:
        workdir: folder of the run.
        step: records beyond this step, left by a run that was killed, are dropped.
        tensorboard: also write event files under `<workdir>/tensorboard`.
    """

    def __init__(self, workdir: Path, step: int, tensorboard: bool):
        self._path = workdir / "metrics.jsonl"
        kept = [r for r in read_metrics(workdir) if r["step"] <= step]
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(r) + "\n" for r in kept))
        temporary.replace(self._path)
        self._writer = None
        if tensorboard:
            from tensorboardX import SummaryWriter

            self._writer = SummaryWriter(
                str(workdir / "tensorboard"), purge_step=step + 1
            )

    def write(self, step: int, **values) -> None:
        """Writes one record; numbers also go to TensorBoard under the same names."""
        record = {"step": step, "time": round(time.time(), 3), **values}
        with self._path.open("a") as file:
            file.write(json.dumps(record) + "\n")
        if self._writer:
            for key, value in values.items():
                if isinstance(value, int | float):
                    self._writer.add_scalar(key, value, step)
            self._writer.flush()

    def close(self) -> None:
        """Closes the event file."""
        if self._writer:
            self._writer.close()


def read_metrics(workdir: Path) -> list[dict]:
    """All whole records of `metrics.jsonl`, oldest first; [] without a file."""
    path = workdir / "metrics.jsonl"
    if not path.exists():
        return []
    records = []
    for line in path.read_text().splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue  # the last line of a run that was killed while it wrote
    return records


def _flatten(tree: Mapping, prefix: str = "") -> dict:
    flat = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
