"""The import arrows of the code base, and what must not be needed to import it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("solvers", "datagen", "operators", "configs", "benchmarks")
OURS = {*PACKAGES, "train"}
# Which of our modules each module may import; the longest matching prefix decides.
ARROWS = {
    "train": ("configs", "operators", "datagen.storage"),
    "configs": ("configs",),
    "solvers": ("solvers",),
    "datagen": ("datagen", "solvers", "configs.loading"),
    "datagen.storage": ("datagen.storage",),
    "operators": ("operators",),
    "operators.layers": ("operators.layers", "solvers.fourier", "solvers.grids"),
    "operators.models": ("operators.models", "operators.layers", "configs.loading"),
    "operators.training": (
        "operators.training",
        "operators.models",
        "solvers.fourier",
        "solvers.grids",
    ),
    # The one module of `operators` that opens data sets, and the commands beside it.
    "operators.training.data": (
        "operators.training",
        "configs.loading",
        "datagen.storage",
    ),
    "operators.training.evaluate": ("operators.training", "datagen.storage"),
    # The refiner's residual is made of the equation and its steppers.
    "operators.training.refinement": (
        "operators.training",
        "operators.models",
        "operators.layers",
        "solvers.spectral",
        "solvers.fourier",
    ),
    "operators.training.refine": (
        "operators.training",
        "operators.models",
        "configs.loading",
        "solvers.spectral",
        "datagen.storage",
    ),
    "operators.training.resolution": (
        "operators.training",
        "operators.layers.resampling",
        "datagen.storage",
    ),
    "benchmarks": ("benchmarks", "solvers", "datagen", "operators", "configs"),
}
OPTIONAL = {"petsc4py": "solvers/petsc.py", "mpi4py": "solvers/petsc.py"}
# Runs in the environment of the peers, never in ours.
FOREIGN = {"benchmarks/torch_worker.py"}
HEAVY = {"torch", "dask", "distributed", "dask_jobqueue", *OPTIONAL}


def modules():
    files = [ROOT / "train.py"]
    for package in PACKAGES:
        files += sorted((ROOT / package).rglob("*.py"))
    return files


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, *, top_level_only: bool = False):
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                known = (ROOT / Path(*full.split("."))).with_suffix(".py").exists()
                package = (ROOT / Path(*full.split("."))).is_dir()
                yield full if known or package else node.module


def allowed(module: str) -> tuple[str, ...]:
    matching = [key for key in ARROWS if f"{module}.".startswith(f"{key}.")]
    return ARROWS[max(matching, key=len)]


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_imports_follow_the_arrows(path):
    for name in imports(path):
        if name.split(".")[0] in OURS:
            fits = [f"{name}.".startswith(f"{a}.") for a in allowed(dotted(path))]
            assert any(fits), f"{dotted(path)} must not import {name}"


def test_optional_packages_are_imported_in_one_file_and_never_at_the_top():
    for path in modules():
        place = str(path.relative_to(ROOT))
        for name in imports(path):
            root = name.split(".")[0]
            assert OPTIONAL.get(root, place) == place, f"{place} imports {name}"
        at_top = {n.split(".")[0] for n in imports(path, top_level_only=True)}
        free = FOREIGN | {"solvers/petsc.py"}
        assert place in free or not at_top & HEAVY, place


def test_everything_but_the_petsc_back_end_imports_without_optional_packages():
    names = [
        dotted(path)
        for path in modules()
        if path.name != "__main__.py"
        and not dotted(path).startswith("solvers.petsc")
        and str(path.relative_to(ROOT)) not in FOREIGN
    ]
    code = "import importlib, sys\n"
    code += f"sys.modules.update(dict.fromkeys({sorted(HEAVY)!r}))\n"
    code += f"[importlib.import_module(name) for name in {names!r}]"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=120)


def test_reading_data_needs_no_jax():
    code = "import datagen.storage.read, sys; sys.exit('jax' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=60)


def test_package_files_are_empty_but_for_the_documented_entry_points():
    entries = {"operators", "operators.models", "datagen.problems", "solvers.spectral"}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("__init__.py"):
            assert dotted(path) in entries or not path.read_text(), path
