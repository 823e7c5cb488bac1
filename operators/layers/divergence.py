"""Projection of vector fields on those without divergence."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np


def leray_projection(spectrum, frequencies: Sequence[np.ndarray], lengths=(1.0, 1.0)):
    """Removes the gradient part, w = u - k (k . u) / |k|^2; k = 0 stays.

    Exact for frequencies below Nyquist, whatever the time; it commutes with time.

    Args:
        spectrum: complex [..., k1, k2, time, 2], or real and imaginary parts of it.
        frequencies: integer frequencies of the two axes.
        lengths: sides of the periodic domain.

    Returns:
        The projected spectrum, of the same shape and dtype.

    Raises:
        ValueError: if the last axis does not hold two components.
    """
    if spectrum.shape[-1] != 2:
        raise ValueError(
            "the projection needs two components on the last axis, got shape "
            f"{spectrum.shape}"
        )
    k1, k2 = (k / size for k, size in zip(frequencies, lengths, strict=True))
    k = np.stack(np.meshgrid(k1, k2, indexing="ij"), -1)
    square = (k**2).sum(-1, keepdims=True)
    # The part along k of a unit vector, [k1, k2, 1, 2, 2].
    along = (
        k[..., :, None] * k[..., None, :] / np.where(square > 0, square, 1)[..., None]
    )
    across = np.eye(2) - along
    dtype = spectrum.real.dtype
    across = jnp.asarray(across[:, :, None], dtype)
    across = across.reshape((1,) * (spectrum.ndim - 4) + across.shape)
    first, second = spectrum[..., :1], spectrum[..., 1:]
    return first * across[..., 0, :] + second * across[..., 1, :]
