"""Activation functions by name, so that configs stay literal."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

_ACTIVATIONS = {
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "tanh": jnp.tanh,
}


def get(name: str) -> Callable[[jax.Array], jax.Array]:
    """Returns the activation called `name`; "gelu" is the exact one, with erf.

    Raises:
        ValueError: for an unknown name.
    """
    if name not in _ACTIVATIONS:
        raise ValueError(f"activation is {name!r}; known: {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]
