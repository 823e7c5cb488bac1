"""LSM on scattered points: a learned deformation and Fourier series around LSM."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from operators.layers import activations, coordinates
from operators.layers.geometry import (
    Deformation,
    PointSpectralConvolution,
    PointTransforms,
)
from operators.layers.pointwise import Pointwise
from operators.models.lsm import LSM


class LSMIrregular(LSM):
    """Latent spectral model for values at points that differ from sample to sample.

    With xi the deformation, F the Fourier sums over the points at xi, and c_1, c_2
    affine maps of coordinates:

        v = gelu(R_1 F(lifting(x)) + c_1)          on a periodic grid
        u = projection(F^* R_2 LSM(v) + c_2)       at the points

    Args:
        in_channels: coordinates, then other values, then the code.
        out_channels: channels of the output.
        code_channels: length of a code of the shape, the last channels of the input,
            equal at all points; 0: none.
        latent_grid: points per axis of the periodic grid, one axis per coordinate.
        modes: Fourier modes per axis.
        geofno_compat: the released code: sums over points, not means, so that the
            output changes with their number, and conjugate modes paired one off.
        coordinate_skips: has c_1, c_2 and the activation between; without them it is
            the form of Neural-Solver-Library.
        center: origin of the polar features of the deformation, see `Deformation`.
        channels: channels at the finest scale of the U-Net.
        num_scales: see `LSM`, as all that follow.
        patch_size: points of a patch per axis; () takes patches_per_axis instead.
        patches_per_axis: patches along each axis of the periodic grid.
        num_heads: heads of the attentions.
        num_tokens: latent tokens per patch.
        num_basis: sines and cosines per channel of a latent.
        basis: "official" or "integer" frequencies.
        norm: kind of normalisation.
        num_groups: groups of channels for norm "group"; divides channels.
        activation: name of the activation in the U-Net.
        lifting_hidden: hidden channels of a two-layer lifting; 0 lifts linearly.
        projection_hidden: hidden channels of the projection.
        param_dtype: dtype of the parameters; the model computes in its input's dtype.
        rngs: random streams; draws from `params`.

    Raises:
        ValueError: if an argument does not fit.

    References:
        Wu et al. (2023), arXiv:2301.12664; Li, Huang, Liu, Anandkumar (2022), Geo-FNO,
        arXiv:2207.05209.
    """

    takes_points = True

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        code_channels: int = 0,
        latent_grid: Sequence[int] = (96, 96),
        modes: Sequence[int] = (12, 12),
        geofno_compat: bool = False,
        coordinate_skips: bool = True,
        center: Sequence[float] = (),
        channels: int = 32,
        num_scales: int = 5,
        patch_size: Sequence[int] = (),
        patches_per_axis: int = 16,
        num_heads: int = 8,
        num_tokens: int = 4,
        num_basis: int = 12,
        basis: str = "official",
        norm: str = "batch",
        num_groups: int = 1,
        activation: str = "relu",
        lifting_hidden: int = 0,
        projection_hidden: int = 128,
        param_dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.latent_grid, self.modes = tuple(latent_grid), tuple(modes)
        d = len(self.latent_grid)
        if in_channels < d + code_channels:
            raise ValueError(
                f"in_channels must hold {d} coordinates and {code_channels} channels "
                f"of code, got {in_channels}"
            )
        super().__init__(
            in_channels=in_channels - code_channels, out_channels=out_channels,
            num_axes=d, channels=channels, num_scales=num_scales,
            patch_size=patch_size, patches_per_axis=patches_per_axis,
            num_heads=num_heads, num_tokens=num_tokens, num_basis=num_basis,
            basis=basis, norm=norm, num_groups=num_groups, coordinates="none",
            activation=activation, lifting_hidden=lifting_hidden,
            projection_hidden=projection_hidden, param_dtype=param_dtype, rngs=rngs,
        )  # fmt: skip
        if (padded := self.padded_grid(self.latent_grid)) != self.latent_grid:
            raise ValueError(
                f"latent_grid {self.latent_grid} is not tiled by the patches on all "
                f"{num_scales} scales; the next grid that fits is {padded}"
            )
        self.in_channels, self.num_axes = in_channels, 1
        self.code_channels, self.geofno_compat = code_channels, geofno_compat
        options = {"param_dtype": param_dtype, "rngs": rngs}
        self.deformation = Deformation(
            d, code_channels=code_channels, center=center, **options
        )
        self.spectral_in, self.spectral_out = (
            PointSpectralConvolution(
                channels, modes=self.modes, grid=self.latent_grid, **options
            )
            for _ in range(2)
        )
        self.grid_skip = self.point_skip = nnx.data(None)
        if coordinate_skips:
            self.grid_skip = Pointwise(d, channels, **options)
            self.point_skip = Pointwise(d, channels, **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x [batch, points, in_channels] to [batch, points, out_channels].

        Raises:
            ValueError: if x has the wrong number of axes or channels.
        """
        if x.ndim != 3 or x.shape[-1] != self.in_channels:
            raise ValueError(
                f"x must have shape [batch, points, {self.in_channels}], coordinates "
                f"first, got {x.shape}"
            )
        d, values = len(self.latent_grid), self.in_channels - self.code_channels
        points, sums = x[..., :d], self.geofno_compat
        code = x[:, 0, values:] if self.code_channels else None
        transforms = PointTransforms(
            self.deformation(points, code), self.modes, shifted_pairs=sums
        )
        v = self.spectral_in.to_grid(self.lifting(x[..., :values]), transforms, sums)
        if self.grid_skip is not None:
            empty = jnp.zeros((1, *self.latent_grid, 0), x.dtype)
            grid = coordinates.append(empty, "grid", endpoint=True)
            v = activations.get("gelu")(v + self.grid_skip(grid))
        v = self.backbone(v, lambda scale, w: self.skip(scale, w, self.latent_grid))
        u = self.spectral_out.to_points(v, transforms, sums)
        if self.point_skip is not None:
            u = u + self.point_skip(points)
        return self.projection(u)
