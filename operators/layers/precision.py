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


def check_floating(name: str, x: jax.Array) -> None:
    """Refuses input in whose dtype the weights of a network would be truncated.

    Args:
        name: what the caller calls x.
        x: array of any shape.

    Raises:
        TypeError: if x does not hold real floating-point numbers.
    """
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"{name} must hold floating-point numbers, got {x.dtype}; convert it with "
            f"{name}.astype('float32'), complex fields as two real channels"
        )


def at_least_float32(x: jax.Array) -> jax.Array:
    """Returns x in its dtype or, of less than 32 bits, which no FFT takes, float32."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


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
            gradients, and adds up in the dtype of a. It has reverse mode only:
            `jax.jvp`, `jax.jacfwd` and Hessian products of forward mode raise.
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
