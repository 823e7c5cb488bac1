import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from flax import nnx

from operators import models
from operators.layers.unet import UNetBackbone, max_pool

SMALL = {"in_channels": 2, "out_channels": 3, "channels": 4, "num_scales": 2}
BLOCKS = {"num_heads": 2, "num_tokens": 2, "num_basis": 3, "patches_per_axis": 4}
GRID = (5, 7)  # padded to 6 x 8, by the blocks to 8 x 8


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def create(name, dtype=jnp.float32, **hparams):
    """A small model with random numbers everywhere, drawn without compiling."""
    hparams = SMALL | (BLOCKS if name == "lsm" else {}) | hparams
    graph, state = nnx.split(abstract(name, param_dtype=dtype, **hparams))
    leaves, tree = jax.tree.flatten(state)
    values = [0.4 * draw(*leaf.shape, seed=i) for i, leaf in enumerate(leaves)]
    values = [jnp.asarray(v, x.dtype) for v, x in zip(values, leaves, strict=True)]
    model = nnx.merge(graph, jax.tree.unflatten(tree, values))
    for _, node in nnx.iter_graph(model):
        if isinstance(node, nnx.BatchStat):
            node.set_value(jnp.abs(node[...]))  # means too, which may be negative
    return model


def abstract(name, **hparams):
    return nnx.eval_shape(lambda: models.create(name, rngs=nnx.Rngs(0), **hparams))


def count(model):
    return sum(p.size for p in jax.tree.leaves(nnx.state(model, nnx.Param)))


def shape_of_output(model, *shape):
    return nnx.eval_shape(lambda m, x: m(x), model, jnp.zeros(shape)).shape


apply = nnx.jit(lambda model, x: model(x))


@pytest.mark.parametrize(
    ("num_axes", "width", "inputs"), [(1, 16, 1), (2, 16, 3), (3, 8, 2)]
)
def test_counts_follow_the_closed_formula(num_axes, width, inputs):
    hparams = {
        "in_channels": inputs, "out_channels": 2, "num_axes": num_axes,
        "channels": width,
    }  # fmt: skip
    M, T, w = 12, 4, width
    unet = (469 * 3**num_axes + 1) * w**2 + 139 * w
    unet += (inputs + num_axes) * w + w + 128 * w + 128 + 128 * 2 + 2
    assert count(abstract("unet", **hparams)) == unet
    blocks = 447 * w**2 + 23 * w * (3 + 2 * M + T)
    assert count(abstract("lsm", **hparams)) == unet + blocks


@pytest.fixture(scope="module")
def official():
    """LSM by number of axes, with 16 channels and shapes only."""
    hparams = {"in_channels": 1, "out_channels": 2, "channels": 16}
    return {d: abstract("lsm", num_axes=d, **hparams) for d in (1, 2, 3)}


@pytest.mark.parametrize(
    ("grid", "padded", "patch"),
    [
        ((41, 41), (48, 48), (3, 3)),
        ((101, 31, 20), (112, 32, 32), (7, 2, 2)),
        ((64, 64), (64, 64), (4, 4)),
        ((85, 85), (96, 96), (6, 6)),
        ((221, 51), (224, 64), (14, 4)),
        ((129, 129), (144, 144), (9, 9)),
        ((64, 50), (64, 64), (4, 4)),
    ],
)
def test_patches_and_padding_are_the_official_ones(official, grid, padded, patch):
    model = official[len(grid)]
    assert model.patch(grid) == patch
    assert model.padded_grid(grid) == padded
    assert shape_of_output(model, 2, *grid, 1) == (2, *grid, 2)


