"""What auto chooses for every data set, and that a plan keeps it."""

import json
from pathlib import Path

import pytest

from configs import common, loading
from datagen import calibrate, candidates, measuring
from datagen.cli import main
from datagen.methods import MethodError, choose, resolve, traits_of
from datagen.plan import PlanError, create_problem, load_plan, make_plan
from datagen.problems.darcy import Darcy
from datagen.storage import ledger
from solvers import strategy

ROOT = Path(__file__).parents[2]
CHOICES = {  # docs/datasets.md has the same
    "composites": "mg_pcg",
    "composites_3d": "mg_pcg",
    "composites_unstructured": "direct",
    "convection_diffusion": "direct",
    "darcy_3d": "mg_pcg",
    "darcy_lognormal": "mg_pcg",
    "darcy_multiscale": "mg_pcg",
    "darcy_rough": "mg_pcg",
    "darcy_smooth": "mg_pcg",
    "heat": "mg_pcg",
    "helmholtz": "direct",
    "helmholtz_cavity": "bicgstab",
    "helmholtz_sweep": "bicgstab",
    "poisson": "direct",
    "thermal": "direct",
}


def config_of(name, variant="quick"):
    return loading.load(str(ROOT / f"configs/data/{name}.py:{variant}")).to_dict()


def chosen(name, **changes):
    config = config_of(name)
    problem = create_problem(config["problem"])
    return choose(config["solver"] | changes, problem)


def test_every_data_set_leaves_the_method_open_and_is_listed():
    names = {path.stem for path in (ROOT / "configs/data").glob("[!_]*.py")}
    solvers = {name: config_of(name)["solver"] for name in names}
    linear = {name for name in names if "scheme" not in solvers[name]}
    assert linear == set(CHOICES)
    assert all(solvers[name]["method"] == "auto" for name in linear)


@pytest.mark.parametrize("name", CHOICES)
def test_auto_chooses(name):
    choice = chosen(name)
    assert choice["method"] == CHOICES[name]
    assert choice["asked"] == "auto"
    assert choice["reason"].rstrip()
    assert not choice["calibrated"]


@pytest.mark.parametrize("name", ["darcy_rough", "convection_diffusion"])
def test_the_choice_is_the_same_every_time(name):
    assert chosen(name) == chosen(name)


def test_what_else_is_asked_for_is_respected():
    """Direct solvers take no guess; multigrid does."""
    assert chosen("poisson", guess="projection")["method"] == "frozen_lu"
    assert chosen("darcy_rough", guess="projection")["method"] == "mg_pcg"
    assert chosen("darcy_rough", stop="discretisation")["method"] == "mg_pcg"
    with pytest.raises(MethodError, match=r"no method is left .*error_goal"):
        chosen("poisson", stop="discretisation")


class TwoSteps(Darcy):
    """Darcy flow with two systems per sample, of one matrix."""

    num_systems = 2


def test_two_steps_of_one_sample_do_not_stand_for_all_samples():
    choice = choose(common.solver().to_dict(), TwoSteps(n=9))
    assert choice["method"] == "mg_pcg"
    assert "one matrix" not in choice["reason"]


def test_a_named_method_is_no_choice_of_auto():
    choice = chosen("darcy_rough", method="skr")
    assert (choice["asked"], choice["method"]) == ("skr", "skr")
    assert choice["reason"] == "named in the config"


def test_the_settings_of_the_table_are_used_unless_the_config_has_its_own(monkeypatch):
    row = strategy.Row("cg", {"preconditioner": "ssor"}, lambda t: True, "why not")
    monkeypatch.setattr(strategy, "TABLE", (row,))
    problem = create_problem({"name": "darcy", "n": 9})  # whose own is jacobi
    for asked, used in (("auto", "ssor"), ("none", "none")):
        solver = common.solver(preconditioner=asked).to_dict()
        settings = resolve(solver, problem, [4, 1, 1])["settings"]
        assert settings["preconditioner"] == used


