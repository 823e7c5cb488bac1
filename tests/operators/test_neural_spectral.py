import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from operators.layers.neural_spectral import (
    NeuralSpectralBlock,
    join_patches,
    split_patches,
)

PATCH, GRID = (2, 3), (4, 9)


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def create(channels=8, *, seed=0, **options):
    options = {"num_heads": 4, "num_tokens": 3, "num_basis": 5} | options
    block = NeuralSpectralBlock(channels, rngs=nnx.Rngs(0), **options)
    # Of the official size latents stay near zero, and the series is almost a constant.
    for i, weight in enumerate((block.sine, block.cosine, block.queries)):
        values = draw(*weight.shape, seed=seed + i)
        weight.set_value(jnp.asarray(values, weight.dtype))
    return block


@pytest.fixture(scope="module")
def apply():
    """One compiled function for all calls with the same shapes."""
    return nnx.jit(lambda block, u: block(u, PATCH))


def by_hand(block, u, patch, *, integer=False):
    """Loops over samples, patches, heads and tokens, with NumPy."""
    p = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(block)))
    heads, tokens, d = p["queries"].shape
    out = np.array(u)
    for b, i, j in np.ndindex(len(u), u.shape[1] // patch[0], u.shape[2] // patch[1]):
        rows = slice(i * patch[0], (i + 1) * patch[0])
        columns = slice(j * patch[1], (j + 1) * patch[1])
        x = u[b, rows, columns].reshape(-1, u.shape[-1])
        kv = x @ p["key_value"]["kernel"] + p["key_value"]["bias"]
        q = x @ p["query"]["kernel"] + p["query"]["bias"]
        new = np.zeros_like(x)
        for h in range(heads):
            s = slice(h * d, (h + 1) * d)
            keys, values = kv[:, : heads * d][:, s], kv[:, heads * d :][:, s]
            z = np.zeros((tokens, d))
            for t in range(tokens):
                w = np.exp(keys @ p["queries"][h, t])
                z[t] = w @ values / w.sum() + p["queries"][h, t]
            series = np.zeros_like(z)
            num = p["sine"].shape[1]
            for k in range(num):
                f = k if integer else k / num
                series += p["sine"][s, k] * np.sin(np.pi * f * z)
                series += p["cosine"][s, k] * np.cos(np.pi * f * z)
            z = z + series
            w = np.exp(q[:, s] @ z.T)
            new[:, s] = w @ z / w.sum(1, keepdims=True)
        out[b, rows, columns] += new.reshape(*patch, -1)
    return out


@pytest.mark.parametrize("basis", ["official", "integer"])
def test_block_equals_its_formula(basis):
    with jax.enable_x64(True):
        block = create(basis=basis, param_dtype=jnp.float64)
        u = draw(2, *GRID, 8)
        out = nnx.jit(lambda block, u: block(u, PATCH))(block, jnp.asarray(u))
        expected = by_hand(block, u, PATCH, integer=basis == "integer")
        np.testing.assert_allclose(out, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("grid", "patch"), [((6,), (2,)), ((4, 9), (2, 3)), ((4, 6, 2), (2, 3, 1))]
)
def test_patches_hold_neighbours_and_go_back(grid, patch):
    u = np.arange(2 * np.prod(grid) * 3).reshape(2, *grid, 3)
    patches = split_patches(u, patch)
    first = u[(0, *(slice(p) for p in patch))].reshape(-1, 3)
    np.testing.assert_array_equal(patches[0, 0], first)
    last = u[(1, *(slice(-p, None) for p in patch))].reshape(-1, 3)
    np.testing.assert_array_equal(patches[1, -1], last)
    np.testing.assert_array_equal(join_patches(patches, grid, patch), u)


@pytest.mark.slow
def test_points_of_a_patch_may_be_permuted(apply):
    block, u = create(), draw(1, *GRID, 8).astype(np.float32)
    order = np.random.default_rng(1).permutation(6)
    patches = split_patches(u, PATCH)
    moved = join_patches(patches[:, :, order], GRID, PATCH)
    out = split_patches(apply(block, moved), PATCH)
    expected = split_patches(apply(block, u), PATCH)[:, :, order]
    np.testing.assert_allclose(out, expected, atol=1e-5)


def test_patches_do_not_see_each_other(apply):
    block, u = create(), draw(1, *GRID, 8).astype(np.float32)
    changed = u.copy()
    changed[0, 2, 4] += 1  # in the patch of rows 2, 3 and columns 3, 4, 5
    difference = np.abs(apply(block, changed) - apply(block, u)).max((0, 3))
    assert (difference[2:, 3:6] > 1e-3).all()
    difference[2:, 3:6] = 0
    assert difference.max() == 0


def test_series_is_periodic_and_nothing_without_weights():
    with jax.enable_x64(True):
        block, z = create(param_dtype=jnp.float64), jnp.asarray(draw(1, 2, 3, 8))
        series = nnx.jit(lambda block, z: block.series(z))
        first = series(block, z)
        np.testing.assert_allclose(series(block, z + 10), first, atol=1e-12)
        assert np.abs(series(block, z + 5) - first).max() > 0.1
        for weight in (block.sine, block.cosine):
            weight.set_value(jnp.zeros_like(weight[...]))
        assert not np.any(series(block, z))


def test_gradient_reaches_all_but_the_dead_parameters():
    block, u = create(), draw(1, *GRID, 8).astype(np.float32)
    r = jnp.asarray(draw(1, *GRID, 8, seed=5).astype(np.float32))
    loss = nnx.jit(nnx.grad(lambda block, u: jnp.vdot(r, block(u, PATCH))))
    gradient = jax.tree.map(np.asarray, nnx.to_pure_dict(loss(block, u)))
    assert not np.any(gradient["sine"][:, 0])
    assert not np.any(gradient["key_value"]["bias"][:8])  # keys
    gradient["sine"] = gradient["sine"][:, 1:]
    gradient["key_value"]["bias"] = gradient["key_value"]["bias"][8:]
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.all(leaf != 0), jax.tree_util.keystr(path)


def test_one_token_adds_one_vector_per_patch():
    block, u = create(num_tokens=1), draw(1, *GRID, 8).astype(np.float32)
    added = split_patches(
        np.asarray(nnx.jit(lambda block, u: block(u, PATCH))(block, u)) - u, PATCH
    )
    np.testing.assert_allclose(
        added, np.broadcast_to(added[:, :, :1], added.shape), atol=1e-5
    )
    assert np.abs(added[:, 1] - added[:, 0]).max() > 1e-3


def test_weights_start_as_in_the_released_code():
    options = {"num_heads": 4, "num_tokens": 3, "num_basis": 5}
    block = NeuralSpectralBlock(8, rngs=nnx.Rngs(0), **options)
    weights = [np.asarray(w).ravel() for w in (block.sine, block.cosine, block.queries)]
    values = np.sort(np.concatenate(weights)) * 8  # uniform on [0, 1)
    quantiles = (np.arange(len(values)) + 0.5) / len(values)
    assert np.abs(values - quantiles).max() < 0.2


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match="basis is 'fourier'; known: official"):
        create(basis="fourier")
    with pytest.raises(ValueError, match="multiple of num_heads"):
        create(10)
    with pytest.raises(ValueError, match=r"patches of \(2, 3\) points do not tile"):
        split_patches(np.zeros((1, 4, 8, 1)), (2, 3))
