"""Data of any dimension: what is read, how it is normalised, checked and drawn."""

import dataclasses
import types

import h5py
import numpy as np
import pytest
from flax import nnx

from configs import loading
from datagen.storage import read
from operators import models
from operators.training import (
    checks,
    data,
    figures,
    layouts,
    normalizers,
    pictures,
)

SETTINGS = {
    "config": "",
    "path": "",
    "inputs": (),
    "outputs": (),
    "num_train": 4,
    "num_valid": 1,
    "num_test": 1,
    "stride": 1,
    "steps": (),
    "input_steps": (),
    "time_axis": False,
}
FIELDS = (
    {"name": "coefficient", "time_varying": False},
    {"name": "source", "time_varying": True},
    {"name": "solution", "time_varying": True},
)


def heat(num_axes=2, num_steps=3):
    coordinates = {axis: np.arange(4.0 + i) for i, axis in enumerate("xyz"[:num_axes])}
    defaults = (("coefficient", "source"), ("solution",))
    steps = 0.1 * np.arange(num_steps)
    return layouts.Facts("heat", coordinates, 0, FIELDS, defaults, steps, "time")


NODES = dataclasses.replace(heat(), name="mesh", coordinates={"node": np.arange(9.0)})


class FileOf(read.Dataset):
    """A data set whose files need no manifest."""

    def _accepted(self, split, num):
        return np.arange(num), [(self.root, np.arange(num), np.arange(num))]


@pytest.fixture
def stored(tmp_path):
    """A data set of 4 samples of FIELDS on 4 x 5 points at 3 steps, and its fields."""
    rng = np.random.default_rng(0)
    fields = {
        f["name"]: rng.random((4, *((3,) * f["time_varying"]), 4, 5)) for f in FIELDS
    }
    with h5py.File(tmp_path / "file.hdf5", "w") as file:
        group = file.create_group("t0_fields")
        for name, values in fields.items():
            group[name] = values
    facts = heat()
    dataset = FileOf(
        root=tmp_path / "file.hdf5",
        manifest={"fields": list(FIELDS)},
        manifest_sha256="",
        name="heat",
        splits={"train": 4, "valid": 1, "test": 1},
        coordinates=facts.coordinates,
        scalars={},
        boundaries=(),
        steps=facts.steps,
        step_name="time",
    )
    return dataset, fields


def test_steps_are_channels_or_an_axis(stored):
    dataset, fields = stored
    steps = SETTINGS | {"steps": (-1, 0), "input_steps": (1,)}
    train = data.load_split(dataset, steps, "train")
    expected = np.stack([fields["coefficient"], fields["source"][:, 1]], axis=-1)
    np.testing.assert_array_equal(train.x, expected.astype(np.float32))
    expected = np.stack([fields["solution"][:, i] for i in (2, 0)], axis=-1)
    np.testing.assert_array_equal(train.y, expected.astype(np.float32))
    found = data.layout(dataset, steps)
    assert found.inputs == ("coefficient", "source")
    assert found.outputs == ("solution[2]", "solution[0]")

    train = data.load_split(dataset, SETTINGS | {"time_axis": True}, "train")
    assert train.x.shape == (4, 4, 5, 3, 2)
    for i in range(3):
        np.testing.assert_array_equal(
            train.x[..., i, 0], fields["coefficient"].astype(np.float32)
        )
        for values, name in (
            (train.x[..., 1], "source"),
            (train.y[..., 0], "solution"),
        ):
            expected = fields[name][:, i].astype(np.float32)
            np.testing.assert_array_equal(values[..., i], expected)
    swapped = SETTINGS | {"time_axis": True, "inputs": ("source", "coefficient")}
    other = data.load_split(dataset, swapped, "train").x
    np.testing.assert_array_equal(other, train.x[..., ::-1])
    found = data.layout(dataset, SETTINGS | {"time_axis": True})
    assert found.axes == ("x", "y", "time")
    assert found.spacing == pytest.approx((1.0, 1.0, 0.1))
    for ours, theirs in zip(found.coordinates, train.coordinates, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("facts", "changes", "message"),
    [
        (heat(), {}, r"heat has 3 steps .*steps='\(-1,\)'"),
        (heat(), {"steps": (3,)}, "has 3, but heat has 3 steps: 0 to 2"),
        (heat(), {"steps": (0,), "input_steps": (-4,)}, "input_steps has -4"),
        (heat(), {"steps": (0,), "time_axis": True}, "at least 2"),
        (heat(3), {"time_axis": True}, "no model takes time"),
        (heat(), {"steps": (0,), "inputs": ("a",)}, "names 'a'"),
        (heat(), {"steps": (0,), "stride": 4}, "single point"),
        (NODES, {"steps": (0,), "stride": 2}, "stride is 2, but mesh lies on the node"),
    ],
)
def test_what_cannot_be_read_is_refused(facts, changes, message):
    with pytest.raises(ValueError, match=message):
        layouts.layout(facts, SETTINGS | changes)


