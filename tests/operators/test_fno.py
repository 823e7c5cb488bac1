import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from flax import nnx

from operators import models
from operators.layers.padding import DomainPadding, per_axis
from operators.models import presets
from operators.models.fno import NORMS

IO = {"in_channels": 1, "out_channels": 1}
# One size for many tests: drawing parameters of new shapes compiles for seconds.
SMALL = {"modes": (4, 4), "channels": 8, "num_layers": 2}
LI2021 = {"architecture": "li2021", "layout": "li2021"}


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def create(**hparams):
    """A model with every parameter random, drawn by NumPy: nothing to compile."""
    model = nnx.eval_shape(
        lambda: models.create("fno", rngs=nnx.Rngs(0), **IO | hparams)
    )
    random = np.random.default_rng(3)

    def draw(p):
        fan_in = p.shape[-2] if p.ndim > 1 else 8
        return jnp.asarray(random.normal(size=p.shape) / (2 * fan_in**0.5), p.dtype)

    nnx.update(model, jax.tree.map(draw, nnx.state(model, nnx.Param)))
    for path, p in nnx.to_flat_state(nnx.state(model, nnx.BatchStat)):
        start = jnp.ones if path[-1] == "var" else jnp.zeros
        p.set_value(start(p.shape, p.dtype))
        nnx.update(model, nnx.from_flat_state([(path, p)]))
    return model


def band_limited(n, top=6):
    """One field with |k| <= top, evaluated on n x n points."""
    x = 2 * np.pi * np.arange(n) / n
    k = np.arange(-top, top + 1)
    waves = np.exp(1j * np.outer(x, k))
    amplitudes = draw(len(k), len(k)) + 1j * draw(len(k), len(k), seed=1)
    field = np.real(waves @ amplitudes @ waves.T) / len(k)
    return jnp.asarray(field[None, :, :, None], jnp.float32)


def formula(architecture, hparams):
    """Parameters by the closed formulas; dense spectral weights."""
    modes, w = hparams["modes"], hparams["channels"]
    d, c = len(modes), hparams["in_channels"] + len(modes)
    norm = hparams.get("norm", "none")
    if architecture.startswith("li"):
        layer = 2 * 2 ** (d - 1) * w**2 * np.prod(modes) + w**2 + w
        layer += 2 * w if norm == "batch" else 0
        layer += 2 * (w**2 + w) if architecture == "li2022" else 0
        return c * w + w + 4 * layer + 128 * w + 128 + 128 + 1
    lifted = int(hparams.get("lifting_ratio", 2) * w)
    head = int(hparams.get("projection_ratio", 2) * w)
    e = round(hparams.get("channel_mlp_expansion", 0.5) * w)
    stored = np.prod(modes[:-1], dtype=int) * (modes[-1] // 2 + 1)
    layer = 2 * w ** (1 if hparams.get("separable") else 2) * stored + w + w**2
    layer += 2 * w * e + e + 2 * w if e else 0
    layer += 4 * w if norm == "group" else 0
    lifting = c * lifted + lifted + lifted * w + w
    return lifting + 4 * layer + w * head + head + head + 1


def test_presets_have_the_counts_of_the_formulas():
    dense = [p for n, p in presets.PRESETS.items()
             if n.startswith("fno") and "factorization" not in p.hparams]  # fmt: skip
    assert len(dense) >= 22
    for preset in dense:
        architecture = preset.hparams.get("architecture", "neuralop")
        assert formula(architecture, preset.hparams) == preset.parameters


def neuralop_by_hand(model, x):
    """The forward pass of section 1.2 of the peer with NumPy's FFT."""
    p = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model)))

    def gelu(v):
        return 0.5 * v * (1 + scipy.special.erf(v / np.sqrt(2)))

    def two(layers, v):
        inner, outer = layers["inner"], layers["outer"]
        v = gelu(v @ inner["kernel"] + inner["bias"])
        return v @ outer["kernel"] + outer["bias"]

    def norm(scale, z):  # over the domain and all channels
        mean, var = (f(z, axis=(1, 2, 3), keepdims=True) for f in (np.mean, np.var))
        return (z - mean) / np.sqrt(var + 1e-5) * scale["scale"] + scale["bias"]

    n1, n2 = x.shape[1:3]
    grid = np.meshgrid(np.arange(n1) / n1, np.arange(n2) / n2, indexing="ij")
    grid = np.broadcast_to(np.stack(grid, -1), (len(x), n1, n2, 2))
    v = two(p["lifting"], np.concatenate([x, grid], -1))
    for t in range(len(p["blocks"])):
        block = p["blocks"][t]
        W = block["spectral"]["weights"]
        W = W["real"] + 1j * W["imag"]
        k1 = np.arange(W.shape[0]) - W.shape[0] // 2
        spectrum = np.fft.rfft2(v, axes=(1, 2), norm="forward")
        kept = np.zeros_like(spectrum)
        for i, k in enumerate(k1):
            for j in range(W.shape[1]):
                kept[:, k, j] = spectrum[:, k, j] @ W[i, j]
        z = np.fft.ifft(kept, axis=1, norm="forward")
        z = np.fft.irfft(z, n=n2, axis=2, norm="forward") + block["spectral"]["bias"]
        z = norm(block["norms"][0], z) + v @ block["skip"]["kernel"]
        last = t == len(p["blocks"]) - 1
        z = z if last else gelu(z)
        z = norm(
            block["norms"][1], two(block["mlp"], z) + block["mlp_skip"]["weight"] * v
        )
        v = z if last else gelu(z)
    return two(p["projection"], v)