def test_patches_cover_the_same_part_of_the_domain_to_within_a_point(official):
    for n in (40, 80, 160):  # exactly the same where 16 divides the points
        assert official[2].patch((16 * n, 32 * n)) == (n, 2 * n)
    lengths = {33: 1.45, 85: 1.13, 141: 1.02, 211: 1.06, 421: 1.03}
    for n, length in lengths.items():  # of a patch, in sixteenths of the domain
        (points,) = official[1].patch((n,))
        assert round(16 * points / n, 2) == length
        assert 0 <= points - n / 16 < 1
    assert official[2].padded_grid((85, 421)) == (96, 432)
    fixed = abstract("lsm", **SMALL, **BLOCKS, patch_size=(5, 7))
    assert fixed.patch((85, 421)) == (5, 7)
    assert fixed.padded_grid((85, 421)) == (90, 434)


@pytest.mark.parametrize("name", ["unet", "lsm"])
def test_groups_of_norm_group_reach_every_scale(name):
    hparams = SMALL | (BLOCKS if name == "lsm" else {}) | {"norm": "group"}
    one, two = abstract(name, **hparams), abstract(name, **hparams, num_groups=2)
    assert count(one) == count(two)
    for model, groups in ((one, 1), (two, 2)):
        blocks = [*model.backbone.down, *model.backbone.up]
        assert {n.num_groups for block in blocks for n in block.norms} == {groups}
    with pytest.raises(ValueError, match="num_groups must divide the 4 channels"):
        abstract(name, **hparams, num_groups=3)


