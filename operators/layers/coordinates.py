"""Coordinates of the grid points as channels."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

KINDS = ("grid", "periodic", "none")


def num_channels(kind: str, num_axes: int) -> int:
    """How many channels `append` adds.

    Raises:
        ValueError: for an unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f"coordinates is {kind!r}; known: {', '.join(KINDS)}")
    return {"grid": 1, "periodic": 2, "none": 0}[kind] * num_axes


def append(
    x: jax.Array,
    kind: str,
    *,
    endpoint: bool = False,
    length: float | Sequence[float] = 1.0,
) -> jax.Array:
    """Appends the coordinates of the points to the channels, axis by axis.

    Args:
        x: [batch, *grid, channels].
        kind: "grid" appends x_j from 0 to length_j, "periodic" the sine and cosine of
            2 pi x_j / length_j, which are smooth across the end, "none" nothing.
        endpoint: whether the last point of an axis is its right end (vertex grids of
            non-periodic problems; "periodic" coordinates are those of the first point
            again) or one spacing before it (periodic grids).
        length: size of the domain, one number for all axes or one per axis.

    Returns:
        [batch, *grid, channels + num_channels(kind, axes)], in the dtype of x.

    Raises:
        ValueError: for an unknown kind.
    """
    if num_channels(kind, x.ndim - 2) == 0:
        return x
    grid = x.shape[1:-1]
    lengths = [length] * len(grid) if np.isscalar(length) else length
    channels = [x]
    for axis, (n, size) in enumerate(zip(grid, lengths, strict=True), start=1):
        points = np.linspace(0, 1, n, endpoint=endpoint)
        values = [size * points]
        if kind == "periodic":
            values = [np.sin(2 * np.pi * points), np.cos(2 * np.pi * points)]
        shape = [1] * x.ndim
        shape[axis] = n
        channels += [
            jnp.broadcast_to(
                jnp.asarray(value, x.dtype).reshape(shape), (*x.shape[:-1], 1)
            )
            for value in values
        ]
    return jnp.concatenate(channels, -1)