def li2021_by_hand(model, x, padding):
    p = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model)))
    n1, n2 = x.shape[1:3]
    grid = np.meshgrid(np.linspace(0, 1, n1), np.linspace(0, 1, n2), indexing="ij")
    grid = np.broadcast_to(np.stack(grid, -1), (len(x), n1, n2, 2))
    v = np.concatenate([x, grid], -1) @ p["lifting"]["kernel"]
    v = np.pad(v + p["lifting"]["bias"], ((0, 0), *padding, (0, 0)))
    shape = v.shape[1:3]
    for t in range(len(p["blocks"])):
        block = p["blocks"][t]
        W = block["spectral"]["weights"]
        W = W["real"] + 1j * W["imag"]
        m1, m2 = W.shape[0] // 2, W.shape[1]
        spectrum = np.fft.rfft2(v, axes=(1, 2))
        kept = np.zeros_like(spectrum)  # the two corner blocks of the released code
        for corner, weights in (
            (slice(0, m1), W[m1:]), (slice(shape[0] - m1, None), W[:m1])
        ):  # fmt: skip
            kept[:, corner, :m2] = np.einsum(
                "bxyc,xycd->bxyd", spectrum[:, corner, :m2], weights
            )
        z = np.fft.irfft2(kept, s=shape, axes=(1, 2))
        if "mlp" in block:
            inner, outer = block["mlp"]["inner"], block["mlp"]["outer"]
            z = np.maximum(z @ inner["kernel"] + inner["bias"], 0)
            z = z @ outer["kernel"] + outer["bias"]
        v = z + v @ block["skip"]["kernel"] + block["skip"]["bias"]
        if t < len(p["blocks"]) - 1:
            v = np.maximum(v, 0)
    inner, outer = p["projection"]["inner"], p["projection"]["outer"]
    v = v[:, :n1, :n2] @ inner["kernel"] + inner["bias"]
    return np.maximum(v, 0) @ outer["kernel"] + outer["bias"]


@pytest.mark.parametrize(
    "transform", [pytest.param("dft", marks=pytest.mark.slow), "fft"]
)
def test_forward_passes_equal_the_formulas(transform):
    x = draw(2, 15, 22, 2)
    hparams = {
        "in_channels": 2, "out_channels": 3, "modes": (6, 5), "channels": 5,
        "num_layers": 2, "transform": transform, "param_dtype": "float64",
    }  # fmt: skip
    with jax.enable_x64(True):
        model = create(**hparams, layout="neuralop", norm="group")
        out = jax.jit(lambda m, x: m(x))(model, x)
        np.testing.assert_allclose(out, neuralop_by_hand(model, x), atol=1e-12)
        own = {"layout": "li2021", "activation": "relu", "endpoint": True}
        for architecture in ("li2021", "li2022"):
            model = create(
                **hparams, **own, architecture=architecture, domain_padding=1 / 7
            )
            out = jax.jit(lambda m, x: m(x))(model, x)
            assert out.dtype == jnp.float64
            expected = li2021_by_hand(model, x, ((0, 1), (0, 2)))
            np.testing.assert_allclose(out, expected, atol=1e-12)


