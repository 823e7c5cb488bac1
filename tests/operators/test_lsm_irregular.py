import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from operators import models
from operators.layers.geometry import (
    Deformation,
    PointSpectralConvolution,
    PointTransforms,
)
from operators.layers.spectral import SpectralConvolution

MODES = (3, 2)
SMALL = {
    "in_channels": 6, "code_channels": 3, "out_channels": 2, "latent_grid": (10, 8),
    "modes": MODES, "channels": 4, "num_scales": 2, "patches_per_axis": 2,
    "num_heads": 2, "num_tokens": 2, "num_basis": 3, "norm": "instance_affine",
}  # fmt: skip


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def abstract(**hparams):
    return nnx.eval_shape(
        lambda: models.create("lsm_irregular", rngs=nnx.Rngs(0), **SMALL | hparams)
    )


apply = nnx.jit(lambda model, x: model(x))


@pytest.fixture(scope="module")
def model():
    return models.create("lsm_irregular", rngs=nnx.Rngs(0), **SMALL)


def cloud(num=11):
    """Points, one more value and a code that is the same at all points."""
    x = draw(2, num, 6)
    x[:, :, 3:] = x[:, :1, 3:]
    return jnp.asarray(x, jnp.float32)


@pytest.mark.parametrize("shifted", [False, True])
def test_sums_over_points_equal_their_formula(shifted):
    with jax.enable_x64(True):
        points, u = draw(2, 5, 2), draw(2, 5, 3, seed=1)
        transforms = PointTransforms(jnp.asarray(points), MODES, shifted_pairs=shifted)
        k1, k2 = np.arange(-3, 3), np.arange(2)
        phase = points[:, :, :1, None] * k1[None, None, :, None]
        phase = phase + points[:, :, 1:, None] * k2[None, None, None]
        waves = np.exp(2j * np.pi * phase)  # [batch, point, k1, k2]
        c = np.einsum("bnc,bnkl->bklc", u, waves.conj())
        got = np.asarray(transforms.analyse(jnp.asarray(u)))
        np.testing.assert_allclose(got[:, 0] + 1j * got[:, 1], c, atol=1e-12)
        value = np.einsum("bklc,bnkl->bnc", c, waves)
        mirrored = waves[:, :, :, 1:].conj()  # of (-k1, -k2)
        if shifted:  # (-1 - k1, -k2), as the released code has it
            shift = np.exp(-2j * np.pi * points[:, :, 0])
            mirrored = mirrored * shift[:, :, None, None]
        value += np.einsum("bklc,bnkl->bnc", c[:, :, 1:].conj(), mirrored)
        out = transforms.synthesise(jnp.asarray(got))
        np.testing.assert_allclose(out, value.real, atol=1e-12)


@pytest.mark.slow
def test_between_grid_points_it_is_the_spectral_convolution():
    with jax.enable_x64(True):
        options = {"param_dtype": jnp.float64, "rngs": nnx.Rngs(0)}
        layer = PointSpectralConvolution(3, modes=MODES, grid=(9, 8), **options)
        same = SpectralConvolution(3, 3, modes=MODES, layout="li2021", **options)
        nnx.update(same.weights, nnx.state(layer.weights))
        u = jnp.asarray(draw(2, 7, 10, 3))
        grid = np.meshgrid(np.arange(7) / 7, np.arange(10) / 10, indexing="ij")
        points = np.broadcast_to(np.stack(grid, -1).reshape(1, 70, 2), (2, 70, 2))
        transforms = PointTransforms(jnp.asarray(points), MODES)
        out = layer.to_grid(u.reshape(2, 70, 3), transforms, False)
        np.testing.assert_allclose(out, same(u, (9, 8)), atol=1e-15)
        v = jnp.asarray(draw(2, 9, 8, 3))
        out = layer.to_points(v, transforms, False).reshape(2, 7, 10, 3)
        np.testing.assert_allclose(out, same(v, (7, 10)), atol=1e-15)
        sums = layer.to_points(v, transforms, True).reshape(2, 7, 10, 3)
        np.testing.assert_allclose(sums, 72 * out, atol=1e-12)


