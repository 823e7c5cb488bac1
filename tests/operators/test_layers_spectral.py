import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from operators.layers import coordinates, spectral, spectral_weights
from operators.layers.pointwise import Pointwise
from operators.layers.spectral_costs import dft_products, faster_transform
from operators.layers.spectral_transforms import (
    TRANSFORMS,
    interpolate,
    interpolation_matrix,
)

GRIDS = [(16, 16), (15, 18), (21, 13)]


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def layer(c=2, d=3, modes=(3, 4), **options):
    options = {"layout": "symmetric", "rngs": nnx.Rngs(0)} | options
    return spectral.SpectralConvolution(c, d, modes=modes, **options)


def dense(weights):
    """The complex weights [*modes, in, out], from factors by their definition."""

    def array(part):
        return np.asarray(part.real[...]) + 1j * np.asarray(part.imag[...])

    if isinstance(weights, spectral_weights.DenseWeights):
        W = array(weights)
        return W[..., None] * np.eye(W.shape[-1]) if weights.separable else W
    factors = [array(factor) for factor in weights.factors]
    if isinstance(weights, spectral_weights.TuckerWeights):
        return np.einsum("rstu,ir,os,kt,lu->klio", array(weights.core), *factors)
    return np.einsum("r,ir,or,kr,lr->klio", array(weights.scale), *factors)


def with_identity(modes, **options):
    module = layer(1, 1, modes, **options)
    module.weights.real[...] = jnp.ones_like(module.weights.real[...])
    module.weights.imag[...] = jnp.zeros_like(module.weights.imag[...])
    return module


def cosine(grid, k1, k2, phase=0.3):
    x, y = (np.arange(n) / n for n in grid)
    return np.cos(2 * np.pi * (k1 * x[:, None] + k2 * y) + phase)[None, :, :, None]


def by_definition(module, u, out_grid):
    """Sum over modes of Re(w_k W(k) u_k exp(2 pi i k x)), point by point."""
    grid = u.shape[1:-1]
    W = dense(module.weights)
    points = [np.stack(np.meshgrid(*(np.arange(n) / n for n in g), indexing="ij"), -1)
              for g in (grid, out_grid)]  # fmt: skip
    frequencies = spectral.mode_frequencies(module.modes, module.layout)
    out = 0.0
    for index in np.ndindex(*(len(k) for k in frequencies)):
        k = np.array([f[i] for f, i in zip(frequencies, index, strict=True)])
        if np.any(2 * np.abs(k) >= np.minimum(grid, out_grid)):
            continue
        wave_in, wave_out = (np.exp(2j * np.pi * p @ k) for p in points)
        axes = tuple(range(len(grid)))
        u_k = np.stack(
            [np.mean(u[b] * wave_in.conj()[..., None], axes) for b in (0, 1)]
        )
        twice = 1 if k[-1] == 0 else 2  # the plane 0 holds k and -k itself
        terms = (u_k @ W[index]).reshape(2, *(1,) * len(grid), -1)
        out = out + twice * np.real(terms * wave_out[..., None])
    return out


@pytest.mark.parametrize("layout", spectral.LAYOUTS)
@pytest.mark.parametrize(("grid", "out"), [*zip(GRIDS, GRIDS), ((9, 12), (14, 7))])  # noqa: B905
def test_both_transforms_equal_the_definition(layout, grid, out):
    with jax.enable_x64(True):
        u = draw(2, *grid, 2)
        for transform in TRANSFORMS:
            module = layer(layout=layout, transform=transform, param_dtype=jnp.float64)
            np.testing.assert_allclose(
                jax.jit(lambda m, u: m(u, out))(module, u),
                by_definition(module, u, out),
                atol=1e-13,
            )


