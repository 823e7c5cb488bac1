"""Vorticity trajectories against closed forms; balances, grids, configs."""

import dataclasses
import importlib
import re
from pathlib import Path

import numpy as np
import pytest

from configs import common, flows
from datagen import problems
from datagen.cli import main
from datagen.initial_fields import fourier_series, taylor_green
from datagen.problems import periodic
from datagen.problems.base import TimeStepping
from datagen.problems.navier_stokes import NavierStokes
from datagen.status import unresolved
from solvers import spectral
from solvers.spectral import forcings

TWO_PI = 2 * np.pi
ROOT = Path(__file__).parents[2]
FLOWS = sorted(p.stem for p in (ROOT / "configs/data").glob("ns_*.py"))
STEP = TimeStepping("if_rk4", 0.05, None)  # quick to compile
VORTICES = {"name": "taylor_green", "counts": (1, 2), "num_modes": 5}
WAVE = {"name": "diagonal_wave", "amplitude": 0.1, "wavenumber": 1}
# Three frames a warm-up away from the start.
TIMES = {"first_time": 0.3, "frame_spacing": 0.1, "num_frames": 3}


def vortices(**changes):
    settings = {"n": 8, "solver_n": 16, "viscosity": 0.01, "initial": VORTICES}
    return NavierStokes(**(settings | TIMES | changes))


@pytest.fixture(scope="module")
def evolved():
    """One and two vortex pairs, and no flow at all, integrated together."""
    import jax

    jax.config.update("jax_enable_x64", True)
    samples = [{"modes": taylor_green(m, (0.3, 0.1), 5, 1.0)} for m in (1, 2)]
    samples.append({"modes": np.zeros_like(samples[0]["modes"])})
    return samples, vortices().evolve(samples, STEP)


def test_taylor_green_vortices_decay_exactly(evolved):
    samples, evolution = evolved
    frames = evolution.fields["vorticity"]
    assert frames.shape == (3, 3, 8, 8)
    for m, sample, trajectory in zip((1, 2), samples, frames, strict=False):
        decay = np.exp(-2 * 0.01 * (TWO_PI * m) ** 2 * vortices().steps)
        exact = fourier_series(sample["modes"], (8, 8))
        np.testing.assert_allclose(trajectory, decay[:, None, None] * exact, atol=1e-11)
    np.testing.assert_array_equal(frames[2], 0)


def test_quality_holds_energy_and_enstrophy_of_first_and_last_frame(evolved):
    quality = evolved[1].quality
    assert set(quality) == set(vortices().quality_columns)
    for m in (1, 2):
        kappa = TWO_PI * m
        for when, t in (("first", 0.3), ("last", 0.5)):
            decay = np.exp(-4 * 0.01 * kappa**2 * t)
            energy = quality[f"energy_{when}"][m - 1]
            enstrophy = quality[f"enstrophy_{when}"][m - 1]
            assert energy == pytest.approx(decay / 4, rel=1e-10)
            assert enstrophy == pytest.approx(kappa**2 * decay / 2, rel=1e-10)
    assert quality["spectrum_tail"].max() < 1e-12
    # Speed 1 of both flows at the start, 16 points, dt 0.05, at points of the grid.
    assert 0.6 < quality["cfl_max"][0] <= 0.8
    assert quality["cfl_max"][2] == 0


def test_steps_and_transforms_are_counted(evolved):
    # 6 and 4 steps of four evaluations with four transforms each.
    np.testing.assert_array_equal(evolved[1].steps, 8 + 4)
    np.testing.assert_array_equal(evolved[1].transforms, 12 * 16)
    assert evolved[1].defect.shape == (3,)
    assert 0 < evolved[1].defect[1] < 1e-4
    assert evolved[1].defect[2] == 0


