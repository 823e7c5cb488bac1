"""What a plan decides about the solver, and what is carried from sample to sample."""

import contextlib
import dataclasses
import io
import json
import re

import numpy as np
import pytest
import scipy.sparse as sp

from configs import common, loading
from datagen import plan as planning
from datagen import progress, run, trials
from datagen.cli import main
from datagen.ladder import COLD, DIRECT, FALLBACK, PLANNED, Ladder, Solved
from datagen.methods import MethodError, resolve
from datagen.plan import create_problem, load_plan, make_plan, sample_rng
from datagen.problems.darcy import Darcy
from datagen.provenance import provenance
from datagen.reports import SampleReport
from datagen.storage.read import open_dataset
from solvers import sequence
from solvers.direct import DirectSolver
from solvers.sequence import LinearSystem, Method
from tests.datagen.conftest import file_hashes


class Remembering:
    """A direct solver whose answers tell what it carries: the number of solves."""

    built: list["Remembering"] = []  # noqa: RUF012
    trouble = None

    def __init__(self, *, m=1, k=1, preconditioner="none"):
        self.settings = (m, k, preconditioner)
        self.reset()
        Remembering.built.append(self)

    def solve(self, system, *, rtol, maxiter=None, x0=None):
        x, record = DirectSolver().solve(system, rtol=rtol)
        place = len(self.history)
        self.history = (*self.history, float(x[2, 2]))
        if self.trouble is not None:
            x = self.trouble(place, x)
        # Carried state shows in the bits of x, far below the tolerance.
        x = x * (1 + 1e-12 * place)
        changes = {"recycle_dim": place, "iterations": 100 - place}
        return x, type(record)(**(vars(record) | changes))

    def snapshot(self):
        return self.history

    def restore(self, snapshot):
        self.history = snapshot

    def reset(self):
        self.history = ()

    def close(self):
        self.history = None


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    entry = Method(Remembering, settings=("m", "k", "preconditioner"), carries=True)
    monkeypatch.setitem(sequence.METHODS, "remembering", entry)
    monkeypatch.setattr(Remembering, "built", [])
    real = Method(DirectSolver, complex_systems=False)
    monkeypatch.setitem(sequence.METHODS, "real", real)
    symmetric = Method(DirectSolver, needs="symmetric")
    monkeypatch.setitem(sequence.METHODS, "symmetric", symmetric)


def resolved(method="remembering", problem=None, sizes=(100, 10, 10), **changes):
    problem = problem or create_problem({"name": "darcy", "n": 9})
    return resolve(common.solver(method, **changes).to_dict(), problem, list(sizes))


def test_auto_is_decided_by_problem_and_method():
    solver = resolved()
    assert solver["settings"] == {"m": 40, "k": 20, "preconditioner": "jacobi"}
    assert solver["preconditioner"] == Darcy.preconditioner == "jacobi"
    assert (solver["ordering"], solver["carries"]) == ("greedy", True)
    assert solver["maxiter"] is None
    assert solver["fallbacks"] == [{"method": "direct", "settings": {}}]
    assert resolved(sizes=(20_001, 1, 1))["ordering"] == "cells"
    direct = resolved("direct")
    assert (direct["ordering"], direct["settings"]) == ("none", {})
    assert (direct["preconditioner"], direct["fallbacks"]) == ("none", [])


def test_settings_reach_the_solver():
    solver = resolved(m=30, k=5, preconditioner="none", maxiter=7, ordering="tree")
    assert solver["settings"] == {"m": 30, "k": 5, "preconditioner": "none"}
    assert (solver["maxiter"], solver["ordering"]) == (7, "tree")
    ladder = Ladder(create_problem({"name": "darcy", "n": 9}), solver)
    ladder.solve(sample_rng(0, 0))
    assert Remembering.built[-1].settings == (30, 5, "none")


class Complex(Darcy):
    """Darcy flow with an imaginary part."""

    def system(self, sample, step=0, previous=None):
        system = super().system(sample, step, previous)
        return LinearSystem(system.to_csr() * (1 + 1j), system.rhs)


