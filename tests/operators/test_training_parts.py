"""Batches, normalisers, checkpoints, the run folder, the figures."""

import dataclasses
import json
import logging
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs import loading
from operators import models
from operators.training import (
    batching,
    checkpoints,
    data,
    evaluate,
    figures,
    normalizers,
    optimizers,
    resolution,
    runs,
    sharding,
    state,
    timing,
    workdir,
)


def test_an_epoch_is_a_permutation_that_depends_on_seed_and_epoch_only():
    order = batching.epoch_order(3, 5, 20, 4)
    assert order.shape == (5, 4)
    assert sorted(order.ravel()) == list(range(20))
    np.testing.assert_array_equal(order, batching.epoch_order(3, 5, 20, 4))
    assert (order != batching.epoch_order(3, 6, 20, 4)).any()
    assert (order != batching.epoch_order(4, 5, 20, 4)).any()


def test_a_remainder_is_left_out_at_random():
    left_out = [
        set(range(10)) - set(batching.epoch_order(0, epoch, 10, 4).ravel())
        for epoch in range(6)
    ]
    assert all(len(rest) == 2 for rest in left_out)
    assert len({tuple(sorted(rest)) for rest in left_out}) > 2


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(ValueError, match=r"config\.batch_size is 11"):
        batching.steps_per_epoch(10, 11)


@pytest.mark.parametrize("kind", ["scalar", "pointwise"])
def test_normalisers_give_zero_mean_and_unit_variance(kind):
    samples = 3 + 2 * np.random.default_rng(0).standard_normal((50, 6, 4, 2))
    fitted = normalizers.fit(kind, samples.astype(np.float32))
    axes = (0,) if kind == "pointwise" else (0, 1, 2)
    encoded = fitted.encode(samples)
    np.testing.assert_allclose(encoded.mean(axis=axes), 0, atol=1e-6)
    np.testing.assert_allclose(encoded.std(axis=axes, ddof=1), 1, rtol=1e-5)
    np.testing.assert_allclose(fitted.decode(encoded), samples, rtol=1e-5)
    assert fitted.mean.shape[-1] == 2


def test_the_scale_is_the_unbiased_deviation_plus_epsilon():
    samples = np.array([1.0, 3.0], np.float32).reshape(2, 1, 1, 1)
    fitted = normalizers.fit("pointwise", samples)
    assert fitted.scale.item() == pytest.approx(np.sqrt(2) + 1e-5, rel=1e-6)


def test_pointwise_statistics_follow_the_position_on_another_grid():
    x, y = np.meshgrid(np.linspace(0, 1, 5), np.linspace(0, 1, 9), indexing="ij")
    samples = np.stack([s * (1 + x + 2 * y) for s in (1.0, 2.0, 6.0)])[..., None]
    fine = normalizers.fit("pointwise", samples).resample((9, 17))
    x, y = np.meshgrid(np.linspace(0, 1, 9), np.linspace(0, 1, 17), indexing="ij")
    np.testing.assert_allclose(fine.mean[0, ..., 0], 3 * (1 + x + 2 * y), rtol=1e-6)
    assert fine.resample((9, 17)) is fine
    with pytest.raises(ValueError, match="9 x 17"):
        fine.encode(samples)


def test_normalisers_survive_the_disk(tmp_path):
    samples = np.random.default_rng(0).random((4, 3, 5, 1)).astype(np.float32)
    fitted = {
        "input": normalizers.fit("pointwise", samples),
        "output": normalizers.fit("none", samples),
    }
    normalizers.save(tmp_path / "n.npz", fitted)
    for name, loaded in normalizers.load(tmp_path / "n.npz").items():
        np.testing.assert_array_equal(loaded.mean, fitted[name].mean)
        np.testing.assert_array_equal(loaded.scale, fitted[name].scale)


def test_normaliser_kinds_and_sample_counts_are_checked():
    with pytest.raises(ValueError, match="pointwise"):
        normalizers.fit("minmax", np.zeros((3, 2, 2, 1)))
    with pytest.raises(ValueError, match="2 samples"):
        normalizers.fit("scalar", np.zeros((1, 2, 2, 1)))


def small_state(seed=0, step=7):
    model = nnx.Linear(3, 4, rngs=nnx.Rngs(seed))
    optimizer = optimizers.create(
        {"name": "adam", "b1": (0.9, 0.9), "b2": 0.999, "weight_decay": 0.0},
        {"name": "constant", "per": "step", "peak": 1e-3},
        1,
        1,
    )
    _, created = state.create_state(model, optimizer, sharding.data_mesh(1, 1))
    return dataclasses.replace(created, step=jnp.asarray(step))


