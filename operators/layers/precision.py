"""Products of real arrays in a chosen precision."""

import functools

import jax
import jax.numpy as jnp

PRECISIONS = ("full", "default", "bfloat16")


def check(precision: str) -> str:
    """Returns `precision`.

    Raises:
        ValueError: for an unknown name.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}; known: {', '.join(PRECISIONS)}")
    return precision


def einsum(subscripts: str, a: jax.Array, b: jax.Array, precision: str) -> jax.Array:
    """Contracts two arrays; the result and both gradients keep the dtype of a.

    Every letter must stand in two of the three terms, and b has the dtype of a.

    Args:
        subscripts: as for `jnp.einsum`, written out with an arrow.
        a: first factor.
        b: second factor.
        precision: "full" computes in the dtype of a on every back end; "default" as
            the back end likes (TF32 on GPU, bfloat16 on TPU, on CPU the same as
            "full"); "bfloat16" rounds both factors to bfloat16, here and in the
            gradients, and adds up in the dtype of a.
    """
    if precision == "bfloat16":
        return _bfloat16(subscripts, a, b)
    exact = jax.lax.Precision.HIGHEST if precision == "full" else None
    return jnp.einsum(subscripts, a, b, precision=exact)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _bfloat16(subscripts, a, b):
    low = (x.astype(jnp.bfloat16) for x in (a, b))
    return jnp.einsum(subscripts, *low, preferred_element_type=a.dtype)


def _backward(subscripts, saved, g):
    a, b = saved
    factors, out = subscripts.split("->")
    first, second = factors.split(",")
    da = _bfloat16(f"{out},{second}->{first}", g, b)
    return da, _bfloat16(f"{first},{out}->{second}", a, g)


# The rule of JAX would multiply the float32 cotangent with the bfloat16 factor.
_bfloat16.defvjp(lambda s, a, b: (_bfloat16(s, a, b), (a, b)), _backward)
