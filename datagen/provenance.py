"""Which versions made a file: written into it, so the same for every run of a plan."""

import importlib
import importlib.metadata
import platform
from typing import Any

import numpy as np

from solvers import preconditioners, sequence

PACKAGES = ("numpy", "scipy", "h5py", "jax", "jaxlib")


def provenance(solver: dict[str, Any]) -> dict[str, str]:
    """Versions of what computes, without anything that changes from run to run.

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