@pytest.mark.parametrize(
    ("grid", "modes"), [((11,), (3,)), ((7, 8, 9), (2, 1, 3)), ((6, 6), (4, 5))]
)
def test_any_dimension_and_more_modes_than_the_grid_has(grid, modes):
    with jax.enable_x64(True):
        u = draw(2, *grid, 2)
        for transform in TRANSFORMS:
            module = layer(modes=modes, transform=transform, param_dtype=jnp.float64)
            np.testing.assert_allclose(
                jax.jit(lambda m, u: m(u))(module, u),
                by_definition(module, u, grid),
                atol=1e-13,
            )


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_transforms_differentiate_alike(transform):
    u = jnp.asarray(draw(2, 15, 18, 2), jnp.float32)
    w = jnp.asarray(draw(2, 15, 18, 3, seed=1), jnp.float32)

    def gradients(transform):
        graph, state = nnx.split(layer(transform=transform))

        def loss(state, u):
            return jnp.sum(w * nnx.merge(graph, state)(u) ** 2)

        return jax.tree.leaves(jax.jit(jax.grad(loss, argnums=(0, 1)))(state, u))

    for a, b in zip(gradients(transform), gradients("dft"), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6 * np.abs(b).max())


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize(
    ("grid", "out"), [((21, 16), None), ((16, 21), (32, 33)), ((85, 21), (14, 12))]
)
def test_identity_weights_return_every_mode(grid, out, transform):
    modes = [(3, 2), (-2, 3), (3, 0), (-3, 1), (0, 0)]
    module = with_identity((4, 4), transform=transform)
    u = np.concatenate([cosine(grid, *k) for k in modes])
    result = jax.jit(lambda u: module(u, out))(jnp.asarray(u, jnp.float32))
    expected = np.concatenate([cosine(out or grid, *k) for k in modes])
    np.testing.assert_allclose(result, expected, atol=2e-6)


def test_differentiates_with_weights_ik():
    grid = (17, 20)
    module = with_identity((4, 4))
    k = spectral.mode_frequencies((4, 4), "symmetric")[0].astype(np.float32)
    module.weights.real[...] = jnp.zeros_like(module.weights.real[...])
    module.weights.imag[...] = jnp.broadcast_to(
        jnp.asarray(2 * np.pi * k).reshape(-1, 1, 1, 1), module.weights.imag[...].shape
    )
    u = jnp.asarray(cosine(grid, -2, 3), jnp.float32)
    expected = -2 * np.pi * -2 * cosine(grid, -2, 3, 0.3 - np.pi / 2)
    np.testing.assert_allclose(module(u), expected, atol=1e-5)


def test_modes_at_nyquist_are_left_out():
    for grid in ((8, 16), (16, 8)):
        module = with_identity((4, 4))
        k = (4, 0) if grid[0] == 8 else (0, 4)
        u = jnp.asarray(cosine(grid, *k), jnp.float32)
        np.testing.assert_allclose(module(u), 0.0, atol=1e-6)


@pytest.mark.parametrize(
    ("channels", "options"),
    [
        ((2, 3), {"factorization": "tucker", "rank": 0.4}),
        ((3, 4), {"factorization": "cp", "rank": 0.3, "transform": "fft"}),
        ((2, 2), {"separable": True}),
    ],
)
@pytest.mark.parametrize("grid", [(15, 18), (5, 6)])  # all modes, and only some
def test_factorised_weights_act_as_their_dense_tensor(channels, options, grid):
    with jax.enable_x64(True):
        u = draw(2, *grid, channels[0])
        module = layer(*channels, param_dtype=jnp.float64, **options)
        np.testing.assert_allclose(
            jax.jit(lambda m, u: m(u))(module, u),
            by_definition(module, u, grid),
            atol=1e-13,
        )


@pytest.mark.slow
def test_factors_have_the_sizes_and_the_spread_of_the_peers():
    shape = (64, 64, 12, 7)
    assert spectral_weights.tucker_ranks(shape, 0.1) == (35, 35, 7, 4)
    assert spectral_weights.cp_rank(shape, 0.1) == 234
    for factorization in ("tucker", "cp"):
        module = layer(16, 16, (5, 4), factorization=factorization, rank=0.3)
        W = dense(module.weights)
        for part in (W.real, W.imag):
            np.testing.assert_allclose(np.std(part), (1 / 32) ** 0.5, rtol=0.35)


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray, np.ndarray.tolist])
def test_series_is_evaluated_anywhere(kind):
    grid = (9, 12)
    module = layer(use_bias=True)
    u = jnp.asarray(draw(2, *grid, 2), jnp.float32)
    fine = np.asarray(module(u, (18, 36)))  # more points than the output has modes
    points = np.stack(np.unravel_index(np.arange(5, 400, 13), (18, 36)), -1)
    values = module.at(u, kind(points / [18, 36] - [0, 2]))
    np.testing.assert_allclose(
        values, fine[:, points[:, 0], points[:, 1]], atol=2e-5 * np.abs(fine).max()
    )