def test_deformation_equals_its_formula():
    with jax.enable_x64(True):
        layer = Deformation(
            2, code_channels=3, width=8, center=(0.5, 0.2), param_dtype=jnp.float64,
            rngs=nnx.Rngs(0),
        )  # fmt: skip
        p = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(layer)))
        x, code = draw(2, 5, 2), draw(2, 3, seed=1)

        def affine(layer, v):
            return v @ layer["kernel"] + layer["bias"]

        z = x - np.array([0.5, 0.2])
        angle, radius = np.arctan2(z[..., 1], z[..., 0]), np.hypot(z[..., 0], z[..., 1])
        f = np.concatenate([x, angle[..., None], radius[..., None]], -1)
        phases = (f[..., None] * np.pi * np.array([1, 2])).reshape(2, 5, 8)
        v = [np.repeat(affine(p["code"], code)[:, None], 5, 1)]
        v += [affine(p["features"], f), np.sin(phases), np.cos(phases)]
        v = np.concatenate(v, -1)
        for i in range(3):
            v = np.tanh(affine(p["hidden"][i], v))
        expected = x * (1 + affine(p["output"], v))
        out = nnx.jit(lambda layer, *a: layer(*a))(
            layer, jnp.asarray(x), jnp.asarray(code)
        )
        np.testing.assert_allclose(out, expected, atol=1e-12)


@pytest.mark.slow
def test_order_of_points_does_not_matter_and_repeated_points_change_nothing(model):
    x = cloud()
    out = apply(model, x)
    assert out.shape == (2, 11, 2)
    np.testing.assert_allclose(apply(model, x[:, ::-1])[:, ::-1], out, atol=1e-5)
    twice = apply(model, jnp.concatenate([x, x], 1))
    np.testing.assert_allclose(twice[:, 11:], out, atol=1e-5)
    changed = apply(model, x.at[0, :, 3:].add(1.0))
    assert np.abs(changed[0] - out[0]).max() > 1e-4  # the code acts
    np.testing.assert_allclose(changed[1], out[1], atol=1e-6)


@pytest.mark.slow
def test_gradient_reaches_all_but_the_dead_parameters(model):
    r = jnp.asarray(draw(2, 11, 2, seed=1), jnp.float32)
    loss = nnx.jit(nnx.grad(lambda model, x: jnp.vdot(r, model(x))))
    gradient = nnx.to_pure_dict(loss(model, cloud()))
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.any(leaf), jax.tree_util.keystr(path)


def test_three_coordinates_and_no_code():
    model = abstract(
        latent_grid=(6, 6, 8), modes=(2, 2, 2), in_channels=4, code_channels=0,
        coordinate_skips=False, geofno_compat=True,
    )  # fmt: skip
    out = nnx.eval_shape(lambda m, x: m(x), model, jnp.zeros((2, 7, 4)))
    assert out.shape == (2, 7, 2)
    assert (model.in_channels, model.num_axes, model.takes_points) == (4, 1, True)


def test_counts_of_the_released_modules():
    official = {"latent_grid": (96, 96), "modes": (12, 12), "channels": 32,
                "num_heads": 8, "num_tokens": 4, "num_basis": 12, "num_scales": 5,
                "patches_per_axis": 16, "out_channels": 1, "norm": "batch"}  # fmt: skip
    model = abstract(**official, in_channels=44, code_channels=42)

    def count(module):
        return sum(p.size for p in jax.tree.leaves(nnx.state(module, nnx.Param)))

    deformation = count(model.deformation)
    imaginary = count(model.spectral_in) // 2 + count(model.spectral_out) // 2
    assert count(model) - deformation - imaginary == 5_402_785
    assert deformation + 96 * 128 + 128 == 63_746  # a layer that it never uses


def test_groups_of_norm_group_reach_the_backbone():
    model = abstract(norm="group", num_groups=2)
    norms = [norm for block in model.backbone.down for norm in block.norms]
    assert {norm.num_groups for norm in norms} == {2}


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match="in_channels must hold 2 coordinates and 3"):
        abstract(in_channels=4)
    with pytest.raises(ValueError, match=r"the next grid that fits is \(10, 10\)"):
        abstract(latent_grid=(10, 9))
    with pytest.raises(ValueError, match=r"twice the modes \(5, 2\)"):
        abstract(modes=(5, 2))
    with pytest.raises(ValueError, match="two coordinates and center"):
        abstract(center=(0.5,))
    with pytest.raises(ValueError, match=r"shape \[batch, points, 6\], coordinates"):
        abstract()(jnp.zeros((2, 7, 5)))
