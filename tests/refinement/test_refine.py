"""The command of the refiner: cases, costs of solving anew, tables, configs, a run."""

import functools
import json
import types
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs import loading
from operators.models import sfno
from operators.training import refine, workdir
from operators.training.refinement import (
    cases,
    checks,
    reports,
    resolving,
    trial_space,
    widening,
)
from solvers import spectral
from solvers.spectral import forcings

SETTINGS = {
    "lengths": (2.0, 3.0),
    "viscosity": 0.05,
    "drag": 0.1,
    "forcing": {"name": "diagonal_wave", "amplitude": 0.5, "wavenumber": 1},
}


def smooth(num_frames, shape=(12, 16)):
    """Frames [2, num_frames, *shape] of low modes."""
    x, y = np.meshgrid(*(np.arange(n) * 2 * np.pi / n for n in shape), indexing="ij")
    waves = np.stack([np.sin(x + y), np.cos(2 * x), np.cos(y)])
    numbers = np.random.default_rng(0).standard_normal((2, num_frames, 3))
    return np.einsum("btw,wxy->btxy", numbers, waves)


def create(frames, **changes):
    times = 1 + 0.1 * np.arange(frames.shape[1])
    return cases.create({**SETTINGS, **changes}, frames, times, 2, np.arange(2))


def test_the_grid_is_that_of_the_data_where_it_resolves_them():
    case = create(smooth(5))
    assert case.equation.grid.shape == (12, 16)
    assert case.equation.forcing.shape == (12, 16)
    assert (case.equation.viscosity, case.equation.drag) == (0.05, 0.1)
    assert case.given.shape == (2, 2, 12, 16)
    assert case.truth.shape == (2, 3, 12, 16)
    assert case.part(slice(1, 2)).sample_ids == [1]


def test_frames_beyond_the_mask_get_a_finer_grid():
    frames = smooth(5)
    frames += 1e-3 * np.cos(5 * 2 * np.pi * np.arange(12) / 12)[:, None]  # 3 * 5 > 12
    case = create(frames)
    assert case.equation.grid.shape == (18, 24)
    np.testing.assert_allclose(case.given[..., ::3, ::3], frames[:, :2, ::2, ::2])
    fine = case.equation.grid.resample(np.asarray(case.given[:, :1]), (12, 16))
    np.testing.assert_allclose(fine, frames[:, :1], atol=1e-12)
    wrong = np.concatenate([case.given[:, -1:]] * 4, axis=1)
    assert case.errors(wrong).shape == (2,)


def test_errors_are_relative_to_all_predicted_frames():
    case = create(smooth(5))
    frames = np.concatenate([case.given[:, -1:], 1.1 * case.truth], axis=1)
    np.testing.assert_allclose(case.errors(frames), 0.1)


def test_cases_refuse_what_does_not_fit():
    settings = {k: v for k, v in SETTINGS.items() if k != "drag"}
    with pytest.raises(ValueError, match=r"no \['drag'\]"):
        cases.create(settings, smooth(3), np.arange(3), 1, np.arange(2))
    with pytest.raises(ValueError, match="grid is 8, but the data have"):
        cases.create(SETTINGS, smooth(3), np.arange(3), 1, np.arange(2), grid=8)


def test_rows_end_once_small_errors_do_not_fall():
    unstable = [0.3, 5.0]  # finite, and worse with more steps
    assert not resolving.finished(unstable)
    assert not resolving.finished([*unstable, 0.09])
    assert not resolving.finished([np.nan, 0.01])
    assert resolving.finished([0.01, 0.0095])
    assert resolving.finished([0.4, 0.4])


@pytest.mark.slow
def test_solving_anew_tries_coarser_grids():
    grids = [c.equation.grid.shape for c in resolving._cases(create(smooth(3)))]
    assert grids == [(12, 16), (8, 12), (6, 8)]
    coarse = list(resolving._cases(create(smooth(3))))[1]
    assert coarse.given.shape == (2, 2, 8, 12)
    assert coarse.equation.forcing.shape == (8, 12)
    held = np.repeat(coarse.given[:, -1:], 2, axis=1)
    assert np.isfinite(coarse.errors(held)).all()


