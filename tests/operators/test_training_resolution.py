"""Errors over test resolution: pairs of plain and resampled, their floor, refusals."""

import dataclasses
import json
import subprocess
import sys
import types

import numpy as np
import pytest

from operators.training import data, evaluate, resolution, runs


class Stub:
    """A run whose model is a function of arrays; remembers the inputs it was given."""

    def __init__(self, path, stride, model=lambda x: 2 * x, name="run"):
        self.model = model
        self.given = []
        self.num_parameters, self.step = 1, 1
        self.workdir = path.parent / name
        self.workdir.mkdir(exist_ok=True)
        settings = {"config": "", "path": str(path), "inputs": (), "outputs": ()}
        settings |= {"stride": stride, "num_train": 1, "num_valid": 1, "num_test": 2}
        self.config = {
            "data": settings,
            "model": {"name": "stub"},
            "eval": {"batch_size": 2},
        }
        manifest = data.open_data(settings).manifest_sha256
        self.info = {"data_manifest_sha256": manifest}

    def __call__(self, x, *, batch_size):
        self.given.append(x)
        return self.model(x)


@pytest.fixture
def write(tmp_path):
    def write(x, y, name="data.npz"):
        axes = {"num_axes": x.ndim - 2}
        np.savez(tmp_path / name, x=x, y=y, **axes)
        return tmp_path / name

    return write


def fields(grid, f):
    """Four samples, each a multiple of f of the coordinates, [4, *grid, 1]."""
    axes = np.meshgrid(*(np.linspace(0, 1, n) for n in grid), indexing="ij")
    return np.stack([k * f(*axes) for k in (1.0, 2.0, 3.0, 4.0)])[..., None]


def errors(report, name):
    return [r[name] and r[name]["relative_l2"]["mean"] for r in report["grids"]]


