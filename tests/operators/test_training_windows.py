"""Windows of trajectories: what is cut, in which order, with which errors and norms."""

import dataclasses
import functools
import json
import re
import types
from pathlib import Path

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import train
from configs import loading
from datagen.storage import read
from operators.training import (
    batching,
    checks,
    data,
    device_data,
    evaluate,
    frame_figures,
    layouts,
    losses,
    metrics,
    normalizers,
    optimizers,
    resolution,
    runs,
    sharding,
    sobolev,
    state,
    windows,
    workdir,
)
from solvers.fourier import half_wavenumbers, wavenumbers

ROOT = Path(__file__).parent.parent.parent
PLOT = frame_figures.plot_errors
RARE = functools.partial(pytest.param, marks=pytest.mark.slow)
NUM, FRAMES, GRID = 5, 9, (4, 6)
SETTINGS = {
    **layouts.FORMER,
    "config": "",
    "path": "",
    "inputs": (),
    "outputs": (),
    "num_train": NUM,
    "num_valid": 2,
    "num_test": 2,
    "stride": 1,
    "window": (3, 2),
}
FIELDS = (
    {"name": "force", "time_varying": False},
    {"name": "u", "time_varying": True},
    {"name": "v", "time_varying": True},
)
NAMES = ("force", "u", "v")
FACTS = layouts.Facts(
    "flow",
    {"x": np.arange(4) / 4, "y": np.arange(6) / 6},
    0,
    FIELDS,
    (NAMES, ()),
    0.5 + 0.25 * np.arange(FRAMES),
    "time",
)