def test_rows_that_all_batches_have_are_merged():
    row = {"grid": [4, 4], "dtype": "float32", "substeps": 1, "error": [0.1]}
    more = {**row, "substeps": 2, "seconds": 1.0}
    row = {**row, "seconds": 1.0}
    assert resolving.merge([[row, more], [row]]) == [
        {**row, "error": [0.1, 0.1], "seconds": 2.0}
    ]


def test_the_cheapest_row_that_is_accurate_enough_counts():
    rows = [
        {"error": [0.1, 0.3], "seconds": 1.0},
        {"error": [0.01, 0.03], "seconds": 3.0},
        {"error": [0.001, 0.003], "seconds": 2.0},
    ]
    assert resolving.as_accurate(rows, 0.02) is rows[2]
    assert resolving.as_accurate(rows, 0.2) is rows[0]
    assert resolving.as_accurate(rows, 1e-4) is None


def part(num, iterations):
    """What `_refine_part` reports of `num` trajectories, with errors of 1 / 2^i."""
    errors = np.repeat(0.5 ** np.arange(iterations + 1.0)[:, None], num, axis=1)
    result = {
        "error": errors[-1],
        "residual": errors[-1],
        "reason": ["reduced"] * num,
        "errors": errors,
        "residuals": errors,
        "details": errors[1:],
        "seconds": np.ones(iterations),
    }
    ones = np.ones(num)
    return {
        "trial_space": {"num_parameters": 12, "num_functions": 3, "modes": [1, 1, 2]},
        "start": {"error": ones, "residual": ones},
        "best_approximation": {"error": ones / 100},
        "seconds_before": 0.5,
        "floor": ones / 1000,
        "anew": [
            {
                "grid": [4, 4],
                "dtype": "float32",
                "substeps": 1,
                "error": [0.1] * num,
                "seconds": 0.5,
            }
        ],
        "minimizers": {"gauss_newton": result},
    }


def test_batches_are_merged_and_drawn():
    report = refine._merge([part(2, 3), part(1, 1)])
    result = report["minimizers"]["gauss_newton"]
    assert result["seconds"] == [2.0, 1.0, 1.0]
    assert result["errors"][2:] == [[0.25, 0.25, 0.5], [0.125, 0.125, 0.5]]
    assert result["reduction"] == pytest.approx(4)
    assert len(report["anew"]) == 1
    assert result["over_best"] == pytest.approx(25)
    result["anew"] = report["anew"][0]
    report |= {
        "workdir": "runs/x",
        "sample_ids": [0, 1, 2],
        "times": [1.0],
        "grid": [4],
    }
    report["residual"] = {"kind": "defect"}
    text = reports.table(report)
    assert "solving anew is 5 times cheaper than gauss_newton" in text  # (4 + 1) / 1
    assert "4 x 4 points, float32, 1 steps per frame" in text
    assert "many steps on this grid: error 1.00e-03" in text
    assert "best approximation in that space: error 1.00e-02" in text
    assert len(reports.figure(report).axes) == 3


@pytest.mark.parametrize("variant", ["full", "small", "quick"])
@pytest.mark.parametrize("name", ["mcwilliams", "forced"])
def test_configs_fit_their_data_and_their_models(name, variant):
    suffix = "" if variant == "full" else f":{variant}"
    config = loading.load(f"configs/refine_ns_{name}.py{suffix}")
    trained = loading.load(f"configs/sfno_ns_{name}.py{suffix}")
    source = loading.load(config.data.config)
    assert config.data.num_test <= source.splits.test
    frames = config.data.window_start + sum(trained.data.window)
    assert frames <= source.problem.num_frames
    training = loading.load(trained.data.config).problem
    for key in ("viscosity", "frame_spacing", "first_time", "forcing", "lengths"):
        assert training[key] == source.problem[key], key
    latent, (*_, waves) = trained.model.latent_steps, trained.model.modes
    assert waves <= config.time_modes <= latent + 1
    assert set(config.minimizers) <= set(config.settings)


