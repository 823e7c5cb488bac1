"""Which versions made a file or a plan."""

import importlib
import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from solvers import preconditioners, sequence

DISTRIBUTION = "operators-and-solvers"
PACKAGES = ("numpy", "scipy", "h5py", "jax", "jaxlib")


def provenance(solver: dict[str, Any]) -> dict[str, str]:
    """Versions of what computes, without anything that changes from run to run.

    They are written into the files, which are the same for every run of a plan.

    Args:
        solver: `plan.solver`; method and fallbacks decide what is recorded, not what
            happens to be imported, so that resumed runs give the same bytes.
    """
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        versions[name] = importlib.metadata.version(name)
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    versions["blas"] = f"{blas.get('name', '')} {blas.get('version', '')}".strip()
    choices = [solver, *solver["fallbacks"]]
    if "batch_size" in solver["settings"]:  # integrated in time
        versions["jax_backend"] = importlib.import_module("jax").default_backend()
        return versions
    methods = [choice["method"] for choice in choices]
    names = [choice["settings"].get("preconditioner", "none") for choice in choices]
    petsc = (sequence.PETSC_PREFIX, *preconditioners.PETSC_PRECONDITIONERS)
    if any(name.startswith(petsc) for name in methods + names):
        versions["petsc4py"] = importlib.import_module("petsc4py").__version__
    if any(sequence.method_info(method).grid for method in methods):
        versions["jax_backend"] = importlib.import_module("jax").default_backend()
    return versions


def code_version() -> dict[str, Any]:
    """Version of the package and, in a checkout, the commit and whether it is clean."""
    try:
        version = importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        version = "unknown"

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        return result.stdout.strip() if result.returncode == 0 else ""

    try:
        commit_hash, changes = git("rev-parse", "HEAD"), git("status", "--porcelain")
    except OSError:  # no git here
        commit_hash, changes = "", ""
    return {"version": version, "commit": commit_hash, "dirty": bool(changes)}