def test_padding_keeps_the_period_on_every_grid():
    vertices = DomainPadding((1 / 7,), endpoint=True, both_ends=False)
    for n, total in ((85, 96), (141, 160), (211, 240), (421, 480)):
        assert n + sum(vertices.widths((n,))[0]) == total
        assert total * 7 == (n - 1) * 8
        np.testing.assert_allclose(vertices.periods(1.0, 0, (n,)), 7 / 8)
    both = DomainPadding((1 / 4, 0.0), endpoint=False, both_ends=True)
    assert both.widths((16, 12)) == ((4, 4), (0, 0))
    both = DomainPadding((1 / 4,), endpoint=True, both_ends=True)
    assert both.widths((17,)) == ((4, 3),)  # 24 points of spacing 1 / 16: period 3 / 2
    u = jnp.asarray(draw(1, 17, 2), jnp.float32)
    np.testing.assert_array_equal(both.crop(both.pad(u), (17,)), u)
    with pytest.warns(UserWarning, match="whole number of points on 85 points .* 8/84"):
        DomainPadding((0.1,), endpoint=True, both_ends=False).widths((85,))
    for fractions in ("0.1", ("0", "0"), (0.1, 1), -0.1):
        with pytest.raises(ValueError, match=r"domain_padding must lie in \[0, 1\)"):
            per_axis(fractions, 2)


@pytest.mark.parametrize(
    "hparams",
    [
        {"architecture": "li2021", "endpoint": True, "domain_padding": (1 / 7, 2 / 7)},
        {"domain_padding": (0.0, 0.2), "layout": "neuralop"},
    ],
)
def test_output_function_is_the_same_on_any_grid_and_at_points(hparams):
    model = create(modes=(3, 4), channels=4, num_layers=2, **hparams)
    endpoint = hparams.get("endpoint", False)
    grid, fine = ((15, 8), (29, 22)) if endpoint else ((15, 10), (30, 30))
    x = jnp.asarray(draw(2, *grid, 1), jnp.float32)
    coarse, refined = jax.jit(lambda x: (model(x), model(x, fine)))(x)
    scale = np.abs(coarse).max()
    np.testing.assert_allclose(refined[:, ::2, ::3], coarse, atol=1e-5 * scale)
    points = [np.linspace(0, 1, m, endpoint=endpoint) for m in fine]
    points = np.stack(np.meshgrid(*points, indexing="ij"), -1)[3:6].reshape(-1, 2)
    at = jax.jit(model.at)
    expected = np.asarray(refined)[:, 3:6].reshape(2, -1, 1)
    np.testing.assert_allclose(at(x, points), expected, atol=2e-5 * scale)


@pytest.mark.parametrize("norm", [n for n in NORMS if n != "conditional"])
def test_norms_over_padded_domains_are_the_same_on_finer_grids(norm):
    model = create(modes=(4,), channels=4, num_layers=1, domain_padding=0.25, norm=norm)
    model.eval()
    x = jnp.asarray(np.sin(2 * np.pi * np.arange(64) / 64) + 0.5, jnp.float32)
    run = jax.jit(lambda x: (model(x), model(x, (128,))))
    coarse, fine = run(x[None, :, None])
    np.testing.assert_allclose(fine[:, ::2], coarse, atol=1e-5)


def test_small_layers_keep_their_mlp_and_every_grid_a_point():
    model = create(modes=(1,), channels=1, num_layers=1, endpoint=True)
    assert model.blocks[0].mlp.inner.kernel.shape == (1, 1)
    out = jax.eval_shape(lambda x: model(x, (1,)), jnp.ones((1, 4, 1)))
    assert out.shape == (1, 1, 1)
    bare = create(modes=(1,), channels=1, num_layers=1, channel_mlp_expansion=0)
    assert bare.blocks[0].mlp is None


def test_derivatives_with_respect_to_points_are_those_of_the_function():
    with jax.enable_x64(True):
        model = create(
            modes=(3,), channels=4, num_layers=1, coordinates="none",
            param_dtype="float64",
        )  # fmt: skip
        x = jnp.asarray(draw(1, 8, 1))

        @jax.jit
        def slope(t):
            return jax.vmap(jax.grad(lambda t: model.at(x, t[None, None])[0, 0, 0]))(t)

        h = 1e-5
        below, above = jax.jit(model.at)(x, np.array([[0.25 - h], [0.25 + h]]))[0]
        found = slope(jnp.asarray([0.25, 0.25 + 1e-8]))
        np.testing.assert_allclose(found, (above - below)[0] / (2 * h), rtol=1e-5)


@pytest.mark.slow
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


