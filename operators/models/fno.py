"""FNO: the architecture of 2021 and that of today's neuraloperator library."""

import itertools
import warnings
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from operators.layers import activations
from operators.layers.pointwise import Pointwise
from operators.layers.spectral import SpectralConvolution

ARCHITECTURES = ("li2021", "neuralop")
COORDINATES = ("grid", "periodic", "none")


class FNO(nnx.Module):
    """Fourier neural operator on one to three axes; the layout picks all of the rest.

    "li2021": v_{t+1} = act(K_t v_t + W_t v_t + b_t), no activation after the last
    layer, pointwise lifting, a head channels -> 128 -> out_channels.
    "neuralop": two-layer lifting and projection; per block z = act(K_t v + beta_t +
    W_t v), then a pointwise two-layer map plus a gated v, and another activation.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        modes: modes per axis as the layout counts them: for (12, 12) "li2021" keeps
            -12 ... 11 by 0 ... 11 and "neuralop" -6 ... 5 by 0 ... 6.
        channels: hidden channels.
        num_layers: number of spectral layers.
        layout: "li2021" or "neuralop".
        coordinates: channels appended to the input: "grid" (x from 0 to 1, with the
            right end for "li2021" and without it for "neuralop"), "periodic" (sine and
            cosine of 2 pi x) or "none".
        domain_padding: zeros added to the lifted field, as a fraction of each axis, at
            its end ("li2021") or at both ends ("neuralop").
        transform: "dft" or "fft", the same map; see `SpectralConvolution`.
        activation: name of the activation; "gelu" is the exact one.
        lifting_ratio: hidden channels of the lifting over channels, "neuralop" only.
        projection_ratio: the same for the projection, "neuralop" only.
        channel_mlp_expansion: hidden channels of the pointwise map of each block over
            channels, "neuralop" only; 0 leaves that map and its gate out.
        param_dtype: dtype of the parameters; the model computes in its input's dtype.
        rngs: random streams; draws from `params`.

    Raises:
        ValueError: if an argument does not fit.

    References:
        Li et al. (2021), Fourier Neural Operator, arXiv:2010.08895; neuraloperator
        2.0, neuralop/models/fno.py.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        modes: Sequence[int],
        channels: int = 32,
        num_layers: int = 4,
        layout: str = "neuralop",
        coordinates: str = "grid",
        domain_padding: float = 0.0,
        transform: str = "dft",
        activation: str = "gelu",
        lifting_ratio: float = 2.0,
        projection_ratio: float = 2.0,
        channel_mlp_expansion: float = 0.5,
        param_dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        for name, value, known in (
            ("layout", layout, ARCHITECTURES),
            ("coordinates", coordinates, COORDINATES),
        ):
            if value not in known:
                raise ValueError(f"{name} is {value!r}; known: {', '.join(known)}")
        if not 0 <= domain_padding < 1:
            raise ValueError(f"domain_padding must lie in [0, 1), got {domain_padding}")
        self.in_channels, self.num_axes, self.layout = in_channels, len(modes), layout
        self.coordinates, self.domain_padding = coordinates, domain_padding
        self.activation = activations.get(activation)
        options = {"param_dtype": param_dtype, "rngs": rngs}
        extra = {"grid": 1, "periodic": 2, "none": 0}[coordinates] * self.num_axes
        inputs, peer = in_channels + extra, layout == "neuralop"

        def stack(*widths):
            return nnx.List(
                Pointwise(a, b, **options) for a, b in itertools.pairwise(widths)
            )

        lifted = (int(lifting_ratio * channels),) if peer else ()
        self.lifting = stack(inputs, *lifted, channels)
        self.spectral = nnx.List(
            SpectralConvolution(
                channels, channels, modes=modes, layout=layout, transform=transform,
                use_bias=peer, **options,
            )
            for _ in range(num_layers)
        )  # fmt: skip
        self.skips = nnx.List(
            Pointwise(channels, channels, use_bias=not peer, **options)
            for _ in range(num_layers)
        )
        hidden = round(channel_mlp_expansion * channels) if peer else 0
        blocks = num_layers if hidden else 0
        self.mlps = nnx.List(stack(channels, hidden, channels) for _ in range(blocks))
        self.gates = nnx.List(
            nnx.Param(jnp.ones((channels,), param_dtype)) for _ in range(blocks)
        )
        head = int(projection_ratio * channels) if peer else 128
        self.projection = stack(channels, head, out_channels)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x [batch, *grid, in_channels] to [batch, *grid, out_channels].

        Raises:
            ValueError: if x has the wrong number of axes or channels.
        """
        if x.ndim != self.num_axes + 2 or x.shape[-1] != self.in_channels:
            axes = ", ".join(f"n{i + 1}" for i in range(self.num_axes))
            raise ValueError(
                f"x must have shape [batch, {axes}, {self.in_channels}], got {x.shape}"
            )
        grid = x.shape[1:-1]
        v = self._pointwise(self.lifting, self._append_coordinates(x))
        widths = self._padding(grid)
        v = jnp.pad(v, ((0, 0), *widths, (0, 0)))
        for layer in range(len(self.spectral)):
            v = self._block(layer, v)
        inside = tuple(slice(a, a + n) for (a, _), n in zip(widths, grid, strict=True))
        return self._pointwise(self.projection, v[(slice(None), *inside)])

    def _block(self, layer: int, v: jax.Array) -> jax.Array:
        last = layer == len(self.spectral) - 1
        z = self.spectral[layer](v) + self.skips[layer](v)
        z = z if last else self.activation(z)
        if len(self.mlps) == 0:
            return z
        gate = self.gates[layer][...].astype(v.dtype)
        gate = gate.reshape((1,) * (v.ndim - 1) + (-1,))
        z = self._pointwise(self.mlps[layer], z) + gate * v
        return z if last else self.activation(z)

    def _pointwise(self, layers: nnx.List, v: jax.Array) -> jax.Array:
        for layer in layers[:-1]:
            v = self.activation(layer(v))
        return layers[-1](v)

    def _append_coordinates(self, x: jax.Array) -> jax.Array:
        if self.coordinates == "none":
            return x
        channels = [x]
        for axis, n in enumerate(x.shape[1:-1], start=1):
            # Periodic coordinates must not repeat the first point at the end.
            endpoint = self.layout == "li2021" and self.coordinates == "grid"
            points = np.linspace(0, 1, n, endpoint=endpoint)
            values = [points]
            if self.coordinates == "periodic":
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

    def _padding(self, grid: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
        """Zeros before and after each axis."""
        counts = [round(self.domain_padding * n) for n in grid]
        if any(
            abs(self.domain_padding * n - count) > 1e-6
            for n, count in zip(grid, counts, strict=True)
        ):
            # The period of the modes is (n + padding) / n: it must not depend on n.
            warnings.warn(
                f"domain_padding {self.domain_padding} is no whole number of points on "
                f"grid {grid}; the modes mean slightly different frequencies on other "
                "grids. Choose a fraction with a divisor of the grid sizes.",
                stacklevel=3,
            )
        both = self.layout == "neuralop"
        return tuple((count if both else 0, count) for count in counts)
