"""The command of the refiner: cases, costs of solving anew, tables, configs, a run."""

import json
import types

import numpy as np
import pytest

from configs import loading
from operators.training import refine
from operators.training.refinement import cases, reports, resolving

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


@pytest.mark.slow
def test_solving_anew_is_measured_until_it_gains_nothing():
    case = create(smooth(3))
    rows = resolving.measure(case, repeats=1)  # the truth here is another flow
    assert [row["substeps"] for row in rows] == [1, 2]
    assert all(row["seconds"] > 0 and len(row["error"]) == 2 for row in rows)


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
        "anew": [{"substeps": 1, "error": [0.1] * num, "seconds": 0.5}],
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
    result["anew"] = {"substeps": 1, "error": [0.1] * 3, "seconds": 1.0}
    report |= {
        "workdir": "runs/x",
        "sample_ids": [0, 1, 2],
        "times": [1.0],
        "grid": [4],
    }
    report["residual"] = {"kind": "defect"}
    text = reports.table(report)
    assert "solving anew is 4 times cheaper than gauss_newton" in text
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


def test_frames_must_be_as_far_apart_as_in_training(tmp_path):
    steps = {"steps": {"values": [0.0, 0.2, 0.4]}}
    (tmp_path / "manifest.json").write_text(json.dumps(steps))
    trained = {"config": "", "path": str(tmp_path)}
    refine._check_spacing(trained, np.array([3.0, 3.2, 3.4]))
    with pytest.raises(ValueError, match=r"0\.1 apart, but the model was trained on"):
        refine._check_spacing(trained, np.array([3.0, 3.1, 3.2]))