def test_refinement_refuses_single_precision(monkeypatch):
    single = types.SimpleNamespace(jax_enable_x64=False)
    monkeypatch.setattr(refine, "jax", types.SimpleNamespace(config=single))
    with pytest.raises(RuntimeError, match="needs float64"):
        refine.refine("runs/none", {})


def test_the_command_tells_what_is_missing(tmp_path, capsys):
    arguments = ["--workdir", str(tmp_path), "--config"]
    assert refine.main([*arguments, "configs/refine_ns_forced.py:quick"]) == 2
    assert "holds no run" in capsys.readouterr().err
    assert refine.main([*arguments, "configs/refine_ns_forcd.py"]) == 2
    assert "did you mean configs/refine_ns_forced.py" in capsys.readouterr().err


compare = functools.partial(checks.flows, load=loading.load)


def stored(folder, **changes):
    """`config.data` of a data set with a plan alone."""
    folder.mkdir(exist_ok=True)
    plan = {**SETTINGS, "frame_spacing": 0.2, "num_frames": 9, **changes}
    (folder / "plan.json").write_text(json.dumps({"settings": plan}))
    return {"config": "", "path": str(folder), "window": (2, 3), "window_start": 4}


def test_the_flow_is_compared_with_that_of_the_training(tmp_path):
    trained = stored(tmp_path / "trained")
    compare(trained, stored(tmp_path / "same"))
    with pytest.raises(ValueError, match=r"0\.1 apart, but the model was trained on"):
        compare(trained, stored(tmp_path / "dense", frame_spacing=0.1))
    with pytest.warns(UserWarning, match="trained on a flow of viscosity 0.05"):
        compare(trained, stored(tmp_path / "other", viscosity=0.1))
    with pytest.raises(ValueError, match="5 are needed: give at most 3"):
        compare(trained, stored(tmp_path / "short", num_frames=8))
    lacking = stored(tmp_path / "lacking")
    (tmp_path / "lacking" / "plan.json").write_text('{"settings": {"lengths": []}}')
    with pytest.raises(ValueError, match=r"no \['drag', 'forcing'"):
        compare(trained, lacking)


def test_the_flow_of_the_training_need_not_be_on_disk(tmp_path, monkeypatch):
    forced = "configs/data/ns_forced.py:quick"
    decaying = loading.load("configs/data/ns_mcwilliams.py:quick_fine").problem
    found = stored(tmp_path / "found", **workdir.plain_config(decaying))
    monkeypatch.setattr(checks.data, "dataset_folder", lambda s: Path(s["path"]))
    with pytest.raises(ValueError, match=r"0\.055 apart, but .* 0\.2 apart"):
        compare({**found, "config": forced, "path": "nowhere"}, found)
    with pytest.warns(UserWarning, match="the flow of the training is not known"):
        compare({**found, "path": "nowhere"}, found)


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("minimizers", "('sgd',)", "config.minimizers is"),
        ("minimizers", "()", "expected one or more of"),
        ("minimizers", "('linearized_flow',)", ""),
        ("batch_size", "0", "batch_size must be at least 1, but is 0"),
        ("data.window_start", "-1", "window_start must be"),
        ("data.path", "flow.npz", "needs to know the equation"),
        ("residual.kind", "fdd", "config.residual.kind is 'fdd'; known"),
    ],
)
def test_settings_that_cannot_be_are_refused(flag, value, message):
    arguments = ["--config", "configs/refine_ns_forced.py:quick"]
    config, _ = loading.from_arguments([*arguments, f"--config.{flag}={value}"])
    if message:
        with pytest.raises(ValueError, match=message):
            checks.experiment(config)
    else:
        checks.experiment(config)
        config.residual.kind = "fd"
        with pytest.raises(ValueError, match="linearized_flow needs the residual"):
            checks.experiment(config)


