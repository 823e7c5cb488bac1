import json
import subprocess
import sys

import pytest

from benchmarks import flow_worker, peers


@pytest.mark.slow
def test_command_writes_rows_with_the_same_fields_as_the_peers(tmp_path):
    # A process of its own: the benchmark binds itself to one core.
    path = tmp_path / "out.json"
    command = [sys.executable, "-m", "benchmarks.navier_stokes", "--quick"]
    done = subprocess.run(
        [*command, "--part", "steps", "--part", "counts", "--json", path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(path.read_text())["rows"]
    installed = {
        name
        for name, folder in peers.FLOW_FOLDERS.items()
        if (folder / "bin" / "python").exists()
    }
    steps = [row for row in rows if row["part"] == "steps"]
    for dtype in ("float32", "float64"):
        group = [row for row in steps if row["dtype"] == dtype]
        assert {row["method"] for row in group} == {"cn_rk4"} | installed
        for row in group:
            assert row["accepted"], row
            assert 0 < row["seconds"] <= row["seconds_median"]
    counts = {row["method"]: row for row in rows if row["part"] == "counts"}
    assert counts["cn_rk4"]["ffts"] >= 3 * counts["if_rk8"]["ffts"]
    for name in ("cn_rk4", "if_rk4", "etdrk4", "if_rk5", "if_rk8"):
        assert counts[name]["error"] <= 1e-8


def test_worker_and_environments_name_the_same_peers():
    assert set(flow_worker.PEERS) == set(peers.FLOW_FOLDERS)


def test_missing_environment_says_how_to_build_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"uv run -m benchmarks\.peers --flows"):
        peers.PeerProcess(tmp_path / "python", worker="flow_worker")