@pytest.mark.parametrize("grid", [(7, 8), (10, 9)])
def test_interpolation_goes_through_the_values_and_is_exact_for_low_modes(grid):
    points = draw(6, 2)
    u = cosine(grid, -3, 2)
    wave = np.cos(2 * np.pi * (points @ [-3, 2]) + 0.3)
    with jax.enable_x64(True):
        values = interpolate(jnp.asarray(u), points)
        np.testing.assert_allclose(values[0, :, 0], wave, atol=1e-13)
        axes = [points[:4, 0], points[4:, 1]]
        product = interpolate(jnp.asarray(u), axes)
        lined = [interpolate(jnp.asarray(u), np.array([[x, y]]))[0, 0, 0]
                 for x in axes[0] for y in axes[1]]  # fmt: skip
        np.testing.assert_allclose(product.ravel(), lined, atol=1e-13)
        noise = jnp.asarray(draw(1, *grid, 1))
        same = interpolate(noise, [np.arange(n) / n for n in grid])
        np.testing.assert_allclose(same, noise, atol=1e-13)
        # The highest wave of an even axis is a cosine.
        shaken = interpolation_matrix(8, np.array([1 / 16])) @ (-1.0) ** np.arange(8)
        np.testing.assert_allclose(shaken, 0, atol=1e-13)


@pytest.mark.parametrize("n", [7, 8])
def test_interpolation_is_smooth_at_the_nodes(n):
    def wave(k, x):
        return np.cos(2 * np.pi * k * x + 0.3)

    with jax.enable_x64(True):
        u = jnp.asarray(wave(3, np.arange(n) / n))

        def value(x):
            return interpolate(u[None, :, None], x[None, None])[0, 0, 0]

        x = (np.arange(-2, n + 2)[:, None] / n + [-1e-8, 0, 1e-8]).ravel()
        for fn, k in ((value, 0), (jax.grad(value), 1), (jax.grad(jax.grad(value)), 2)):
            found = jax.jit(jax.vmap(fn))(jnp.asarray(x))
            exact = (6 * np.pi) ** k * np.cos(6 * np.pi * x + 0.3 + k * np.pi / 2)
            np.testing.assert_allclose(found, exact, atol=1e-11)
        points = draw(5)
        np.testing.assert_allclose(
            interpolation_matrix(n, jnp.asarray(points)),
            interpolation_matrix(n, points),
            atol=1e-13,
        )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_ffts_take_short_floats(dtype):
    u = jnp.asarray(draw(1, 15, 16, 2), dtype)
    module = layer(transform="fft")
    run = jax.jit(lambda u: module(u, (18, 9)))
    out = run(u)
    assert out.dtype == u.dtype
    expected = run(u.astype("float32"))
    np.testing.assert_allclose(
        out.astype("float32"), expected, atol=0.03 * np.abs(expected).max()
    )


def test_auto_takes_products_for_few_modes_and_the_fft_for_many():
    def choice(n, m, backend="cpu"):
        frequencies = spectral.mode_frequencies((m,), "symmetric")
        return faster_transform((n,), (n,), frequencies, backend=backend)

    assert choice(1024, 16) == choice(1024, 16, "tpu") == "dft"
    assert choice(8192, 256) == "fft"
    u = jnp.asarray(draw(2, 16, 18, 2), jnp.float32)
    same = [layer(transform=t)(u) for t in ("auto", "dft")]
    np.testing.assert_array_equal(*same)


def test_periodic_coordinates_of_vertex_grids_repeat_the_first_point():
    for endpoint, intervals in ((True, 4), (False, 5)):
        u = jnp.zeros((1, 5, 1))
        angle = 2 * np.pi * np.arange(5) / intervals
        out = coordinates.append(u, "periodic", endpoint=endpoint)[0, :, 1:]
        expected = np.stack([np.sin(angle), np.cos(angle)], -1)
        np.testing.assert_allclose(out, expected, atol=1e-6)