def test_a_training_config_is_refused():
    config = loading.load("configs/sfno_ns_forced.py:quick")
    with pytest.raises(ValueError, match="it is no refinement: give one of configs"):
        checks.experiment(config)


@functools.cache
def small_model(modes):
    return sfno.SFNO(
        in_channels=1,
        out_channels=1,
        width=4,
        modes=modes,
        num_layers=1,
        latent_steps=3,
        out_steps=3,
        rngs=nnx.Rngs(0),
    )


def untrained(modes=(3, 3, 2)):
    """An SFNO as `runs.load` gives it, 2 frames to 3."""
    return types.SimpleNamespace(
        model=small_model(modes),
        step=7,
        config={
            "normalizers": {"input": "none", "output": "none"},
            "data": {"window": (2, 3), "outputs": ("vorticity",)},
        },
    )


@pytest.mark.parametrize(
    "kind", [pytest.param("defect", marks=pytest.mark.slow), "fd", "one_step"]
)
def test_every_residual_is_built_before_any_work(kind):
    config = loading.load("configs/refine_ns_forced.py:quick").to_dict()
    config |= {"residual": {**config["residual"], "kind": kind}, "time_modes": 4}
    operator = untrained()
    checks.model(operator, config)
    assert ("linearized_flow" in checks.chosen(config)) == (kind == "defect")
    with pytest.raises(ValueError, match=r"3 latent frames: give 0 or 2 to 4"):
        checks.model(operator, {**config, "time_modes": 99})
    operator.config["normalizers"]["output"] = "scalar"
    with pytest.raises(ValueError, match="the refiner takes physical fields only"):
        checks.model(operator, config)


@pytest.mark.slow
def test_modes_beyond_the_mask_are_cut():
    model, grid = untrained(modes=(8, 6, 2)).model, (16, 12)
    assert widening.beyond_mask(model, grid)
    assert not widening.beyond_mask(model, (24, 18))
    wide = widening.widen(model, grid)
    k1, k2, _ = wide.output.frequencies
    beyond = np.logical_or.outer(abs(k1) > 5, abs(k2) > 3)
    for values in (wide.output.weights.real, wide.output.bias.imag):
        assert not np.asarray(values[...])[beyond].any()
    weights = np.asarray(wide.output.weights.real[...])
    assert np.count_nonzero(weights[~beyond]) == weights[~beyond].size
    space = trial_space.create(
        wide.output, np.arange(1.0, 4), spectral.PeriodicGrid(grid, (1.0, 1.0))
    )
    frames = np.random.default_rng(0).normal(size=(3, *grid))
    waves = np.fft.rfft2(space.filter(jnp.asarray(frames)))
    half = np.logical_or.outer(abs(np.fft.fftfreq(16, 1 / 16)) > 5, np.arange(7) > 3)
    np.testing.assert_allclose(waves[:, half], 0, atol=1e-12)


