"""Samples of several systems: ladder, files, statistics and reading."""

import h5py
import numpy as np
import pytest
import scipy.sparse as sp

from datagen import plan as planning
from datagen import problems
from datagen.cli import main
from datagen.ladder import DIRECT, PLANNED, QUARANTINE, Ladder
from datagen.plan import PlanError, make_plan, sample_rng
from datagen.problems.base import Boundary, FieldSpec
from datagen.storage.read import DatasetError, open_dataset
from solvers import sequence
from solvers.direct import DirectSolver
from solvers.sequence import LinearSystem

SOLVER = {
    "method": "direct",
    "settings": {},
    "rtol": 1e-8,
    "accept_rtol": 1e-7,
    "maxiter": None,
    "carries": False,
    "fallbacks": [],
}


class Decay:
    """Implicit Euler for du/dt = u_xx - c u on five points, three steps of 0.1."""

    name = "decay"
    equation = "du/dt = d2u/dx2 - c u"
    axes = ("x",)
    boundaries = (Boundary("x", "WALL", "dirichlet:0"),)
    fields = (
        FieldSpec("coefficient", False, "dimensionless", "c."),
        FieldSpec("solution", True, "dimensionless", "u."),
    )
    scalars: dict[str, float] = {}  # noqa: RUF012
    matrices = "spd"
    preconditioner = "jacobi"
    num_systems = 3
    steps = np.array([0.1, 0.2, 0.3])
    step_name = "time"

    def __init__(self, n: int = 7):
        self.n = n
        self.settings = {"n": n}
        self.coordinates = {"x": np.linspace(0, 1, n)}

    def sample(self, rng):
        return {"c": rng.uniform(1, 2, self.n - 2), "u0": rng.uniform(1, 2, self.n - 2)}

    def matrix(self, sample):
        n = self.n - 2
        laplacian = sp.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(n, n))
        A = laplacian * (self.n - 1) ** 2 + sp.diags_array(sample["c"])
        return sp.csr_array(sp.eye_array(n) + 0.1 * A)

    def system(self, sample, step=0, previous=None):
        assert (previous is None) == (step == 0)
        return LinearSystem(
            self.matrix(sample), sample["u0"] if step == 0 else previous
        )

    def fields_from_solution(self, sample, x):
        assert x.shape == (3, self.n - 2)
        return {
            "coefficient": np.pad(sample["c"], 1),
            "solution": np.pad(x, ((0, 0), (1, 1))),
        }

    def features(self, sample):
        return np.concatenate([sample["c"], sample["u0"]])


CONFIG = """
from configs import common


def get_config(variant="full"):
    return common.dataset(
        "decay",
        seed=1,
        num=(5, 2, 2),
        shard_size=3,
        problem={"name": "decay", "n": 7},
        solver=common.solver("direct", ordering="greedy"),
        dtype="float64",
    )
"""


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setitem(problems.PROBLEMS, "decay", Decay)


@pytest.fixture
def decay(tmp_path):
    config = tmp_path / "decay.py"
    config.write_text(CONFIG)
    root = tmp_path / "set"
    assert main(["generate", "--config", str(config), "--out", str(root)]) == 0
    return root


def expected(seed, sample_id):
    problem = Decay()
    sample = problem.sample(sample_rng(seed, sample_id))
    A, u, states = problem.matrix(sample).toarray(), sample["u0"], []
    for _ in range(3):
        u = np.linalg.solve(A, u)
        states.append(np.pad(u, 1))
    return np.stack(states)


def test_every_step_is_stored_on_an_axis_of_time(decay):
    with h5py.File(decay / "data/train/decay-00000.hdf5") as file:
        ids = file["quality/sample_id"][()]
        solution = file["t0_fields/solution"]
        assert solution.shape == (3, 3, 7)
        assert file["t0_fields/coefficient"].shape == (3, 7)
        np.testing.assert_allclose(file["dimensions/time"], [0.1, 0.2, 0.3], rtol=1e-6)
        assert file["dimensions/time"].attrs["step_name"] == "time"
        for row, sample_id in enumerate(ids.tolist()):
            np.testing.assert_allclose(solution[row], expected(1, sample_id))
        assert (file["quality/true_rel_residual"][()] < 1e-12).all()
        assert file["quality/failed_step"][()].tolist() == [-1] * 3


def test_the_reader_asks_which_steps(decay):
    dataset = open_dataset(decay)
    assert dataset.steps.tolist() == [0.1, 0.2, 0.3]
    assert dataset.step_name == "time"
    with pytest.raises(DatasetError, match=r"3 steps \(time 0.1 to 0.3\): say which"):
        dataset.load("train")
    with pytest.raises(DatasetError, match="step 3 does not exist"):
        dataset.load("train", steps=3)
    last = dataset.load("train", steps=-1)
    assert last.x.shape == last.y.shape == (5, 7, 1)
    some = dataset.load("train", steps=(0, 2), outputs=("solution", "coefficient"))
    assert some.y.shape == (5, 7, 3)
    for row, sample_id in enumerate(some.sample_ids.tolist()):
        states = expected(1, sample_id)
        np.testing.assert_allclose(some.y[row, :, :2].T, states[[0, 2]], rtol=1e-6)
        np.testing.assert_allclose(last.y[row, :, 0], states[2], rtol=1e-6)
    both = dataset.load("train", inputs=("solution",), steps=1, num=2)
    np.testing.assert_array_equal(both.x, both.y)
    np.testing.assert_allclose(both.x[1, :, 0], expected(1, 1)[1], rtol=1e-6)


