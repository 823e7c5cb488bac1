import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from flax import nnx

from operators import models
from operators.layers import normalization, resampling, spectral
from operators.models import presets, uno

SMALL = {
    "in_channels": 2,
    "out_channels": 3,
    "modes": ((3, 2), (2, 2), (3, 2)),
    "fractions": (0.5, (0.5, 0.4), 1),
    "layer_channels": (5, 4, 6),
    "channels": 4,
    "lifting_channels": 7,
    "projection_channels": 8,
}
# Layer 1 has none, so that both forms are there.
GROUP = {"norm": "group", "norm_layers": (0, 2)}
TWO_LAYERS = {
    "modes": ((3, 2), (2, 2)), "fractions": (0.5, 1), "layer_channels": (5, 4),
}  # fmt: skip
RAHMAN = {
    "architecture": "rahman2022",
    "horizontal_skips": ((2, 0), (3, -1)),
    "norm": "instance_affine",
    "norm_layers": (1,),
    "input_skip": True,
    "endpoint": True,
    "domain_padding": (1 / 6, 1 / 7),  # 2 spacings on 13 and on 15 vertices
}


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def abstract(**hparams):
    return nnx.eval_shape(
        lambda: models.create("uno", rngs=nnx.Rngs(0), **SMALL | hparams)
    )


def create(**hparams):
    """A model with numbers from NumPy: JAX would compile a draw for every shape."""
    graph, parameters, rest = nnx.split(abstract(**hparams), nnx.Param, ...)
    rng = np.random.default_rng(0)
    parameters = jax.tree.map(
        lambda p: jnp.asarray(0.3 * rng.normal(size=p.shape), p.dtype), parameters
    )
    return nnx.merge(graph, parameters, rest)


def gelu(u):
    return u * scipy.special.ndtr(u)


def dense(layer, u):
    out = u @ np.asarray(layer.kernel[...])
    return out if layer.bias is None else out + np.asarray(layer.bias[...])


def resize(u, grid):
    for axis, m in enumerate(grid, 1):
        matrix = resampling.fourier_matrix(u.shape[axis], m)
        u = np.moveaxis(np.tensordot(matrix, u, (1, axis)), 0, axis)
    return u


def integral(layer, u, grid):
    """The spectral layer point by point, from complex exponentials."""
    W = np.asarray(layer.weights.real[...]) + 1j * np.asarray(layer.weights.imag[...])
    out = 0.0
    frequencies = spectral.mode_frequencies(layer.modes, layer.layout)
    for i, k1 in enumerate(frequencies[0]):
        for j, k2 in enumerate(frequencies[1]):
            limit = np.minimum(u.shape[1:3], grid)
            if np.any(2 * np.abs((k1, k2)) >= limit):
                continue

            def wave(n1, n2, k1=k1, k2=k2):
                angles = k1 * np.arange(n1)[:, None] / n1 + k2 * np.arange(n2) / n2
                return np.exp(2j * np.pi * angles)

            mean = np.einsum("bxyc,xy->bc", u, wave(*u.shape[1:3]).conj())
            mean = mean @ W[i, j] / (u.shape[1] * u.shape[2])
            term = np.einsum("xy,bd->bxyd", wave(*grid), mean).real
            out = out + (1 if k2 == 0 else 2) * term
    return out if layer.bias is None else out + np.asarray(layer.bias[...])


def normalised(norm, u):
    """Mean and variance over the grid and all channels, per sample."""
    if not isinstance(norm, normalization.GroupNorm):
        return u
    u = u - u.mean((1, 2, 3), keepdims=True)
    u = u / np.sqrt((u**2).mean((1, 2, 3), keepdims=True) + 1e-5)
    return u * np.asarray(norm.scale[...]) + np.asarray(norm.bias[...])


def neuralop_by_hand(model, x, grids):
    v = dense(model.lifting[1], gelu(dense(model.lifting[0], x)))
    first = None
    for t, (layer, grid) in enumerate(zip(model.layers, grids, strict=True)):
        if t == 2:
            skip = dense(model.horizontal[0], first)
            v = np.concatenate([v, resize(skip, v.shape[1:3])], -1)
        z = normalised(layer.norms[0], integral(layer.spectral, v, grid))
        z = gelu(z + resize(dense(layer.skip, v), grid))
        z = dense(layer.mlp.outer, gelu(dense(layer.mlp.inner, z)))
        z = z + resize(dense(layer.gate, v), grid)
        v = gelu(normalised(layer.norms[1], z))
        first = v if t == 0 else first
    return dense(model.projection[1], gelu(dense(model.projection[0], v)))


