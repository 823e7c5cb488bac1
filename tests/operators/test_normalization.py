import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from flax import nnx

from operators.layers import normalization
from operators.layers.normalization import ConditionalNorm, GroupNorm

GRIDS = [(7,), (4, 5), (3, 4, 5)]
AXES = {  # of u with its channels in 2 groups, [batch, *grid, group, channel]
    "batch": lambda dims: (0, *range(1, dims + 1)),
    "instance": lambda dims: tuple(range(1, dims + 1)),
    "instance_affine": lambda dims: tuple(range(1, dims + 1)),
    "group": lambda dims: (*range(1, dims + 1), dims + 2),
    "layer": lambda dims: (dims + 1, dims + 2),
}


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(3, 2, size=shape)


def create(kind, channels=6, **options):
    dtype = jnp.asarray(0.0).dtype
    return normalization.create(
        kind, channels, param_dtype=dtype, rngs=nnx.Rngs(0), **options
    )


@pytest.mark.parametrize("grid", GRIDS)
def test_kinds_equal_their_formula(grid):
    with jax.enable_x64(True):
        norms, u = {k: create(k, num_groups=2) for k in AXES}, draw(3, *grid, 6)
        scale, bias = draw(6, seed=1), draw(6, seed=2)
        for kind, norm in norms.items():
            if kind != "instance":
                norm.scale[...], norm.bias[...] = jnp.asarray(scale), jnp.asarray(bias)
        outs = nnx.jit(lambda norms, u: {k: n(u) for k, n in norms.items()})(norms, u)
        for kind, out in outs.items():
            groups, axes = u.reshape(3, *grid, 2, 3), AXES[kind](len(grid))
            mean = groups.mean(axes, keepdims=True)
            variance = ((groups - mean) ** 2).mean(axes, keepdims=True)
            expected = ((groups - mean) / np.sqrt(variance + 1e-5)).reshape(u.shape)
            if kind != "instance":
                expected = expected * scale + bias
            np.testing.assert_allclose(out, expected, atol=1e-12, err_msg=kind)


def test_none_is_the_identity():
    u = jnp.ones((2, 3, 4))
    assert create("none")(u) is u


def test_batch_statistics_are_recorded_in_training_and_used_in_evaluation():
    with jax.enable_x64(True):
        norm, u = create("batch"), draw(3, 4, 5, 6)
        norm.train()
        norm(jnp.asarray(u))
        mean, variance = u.mean((0, 1, 2)), u.var((0, 1, 2))
        np.testing.assert_allclose(norm.mean[...], 0.1 * mean, rtol=1e-12)
        np.testing.assert_allclose(norm.var[...], 0.9 + 0.1 * variance, rtol=1e-12)
        assert type(norm.mean) is nnx.BatchStat
        norm.eval()
        v = draw(2, 4, 5, 6, seed=1)
        expected = (v - 0.1 * mean) / np.sqrt(0.9 + 0.1 * variance + 1e-5)
        np.testing.assert_allclose(norm(jnp.asarray(v)), expected, atol=1e-12)
        np.testing.assert_allclose(norm.mean[...], 0.1 * mean, rtol=1e-12)


def test_variance_survives_a_large_mean():
    u = jnp.asarray(np.round(draw(2, 8, 8, 4) * 2**8) / 2**8, jnp.float32)
    for kind in AXES:
        norm = normalization.create(kind, 4, rngs=nnx.Rngs(0))
        np.testing.assert_allclose(norm(u + 2.0**13), norm(u), atol=2e-3)


def test_running_statistics_keep_their_dtype():
    norm = normalization.create("batch", 4, rngs=nnx.Rngs(0))
    out = norm(jnp.ones((2, 3, 4), jnp.bfloat16))
    assert out.dtype == jnp.bfloat16
    assert norm.mean[...].dtype == jnp.float32
    with jax.enable_x64(True):
        assert norm(jnp.ones((2, 3, 4), jnp.float64)).dtype == jnp.float64
        assert norm.mean[...].dtype == jnp.float32


def test_affine_per_point_is_tied_to_the_grid():
    with jax.enable_x64(True):
        norm = GroupNorm(
            3, affine_grid=(4, 5), param_dtype=jnp.float64, rngs=nnx.Rngs(0)
        )
        assert norm.scale.shape == (4, 5, 3)
        norm.scale[...] = jnp.asarray(draw(4, 5, 3, seed=1))
        u = draw(2, 4, 5, 3)
        mean, variance = u.mean((1, 2, 3)), u.var((1, 2, 3))
        expected = (u - mean[:, None, None, None]) * np.asarray(norm.scale[...])
        expected = expected / np.sqrt(variance + 1e-5)[:, None, None, None]
        np.testing.assert_allclose(norm(jnp.asarray(u)), expected, atol=1e-12)


def test_condition_sets_scale_and_shift_of_each_sample():
    with jax.enable_x64(True):
        norm = ConditionalNorm(
            4, 3, hidden=5, param_dtype=jnp.float64, rngs=nnx.Rngs(0)
        )
        u, embedding = jnp.asarray(draw(2, 6, 7, 4)), jnp.asarray(draw(2, 3, seed=1))
        out = nnx.jit(lambda norm, *args: norm(*args))(norm, u, embedding)
        v = np.asarray(embedding)
        for layer in (norm.mlp.inner, norm.mlp.outer):
            v = v @ np.asarray(layer.kernel) + np.asarray(layer.bias)
            if layer is norm.mlp.inner:
                v = v * (1 + scipy.special.erf(v / np.sqrt(2))) / 2
        scale, shift = v[:, None, None, :4], v[:, None, None, 4:]
        u = np.asarray(u)
        mean, variance = u.mean((1, 2), keepdims=True), u.var((1, 2), keepdims=True)
        expected = (u - mean) / np.sqrt(variance + 1e-5) * (1 + scale) + shift
        np.testing.assert_allclose(out, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("batch", (1, 1, 1, 4)),
        ("instance", (3, 1, 1, 4)),
        ("instance_affine", (3, 1, 4)),
        ("layer", (3, 5, 1)),
    ],
)
def test_statistics_of_a_single_value_are_refused(kind, shape):
    def apply(*shape):
        return nnx.eval_shape(lambda: create(kind, shape[-1])(jnp.ones(shape)))

    with pytest.raises(ValueError, match="more than one value per mean"):
        apply(*shape)
    assert apply(2, 2, *shape[2:-1], 4).shape == (2, 2, *shape[2:-1], 4)


def test_recorded_statistics_take_a_single_value():
    def evaluate():
        norm = create("batch", 4)
        norm.eval()
        return norm(jnp.ones((1, 1, 4)))

    assert nnx.eval_shape(evaluate).shape == (1, 1, 4)


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match="'groop'; known: none, batch"):
        create("groop")
    with pytest.raises(ValueError, match="divide the 6 channels, got 4"):
        create("group", num_groups=4)
    norm = ConditionalNorm(4, 3, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"embedding must have shape \(2, 3\)"):
        norm(jnp.ones((2, 5, 4)), jnp.ones((2, 4)))
    with pytest.raises(ValueError, match="batch, \\*grid, channels"):
        create("group", 6)(jnp.ones((2, 6)))
