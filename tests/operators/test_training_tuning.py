"""Micro-batches compute the same step; what measuring chooses, keeps and refuses."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from operators.layers.convolution import Convolution
from operators.layers.pointwise import Pointwise
from operators.layers.spectral import SpectralConvolution
from operators.training import normalizers, optimizers, sharding, state, tuning

ADAM = {"name": "adam", "b1": (0.9, 0.9), "b2": 0.999, "weight_decay": 1e-4}
CONSTANT = {"name": "constant", "per": "step", "peak": 1e-3}


class Stencil(nnx.Module):
    """A linear map with neighbours, differentiated by XLA's rules."""

    def __init__(self, *, rngs):
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), (3, 3, 1, 2)))

    def __call__(self, x):
        layout = ("NHWC", "HWIO", "NHWC")
        inner = jax.jit(jax.lax.conv_general_dilated, static_argnums=(2, 3, 4, 5, 6))
        return inner(x, self.kernel[...], (1, 1), "SAME", None, None, layout)


class Normed(nnx.Module):
    """A batch norm."""

    def __init__(self, *, rngs):
        self.norm = nnx.BatchNorm(1, rngs=rngs)

    def __call__(self, x):
        return self.norm(x)


def started(model):
    optimizer = optimizers.create(ADAM, CONSTANT, 1, 1)
    mesh = sharding.data_mesh(1, 1)
    return optimizer, mesh, *state.create_state(model, optimizer, mesh)


def squares(prediction, target):
    return ((prediction - target) ** 2).sum((1, 2, 3))


@pytest.fixture(scope="module")
def steps():
    """Two steps over the same batches, in one piece and in micro-batches."""
    rng = np.random.default_rng(0)
    x = rng.random((8, 5, 7, 1)).astype(np.float32)
    y = rng.random((8, 5, 7, 2)).astype(np.float32)
    arrays = state.Arrays(x, y, normalizers.fit("none", y))
    results = {}
    for micro_batch in (0, 2):
        model = Stencil(rngs=nnx.Rngs(0))
        optimizer, mesh, graph, current = started(model)
        step_fn = state.make_train_step(
            graph, optimizer, squares, mesh, micro_batch=micro_batch
        )
        for indices in ([5, 2, 7, 0, 1, 4], [1, 3, 6, 7, 0, 5]):
            current, metrics = step_fn(current, arrays, np.array(indices, np.int32))
        results[micro_batch] = current, jax.device_get(metrics)
    return results


def test_micro_batches_compute_the_same_step(steps):
    (whole, expected), (current, metrics) = steps[0], steps[2]
    assert int(current.step) == int(whole.step) == 2
    for key, value in expected.items():
        assert float(metrics[key]) == pytest.approx(float(value), rel=2e-6)
    for a, b in zip(*map(jax.tree.leaves, (current, whole)), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-7)


def test_models_with_kernel_gradients_of_xla_are_not_looped_over():
    x = jax.ShapeDtypeStruct((1, 48, 49, 1), np.float32)
    own = Convolution(1, 2, 3, rngs=nnx.Rngs(0))
    for model, expected in (
        (Stencil(rngs=nnx.Rngs(0)), False),
        (Pointwise(1, 2, rngs=nnx.Rngs(0)), True),
        (own, True),
    ):
        _, _, graph, current = started(model)
        assert tuning.loops_well(graph, current, x) == expected


def tried(model, samples, first=tuning.Choice()):  # noqa: B008
    _, _, graph, current = started(model)
    x = jax.ShapeDtypeStruct((1, 48, 49, 1), np.float32)
    choices = tuning.alternatives(graph, current, first, x, samples)
    return {c.micro_batch for c in choices} - {0}, {c.transform for c in choices}


def test_only_what_leaves_the_result_alone_is_tried():
    def layer(transform):
        rngs = nnx.Rngs(0)
        return SpectralConvolution(1, 2, modes=(2, 2), transform=transform, rngs=rngs)

    sizes, transforms = tried(layer("auto"), 20)
    assert sizes == {1, 2, 4}
    assert len(transforms - {"auto"}) == 1  # the one that "auto" does not take
    assert tried(layer("fft"), 6) == ({1, 2}, {"auto"})
    assert tried(layer("fft"), 1) == (set(), set())
    assert tried(layer("fft"), 20, tuning.Choice(5)) == (set(), set())
    assert tried(Normed(rngs=nnx.Rngs(0)), 20) == (set(), set())
    for transform in ("auto", "fft"):
        _, _, graph, current = started(layer(transform))
        graph = tuning.apply(graph, current, "dft")
        chosen = nnx.merge(graph, current.params, current.variables)
        assert chosen.transform == {"auto": "dft", "fft": "fft"}[transform]


def test_a_micro_batch_must_fit_batch_and_model():
    _, _, _, plain = started(Pointwise(1, 2, rngs=nnx.Rngs(0)))
    tuning.check(4, 20, plain)
    with pytest.raises(ValueError, match=r"micro_batch is 3, .* 20 samples"):
        tuning.check(3, 20, plain)
    _, _, _, normed = started(Normed(rngs=nnx.Rngs(0)))
    tuning.check(0, 20, normed)
    with pytest.raises(ValueError, match="batch statistics"):
        tuning.check(2, 20, normed)


def pretend(monkeypatch, seconds, *, to_compile=1.0):
    """A builder of steps that take these seconds by a clock of their own."""
    now = [0.0]
    monkeypatch.setattr(tuning.time, "perf_counter", lambda: now[0])
    built = []

    def build(choice):
        built.append(choice)
        fresh = [to_compile]

        def step(current, *_):
            now[0] += seconds(choice) + (fresh.pop() if fresh else 0)
            return current, {}

        return step

    return build, built


