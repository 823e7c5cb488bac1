"""The notebooks: short, without outputs, and they run on a quick run."""

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


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_run_on_a_quick_run(path, finished, home):
    # As a script of its own: nbclient's event loop warns in ways we do not own.
    code = (
        "import nbformat, nbclient, sys\n"
        "notebook = nbformat.read(sys.argv[1], as_version=4)\n"
        "nbclient.NotebookClient(notebook, timeout=300).execute()\n"
        "texts = [o.get('text', '') for c in notebook.cells if c.cell_type == 'code'"
        " for o in c.outputs]\n"
        "assert any('trained here' in t for t in texts), texts"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        cwd=home,
        env={**os.environ, "RUN": str(finished)},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