@pytest.mark.parametrize(
    ("method", "changes", "words"),
    [
        ("skrr", {}, "config.solver.method: unknown method 'skrr'; known: .*direct"),
        ("direct", {"fallbacks": ("dirct",)}, "fallbacks: unknown method 'dirct'"),
        ("remembering", {"preconditioner": "iluu"}, "preconditioner: unknown .*jacobi"),
        (
            "direct",
            {"ordering": "tree"},
            "ordering is tree, but direct carries nothing",
        ),
        ("direct", {"accept_rtol": 1e-9}, "expected rtol <= accept_rtol"),
        ("real", {}, "real solves real systems only and those .*method=direct"),
        (
            "direct",
            {"fallbacks": ("real",)},
            "config.solver.fallbacks: real solves real .*--config.solver.fallbacks=",
        ),
        (
            "direct",
            {"fallbacks": ("skr",), "m": 5, "preconditioner": "none"},
            r"config.solver.k \(for fallbacks: skr\): k is",
        ),
        ("skr", {"m": 20, "k": 20, "preconditioner": "none"}, "config.solver.k: k is"),
        (
            "gcrotmk",
            {"m": 20, "k": 20, "preconditioner": "none"},
            "config.solver.m and k: m is 20 and k is 20",
        ),
    ],
)
def test_what_does_not_suit_is_one_sentence(method, changes, words):
    with pytest.raises(MethodError, match=words) as caught:
        resolved(method, Complex(n=9), **changes)
    assert "\n" not in str(caught.value)


def test_needs_are_compared_with_the_matrices():
    problem = Darcy(n=9)
    assert resolved("symmetric", problem)["method"] == "symmetric"
    object.__setattr__(problem, "mode", "fno_compat")  # symmetric, not more
    assert resolved("symmetric", problem)
    with pytest.raises(MethodError, match="mg_pcg needs symmetric positive definite"):
        resolved("mg_pcg", problem)
    with pytest.raises(MethodError, match="fallbacks: mg_pcg needs"):
        resolved("direct", problem, fallbacks=("mg_pcg",))


def test_the_key_that_is_wrong_is_named():
    """The preconditioner was looked at before; the fallback is what does not suit."""
    problem = create_problem(SMALL["helmholtz"])
    with pytest.raises(MethodError, match=r"^config\.solver\.fallbacks: cg needs .*"):
        resolved("direct", problem, fallbacks=("cg",))


SMALL = {
    "helmholtz": {"name": "helmholtz", "n": 33, "wavelengths": 2, "source_width": 0.1},
    "flow": {"name": "convection_diffusion", "n": 17},
    "darcy": {"name": "darcy", "n": 17},
}


@pytest.mark.parametrize(
    ("problem", "method", "preconditioner", "words"),
    [
        ("darcy", "deflated_cg", "ilu", "is not symmetric.*=jacobi .suitable: jacobi"),
        ("darcy", "cg", "petsc:-pc_type asm -pc_asm_blocks 3", "is not symmetric"),
        ("flow", "skr", "icc0", "needs symmetric matrices"),
        ("helmholtz", "skr", "ilu0", "built with real numbers .*; use --config"),
        (
            "helmholtz",
            "skr",
            "petsc:-pc_type sor",
            "built with real numbers .*; use --config",
        ),
    ],
)
def test_preconditioners_that_do_not_suit_are_refused(
    problem, method, preconditioner, words
):
    if preconditioner == "ilu0" or preconditioner.startswith("petsc:"):
        pytest.importorskip("petsc4py")
    problem = create_problem(SMALL[problem])
    with pytest.raises(MethodError, match=words) as caught:
        resolved(method, problem, preconditioner=preconditioner)
    text = str(caught.value)
    assert text.startswith("config.solver.preconditioner: ")
    assert "\n" not in text
    # What is named as suitable is.
    for name in text.split("(suitable: ")[1].rstrip(")").split(", "):
        if name not in ("ilu0", "icc0"):
            resolved(method, problem, preconditioner=name)
    with pytest.raises(MethodError, match=r"config\.solver\.preconditioner: "):
        resolved("direct", problem, preconditioner=preconditioner, fallbacks=(method,))