def rahman_by_hand(model, x, grids):
    hidden = gelu(dense(model.lifting[0], x))
    v = gelu(dense(model.lifting[1], hidden))
    # The first point after the right end is one spacing away already.
    v = lifted = np.pad(v, ((0, 0), (0, 1), (0, 1), (0, 0)))
    first = None
    for t, (layer, grid) in enumerate(zip(model.layers, grids, strict=True)):
        if t == 2:
            v = np.concatenate([v, resize(first, v.shape[1:3])], -1)
        z = integral(layer.spectral, v, grid) + resize(dense(layer.skip, v), grid)
        if t == 1:
            z = z - z.mean((1, 2), keepdims=True)
            z = z / np.sqrt((z**2).mean((1, 2), keepdims=True) + 1e-5)
            scale, shift = (
                np.asarray(p[...]) for p in (layer.norms[0].scale, layer.norms[0].bias)
            )
            z = z * scale + shift
        v = gelu(z)
        first = v if t == 0 else first
    v = np.concatenate([v, resize(lifted, v.shape[1:3])], -1)
    v = gelu(dense(model.projection[0], v))[:, :-1, :-1]
    v = np.concatenate([v, hidden], -1)
    return dense(model.projection[1], v)


@pytest.mark.parametrize(
    ("by_hand", "options", "out_grid", "grids"),
    [
        (neuralop_by_hand, GROUP, (16, 9), [(6, 8), (6, 6), (16, 9)]),
        (rahman_by_hand, RAHMAN, None, [(7, 8), (7, 6), (14, 16)]),
    ],
)
def test_equals_the_formulas_in_float64_on_an_odd_grid(
    by_hand, options, out_grid, grids
):
    with jax.enable_x64(True):
        model = create(coordinates="none", param_dtype="float64", **options)
        x = draw(2, 13, 15, 2)
        out = jax.jit(lambda m, x: m(x, out_grid))(model, x)
        assert out.dtype == jnp.float64
        np.testing.assert_allclose(out, by_hand(model, x, grids), atol=1e-12)


@pytest.mark.parametrize(
    "options", [TWO_LAYERS, pytest.param(RAHMAN, marks=pytest.mark.slow)]
)
def test_every_parameter_receives_a_gradient(options):
    with jax.enable_x64(True):
        model = create(param_dtype="float64", **options)
        graph, parameters, rest = nnx.split(model, nnx.Param, ...)
        x, weights = draw(2, 13, 15, 2), draw(2, 13, 15, 3, seed=1)

        @jax.jit
        def gradients(parameters):
            def loss(parameters):
                return jnp.sum(weights * nnx.merge(graph, parameters, rest)(x) ** 2)

            return jax.grad(loss)(parameters)

        sizes = {
            "".join(str(part) for part in path): np.abs(gradient).max()
            for path, gradient in jax.tree.leaves_with_path(gradients(parameters))
        }
    dead = {k for k in sizes if sizes[k] < 1e-12 * max(sizes.values())}
    # A constant in front of an instance norm is taken out again.
    constant = {"['layers'][1]['skip']['bias'].value"}
    assert dead == (constant if options is RAHMAN else set())


@pytest.mark.parametrize("grid", [(12,), (7, 8, 9)])
def test_one_and_three_axes(grid):
    d = len(grid)
    model = abstract(modes=((2,) * d,) * 3, fractions=(0.5, 0.5, 1))
    out = nnx.eval_shape(lambda m: m(jnp.ones((2, *grid, 2))), model)
    assert out.shape == (2, *grid, 3)


@pytest.mark.parametrize("name", [n for n in presets.PRESETS if n.startswith("uno_")])
def test_official_counts(name):
    preset = presets.get(name)
    model = nnx.eval_shape(lambda: models.create(rngs=nnx.Rngs(0), **preset.hparams))
    leaves = jax.tree.leaves(nnx.state(model, nnx.Param))
    assert sum(leaf.size for leaf in leaves) == preset.parameters


