"""From scattered points to a periodic grid and back, by Fourier series in new places.

A learned deformation moves every point x to xi(x) in the torus of period one per axis;
there fields are sums over a few Fourier modes.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from operators.layers import spectral_weights
from operators.layers.pointwise import Pointwise
from operators.layers.spectral import mode_frequencies
from operators.layers.spectral_transforms import TRANSFORMS

CENTER = 1e-4  # of the polar features in the released code


class Deformation(nnx.Module):
    """xi = x + x * network(x, code), with polar and periodic features of x.

    Features f are the coordinates, the angle in the plane of the first two and the
    distance to `center`; the network reads A f + b and sin, cos(pi 2^k f), k < width /
    4, joined by a linear map of the code if there is one, and has three tanh layers.

    Args:
        num_coordinates: coordinates of a point, at least two.
        code_channels: length of a code of the shape; 0: no code.
        width: a quarter of the hidden width.
        center: where angle and distance are measured from; () is 1e-4 on each axis.
        param_dtype: dtype of the parameters.
        rngs: random streams; draws from `params`.

    Raises:
        ValueError: if an argument does not fit.

    References:
        Li, Huang, Liu, Anandkumar (2022), Geo-FNO, arXiv:2207.05209; the layers are
        those of the released code.
    """

    def __init__(
        self,
        num_coordinates: int = 2,
        *,
        code_channels: int = 0,
        width: int = 32,
        center: Sequence[float] = (),
        param_dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        if num_coordinates < 2 or len(center) not in (0, num_coordinates):
            raise ValueError(
                "points need at least two coordinates and center one number for each, "
                f"got num_coordinates {num_coordinates}, center {tuple(center)}"
            )
        self.center = tuple(center) or (CENTER,) * num_coordinates
        self.octaves = width // 4
        features = num_coordinates + 2
        options = {"param_dtype": param_dtype, "rngs": rngs}
        joined = width + 2 * features * self.octaves
        self.features = Pointwise(features, width, **options)
        if code_channels:
            self.code = Pointwise(code_channels, width, **options)
            hidden = joined + width
        else:
            self.code = nnx.data(None)
            hidden = 4 * width
            self.widening = Pointwise(joined, hidden, **options)
        self.hidden = nnx.List(
            Pointwise(a, b, **options)
            for a, b in ((hidden, 4 * width), *((4 * width, 4 * width),) * 2)
        )
        self.output = Pointwise(4 * width, num_coordinates, **options)

    def __call__(self, points: jax.Array, code: jax.Array | None = None) -> jax.Array:
        """Maps points [batch, points, d] and codes [batch, code_channels] to xi."""
        offset = points - jnp.asarray(self.center, points.dtype).reshape(1, 1, -1)
        angle = jnp.atan2(offset[..., 1], offset[..., 0])
        radius = jnp.sqrt(jnp.square(offset).sum(-1))
        features = jnp.concatenate(
            [points, angle[..., None], radius[..., None]], axis=-1
        )
        scales = jnp.asarray(np.pi * 2.0 ** np.arange(self.octaves), points.dtype)
        phases = features[..., None] * scales.reshape(1, 1, 1, -1)
        phases = phases.reshape(*points.shape[:2], -1)
        v = [self.features(features), jnp.sin(phases), jnp.cos(phases)]
        if self.code is None:
            v = self.widening(jnp.concatenate(v, -1))
        else:
            inputs = self.code(code[:, None])
            inputs = jnp.broadcast_to(inputs, (*points.shape[:2], inputs.shape[-1]))
            v = jnp.concatenate([inputs, *v], -1)
        for layer in self.hidden:
            v = jnp.tanh(layer(v))
        return points + points * self.output(v)


class PointTransforms:
    """Fourier sums over points, with modes as `mode_frequencies` "li2021" counts them.

    Args:
        points: [batch, points, d] in periods.
        modes: modes per axis.
        shifted_pairs: gives the conjugate of mode (k, l), l > 0, the frequency (-1 - k,
            -l) in `synthesise`, as the released code does, where (-k, -l) is right.
    """

    def __init__(
        self, points: jax.Array, modes: Sequence[int], *, shifted_pairs: bool = False
    ):
        frequencies = mode_frequencies(modes, "li2021")
        self.sizes = tuple(len(k) for k in frequencies)
        k = np.stack(np.meshgrid(*frequencies, indexing="ij"), -1)
        k = k.reshape(-1, len(frequencies))  # [mode, axis]
        # Each axis is reduced to one period before it is added, which keeps digits.
        turns = sum(
            jnp.mod(
                points[..., j, None] * jnp.asarray(k[:, j], points.dtype)[None, None], 1
            )
            for j in range(k.shape[1])
        )
        self.cos, self.sin = jnp.cos(2 * np.pi * turns), jnp.sin(2 * np.pi * turns)
        paired = jnp.asarray(k[:, -1] > 0, points.dtype)[None, None]
        self.pair_cos, self.pair_sin = self.cos * paired, self.sin * paired
        if shifted_pairs:
            other = 2 * np.pi * (turns + points[..., :1])
            self.pair_cos, self.pair_sin = (
                jnp.cos(other) * paired,
                jnp.sin(other) * paired,
            )

    def analyse(self, u: jax.Array) -> jax.Array:
        """Sums u exp(-2 pi i k x) over the points, [batch, 2, *k, channels]."""
        parts = [
            jnp.einsum("bnm,bnc->bmc", waves, u, precision=jax.lax.Precision.HIGHEST)
            for waves in (self.cos, -self.sin)
        ]
        return jnp.stack(parts, 1).reshape(len(u), 2, *self.sizes, u.shape[-1])

    def synthesise(self, coefficients: jax.Array) -> jax.Array:
        """Values [batch, points, channels] of the real series."""
        batch, channels = len(coefficients), coefficients.shape[-1]
        real, imag = jnp.moveaxis(coefficients.reshape(batch, 2, -1, channels), 1, 0)
        return sum(
            jnp.einsum("bnm,bmc->bnc", waves, part, precision=jax.lax.Precision.HIGHEST)
            for waves, part in (
                (self.cos + self.pair_cos, real),
                (-self.sin - self.pair_sin, imag),
            )
        )


class PointSpectralConvolution(nnx.Module):
    """Learned matrices on the Fourier modes between points and a periodic grid.

    Args:
        channels: channels of input and output.
        modes: modes per axis, 2 m on all axes but the last, m there.
        grid: points per axis of the periodic grid.
        param_dtype: dtype of the parameters.
        rngs: random streams; draws from `params`.

    Raises:
        ValueError: if the grid does not resolve the modes.
    """

    def __init__(
        self,
        channels: int,
        *,
        modes: Sequence[int],
        grid: Sequence[int],
        param_dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.modes, self.grid = tuple(modes), tuple(grid)
        if len(modes) != len(grid) or any(
            n <= 2 * m for m, n in zip(modes, grid, strict=True)
        ):
            raise ValueError(
                f"grid {self.grid} must have more than twice the modes {self.modes} "
                "per axis"
            )
        self.weights = spectral_weights.create(
            channels,
            channels,
            [len(k) for k in self._frequencies()],
            init="uniform",
            param_dtype=param_dtype,
            rngs=rngs,
        )

    def _frequencies(self):
        return mode_frequencies(self.modes, "li2021")

    def _block(self):
        return (slice(None),) * len(self.modes)

    def to_grid(self, u: jax.Array, points: PointTransforms, sums: bool) -> jax.Array:
        """Maps u [batch, points, channels] to [batch, *grid, channels].

        Args:
            u: values at the points.
            points: their transforms.
            sums: divides by the points of the grid, as the released code does, where
                the mean over the points of u is a quadrature that refining them keeps.
        """
        count = math.prod(self.grid) if sums else u.shape[1]
        spectrum = self.weights(points.analyse(u) / count, self._block())
        return TRANSFORMS["dft"][1](spectrum, self._frequencies(), self.grid)

    def to_points(self, v: jax.Array, points: PointTransforms, sums: bool) -> jax.Array:
        """Maps v [batch, *grid, channels] to [batch, points, channels].

        Args:
            v: field on the grid.
            points: transforms of the points.
            sums: multiplies by the points of the grid, as the released code does.
        """
        spectrum = TRANSFORMS["dft"][0](v, self._frequencies())
        spectrum = spectrum * (math.prod(self.grid) if sums else 1)
        return points.synthesise(self.weights(spectrum, self._block()))