@pytest.mark.parametrize("typo", ["-ksp_type cgg", "-pc_type gammg", "-pc_typ gamg"])
def test_misspelt_petsc_options_are_refused_before_planning(typo):
    pytest.importorskip("petsc4py")
    option = typo.split()[0]
    with pytest.raises(MethodError, match=rf"^config\.solver\.method: .*{option}"):
        resolved(f"petsc:{typo}")
    with pytest.raises(MethodError, match=rf"^config\.solver\.fallbacks: .*{option}"):
        resolved("direct", fallbacks=(f"petsc:{typo}",))


def test_a_pivot_that_vanishes_in_one_sample_does_not_stop_the_plan(monkeypatch):
    system, calls = Darcy.system, []

    def unlucky(self, sample, step=0, previous=None):
        calls.append(1)
        found = system(self, sample, step, previous)
        bad = len(calls) == 1 or all_bad
        return LinearSystem(found.to_csr() * (0.0 if bad else 1.0), found.rhs)

    monkeypatch.setattr(Darcy, "system", unlucky)
    all_bad = False
    assert resolved("cg")["preconditioner"] == "jacobi"
    calls.clear()
    all_bad = True
    with pytest.raises(MethodError, match=r"config\.solver\.preconditioner: jacobi"):
        resolved("cg")


@pytest.mark.parametrize(
    ("method", "changes", "carries"),
    [
        ("gmres", {}, False),
        ("gmres", {"preconditioner": "lu"}, True),
        ("gmres", {"frozen": True}, True),
        ("gmres", {"frozen": True, "preconditioner": "none"}, False),
        ("petsc:-ksp_type python -ksp_python_type solvers.petsc.GCRODR", {}, True),
        (
            "petsc:-ksp_type python -ksp_python_type solvers.petsc.GCRODR "
            "-ksp_gcrodr_recycle false",
            {},
            False,
        ),
        ("petsc:-ksp_type cg", {}, False),
    ],
)
def test_what_is_kept_besides_a_space_counts_as_carried(method, changes, carries):
    if method.startswith("petsc:"):
        pytest.importorskip("petsc4py")
    solver = resolved(method, **changes)
    assert solver["carries"] is carries
    assert solver["ordering"] == ("greedy" if carries else "none")
    with pytest.raises(MethodError, match="cannot go back" if carries else "nothing"):
        resolved(method, **changes, ordering="tree")


def test_a_preconditioner_made_for_these_samples_is_not_carried():
    problem = create_problem(SMALL["helmholtz"])
    assert next(trials.systems(problem)).preconditioning_matrix is not None
    assert not resolved("gmres", problem, preconditioner="lu")["carries"]


def test_a_frozen_preconditioner_that_fails_is_built_anew():
    """The factors of a first system that is far from the second: the COLD rung."""
    problem = create_problem({"name": "darcy", "n": 17})
    solver = resolved("gmres", problem, preconditioner="lu", maxiter=6)
    ladder, system, factors = Ladder(problem, solver), problem.system, iter((1e3, 1))

    def contrast(sample, step=0, previous=None):
        found = system(sample, step, previous)
        scale = np.ones(found.rhs.size)
        scale[::2] = next(factors)
        D = sp.diags_array(scale)
        return LinearSystem((D @ found.to_csr() @ D).tocsr(), found.rhs)

    problem.__dict__["system"] = contrast
    rungs = [ladder.solve(sample_rng(0, i)).rung for i in range(2)]
    assert rungs == [PLANNED, COLD]