@pytest.mark.parametrize(
    ("odd", "limit"), [(45, 1e-4), pytest.param(135, 1e-6, marks=pytest.mark.slow)]
)
def test_odd_and_even_grids_agree(odd, limit):
    model = jax.jit(create(**SMALL, coordinates="none"))
    outs = [np.asarray(model(band_limited(n))) for n in (odd, 2 * odd)]
    difference = outs[0] - outs[1][:, ::2, ::2]  # aliasing of GELU
    assert np.linalg.norm(difference) < limit * np.linalg.norm(outs[0])


def gradient(model, x, **call):
    graph, state, rest = nnx.split(model, nnx.Param, ...)

    @jax.jit
    def grad(state, rest, x):
        def loss(state, rest):
            model = nnx.merge(graph, state, rest, copy=True)
            out = model(x, **call)
            return jnp.sum((out - 1) ** 2)

        return jax.grad(loss)(state, rest)

    return {
        ".".join(map(str, path)): np.asarray(g[...])
        for path, g in nnx.to_flat_state(grad(state, rest, x))
    }


@pytest.mark.parametrize(
    ("hparams", "dead"),
    [
        ({"norm": "group", "stabilizer": "tanh"}, ""),
        *(
            pytest.param(hparams, dead, marks=pytest.mark.slow)
            for hparams, dead in (
                ({**LI2021, "norm": "batch"}, r"lifting\.bias|blocks\.\d\.skip\.bias"),
                ({"factorization": "tucker", "rank": 0.5, "skip": "soft_gating"}, ""),
                ({"factorization": "cp", "rank": 0.5, "skip": "identity"}, ""),
                ({"separable": True, "mlp_skip": "linear", "layout": "neuralop"}, ""),
                ({"norm": "instance_affine", "mlp_skip": "none"},
                 r"blocks\.\d\.(spectral\.bias|mlp\.outer\.bias)"),
            )
        ),
    ],
)  # fmt: skip
def test_gradient_reaches_every_parameter(hparams, dead):
    """Except constants per channel that batch and instance norms take away."""
    hparams = {"in_channels": 2, "out_channels": 3, "channels": 4} | hparams
    with jax.enable_x64(True):
        model = create(modes=(3, 3), num_layers=2, param_dtype="float64", **hparams)
        gradients = gradient(model, jnp.asarray(draw(2, 11, 10, 2)))
    scale = max(np.abs(g).max() for g in gradients.values())
    for path, g in gradients.items():
        assert np.isfinite(g).all(), path
        alive = np.abs(g).max() > 1e-12 * scale
        assert alive != bool(dead and re.fullmatch(dead, path)), path


def test_redundant_weights_are_those_of_the_plane_of_last_frequency_zero():
    """Of the 2 m + 1 frequencies (k, 0) half repeat the others; all else is free."""
    model = create(modes=(2, 2), channels=3, num_layers=1)
    weights = gradient(model, jnp.asarray(draw(1, 7, 8, 1), jnp.float32))
    real, imag = (weights[f"blocks.0.spectral.weights.{p}"] for p in ("real", "imag"))
    free = np.linalg.matrix_rank(real[:, 0].reshape(5, -1), tol=1e-6 * real.max())
    assert free <= 3
    np.testing.assert_allclose(imag[2, 0], 0, atol=1e-6 * np.abs(real).max())
    assert np.abs(imag[[0, 1, 3, 4], 0]).min() > 0
    assert np.abs(real[:, 1:]).min() > 0


@pytest.mark.slow
def test_bfloat16_rounds_products_and_keeps_float32_elsewhere():
    x = jnp.asarray(draw(2, 16, 16, 1), jnp.float32)
    outs, grads = [], []
    for precision in ("full", "bfloat16"):
        model = create(**SMALL, precision=precision, transform="dft")
        outs.append(np.asarray(jax.jit(model)(x)))
        grads.append(gradient(model, x))
    assert outs[1].dtype == np.float32
    error = np.linalg.norm(outs[1] - outs[0]) / np.linalg.norm(outs[0])
    assert 1e-4 < error < 3e-2
    assert {g.dtype for g in grads[1].values()} == {np.dtype(np.float32)}
    errors = [np.linalg.norm(grads[1][path] - g) for path, g in grads[0].items()]
    size = np.linalg.norm([np.linalg.norm(g) for g in grads[0].values()])
    assert 1e-4 < np.linalg.norm(errors) / size < 3e-2