def test_products_count_the_multiply_adds_of_the_transform():
    # 6 points to 3 cosines and 3 sines, then 8 points to 5 + 5 for each of these.
    frequencies = spectral.mode_frequencies((2, 4), "symmetric")
    assert dft_products((6, 8), frequencies) == 6 * 6 * 8 + 6 * 10 * 8
    frequencies = spectral.mode_frequencies((1, 2, 4), "symmetric")
    assert dft_products((4, 6, 8), frequencies) == (
        4 * 192 + 4 * 6 * 6 * 8 + 4 * 6 * 10 * 8
    )


def test_partnerless_mode_of_the_peer_is_halved():
    module = with_identity((8, 8), layout="neuralop")
    for k1, amplitude in ((3, 1.0), (4, 0.5), (5, 0.0)):
        u = cosine((31, 32), k1, 0)
        out = module(jnp.asarray(u, jnp.float32))
        np.testing.assert_allclose(out, amplitude * u, atol=2e-6)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_redundant_weights_have_no_effect_and_no_gradient(transform):
    module = layer(transform=transform)
    graph, state = nnx.split(module)
    u = jnp.asarray(draw(1, 15, 16, 2), jnp.float32)
    gradient = jax.jit(jax.grad(lambda s: jnp.sum(nnx.merge(graph, s)(u) ** 3)))(state)
    gradient = gradient["weights"]
    real, imag = (np.asarray(gradient[k][...])[:, 0] for k in ("real", "imag"))
    scale = np.abs(np.asarray(gradient["real"][...])).max()
    # Only W(k) + conj W(-k) acts on the plane of last frequency 0.
    np.testing.assert_allclose(real, real[::-1], atol=1e-6 * scale)
    np.testing.assert_allclose(imag, -imag[::-1], atol=1e-6 * scale)


def test_frequencies_of_the_layouts():
    def ranges(modes, layout):
        return [(k[0], k[-1]) for k in spectral.mode_frequencies(modes, layout)]

    assert ranges((8, 8), "neuralop") == [(-4, 3), (0, 4)]
    assert ranges((7, 7), "neuralop") == [(-3, 3), (0, 3)]
    assert ranges((12, 12), "li2021") == [(-12, 11), (0, 11)]
    assert ranges((5, 3, 2), "symmetric") == [(-5, 5), (-3, 3), (0, 2)]


@pytest.mark.slow
def test_initial_spread_is_the_peers():
    module = layer(64, 64, (8, 8), layout="neuralop", use_bias=True)
    for part in (module.weights.real, module.weights.imag):
        np.testing.assert_allclose(np.std(part[...]), 0.0884, rtol=0.01)
    np.testing.assert_allclose(np.std(module.bias[...]), 0.125, rtol=0.3)
    old = layer(8, 16, (4, 4), layout="li2021")
    np.testing.assert_allclose(np.mean(old.weights.real[...]) * 8 * 16, 0.5, rtol=0.05)
    assert np.min(old.weights.imag[...]) >= 0


def test_rejects_settings_that_do_not_exist():
    with pytest.raises(ValueError, match="layout is 'corner'; known: below, li2021"):
        layer(layout="corner")
    with pytest.raises(ValueError, match="transform is 'dct'; known: auto, dft, fft"):
        layer(transform="dct")
    with pytest.raises(ValueError, match="one positive number per axis"):
        layer(modes=(3, 0))
    u = jnp.ones((2, 8, 8, 2))
    for out_grid in ((8,), (8, 0), (8, 8.5), 8):
        with pytest.raises(ValueError, match="out_grid must hold 2 numbers of points"):
            layer()(u, out_grid)
    for points in ([[0.1, 0.2, 0.3]], [0.1, 0.2], np.zeros((3, 1))):
        with pytest.raises(ValueError, match=r"shape \[points, 2\], got"):
            layer().at(u, points)
    with pytest.raises(ValueError, match="batch and 2 channels, got shape"):
        layer(separable=True, d=2)(u[..., :1])
    with pytest.raises(ValueError, match="u must hold at least one sample"):
        layer()(u[:0])
    with pytest.raises(TypeError, match=r"u must .*, got int32; .*astype\('float32'\)"):
        layer()(u.astype("int32"))
    with pytest.raises(TypeError, match="u must hold floating-point numbers, got bool"):
        Pointwise(2, 2, rngs=nnx.Rngs(0))(u > 0)
    with pytest.raises(ValueError, match="must have 2 grid axes"):
        layer()(jnp.ones((2, 8, 2)))