def solve_some(num, trouble=None, **changes):
    """Darcy samples 0 ... num - 1 with one ladder."""
    Remembering.trouble = staticmethod(trouble) if trouble else None
    ladder = Ladder(create_problem({"name": "darcy", "n": 9}), resolved(**changes))
    solved = [ladder.solve(sample_rng(0, i)) for i in range(num)]
    ladder.close()
    Remembering.trouble = None
    return solved


def recycle_dims(solved):
    return [s.records[-1].recycle_dim for s in solved]


def test_state_is_carried_along_and_dropped_after_a_failure():
    assert recycle_dims(solve_some(4)) == [0, 1, 2, 3]
    solved = solve_some(5, lambda place, x: x * 0 if place == 2 else x)
    assert [s.rung for s in solved] == [PLANNED, PLANNED, COLD, PLANNED, COLD]
    assert recycle_dims(solved) == [0, 1, 0, 1, 0]
    assert len(solved[2].failures) == 1


def test_an_exception_drops_the_state_and_costs_one_rung():
    def trouble(place, x):
        if place == 1:
            raise ZeroDivisionError("pivot")
        return x

    solved = solve_some(3, trouble)
    assert [s.rung for s in solved] == [PLANNED, COLD, COLD]
    assert recycle_dims(solved) == [0, 0, 0]
    assert solved[1].failures == ("remembering: ZeroDivisionError: pivot",)


def test_a_sample_that_only_a_fallback_solves_poisons_nothing():
    def trouble(place, x):
        return np.nan * x if trouble.count <= 2 and place == 0 else x

    def counted(place, x):
        trouble.count += 1
        return trouble(place, x)

    trouble.count = 0
    solved = solve_some(3, counted, fallbacks=("symmetric", "direct"))
    assert [s.rung for s in solved] == [FALLBACK, FALLBACK, PLANNED]
    assert np.isfinite(solved[2].true_residual)
    trouble.count = 0
    solved = solve_some(1, counted, maxiter=5)
    assert solved[0].rung == DIRECT
    assert len(solved[0].failures) == 2


def test_sampling_errors_drop_the_state(monkeypatch):
    ladder = Ladder(create_problem({"name": "darcy", "n": 9}), resolved())
    ladder.solve(sample_rng(0, 0))
    sample = Darcy.sample
    monkeypatch.setattr(Darcy, "sample", lambda self, rng: 1 / 0)
    rejected = ladder.solve(sample_rng(0, 1))
    assert rejected.failures == ("setting up: ZeroDivisionError: division by zero",)
    monkeypatch.setattr(Darcy, "sample", sample)
    assert recycle_dims([ladder.solve(sample_rng(0, 2))]) == [0]


@pytest.mark.parametrize(
    ("method", "changes", "keys"),
    [
        ("direct", {}, set()),
        ("skr", {"preconditioner": "ilu0"}, {"petsc4py"}),
        ("direct", {"fallbacks": ("petsc:-ksp_type cg",)}, {"petsc4py"}),
        (
            "direct",
            {"fallbacks": ("gmres",), "preconditioner": "icc0"},
            {"petsc4py"},
        ),
        ("skr", {"fallbacks": ("mg_pcg", "direct")}, {"jax_backend"}),
    ],
)
def test_provenance_names_what_a_fallback_uses(method, changes, keys):
    if "petsc4py" in keys:
        pytest.importorskip("petsc4py")
    found = provenance(resolved(method, **changes))
    assert {"petsc4py", "jax_backend"} & found.keys() == keys


