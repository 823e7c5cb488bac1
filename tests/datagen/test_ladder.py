"""Samples are accepted on the recomputed residual, whatever the solver says."""

import json

import h5py
import numpy as np
import pytest

from datagen.cli import main
from datagen.ladder import DIRECT, MORE_ITERATIONS, PLANNED, QUARANTINE, Ladder
from datagen.plan import create_problem, load_plan, sample_rng
from datagen.problems.darcy import Darcy
from datagen.storage.read import open_dataset
from solvers import sequence
from solvers.direct import DirectSolver
from solvers.results import SolveRecord

SETTINGS = {
    "method": "planned",
    "settings": {},
    "rtol": 1e-8,
    "accept_rtol": 1e-7,
    "maxiter": 7,
    "carries": False,
    "fallbacks": [{"method": "direct", "settings": {}}],
}


def report(**changes):
    fields = {
        "method": "planned",
        "converged": True,
        "status": "converged",
        "iterations": 3,
        "matvecs": 3,
        "preconditioner_applications": 3,
        "seconds": 0.0,
        "relative_residual": 1e-12,
        "true_relative_residual": 1e-12,
    }
    return SolveRecord(**(fields | changes))


class Scripted:
    """Answers with `answer(system, maxiter)`; everything else does nothing."""

    def __init__(self, answer):
        self.answer = answer

    def solve(self, system, *, rtol, maxiter=None, x0=None):
        return self.answer(system, maxiter), report()

    def reset(self):
        pass

    def close(self):
        pass


@pytest.fixture
def solve(monkeypatch):
    def solve(answer, problem=None, **settings):
        scripted = sequence.Method(lambda: Scripted(answer))
        monkeypatch.setitem(sequence.METHODS, "planned", scripted)
        problem = problem or create_problem({"name": "darcy", "n": 9})
        ladder = Ladder(problem, SETTINGS | settings)
        solved = ladder.solve(sample_rng(0, 0))
        ladder.close()
        return solved

    return solve


def exact(system):
    return DirectSolver().solve(system, rtol=1e-8)[0]


def test_a_right_answer_needs_one_rung(solve):
    solved = solve(lambda system, maxiter: exact(system))
    assert (solved.rung, solved.failures) == (PLANNED, ())
    assert solved.true_residual < 1e-12


@pytest.mark.parametrize(
    "lie",
    [
        lambda system: np.ones(system.rhs.shape),
        lambda system: np.zeros(system.rhs.shape),
        lambda system: np.full(system.rhs.shape, np.nan),
        lambda system: 1.001 * exact(system),
        lambda system: exact(system).T,
    ],
)
def test_a_lying_solver_is_not_believed(solve, lie):
    solved = solve(lambda system, maxiter: lie(system))
    assert solved.rung == DIRECT
    assert solved.true_residual < 1e-12
    assert len(solved.failures) == 2


def test_more_iterations_come_before_the_direct_solver(solve):
    solved = solve(
        lambda system, maxiter: exact(system) if maxiter == 14 else system.rhs
    )
    assert solved.rung == MORE_ITERATIONS
    assert len(solved.failures) == 1


def test_an_exception_costs_one_rung(solve):
    def answer(system, maxiter):
        raise FloatingPointError("breakdown")

    solved = solve(answer)
    assert solved.rung == DIRECT
    assert "FloatingPointError: breakdown" in solved.failures[0]


def test_the_bound_of_acceptance_is_accept_rtol(solve):
    def off_by(residual):
        return lambda system, maxiter: (1 + residual) * exact(system)

    assert solve(off_by(0.9e-7)).rung == PLANNED
    assert solve(off_by(1.1e-7)).rung == DIRECT


class Poisoned(Darcy):
    """Darcy flow that hands out NaN, or a singular matrix."""

    how = "nan"

    def sample(self, rng):
        sample = super().sample(rng)
        if self.how == "nan":
            sample["coefficient"][4, 4] = np.nan
        return sample

    def system(self, sample, step=0, previous=None):
        system = super().system(sample, step, previous)
        if self.how == "singular":
            coefficients = np.zeros_like(system.operator.coefficients)
            operator = type(system.operator)(coefficients, system.operator.offsets)
            return sequence.LinearSystem(operator, system.rhs)
        return system


