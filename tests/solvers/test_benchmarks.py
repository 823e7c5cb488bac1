import json
import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse as sp

from benchmarks import peer_worker, peers, recycling_cases, solver_cases, timing
from benchmarks import solvers as benchmark
from solvers import matrices, sequence


def test_command_writes_rows_that_are_all_accepted(tmp_path):
    # A process of its own: the benchmark binds itself to one core.
    command = [sys.executable, "-m", "benchmarks.solvers", "--quick", "--num", "2"]
    wanted = ["direct", "scipy_spsolve", "petsc_cg_icc", "petsc_mumps_reused"]
    options = [word for name in wanted for word in ("--method", name)]
    path = tmp_path / "out.json"
    done = subprocess.run(
        [*command, *options, "--case", "two_phase", "--n", "13", "--json", path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "two_phase: Darcy" in done.stdout
    content = json.loads(path.read_text())
    rows = {row["method"]: row for row in content["rows"]}
    assert {"direct", "scipy_spsolve"} <= rows.keys()
    for row in rows.values():
        assert (row["problem"], row["n"], row["num_unknowns"]) == ("two_phase", 13, 169)
        assert row["accepted"]
        assert row["num_timed"] == 2
        assert row["true_residual_max"] <= row["rtol"]
        assert row["seconds_min"] <= row["seconds"]
        assert row["is_peer"] == (row["method"] != "direct")
    best = min(row["seconds"] for row in rows.values() if row["is_peer"])
    for row in rows.values():
        assert row["ratio_to_best_peer"] == pytest.approx(best / row["seconds"])
    assert "hardware" in content


@pytest.mark.parametrize("name", ["two_phase", "neumann"])
def test_all_methods_solve_a_case_whatever_form_they_want(name, tmp_path):
    pytest.importorskip("solvers.petsc")
    from benchmarks import solver_methods

    case = solver_cases.CASES[name]
    bench = solver_methods.Bench(
        case, case.systems(1, n=12, seed=0), rtol=1e-8, folder=tmp_path, peers=None
    )
    assert bench.singular == (name == "neumann")
    methods = bench.methods()
    assert {"mg_pcg", "petsc_cg_gamg_tuned", "scipy_spsolve"} <= methods.keys()
    for method in ("direct", "scipy_spsolve", "petsc_mumps_reused", "petsc_cg_icc"):
        for build in methods[method].values():
            assert build()(0)["true_residual"] <= 1e-8, method


@pytest.mark.parametrize("case", solver_cases.CASES.values(), ids=lambda c: c.name)
def test_every_case_draws_systems_from_the_seed_alone(case):
    first, second = case.systems(2, n=12, seed=3)
    again = case.systems(1, n=12, seed=3)[0]
    assert set(first.operator.grid_shape) == {12}
    np.testing.assert_array_equal(first.rhs, again.rhs)
    A, B, C = (one.to_csr() for one in (first, again, second))
    assert abs(A - B).max() == 0
    assert (abs(A - C).max() == 0) == case.constant
    assert matrices.asymmetry(A) == 0


def test_the_best_accepted_variant_of_a_method_is_kept():
    closed = []

    class Variant:
        def __init__(self, name, seconds, residual):
            self.name, self.result = name, {"seconds": seconds, "iterations": 1}
            self.result |= {"matvecs": 1, "true_residual": residual}

        def __call__(self, item):
            return self.result

        def close(self):
            closed.append(self.name)

    def refuse():
        raise ValueError("not for this matrix")

    variants = {
        "slow": lambda: Variant("slow", 3.0, 1e-9),
        "wrong": lambda: Variant("wrong", 1.0, 1e-3),
        "fast": lambda: Variant("fast", 2.0, 1e-9),
        "refused": refuse,
    }
    entry = benchmark.choose("method", variants)
    assert entry.variant == "fast"
    assert entry.accepted
    assert closed == ["wrong", "slow"]
    first = benchmark.choose("method", variants, limit=2.5)
    assert first.variant == "slow"  # out of the race: no others are tried
    wrong = benchmark.choose("method", {"wrong": variants["wrong"]})
    assert not wrong.accepted
    assert benchmark.choose("method", {"refused": refuse}) is None


def ask(*requests):
    """Answers of the peers' worker, run in our own environment."""
    process = peers.PeerProcess(sys.executable)
    try:
        answers = []
        for request in requests:
            try:
                answers.append(process.ask(**request))
            except RuntimeError as error:
                answers.append(str(error))
        return answers
    finally:
        process.close()


def test_the_peers_process_answers_every_request(tmp_path):
    A, path = np.eye(3), tmp_path / "system.npz"
    A = sp.csr_array(A)
    np.savez(path, data=A.data, indices=A.indices, indptr=A.indptr, b=np.ones(3))
    known, number, unknown, missing, absent = ask(
        {"do": "peers"},
        {"do": "load", "paths": [str(path)]},
        {"do": "dance"},
        {"do": "solve", "system": 0, "peer": "hypre", "rtol": 1e-8},
        {"do": "load", "paths": ["nowhere.npz"]},
    )
    assert set(known) <= set(peer_worker.NEEDS)
    assert number == 1
    assert "cannot do 'dance'" in unknown
    assert "unknown peer 'hypre'" in missing
    assert "FileNotFoundError" in absent


def test_missing_peers_are_named_with_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"uv run -m benchmarks\.peers"):
        peers.PeerProcess(tmp_path / "python")


@pytest.mark.slow
@pytest.mark.skipif(
    not (peers.FOLDER / "bin" / "python").exists(), reason="no .venv-peers"
)
def test_every_peer_reaches_the_true_residual(tmp_path):
    case = solver_cases.CASES["two_phase"]
    process = peers.PeerProcess()
    try:
        from benchmarks import solver_methods

        systems = case.systems(2, n=20, seed=0)
        bench = solver_methods.Bench(
            case, systems, rtol=1e-8, folder=tmp_path, peers=process
        )
        for name, variants in bench.methods().items():
            if name in peer_worker.NEEDS:
                run = next(iter(variants.values()))()
                assert max(run(i)["true_residual"] for i in range(2)) <= 1e-8, name
    finally:
        process.close()


def test_refused_peers_do_not_count():
    rows = [
        {"method": "ours", "seconds": 2.0, "accepted": True},
        {"method": "sloppy", "seconds": 1.0, "accepted": False},
        {"method": "honest", "seconds": 6.0, "accepted": True},
    ]
    ratios = timing.add_ratios(rows, peers={"sloppy", "honest"})
    assert [row["ratio_to_best_peer"] for row in ratios] == [3.0, 6.0, 1.0]


def test_slow_methods_take_fewer_turns():
    calls = {"fast": [], "slow": []}
    methods = {name: lambda item, n=name: calls[n].append(item) or {} for name in calls}
    timing.take_turns(methods, range(2, 8), {"slow": 2, "fast": 99})
    assert calls == {"fast": [2, 3, 4, 5, 6, 7], "slow": [4, 7]}


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
        benchmark.main([argument])
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
