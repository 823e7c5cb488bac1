import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from operators.layers import convolution as conv
from operators.layers import correlation

NUMPY_MODES = {"zero": "constant", "reflect": "reflect", "wrap": "wrap"}


@pytest.fixture(autouse=True)
def _row_products_on_small_grids(monkeypatch):
    monkeypatch.setattr(correlation, "_ROW_PRODUCTS_FROM", 0)


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def correlate_by_sums(u, kernel, stride, padding):
    """out[i] = sum_t u[stride * i + t - k // 2] kernel[t], tap by tap in NumPy."""
    k = kernel.shape[0]
    if padding != "valid":
        widths = ((0, 0), *[(k // 2, k // 2)] * (u.ndim - 2), (0, 0))
        u = np.pad(u, widths, mode=NUMPY_MODES[padding])
    sizes = [(n - k) // stride + 1 for n in u.shape[1:-1]]
    out = np.zeros((u.shape[0], *sizes, kernel.shape[-1]))
    for taps in np.ndindex(*kernel.shape[:-2]):
        points = [
            slice(t, t + stride * (m - 1) + 1, stride)
            for t, m in zip(taps, sizes, strict=True)
        ]
        out += u[(slice(None), *points)] @ kernel[taps]
    return out


def transpose_by_sums(u, kernel, crop):
    """out[2 j - crop + t] += u[j] kernel[t], tap by tap in NumPy."""
    coarse, sizes = u.shape[1:-1], kernel.shape[:-2]
    fine = [2 * (m - 1) + k for m, k in zip(coarse, sizes, strict=True)]
    full = np.zeros((u.shape[0], *fine, kernel.shape[-1]))
    for taps in np.ndindex(*sizes):
        points = [slice(t, t + 2 * m, 2) for t, m in zip(taps, coarse, strict=True)]
        full[(slice(None), *points)] += u @ kernel[taps]
    return full[(slice(None), *(slice(crop, n - crop) for n in fine))]


def value_and_pullback(fn, u, kernel):
    """fn(u, kernel) and its two gradients against g, compiled as one program."""
    shape = jax.eval_shape(fn, u, kernel).shape
    g = draw(*shape, seed=2)

    def run(u, kernel):
        out, pull = jax.vjp(fn, u, kernel)
        return out, *pull(g)

    return jax.jit(run)(u, kernel)


def lhs_dilated(u, kernel, crop):
    axes = range(kernel.ndim - 2)
    widths = [(k - 1 - crop, k - 1 - crop) for k in kernel.shape[:-2]]
    return lax.conv_general_dilated(
        u, jnp.flip(kernel, axes), (1,) * len(axes), widths,
        lhs_dilation=(2,) * len(axes),
        dimension_numbers=correlation.LAYOUTS[len(axes)],
    )  # fmt: skip


def reference(u, kernel, stride, padding):
    """The same map through XLA's own rules of differentiation."""
    num_axes = kernel.ndim - 2
    if padding != "valid":
        u = conv.pad(u, kernel.shape[0] // 2, padding)
    return lax.conv_general_dilated(
        u, kernel, (stride,) * num_axes, "VALID",
        dimension_numbers=correlation.LAYOUTS[num_axes],
    )  # fmt: skip


@pytest.mark.parametrize("padding", conv.PADDINGS)
@pytest.mark.parametrize(("size", "stride"), [(1, 1), (3, 1), (3, 2), (5, 1)])
@pytest.mark.parametrize("grid", [(8, 7), (9, 6)])
def test_convolution_equals_its_sum_and_its_gradients(padding, size, stride, grid):
    with jax.enable_x64(True):
        u, kernel = draw(2, *grid, 3), draw(size, size, 3, 4, seed=1)
        ours = value_and_pullback(
            lambda u, k: conv.convolve(u, k, stride=stride, padding=padding), u, kernel
        )
        theirs = value_and_pullback(
            lambda u, k: reference(u, k, stride, padding), u, kernel
        )
        np.testing.assert_allclose(
            ours[0], correlate_by_sums(u, kernel, stride, padding), atol=1e-12
        )
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-11)


@pytest.mark.parametrize("crop", [0, 1])
@pytest.mark.parametrize("taps", [(3, 3), (4, 4), (3, 4), (4, 3)])
def test_transposed_convolution_equals_the_zero_insertion_form(taps, crop):
    with jax.enable_x64(True):
        u, kernel = draw(2, 5, 4, 3), draw(*taps, 3, 2, seed=1)
        ours = value_and_pullback(
            lambda u, k: conv.transposed_convolve(u, k, crop=crop), u, kernel
        )
        theirs = value_and_pullback(lambda u, k: lhs_dilated(u, k, crop), u, kernel)
        np.testing.assert_allclose(
            ours[0], transpose_by_sums(u, kernel, crop), atol=1e-12
        )
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-11)


@pytest.mark.parametrize(
    ("grid", "looped"), [((9,), False), ((9,), True), ((5, 4, 6), False)]
)
def test_one_and_three_axes_equal_their_sums_and_gradients(grid, looped):
    d = len(grid)
    u = draw(2, *grid, 2)
    one = functools.partial
    cases = [
        [
            one(fn, stride=stride, padding=padding)
            for fn in (conv.convolve, correlate_by_sums, reference)
        ]
        + [(3,) * d]
        for stride, padding in ((1, "reflect"), (2, "zero"))
    ] + [
        [
            one(fn, crop=1)
            for fn in (conv.transposed_convolve, transpose_by_sums, lhs_dilated)
        ]
        + [taps]
        for taps in ((4,) * d, (3, 4, 3)[:d])
    ]
    with jax.enable_x64(True):
        for fn, by_sums, by_xla, taps in cases:
            kernel = draw(*taps, 2, 3, seed=1)
            theirs = value_and_pullback(by_xla, u, kernel)
            with correlation.inside_loops() if looped else contextlib.nullcontext():
                ours = value_and_pullback(fn, u, kernel)
            np.testing.assert_allclose(ours[0], by_sums(u, kernel), atol=1e-12)
            for a, b in zip(ours, theirs, strict=True):
                np.testing.assert_allclose(a, b, atol=1e-11)


def test_kernel_gradients_inside_loops_are_products(monkeypatch):
    monkeypatch.setattr(correlation, "_ROW_PRODUCTS_FROM", float("inf"))
    u, kernel = jnp.ones((2, 6, 5, 2)), jnp.ones((3, 3, 2, 2))

    def num_products():
        gradient = jax.grad(lambda k: jnp.sum(conv.convolve(u, k) ** 2))
        return str(jax.make_jaxpr(gradient)(kernel)).count("dot_general")

    assert num_products() == 0
    with correlation.inside_loops():
        assert num_products() > 0


def test_refuses_to_reflect_more_points_than_there_are():
    with pytest.raises(ValueError, match=r"needs 2 points per axis, got grid \(1, 4\)"):
        conv.pad(jnp.ones((1, 1, 4, 2)), 1, "reflect")


@pytest.mark.parametrize("taps", [3, 4])
def test_wrap_pads_the_coarse_field_and_crops_two(taps):
    u, kernel = draw(1, 4, 5, 2), draw(taps, taps, 2, 3, seed=1)
    padded = np.pad(u, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="wrap")
    expected = transpose_by_sums(padded, kernel, 1)[:, 2:-2, 2:-2]
    out = conv.transposed_convolve(
        jnp.asarray(u, jnp.float32), jnp.asarray(kernel, jnp.float32),
        crop=1, padding="wrap",
    )  # fmt: skip
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)


def test_restriction_transposes_to_prolongation():
    with jax.enable_x64(True):
        u, v, kernel = draw(1, 9, 7, 2), draw(1, 5, 4, 3, seed=1), draw(3, 3, 2, 3)
        down = conv.convolve(u, kernel, stride=2)
        up = conv.transposed_convolve(v, kernel.transpose(0, 1, 3, 2), crop=1)
        np.testing.assert_allclose(np.vdot(down, v), np.vdot(u, up), rtol=1e-12)


def test_second_derivatives():
    with jax.enable_x64(True):
        u, kernel = draw(1, 6, 5, 2), draw(3, 3, 2, 2, seed=1)

        def loss(kernel, apply):
            return jnp.sum(apply(u, kernel) ** 3)

        def curvature(apply):
            slope = jax.grad(loss)
            return jax.jit(jax.grad(lambda k: jnp.sum(slope(k, apply) ** 2)))(kernel)

        for stride in (1, 2):
            np.testing.assert_allclose(
                curvature(lambda u, k, s=stride: conv.convolve(u, k, stride=s)),
                curvature(lambda u, k, s=stride: reference(u, k, s, "zero")),
                rtol=1e-10,
            )


def test_initialisation_is_pytorchs():
    rngs = nnx.Rngs(0)
    layer = conv.Convolution(8, 32, 3, use_bias=True, rngs=rngs)
    up = conv.TransposedConvolution(8, 32, (4, 4), rngs=rngs)
    for value, fan_in in (
        (layer.kernel[...], 8 * 9), (layer.bias[...], 8 * 9), (up.kernel[...], 32 * 16)
    ):  # fmt: skip
        bound = fan_in**-0.5
        assert np.abs(value).max() <= bound
        np.testing.assert_allclose(np.abs(value).max(), bound, rtol=0.1)
    np.testing.assert_allclose(np.var(layer.kernel[...]) * 72, 1 / 3, rtol=0.1)


def test_rejects_settings_that_do_not_exist():
    with pytest.raises(ValueError, match=r"padding is 'same'; known: zero"):
        conv.Convolution(1, 1, 3, padding="same", rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="kernel_size must be odd, got 4"):
        conv.Convolution(1, 1, 4, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="num_axes must be 1, 2 or 3, got 4"):
        conv.Convolution(1, 1, 3, num_axes=4, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="must hold 3 or 4"):
        conv.TransposedConvolution(1, 1, (2, 4), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="known: zero, wrap"):
        conv.TransposedConvolution(1, 1, (4, 4), padding="reflect", rngs=nnx.Rngs(0))
