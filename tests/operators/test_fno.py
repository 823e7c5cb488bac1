import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from flax import nnx

from operators import models

IO = {"in_channels": 1, "out_channels": 1}
# One size for many tests: drawing parameters of new shapes compiles for seconds.
SMALL = {"modes": (8, 8), "channels": 8, "num_layers": 2}


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def create(**hparams):
    return models.create("fno", rngs=nnx.Rngs(0), **IO | hparams)


def count(**hparams):
    model = nnx.eval_shape(lambda: create(**hparams))
    return sum(p.size for p in jax.tree.leaves(nnx.state(model, nnx.Param)))


def band_limited(n, top=6):
    """One field with |k| <= top, evaluated on n x n points."""
    x = 2 * np.pi * np.arange(n) / n
    k = np.arange(-top, top + 1)
    waves = np.exp(1j * np.outer(x, k))
    amplitudes = draw(len(k), len(k)) + 1j * draw(len(k), len(k), seed=1)
    field = np.real(waves @ amplitudes @ waves.T) / len(k)
    return jnp.asarray(field[None, :, :, None], jnp.float32)


@pytest.mark.parametrize(
    ("total", "hparams"),
    [
        (549_569, {"modes": (16,), "channels": 64, "in_channels": 1}),
        (2_368_001, {"modes": (12, 12), "channels": 32}),
        (926_357, {"modes": (12, 12), "channels": 20, "in_channels": 10}),
        (414_357, {"modes": (8, 8), "channels": 20, "in_channels": 10}),
        (6_558_377, {"modes": (8, 8, 8), "channels": 20, "in_channels": 10}),
    ],
)
def test_parameter_count_of_2021(total, hparams):
    w, m, d = hparams["channels"], hparams["modes"][0], len(hparams["modes"])
    c = hparams.get("in_channels", 1) + d
    layer = 2 * 2 ** (d - 1) * w**2 * m**d + w**2 + w
    assert total == c * w + w + 4 * layer + 128 * w + 128 + 128 + 1
    assert count(layout="li2021", **hparams) == total


@pytest.mark.parametrize(
    ("total", "hparams"),
    [
        (345_665, {"modes": (16,), "channels": 64}),
        (2_803_393, {"modes": (12, 12), "channels": 64}),
        (
            2_786_369,
            {"modes": (12, 12), "channels": 64, "channel_mlp_expansion": 0.0},
        ),
        (69_257_025, {"modes": (64, 64), "channels": 64, "in_channels": 2}),
        (2_569_057, {"modes": (24, 24), "channels": 32}),
        (1_029_381, {"modes": (8, 8, 8), "channels": 20}),
        (191_881, {"modes": (8, 8), "channels": 24}),
        (671_113, {"modes": (16, 16), "channels": 24}),
        (69_265_345, {"modes": (64, 64), "channels": 64, "projection_ratio": 4.0}),
    ],
)
def test_parameter_count_of_neuralop(total, hparams):
    assert count(**hparams) == total


def neuralop_by_hand(model, x):
    """The forward pass of section 1.2 of the peer with NumPy's FFT."""
    p = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model)))

    def gelu(v):
        return 0.5 * v * (1 + scipy.special.erf(v / np.sqrt(2)))

    def two(layers, v):
        v = gelu(v @ layers[0]["kernel"] + layers[0]["bias"])
        return v @ layers[1]["kernel"] + layers[1]["bias"]

    n1, n2 = x.shape[1:3]
    grid = np.meshgrid(np.arange(n1) / n1, np.arange(n2) / n2, indexing="ij")
    grid = np.broadcast_to(np.stack(grid, -1), (len(x), n1, n2, 2))
    v = two(p["lifting"], np.concatenate([x, grid], -1))
    for t in range(len(p["spectral"])):
        W = p["spectral"][t]["weights"]
        W = W["real"] + 1j * W["imag"]
        k1 = np.arange(W.shape[0]) - W.shape[0] // 2
        spectrum = np.fft.rfft2(v, axes=(1, 2), norm="forward")
        kept = np.zeros_like(spectrum)
        for i, k in enumerate(k1):
            for j in range(W.shape[1]):
                kept[:, k, j] = spectrum[:, k, j] @ W[i, j]
        z = np.fft.ifft(kept, axis=1, norm="forward")
        z = np.fft.irfft(z, n=n2, axis=2, norm="forward") + p["spectral"][t]["bias"]
        z = z + v @ p["skips"][t]["kernel"]
        last = t == len(p["spectral"]) - 1
        z = z if last else gelu(z)
        z = two(p["mlps"][t], z) + p["gates"][t] * v
        v = z if last else gelu(z)
    return two(p["projection"], v)


def li2021_by_hand(model, x, padding):
    p = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model)))
    n1, n2 = x.shape[1:3]
    grid = np.meshgrid(np.linspace(0, 1, n1), np.linspace(0, 1, n2), indexing="ij")
    grid = np.broadcast_to(np.stack(grid, -1), (len(x), n1, n2, 2))
    v = np.concatenate([x, grid], -1) @ p["lifting"][0]["kernel"]
    v = np.pad(v + p["lifting"][0]["bias"], ((0, 0), *padding, (0, 0)))
    shape = v.shape[1:3]
    for t in range(len(p["spectral"])):
        W = p["spectral"][t]["weights"]
        W = W["real"] + 1j * W["imag"]
        m1, m2 = W.shape[0] // 2, W.shape[1]
        spectrum = np.fft.rfft2(v, axes=(1, 2))
        kept = np.zeros_like(spectrum)  # the two corner blocks of the released code
        for block, weights in (
            (slice(0, m1), W[m1:]), (slice(shape[0] - m1, None), W[:m1])
        ):  # fmt: skip
            kept[:, block, :m2] = np.einsum(
                "bxyc,xycd->bxyd", spectrum[:, block, :m2], weights
            )
        z = np.fft.irfft2(kept, s=shape, axes=(1, 2))
        v = z + v @ p["skips"][t]["kernel"] + p["skips"][t]["bias"]
        if t < len(p["spectral"]) - 1:
            v = np.maximum(v, 0)
    v = v[:, :n1, :n2] @ p["projection"][0]["kernel"] + p["projection"][0]["bias"]
    return np.maximum(v, 0) @ p["projection"][1]["kernel"] + p["projection"][1]["bias"]


