"""What libraries read from the environment as they load, for every process here.

One thread per library: results must not depend on how many cores there are, and data
sets are made by one process per core. JAX in 64 bit, with its compilations kept.
"""

import os
from pathlib import Path

THREADS = ("OMP", "OPENBLAS", "MKL", "NUMEXPR")
PROGRAMS = "one_thread"  # folder of programs compiled for one thread


def settings() -> dict[str, str]:
    """Variables to set before NumPy and JAX load; those the user may choose are kept.

    PJRT_NPROC sizes the thread pool of JAX on the CPU. XLA splits sums over large
    arrays among its threads, so other numbers give other last bits: it is no choice.
    Nor are compilations shared with other processes: a program compiled for two
    threads and found in JAX's cache splits its sums in two on one thread as well. On a
    GPU no process takes three quarters of the memory from the others.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    chosen = {
        "JAX_COMPILATION_CACHE_DIR": str(cache / "operators" / "jax"),
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }
    chosen = {k: os.environ.get(k, v) for k, v in chosen.items()}
    fixed = {f"{library}_NUM_THREADS": "1" for library in THREADS}
    fixed |= {"PJRT_NPROC": "1", "JAX_ENABLE_X64": "1"}
    folder = chosen["JAX_COMPILATION_CACHE_DIR"]
    if folder and not folder.endswith(f"/{PROGRAMS}"):  # "": no cache
        fixed["JAX_COMPILATION_CACHE_DIR"] = f"{folder}/{PROGRAMS}"
    return chosen | fixed


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
