"""The spatiotemporal FNO, its layers and the released variant."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from operators import models
from operators.importers import sfno
from operators.layers import divergence, pointwise, space_time
from operators.layers.spectral_output import SpectralOutput
from tests.operators.references import filling

TINY = {
    "width": 6, "modes": (3, 4, 3), "num_layers": 2, "latent_steps": 5, "out_steps": 40,
}  # fmt: skip
RELEASED = TINY | {"num_layers": 3, "beta": 0.5, "compat": True}
REFERENCES = {
    "sfno": {"activation": "gelu", "out_steps": 12},
    "sfno_nyquist": {"out_steps": 5},
    "sfno_features": {
        "spatial_features": True, "lift_activation": False, "out_steps": 4,
    },
}  # fmt: skip


@functools.cache
def create(**changes):
    return models.create("sfno", rngs=nnx.Rngs(0), **TINY | changes)


def shapes(**changes):
    """A model without numbers, which takes no time to build."""
    return nnx.eval_shape(
        lambda: models.create("sfno", rngs=nnx.Rngs(0), **TINY | changes)
    )


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


FRAMES = (1, 9, 8, 6, 1)


@functools.cache
def called():
    return nnx.jit(lambda model, x, times: model(x, times), static_argnums=2)


def compiled(function, *arguments):
    """Results as NumPy arrays, whose comparisons compile nothing."""
    return jax.device_get(jax.jit(function)(*arguments))


def apply(model, x, times=None):
    times = times if times is None else tuple(times)
    return np.asarray(called()(model, jnp.asarray(x), times))


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] * (n != "sfno")) for n in REFERENCES],
)
def test_released_weights_give_the_released_output(name):
    _, state, x, y = filling.read(name)
    model = shapes(**RELEASED | REFERENCES[name])
    assert sfno.load(model, state) is model
    increments = y - x[:, :, :, -1:]
    assert np.linalg.norm(apply(model, x) - y) < 2e-6 * np.linalg.norm(increments)


def test_released_weights_of_another_model_are_refused():
    state = filling.read("sfno_nyquist")[1]
    with pytest.raises(ValueError, match="no 'lifting_operator"):
        sfno.load(shapes(**RELEASED, lift_activation=False), state)
    with pytest.raises(ValueError, match="must be of class SFNO"):
        sfno.load(nnx.Linear(1, 1, rngs=nnx.Rngs(0)), state)


def test_encoding_has_the_documented_values():
    encoding = space_time.SpaceTimeEncoding(
        6, beta=0.01, endpoint=True, rngs=nnx.Rngs(0)
    )
    value = sum(encoding.parts((4, 5, 3)))[1, 2, 0]
    expected = (1 / 3, 1 / 2, 0.01, 0.0314, 0.9981, 0.0941)
    np.testing.assert_allclose(value, expected, atol=5e-5)
    periodic = space_time.SpaceTimeEncoding(
        6, coordinates="periodic", rngs=nnx.Rngs(0)
    ).parts((4, 8, 3))
    np.testing.assert_allclose(
        sum(periodic)[1, 1, 1, :5], (1, 0, *[0.5**0.5] * 2, 0.02), atol=1e-15
    )


def output_by_definition(layer, v, last, times):
    """The series of Q written out mode by mode."""
    frames = np.concatenate([last[:, :, :, None], v], 3)
    (n1, n2), num = frames.shape[1:3], frames.shape[3]
    real, imag = (np.asarray(p[...]) for p in (layer.weights.real, layer.weights.imag))
    bias = np.asarray(layer.bias.real[...]) + 1j * np.asarray(layer.bias.imag[...])
    x1, x2 = (np.arange(n)[:, None] / n for n in (n1, n2))
    x2 = x2.T
    period = 2 * num * layer.window / layer.latent_steps
    start = period / 2  # of the frames of zeros before time 0
    out = 0.0
    for i, k1 in enumerate(layer.frequencies[0]):
        for j, k2 in enumerate(layer.frequencies[1]):
            for k in layer.frequencies[2]:
                wave = np.exp(2j * np.pi * (k1 * x1 + k2 * x2))[:, :, None]
                at = np.exp(2j * np.pi * k * np.arange(num, 2 * num) / (2 * num))
                c = np.einsum("bxytc,xyt->bc", frames, np.conj(wave * at))
                c = c / (n1 * n2 * 2 * num)
                d = (
                    c @ (real[i, j, k] + 1j * imag[i, j, k])
                    + layer.delta * bias[i, j, k]
                )
                series = np.exp(2j * np.pi * k * (np.append(0, times) + start) / period)
                later = times / layer.window if k == 0 else series[1:] - series[0]
                term = d[:, None, None, None] * (wave * later)[None, ..., None]
                out = out + (1 if k == 0 else 2) * term.real
    return out


def test_output_operator_is_its_series():
    with jax.enable_x64(True):
        layer = SpectralOutput(
            2, modes=(2, 3, 3), latent_steps=4, window=8, param_dtype="float64",
            rngs=nnx.Rngs(0),
        )  # fmt: skip
        layer.bias.real[...] = draw(3, 5, 3, 2).astype(float)
        layer.bias.imag[...] = draw(3, 5, 3, 2, seed=1).astype(float)
        v, last = draw(2, 5, 7, 4, 2).astype(float), draw(2, 5, 7, 2, seed=3)
        times = np.array([0.3, 2.0, 7.5])
        out = compiled(lambda v, last: layer(v, last, times), v, last)
        expected = output_by_definition(layer, v, last, times)
        np.testing.assert_allclose(out, expected, atol=1e-12)


def test_values_do_not_depend_on_the_other_times():
    layer = SpectralOutput(
        1, modes=(2, 2, 3), latent_steps=4, window=40, rngs=nnx.Rngs(0)
    )
    v, last = draw(1, 5, 4, 4, 1), draw(1, 5, 4, 1, seed=1)
    some, more = np.arange(1.0, 41), np.arange(1, 81) / 2
    coarse, fine = compiled(lambda v: [layer(v, last, t) for t in (some, more)], v)
    assert coarse.shape == (1, 5, 4, 40, 1)
    difference = np.abs(coarse - fine[:, :, :, 1::2]).max()
    assert difference < 1e-6 * np.abs(coarse).max()


@pytest.mark.slow
def test_explicit_times_are_those_of_the_released_series_where_it_does_not_stretch():
    # As many output as latent frames: no resampling, one grid of times.
    settings = {"modes": (2, 3, 3), "latent_steps": 5, "layout": "li2021"}
    settings |= {"window": 5, "rngs": nnx.Rngs(0)}
    released = SpectralOutput(1, resampled=True, backward=True, **settings)
    ours = SpectralOutput(1, **settings)
    for part in ("real", "imag"):  # the constant grows in ours
        own = getattr(released.weights, part)[...]
        getattr(ours.weights, part)[...] = own.at[:, :, 0].set(0)
        getattr(released.weights, part)[...] = own.at[:, :, 0].set(0)
    v, last, times = draw(1, 9, 8, 5, 1), draw(1, 9, 8, 1), np.arange(1.0, 6)
    out, expected = compiled(lambda v: [q(v, last, times) for q in (ours, released)], v)
    # Ours begin at the last given frame: the same changes from time to time.
    changes, expected = (u - u[:, :, :, :1] for u in (out, expected))
    np.testing.assert_allclose(changes, expected, atol=2e-6 * np.abs(expected).max())


def test_output_starts_at_the_last_given_frame():
    layer = SpectralOutput(
        1, modes=(2, 2, 3), latent_steps=4, window=40, rngs=nnx.Rngs(0)
    )
    layer.bias.real[...] = draw(3, 3, 3, 1)
    v, last = draw(1, 5, 4, 4, 1), draw(1, 5, 4, 1, seed=1)
    increments = compiled(lambda v: layer(v, last, np.array([1e-6, 1.0])), v)
    change = np.abs(increments).max(axis=(0, 1, 2, 4))
    assert change[0] < 1e-3 * change[1]


@pytest.mark.slow
def test_released_amplitudes_depend_on_the_numbers_of_frames_and_points():
    # Measured with the released code (specification, trap 5), over those of 10 frames.
    literature = (0.139, 0.084, 0.047, 0.025), (2.44, 2.43, 2.45, 2.43)
    settings = {"modes": (2, 2, 2), "latent_steps": 3, "window": 10, "resampled": True}
    v, last = draw(4, 9, 8, 3, 1), draw(4, 9, 8, 1)
    for backward, expected in zip((True, False), literature, strict=True):
        layer = SpectralOutput(
            1, backward=backward, layout="li2021", rngs=nnx.Rngs(0), **settings
        )
        outputs = compiled(
            lambda v, q=layer: [q(v, last, range(n)) for n in (10, 20, 40, 80)], v
        )
        sizes = np.array([np.sqrt(np.mean(u**2)) for u in outputs])
        expected = np.array(expected) / expected[0]
        np.testing.assert_allclose(sizes / sizes[0], expected, rtol=0.2)


@pytest.mark.slow
def test_head_is_affine_in_its_parameters_and_splits_the_model():
    model, x = create(), draw(*FRAMES)
    last = x[:, :, :, -1]
    v, whole = compiled(lambda x: (model.latent(x), model(x)), x)
    assert v.shape == (1, 9, 8, 5, 1)
    graph, at = nnx.split(model.output, nnx.Param)
    other = jax.tree.map(lambda p: jnp.asarray(draw(*p.shape, seed=7)), at)

    def output(parameters):
        times = np.arange(1.0, 41)
        return last[:, :, :, None] + nnx.merge(graph, parameters)(v, last, times)

    both = jax.tree.map(lambda p, q: 2 * p - q, at, other)
    first, second, combined = (compiled(output, p) for p in (at, other, both))
    np.testing.assert_allclose(first, whole, atol=1e-5)

    expected = 2 * first - second
    scale = np.abs(expected).max()
    np.testing.assert_allclose(combined, expected, atol=3e-6 * scale)


@pytest.mark.slow
def test_more_modes_leave_the_output_and_are_not_taken_away():
    with jax.enable_x64(True):
        layer = SpectralOutput(
            1, modes=(2, 3, 2), latent_steps=4, window=8, rngs=nnx.Rngs(0)
        )
        layer.bias.imag[...] = draw(3, 5, 2, 1)
        assert layer.weights.real.dtype == np.float32
        wider = layer.with_modes((4, 3, 4), param_dtype="float64")
        assert wider.weights.real.shape == (7, 5, 4, 1, 1)
        v, last = draw(2, 9, 8, 4, 1).astype(float), draw(2, 9, 8, 1)
        times = np.array([1.0, 2.5])
        before, after = compiled(
            lambda v: [q(v, last, times) for q in (layer, wider)], v
        )
        np.testing.assert_allclose(after, before, atol=1e-13)
    with pytest.raises(ValueError, match="at least"):
        wider.with_modes((4, 2, 4))


@pytest.mark.slow
def test_without_coordinates_translations_of_the_input_translate_the_output():
    model, x = create(coordinates="none"), draw(*FRAMES)
    moved = apply(model, np.roll(x, (2, 3), (1, 2)))
    expected = np.roll(apply(model, x), (2, 3), (1, 2))
    np.testing.assert_allclose(moved, expected, atol=2e-6 * np.abs(expected).max())


@pytest.mark.slow
def test_finer_grids_give_the_same_field_up_to_the_aliasing_of_activations():
    # Smooth activation and field: the difference falls fast with the grid.
    model, differences = create(activation="gelu", coordinates="periodic"), []

    def field(n):
        x1, x2 = np.meshgrid(*2 * [2 * np.pi * np.arange(n) / n], indexing="ij")
        frames = [np.cos(x1 + 0.1 * t) * np.sin(2 * x2) + np.sin(x1) for t in range(5)]
        return np.stack(frames, -1)[None, ..., None].astype(np.float32)

    reference = apply(model, field(64))
    for n in (8, 16, 32):
        step = 64 // n
        difference = apply(model, field(n)) - reference[:, ::step, ::step]
        differences.append(np.abs(difference).max() / np.abs(reference).max())
    assert differences[0] > 5 * differences[1]
    assert max(differences[1:]) < 2e-6  # 16 points and more: rounding


def test_pieces_change_nothing_but_the_order_of_work(monkeypatch):
    block = create().blocks[0]
    graph, parameters = nnx.split(block, nnx.Param)
    z, v = draw(2, 6, 8, 5, 6), draw(2, 6, 8, 5, 6, seed=1)

    def values(limit):
        monkeypatch.setattr(pointwise, "_CACHED_NUMBERS", limit)

        def total(parameters, z, v):
            own = nnx.merge(graph, parameters)
            out = pointwise.in_pieces(own._pointwise, own.hidden, z, v)
            return jnp.sum(out**2), out

        run = jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True)
        return jax.tree.leaves(compiled(run, parameters, z, v))

    points = 2 * 6 * 8 * 5
    assert pointwise.num_pieces(points, block.hidden) == 1
    whole, pieces = values(2**18), values(2**9)
    assert pointwise.num_pieces(points, block.hidden) == 24
    for a, b in zip(whole, pieces, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(a).max())


def test_points_without_equal_pieces_stay_together():
    assert pointwise.num_pieces(2**16 + 1, 80) == 1  # a prime number
    assert pointwise.num_pieces(4 * 64 * 64 * 10, 80) == 64


def test_projection_removes_gradients_and_nothing_else():
    k = np.arange(-3, 4), np.arange(-2, 3)
    mesh = np.stack(np.meshgrid(k[0] / 2.0, k[1] / 3.0, indexing="ij"), -1)[:, :, None]
    phi = draw(1, 7, 5, 2, 1) + 1j * draw(1, 7, 5, 2, 1, seed=1)
    rotated = np.stack([mesh[..., 1], -mesh[..., 0]], -1)
    project = functools.partial(
        divergence.leray_projection, frequencies=k, lengths=(2.0, 3.0)
    )
    kept = (phi * rotated).astype(np.complex64)
    gradient = (phi * mesh).astype(np.complex64)
    np.testing.assert_allclose(compiled(project, gradient), 0, atol=1e-6)
    np.testing.assert_allclose(compiled(project, kept), kept, atol=1e-6)
    mean = compiled(project, np.ones((1, 7, 5, 2, 2), np.float32))[:, 3, 2]
    np.testing.assert_array_equal(mean, np.ones((1, 2, 2)))
    with pytest.raises(ValueError, match="two components"):
        project(jnp.ones((1, 7, 5, 2, 1)))


@pytest.mark.slow
def test_velocity_has_no_divergence():
    settings = {"in_channels": 2, "out_channels": 2, "divergence_free": True}
    frames = jax.ShapeDtypeStruct((1, 9, 10, 5, 2), np.float32)
    out = nnx.eval_shape(lambda model, x: model(x), shapes(**settings), frames)
    assert out.shape == (1, 9, 10, 40, 2)
    layer = SpectralOutput(
        2, modes=(3, 4, 2), latent_steps=5, window=40, rngs=nnx.Rngs(0),
        divergence_free=True, lengths=(1.0, 2.0),
    )  # fmt: skip
    v, last = draw(1, 9, 10, 5, 2), draw(1, 9, 10, 2)
    increments = compiled(lambda v: layer(v, last, np.array([1.0, 30.0])), v)
    k1, k2 = np.meshgrid(np.fft.fftfreq(9) * 9, np.fft.fftfreq(10) * 10 / 2,
                         indexing="ij")  # fmt: skip
    u, v = np.moveaxis(np.fft.fft2(increments, axes=(1, 2)), -1, 0)
    sides = k1[..., None] * u, k2[..., None] * v
    assert np.abs(sides[0]).max() > 1e-3
    assert np.abs(sides[0] + sides[1]).max() < 1e-5 * np.abs(sides[0]).max()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"modes": (2, 2)}, "three positive numbers"),
        ({"modes": (2, 2, 4)}, "resolve at most 3"),
        ({"out_channels": 2}, "at most in_channels"),
        ({"width": 3}, "width must be at least 4"),
        ({"fft_norm": "ortho"}, "known: auto, forward, backward"),
        ({"fft_norm": "backward"}, "compat=True"),
        ({"divergence_free": True}, "2 channels"),
        ({"lengths": (1.0, -1.0)}, "two sides of the domain, positive"),
        ({"lengths": (1.0,)}, "two sides of the domain, positive"),
        ({"coordinates": "polar"}, "known: grid, periodic, none"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, expected):
    with pytest.raises(ValueError, match=expected):
        shapes(**changes)


def test_input_and_times_that_do_not_fit_are_refused():
    model, x = create(), draw(*FRAMES)
    for times, expected in (
        ((0.0, 1.0), "positive and at most 40"),
        ((1.0, 40.5), "apply the model to its own output"),
        (((1.0,),), "shape"),
    ):
        with pytest.raises(ValueError, match=expected):
            model(x, times)
    for times, expected in (((0.0, 1.0), "at most 40"), (((1.0,),), "shape")):
        with pytest.raises(ValueError, match=expected):  # JAX arrays all the same
            model.times(jnp.asarray(times))
    with pytest.raises(ValueError, match="not both"):
        model(x, (1.0,), out_steps=1)
    for bad in (0, -1, 2.5, True):
        with pytest.raises(ValueError, match="out_steps must be a positive whole"):
            model.times(out_steps=bad)
    np.testing.assert_array_equal(model.times(out_steps=np.int64(2)), [1.0, 2.0])
    with pytest.raises(ValueError, match="time, 1"):
        model(x[..., 0])
    with pytest.raises(TypeError, match="floating-point"):
        model(x.astype(int))
    with pytest.raises(ValueError, match="last_frame"):
        model.head(x[:, :, :, :3], x[:, :, :, -1])


def test_released_models_make_whole_frames_from_the_first_on():
    model = shapes(**RELEASED)
    np.testing.assert_array_equal(model.times((1, 2, 3)), [1.0, 2.0, 3.0])
    assert len(model.times(out_steps=80)) == 80
    for times in ((0.5, 1.0), (2.0, 3.0), jnp.array([1.0, 3.0])):
        with pytest.raises(ValueError, match="compat=True"):
            model.times(times)