def test_padded_vertex_grids_and_their_layers():
    model = abstract(**RAHMAN)
    shape = nnx.eval_shape(lambda m: m(jnp.ones((1, 13, 15, 2)), (25, 29)), model).shape
    assert shape == (1, 25, 29, 3)
    halves = abstract(**RAHMAN | {"fractions": (0.5, 0.5, 0.5)})
    shape = nnx.eval_shape(lambda m: m(jnp.ones((1, 25, 29, 2))), halves).shape
    assert shape == (1, 13, 15, 3)  # every other vertex
    assert uno.layer_grid((16, 15), (0.5, 1)) == (8, 15)


@pytest.mark.slow  # JAX compiles each draw
def test_weights_of_rahman_have_the_published_spread():
    block = uno.SpectralBlock(
        4, 4, modes=(8, 8), architecture="rahman2022", layout="li2021", norm="none",
        activation="gelu", block_activation="none", mlp_hidden=0, transform="auto",
        precision="full", param_dtype=jnp.float32, rngs=nnx.Rngs(0),
    )  # fmt: skip
    for part in (block.spectral.weights.real[...], block.spectral.weights.imag[...]):
        np.testing.assert_allclose(np.std(part), np.sqrt(1 / (4 * 4)), rtol=0.05)
        np.testing.assert_allclose(np.mean(part), 0, atol=0.02)


@pytest.mark.parametrize(
    ("hparams", "message"),
    [
        ({"architecture": "unet"}, "'unet'; known: neuralop, rahman2022"),
        ({"fractions": (1, 1)}, "one entry per layer, got 3, 2 and 3"),
        ({"modes": (3, 2, 3)}, "one tuple per layer with one number per axis"),
        ({"domain_padding": (0.1,) * 3}, "one for each of 2 axes, got"),
        ({"horizontal_skips": "dense"}, "'dense'; known: mirrored, none"),
        ({"horizontal_skips": ((1, 1),)}, "-1 <= source < target <= 3, got"),
        ({"horizontal_skips": ((2, 0), [2, 0])}, r"once, got \(\(2, 0\), \(2, 0\)\)"),
        ({"norm_layers": (3,)}, r"layers between 0 and 2, got \(3,\)"),
        ({"norm_layers": (-1,)}, r"layers between 0 and 2, got \(-1,\)"),
        ({"fractions": (1, "half", 1)}, "2 axes, got 'half'"),
        ({"fractions": (1, (0.5, 0.5, 0.5), 1)}, "2 axes, got .0.5, 0.5, 0.5"),
        ({"fractions": (1, (0.5, -0.5), 1)}, "2 axes, got .0.5, -0.5"),
        ({"fractions": (1, 0, 1)}, "one positive number per layer, .* got 0"),
        ({"fractions": (1, float("nan"), 1)}, "positive number .* got nan"),
        ({"channel_mlp_expansion": -0.5}, "0 or positive, got -0.5"),
    ],
)
def test_rejects_settings_that_do_not_fit(hparams, message):
    with pytest.raises(ValueError, match=message):
        uno.UNO(rngs=nnx.Rngs(0), **SMALL | hparams)


def test_one_channel_keeps_the_pointwise_map_of_its_layer():
    widths = {"layer_channels": (1, 1, 1)}
    for expansion, hidden in ((0.5, 1), (0.1, 1), (0, None), (3, 3)):
        layer = abstract(channel_mlp_expansion=expansion, **widths).layers[0]
        assert (layer.mlp is None) == (hidden is None)
        assert hidden is None or layer.mlp.inner.kernel.shape == (1, hidden)


def test_rejects_inputs_that_do_not_fit():
    model = abstract()
    with pytest.raises(TypeError, match="floating-point numbers, got dtype int32"):
        model(jnp.ones((1, 8, 8, 2), int))
    for shape in ((1, 8, 2), (1, 8, 8, 3)):
        with pytest.raises(ValueError, match=r"shape \[batch, n1, n2, 2\]"):
            model(jnp.ones(shape))
    with pytest.raises(ValueError, match="must hold 2 numbers of points"):
        model(jnp.ones((1, 8, 8, 2)), (8,))
    with pytest.raises(ValueError, match="use a finer grid or a larger fraction"):
        uno.layer_grid((1, 8), 0.25)