def test_settings_of_earlier_versions_read_the_only_step():
    former = {k: v for k, v in SETTINGS.items() if k not in layouts.FORMER}
    assert layouts.layout(heat(num_steps=1), former).in_channels == 2


def test_points_are_equidistant_or_not():
    even, uneven = layouts.spacing((np.linspace(-1, 1, 5), np.array([0.0, 1.0, 3.0])))
    assert even == 0.5
    np.testing.assert_array_equal(uneven, [1, 2])


def test_coordinates_of_points_stand_before_the_fields(tmp_path):
    rng = np.random.default_rng(0)
    x, points = rng.random((2, 6, 7, 2))
    path = tmp_path / "mine.npz"
    for shape in ((7, 2), (6, 7, 2)):
        np.savez(
            path, x=x, y=x[..., :1], points=points[0] if len(shape) < 3 else points
        )
        settings = SETTINGS | {"path": str(path)}
        dataset = data.open_data(settings)
        test = data.load_split(dataset, settings, "test")
        assert test.num_coordinates == 2
        assert test.spacing is None
        own = points[0] if len(shape) < 3 else points[5]
        np.testing.assert_array_equal(test.x[0, :, :2], own.astype(np.float32))
        np.testing.assert_array_equal(test.x[0, :, 2:], x[5].astype(np.float32))
        found = data.describe(settings)
        assert (found.in_channels, found.out_channels) == (4, 1)
        assert found.spell_grid() == "7 nodes"


def test_coordinates_before_there_are_data(monkeypatch, tmp_path):
    source = loading.__file__.replace("loading.py", "data")
    settings = SETTINGS | {"config": f"{source}/darcy_multiscale.py:quick"}
    monkeypatch.chdir(tmp_path)
    found = data.describe(settings)
    assert found.grid == (33, 33)
    for c in found.coordinates:  # the domain of this one is not the unit square
        np.testing.assert_allclose(c, np.linspace(-1, 1, 33))


@pytest.mark.parametrize("grid", [(9,), (5, 4, 3)])
def test_normalisers_of_any_dimension(grid):
    samples = np.random.default_rng(0).random((6, *grid, 2)).astype(np.float32)
    axes = tuple(range(samples.ndim - 1))
    for kind, over in (("scalar", axes), ("pointwise", (0,))):
        fitted = normalizers.fit(kind, samples)
        encoded = fitted.encode(samples)
        np.testing.assert_allclose(encoded.mean(axis=over), 0, atol=1e-5)
        np.testing.assert_allclose(fitted.decode(encoded), samples, atol=1e-5)
    finer = fitted.resample([2 * n - 1 for n in grid])
    nodes = (slice(None), *(slice(None, None, 2) for _ in grid))
    np.testing.assert_allclose(finer.mean[nodes], fitted.mean, rtol=1e-6)
    with pytest.raises(ValueError, match="resample"):
        finer.encode(samples)
    kept = normalizers.fit("pointwise", samples, num_coordinates=1).encode(samples)
    np.testing.assert_array_equal(kept[..., 0], samples[..., 0])
    np.testing.assert_array_equal(kept[..., 1], encoded[..., 1])


@pytest.mark.parametrize(
    ("grid", "num_coordinates"), [((9,), 0), ((5, 4, 3), 0), ((20,), 2)]
)
def test_pictures_of_lines_boxes_and_points(tmp_path, grid, num_coordinates):
    rng = np.random.default_rng(0)
    x, y = rng.random((2, *grid, num_coordinates + 1)), rng.random((2, *grid, 1))
    picture = figures.plot_samples(
        x,
        y,
        {"A": y + 0.1},
        {"A": [0.1, 0.2]},
        [3, 4],
        num_coordinates=num_coordinates,
        title="source",
        ranks=("best", "worst"),
    )
    assert picture.axes[0].get_title() == "source"
    assert picture.axes[0].get_ylabel().startswith("best: sample 3")
    titles = [panel.get_title() for panel in picture.axes]
    if len(grid) == 3:
        assert picture.get_suptitle() == "slice z = 0.5"
        assert "20.00 % rel. $L^2$ (whole box)" in titles
    elif not num_coordinates:  # one panel with both curves, one with the error
        assert titles[1] == "$u$: truth and prediction"
        shown = [t.get_text() for t in picture.axes[1].get_legend().get_texts()]
        assert shown == ["truth", "A"]
        (line, _) = picture.axes[2].get_lines()
        np.testing.assert_allclose(line.get_ydata(), 0.1)
        assert line.get_label() == "A: 10.00 % rel. $L^2$"
    picture.savefig(tmp_path / "s.png", dpi=40)
    assert (tmp_path / "s.png").stat().st_size > 3000


