"""Shared test settings: every test runs in the precision of its directory."""

import os

# One thread of BLAS per test process, as in datagen: threads that wait for a core that
# another process holds make small products a hundred times slower. Before NumPy loads.
for variable in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{variable}_NUM_THREADS", "1")

import pathlib  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402

import jax  # noqa: E402
import pytest  # noqa: E402

ROOT = pathlib.Path(__file__).parent
QUICK = "configs/mgno_darcy.py:quick"
DOUBLE_PRECISION = ("solvers", "datagen", "refinement")  # directories in float64

jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_collection_modifyitems(items):
    """Puts the longest files first, lest one worker waits for the other in the end."""
    items.sort(key=lambda item: item.path.parent != ROOT)


@pytest.fixture(autouse=True)
def _precision(request):
    """Sets JAX's 64-bit mode as the entry points of that part of the code do."""
    folder = request.path.relative_to(ROOT).parts[0]
    jax.config.update("jax_enable_x64", folder in DOUBLE_PRECISION)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """A folder with the configs and the quick data, as in a fresh clone."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "configs").symlink_to(ROOT.parent / "configs")
    command = [sys.executable, "-m", "datagen", "generate"]
    config = "configs/data/darcy_smooth.py:quick"
    subprocess.run([*command, "--config", config], cwd=folder, check=True, timeout=300)
    return folder


@pytest.fixture(scope="session")
def finished(home, tmp_path_factory):
    """The workdir of one finished quick run."""
    folder = tmp_path_factory.mktemp("runs") / "quick"
    run_quick(home, folder)
    return folder


def run_quick(home, folder, *arguments, expect=0, **environment):
    """Runs train.py in a process of its own; returns what it printed."""
    command = [sys.executable, str(ROOT.parent / "train.py"), "--config", QUICK]
    done = subprocess.run(
        [*command, "--workdir", str(folder), *arguments],
        cwd=home,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout + done.stderr