def test_bad_draws_are_told_as_such(config_file, tmp_path, monkeypatch, capsys):
    """Two of the samples overflow, the first one among them."""
    sample = Darcy.sample

    def overflowing(self, rng):
        found = sample(self, rng)
        mean = found["coefficient"].mean()
        return (
            {"coefficient": np.exp(1e3 * found["coefficient"])} if mean < 7 else found
        )

    monkeypatch.setattr(Darcy, "sample", overflowing)
    root = tmp_path / "set"
    command = ["generate", "--config", config_file, "--out", str(root)]
    assert main([*command, "--config.solver.method=skr"]) == 3
    captured = capsys.readouterr()
    words = r"sample \d+ goes to quarantine: setting up: ValueError: coefficient is"
    assert re.search(words, captured.out)
    assert re.search(r"recycled in \d+ of 11 samples; started", captured.out)
    assert re.search(r"Recycled in \d+ of 11 samples", (root / "README.md").read_text())
    assert "iterations per sample on average" in status(root, capsys)
    assert "without finite features come last" in captured.out
    assert "frozen" not in captured.out
    assert "RuntimeWarning" not in captured.err
    assert "without finite features come last" in (root / "README.md").read_text()
    assert main(["verify", "--out", str(root)]) == 3


def status(root, capsys):
    assert main(["status", "--out", str(root)]) == 0
    return capsys.readouterr().out


def test_samples_by_fallback_are_told(config_file, tmp_path, capsys):
    root = tmp_path / "set"
    command = ["generate", "--config", config_file, "--out", str(root)]
    command += ["--config.solver.method=bicgstab", "--config.solver.maxiter=1"]
    assert main([*command, "--config.solver.preconditioner=none"]) == 0
    words = "11 of 11 samples by fallback direct"
    assert words in capsys.readouterr().out.splitlines()[-1]
    assert words in status(root, capsys)
    assert words in (root / "README.md").read_text()


def test_the_reason_for_not_recycling_is_told(config_file, tmp_path):
    plan = make_plan(loading.load(config_file).to_dict(), tmp_path)
    record = sequence.create("direct").solve(
        LinearSystem(sp.eye_array(3).tocsr(), np.ones(3)), rtol=1e-8
    )[1]
    note = "recycling bypassed: cold solves take 3 steps, fewer than 2 k"
    plain = dataclasses.replace(record, fallbacks=(note,))
    told = progress.Progress(plan)
    for used in (plain, dataclasses.replace(record, recycle_dim=2), plain):
        solved = Solved({}, PLANNED, (used,), 0.0, (), {})
        told.sample(SampleReport.of("train-00000", 0, solved))
    words = "recycled in 1 of 3 samples; started, bypassed or dropped in 2"
    assert told.recycling() == f"{words} (last reason: {note})"


def test_the_timed_sample_tells_whether_a_fallback_helped(config_file, tmp_path):
    config = {**loading.load(config_file).to_dict()}
    lines = []
    for solved in (True, False):
        plan = make_plan(config, tmp_path)
        timing = run.Timing(0.0, 2.5, 100, ("direct: no",), solved)
        with contextlib.redirect_stdout(io.StringIO()) as output:
            progress.announce(plan, list(plan.shards), timing)
        lines.append(output.getvalue())
        assert "2.5 s each (two solved to tell)" in lines[-1]
    assert "direct failed on the sample timed; a fallback did" in lines[0]
    assert "warning: the sample timed could not be made: direct: no" in lines[1]


@pytest.fixture
def generate(config_file, tmp_path):
    """Makes the tiny set with a carrying method."""

    def generate(ordering, name, *more):
        root = tmp_path / name
        command = ["generate", "--config", config_file, "--out", str(root)]
        command += ["--config.solver.method=remembering"]
        command += [f"--config.solver.ordering={ordering}", *more]
        assert main(command) == 0
        return root

    return generate


@pytest.mark.parametrize("ordering", ["greedy", "cells", "tree"])
def test_sorted_and_unsorted_sets_read_back_equal(generate, finished, ordering):
    root = generate(ordering, ordering)
    ours, plain = open_dataset(root), open_dataset(finished)
    order = load_plan(root).order
    assert order.tolist() != list(range(11))
    for split, ids in (("train", range(6)), ("valid", range(6, 8))):
        one, other = ours.load(split), plain.load(split)
        assert one.sample_ids.tolist() == list(ids)
        np.testing.assert_array_equal(one.x, other.x)
        np.testing.assert_allclose(one.y, other.y, rtol=1e-6)
        assert ours.quality(split)["sample_id"].tolist() == list(ids)
    assert sorted(order[:6].tolist()) == list(range(6))
    assert main(["verify", "--out", str(root)]) == 0