def test_stored_points_leave_the_right_end_out():
    problem = vortices(n=(6, 8), solver_n=(16, 18), lengths=(1.0, 1.0))
    np.testing.assert_allclose(problem.coordinates["x"], np.arange(6) / 6)
    assert [len(problem.coordinates[a]) for a in problem.axes] == [6, 8]
    assert {b.bc_type for b in problem.boundaries} == {"PERIODIC"}
    np.testing.assert_allclose(problem.steps, [0.3, 0.4, 0.5])


def test_settings_and_samples_can_be_made_again():
    problem = vortices()
    again = problems.create("navier_stokes", **problem.settings)
    assert again.equation == problem.equation
    first, second = (p.sample(np.random.default_rng(4)) for p in (problem, again))
    np.testing.assert_array_equal(first["modes"], second["modes"])


def test_forcings_have_their_closed_form():
    grid = spectral.PeriodicGrid((8, 6), (2.0, 3.0))
    x, y = np.arange(8)[:, None] / 4, np.arange(6) / 2
    phase = TWO_PI * 2 * (x / 2 + y / 3)
    expected = 0.3 * (np.sin(phase) + np.cos(phase))
    found = forcings.create(grid, "diagonal_wave", amplitude=0.3, wavenumber=2)
    np.testing.assert_allclose(found, expected, atol=1e-14)
    found = forcings.create(grid, "kolmogorov", amplitude=0.5, wavenumber=2)
    kappa = TWO_PI * 2 / 3
    expected = np.broadcast_to(-0.5 * kappa * np.cos(kappa * y), (8, 6))
    np.testing.assert_allclose(found, expected, atol=1e-14)
    assert forcings.create(grid, "none") is None
    # Waves along y alone need points along y alone.
    narrow = spectral.PeriodicGrid((6, 20), (1.0, 1.0))
    found = forcings.create(narrow, "kolmogorov", wavenumber=6, cutoffs=(1, 6))
    assert found.shape == (6, 20)
    with pytest.raises(ValueError, match="7, but 6 is the highest"):
        forcings.create(narrow, "kolmogorov", wavenumber=7, cutoffs=(1, 6))
    with pytest.raises(ValueError, match="wavenumber is 3, but 2 is the highest"):
        forcings.create(narrow, "diagonal_wave", wavenumber=3)


def test_spectrum_tail_is_the_share_of_the_highest_modes():
    x = np.arange(32) / 32
    low, high = np.sin(TWO_PI * 3 * x), np.sin(TWO_PI * 10 * x)
    fields = np.stack([np.add.outer(3 * low, 4 * high), np.add.outer(low, 0 * x)])
    tail = periodic.spectrum_tail(fields, (10, 10))
    np.testing.assert_allclose(tail, [0.8, 0], atol=1e-14)
    np.testing.assert_allclose(periodic.spectrum_tail(fields), [0, 0], atol=1e-14)


@pytest.mark.parametrize(
    ("intervals", "size"), [(99, 9), (77, 11), (9, 9), (29, 10), (0, 1)]
)
def test_chunks_are_alike_where_they_can_be(intervals, size):
    assert periodic._chunk_size(intervals) == size


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n": 8.5}, "n is 8.5; expected a whole number"),
        ({"viscosity": 0.0}, "viscosity is 0.0; expected a positive"),
        ({"drag": -1.0}, "drag is -1.0"),
        ({"forcing": {"name": "wind"}}, "known: none, diagonal_wave, kolmogorov"),
        ({"forcing": WAVE | {"wavenumber": 0}}, "wavenumber, 1, 2"),
        ({"forcing": WAVE | {"wavenumber": 6}}, "wavenumber is 6, but 5 is the highe"),
        ({"forcing": WAVE | {"amplitude": np.nan}}, "expected amplitude, a finite"),
        ({"forcing": WAVE | {"amplitude": "1"}}, "expected amplitude, a finite"),
        ({"n": 18}, "n is 18, but solver_n is 16; expected no more stored points"),
        ({"dealias": "none", "initial": VORTICES | {"num_modes": 8}}, "keeps 7 modes"),
        ({"initial": {"name": "rest"}}, "known: gaussian, mcwilliams"),
        ({"initial": VORTICES | {"tau": 1.0}}, "has counts, num_modes"),
        ({"initial": VORTICES | {"num_modes": 6}}, "keeps 5 modes: choose at most 5"),
        ({"frame_spacing": 0.0}, "frame_spacing is 0.0"),
        ({"first_time": -1.0}, "first_time is -1.0"),
        ({"num_frames": 0}, "num_frames is 0"),
        ({"lengths": (1.0, 0.0)}, "two positive periods"),
        ({"lengths": 1.0}, "lengths are 1.0; expected two positive periods"),
    ],
)
def test_bad_settings_are_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        vortices(**changes)


