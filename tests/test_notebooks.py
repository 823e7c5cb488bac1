"""The notebooks: short, without outputs, and they run on quick runs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_are_short_and_stripped(path):
    cells = json.loads(path.read_text())["cells"]
    assert len(cells) < 15
    assert not any(c.get("outputs") or c.get("execution_count") for c in cells)


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


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_run_on_quick_runs(path, finished, other, home):
    # As a script of its own: nbclient's event loop warns in ways we do not own.
    code = (
        "import nbformat, nbclient, sys\n"
        "notebook = nbformat.read(sys.argv[1], as_version=4)\n"
        "nbclient.NotebookClient(notebook, timeout=300).execute()\n"
        "texts = [o.get('text', '') for c in notebook.cells if c.cell_type == 'code'"
        " for o in c.outputs]\n"
        "assert any('trained here' in t for t in texts), texts"
    )
    if "RUNS" in path.read_text():
        code += "\nassert 'left out: there is no run in none' in ' '.join(texts), texts"
        code += "\nassert all(' '.join(texts).count(name) > 3 for name in sys.argv[2:])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), finished.name, other.name],
        cwd=home,
        env={**os.environ, "RUN": str(finished), "RUNS": f"{finished} {other} none"},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