def test_checkpoints_give_back_the_same_arrays_and_keep_the_newest(tmp_path):
    store = checkpoints.Checkpoints(tmp_path / "latest", 2)
    assert store.restore(small_state()) is None
    for step in (1, 2, 3):
        store.save(small_state(seed=step, step=step), {"valid": step / 10})
    loaded, info = checkpoints.Checkpoints(tmp_path / "latest", 2).restore(
        small_state()
    )
    assert int(loaded.step) == 3
    assert info["valid"] == 0.3
    assert checkpoints.tree_hash(loaded) == checkpoints.tree_hash(small_state(3, 3))
    committed = json.loads((tmp_path / "latest" / "COMMITTED.json").read_text())
    assert committed["step"] == 3
    assert not (tmp_path / "latest" / "1").exists()


def test_a_damaged_checkpoint_is_set_aside_and_the_older_one_used(tmp_path, caplog):
    store = checkpoints.Checkpoints(tmp_path / "latest", 3)
    for step in (1, 2):
        store.save(small_state(seed=step, step=step), {})
    for file in (tmp_path / "latest" / "2" / "state").rglob("*"):
        if file.is_file() and file.stat().st_size > 50:
            content = bytearray(file.read_bytes())
            content[len(content) // 2] ^= 255
            file.write_bytes(bytes(content))
    store = checkpoints.Checkpoints(tmp_path / "latest", 3)
    with caplog.at_level(logging.WARNING):
        loaded, _ = store.restore(small_state())
    assert int(loaded.step) == 1
    assert "damaged" in caplog.text
    assert (tmp_path / "damaged_latest" / "2").exists()
    store.save(small_state(seed=5, step=2), {})  # the step can be taken again
    assert int(store.restore(small_state())[0].step) == 2


def test_without_a_whole_checkpoint_nothing_is_touched(tmp_path):
    store = checkpoints.Checkpoints(tmp_path / "latest", 3)
    store.save(small_state(step=4), {})
    step = jnp.zeros((), jnp.int32)
    other = state.TrainState({"other": jnp.zeros(3)}, {}, (), step)
    with pytest.raises(ValueError, match="step 4"):
        checkpoints.Checkpoints(tmp_path / "latest", 3).restore(other)
    assert int(store.restore(small_state())[0].step) == 4


def test_a_run_that_went_on_from_an_older_step_replaces_what_came_later(tmp_path):
    store = checkpoints.Checkpoints(tmp_path / "best", 1)
    store.save(small_state(seed=1, step=9), {})
    store.save(small_state(seed=2, step=6), {})
    reader = checkpoints.Checkpoints(tmp_path / "best", read_only=True)
    loaded, _ = reader.restore(small_state())
    assert int(loaded.step) == 6
    assert checkpoints.tree_hash(loaded) == checkpoints.tree_hash(small_state(2, 6))


def test_the_hash_sees_one_changed_value():
    first, second = small_state(), small_state()
    assert checkpoints.tree_hash(first) == checkpoints.tree_hash(second)
    kernel = second.params["kernel"]
    kernel[...] = kernel[...].at[0, 0].add(1e-6)
    assert checkpoints.tree_hash(first) != checkpoints.tree_hash(second)


def test_a_workdir_belongs_to_one_config(tmp_path):
    config = {"seed": 0, "model": {"channels": 4}, "log": {"every_steps": 5}}
    assert not workdir.prepare(tmp_path / "run", config)
    assert not workdir.prepare(tmp_path / "run", {**config, "seed": 1})
    workdir.record_config(tmp_path / "run", config)
    assert workdir.prepare(tmp_path / "run", config)
    other = {**config, "log": {"every_steps": 50}}
    assert workdir.prepare(tmp_path / "run", other)  # logging may change
    younger = {**config, "data": {"steps": ()}}  # than the run, and left alone
    assert workdir.prepare(tmp_path / "run", younger)
    with pytest.raises(ValueError, match=r"data\.steps: None -> \[3\]"):
        workdir.prepare(tmp_path / "run", {**config, "data": {"steps": (3,)}})
    with pytest.raises(ValueError, match=r"model\.channels: 4 -> 8"):
        workdir.prepare(tmp_path / "run", {**config, "model": {"channels": 8}})


def test_records_beyond_the_restored_step_and_torn_lines_are_dropped(tmp_path):
    log = workdir.MetricsLog(tmp_path, 0, tensorboard=False)
    for step in (1, 2, 3):
        log.write(step, loss=1 / step)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    workdir.MetricsLog(tmp_path, 2, tensorboard=False).write(3, loss=0.5)
    records = workdir.read_metrics(tmp_path)
    assert [r["step"] for r in records] == [1, 2, 3]
    assert records[-1]["loss"] == 0.5


def test_tensorboard_files_are_written(tmp_path):
    log = workdir.MetricsLog(tmp_path, 0, tensorboard=True)
    log.write(1, loss=0.5)
    log.close()
    (events,) = (tmp_path / "tensorboard").glob("events*")
    assert events.stat().st_size > 50


def test_pictures_are_drawn(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.random((2, 1, 9, 7, 1))
    predictions = {"MGNO": y + 0.1, "FNO": y - 0.2}
    errors = {name: [0.1] for name in predictions}
    picture = figures.plot_samples(x, y, predictions, errors, [5])
    picture.savefig(tmp_path / "s.png", dpi=20)
    history = [{"epoch": e, "loss": 1 / e, "learning_rate": 1e-3} for e in (1, 2)]
    figures.plot_curves({"MGNO": history}).savefig(tmp_path / "c.png", dpi=20)
    for name in ("s.png", "c.png"):
        assert (tmp_path / name).read_bytes()[:4] == b"\x89PNG"


def test_names_and_ticks_of_pictures_are_for_people():
    assert [figures.model_name(n) for n in ("UNet", "UNO", "FNO")] == [
        "U-Net",
        "U-NO",
        "FNO",
    ]
    history = [
        {"epoch": e, "loss": 1 / e, "valid_relative_l2": 0.32 / e, "learning_rate": 0.1}
        for e in range(1, 5)
    ]
    history[-1]["learning_rate"] = 1e-9
    picture = figures.plot_curves({"U-Net": history}, ["bochner_h1"])
    picture.canvas.draw()
    loss, panel, rate = picture.axes
    assert loss.get_title() == "training loss bochner_h1 (mean over the epoch)"
    assert rate.get_ylim()[0] == pytest.approx(1e-5)
    picture = figures.plot_curves({"A": history, "B": history}, ["a", "b"])
    assert picture.axes[0].get_title() == "training loss (mean over the epoch)"
    assert {"10 %", "20 %"} <= {t.get_text() for t in panel.get_yticklabels()}
    assert not panel.get_yticklabels(minor=True)


def test_mesh_and_batch_must_fit():
    with pytest.raises(ValueError, match="num_devices is 99"):
        sharding.data_mesh(99, 99)
    with pytest.raises(ValueError, match="num_devices is -1; expected at least 0"):
        sharding.data_mesh(-1, 4)


def test_durations_are_spelled_for_people():
    spelled = [timing.spell_duration(s) for s in (42, 480, 3.5 * 3600, 4.2 * 86400)]
    assert spelled == ["42 s", "8 min", "3.5 h", "4.2 days"]


class Normed(nnx.Module):
    """A linear map and a batch norm."""

    def __init__(self, *, rngs):
        self.linear = nnx.Linear(1, 2, rngs=rngs)
        self.norm = nnx.BatchNorm(2, momentum=0.9, rngs=rngs)

    def __call__(self, x):
        return self.norm(self.linear(x))


def test_batch_norms_learn_in_steps_and_rest_in_evaluation(tmp_path):
    mesh = sharding.data_mesh(1, 1)
    model = Normed(rngs=nnx.Rngs(0))
    adam = {"name": "adam", "b1": (0.9, 0.9), "b2": 0.999, "weight_decay": 0.0}
    constant = {"name": "constant", "per": "step", "peak": 1e-3}
    optimizer = optimizers.create(adam, constant, 1, 1)
    x = 3 + np.random.default_rng(0).random((6, 5, 1, 1), dtype=np.float32)
    y = np.concatenate([x, -x], -1)
    v = np.asarray(model.linear(x[:4]))
    graph, current = state.create_state(model, optimizer, mesh)
    arrays = state.Arrays(x, y, normalizers.fit("none", y))
    errors_fn = state.make_errors(graph, lambda p, t: ((p - t) ** 2).sum((1, 2, 3)))
    resting = ((v / np.sqrt(1 + 1e-5) - y[:4]) ** 2).sum((1, 2, 3))
    errors = errors_fn(current.params, current.variables, arrays)
    np.testing.assert_allclose(errors[:4], resting, rtol=1e-5)
    step_fn = state.make_train_step(
        graph, optimizer, lambda p, t: (p**4).sum((1, 2, 3)), mesh
    )
    current, metrics = step_fn(current, arrays, np.arange(4, dtype=np.int32))
    mean = v.mean((0, 1, 2))
    in_training = (v - mean) / np.sqrt(v.var((0, 1, 2)) + 1e-5)
    loss = (in_training**4).sum((1, 2, 3)).mean()
    assert float(metrics["loss"]) == pytest.approx(loss, rel=1e-4)
    statistics = current.variables["norm"]
    np.testing.assert_allclose(statistics["mean"][...], mean / 10, rtol=1e-5)
    store = checkpoints.Checkpoints(tmp_path / "latest")
    store.save(current, {})
    _, template = state.create_state(Normed(rngs=nnx.Rngs(1)), optimizer, mesh)
    loaded, _ = store.restore(template)
    assert checkpoints.tree_hash(loaded) == checkpoints.tree_hash(current)


def test_the_step_sums_the_losses_and_reports_their_mean():
    mesh = sharding.data_mesh(1, 1)
    model = nnx.Linear(1, 1, rngs=nnx.Rngs(0))
    optimizer = optimizers.create(
        {"name": "adam", "b1": (0.9, 0.9), "b2": 0.999, "weight_decay": 0.0},
        {"name": "constant", "per": "step", "peak": 1e-3},
        1,
        1,
    )
    graph, current = state.create_state(model, optimizer, mesh)
    x = np.random.default_rng(0).random((6, 3, 3, 1)).astype(np.float32)
    arrays = state.Arrays(x, x, normalizers.fit("none", x))

    def loss_fn(p, t):
        return ((p - t) ** 2).sum(axis=(1, 2, 3))

    def mean_loss(params):
        return loss_fn(nnx.merge(graph, params)(x[:4]), x[:4])

    losses = mean_loss(current.params)
    gradient = jax.grad(lambda p: mean_loss(p).sum())(current.params)
    norm = np.sqrt(sum((np.asarray(g) ** 2).sum() for g in jax.tree.leaves(gradient)))
    step_fn = state.make_train_step(graph, optimizer, loss_fn, mesh)
    advanced, metrics = step_fn(current, arrays, np.arange(4, dtype=np.int32))
    assert float(metrics["loss"]) == pytest.approx(float(losses.mean()), rel=1e-6)
    assert float(metrics["gradient_norm"]) == pytest.approx(norm, rel=1e-5)
    assert int(advanced.step) == 1


def test_only_an_error_about_counts_names_their_overrides(tmp_path):
    counts = {"num_train": 1000, "num_valid": 100, "num_test": 100}
    settings = {"config": "", "path": str(tmp_path / "mine.npz"), **counts}
    for y, told in ((np.ones((3, 4, 4)), True), (np.ones((3, 4, 5)), False)):
        np.savez(settings["path"], x=np.ones((3, 4, 4)), y=y)
        with pytest.raises(ValueError, match="mine") as error:
            data.open_data(settings)
        hint = "1000 + 100 + 100 samples (set --config.data.num_train, num_valid and"
        assert (hint in str(error.value)) == ("config." in str(error.value)) == told


def write_run(folder, *, channels=1):
    """A run of two of five epochs, without data."""
    config = loading.load("configs/fno_darcy.py:quick").to_dict()
    config["model"] |= {
        "in_channels": channels, "out_channels": 1, "channels": 2, "num_layers": 1,
        "modes": (2, 2),
    }  # fmt: skip
    config["num_epochs"] = 5
    workdir.write_json(folder / "config.json", config)
    model = models.create(rngs=nnx.Rngs(0), **config["model"])
    adam = {"name": "adam", "b1": (0.9, 0.9), "b2": 0.999, "weight_decay": 0.0}
    constant = {"name": "constant", "per": "step", "peak": 1e-3}
    optimizer = optimizers.create(adam, constant, 1, 1)
    _, created = state.create_state(model, optimizer, sharding.data_mesh(1, 1))
    store = checkpoints.Checkpoints(folder / "checkpoints" / "best", 1)
    store.save(created, {"data_manifest_sha256": ""})
    samples = np.random.default_rng(0).random((4, 9, 7, channels))
    fitted = {
        "input": normalizers.fit("pointwise", samples),
        "output": normalizers.fit("scalar", samples[..., :1]),
    }
    normalizers.save(folder / "normalizers.npz", fitted)
    log = workdir.MetricsLog(folder, 0, tensorboard=False)
    log.write(2, epoch=2, loss=1.0)


def test_a_loaded_run_says_in_one_line_what_it_is_and_how_far(tmp_path, capsys):
    write_run(tmp_path)
    unfinished = f"epoch 2 of 5: training of {tmp_path} has not finished"
    with pytest.warns(UserWarning, match=re.escape(unfinished)):
        operator = runs.load(tmp_path)
    assert repr(operator) == (
        f"fno, {operator.num_parameters:,} parameters, 9 x 7, 1 -> 1 channels, "
        f"step 0, {tmp_path}"
    )
    with pytest.raises(ValueError, match=r"\(2, 9, 7\): add .* x\[\.\.\., None\]$"):
        operator(np.ones((2, 9, 7)))
    with pytest.raises(ValueError, match=r"shape \(2, 9, 7, 2\)$"):
        operator(np.ones((2, 9, 7, 2)))
    for command in (evaluate, resolution):  # they fail: there are no data
        assert command.main(["--workdir", str(tmp_path)]) == 2
        assert capsys.readouterr().out == f"warning: {unfinished}\n"
    workdir.MetricsLog(tmp_path, 2, tensorboard=False).write(5, epoch=5)
    runs.load(tmp_path)
