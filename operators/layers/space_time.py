"""Fixed functions of space and time, added to a field of frames as channels."""

import numpy as np
from flax import nnx
from jax import numpy as jnp

from operators.layers import coordinates as positions
from operators.layers.pointwise import Pointwise


class SpaceTimeEncoding(nnx.Module):
    """Spreads the frames over channels and adds a fixed function to each of them.

    The functions are the coordinates in space, the time t_i = i / max_steps of frame i
    = 1, 2, ..., and exp(beta t) times sin(pi t), cos(2 pi t), sin(3 pi t), ...

    Args:
        channels: channels of the output.
        in_channels: channels of the frames; one is copied to all channels, several pass
            through a learned linear map.
        beta: growth of the waves in time, per `max_steps` frames; that of the energy.
        coordinates: "grid" (x and y from 0 to 1), "periodic" (sine and cosine of 2 pi x
            and 2 pi y) or "none", which keeps translations.
        endpoint: whether the last point stands at 1 (released code) or before it.
        max_steps: frames per unit of t.
        features: () or three numbers; then the functions of space and time are instead
            products 1 / (i j k) exp(beta t) trig(pi i x) trig(pi j y) trig(pi k t), i,
            j, k up to these numbers, cosines for odd and sines for even ones, with x, y
            and t before them, all through a learned linear map.
        param_dtype: dtype of the parameters.
        rngs: random streams; draws from `params`.

    Raises:
        ValueError: if there are too few channels, or for an unknown name.

    References:
        Cao, Brarda, Li, Xi (2025), Spectral-Refiner, arXiv:2405.17211, released code.
    """

    def __init__(
        self,
        channels: int,
        *,
        in_channels: int = 1,
        beta: float = 0.0,
        coordinates: str = "grid",
        endpoint: bool = False,
        max_steps: int = 100,
        features: tuple[int, ...] = (),
        param_dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        own = positions.num_channels(coordinates, 2)
        if channels < own + 2:
            raise ValueError(
                f"width must be at least {own + 2} for coordinates {coordinates!r}, "
                f"time and a wave, got {channels}"
            )
        self.channels, self.beta, self.max_steps = channels, beta, max_steps
        self.coordinates, self.endpoint = coordinates, endpoint
        self.features = tuple(features)
        options = {"param_dtype": param_dtype, "rngs": rngs}
        lifting = mixing = None
        if in_channels > 1:
            lifting = Pointwise(in_channels, channels, use_bias=False, **options)
        if self.features:
            mixing = Pointwise(int(np.prod(self.features)) + 3, channels, **options)
        self.lifting, self.mixing = nnx.data(lifting), nnx.data(mixing)

    @property
    def separable(self) -> bool:
        """Whether the output is u + the sum of `parts`, without parameters."""
        return self.lifting is None and self.mixing is None

    def __call__(self, u):
        """Maps frames u [batch, n1, n2, time, in_channels] to [.., time, channels]."""
        v = u if self.lifting is None else self.lifting(u)
        if self.mixing is None:
            for part in self.parts(u.shape[1:4]):
                v = v + jnp.asarray(part, u.dtype)[None]
            return v
        return v + self.mixing(jnp.asarray(self._products(u.shape[1:4]), u.dtype)[None])

    def parts(self, grid: tuple[int, int, int]) -> list[np.ndarray]:
        """Three arrays whose sum are the functions on a grid, without features.

        They vary along one axis each: [n1, 1, 1, channels], [1, n2, 1, channels] and
        [1, 1, time, channels], so that nothing of the size of the field is stored.
        """
        *space, time = self._lines(grid)
        own = positions.num_channels(self.coordinates, 2) // 2
        parts = [np.zeros((n, self.channels)) for n in grid]
        for axis, x in enumerate(space):
            at = slice(axis * own, (axis + 1) * own)
            if self.coordinates == "periodic":
                parts[axis][:, at] = np.stack([_sin(2 * x), _cos(2 * x)], 1)
            elif self.coordinates == "grid":
                parts[axis][:, at] = x[:, None]
        parts[2][:, 2 * own] = time
        for j in range(self.channels - 2 * own - 1):
            wave = (_sin if j % 2 == 0 else _cos)((j + 1) * time)
            parts[2][:, 2 * own + 1 + j] = np.exp(self.beta * time) * wave
        shapes = (-1, 1, 1), (1, -1, 1), (1, 1, -1)
        return [
            part.reshape(*shape, self.channels)
            for part, shape in zip(parts, shapes, strict=True)
        ]

    def _products(self, grid: tuple[int, int, int]) -> np.ndarray:
        """The functions with features, [n1, n2, time, products + 3]."""
        lines = self._lines(grid)
        waves = []
        for x, num in zip(lines, self.features, strict=True):
            k = range(1, num + 1)
            waves.append([(_sin if i % 2 == 0 else _cos)(i * x) / i for i in k])
        waves[2] = np.exp(self.beta * lines[2]) * np.array(waves[2])
        products = np.einsum("ix,jy,kt->xytijk", *map(np.array, waves))
        mesh = np.stack(np.meshgrid(*lines, indexing="ij"), -1)
        return np.concatenate([mesh, products.reshape(*grid, -1)], -1)

    def _lines(self, grid: tuple[int, int, int]) -> list[np.ndarray]:
        """Coordinates of the points of each axis."""
        *space, time = grid
        lines = [np.linspace(0, 1, n, endpoint=self.endpoint) for n in space]
        return [*lines, np.arange(1, time + 1) / self.max_steps]


def _sin(turns: np.ndarray) -> np.ndarray:
    return np.sin(np.pi * turns)


def _cos(turns: np.ndarray) -> np.ndarray:
    return np.cos(np.pi * turns)
