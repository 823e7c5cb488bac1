"""Problems that are integrated in time, from the config to the finished data set."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import time

import h5py
import jsonschema
import numpy as np
import pytest

from configs import common
from datagen import evolution, explain_steps, problems, strips
from datagen.cli import main
from datagen.ladder import HALVED, PLANNED, QUARANTINE
from datagen.plan import PlanError, load_plan, make_plan, sample_rng
from datagen.problems.base import (
    Boundary,
    Evolution,
    FieldSpec,
    Settings,
    TimeStepping,
)
from datagen.storage import schemas
from datagen.storage.read import open_dataset
from solvers.spectral.steppers import STEPPERS
from tests.datagen.conftest import file_hashes

ROOT = pathlib.Path(__file__).parents[2]
SHAPE, TIMES = (6, 4), (0.5, 1.0, 1.5)
NUM = {"train": 7, "valid": 0, "test": 3}


@dataclasses.dataclass(frozen=True)
class Decay(Settings):
    """du/dt = -rate u by the trapezoidal rule; samples of large rate need small steps.

    The defect is the relative error at the end. The first numbers of a sample say
    whether it cannot be drawn, blows up, or makes `evolve` raise.
    """

    bad: str = ""  # "draw", "inf", "raise": the sample of the largest rate is bad
    threshold: float = 3.0

    name = "decay"
    equation = "du/dt = -rate u"
    axes = ("x", "y")
    step_name = "time"
    steps = np.array(TIMES)
    coordinates = {"x": np.arange(6) / 6, "y": np.arange(4) / 4}  # noqa: RUF012
    boundaries = tuple(Boundary(a, "PERIODIC", "periodic") for a in "xy")
    fields = (
        FieldSpec("rate", False, "1 / time", "Rate."),
        FieldSpec("vorticity", True, "dimensionless", "What decays."),
    )
    scalars = {"one": 1.0}  # noqa: RUF012
    quality_columns = {"largest": "Largest value at the last step."}  # noqa: RUF012

    def check(self, stepping):
        if stepping.dt and stepping.dt > 0.5:
            raise ValueError(f"dt is {stepping.dt}; expected at most 0.5")

    def is_bad(self, rate):
        return rate.max() > self.threshold

    def sample(self, rng):
        rate = np.full(SHAPE, rng.uniform(0.5, 4.0))
        if self.bad == "draw" and self.is_bad(rate):
            rate[0, 0] = np.nan
        return {"rate": rate, "u": rng.uniform(1, 2, SHAPE)}

    def evolve(self, samples, stepping):
        CALLS.append((len(samples), stepping.dt))
        u, rate = (np.stack([s[key] for s in samples]) for key in ("u", "rate"))
        if self.bad == "raise" and any(self.is_bad(r) for r in rate):
            raise FloatingPointError("not finite")
        num = max(1, round(0.5 / stepping.dt))
        z, frames = rate * 0.5 / num, []
        for step in range(3):
            factor = ((1 - z / 2) / (1 + z / 2)) ** (num * (step + 1))
            frames.append(u * factor)
        if self.bad == "inf":
            frames[-1] = np.where(rate > self.threshold, np.inf, frames[-1])
        exact = u * np.exp(-rate * TIMES[-1])
        return Evolution(
            {"vorticity": np.stack(frames, 1), "rate": rate},
            np.abs(frames[-1] / exact - 1).max((1, 2)),
            np.full(len(u), 3 * num),
            np.full(len(u), 12 * num),
            {"largest": frames[-1].max((1, 2))},
        )


CALLS = []  # (samples, dt) of every integration
CONFIG = """
from configs import common


def get_config(variant="full"):
    return common.dataset(
        "decaying",
        seed=3,
        num=(7, 0, 3),
        shard_size=5,
        problem={"name": "decay", "bad": "", "threshold": 3.0},
        solver=common.time_stepping("imex_cn", batch_size=2, dt=0.1, accept=2e-2),
    )