def by_micro_batch(table):
    return lambda choice: (
        table[choice.micro_batch] * (0.5 if choice.transform == "fft" else 1)
    )


def measure(build, *, transforms=(), num_steps=1000):
    choices = [tuning.Choice(m) for m in (1, 2, 4)]
    choices += [tuning.Choice(transform=t) for t in transforms]
    first, current = tuning.Choice(), jnp.zeros(())
    return tuning.measure(build, first, lambda: choices, current, (), num_steps)


def test_the_fastest_choice_is_taken_and_growth_ends_where_it_slows(monkeypatch):
    times = by_micro_batch({0: 2.0, 1: 1.5, 2: 1.0, 4: 1.2})
    build, built = pretend(monkeypatch, times)
    tuned, seconds = measure(build, transforms=("dft", "fft"))
    assert tuned.choice == tuning.Choice(2, "fft")
    assert seconds == pytest.approx(0.5)
    assert [c.micro_batch for c in built] == [0, 1, 2, 4, 2, 2]
    assert "4.0 x as fast as whole batches" in tuned.describe()
    assert "micro-batches of 2 samples, transform fft" in tuned.describe()
    build, built = pretend(monkeypatch, by_micro_batch({0: 2.0, 1: 1.0, 2: 1.5}))
    assert measure(build)[0].choice == tuning.Choice(1)
    assert len(built) == 3
    build, _ = pretend(monkeypatch, by_micro_batch({0: 2.0, 1: 1.96, 2: 2, 4: 2}))
    assert measure(build)[0].choice == tuning.Choice()  # a difference of noise


def test_a_choice_must_win_again_in_the_end(monkeypatch):
    calls = []

    def seconds(choice):  # the machine gets busy after the first comparison
        calls.append(choice.micro_batch)
        busy = calls.count(1) > 1 + tuning.NUM_STEPS
        return {0: 2.0, 1: 3.0 if busy else 1.0, 2: 4.0, 4: 4.0}[choice.micro_batch]

    build, _ = pretend(monkeypatch, seconds)
    tuned, _ = measure(build)
    assert tuned.choice == tuning.Choice()
    assert "as fast" not in tuned.describe()
    assert tuned.rows[-1]["micro_batch"] == 1


def test_short_runs_and_slow_compilation_are_not_measured(monkeypatch):
    times = by_micro_batch({0: 1.0, 1: 0.1, 2: 0.1, 4: 0.1})
    for settings, num_steps in (({}, 50), ({"to_compile": 100.0}, 1000)):
        build, built = pretend(monkeypatch, times, **settings)
        tuned, seconds = measure(build, num_steps=num_steps)
        assert (tuned.choice, tuned.rows) == (tuning.Choice(), ())
        assert seconds == pytest.approx(1.0)
        assert len(built) == 1


def test_the_choice_is_kept_per_kind_of_device(tmp_path, monkeypatch):
    assert tuning.load(tmp_path) is None
    row = {"micro_batch": 2, "transform": "fft", "seconds": 0.25}
    tuned = tuning.Tuning(tuning.Choice(2, "fft"), (row,))
    tuning.save(tmp_path, tuned, 4)
    assert tuning.load(tmp_path) == tuning.load(tmp_path, 4) == tuned
    assert tuning.load(tmp_path, 8) is None
    monkeypatch.setattr(tuning, "_device", lambda: "another")
    assert tuning.load(tmp_path) is None
    tuning.save(tmp_path, tuning.Tuning(tuning.Choice()), 1)
    assert len(json.loads((tmp_path / tuning.FILE).read_text())) == 2


GOOD = {"num_devices": 1, "micro_batch": 2, "transform": "fft", "measured": []}


@pytest.mark.parametrize(
    "entry",
    [
        "{",
        "[]",
        "3",
        {},
        {**GOOD, "transform": "ftt"},
        {**GOOD, "transform": ["fft"]},
        {**GOOD, "micro_batch": "2"},
        {**GOOD, "micro_batch": -1},
        {**GOOD, "num_devices": None},
        {**GOOD, "measured": 3},
        {**GOOD, "measured": [{"seconds": 1.0}]},
        {**GOOD, "measured": [{**GOOD, "micro_batch": 1, "seconds": 1.0}]},
    ],
)
def test_a_damaged_file_is_named_and_as_good_as_none(tmp_path, caplog, entry):
    path = tmp_path / tuning.FILE
    text = entry if isinstance(entry, str) else json.dumps({tuning._device(): entry})
    path.write_text(text)
    assert tuning.load(tmp_path) is None
    assert f"{path} is damaged" in caplog.text
    tuning.save(tmp_path, tuning.Tuning(tuning.Choice(4)), 1)
    assert tuning.load(tmp_path, 1) == tuning.Tuning(tuning.Choice(4))


def test_a_resumed_run_takes_what_its_config_asks_for_and_what_fits(tmp_path, caplog):
    _, _, _, current = started(Pointwise(1, 2, rngs=nnx.Rngs(0)))
    stored = tuning.Tuning(tuning.Choice(4, "fft"))
    tuning.save(tmp_path, stored, 1)
    for asked in (0, 4):
        assert tuning.resume(tmp_path, 1, asked, 8, current) == stored
    changed = tuning.Tuning(tuning.Choice(2, "fft"))
    assert tuning.resume(tmp_path, 1, 2, 8, current) == changed
    assert tuning.resume(tmp_path, 2, 2, 8, current) is None
    assert not caplog.text
    assert tuning.resume(tmp_path, 1, 0, 6, current) is None
    assert "tuning.json is damaged" in caplog.text
