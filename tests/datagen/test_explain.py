"""The table and the picture of `python -m datagen explain`, and the clock behind it."""

import json
import re
import signal
import time

import pytest

from configs import common
from datagen import candidates, explain, measuring
from datagen.cli import main
from datagen.measuring import Measured
from datagen.plan import create_problem, sample_rng
from solvers import sequence, strategy
from solvers.direct import DirectSolver
from solvers.sequence import Method

SOLVER = common.solver().to_dict()
CHOICE = {"method": "direct", "settings": {}}
FEW = ("direct", "cg", "minres", "skr", "mg_pcg")


class Slow(DirectSolver):
    """Takes its time."""

    def solve(self, system, **limits):
        time.sleep(0.7)
        return super().solve(system, **limits)


class Wrong(DirectSolver):
    """Off by a little."""

    def solve(self, system, **limits):
        x, record = super().solve(system, **limits)
        x = 1.001 * x
        changes = {"true_relative_residual": system.relative_residual(x)}
        return x, type(record)(**(vars(record) | changes))


class Broken(DirectSolver):
    """Raises."""

    def solve(self, system, **limits):
        raise ValueError("no way; try another")


@pytest.fixture(autouse=True)
def _few_methods(monkeypatch):
    """Some methods only, and some that misbehave; nothing is compiled."""
    methods = {name: sequence.METHODS[name] for name in FEW if name != "mg_pcg"}
    methods |= {"slow": Method(Slow), "wrong": Method(Wrong), "broken": Method(Broken)}
    methods |= {"auto": sequence.METHODS["auto"]}
    monkeypatch.setattr(sequence, "METHODS", methods)
    monkeypatch.setattr(candidates, "PETSC", {"spd": {}, "general": {}})
    monkeypatch.setattr(candidates, "VARIANTS", {})
    row = strategy.Row("direct", {}, lambda t: True, "small enough")
    monkeypatch.setattr(strategy, "TABLE", (row,))


@pytest.fixture
def explained(config_file, tmp_path, capsys):
    report = tmp_path / "report.json"
    command = ["explain", "--config", config_file, "--out", str(tmp_path / "set")]
    command += ["--num", "4", "--seconds", "12", "--json", str(report)]
    assert main(command) == 0
    return capsys.readouterr().out, json.loads(report.read_text()), tmp_path / "set"


def test_explain_prints_what_it_measured(explained, config_file):
    output, report, folder = explained
    rows = {row["method"]: row for row in report["rows"]}
    assert set(rows) == {"direct", "cg", "minres", "skr", "slow", "wrong", "broken"}
    usable = [row for row in report["rows"] if row.get("usable")]
    assert [row["ratio"] for row in usable] == sorted(row["ratio"] for row in usable)
    assert usable[0]["ratio"] == 1.0
    assert all(row["true_residual_max"] <= 1e-8 for row in usable)
    assert {row["method"] for row in usable} == {*FEW, "slow"} - {"mg_pcg"}
    assert rows["direct"]["systems"] == 4
    assert rows["slow"]["systems"] < 4
    assert rows["slow"]["seconds_median"] > 0.7
    assert "misses the residual in 4 of 4 systems" in rows["wrong"]["note"]
    assert rows["broken"]["refused"] == "no way"
    assert report["choice"]["method"] == "direct"
    assert re.search(r"^\*direct +[\d.]+ ms", output, re.MULTILINE)
    assert re.search(
        r"^slow +(\d\d\d ms|1\.\d+ s).*(stopped after|one system only)",
        output,
        re.MULTILINE,
    )
    assert "broken: no way" in output
    assert "auto chooses direct: small enough" in output
    assert (folder / "explain.png").read_bytes().startswith(b"\x89PNG")
    # The picture is not in the way of the data set.
    assert main(["plan", "--config", config_file, "--out", str(folder)]) == 0


@pytest.mark.parametrize("num", ["99", "0", "-3"])
def test_too_many_and_too_few_samples_are_refused(num, config_file, tmp_path, capsys):
    command = ["explain", "--config", config_file, "--out", str(tmp_path)]
    assert main([*command, "--num", num]) == 2
    assert f"--num is {num}; expected 1 to 6" in capsys.readouterr().err


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf"])
def test_times_that_are_none_are_refused(seconds, config_file, tmp_path, capsys):
    command = ["explain", "--config", config_file, "--out", str(tmp_path)]
    assert main([*command, "--seconds", seconds]) == 2
    error = capsys.readouterr().err
    assert f"--seconds is {float(seconds)}; expected a positive number" in error


def test_a_call_that_takes_too_long_is_ended():
    before, began = signal.getsignal(signal.SIGALRM), time.perf_counter()
    with pytest.raises(measuring.TooSlowError):
        measuring._within(0.05, Method(DirectSolver), lambda: time.sleep(20))
    assert time.perf_counter() - began < 10
    assert signal.getsignal(signal.SIGALRM) == before