def test_statistics_of_changes_are_those_between_steps(decay):
    yaml = pytest.importorskip("yaml")
    stats = yaml.safe_load((decay / "stats.yaml").read_text())
    values = np.stack([expected(1, i) for i in range(5)])
    changes = np.diff(values, axis=1)
    assert stats["mean"]["solution"] == pytest.approx(values.mean())
    assert stats["mean_delta"]["solution"] == pytest.approx(changes.mean())
    assert stats["std_delta"]["solution"] == pytest.approx(changes.std())
    rms = np.sqrt((changes**2).mean())
    assert stats["rms_delta"]["solution"] == pytest.approx(rms)
    assert "coefficient" not in stats["mean_delta"]


def test_readme_and_manifest_name_the_steps(decay):
    text = (decay / "README.md").read_text()
    assert "3 steps (time 0.1 to 0.3)" in text
    assert "steps=-1" in text
    assert "in the order `greedy`" in text
    manifest = open_dataset(decay).manifest
    assert manifest["steps"] == {"name": "time", "values": [0.1, 0.2, 0.3]}
    assert manifest["fallbacks"] == {"samples": 0, "total": 0}
    assert manifest["solver"]["ordering"] == "greedy"


class Failing(DirectSolver):
    """Returns zeros for one right-hand side."""

    bad = None

    def solve(self, system, *, rtol, maxiter=None, x0=None):
        x, record = super().solve(system, rtol=rtol)
        return (0 * x if np.array_equal(system.rhs, self.bad) else x), record


def test_one_step_that_cannot_be_solved_rejects_the_sample(monkeypatch):
    monkeypatch.setitem(sequence.METHODS, "failing", sequence.Method(Failing))
    solver = SOLVER | {"method": "failing"}
    ladder = Ladder(Decay(), solver)
    whole = ladder.solve(sample_rng(1, 0))
    assert whole.rung == PLANNED
    assert len(whole.records) == 3
    np.testing.assert_allclose(whole.fields["solution"], expected(1, 0))
    monkeypatch.setattr(Failing, "bad", whole.fields["solution"][0, 1:-1])
    solved = Ladder(Decay(), solver).solve(sample_rng(1, 0))
    assert (solved.rung, solved.failed_step) == (QUARANTINE, 1)
    assert solved.fields is None
    assert solved.true_residual == 1.0
    assert solved.failures[0].startswith("system 1: failing: true relative residual")
    saved = Ladder(
        Decay(), solver | {"fallbacks": [{"method": "direct", "settings": {}}]}
    ).solve(sample_rng(1, 0))
    assert (saved.rung, saved.failed_step) == (DIRECT, -1)
    np.testing.assert_array_equal(saved.fields["solution"], whole.fields["solution"])


def test_an_error_in_a_later_step_stays_in_the_sample(monkeypatch):
    system = Decay.system

    def broken(self, sample, step=0, previous=None):
        if step == 2:
            raise ValueError("no third step")
        return system(self, sample, step, previous)

    monkeypatch.setattr(Decay, "system", broken)
    solved = Ladder(Decay(), SOLVER).solve(sample_rng(1, 0))
    assert (solved.rung, solved.failed_step) == (QUARANTINE, 2)
    assert solved.failures == ("setting up system 2: ValueError: no third step",)


@pytest.mark.parametrize("follows", [True, False])
def test_time_steps_start_from_the_solution_before(monkeypatch, follows):
    starts = []

    class Spying(DirectSolver):
        def solve(self, system, *, rtol, maxiter=None, x0=None):
            starts.append(x0)
            return super().solve(system, rtol=rtol)

    monkeypatch.setitem(sequence.METHODS, "spying", sequence.Method(Spying))
    monkeypatch.setattr(Decay, "starts_from_previous", follows, raising=False)
    solved = Ladder(Decay(), SOLVER | {"method": "spying"}).solve(sample_rng(1, 0))
    assert starts[0] is None
    for x0, before in zip(starts[1:], solved.fields["solution"], strict=False):
        assert (x0 is not None) == follows
        assert not follows or np.array_equal(x0, before[1:-1])


def test_counts_are_summed_and_the_worst_residual_is_kept(monkeypatch):
    class Counting(DirectSolver):
        calls = 0

        def solve(self, system, *, rtol, maxiter=None, x0=None):
            x, record = super().solve(system, rtol=rtol)
            Counting.calls += 1
            changes = {"iterations": self.calls, "matvecs": 10, "recycle_dim": 4}
            off = 1e-8 if self.calls == 2 else 0.0
            return (1 + off) * x, type(record)(**(vars(record) | changes))

    monkeypatch.setitem(sequence.METHODS, "counting", sequence.Method(Counting))
    solved = Ladder(Decay(), SOLVER | {"method": "counting"}).solve(sample_rng(1, 0))
    assert solved.total("iterations") == 1 + 2 + 3
    assert solved.total("matvecs") == 30
    assert solved.true_residual == pytest.approx(1e-8, rel=1e-3)


def test_several_systems_without_steps_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(Decay, "steps", None)
    with pytest.raises(PlanError, match="has no attribute steps"):
        planning.steps_of(Decay())
    config = {"name": "x", "seed": 0, "shard_size": 2, "storage": {"dtype": "float32"}}
    config |= {
        "splits": {"train": 2, "valid": 0, "test": 0},
        "problem": {"name": "decay"},
    }
    from configs import common

    with pytest.raises(PlanError, match="has no attribute steps"):
        make_plan(config | {"solver": common.solver("direct")}, tmp_path)