def load(name, variant):
    return importlib.import_module(f"configs.data.{name}").get_config(variant)


def build(config, **changes):
    settings = config.problem.to_dict()
    return problems.create(settings.pop("name"), **(settings | changes))


@pytest.mark.parametrize("name", [*FLOWS, "burgers", "burgers_script"])
def test_every_variant_describes_a_problem(name):
    fine = name in ("ns_forced", "ns_mcwilliams")
    for variant in (*common.VARIANTS, *(flows.FINE if fine else ())):
        config = load(name, variant)
        problem = build(config)
        assert config.name == name
        assert config.solver.dt > 0
        assert config.solver.cfl == 0
        assert len(problem.steps) == config.problem.num_frames
        if variant in flows.FINE:
            assert config.splits.train == config.splits.valid == 0
            assert problem.n <= problem.solver_n
            assert config.storage.dtype == "float64"
            coarse = load(name, variant.replace("fine", "").rstrip("_") or "full")
            assert coarse.seed != config.seed
            for key in ("viscosity", "first_time", "frame_spacing", "num_frames"):
                assert coarse.problem[key] == config.problem[key]
    with pytest.raises(ValueError, match="unknown variant 'tiny'"):
        load(name, "tiny")


def test_sets_have_seeds_of_their_own():
    names = [p.stem for p in (ROOT / "configs/data").glob("[!_]*.py")]
    seeds = [load(name, "full").seed for name in names]
    assert len(set(seeds)) == len(seeds)


def test_published_numbers_of_the_sets():
    """Spec sheets of Li et al. (2021) and of the released generator."""
    for name, viscosity, end in (
        ("ns_fno_1e3", 1e-3, 50),
        ("ns_fno_1e4", 1e-4, 30),
        ("ns_fno_1e5", 1e-5, 20),
    ):
        problem = build(load(name, "full"))
        assert (problem.viscosity, problem.n) == (viscosity, (64, 64))
        np.testing.assert_allclose(problem.steps, np.arange(1, end + 1))
    forced, decaying = (load(f"ns_{n}", "full") for n in ("forced", "mcwilliams"))
    assert (forced.splits.train, forced.splits.valid) == (1152, 128)
    assert decaying.splits.train == 1024
    for config, start, spacing in ((forced, 30, 0.2), (decaying, 4.5, 0.055)):
        steps = build(config).steps
        assert len(steps) == 100
        np.testing.assert_allclose(steps, start + spacing * np.arange(100))


@pytest.mark.slow
def test_the_published_time_stepping_is_accepted_as_documented(tmp_path, capsys):
    """The options of the docstring, on a set that is small and not resolved."""
    documented = importlib.import_module("configs.data.ns_fno_1e3").__doc__
    options = re.findall(r"--config\.(?:solver|problem)\.\w+=[\w.-]+", documented)
    assert len(options) == 5
    changes = {"splits.train": 2, "splits.valid": 0, "splits.test": 0}
    changes |= {"problem.solver_n": 24, "problem.num_frames": 1, "solver.dt": 2e-3}
    changes |= {"problem.viscosity": 1e-4, "problem.first_time": 0.5}
    options += [f"--config.{key}={value}" for key, value in changes.items()]
    out = ["--out", str(tmp_path / "set")]
    config = ROOT / "configs/data/ns_fno_1e3.py"
    assert main(["generate", "--config", f"{config}:quick", *out, *options]) == 0
    warning = "grid that resolves the flow leaves at most 0.01 in its highest modes"
    assert warning in capsys.readouterr().err
    assert main(["status", *out]) == 0
    status = capsys.readouterr().out
    assert warning in status
    (defect,) = re.findall(r"defect +(\S+) at most", status)
    assert 1e-5 < float(defect) < 1e-2