def test_an_alarm_that_comes_late_changes_nothing(monkeypatch):
    """It comes while it is being disarmed; the result stands, the handler goes."""

    def late(_, seconds):
        if not seconds:
            signal.raise_signal(signal.SIGALRM)

    monkeypatch.setattr(signal, "setitimer", late)
    before = signal.getsignal(signal.SIGALRM)
    assert measuring._within(9.0, Method(DirectSolver), lambda: 3) == 3
    assert signal.getsignal(signal.SIGALRM) == before
    with pytest.raises(ZeroDivisionError):
        measuring._within(9.0, Method(DirectSolver), lambda: 1 / 0)
    assert signal.getsignal(signal.SIGALRM) == before


def test_what_is_built_once_counts_by_its_share():
    entry = Measured("x", "x", {}, seconds=[10.0, 1.0, 1.0, 1.0])
    assert entry.median == 1.0
    assert entry.cost(4) == pytest.approx(13 / 4)
    assert entry.cost(13) == pytest.approx((13 + 9) / 13)
    assert entry.cost(2) == pytest.approx(13 / 4)


def test_methods_that_do_not_suit_are_named_with_the_reason():
    problem = create_problem({"name": "convection_diffusion", "n": 17})
    entries = candidates.candidates(problem, SOLVER, CHOICE, outsiders=True)
    refused = {entry.name: entry.refused for entry in entries}
    assert refused["cg"].startswith("cg needs symmetric positive definite matrices")
    assert problem.equation not in refused["cg"]
    assert not refused["direct"]
    assert "auto" not in refused


def test_factors_of_large_grids_in_space_are_not_tried():
    problem = create_problem({"name": "darcy_3d", "n": 65})
    refused = refusals(problem)
    assert "out of reach" in refused["direct"]
    assert not refused["cg"]
    assert not refused["fast_direct"]  # it has none


def test_eigenvectors_of_long_axes_are_not_tried():
    """Since methods on grids have no time limit."""
    refused = refusals(create_problem({"name": "darcy", "n": 4097}))
    assert refused["fast_direct"].startswith("eigenvectors of 4097 unknowns along an")
    assert not refused["cg"]


def refusals(problem):
    """Why methods are not tried, by name; fast_direct among them."""
    sequence.METHODS["fast_direct"] = Method(DirectSolver, grid=True)
    entries = candidates.candidates(problem, SOLVER, CHOICE)
    return {entry.name: entry.refused for entry in entries}


def test_the_star_is_at_the_settings_of_auto(
    config_file, tmp_path, monkeypatch, capsys
):
    """The problem's own preconditioner is another one than that of the table."""
    row = strategy.Row("cg", {"preconditioner": "ssor"}, lambda t: True, "why not")
    monkeypatch.setattr(strategy, "TABLE", (row,))
    names = ("cg", "auto")
    few = {name: sequence.METHODS[name] for name in names}
    monkeypatch.setattr(sequence, "METHODS", few)
    path = tmp_path / "report.json"
    command = ["explain", "--config", config_file, "--out", str(tmp_path / "set")]
    assert main([*command, "--num", "2", "--json", str(path)]) == 0
    rows = {row["method"]: row for row in json.loads(path.read_text())["rows"]}
    found = {
        k: (row["settings"]["preconditioner"], row["auto"]) for k, row in rows.items()
    }
    assert found == {"cg": ("jacobi", False), "cg ssor": ("ssor", True)}
    output = capsys.readouterr().out
    assert re.search(r"^\*cg ssor +[\d.]+ ms", output, re.MULTILINE)
    assert re.search(r"^cg +[\d.]+ ms", output, re.MULTILINE)
    assert "auto chooses cg (preconditioner ssor): why not" in output


def test_steps_follow_one_another_in_what_is_measured():
    """Systems of later steps are built from the best solution of the step before."""
    settings = {"num_dims": 2, "n": 9, "num_inclusions": 1, "num_steps": 3}
    problem = create_problem({"name": "heat", **settings})
    sample = problem.sample(sample_rng(0, 0))
    entries = [Measured(name, name, {}) for name in ("direct", "wrong")]
    seen, system = [], problem.system

    def watched(sample, step=0, previous=None):
        seen.append(previous)
        return system(sample, step, previous)

    problem.__dict__["system"] = watched
    measuring.measure(entries, problem, [sample], rtol=1e-8, seconds=10.0)
    direct = DirectSolver()
    x, _ = direct.solve(system(sample, 0), rtol=1e-10)
    assert seen[-2] == pytest.approx(x, rel=1e-9)  # not that of "wrong"
    assert [len(entry.seconds) for entry in entries] == [3, 3]
    assert entries[0].usable
    assert not entries[1].usable


def test_nothing_solved_is_an_error_without_a_picture(
    config_file, tmp_path, monkeypatch
):
    monkeypatch.setattr(sequence, "METHODS", {"direct": Method(Broken)})
    command = ["explain", "--config", config_file, "--out", str(tmp_path / "x")]
    command += ["--num", "2"]
    assert main(command) == 1
    assert not (tmp_path / "x").exists()
    with pytest.raises(ValueError, match="nothing to draw"):
        explain.draw({"rows": []}, tmp_path / "x.png")