def test_captions_say_which_channel_and_which_step(stored):
    dataset, _ = stored
    told = pictures.captions(dataset, SETTINGS | {"steps": (-1,)})
    assert told["title"] == "input 1 of 2: coefficient $a$"
    assert told["output"].startswith("$u$\nstep 3 of 3 (time = ")
    assert told["axes"] == ("x", "y")
    told = pictures.captions(dataset, SETTINGS | {"time_axis": True})
    assert (told["output"], told["axes"]) == ("$u$", ("x", "y", "time"))


def test_samples_asked_for_and_ends_left_out_are_told_before_training(stored, capsys):
    dataset, _ = stored  # 4, 1 and 1 samples
    checks.request_fits(dataset, SETTINGS)
    for split in ("num_train", "num_valid", "num_test"):
        for num in (0, 5):
            with pytest.raises(ValueError, match=f"in {split[4:]}, {num} were asked"):
                checks.request_fits(dataset, SETTINGS | {split: num})
    coordinates = {"x": np.arange(9.0), "y": np.arange(13.0)}
    walls = dataclasses.replace(dataset, coordinates=coordinates)
    checks.request_fits(walls, SETTINGS | {"stride": 2})
    assert not capsys.readouterr().out
    checks.request_fits(walls, SETTINGS | {"stride": 3})
    printed = capsys.readouterr().out
    assert "stride is 3, which leaves out the end of axis x (9 x 13 points)" in printed
    assert "--config.data.stride=1 or 2 or 4 keeps both ends" in printed
    periodic = {"x": np.arange(9.0), "y": np.arange(12.0)}
    ends = tuple({"axis": a, "bc_type": "PERIODIC"} for a in "xy")
    dataset = dataclasses.replace(dataset, coordinates=periodic, boundaries=ends)
    for stride, warned in ((3, False), (2, True)):
        checks.request_fits(dataset, SETTINGS | {"stride": stride})
        printed = capsys.readouterr().out
        assert ("does not divide the period of axis x (9 x 12" in printed) == warned
    assert "--config.data.stride=1 or 3 keeps the period" in printed


def test_runs_are_compared_by_the_fields_and_steps_they_resolve_to(stored):
    dataset, _ = stored
    tested_on = lambda **changes: data.tested_on(dataset, SETTINGS | changes)  # noqa: E731
    last = tested_on(steps=(-1,))
    assert last == tested_on(
        steps=(2,), inputs=("coefficient", "source"), num_train=3, stride=2
    )
    for changes in (
        {"steps": (1,)},
        {"steps": (-1,), "input_steps": (0,)},
        {"steps": (-1,), "inputs": ("source",)},
        {"steps": (-1,), "outputs": ("source",)},
        {"steps": (-1,), "num_test": 2},
        {"time_axis": True},
    ):
        assert tested_on(**changes) != last


def test_a_model_that_does_not_fit_its_data_says_what_to_set():
    settings = {"in_channels": 1, "out_channels": 1, "modes": (3, 2), "channels": 2}
    model = nnx.eval_shape(lambda: models.create("fno", rngs=nnx.Rngs(0), **settings))
    settings["name"] = "fno"
    found = layouts.layout(heat(), SETTINGS | {"time_axis": True})
    with pytest.raises(ValueError, match="coefficient, source") as caught:
        checks.model_fits(model, settings, found)
    advice = "set --config.model.in_channels=2 --config.model.modes='(3, 2, 3)'"
    assert str(caught.value).endswith(advice)
    settings["in_channels"] = 2
    checks.model_fits(
        model, settings, layouts.layout(heat(), SETTINGS | {"steps": (0,)})
    )
    nodes = types.SimpleNamespace(
        on_nodes=True, grid=(9,), spell_grid=lambda: "9 nodes"
    )
    with pytest.raises(ValueError, match=r"nodes of a mesh \(9 nodes\)"):
        checks.model_fits(model, settings, nodes)