def test_auto_is_no_fallback():
    problem = create_problem({"name": "darcy", "n": 9})
    solver = common.solver("direct", fallbacks=("auto",)).to_dict()
    with pytest.raises(MethodError, match=r"fallbacks: auto is for config.solver.meth"):
        resolve(solver, problem, [4, 1, 1])


def test_32_bit_processes_are_refused_before_planning():
    import jax

    problem = create_problem({"name": "darcy", "n": 9})
    jax.config.update("jax_enable_x64", False)
    for solver in (common.solver(), common.solver("direct", fallbacks=("mg_pcg",))):
        with pytest.raises(MethodError, match=r"mg_pcg computes in float64"):
            resolve(solver.to_dict(), problem, [4, 1, 1])
    jax.config.update("jax_enable_x64", True)


@pytest.fixture
def automatic(config_file, tmp_path):
    """The tiny set with an open method; returns the command's end and the folder."""
    root = tmp_path / "set"
    command = ["--config", config_file, "--out", str(root)]
    return [*command, "--config.solver.method=auto"], root


def direct_choice(monkeypatch):
    row = strategy.Row("direct", {}, lambda t: True, "small enough")
    monkeypatch.setattr(strategy, "TABLE", (row,))


def test_plan_ledger_and_readme_name_method_and_reason(automatic, monkeypatch, capsys):
    direct_choice(monkeypatch)
    command, root = automatic
    assert main(["generate", *command]) == 0
    assert "auto chose it: small enough" in capsys.readouterr().out
    plan = load_plan(root)
    choice = {"asked": "auto", "method": "direct", "settings": {}, "costs": {}}
    choice |= {"reason": "small enough", "calibrated": False}
    assert plan.solver["choice"] == choice
    records = ledger.load_all(root, plan.shards, plan.sha256).values()
    assert {(r["method"], r["reason"]) for r in records} == {("direct", "small enough")}
    assert "Auto chose it: small enough." in (root / "README.md").read_text()


def test_a_plan_keeps_its_choice_when_the_table_changes(automatic, monkeypatch):
    direct_choice(monkeypatch)
    command, root = automatic
    assert main(["plan", *command]) == 0
    monkeypatch.undo()
    assert main(["plan", *command]) == 0
    assert load_plan(root).solver["method"] == "direct"


def test_calibrating_picks_the_fastest_and_freezes_it(automatic, monkeypatch, capsys):
    """The clock is made up: cg is fastest, the table says direct."""
    direct_choice(monkeypatch)
    times = {"cg": 1.0, "direct": 3.0, "minres": 2.0, "skr": 0.5}
    times |= dict.fromkeys(candidates.VARIANTS, 0.1)  # which a plan would not keep

    def made_up(entries, problem, samples, **_):
        assert len(samples) == 3
        for entry in entries:
            entry.seconds = [times.get(entry.name, 9.0)] * 3
            entry.iterations, entry.missed = [10] * 3, entry.method == "skr"

    monkeypatch.setattr(measuring, "measure", made_up)
    command, root = automatic
    assert main(["plan", "--calibrate", "--num", "3", *command]) == 0
    output = capsys.readouterr().out
    assert "method cg preconditioner jacobi" in output
    assert "2.0 times faster than minres" in output
    before = (root / "plan.json").read_bytes()
    choice = json.loads(before)["solver"]["choice"]
    assert choice["calibrated"]
    assert choice["method"] == "cg"
    costs = choice["costs"]["methods"]
    expected = {"seconds": 1.0, "iterations": 10.0, "seconds_per_iteration": 0.1}
    assert costs["cg"] == expected
    assert "skr" not in costs  # missed the residual
    assert not set(candidates.VARIANTS) & set(costs)
    assert choice["costs"]["thresholds"]["worthwhile"] == strategy.WORTHWHILE
    monkeypatch.setattr(measuring, "measure", None)  # not measured again
    assert main(["generate", "--calibrate", *command]) == 0
    assert main(["generate", *command]) == 0
    assert (root / "plan.json").read_bytes() == before
    times["direct"] = 1.05  # as fast: the table decides
    monkeypatch.setattr(measuring, "measure", made_up)
    config = loading.load(command[1]).to_dict()
    config["solver"]["method"] = "auto"
    problem = create_problem(config["problem"])
    assert calibrate.calibrate(config, problem, num=3)["method"] == "direct"


