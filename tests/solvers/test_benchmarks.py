import json
import subprocess
import sys

import pytest

from benchmarks import data, recycling_cases, timing
from solvers import sequence


def test_command_writes_rows_that_are_all_accepted(tmp_path):
    # A process of its own: the benchmark binds itself to one core.
    command = [sys.executable, "-m", "benchmarks.data", "--n", "13", "--num", "2"]
    path = tmp_path / "out.json"
    done = subprocess.run(
        [*command, "--json", path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "1 of" in done.stdout.splitlines()[-2]  # the hardware line
    content = json.loads(path.read_text())
    rows = {row["method"]: row for row in content["rows"]}
    assert {"mg_pcg", "direct", "scipy_spsolve"} <= rows.keys()
    for row in rows.values():
        assert (row["n"], row["num_unknowns"]) == (13, 169)
        assert row["accepted"]
        assert row["true_residual_max"] <= data.RTOL
    peers = [row for name, row in rows.items() if name in data.PEERS]
    best = min(row["seconds"] for row in peers)
    for row in rows.values():
        assert row["ratio_to_best_peer"] == pytest.approx(best / row["seconds"])
    assert {"hardware", "problem", "rtol"} <= content.keys()


def test_refused_peers_do_not_count():
    rows = [
        {"method": "ours", "seconds": 2.0, "accepted": True},
        {"method": "sloppy", "seconds": 1.0, "accepted": False},
        {"method": "honest", "seconds": 6.0, "accepted": True},
    ]
    ratios = timing.add_ratios(rows, peers={"sloppy", "honest"})
    assert [row["ratio_to_best_peer"] for row in ratios] == [3.0, 6.0, 1.0]


def test_methods_take_turns_and_the_first_call_stands_apart():
    calls = []
    methods = {
        name: lambda item, name=name: calls.append((name, item)) or {"item": item}
        for name in "ab"
    }
    results = timing.interleave(methods, num=2)
    assert calls == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2), ("b", 2)]
    assert [run["item"] for run in results["a"]] == [0, 1, 2]


@pytest.mark.parametrize("argument", ["--n=0", "--num=0"])
def test_sizes_must_be_positive(argument, capsys):
    with pytest.raises(SystemExit):
        data.main([argument])
    assert "at least 1" in capsys.readouterr().err


@pytest.mark.parametrize("case", recycling_cases.CASES.values(), ids=lambda c: c.name)
def test_every_recycling_case_has_its_cold_column_and_a_peer(case):
    methods = {entry.method for entry in case.entries}
    assert {"gcrodr_cold", "skr"} <= methods
    assert any(entry.is_peer for entry in case.entries)
    assert len({entry.label for entry in case.entries}) == len(case.entries)
    for entry in case.entries:
        info = sequence.method_info(entry.method)
        assert entry.carries in (info.carries, "guess" in entry.settings)


@pytest.mark.slow
def test_quick_recycling_writes_rows_that_are_all_accepted(tmp_path):
    command = [sys.executable, "-m", "benchmarks.recycling", "--quick"]
    path = tmp_path / "out.json"
    subprocess.run(
        [*command, "--case", "darcy_grf", "--case", "helmholtz_grf", "--json", path],
        check=True,
        capture_output=True,
    )
    content = json.loads(path.read_text())
    asked = "problem n rtol preconditioner method converged iterations matvecs seconds"
    for row in content["rows"]:
        assert set(asked.split()) <= row.keys()
        assert row["converged"] == 1.0
        assert row["true_residual_max"] <= row["rtol"]
    assert {row["problem"] for row in content["rows"]} == {"darcy_grf", "helmholtz_grf"}
    cold = content["curves"]["darcy_grf"]["gcrodr_cold"]
    assert [place for place, _ in cold] == list(range(10))
