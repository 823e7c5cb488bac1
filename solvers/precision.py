"""The one check that a float64 solver really runs in float64."""

import jax


def require_x64(what: str) -> None:
    """Raises unless this process runs JAX in 64 bit.

    JAX silently computes in float32 otherwise, where a relative residual of 1e-8 is
    out of reach.

    Args:
        what: the caller's name, for the message.

    Raises:
        RuntimeError: if `jax_enable_x64` is off.
    """
    if not jax.config.jax_enable_x64:
        raise RuntimeError(
            f"{what} computes in float64, but JAX runs in 32 bit: call "
            'jax.config.update("jax_enable_x64", True) first, or set JAX_ENABLE_X64=1'
        )