def test_only_flows_that_are_not_resolved_are_named():
    tail = {"max": 1.5e-2, "q50": 1e-3}
    warning = unresolved({"quality": {"spectrum_tail": tail}})
    assert "spectrum_tail is up to 1.5e-02" in warning
    assert "config.problem.solver_n" in warning
    tail["max"] = 0.9e-2
    assert unresolved({"quality": {"spectrum_tail": tail}}) == ""
    assert unresolved({"quality": {}}) == unresolved({}) == ""


@pytest.mark.slow
def test_forced_flow_from_rest_grows_as_its_closed_form():
    """omega = f (1 - exp(-8 pi^2 nu t)) / (8 pi^2 nu), whose advection vanishes."""
    problem = NavierStokes(
        n=16, solver_n=16, forcing=WAVE, first_time=0.5, frame_spacing=0.5,
        num_frames=2, initial=VORTICES,
    )  # fmt: skip
    rest = {"modes": np.zeros((11, 6), complex)}
    evolution = problem.evolve([rest], STEP)
    grid = spectral.PeriodicGrid((16, 16), (1.0, 1.0))
    exact = forcings.create(grid, **WAVE) * 0.9615404227246439  # at t = 1
    found = evolution.fields["vorticity"][0, -1]
    np.testing.assert_allclose(found, exact, atol=1e-10)
    assert evolution.quality["energy_last"][0] == pytest.approx(5.85484450e-5, rel=1e-8)
    enstrophy = evolution.quality["enstrophy_last"][0]
    assert enstrophy == pytest.approx(4.62279992e-3, rel=1e-8)


@pytest.mark.slow
def test_steady_kolmogorov_flow_with_drag_stays():
    forcing = {"name": "kolmogorov", "amplitude": 1.0, "wavenumber": 4}
    problem = NavierStokes(
        n=16, solver_n=16, lengths=(TWO_PI, TWO_PI), drag=0.1, forcing=forcing,
        initial=VORTICES, **TIMES,
    )  # fmt: skip
    modes = np.zeros((11, 6), complex)
    modes[0, 4] = -34.48275862068966 / 2 * 1.0  # of cos 4 y
    frames = problem.evolve([{"modes": modes}], STEP).fields["vorticity"][0]
    y = TWO_PI / 16 * np.arange(16)
    exact = -34.48275862068966 * np.cos(4 * y)
    np.testing.assert_allclose(frames, np.broadcast_to(exact, frames.shape), atol=1e-9)


@pytest.fixture(scope="module")
def turbulent():
    """Decaying turbulence, small and thick: (problem, samples, evolution)."""
    import jax

    jax.config.update("jax_enable_x64", True)
    config = load("ns_mcwilliams", "quick")
    problem = build(config, num_frames=5, frame_spacing=0.11, n=48)
    samples = [problem.sample(np.random.default_rng(i)) for i in range(3)]
    step = TimeStepping("etdrk4", config.solver.dt, None)
    return problem, samples, step, problem.evolve(samples, step)


