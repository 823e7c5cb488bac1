"""Entry point of `python -m datagen`: sets the environment, then runs the command.

One thread per library: results must not depend on how many cores there are, and farms
run one process per core. JAX in 64 bit, with its compilations kept between runs.
"""

import os
import sys
from pathlib import Path

for variable in ("OMP", "OPENBLAS", "MKL", "NUMEXPR"):
    os.environ[f"{variable}_NUM_THREADS"] = "1"
os.environ["JAX_ENABLE_X64"] = "1"
cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache / "operators" / "jax"))

if __name__ == "__main__":
    from datagen.cli import main

    sys.exit(main())