def unet_by_hand(model, x):
    """The forward pass in training mode: taps, statistics and corners one by one."""
    p = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model)))

    def affine(layer, v):
        return v @ layer["kernel"] + layer["bias"]

    def double(block, v):
        for i in range(2):
            kernel, norm = block["convolutions"][i]["kernel"], block["norms"][i]
            n1, n2 = v.shape[1:3]
            wide = np.pad(v, ((0, 0), (1, 1), (1, 1), (0, 0)))
            v = sum(
                wide[:, s : s + n1, t : t + n2] @ kernel[s, t]
                for s, t in np.ndindex(3, 3)
            )
            v = (v - v.mean((0, 1, 2))) / np.sqrt(v.var((0, 1, 2)) + 1e-5)
            v = np.maximum(v * norm["scale"] + norm["bias"], 0)
        return v

    def double_grid(v):
        for axis in (1, 2):
            n = v.shape[axis]
            at = np.linspace(0, n - 1, 2 * n)
            line = functools.partial(np.interp, at, np.arange(n))
            v = np.apply_along_axis(line, axis, v)
        return v

    grid = [np.linspace(0, 1, n) for n in x.shape[1:3]]
    grid = np.stack(np.meshgrid(*grid, indexing="ij"), -1)
    grid = np.broadcast_to(grid, (*x.shape[:3], 2))
    v = affine(p["lifting"], np.concatenate([x, grid], -1))
    v = np.pad(v, ((0, 0), (0, 6 - x.shape[1]), (0, 8 - x.shape[2]), (0, 0)))
    backbone, skips = p["backbone"], []
    for scale in range(2):
        if scale:
            cells = v.reshape(len(v), v.shape[1] // 2, 2, v.shape[2] // 2, 2, -1)
            v = cells.max((2, 4))
        v = double(backbone["down"][scale], v)
        skips.append(v)
    v = np.concatenate([skips[0], double_grid(v)], -1)
    v = double(backbone["up"][0], v)
    v = affine(backbone["projection"], v)[:, : x.shape[1], : x.shape[2]]
    v = affine(p["projection"]["inner"], v)
    v = v * (1 + scipy.special.erf(v / np.sqrt(2))) / 2
    return affine(p["projection"]["outer"], v)


@pytest.fixture(scope="module")
def unet():
    """A U-Net in float64 whose normalisations scale and shift."""
    with jax.enable_x64(True):
        return create("unet", jnp.float64)


def test_unet_equals_its_formula(unet):
    with jax.enable_x64(True):
        x = draw(2, *GRID, 2)
        out = apply(nnx.clone(unet), jnp.asarray(x))
        np.testing.assert_allclose(out, unet_by_hand(unet, x), rtol=1e-9, atol=1e-12)


def test_evaluation_treats_every_sample_alone(unet):
    with jax.enable_x64(True):
        model, x = nnx.clone(unet), jnp.asarray(draw(2, *GRID, 2))
        doubled = x.at[1].multiply(2)
        difference = np.abs(apply(model, x)[0] - apply(model, doubled)[0])
        assert difference.max() > 1e-3  # batch statistics
        model.eval()
        first, second = apply(model, x)[0], apply(model, doubled)[0]
        np.testing.assert_allclose(first, second, atol=1e-12)


@pytest.mark.slow
def test_lsm_is_the_unet_with_blocks_on_its_skips(unet):
    with jax.enable_x64(True):
        x = jnp.asarray(draw(2, 8, 7, 2))  # padded to 8 x 8 by both
        lsm, unet = create("lsm", jnp.float64), nnx.clone(unet)
        state = nnx.state(unet, nnx.Param)
        nnx.update(lsm, state)
        expected = apply(unet, x)
        assert np.abs(apply(lsm, x) - expected).max() > 1e-3
        for block in lsm.blocks:  # no latent moves and no point reads
            for weight in (
                block.queries, block.cosine, block.key_value.kernel,
                block.key_value.bias,
            ):  # fmt: skip
                weight.set_value(jnp.zeros_like(weight[...]))
        np.testing.assert_allclose(apply(lsm, x), expected, rtol=1e-9)


@pytest.mark.slow
def test_gradient_reaches_all_but_the_dead_parameters():
    x = jnp.asarray(draw(2, *GRID, 2), jnp.float32)
    r = jnp.asarray(draw(2, *GRID, 3, seed=1), jnp.float32)
    loss = nnx.jit(nnx.grad(lambda model, x: jnp.vdot(r, model(x))))
    gradient = nnx.to_pure_dict(loss(create("lsm"), x))
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        text, leaf = jax.tree_util.keystr(path), np.asarray(leaf)
        if "sine" in text and "cosine" not in text:
            assert not np.any(leaf[:, 0]), text
            leaf = leaf[:, 1:]
        if "key_value" in text and "bias" in text:
            keys, leaf = np.split(leaf, 2)
            assert not np.any(keys), text
        assert np.any(leaf), text


@pytest.mark.parametrize("grid", [(9,), (5, 12, 7)])
@pytest.mark.parametrize("name", ["lsm", "unet"])
def test_other_dimensions_map_shapes(name, grid):
    hparams = SMALL | {"num_axes": len(grid)} | (BLOCKS if name == "lsm" else {})
    model = abstract(name, **hparams, norm="instance_affine", lifting_hidden=6)
    assert shape_of_output(model, 2, *grid, 2) == (2, *grid, 3)
    assert (model.in_channels, model.out_channels) == (2, 3)
    assert model.num_axes == len(grid)


def test_pooling_takes_maxima_of_cells():
    u = draw(2, 4, 6, 8, 3)
    expected = u.reshape(2, 2, 2, 3, 2, 4, 2, 3).max((2, 4, 6))
    np.testing.assert_array_equal(
        max_pool(jnp.asarray(u, jnp.float32)), expected.astype(np.float32)
    )


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match="num_axes must be 1, 2 or 3, got 4"):
        create("unet", num_axes=4)
    with pytest.raises(ValueError, match="num_scales must be at least 2, got 1"):
        create("unet", num_scales=1)
    create_small = functools.partial(abstract, **SMALL)
    with pytest.raises(ValueError, match="patches_per_axis must be a multiple of 2"):
        create_small("lsm", **BLOCKS | {"patches_per_axis": 5})
    with pytest.raises(ValueError, match="patch_size must hold 2 positive"):
        create_small("lsm", **BLOCKS, patch_size=(2,))
    model = abstract("lsm", **SMALL, **BLOCKS)
    with pytest.raises(ValueError, match=r"shape \[batch, n1, n2, 2\], got \(1, 5, 2"):
        model(jnp.zeros((1, 5, 2)))
    backbone = nnx.eval_shape(lambda: UNetBackbone(4, num_scales=3, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match="multiples of 4 points per axis, got"):
        backbone(jnp.zeros((1, 8, 6, 4)))