@pytest.mark.parametrize("grid", [(13,), (13, 25), (7, 13, 19)])
def test_a_perfect_model_of_multilinear_fields_has_no_error_anywhere(write, grid):
    x = fields(grid, lambda *axes: 1 + np.prod([1 + a for a in axes], axis=0))
    run = Stub(write(x, 2 * x), stride=2)
    report = resolution.measure(run, strides=[1, 2, 3])
    assert [r["grid"] for r in report["grids"]] == [
        [(n - 1) // s + 1 for n in grid] for s in (3, 2, 1)
    ]
    for name in resolution.COLUMNS:
        np.testing.assert_allclose(errors(report, name), 0, atol=1e-6)
    assert report["training_grid"] == [(n - 1) // 2 + 1 for n in grid]
    # Other norms are there, and nothing per sample.
    assert set(report["grids"][0]["plain"]["relative_h1"]) == {
        "mean",
        "std",
        "quantiles",
    }


def test_floor_and_resampled_are_those_of_linear_interpolation(write):
    x = fields((13, 13), lambda a, b: a**2 + 0 * b)
    report = resolution.measure(Stub(write(x, 2 * x), stride=3), strides=[1, 2])
    train, truth = np.linspace(0, 1, 5), np.linspace(0, 1, 13)
    interpolated = np.interp(truth, train, train**2)
    floor = np.linalg.norm(interpolated - truth**2) / np.linalg.norm(truth**2)
    _, fine = report["grids"]
    assert fine["floor"]["relative_l2"]["mean"] == pytest.approx(floor, rel=1e-5)
    assert fine["resampled"]["relative_l2"]["mean"] == pytest.approx(floor, rel=1e-5)
    # 7 points: neither grid holds the other, so the input carries an error as well.
    middle = np.linspace(0, 1, 7)
    there = np.interp(train, middle, middle**2)
    back = np.interp(middle, train, there)
    expected = np.linalg.norm(back - middle**2) / np.linalg.norm(middle**2)
    resampled = report["grids"][0]["resampled"]["relative_l2"]["mean"]
    assert resampled == pytest.approx(expected, rel=1e-5)


def two_phases(grid):
    return fields(grid, lambda a, b: np.where(a + b**2 > 0.9, 12.0, 3.0))


@pytest.mark.parametrize(("inputs", "keeps"), [("linear", False), ("nearest", True)])
def test_inputs_are_strided_where_the_training_points_are_there(write, inputs, keeps):
    x = two_phases((25, 25))
    run = Stub(write(x, x), stride=4, model=lambda x: x)
    resolution.measure(run, strides=[1, 3], inputs=inputs)
    coarse, moved, fine, strided = run.given  # plain and resampled of each grid
    assert coarse.shape[1:3] == (9, 9)
    assert fine.shape[1:3] == (25, 25)
    np.testing.assert_array_equal(strided, x[2:, ::4, ::4])
    phases = np.isin(moved / moved[:, :1, :1], (1.0, 4.0))
    assert phases.all() == keeps


def test_plain_and_resampled_are_two_ways(write):
    x = fields((13, 13), lambda a, b: 1 + a + b)
    wrong_elsewhere = lambda x: x * (2 if x.shape[1] == 7 else 3)  # noqa: E731
    report = resolution.measure(Stub(write(x, 2 * x), 2, wrong_elsewhere))
    assert [r["stride"] for r in report["grids"]] == [4, 3, 2, 1]
    np.testing.assert_allclose(errors(report, "plain"), [0.5, 0.5, 0, 0.5], atol=1e-6)
    np.testing.assert_allclose(errors(report, "resampled"), 0, atol=1e-6)


def refuses(x):
    if x.shape[1] != 7:
        raise ValueError("this model takes 7 x 7 only")
    return 2 * x


def test_a_refused_grid_is_named_and_the_rest_goes_on(write):
    x = fields((13, 13), lambda a, b: 1 + a + b)
    lines = []
    run = Stub(write(x, 2 * x), 2, refuses)
    report = resolution.measure(run, strides=[1, 2], show=lines.append)
    assert errors(report, "plain")[1] is None
    assert report["grids"][1]["refused"] == "this model takes 7 x 7 only"
    np.testing.assert_allclose(errors(report, "resampled"), 0, atol=1e-6)
    assert "trained on 7 x 7" in lines[0]
    assert "<- trained here" in lines[1]
    assert "refused: this model takes 7 x 7 only" in lines[2]


def test_grids_of_periodic_data_leave_out_the_right_end(write, monkeypatch):
    wave = 2 + np.cos(2 * np.pi * 2 * np.arange(24) / 24)
    x = np.broadcast_to(wave[None, :, None, None], (4, 24, 12, 1)).copy()
    run = Stub(write(x, 2 * x), stride=2)
    opened = data.open_data(run.config["data"])
    walls = [{"axis": a, "bc_type": "PERIODIC", "detail": ""} for a in ("x", "y")]
    opened = dataclasses.replace(opened, boundaries=tuple(walls))
    monkeypatch.setattr(data, "open_data", lambda settings: opened)
    report = resolution.measure(run)
    assert [r["grid"] for r in report["grids"]] == [
        [24 // s, 12 // s] for s in (4, 3, 2, 1)
    ]
    np.testing.assert_allclose(errors(report, "resampled"), 0, atol=1e-5)
    np.testing.assert_allclose(errors(report, "floor"), 0, atol=1e-5)
    mixed = dataclasses.replace(opened, boundaries=tuple(walls[:1]))
    with pytest.raises(ValueError, match="periodic along some axes only"):
        resolution.is_periodic(mixed)


def test_meshes_have_one_resolution_only():
    mesh = types.SimpleNamespace(root="data/mesh", coordinates={"node": np.arange(9)})
    with pytest.raises(ValueError, match="data/mesh lies on an unstructured mesh"):
        resolution.is_periodic(mesh)


def test_strides_must_keep_the_ends(write):
    x = fields((13, 13), lambda a, b: 1 + a + b)
    path = write(x, x)
    with pytest.raises(ValueError, match=r"stride 5 .* possible: \[1, 2, 3, 4, 6, 12"):
        resolution.measure(Stub(path, 2), strides=[5])
    with pytest.raises(ValueError, match="stride 7 of the 13 x 13 points"):
        resolution.measure(Stub(path, 7))
    with pytest.raises(ValueError, match="inputs is 'cubic'; known: linear, nearest"):
        resolution.measure(Stub(path, 2), inputs="cubic")


@pytest.fixture
def pair(write, monkeypatch):
    """Two stub runs on the same data, opened by their folder names."""
    x = fields((13, 13), lambda a, b: 1 + a + b**2)
    path = write(x, 2 * x)
    stubs = [Stub(path, 2, refuses, "first"), Stub(path, 3, name="second")]
    opened = {str(s.workdir): s for s in stubs}
    monkeypatch.setattr(runs, "load", lambda f, checkpoint: opened[str(f)])
    return stubs


def test_command_compares_runs_in_one_figure(pair, capsys):
    folders = [str(s.workdir) for s in pair]
    assert resolution.main(["--workdir", *folders, "--strides", "1", "2"]) == 0
    printed = capsys.readouterr().out
    assert "first: stub, 1 parameters, trained on 7 x 7" in printed
    assert "second: stub, 1 parameters, trained on 5 x 5" in printed
    assert "floor: the truth on the training grid" in printed
    for stub in pair:
        written = json.loads((stub.workdir / "resolution.json").read_text())
        assert [r["stride"] for r in written["grids"]] == [2, 1]
        assert not (stub.workdir / "resolution.png").exists()
    picture = pair[0].workdir.parent / "resolution.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert resolution.main(["--workdir", folders[0], "--num", "1"]) == 0
    assert (pair[0].workdir / "resolution.png").exists()
    assert "over 1 test samples" in capsys.readouterr().out


def test_a_figure_shows_every_measured_error_once(pair):
    report = resolution.measure(pair[0], strides=[1, 2])
    panel = resolution.plot({"first": report}).axes[0]
    points = [tuple(line.get_xdata()) for line in panel.get_lines()]
    assert points.count((7, 13)) + points.count((7.0, 13.0)) == 0  # zeros have no log
    assert (13,) in points  # resampled, floor: their interpolation error
    labels = [t.get_text() for t in panel.figure.legends[0].get_texts()]
    assert labels == ["first (7)", "resampled", "floor", "training grid"]


def test_what_is_not_there_is_not_in_the_legend_and_two_ways_show(write):
    x = fields((13, 13), lambda a, b: 1 + a + b)
    report = resolution.measure(Stub(write(x, 2 * x), 1, lambda x: 3 * x))
    assert "trained on 13 x 13, the finest grid stored" in resolution.head(report)
    figure = resolution.plot({"run": report})
    labels = [t.get_text() for t in figure.legends[0].get_texts()]
    assert labels == ["run (13)", "plain", "resampled", "training grid"]
    plain, resampled = figure.axes[0].get_lines()[1:3]
    assert tuple(plain.get_xdata()) == tuple(resampled.get_xdata()) == (7, 13)
    assert plain.get_linewidth() > 2 * resampled.get_linewidth()
    assert resampled.get_markersize() > 2 * plain.get_markersize()


def test_runs_on_other_data_do_not_compare(pair, capsys):
    pair[1].info = {"data_manifest_sha256": "other"}
    folders = [str(s.workdir) for s in pair]
    assert resolution.main(["--workdir", *folders]) == 2
    assert "trained on other data than" in capsys.readouterr().err
    assert resolution.main(["--workdir", folders[1]]) == 2
    error = capsys.readouterr().err
    assert "generate them again" in error
    assert error.count("\n") == 1


def test_runs_with_other_splits_of_a_file_do_not_compare(pair, monkeypatch, capsys):
    first, second = pair
    second.config["data"] |= {"num_train": 2, "num_test": 1}
    assert resolution.main(["--workdir", *(str(s.workdir) for s in pair)]) == 2
    expected = "config.data.num_train 2, not 1; num_test 1, not 2"
    assert expected in capsys.readouterr().err
    settings = first.config["data"]
    dataset = data.open_data(settings)
    monkeypatch.setattr(runs, "load", lambda folder: second)
    with pytest.raises(ValueError, match=expected):
        evaluate._open("second", dataset, settings)
    baseline = types.SimpleNamespace(baseline="second")
    config = types.SimpleNamespace(data=settings, eval=baseline)
    assert runs.find_baseline(config, dataset) is None
    assert f"second has other samples: {expected}" in capsys.readouterr().out
    second.config["data"] |= {"num_train": 1, "num_test": 2}
    assert runs.find_baseline(config, dataset) is None
    assert "stride 3, not 2" in capsys.readouterr().out
    assert runs.other_samples(second, dataset, settings, any_stride=True) == ""
    second.config["data"]["stride"] = 2
    assert runs.find_baseline(config, dataset) == "second"
    second.config = {}
    assert runs.find_baseline(config, dataset) is None
    assert "second cannot be opened ('data')" in capsys.readouterr().out


def test_without_a_run_the_command_ends_with_one_line(tmp_path, capsys):
    assert resolution.main(["--workdir", str(tmp_path)]) == 2
    assert "holds no run" in capsys.readouterr().err


@pytest.mark.slow
def test_command_on_a_trained_run(finished, home):
    command = [sys.executable, "-m", "operators.training.resolution", "--workdir"]
    done = subprocess.run(
        [*command, str(finished)], cwd=home, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "33 x 33" in done.stdout
    report = json.loads((finished / "resolution.json").read_text())
    evaluation = json.loads((finished / "evaluation.json").read_text())
    here = next(r for r in report["grids"] if r["stride"] == 1)
    expected = evaluation["relative_l2"]["mean"]
    for name in ("plain", "resampled"):
        assert here[name]["relative_l2"]["mean"] == pytest.approx(expected, rel=1e-6)
    assert here["floor"]["relative_l2"]["mean"] == 0