class FileOf(read.Dataset):
    """A data set whose files need no manifest."""

    def _accepted(self, split, num):
        return np.arange(num), [(self.root, np.arange(num), np.arange(num))]


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A periodic data set of FIELDS on 4 x 6 points, and its frames [N, T, *, 3]."""
    rng = np.random.default_rng(0)
    frames = rng.standard_normal((NUM, FRAMES, *GRID, 3)).astype(np.float32)
    frames[..., 0] = frames[:, :1, ..., 0]
    path = tmp_path_factory.mktemp("flow") / "file.hdf5"
    with h5py.File(path, "w") as file:
        group = file.create_group("t0_fields")
        for i, name in enumerate(NAMES):
            group[name] = frames[..., i] if i else frames[:, 0, ..., 0]
    dataset = FileOf(
        root=path,
        manifest={"fields": list(FIELDS)},
        manifest_sha256="",
        name="flow",
        splits={"train": NUM, "valid": 2, "test": 2},
        coordinates=FACTS.coordinates,
        scalars={},
        boundaries=tuple({"axis": a, "bc_type": "PERIODIC"} for a in "xy"),
        steps=FACTS.steps,
        step_name="time",
    )
    return dataset, frames


def window(**changes):
    """The window of some settings of the data."""
    return layouts.layout(FACTS, SETTINGS | changes).window


def reference(frames, start, layout, inputs, outputs):
    """x and y of one window of one trajectory, point by point."""
    given, wanted = range(start, start + 3), range(start + 3, start + 5)
    x = [[frames[t][..., f] for t in given] for f in inputs]  # [field][time]
    y = [[frames[t][..., f] for t in wanted] for f in outputs]
    if layout == "channels":
        return (np.stack([c for part in v for c in part], -1) for v in (x, y))
    y = np.stack([np.stack(part, -1) for part in y], -1)
    if layout == "repeated":
        x = np.stack([c for part in x for c in part], -1)
        return np.stack([x] * 2, axis=-2), y
    return np.stack([np.stack(part, -1) for part in x], -1), y


@pytest.mark.parametrize("layout", windows.LAYOUTS)
def test_windows_hold_the_frames_of_their_layout(stored, layout):
    dataset, frames = stored
    changes = {"window_layout": layout, "inputs": ("v", "force"), "outputs": ("v",)}
    settings = SETTINGS | changes | {"window_start": 2}
    test = data.load_split(dataset, settings, "test")
    found = data.layout(dataset, settings)
    x, y = reference(frames[1], 2, layout, (2, 0), (2,))
    np.testing.assert_array_equal(test.x[1], x)
    np.testing.assert_array_equal(test.y[1], y)
    assert test.x.shape[1:] == (*found.input_grid, found.in_channels)
    assert test.y.shape[1:] == (*found.grid, found.out_channels)
    np.testing.assert_array_equal(
        found.window.frames_of(test.y), frames[:2, 5:7, ..., 2:]
    )
    np.testing.assert_array_equal(
        found.window.last_given(test.x), frames[:2, 4, ..., 2:]
    )
    assert found.has_time == (layout != "channels")
    if found.has_time:
        np.testing.assert_array_equal(test.coordinates[-1], FACTS.steps[5:7])
        assert found.axes == ("x", "y", "time")
        assert test.periodic == (True, True, False)
    if layout != "time_axis":
        assert found.inputs[:4] == ("v[-2]", "v[-1]", "v[0]", "force[-2]")


def test_earlier_frames_of_everything_that_varies_are_the_default(stored):
    found = layouts.layout(FACTS, SETTINGS)
    assert found.inputs == found.outputs == ("u", "v")
    assert layouts.layout(FACTS, SETTINGS | {"outputs": ("v",)}).inputs == ("v",)
    assert found.window.last_given(np.zeros((1, *GRID, 3, 2))).shape == (1, *GRID, 2)
    lacking = window(inputs=("u",), outputs=("v",))
    assert lacking.last_given(np.zeros((1, *GRID, 3, 1))) is None


def test_validation_and_test_have_one_start(stored):
    assert window().start == FRAMES - 5
    assert window(window_start=-2).start == FRAMES - 6
    assert window(window_start=3).start == 3
    dataset, _ = stored
    last = data.tested_on(dataset, SETTINGS)
    assert last == data.tested_on(dataset, SETTINGS | {"window_start": FRAMES - 5})
    same = {"window_fixed": True, "num_train": 2, "stride": 2}
    assert last == data.tested_on(dataset, SETTINGS | same)
    for changes in ({"window_start": 0}, {"window": (2, 3)}, {"outputs": ("u",)}):
        assert last != data.tested_on(dataset, SETTINGS | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"window": (3,)}, r"window is \(3,\); expected two"),
        ({"window": (3, 0)}, "expected two positive numbers"),
        ({"window": (6, 4)}, "10 frames long, but flow has 9"),
        ({"window_start": 5}, r"start at 0 \.\.\. 4, or at -1 \.\.\. -5"),
        ({"window_start": -6}, "window_start is -6"),
        ({"window_layout": "rows"}, "known: time_axis, repeated, channels"),
        ({"steps": (1,)}, "leave steps alone"),
        ({"time_axis": True}, "leave time_axis alone"),
        ({"outputs": ("force",)}, "'force', which does not vary"),
        ({"outputs": ("w",)}, "names 'w'"),
    ],
)
def test_windows_that_cannot_be_cut_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        layouts.layout(FACTS, SETTINGS | changes)


def test_windows_need_a_grid_with_room_for_time_and_a_data_set(tmp_path):
    box = dataclasses.replace(
        FACTS, coordinates={a: np.arange(4.0) for a in ("x", "y", "z")}
    )
    with pytest.raises(ValueError, match="window_layout=channels"):
        layouts.layout(box, SETTINGS)
    assert (
        layouts.layout(box, SETTINGS | {"window_layout": "channels"}).grid == (4,) * 3
    )
    nodes = dataclasses.replace(FACTS, coordinates={"node": np.arange(9.0)})
    with pytest.raises(ValueError, match="nodes of a mesh, where there are no windows"):
        layouts.layout(nodes, SETTINGS)
    np.savez(tmp_path / "mine.npz", x=np.ones((9, 4, 4)), y=np.ones((9, 4, 4)))
    with pytest.raises(ValueError, match="no trajectories to cut"):
        data.describe(SETTINGS | {"path": str(tmp_path / "mine.npz")})


def test_starts_depend_on_seed_epoch_and_sample_alone():
    order = batching.epoch_order(3, 5, 20, 4, 6)
    assert order.shape == (5, 4, 2)
    assert order.dtype == np.int32
    np.testing.assert_array_equal(
        batching.samples_of(order), batching.epoch_order(3, 5, 20, 4)
    )
    starts = dict(order.reshape(-1, 2).tolist())
    other = dict(batching.epoch_order(3, 5, 20, 10, 6).reshape(-1, 2).tolist())
    assert starts == other  # whatever the batch size
    for seed, epoch in ((4, 5), (3, 6)):
        other = batching.epoch_order(seed, epoch, 20, 4, 6).reshape(-1, 2)
        assert starts != dict(other.tolist())
    drawn = np.concatenate(
        [batching.epoch_order(0, e, 20, 4, 6)[..., 1].ravel() for e in range(40)]
    )
    assert set(drawn) == set(range(6))
    assert np.bincount(drawn).min() > 800 / 6 - 4 * np.sqrt(800 / 6)


class Forward(nnx.Module):
    """A stand-in: later frames as multiples of the last given one, plus the mean."""

    num_axes = 3

    def __init__(self, *, rngs):
        self.factors = nnx.Param(jax.random.normal(rngs.params(), (2,)))
        self.share = nnx.Param(jnp.ones(()))

    def __call__(self, x):
        mean = x.mean(axis=3, keepdims=True) * self.share[...]
        return x[:, :, :, -1:] * self.factors[...].reshape(1, 1, 1, 2, 1) + mean


def squares(prediction, target):
    return ((prediction - target) ** 2).sum((1, 2, 3, 4))


@pytest.mark.parametrize("micro_batch", [RARE(0), 2])
def test_a_step_on_trajectories_is_the_step_on_their_windows(stored, micro_batch):
    _, frames = stored
    chosen = window(outputs=("u",), inputs=("u",))
    picked = np.array([[3, 0], [0, 4], [4, 2], [1, 1]], np.int32)
    parts = np.stack([frames[n, s : s + 5, ..., 1:2] for n, s in picked])
    x, y = chosen.split(parts)
    scale = normalizers.Normalizer(*np.full((2, 1, 1, 1, 1, 1), 0.5, np.float32))
    same = normalizers.fit("none", y)
    cut = state.Trajectories(frames[..., 1:2], scale, same, window=chosen)
    whole = state.Arrays(scale.encode(x), y, same)
    mesh = sharding.data_mesh(1, 1)
    adam = {"name": "adam", "b1": (0.9, 0.9), "b2": 0.999, "weight_decay": 0.0}
    constant = {"name": "constant", "per": "step", "peak": 1e-2}
    optimizer = optimizers.create(adam, constant, 1, 1)
    results = []
    for arrays, indices in ((cut, picked), (whole, np.arange(4, dtype=np.int32))):
        graph, current = state.create_state(Forward(rngs=nnx.Rngs(0)), optimizer, mesh)
        step_fn = state.make_train_step(
            graph, optimizer, squares, mesh, micro_batch=micro_batch
        )
        current, told = step_fn(current, jax.device_put(arrays), indices)
        results.append((current.params, told["loss"]))
    (params, loss), (expected, expected_loss) = results
    assert float(loss) == pytest.approx(float(expected_loss), rel=1e-6)
    for a, b in zip(*map(jax.tree.leaves, (params, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def config(**changes):
    return {
        "data": SETTINGS | changes.pop("data", {}),
        "normalizers": {"input": "scalar", "output": "none"} | changes,
        "eval": {"batch_size": 1},
    }


def test_trajectories_reach_the_devices_whole_and_validation_as_windows(stored):
    dataset, frames = stored
    own = config(data={"inputs": ("v", "u"), "outputs": ("u",)})
    layout = data.layout(dataset, own["data"])
    splits = device_data.load(dataset, own, layout, lambda arrays: arrays)
    held = splits.train.frames  # of the fields of x, then those of y
    np.testing.assert_array_equal(held, frames[..., [2, 1]])
    fitted = splits.normalizers["input"]
    assert fitted.mean.shape == (1, 1, 1, 1, 2)
    for i, field in enumerate((2, 1)):
        assert fitted.mean[..., i] == pytest.approx(frames[..., field].mean(), abs=1e-6)
    x, y = splits.train.batch(jnp.array([[2, 1]]))
    np.testing.assert_allclose(y[0], np.moveaxis(frames[2, 4:6, ..., 1:2], 0, -2))
    given = np.moveaxis(frames[2, 1:4][..., [2, 1]], 0, -2)
    np.testing.assert_allclose(x[0], fitted.encode(given[None])[0], rtol=1e-5)
    assert [len(batch.y) for batch in splits.valid] == [1, 1]
    stand_in = device_data.stand_in(layout, NUM, own["normalizers"])
    assert stand_in.frames.shape == held.shape
    assert jax.tree.structure(stand_in) == jax.tree.structure(splits.train)
    with pytest.raises(ValueError, match="window_fixed=True"):
        device_data.load(dataset, config(input="pointwise"), layout, lambda a: a)


def test_channels_of_a_field_share_its_statistics(stored):
    dataset, frames = stored
    own = config(data={"window_layout": "repeated", "outputs": ("v",)}, output="scalar")
    layout = data.layout(dataset, own["data"] | {"inputs": ("u", "v")})
    own["data"]["inputs"] = ("u", "v")
    fitted = device_data.load(dataset, own, layout, lambda a: a).normalizers
    assert fitted["input"].scale.shape == (1, 1, 1, 1, 6)
    scales = fitted["input"].scale.ravel()
    np.testing.assert_allclose(scales[:3], frames[..., 1].std(ddof=1), rtol=1e-4)
    np.testing.assert_allclose(scales[3:], frames[..., 2].std(ddof=1), rtol=1e-4)
    assert fitted["output"].mean.shape == (1, 1, 1, 1, 1)
    assert fitted["output"].mean.item() == pytest.approx(
        frames[..., 2].mean(), abs=1e-6
    )


def test_windows_in_one_place_are_plain_samples(stored):
    dataset, _ = stored
    own = config(data={"window_fixed": True}, input="pointwise", output="pointwise")
    layout = data.layout(dataset, own["data"])
    assert layout.num_starts == 0
    train = device_data.load(dataset, own, layout, lambda arrays: arrays).train
    np.testing.assert_array_equal(
        train.y, data.load_split(dataset, own["data"], "train").y
    )
    assert train.output.mean.shape == (1, *GRID, 2, 2)


def test_norms_of_a_wave_are_those_of_the_closed_form():
    """The error e has half the wave numbers of u."""
    lengths, shape = (2.0, 3.0), (16, 12)
    x, y = (n * np.arange(m) / m for n, m in zip(lengths, shape, strict=True))
    x, y = (2 * np.pi * v / n for v, n in zip((x, y), lengths, strict=True))
    amplitude, reference = np.array([1.0, -2.0, 0.5]), np.array([3.0, 1.0, 1.0])
    e = np.multiply.outer(np.outer(np.sin(2 * x), np.cos(y)), amplitude)
    u = np.multiply.outer(np.outer(np.sin(4 * x), np.cos(2 * y)), reference)
    e, u = (v[None, ..., None] for v in (e, u))
    spacing = (lengths[0] / 16, lengths[1] / 12, 0.1)
    square = (2 * np.pi * 2 / 2.0) ** 2 + (2 * np.pi / 3.0) ** 2
    ratio = (amplitude**2).sum() / (reference**2).sum()
    for alpha in (0.1, 1.0):
        loss = losses.create("bochner_h1", spacing, has_time=True, alpha=alpha)
        expected = np.sqrt(ratio * (alpha + square) / (alpha + 4 * square))
        np.testing.assert_allclose(loss(u + e, u), expected, rtol=1e-12)
    released = losses.create("sobolev_released", spacing, has_time=True)
    expected = np.sqrt(ratio * (0.1 + square) / (0.1 + 4 * square))
    np.testing.assert_allclose(released(u + e, u), expected / np.sqrt(3), rtol=1e-12)
    l2 = losses.create("bochner_l2", spacing, has_time=True)
    np.testing.assert_allclose(l2(u + e, u), np.sqrt(ratio), rtol=1e-12)


def test_bochner_losses_are_the_norms_in_every_layout_and_library():
    rng = np.random.default_rng(1)
    p, t = rng.standard_normal((2, 3, 4, 8, 6))  # [batch, time, n1, n2]
    spacing, lengths = (0.5, 0.25, 1.0), (4.0, 1.5)
    on_axis = [np.moveaxis(v, 1, -1)[..., None] for v in (p, t)]
    channels = [np.moveaxis(v, 1, -1) for v in (p, t)]
    for order, name, settings in (
        (0, "bochner_l2", {}),
        (1, "bochner_h1", {"alpha": 1}),
    ):
        expected = sobolev.relative_bochner(
            p, t, order=order, lengths=lengths, alpha=order
        )
        with_time = losses.create(name, spacing, has_time=True, **settings)
        without = losses.create(name, spacing[:2], **settings)
        np.testing.assert_allclose(with_time(*on_axis), expected, rtol=1e-12)
        np.testing.assert_allclose(without(*channels), expected, rtol=1e-12)
        single = (jnp.asarray(v, jnp.float32) for v in on_axis)
        np.testing.assert_allclose(with_time(*single), expected, rtol=1e-5)
    own = {"order": -1, "alpha": 10**-1.5, "relative": False, "time_average": False}
    expected = sobolev.compat_sobolev_loss(p, t, lengths=lengths, **own)
    released = losses.create("sobolev_released", spacing, has_time=True, **own)
    np.testing.assert_allclose(released(*on_axis), expected, rtol=1e-12)
    released = losses.create("sobolev_released", spacing[:2], **own)
    np.testing.assert_allclose(released(*channels), expected, rtol=1e-12)


def test_losses_refuse_what_they_do_not_measure(stored):
    dataset, _ = stored
    one = np.ones((1, 4, 4, 3, 2))
    with pytest.raises(ValueError, match="one field, but there are 2"):
        losses.create("sobolev_released", (1.0,) * 3, has_time=True)(one, one)
    uneven = losses.create("bochner_h1", (np.ones(3), 1.0, 1.0), has_time=True)
    with pytest.raises(ValueError, match="equidistant"):
        uneven(one, one)
    with pytest.raises(ValueError, match="takes no"):
        losses.create("bochner_h1", (1.0, 1.0), has_time=True, weight=1.0)
    layout = layouts.layout(FACTS, SETTINGS | {"outputs": ("v",)})
    checks.loss_fits({"name": "bochner_h1"}, dataset, layout)
    walls = dataclasses.replace(dataset, boundaries=dataset.boundaries[:1])
    checks.loss_fits({"name": "bochner_l2"}, walls, layout)
    with pytest.raises(ValueError, match=r"axis y of .* is not"):
        checks.loss_fits({"name": "sobolev_released"}, walls, layout)
    checks.loss_fits({"name": "bochner_h1"}, dataset, layout, 2)
    with pytest.raises(
        ValueError, match=r"axis x of .* is not at config\.data\.stride 3"
    ):
        checks.loss_fits({"name": "bochner_h1"}, dataset, layout, 3)
    several = layouts.layout(FACTS, SETTINGS | {"window_layout": "channels"})
    checks.loss_fits({"name": "bochner_h1"}, dataset, several)
    with pytest.raises(ValueError, match=r"one field, but .* are u, v"):
        checks.loss_fits({"name": "sobolev_released"}, dataset, several)


def test_a_model_that_continues_its_input_takes_the_outputs_first():
    model = types.SimpleNamespace(num_axes=3, continues_input=True)
    settings = {"name": "sfno", "in_channels": 2, "out_channels": 1}
    for inputs, fits in (
        (("u", "force"), True),
        (("force", "u"), False),
        (("force", "v"), False),
    ):
        asked = SETTINGS | {"inputs": inputs, "outputs": ("u",)}
        layout = layouts.layout(FACTS, asked)
        if fits:
            checks.model_fits(model, settings, layout)
            continue
        others = tuple(name for name in inputs if name != "u")
        wanted = re.escape(f'set --config.data.inputs="{("u", *others)}"')
        with pytest.raises(ValueError, match=f"{wanted}$"):
            checks.model_fits(model, settings, layout)
    repeated = layouts.layout(FACTS, asked | {"window_layout": "repeated"})
    settings["in_channels"] = 6
    with pytest.raises(ValueError, match=r"set --config.data.window_layout=time_axis"):
        checks.model_fits(model, settings, repeated)


def test_a_model_that_continues_its_input_has_one_normaliser():
    model = types.SimpleNamespace(continues_input=True)
    anywhere, fixed = (
        layouts.layout(FACTS, SETTINGS | {"window_fixed": f}) for f in (False, True)
    )
    settings = {"name": "sfno"}
    for kinds, layout in ((("none",) * 2, fixed), (("scalar",) * 2, anywhere)):
        kinds = dict(zip(("input", "output"), kinds, strict=True))
        checks.normalizers_fit(model, kinds, settings, layout)
    for kinds, layout in (
        (("scalar", "none"), anywhere),
        (("scalar", "scalar"), fixed),
        (("pointwise", "pointwise"), fixed),
    ):
        kinds = dict(zip(("input", "output"), kinds, strict=True))
        with pytest.raises(ValueError, match=r"both must be the same: set --config"):
            checks.normalizers_fit(model, kinds, settings, layout)
        checks.normalizers_fit(types.SimpleNamespace(), kinds, settings, layout)


def test_sides_of_the_domain_are_those_of_the_data():
    model = types.SimpleNamespace(num_axes=3)
    settings = {"name": "sfno", "in_channels": 2, "out_channels": 2}
    settings |= {"divergence_free": True, "lengths": (1.0, 1.0)}
    layout = layouts.layout(FACTS, SETTINGS)
    checks.model_fits(model, settings, layout)
    with pytest.raises(ValueError, match=r"set --config.model.lengths='\(1.0, 1.0\)'"):
        checks.model_fits(model, settings | {"lengths": (1.0, 2.0)}, layout)


def test_windows_without_a_target_are_refused(stored, monkeypatch):
    dataset, frames = stored
    one = SETTINGS | {"inputs": ("u",), "outputs": ("u",)}
    for still, refused in (((4, 5), True), ((4, 6), False), ((0, 1), False)):
        changed = frames[..., 1:2].copy()
        changed[3, list(still)] = 0
        loaded = types.SimpleNamespace(sample_ids=np.arange(NUM), coordinates=(0, 0))
        monkeypatch.setattr(data, "_load_frames", lambda *_: (loaded, changed))  # noqa: B023
        if refused:
            with pytest.raises(ValueError, match=r"must not vanish.*sample_ids 3\)"):
                data.load_frames(dataset, one, "train")
        else:
            data.load_frames(dataset, one, "train")


def test_data_of_another_domain_or_other_times_are_refused(stored, monkeypatch):
    dataset, _ = stored
    info = {"data_manifest_sha256": dataset.manifest_sha256}
    config = {"data": SETTINGS}
    run = types.SimpleNamespace(config=config, info=info, workdir="runs/one")
    monkeypatch.setattr(data, "open_data", lambda *_, **__: dataset)
    finer = {"x": np.arange(8) / 8, "y": np.arange(12) / 12}
    evaluate._check_domain(run, dataclasses.replace(dataset, coordinates=finer))
    longer = dataclasses.replace(dataset, coordinates=finer | {"y": np.arange(6) / 3})
    with pytest.raises(ValueError, match=r"sides of the domain 1, 2, but .* on 1: "):
        evaluate._check_domain(run, longer)
    slower = dataclasses.replace(dataset, steps=2 * np.asarray(dataset.steps))
    with pytest.raises(ValueError, match=r"distances of frames 0.5, but .* on 0.25"):
        evaluate._check_domain(run, slower)
    config["data"] = SETTINGS | {"window": (), "steps": (-1,)}
    evaluate._check_domain(run, dataset)
    with pytest.raises(ValueError, match=r"values of time 5, but .* trained on 2.5"):
        evaluate._check_domain(run, slower)
    info["data_manifest_sha256"] = "other"  # nobody knows what it was trained on
    evaluate._check_domain(run, slower)


def test_errors_over_resolution_are_those_of_the_evaluation(stored):
    dataset, _ = stored
    layout = data.layout(dataset, SETTINGS)
    samples = data.load_split(dataset, SETTINGS, "test")
    prediction = samples.y + np.cos(samples.y)
    expected = evaluate.measure(prediction, samples.y, samples, layout)
    found = resolution._errors(prediction, 1, samples=samples, layout=layout)
    assert set(found) == set(expected) - {"frames"}
    for norm, values in found.items():
        assert values["mean"] == pytest.approx(expected[norm]["mean"], rel=1e-12)


def test_errors_of_frames_are_those_of_each_frame():
    rng = np.random.default_rng(2)
    prediction, target = rng.standard_normal((2, 3, 4, 8, 6, 2))
    report = metrics.evaluate_frames(prediction, target, (0.5, 0.25), periodic=True)
    sizes = np.linalg.norm((prediction - target).reshape(3, 4, -1), axis=2)
    sizes /= np.linalg.norm(target.reshape(3, 4, -1), axis=2)
    expected = sizes.mean(axis=0)
    frames = report["frames"]["relative_l2"]
    np.testing.assert_allclose(frames["mean"], expected, rtol=1e-12)
    assert np.shape(frames["quantiles"]["0.5"]) == np.shape(frames["std"]) == (4,)
    whole = np.linalg.norm((prediction - target).reshape(3, -1), axis=1)
    whole /= np.linalg.norm(target.reshape(3, -1), axis=1)
    np.testing.assert_allclose(report["relative_l2"]["per_sample"], whole, rtol=1e-12)
    k1, k2 = 2 * np.pi / 4.0 * wavenumbers(8), 2 * np.pi / 1.5 * half_wavenumbers(6)
    weights = (0.1 + k1[:, None] ** 2 + k2**2) * np.where(k2 % (2 * np.pi / 0.5), 2, 1)

    def square(v):
        power = np.abs(np.fft.rfft2(v, axes=(2, 3))) ** 2
        return (power * weights[None, None, :, :, None]).sum((1, 2, 3, 4))

    h1 = np.sqrt(square(prediction - target) / square(target))
    np.testing.assert_allclose(report["bochner_h1"]["per_sample"], h1, rtol=1e-12)
    walls = metrics.evaluate_frames(prediction, target, (0.5, 0.25), periodic=False)
    assert set(report) - set(walls) == {"bochner_h1"}
    assert report["bochner_h1"]["alpha"] == 0.1


def test_models_must_make_the_frames_that_are_wanted():
    layout = layouts.layout(FACTS, SETTINGS)
    made = jax.ShapeDtypeStruct((1, *GRID, 3, 2), "float32")
    with pytest.raises(ValueError, match=r"config\.model\.out_steps=2"):
        checks.output_fits(made, {"name": "sfno", "out_steps": 3}, layout)
    with pytest.raises(ValueError, match="window_layout=repeated"):
        checks.output_fits(made, {"name": "fno"}, layout)
    made = jax.ShapeDtypeStruct((1, *GRID, 2, 2), "float32")
    checks.output_fits(made, {"name": "fno"}, layout)


def test_loaded_runs_pass_times_on_to_the_model(tmp_path):
    class Times(nnx.Module):
        def __call__(self, x, times=None, *, out_steps=2):
            times = jnp.arange(1.0, out_steps + 1) if times is None else times
            return x[:, :, :, -1:] * jnp.asarray(times).reshape(1, 1, 1, -1, 1)

    same = normalizers.fit("none", np.ones((1, 4, 4, 3, 1)))
    settings = {"model": {"name": "times", "in_channels": 1, "out_channels": 1}}
    operator = runs.Operator(settings, tmp_path, 0, {}, Times(), same, same)
    x = np.ones((2, 4, 4, 3, 1), np.float32)
    assert operator(x).shape == (2, 4, 4, 2, 1)
    assert operator(x, out_steps=5).shape == (2, 4, 4, 5, 1)
    y = operator(x, times=(0.5, 2.0, 3.0))
    np.testing.assert_array_equal(y[1, 2, 3, :, 0], [0.5, 2, 3])
    assert operator(x, out_steps=np.int64(3), times=None).shape == (2, 4, 4, 3, 1)
    for options, message in (
        ({"times": 1.5}, r"times is 1\.5; expected a whole number, or a line"),
        ({"out_steps": True}, "out_steps is True; expected"),
        ({"steps": 3}, "takes no option 'steps'; known: times, out_steps"),
    ):
        with pytest.raises(ValueError, match=message):
            operator(x, **options)
    each = normalizers.fit("pointwise", np.arange(96.0).reshape(3, 4, 4, 2, 1))
    operator = dataclasses.replace(operator, output=each)
    assert operator(x).shape == (2, 4, 4, 2, 1)
    for options in ({"times": (0.5, 1.0)}, {"out_steps": 3}):
        with pytest.raises(ValueError, match="statistics of each frame of training"):
            operator(x, **options)


def test_runs_from_before_there_were_windows_go_on(tmp_path):
    before = {"data": {"stride": 1}}
    workdir.record_config(tmp_path, before)
    assert workdir.prepare(tmp_path, {"data": {"stride": 1, **layouts.FORMER}})
    for change in ({"window": (1, 1)}, {"window_layout": "channels"}):
        with pytest.raises(ValueError, match=r"data\.window"):
            workdir.prepare(
                tmp_path, {"data": {"stride": 1, **layouts.FORMER, **change}}
            )


@pytest.mark.parametrize("num_axes", [RARE(1), 2, RARE(3)])
def test_strips_of_frames_and_errors_over_time_are_drawn(tmp_path, num_axes):
    grid = (7, 6, 5)[:num_axes]
    truth = np.random.default_rng(0).standard_normal((1, 6, *grid, 1))
    predictions = {"SFNO": truth + 0.1, "FNO": truth - 0.3}
    times = np.arange(6.0)
    picture = frame_figures.plot_frames(
        truth,
        {"SFNO": predictions["SFNO"]},
        times,
        ["best: sample 3"],
        [np.arange(n) / n for n in grid],
        given=truth[:, 0, ..., 0],
        name="vorticity",
    )
    first = picture.axes[0]
    if num_axes > 1:
        assert first.get_ylabel() == "best: sample 3\nvorticity: truth"
        marks = [mark.get_text() for mark in first.get_xticklabels()]
        assert marks == ["last given", "t = 0", "t = 2", "t = 3", "t = 5"]
        assert first.xaxis.get_ticks_position() == "top"
        image = first.get_images()[0].get_array()
        plane = truth[..., 0] if num_axes == 2 else truth[..., 2, 0]
        np.testing.assert_array_equal(image[:, -7:].T, plane[0, 5])
        told = [mark.get_text() for mark in picture.axes[2].get_xticklabels()]
        sizes = metrics.frame_errors(predictions["SFNO"], truth)
        if num_axes == 2:
            assert told[-1] == f"{100 * sizes[0, -1]:.3g} %"
    else:
        assert "SFNO: prediction" in [panel.get_title() for panel in picture.axes]
    picture.savefig(tmp_path / "s.png", dpi=20)
    errors = {k: metrics.frame_errors(v, truth) for k, v in predictions.items()}
    picture = frame_figures.plot_errors(errors, times)
    (line, other) = picture.axes[0].get_lines()
    np.testing.assert_allclose(line.get_ydata(), np.median(errors["SFNO"], axis=0))
    assert (other.get_ydata() > line.get_ydata()).all()
    picture.savefig(tmp_path / "e.png", dpi=20)


class StopAfter:
    """A flag that is raised after so many steps."""

    def __init__(self, polls):
        self.left = polls

    @property
    def requested(self):
        self.left -= 1
        return "SIGTERM" if self.left < 0 else ""


def final_hash(folder):
    record = (folder / "checkpoints" / "latest" / "COMMITTED.json").read_text()
    return json.loads(record)["tree_sha256"]


@pytest.fixture(scope="module")
def flows(tmp_path_factory):
    """A folder with the configs, where the quick sets are made on first use."""
    folder = tmp_path_factory.mktemp("flows")
    (folder / "configs").symlink_to(ROOT / "configs")
    return folder


def quick(name, *, num_epochs):
    config = loading.load(f"configs/{name}.py:quick")
    config.num_epochs = num_epochs
    return config


@pytest.mark.slow
def test_stopping_and_going_on_draws_the_same_windows(flows, tmp_path, monkeypatch):
    monkeypatch.chdir(flows)
    config = quick("sfno_ns_forced", num_epochs=2)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    report = train.train_and_evaluate(config, whole, stop=StopAfter(10**9))
    with pytest.raises(train.StoppedError, match="saved step"):
        train.train_and_evaluate(config, parts, stop=StopAfter(5))
    train.train_and_evaluate(config, parts, stop=StopAfter(10**9))
    assert final_hash(parts) == final_hash(whole)
    frames = report["frames"]
    assert len(frames["times"]) == len(frames["relative_l2"]["mean"]) == 10
    assert len(frames["given"]) == 10
    np.testing.assert_allclose(np.diff([*frames["given"], *frames["times"]]), 0.2)
    assert frames["relative_l2"]["mean"][0] < 0.5
    for name in ("samples.png", "frames.png", "curves.png"):
        assert (whole / name).stat().st_size > 10_000
    arguments = ["--workdir", str(whole), "--data", "data/ns_forced_quick"]
    assert evaluate.main(arguments) == 0
    elsewhere = json.loads((whole / "evaluation_ns_forced_quick.json").read_text())
    assert elsewhere["relative_l2"] == report["relative_l2"]
    operator = runs.load(whole)
    x = np.zeros((1, 24, 16, 10, 1), np.float32)
    assert operator(x, times=(0.5, 7)).shape == (1, 24, 16, 2, 1)


@pytest.mark.slow
def test_the_baseline_of_windows_is_drawn_beside_the_run(flows, tmp_path, monkeypatch):
    monkeypatch.chdir(flows)
    baseline = tmp_path / "baseline"
    for name, folder in (
        ("fno3d_ns_mcwilliams", baseline),
        ("sfno_ns_mcwilliams", tmp_path / "run"),
    ):
        config = quick(name, num_epochs=1)
        config.eval.baseline = str(baseline) * (folder != baseline)
        drawn = []

        def plot(errors, *arguments, drawn=drawn, **options):
            drawn.append(errors)
            return PLOT(errors, *arguments, **options)

        monkeypatch.setattr(frame_figures, "plot_errors", plot)
        train.train_and_evaluate(config, folder, stop=StopAfter(10**9))
    assert list(drawn[0]) == ["SFNO", "FNO", "last given frame"]
    report = json.loads((baseline / "evaluation.json").read_text())
    np.testing.assert_allclose(
        drawn[0]["FNO"].mean(0), report["frames"]["relative_l2"]["mean"], rtol=1e-4
    )
