import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from operators.layers import activations

Z = np.linspace(-3, 3, 25) + 0.01


def gelu(z):
    return 0.5 * z * (1 + scipy.special.erf(z / np.sqrt(2)))


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


EXACT = {
    "gelu": gelu,
    "relu": lambda z: np.maximum(z, 0),
    "silu": lambda z: z * sigmoid(z),
    "tanh": np.tanh,
}


@pytest.mark.parametrize("name", EXACT)
def test_values_and_derivatives_of_all_modes(name):
    h = 1e-5
    slope = (EXACT[name](Z + h) - EXACT[name](Z - h)) / (2 * h)
    bend = (EXACT[name](Z + h) - 2 * EXACT[name](Z) + EXACT[name](Z - h)) / h**2
    fn = activations.get(name)
    with jax.enable_x64(True):
        z = jnp.asarray(Z)
        np.testing.assert_allclose(fn(z), EXACT[name](Z), atol=1e-14)
        reverse = jax.grad(lambda z: fn(z).sum())
        np.testing.assert_allclose(jax.jit(reverse)(z), slope, atol=1e-8)
        forward = jax.jvp(fn, (z,), (jnp.ones_like(z),))[1]
        np.testing.assert_allclose(forward, slope, atol=1e-8)
        second = jax.vmap(jax.grad(jax.grad(fn)))(z)
        np.testing.assert_allclose(second, bend, atol=1e-4)


def test_gelu_in_single_precision_is_right_to_the_documented_absolute_error():
    z = np.linspace(-20, 20, 4001).astype(np.float32)
    error = np.abs(activations.gelu(z) - gelu(z.astype(np.float64)))
    assert np.all(error <= 3e-7 * np.maximum(1, np.abs(z)))


def test_rejects_an_unknown_name():
    with pytest.raises(ValueError, match="activation is 'swish'; known: gelu, relu"):
        activations.get("swish")