"""


@pytest.fixture(autouse=True)
def _decay(monkeypatch):
    monkeypatch.setitem(problems.PROBLEMS, "decay", Decay)
    CALLS.clear()


@pytest.fixture
def config_file(tmp_path):
    (tmp_path / "decaying.py").write_text(CONFIG)
    return str(tmp_path / "decaying.py")


@pytest.fixture
def generated(config_file, tmp_path):
    root = tmp_path / "set"
    assert main(["generate", "--config", config_file, "--out", str(root)]) == 0
    return root


def config(**solver):
    settings = {"batch_size": 2, "dt": 0.1, "accept": 2e-2} | solver
    return common.dataset(
        "decaying",
        seed=3,
        num=(7, 0, 3),
        shard_size=5,
        problem={"name": "decay"},
        solver=common.time_stepping(settings.pop("scheme", "imex_cn"), **settings),
    )


def exact(seed, ids, dt):
    """Trapezoidal rule written out, one sample after the other."""
    rows = []
    for i in ids:
        rng = sample_rng(seed, i, "initial")
        rate, u = rng.uniform(0.5, 4.0), rng.uniform(1, 2, SHAPE)
        z = rate * dt / 2
        rows.append([u * ((1 - z) / (1 + z)) ** round(t / dt) for t in TIMES])
    return np.array(rows)


def test_a_set_is_generated_read_and_verified(generated, capsys):
    dataset = open_dataset(generated)
    assert dataset.splits == NUM
    np.testing.assert_array_equal(dataset.steps, TIMES)
    assert dataset.boundaries[0]["bc_type"] == "PERIODIC"
    quality = dataset.quality("train")
    assert set(np.unique(quality["method"])) == {PLANNED, HALVED}  # both are met
    u = dataset.trajectories("train", "vorticity")
    assert (u.shape, u.dtype) == ((7, 3, *SHAPE), np.float32)
    expected = np.where(
        (quality["method"] == HALVED)[:, None, None, None],
        exact(3, range(7), 0.05),
        exact(3, range(7), 0.1),
    )
    np.testing.assert_allclose(u, expected, rtol=2e-7)
    np.testing.assert_allclose(quality["largest"], expected[:, -1].max((1, 2)))
    np.testing.assert_array_equal(
        quality["iterations"], np.where(quality["method"] == HALVED, 30, 15)
    )
    np.testing.assert_array_equal(quality["matvecs"], 4 * quality["iterations"])
    assert 1e-3 < quality["true_rel_residual"].max() <= 2e-2
    np.testing.assert_array_equal(
        dataset.trajectories("test", "vorticity", num=2, stride=2),
        dataset.trajectories("test", "vorticity")[:2, :, ::2, ::2],
    )
    manifest = dataset.manifest
    largest = expected[:, -1].max()
    assert manifest["quality"]["largest"]["max"] >= largest * (1 - 1e-6)
    assert manifest["ladder"]["half_step"] + manifest["ladder"]["planned"] == 10
    with h5py.File(generated / manifest["files"][0]["path"]) as file:
        assert file["t0_fields/vorticity"].shape == (5, 3, *SHAPE)
        assert "Largest value" in file["quality/largest"].attrs["description"]
    capsys.readouterr()
    assert main(["verify", "--out", str(generated)]) == 0
    assert main(["status", "--out", str(generated)]) == 0
    out = capsys.readouterr().out
    assert "time steps per sample" in out
    assert "balance laws" in out
    text = (generated / "README.md").read_text()
    assert "`imex_cn` (dt 0.1" in text
    assert "Largest value at the last step." in text
    assert 'trajectories("train", "vorticity")' in text


def test_plan_ledger_and_manifest_fit_their_schemas(generated):
    for name, schema in (
        ("plan.json", schemas.PLAN),
        ("manifest.json", schemas.MANIFEST),
        ("ledger/train-00000.json", schemas.LEDGER),
    ):
        content = json.loads((generated / name).read_text())
        jsonschema.Draft202012Validator(schema).validate(content)
        assert not schemas.violation(content, schema)
    plan = load_plan(generated).content
    plan["config"]["solver"]["m"] = 40  # of linear systems
    assert not jsonschema.Draft202012Validator(schemas.PLAN).is_valid(plan)
    assert schemas.violation(plan, schemas.PLAN) == (
        "config.solver has an unknown key 'm'"
    )


def test_what_is_read_back_is_refused_by_name(generated):
    dataset = open_dataset(generated)
    with pytest.raises(ValueError, match=r"no field 'rate'.*known: \['vorticity'\]"):
        dataset.trajectories("train", "rate")
    with pytest.raises(ValueError, match="no samples in valid"):
        dataset.trajectories("valid", "vorticity")


def test_batches_have_one_size_and_no_shard_depends_on_another(generated):
    assert {num for num, _ in CALLS} == {2}
    whole = file_hashes(generated)
    for name in ("train-00001", "test-00000"):
        (generated / "ledger" / f"{name}.json").unlink()
        split, number = name.split("-")
        (file,) = (generated / "data" / split).glob(f"*-{number}.hdf5")
        file.unlink()
    assert main(["generate", "--out", str(generated)]) == 0
    assert file_hashes(generated) == whole


def test_a_shard_of_one_sample_is_as_in_a_full_batch():
    plan = make_plan(config(), None)
    assert plan.solver["settings"]["batch_size"] == 2
    several = solve(plan, range(3))
    (alone,) = solve(plan, [2])
    np.testing.assert_array_equal(
        several[2].fields["vorticity"], alone.fields["vorticity"]
    )


def solve(plan, ids, **settings):
    solver = plan.solver | {"settings": plan.solver["settings"] | settings}
    evolver = evolution.Evolver(plan.problem(), solver)
    rngs = [sample_rng(3, i, evolution.STREAM) for i in ids]
    return list(evolver.solve_all(rngs, lambda: None))


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("draw", "drawing the sample: ValueError: rate is not finite"),
        ("inf", "imex_cn with dt 0.1: the field vorticity is not finite"),
        ("raise", "imex_cn with dt 0.1: FloatingPointError: not finite"),
    ],
)
def test_one_bad_sample_harms_no_other(bad, words):
    good = solve(make_plan(config(), None), range(7))
    settings = config()
    with settings.unlocked():
        settings.problem.bad = bad
    rates = [sample_rng(3, i, "initial").uniform(0.5, 4.0) for i in range(7)]
    is_bad = [rate > 3 for rate in rates]
    assert 0 < sum(is_bad) < 7
    for wrong, found, before in zip(
        is_bad, solve(make_plan(settings, None), range(7)), good, strict=True
    ):
        if wrong:
            assert (found.rung, found.failed_step) == (QUARANTINE, 0)
            assert found.failures[0] == words
            assert len(found.failures) == (1 if bad == "draw" else 2)
        else:
            assert found.rung == before.rung
            np.testing.assert_array_equal(
                found.fields["vorticity"], before.fields["vorticity"]
            )


def test_halving_ends_after_so_many_attempts():
    plan = make_plan(config(accept=1e-5, halvings=3), None)
    (found,) = solve(plan, [0])
    assert found.rung == QUARANTINE
    assert [dt for _, dt in CALLS] == [0.1, 0.05, 0.025, 0.0125]
    assert "dt 0.0125: balance defect" in found.failures[-1]
    assert "accepted up to 1e-05" in found.failures[-1]
    stepping = TimeStepping("etdrk4", None, 0.5).halved()
    assert (stepping.dt, stepping.cfl) == (None, 0.25)


def test_half_of_a_step_beyond_the_frames_is_another_step(monkeypatch):
    monkeypatch.setattr(Decay, "check", lambda self, stepping: None)
    plan = make_plan(config(dt=4.0, accept=1e-5), None)
    solve(plan, [0])
    assert [dt for _, dt in CALLS] == [0.5, 0.25]


def test_rejected_samples_end_in_quarantine(config_file, tmp_path, capsys):
    root = tmp_path / "bad"
    command = ["generate", "--config", config_file, "--out", str(root)]
    assert main([*command, "--config.problem.bad=inf"]) == 3
    assert "the field vorticity is not finite" in capsys.readouterr().out
    dataset = open_dataset(root)
    rejected = dataset.quality("train")
    assert not rejected["accepted"].all()
    assert len(list((root / "quarantine").glob("*.npz"))) == 10 - sum(
        dataset.splits.values()
    )
    assert len(dataset.trajectories("train", "vorticity")) == dataset.splits["train"]


def test_a_problem_that_returns_other_shapes_is_named(monkeypatch):
    plan = make_plan(config(), None)
    evolve = Decay.evolve

    def short(self, samples, stepping):
        found = evolve(self, samples, stepping)
        fields = dict(found.fields, vorticity=found.fields["vorticity"][:, 1:])
        return dataclasses.replace(found, fields=fields)

    monkeypatch.setattr(Decay, "evolve", short)
    (found,) = solve(plan, [0])
    assert "field vorticity" in found.failures[0]
    assert "(2, 2, 6, 4); expected (2, 3, 6, 4)" in found.failures[0]


def test_lack_of_memory_ends_the_run(monkeypatch):
    def evolve(self, samples, stepping):
        raise RuntimeError("RESOURCE_EXHAUSTED: out of memory")

    monkeypatch.setattr(Decay, "evolve", evolve)
    with pytest.raises(RuntimeError, match=r"smaller --config\.solver\.batch_size"):
        solve(make_plan(config(), None), [0])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scheme": "imex_cm"}, "did you mean imex_cn"),
        ({"dt": 0.0}, "neither dt nor cfl"),
        ({"dt": -0.1}, "solver.dt is -0.1"),
        ({"dt": 0.6}, "config.solver: dt is 0.6; expected at most 0.5"),
        ({"dt": 1e-6}, "dt is 1e-06, which takes 500000 steps between frames"),
        ({"batch_size": 0}, "batch_size is 0, expected at least 1"),
        ({"accept": 0.0}, "accept is 0.0, expected above 0"),
        ({"dtype": "float16"}, "dtype is 'float16'"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_drawn(changes, words):
    with pytest.raises(PlanError, match=words):
        make_plan(config(**changes), None)
    assert not CALLS


@pytest.mark.parametrize("name", ["navier_stokes", "burgers"])
def test_schemes_that_do_not_take_the_equation_are_refused_early(name):
    settings = dict(config()) | {"problem": {"name": name}}
    make_plan(settings, None)
    settings["solver"] = common.time_stepping("legacy_fno", batch_size=2, dt=0.1)
    with pytest.raises(PlanError, match=r"config.solver: scheme 'legacy_fno' needs"):
        make_plan(settings, None)


def test_kinds_of_solvers_are_not_mixed_up():
    linear = dict(config()) | {"solver": common.solver()}
    with pytest.raises(PlanError, match=r"decay is integrated in time.*time_stepping"):
        make_plan(linear, None)
    darcy = dict(config()) | {"problem": {"name": "darcy", "n": 9}}
    with pytest.raises(
        PlanError, match=r"darcy is not; expected configs.common.solver"
    ):
        make_plan(darcy, None)


def test_quality_columns_need_names_of_their_own(monkeypatch):
    monkeypatch.setattr(Decay, "quality_columns", {"iterations": "Mine."})
    with pytest.raises(PlanError, match="quality column 'iterations'"):
        make_plan(config(), None)


def test_a_set_may_be_for_tests_alone(config_file, tmp_path):
    root, command = tmp_path / "set", ["generate", "--config", config_file]
    changes = ["--config.splits.train=0", "--config.splits.test=2"]
    assert main([*command, "--out", str(root), *changes]) == 0
    assert open_dataset(root).splits == {"train": 0, "valid": 0, "test": 2}
    assert "std:\n  rate: 0.0" not in (root / "stats.yaml").read_text()
    assert (
        main(
            [
                *command,
                "--out",
                str(tmp_path / "none"),
                changes[0],
                *changes[:1],
                "--config.splits.test=0",
            ]
        )
        == 2
    )


def test_plans_change_with_the_step_and_stay_as_they_are(
    config_file, generated, capsys
):
    command = ["generate", "--config", config_file, "--out", str(generated)]
    assert main(command) == 0
    assert main([*command, "--config.solver.dt=0.05"]) == 2
    assert "config.solver.dt is 0.1 there and 0.05" in capsys.readouterr().err
    assert load_plan(generated).content["quality"] == Decay.quality_columns


def test_measuring_methods_is_for_linear_systems(config_file, tmp_path, capsys):
    out = ["--config", config_file, "--out", str(tmp_path / "set")]
    assert main(["plan", *out, "--calibrate"]) == 2
    assert "measures methods for linear systems" in capsys.readouterr().err


def test_curves_of_one_axis_are_drawn_from_the_start(tmp_path):
    values, x = np.random.default_rng(0).normal(size=(2, 3, 8)), np.arange(8) / 8
    path = tmp_path / "curves.png"
    words = {"labels": ["initial", "t = 1", "t = 2"], "captions": ["a", "b"]}
    words |= {"name": "solution", "title": "title"}
    strips.plot_strips(path, values, coordinates=[x], **words)
    assert path.stat().st_size > 5000
    with pytest.raises(ValueError, match=r"shape \(2, 8\); expected \[N, T, n\] or"):
        strips.plot_strips(path, values[:, 0], coordinates=[x], **words)


def test_explain_compares_schemes_and_steps(config_file, tmp_path, capsys):
    out = ["--config", config_file, "--out", str(tmp_path / "set")]
    report = tmp_path / "report.json"
    assert main(["explain", *out, "--num", "3", "--json", str(report)]) == 0
    rows = json.loads(report.read_text())["rows"]
    planned, reference, twice, half = rows[:4]
    assert [row["dt"] for row in rows[:4]] == [0.1, 0.025, 0.2, 0.05]
    assert {row["scheme"] for row in rows[4:]} == set(STEPPERS) - {"imex_cn"}
    orders = np.log2([twice["last"] / planned["last"], planned["last"] / half["last"]])
    assert np.all((orders > 2.2) & (orders < 2.7))  # 2.32 for small steps: log2(5)
    assert (planned["steps"], planned["transforms"]) == (15, 60)
    assert "last" not in reference
    assert reference["scheme"] == "etdrk4"
    out = capsys.readouterr().out
    assert "*imex_cn" in out
    assert "accepted up to 0.02" in out


def test_explain_says_what_it_could_not_measure(config_file, tmp_path, capsys):
    command = ["explain", "--config", config_file, "--out", str(tmp_path / "set")]
    command += ["--config.solver.dt=0.4", "--num", "1"]
    assert main(command) == 0
    assert "imex_cn x 2: dt is 0.8; expected at most 0.5" in capsys.readouterr().out
    assert main([*command, "--seconds", "1e-9"]) == 0
    out = capsys.readouterr().out
    assert "not begun after 1e-09 s" in out
    assert "imex_cn x 2: dt is 0.8; expected at most 0.5" in out  # time or not
    assert "time includes compilation" in out
    assert main([*command, "--num", "11"]) == 2
    assert "--num is 11; expected 1 to 10" in capsys.readouterr().err


def test_rows_whose_time_includes_compilation_are_not_drawn():
    rows = [{"first": 1e-3, "warm": warm} for warm in (True, False)]
    rows.append({"refused": "not begun after 1 s"})
    assert explain_steps.drawable({"rows": rows}) == rows[:1]


def test_preview_draws_frames(config_file, tmp_path):
    out = ["--config", config_file, "--out", str(tmp_path / "set")]
    assert main(["preview", *out, "--num", "1"]) == 0
    assert (tmp_path / "set/preview.png").stat().st_size > 5000
    assert {num for num, _ in CALLS} == {1}  # no larger than asked for


FLOW = """
from configs import common


def get_config(variant="full"):
    return common.dataset(
        "flow",
        seed=3,
        num=(22, 0, 3),
        shard_size=4,
        problem={"name": "navier_stokes", "n": 12, "num_frames": 9},
        solver=common.time_stepping("etdrk4", batch_size=3, cfl=0.5, accept=1e-2),
    )
"""


@pytest.mark.slow
def test_killed_and_shared_runs_make_the_same_bytes(tmp_path):
    (tmp_path / "flow.py").write_text(FLOW)
    command = [sys.executable, "-m", "datagen", "generate", "--config", "flow.py"]

    def start(*more):
        return subprocess.Popen(
            [*command, "--out", more[0], *more[1:]],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    whole = start("whole")
    killed = start("killed")
    record = tmp_path / "killed/ledger/train-00000.json"
    while killed.poll() is None and not record.exists():
        time.sleep(0.01)
    killed.kill()
    assert killed.wait() != 0
    assert whole.wait() == 0
    assert start("killed", "--workers", "2").wait() == 0
    assert file_hashes(tmp_path / "killed") == file_hashes(tmp_path / "whole")