def test_finished_parts_are_kept_until_all_are_done(tmp_path):
    calls = []

    def work():
        calls.append(1)
        return {"error": np.ones(2)}, {"model": np.zeros((2, 3))}

    for key, num in (("a", 1), ("a", 1), ("b", 2)):
        report, frames = reports.Parts(tmp_path, {"config": key}).part(0, work)
        assert len(calls) == num
        assert report == {"error": [1.0, 1.0]}
        assert frames["model"].shape == (2, 3)
    reports.Parts(tmp_path, {}).clear()
    assert not list(tmp_path.iterdir())


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Folder, arguments and data of a refinement of two trajectories, 16 x 16."""
    data_folder, folder = tmp_path / "data", tmp_path / "run"
    folder.mkdir()
    trained = stored(data_folder, lengths=(1.0, 1.0), num_frames=6)
    times, frames = 0.2 * np.arange(6), smooth(6, (16, 16))
    dataset = types.SimpleNamespace(
        root=data_folder,
        steps=times,
        manifest_sha256="",
        trajectories=lambda *a, **k: frames,
        load=lambda *a, **k: types.SimpleNamespace(sample_ids=np.arange(2)),
    )
    operator = untrained()
    operator.config["data"] |= trained
    monkeypatch.setattr(refine.runs, "load", lambda *a, **k: operator)
    monkeypatch.setattr(refine.data, "open_data", lambda *a: dataset)
    monkeypatch.setattr(resolving, "SUBSTEPS", (1, 2))
    monkeypatch.setattr(resolving, "COARSER", (1.0, 0.5))
    flags = ["data.config=", f"data.path={data_folder}", "data.window_start=1"]
    flags += ["time_modes=3", "batch_size=1", "settings.gauss_newton.maxiter=2"]
    flags += ["settings.adam.maxiter=2", "settings.lbfgs.maxiter=2"]
    flags += ["settings.lbfgs.line_searches=4"]
    flags = [f"--config.{flag}" for flag in flags]
    config = "configs/refine_ns_forced.py:quick"
    return folder, ["--workdir", str(folder), "--config", config, *flags], dataset


def solved():
    """Frames [2, 6, 16, 16] of the flow of SETTINGS on the unit torus."""
    grid = spectral.PeriodicGrid((16, 16), (1.0, 1.0))
    force = forcings.create(grid, **SETTINGS["forcing"])
    equation = spectral.NavierStokes2d(grid, viscosity=0.05, drag=0.1, forcing=force)
    start, times = smooth(1, (16, 16))[:, 0], 0.2 * np.arange(6)
    return np.asarray(spectral.rollout(equation, start, times, dt=0.02).fields)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["defect", "fd", "one_step"])
def test_every_residual_goes_through_the_command(tiny, kind, capsys):
    folder, arguments, dataset = tiny
    frames = solved()
    dataset.trajectories = lambda *a, **k: frames
    assert refine.main([*arguments, f"--config.residual.kind={kind}"]) == 0
    assert "below which nothing is claimed" in capsys.readouterr().out
    report = json.loads((folder / "refinement.json").read_text())
    assert report["config"]["data"]["window_start"] == 1
    assert report["config_name"] == "configs/refine_ns_forced.py:quick"
    assert report["residual"]["kind"] == kind
    assert ("linearized_flow" in report["minimizers"]) == (kind == "defect")
    assert np.shape(report["floor"]) == (2,)
    assert {row["dtype"] for row in report["anew"]} == {"float64", "float32"}
    if kind == "defect":
        assert np.max(report["floor"]) < 1e-4
        result = report["minimizers"]["linearized_flow"]
        assert np.mean(result["error"]) < 0.1 * np.mean(report["start"]["error"])
    left = {path.name for path in folder.iterdir()} - {".lock"}
    assert left == {"refinement.json", "refinement.npz", "refinement.png"}


@pytest.mark.slow
def test_a_stopped_refinement_goes_on(tiny, monkeypatch, capsys):
    folder, arguments, _ = tiny
    calls = []

    def work(model, case, config, show):
        calls.append(int(case.sample_ids[0]))
        if calls == [0, 1]:
            raise KeyboardInterrupt
        return part(1, 2), {"model": case.truth}

    monkeypatch.setattr(refine, "_refine_part", work)
    assert refine.main(arguments) == 75
    assert "run the same command again" in capsys.readouterr().err
    assert not (folder / "refinement.json").exists()
    assert refine.main(arguments) == 0
    assert calls == [0, 1, 1]
    with workdir.Lock(folder):
        assert refine.main(arguments) == 2
    assert "in use by another process" in capsys.readouterr().err
