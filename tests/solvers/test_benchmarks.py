import json
import subprocess
import sys

import pytest

from benchmarks import data, timing


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