def test_batch_norm_uses_its_record_in_eval_mode():
    model = create(**SMALL, **LI2021, norm="batch")
    x = jnp.asarray(3 * draw(4, 9, 8, 1), jnp.float32)
    run = jax.jit(lambda model, x: (model(x), model))
    model.train()
    before = np.asarray(model.blocks[0].norms[0].mean[...])
    together, model = run(model, x)
    assert not np.array_equal(before, model.blocks[0].norms[0].mean[...])
    model.eval()
    out, _ = run(model, x)
    other, _ = run(model, x.at[1:].add(1))
    np.testing.assert_allclose(other[:1], out[:1], atol=1e-5)
    assert np.abs(together - out).max() > 1e-3


def test_conditional_norm_follows_the_embedding_of_each_sample():
    model = create(**SMALL, norm="conditional", embedding_channels=2)
    x = jnp.asarray(draw(2, 8, 9, 1), jnp.float32)
    embedding = jnp.asarray(draw(2, 2, seed=1), jnp.float32)
    run = jax.jit(lambda x, e: model(x, embedding=e))
    out, moved = run(x, embedding), run(x, embedding.at[1].add(1))
    np.testing.assert_allclose(moved[0], out[0], atol=1e-6)
    assert np.abs(moved[1] - out[1]).max() > 1e-3
    with pytest.raises(ValueError, match="embedding must be given for norm"):
        model(x)
    with pytest.raises(ValueError, match="takes statistics over a grid"):
        model.at(x, np.zeros((3, 2)), embedding=embedding)


@pytest.mark.parametrize(
    ("hparams", "message"),
    [
        ({"layout": "original"}, "layout is 'original'; known: below, li2021"),
        ({"architecture": "symmetric"}, "architecture is 'symmetric'; known: li2021"),
        ({"coordinates": "polar"}, "coordinates is 'polar'; known: grid"),
        ({"domain_padding": 9}, r"domain_padding must lie in \[0, 1\), .* got 9"),
        ({"domain_padding": (0.5,)}, "one for each of 2 axes"),
        ({"skip": "dense"}, "skip is 'dense'; known: linear"),
        ({"norm": "spectral"}, "norm is 'spectral'; known: none"),
        ({"norm": "conditional"}, "embedding_channels must be positive"),
        ({"num_groups": 2}, "num_groups must be 1 unless norm is 'group', got 2"),
        ({"mlp_skip": "dense", "channel_mlp_expansion": 0}, "mlp_skip is 'dense'"),
        ({"lifting_ratio": 0}, "lifting_ratio must be positive, got 0"),
        ({"projection_ratio": -1}, "projection_ratio must be positive, got -1"),
        ({"channel_mlp_expansion": -0.5}, "expansion must be positive or 0, got -0.5"),
        ({"precision": "half"}, "precision is 'half'; known: full"),
        ({"factorization": "tt"}, "factorization is 'tt'; known: dense"),
        ({"factorization": "cp", "rank": 2.0}, r"rank must lie in \(0, 1\], got 2"),
        ({"factorization": "cp", "separable": True}, "separable weights are dense"),
    ],
)
def test_rejects_settings_that_do_not_exist(hparams, message):
    with pytest.raises(ValueError, match=message):
        nnx.eval_shape(lambda: create(modes=(4, 4), **hparams))


def test_rejects_inputs_of_the_wrong_shape():
    model = create(**SMALL)
    with pytest.raises(ValueError, match=r"\[batch, n1, n2, 1\], got \(1, 8, 8, 2\)"):
        model(jnp.ones((1, 8, 8, 2)))
    with pytest.raises(ValueError, match="out_grid must hold 2 numbers of points"):
        model(jnp.ones((1, 8, 8, 1)), (8,))
    with pytest.raises(ValueError, match="2 numbers of points, positive integers"):
        model(jnp.ones((1, 8, 8, 1)), (8, 8.0))
    with pytest.raises(ValueError, match="x must hold at least one sample"):
        model(jnp.ones((0, 8, 8, 1)))
    for dtype in ("int32", "bool", "complex64"):
        with pytest.raises(TypeError, match=f"x must hold floating.*, got {dtype}"):
            model(jnp.ones((1, 8, 8, 1), dtype))
    with pytest.raises(ValueError, match=r"points must have shape \[points, 2\]"):
        model.at(jnp.ones((1, 8, 8, 1)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="embedding must be given for norm"):
        model(jnp.ones((1, 8, 8, 1)), embedding=jnp.ones((1, 2)))