@pytest.mark.parametrize("transform", ["dft", "fft"])
def test_forward_passes_equal_the_formulas(transform):
    x = draw(2, 15, 18, 2)
    hparams = {
        "in_channels": 2, "out_channels": 3, "modes": (6, 5), "channels": 5,
        "num_layers": 2, "transform": transform, "param_dtype": "float64",
    }  # fmt: skip
    with jax.enable_x64(True):
        model = create(**hparams)
        out = jax.jit(lambda m, x: m(x))(model, x)
        np.testing.assert_allclose(out, neuralop_by_hand(model, x), atol=1e-13)
        model = create(
            **hparams, layout="li2021", activation="relu", domain_padding=1 / 3
        )
        out = jax.jit(lambda m, x: m(x))(model, x)
        assert out.dtype == jnp.float64
        expected = li2021_by_hand(model, x, ((0, 5), (0, 6)))
        np.testing.assert_allclose(out, expected, atol=1e-13)


def test_neuralop_pads_both_ends():
    model = create(**SMALL, domain_padding=0.25)
    x = jnp.asarray(draw(1, 16, 12, 1), jnp.float32)
    assert jax.eval_shape(model, x).shape == (1, 16, 12, 1)
    assert model._padding((16, 12)) == ((4, 4), (3, 3))
    with pytest.warns(UserWarning, match="no whole number of points on grid"):
        jax.eval_shape(model, x[:, :15])


def test_other_resolutions_and_shifts():
    """Without coordinates an FNO converges spectrally and commutes with shifts."""
    model = jax.jit(create(**SMALL, coordinates="none"))
    fine = model(band_limited(256))

    def error(n):
        exact = fine[:, :: 256 // n, :: 256 // n]
        return jnp.linalg.norm(model(band_limited(n)) - exact) / jnp.linalg.norm(exact)

    assert error(32) < 1e-3
    assert error(64) < 1e-5
    assert error(128) < 1e-6
    x = band_limited(45)
    shift = functools.partial(jnp.roll, shift=(7, -12), axis=(1, 2))
    difference = model(shift(x)) - shift(model(x))
    assert jnp.linalg.norm(difference) < 1e-6 * jnp.linalg.norm(x)


@pytest.mark.parametrize("n", [(45, 90), (135, 270)])
def test_odd_and_even_grids_agree(n):
    model = create(**SMALL, coordinates="none")
    outs = [np.asarray(jax.jit(model)(band_limited(m))) for m in n]
    common = np.gcd(*n)
    a, b = (
        out[:, :: m // common, :: m // common] for out, m in zip(outs, n, strict=True)
    )
    limit = 1e-4 if n[0] < 64 else 1e-6  # aliasing of GELU on the coarser grid
    assert np.linalg.norm(a - b) < limit * np.linalg.norm(b)


def test_periodic_coordinates_are_smooth_across_the_end():
    model = create(modes=(4, 4), channels=4, coordinates="periodic")
    x = model._append_coordinates(jnp.zeros((1, 8, 6, 1)))
    assert x.shape == (1, 8, 6, 5)
    np.testing.assert_allclose(
        x[0, :, 2, 1], np.sin(2 * np.pi * np.arange(8) / 8), atol=1e-6
    )
    np.testing.assert_allclose(
        x[0, 2, :, 4], np.cos(2 * np.pi * np.arange(6) / 6), atol=1e-6
    )


@pytest.mark.parametrize("layout", ["li2021", "neuralop"])
def test_gradient_reaches_every_parameter(layout):
    model = create(
        in_channels=2, out_channels=3, modes=(3, 3), channels=4, num_layers=2,
        layout=layout,
    )  # fmt: skip
    graph, state = nnx.split(model)
    x = jnp.asarray(draw(2, 11, 10, 2), jnp.float32)

    @jax.jit
    def gradient(state):
        return jax.grad(lambda s: jnp.sum((nnx.merge(graph, s)(x) - 1) ** 2))(state)

    for path, g in jax.tree.leaves_with_path(gradient(state)):
        assert np.isfinite(g).all(), path
        assert np.abs(g).max() > 0, path


@pytest.mark.parametrize(
    ("hparams", "message"),
    [
        ({"layout": "original"}, "layout is 'original'; known: li2021, neuralop"),
        ({"coordinates": "polar"}, "coordinates is 'polar'; known: grid"),
        ({"domain_padding": 9}, r"domain_padding must lie in \[0, 1\), got 9"),
    ],
)
def test_rejects_settings_that_do_not_exist(hparams, message):
    with pytest.raises(ValueError, match=message):
        create(modes=(4, 4), **hparams)


def test_rejects_an_input_of_the_wrong_shape():
    model = create(**SMALL)
    with pytest.raises(ValueError, match=r"\[batch, n1, n2, 1\], got \(1, 8, 8, 2\)"):
        model(jnp.ones((1, 8, 8, 2)))
