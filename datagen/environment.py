"""What libraries read from the environment as they load, for every process here.

One thread per library: results must not depend on how many cores there are, and data
sets are made by one process per core. JAX in 64 bit, with its compilations kept.
"""

import os
from pathlib import Path

THREADS = ("OMP", "OPENBLAS", "MKL", "NUMEXPR")


def settings() -> dict[str, str]:
    """Variables to set before NumPy and JAX load; those the user may choose are kept.

    PJRT_NPROC sizes the thread pool of JAX on the CPU: with one thread a multigrid
    solve costs a tenth less and its bytes are the same. On a GPU no process takes
    three quarters of the memory from the others.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    chosen = {
        "JAX_COMPILATION_CACHE_DIR": str(cache / "operators" / "jax"),
        "PJRT_NPROC": "1",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }
    fixed = {f"{library}_NUM_THREADS": "1" for library in THREADS}
    fixed["JAX_ENABLE_X64"] = "1"
    return {k: os.environ.get(k, v) for k, v in chosen.items()} | fixed


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