def test_the_state_follows_the_tree(generate):
    """The number of solves behind a sample is its depth in the tree of its shard."""
    root = generate("tree", "tree", "--config.shard_size=11", "--config.splits.train=9")
    plan = load_plan(root)
    quality = open_dataset(root).quality("train")
    dims = dict(zip(quality["sample_id"], quality["recycle_dim"], strict=True))
    depths = []
    for parent in plan.parents[:9].tolist():
        depths.append(0 if parent < 0 else depths[parent] + 1)
    assert depths != list(range(9))  # it does branch
    assert [dims[i] for i in plan.order[:9].tolist()] == depths
    checksums = (root / "checksums.sha256").read_text()
    assert "parents.npy" in checksums
    (root / "parents.npy").chmod(0o644)
    np.save(root / "parents.npy", plan.parents[::-1])
    assert main(["verify", "--out", str(root)]) == 1


@pytest.mark.parametrize("ordering", ["greedy", "tree"])
def test_bytes_do_not_depend_on_resuming_or_on_other_shards(generate, ordering):
    root = generate(ordering, "whole")
    before = file_hashes(root)
    for name in ("train-00001", "valid-00000"):
        (root / "ledger" / f"{name}.json").unlink()
        split, number = name.split("-")
        (root / f"data/{split}/tiny-{number}.hdf5").unlink()
    for name in ("manifest.json", "stats.yaml", "checksums.sha256"):
        (root / name).unlink()
    assert main(["generate", "--out", str(root)]) == 0
    assert file_hashes(root) == before


def test_going_on_does_not_draw_the_inputs_again(
    config_file, tmp_path, monkeypatch, capsys
):
    root = tmp_path / "set"
    command = ["--config", config_file, "--out", str(root)]
    command += ["--config.solver.method=remembering"]
    assert main(["plan", *command]) == 0
    output = capsys.readouterr().out
    assert "drawing the inputs of 11 samples" in output
    assert "method remembering m 40 k 20 preconditioner jacobi" in output
    assert "ordering greedy; fallbacks direct" in output
    assert "order of train: mean step" in output
    drawn = []
    features = Darcy.features
    monkeypatch.setattr(
        Darcy, "features", lambda self, s: drawn.append(1) or features(self, s)
    )
    assert main(["generate", *command]) == 0
    assert not drawn
    text = (root / "README.md").read_text()
    words = ("`remembering`", "preconditioner jacobi", "m 40", "k 20", "`greedy`")
    assert all(word in text for word in words)
    assert main(["generate", *command, "--config.solver.m=30"]) == 2
    assert "config.solver.m is 40 there and 30" in capsys.readouterr().err
    plain = tmp_path / "plain"
    command = ["plan", "--config", config_file, "--out", str(plain)]
    assert main(command) == 0
    assert not drawn
    assert "ordering none" in capsys.readouterr().out


def test_statistics_of_the_order_are_no_part_of_the_identity(copied):
    content = json.loads((copied / "plan.json").read_text())
    changed = content | {"sort_statistics": {"train": {"mean_step": 1.0}}}
    assert planning.plan_sha256(changed) == planning.plan_sha256(content)


def test_the_plan_keeps_the_order_of_another_machine(config_file, tmp_path):
    """Ties may fall elsewhere there: the order on disk is the one that holds."""
    from configs import loading

    config = loading.load(config_file)
    with config.unlocked():
        config.solver = common.solver("remembering")
    first = make_plan(config, tmp_path)
    other = np.concatenate([first.order[:6][::-1], first.order[6:]])
    moved = planning.Plan(tmp_path, dict(first.content), other)
    again = make_plan(config, tmp_path, existing=moved)
    assert again.order.tolist() == other.tolist()