@pytest.mark.parametrize("how", ["nan", "singular"])
@pytest.mark.filterwarnings("ignore::scipy.sparse.linalg.MatrixRankWarning")
def test_what_cannot_be_solved_goes_to_quarantine(solve, how):
    problem = Poisoned(n=9)
    object.__setattr__(problem, "how", how)
    solved = solve(lambda system, maxiter: system.rhs, problem)
    assert solved.rung == QUARANTINE
    assert not solved.accepted
    assert solved.fields is None
    assert solved.failures


@pytest.fixture
def poison(monkeypatch):
    """Makes sample 4 fail in the way given: a function of the drawn sample."""

    def poison(harm, victims=(4,)):
        sample = Darcy.sample
        # The first number of a stream tells whose stream it is.
        marks = {sample_rng(5, victim).random() for victim in victims}

        def harmed(self, rng):
            state = rng.bit_generator.state
            mark = rng.random()
            rng.bit_generator.state = state
            drawn = sample(self, rng)
            return harm(drawn) if mark in marks else drawn

        monkeypatch.setattr(Darcy, "sample", harmed)

    return poison


def with_nan(sample):
    sample["coefficient"][3, 3] = np.nan
    return sample


def with_exception(sample):
    raise RuntimeError("sample 4 raises")


@pytest.mark.parametrize("harm", [with_nan, with_exception])
def test_only_the_poisoned_sample_is_rejected(
    poison, harm, config_file, finished, tmp_path, capsys
):
    poison(harm)
    root = tmp_path / "poisoned"
    command = ["generate", "--config", config_file, "--out", str(root)]
    assert main(command) == 3
    assert "1 of 11 samples were rejected" in capsys.readouterr().err
    dataset, whole = open_dataset(root), open_dataset(finished)
    assert dataset.splits == {"train": 5, "valid": 2, "test": 3}
    train, expected = dataset.load("train"), whole.load("train")
    keep = [0, 1, 2, 3, 5]  # the gap stays: nothing replaces sample 4
    assert train.sample_ids.tolist() == keep
    np.testing.assert_array_equal(train.y, expected.y[keep])
    with h5py.File(root / "data/train/tiny-00001.hdf5") as file:
        assert file["quality/accepted"][()].tolist() == [False, True]
        assert file["quality/method"][()].tolist() == [QUARANTINE, PLANNED]
        assert np.isnan(file["t0_fields/solution"][0]).all()
    assert dataset.manifest["counts"]["train"] == {
        "planned": 6,
        "accepted": 5,
        "quarantined": 1,
    }
    assert dataset.manifest["ladder"] == {"planned": 10, "quarantine": 1}
    assert json.loads((root / "quarantine/4.json").read_text())["failures"]
    assert (root / "quarantine/4.npz").exists()
    assert main(["verify", "--out", str(root)]) == 3
    assert main(command) == 3  # finished, and says so again


def test_a_shard_without_a_single_solution_stops_the_run(
    poison, config_file, tmp_path, capsys
):
    poison(with_exception, victims=(4, 5))
    root = tmp_path / "poisoned"
    assert main(["generate", "--config", config_file, "--out", str(root)]) == 1
    error = capsys.readouterr().err
    assert "not one of the 2 samples of train-00001" in error
    assert "sample 4 raises" in error
    assert not (root / "data/train/tiny-00001.hdf5").exists()


def test_streams_of_samples_and_roots_are_distinct():
    seen = set()
    for root in range(10):
        for stream in ("coefficient", "forcing", "initial"):
            for sample_id in range(50):
                seen.add(sample_rng(root, sample_id, stream).bytes(16))
    assert len(seen) == 10 * 3 * 50


def test_samples_of_all_splits_are_distinct(finished):
    plan = load_plan(finished)
    problem = plan.problem()
    draws = {
        problem._field.draw(sample_rng(5, i)).tobytes() for i in plan.order.tolist()
    }
    assert len(draws) == plan.num_samples == 11