@pytest.mark.slow
def test_balance_laws_hold_between_frames(turbulent):
    """dE/dt = -2 nu Z by Simpson's rule on the stored frames."""
    problem, _, _, evolution = turbulent
    grid = spectral.PeriodicGrid(problem.n, problem.lengths)
    frames = evolution.fields["vorticity"]
    energy = np.asarray(spectral.diagnostics.energy(frames, grid))
    enstrophy = np.asarray(spectral.diagnostics.enstrophy(frames, grid))
    simpson = np.array([1, 4, 2, 4, 1]) * 0.11 / 3
    lost = 2 * problem.viscosity * enstrophy @ simpson
    np.testing.assert_allclose(energy[:, 0] - energy[:, -1], lost, rtol=1e-4)
    np.testing.assert_allclose(energy[:, 0], evolution.quality["energy_first"])
    np.testing.assert_allclose(enstrophy[:, -1], evolution.quality["enstrophy_last"])
    assert (np.diff(energy) < 0).all()
    assert (np.diff(enstrophy) < 0).all()
    assert (energy < 0.25).all()


@pytest.mark.slow
def test_defect_falls_with_the_fourth_power_of_the_step(turbulent):
    problem, samples, step, evolution = turbulent
    finer = problem.evolve(samples, step.halved())
    ratio = evolution.defect / finer.defect
    np.testing.assert_allclose(np.log2(ratio), 4, atol=0.6)
    assert evolution.defect.max() < 1e-5


@pytest.mark.slow
def test_stored_frames_are_truncations_and_grids_agree(turbulent):
    problem, samples, step, evolution = turbulent
    fine = evolution.fields["vorticity"]
    coarse = dataclasses.replace(problem, n=20).evolve(samples, step)
    grid = spectral.PeriodicGrid(problem.n, problem.lengths)
    expected = np.asarray(grid.resample(fine, (20, 20)))
    np.testing.assert_allclose(coarse.fields["vorticity"], expected, atol=1e-11)
    finer = dataclasses.replace(problem, solver_n=64).evolve(samples, step)
    distance = np.linalg.norm(finer.fields["vorticity"] - fine) / np.linalg.norm(fine)
    assert distance < 1e-2


@pytest.mark.slow
def test_a_trajectory_does_not_depend_on_its_batch_or_the_warm_up(turbulent):
    problem, samples, step, evolution = turbulent
    other = problem.evolve([samples[1], samples[0], samples[0]], step)
    np.testing.assert_allclose(
        other.fields["vorticity"][:2], evolution.fields["vorticity"][1::-1], atol=1e-11
    )
    early = dataclasses.replace(problem, first_time=0.0, num_frames=15)
    frames = early.evolve(samples, step).fields["vorticity"]
    np.testing.assert_allclose(frames[:, 0], [
        fourier_series(s["modes"], (48, 48)) for s in samples
    ], atol=1e-11)  # fmt: skip
    np.testing.assert_allclose(frames[:, 10:], evolution.fields["vorticity"], atol=2e-4)


@pytest.mark.slow
def test_a_run_that_blows_up_is_told_and_harms_no_other(turbulent):
    problem, samples, _, _ = turbulent
    wild = {"modes": samples[0]["modes"] * 300}
    step = TimeStepping("etdrk4", 0.055, None)
    evolution = problem.evolve([wild, samples[1], samples[2]], step)
    assert not np.isfinite(evolution.fields["vorticity"][0]).all()
    assert np.isfinite(evolution.fields["vorticity"][1:]).all()
    assert not evolution.defect[0] <= 1e-2
    assert (evolution.defect[1:] < 1e-3).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stepping", "dealias", "tolerance"),
    [
        (TimeStepping("etdrk4", 0.0275, None, "float32"), "two_thirds", 1e-4),
        (TimeStepping("etdrk4", None, 0.3), "two_thirds", 1e-4),
        (TimeStepping("legacy_fno", 0.0011, None), "legacy", 2e-2),
    ],
)
def test_other_ways_to_step_give_the_same_flow(turbulent, stepping, dealias, tolerance):
    problem, samples, _, evolution = turbulent
    problem = dataclasses.replace(problem, dealias=dealias)
    frames = problem.evolve(samples, stepping).fields["vorticity"]
    expected = evolution.fields["vorticity"]
    distance = np.linalg.norm(frames - expected) / np.linalg.norm(expected)
    assert 1e-9 < distance < tolerance
