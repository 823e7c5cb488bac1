"""What every benchmark shares: one pinned core, interleaved timing, table, JSON."""

import datetime
import json
import os
import pathlib
import platform
from collections.abc import Callable, Sequence

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
)


def pin_one_core() -> int | None:
    """Binds this process and its later threads to one core.

    Call it before NumPy is imported, as its BLAS counts the cores then: two threads on
    one core wait for each other. Hence the imports inside functions in this folder.

    Returns:
        The core, or None where the system cannot bind processes.
    """
    for variable in THREAD_VARIABLES:
        os.environ[variable] = "1"
    flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
    if not hasattr(os, "sched_setaffinity"):
        return None
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    return core


def switch_on_float64() -> None:
    """The solvers need it; call before JAX computes anything."""
    import jax

    jax.config.update("jax_enable_x64", True)


def hardware() -> dict:
    """Processor, cores in use, load and date, to stand beside every number."""
    model = platform.processor() or platform.machine()
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        models = [line for line in lines if line.startswith("model name")]
        model = models[0].split(":", 1)[1].strip() if models else model
    return {
        "cpu": model,
        "cores_on_machine": os.cpu_count(),
        "cores_used": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "date": datetime.date.today().isoformat(),
        "python": platform.python_version(),
    }


def interleave(
    methods: dict[str, Callable[[int], dict]], *, num: int
) -> dict[str, list[dict]]:
    """Runs every method on item 0, then all methods in turn on items 1 ... num.

    The first call of each holds compilation or analysis and stays apart as entry 0.
    Taking turns spreads slow phases of the machine over all methods alike.
    """
    first = {name: [run(0)] for name, run in methods.items()}
    rest = take_turns(methods, range(1, num + 1))
    return {name: first[name] + rest[name] for name in methods}


def take_turns(
    methods: dict[str, Callable[[int], dict]],
    items: Sequence[int],
    limits: dict[str, int] | None = None,
) -> dict[str, list[dict]]:
    """Runs all methods in turn on one item after the other.

    Args:
        methods: what runs an item, by name.
        items: the items.
        limits: slow methods run only so many, spread over the items.
    """
    results, total = {name: [] for name in methods}, len(items)
    for place, item in enumerate(items):
        for name, run in methods.items():
            limit = min((limits or {}).get(name, total), total)
            if place * limit // total != (place + 1) * limit // total:
                results[name].append(run(item))
    return results


def add_ratios(rows: list[dict], *, peers: set[str]) -> list[dict]:
    """Adds `ratio_to_best_peer`: best accepted peer's seconds / this row's seconds."""
    best = min(
        (row["seconds"] for row in rows if row["method"] in peers and row["accepted"]),
        default=float("nan"),
    )
    return [{**row, "ratio_to_best_peer": best / row["seconds"]} for row in rows]


def write_json(json_path: str | None, *, title: str, rows: list[dict], **context):
    """Writes rows with the hardware beside them; does nothing without a path."""
    if json_path is None:
        return
    content = {"title": title, "hardware": hardware(), **context, "rows": rows}
    text = json.dumps(content, indent=1, default=_plain)
    pathlib.Path(json_path).write_text(text + "\n")
    print(f"wrote {json_path}")


def _plain(value):
    """NumPy scalars as Python numbers."""
    import numpy as np

    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"cannot write {type(value).__name__} as JSON")
