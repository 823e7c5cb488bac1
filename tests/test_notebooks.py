"""The notebooks: short, without outputs, and they run on quick runs."""

import json
import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_are_short_and_stripped(path):
    cells = json.loads(path.read_text())["cells"]
    assert len(cells) < 15
    assert not any(c.get("outputs") or c.get("execution_count") for c in cells)


def test_the_notebook_of_the_refiner_picks_by_the_residual(tmp_path):
    cells = json.loads(NOTEBOOKS[2].read_text())["cells"]
    found = {"good": {"error": [2.0], "residual": [1.0]}}
    found["lucky"] = {"error": [1.0], "residual": [2.0]}
    (tmp_path / "refinement.json").write_text(json.dumps({"minimizers": found}))
    frames = dict.fromkeys(("times", "truth", "model", *found), np.zeros(1))
    np.savez(tmp_path / "refinement.npz", **frames)
    reports = types.SimpleNamespace(table=str)
    names = {"json": json, "np": np, "reports": reports, "WORKDIR": tmp_path}
    exec("".join(cells[2]["source"]), names)
    assert names["best"] == "good"


@pytest.fixture(scope="module")
def other(home, tmp_path_factory):
    """The workdir of a finished quick run of another model on the same data."""
    folder = tmp_path_factory.mktemp("runs") / "fno"
    command = [sys.executable, str(ROOT / "train.py"), "--workdir", str(folder)]
    subprocess.run(
        [*command, "--config", "configs/fno_darcy.py:quick"],
        cwd=home, check=True, timeout=300,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def refined(home, tmp_path_factory):
    """The workdir of a quick SFNO whose predictions have been refined."""
    folder = tmp_path_factory.mktemp("runs") / "sfno"
    train = [sys.executable, str(ROOT / "train.py")]
    refine = [sys.executable, "-m", "operators.training.refine"]
    for command, config in ((train, "sfno"), (refine, "refine")):
        config = f"configs/{config}_ns_mcwilliams.py:quick"
        subprocess.run(
            [*command, "--workdir", str(folder), "--config", config],
            cwd=home, check=True, timeout=900,
        )  # fmt: skip
    return folder


def execute(path, home, checks, *arguments, **environment):
    """Runs a notebook in a process of its own; `checks` see its `texts`."""
    # As a script of its own: nbclient's event loop warns in ways we do not own.
    code = (
        "import nbformat, nbclient, sys\n"
        "notebook = nbformat.read(sys.argv[1], as_version=4)\n"
        "nbclient.NotebookClient(notebook, timeout=300).execute()\n"
        "texts = [o.get('text', '') for c in notebook.cells if c.cell_type == 'code'"
        " for o in c.outputs]\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code + checks, str(path), *arguments],
        cwd=home,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS[:2], ids=lambda p: p.stem)
def test_notebooks_run_on_quick_runs(path, finished, other, home):
    checks = "assert any('trained here' in t for t in texts), texts"
    if "RUNS" in path.read_text():
        checks += (
            "\nassert 'left out: there is no run in none' in ' '.join(texts), texts"
            "\nassert all(' '.join(texts).count(name) > 3 for name in sys.argv[2:])"
        )
    runs = {"RUN": str(finished), "RUNS": f"{finished} {other} none"}
    execute(path, home, checks, finished.name, other.name, **runs)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS[2:], ids=lambda p: p.stem)
def test_the_notebook_of_the_refiner_runs_on_a_quick_refinement(path, refined, home):
    checks = (
        "assert 'best approximation' in ' '.join(texts), texts\n"
        "assert 'correlation of the logarithms' in ' '.join(texts), texts\n"
        "outputs = [o for c in notebook.cells for o in c.get('outputs', [])]\n"
        "assert sum('image/png' in o.get('data', {}) for o in outputs) == 4"
    )
    execute(path, home, checks, REFINED=str(refined))