@pytest.mark.parametrize(
    ("fastest", "settings"),
    [
        ("cg", {"preconditioner": "jacobi"}),  # the problem's own
        ("cg ssor", {"preconditioner": "ssor"}),  # the choice of auto
        ("mg_pcg", {"inner": "float64"}),  # that of the table, if not of auto
    ],
)
def test_what_was_measured_is_planned(fastest, settings, config_file, monkeypatch):
    rows = [("cg", {"preconditioner": "ssor"}), ("mg_pcg", {"inner": "float64"})]
    rows = [strategy.Row(name, more, lambda t: True, "") for name, more in rows]
    monkeypatch.setattr(strategy, "TABLE", rows)
    measured = {}

    def made_up(entries, *_, **__):
        for entry in entries:
            measured[entry.name] = entry.settings
            entry.seconds = [1.0 if entry.name == fastest else 9.0]
            entry.iterations = [1]

    monkeypatch.setattr(measuring, "measure", made_up)
    config = loading.load(config_file).to_dict()
    config["solver"]["method"] = "auto"
    problem = create_problem(config["problem"])
    choice = calibrate.calibrate(config, problem, num=3)
    solver = resolve(config["solver"], problem, [4, 1, 1], choice)
    assert solver["method"] == fastest.split()[0]
    assert solver["settings"] == measured[fastest]
    assert settings.items() <= solver["settings"].items()


@pytest.mark.parametrize("name", ["darcy_rough", "helmholtz_cavity", "poisson"])
def test_one_candidate_is_what_auto_would_plan(name):
    config = config_of(name)
    solver, problem = config["solver"], create_problem(config["problem"])
    traits = traits_of(problem)
    choice = choose(solver, problem, traits=traits)
    assert choice == choose(solver, problem)
    entries = candidates.candidates(problem, solver, choice, traits=traits)
    [own] = [entry for entry in entries if entry.auto]
    planned = resolve(solver, problem, [4, 1, 1])
    assert not own.refused
    assert (own.method, own.settings) == (planned["method"], planned["settings"])
    assert len({entry.name for entry in entries}) == len(entries)


@pytest.mark.parametrize("num", ["0", "-3", "99"])
def test_calibrating_on_no_samples_is_refused(num, automatic, monkeypatch, capsys):
    monkeypatch.setattr(measuring, "measure", None)  # not reached
    command, root = automatic
    assert main(["plan", "--calibrate", "--num", num, *command]) == 2
    assert f"--num is {num}; expected 1 to 6" in capsys.readouterr().err
    assert not root.exists()


def test_a_number_of_samples_without_calibrating_is_refused(automatic, capsys):
    command, root = automatic
    for name in ("plan", "generate"):
        assert main([name, "--num", "3", *command]) == 2
        assert "--num is 3, but it is for --calibrate" in capsys.readouterr().err
    assert not root.exists()


def test_calibrating_is_refused_where_the_method_stands(automatic, config_file, capsys):
    command, root = automatic
    named = [*command[:-1], "--config.solver.method=cg"]
    assert main(["plan", "--calibrate", *named]) == 2
    assert "config.solver.method is cg" in capsys.readouterr().err
    assert not root.exists()
    assert main(["plan", *command]) == 0
    assert main(["generate", "--calibrate", *command]) == 2
    assert "was planned without --calibrate" in capsys.readouterr().err


def test_a_choice_from_elsewhere_is_taken_over(config_file, tmp_path):
    config = loading.load(config_file).to_dict()
    with pytest.raises(PlanError, match="unknown method 'none_such'"):
        make_plan(config, tmp_path, choice={"method": "none_such", "settings": {}})
