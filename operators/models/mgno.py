"""MgNO: layers whose linear part is a learned multigrid V-cycle."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from operators.layers import activations
from operators.layers.cycle_settings import CycleSettings
from operators.layers.multigrid import VCycle, layer_norm
from operators.layers.pointwise import Pointwise
from operators.layers.resampling import resample

SKIPS = ("pointwise", "none")
HEADS = ("linear", "mlp", "cycle")
TRANSFERS = ("stencil", "linear", "cubic", "fourier")
_PERIODIC_TRANSFERS, _OTHER_TRANSFERS = ("fourier",), ("linear", "cubic")


class MgNO(nnx.Module):
    """Multigrid neural operator, u <- GELU(N_k V_k u + C_k u + b_k), then a head.

    V_k is a V-cycle of convolutions, C_k a pointwise linear map, b_k a number per
    channel, N_k a normalisation; N_k and C_k, b_k may be left out. There is no lifting:
    the first cycle reads the input channels. Works on grids of 1, 2 and 3 axes.
    Defaults are those of the released Darcy model; the released Navier-Stokes and
    Helmholtz models are presets.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        grid: points per axis. With sizes="official" the parameters fit only grids with
            the same odd and even levels, with "crop" any grid; a norm with
            norm_affine="grid" fits this grid alone.
        channels: channels of the hidden layers on the finest level.
        num_layers: number of V-cycles before the head.
        cycle: smoothing steps (pre, post) per level, finest first.
        coarsest: if not 0, `cycle` gets as many levels as leave this many points per
            axis on the coarsest, its first pair repeated (or later ones dropped).
        widening: factor of the channels per level, finest first; () for 1 everywhere.
        boundary: "zero", "reflect" or "periodic".
        sizes: "official" or "crop"; see `CycleSettings`.
        prolongation: "official" or "wrap", which is exactly periodic and takes only
            grids that 2^(levels - 1) divides; see `CycleSettings`.
        restriction: "data" or "residual"; see `CycleSettings`.
        use_bias: whether the smoothing convolutions have biases (then V_k is affine).
        norm: "none", "prolongation" (inside the cycles) or "cycle" (N_k).
        norm_affine: "grid", "channel" or "none"; see `CycleSettings`.
        skip: "pointwise" (C_k and b_k) or "none".
        head: "linear" (pointwise, no bias), "mlp" (two pointwise maps, the first with
            bias) or "cycle" (one more V-cycle, without norm after it).
        head_channels: hidden channels of the head "mlp".
        residual: whether the input is added to the output.
        transfer: on other grids than `grid`, "stencil" runs the same levels there, if
            the parameters fit; "linear", "cubic" (grids with both end points, not with
            boundary "periodic") and "fourier" (only with it) interpolate the input to
            `grid` and the output back, which keeps the mesh width that the parameters
            belong to.
        activation: name of the activation between layers; "gelu" is the exact one.
        unused_first_A: see `CycleSettings`; the only parameters that never act.
        param_dtype: dtype of the parameters; the model computes in its input's dtype.
        rngs: random streams; draws from `params`.

    Raises:
        ValueError: if an argument does not fit.

    References:
        He, Liu, Xu (2024), MgNO: Efficient Parameterization of Linear Operators via
        Multigrid, arXiv:2310.19809.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        grid: Sequence[int],
        channels: int = 24,
        num_layers: int = 5,
        cycle: Sequence[Sequence[int]] = (*((1, 0),) * 5, (2, 0)),
        coarsest: int = 0,
        widening: Sequence[int] = (),
        boundary: str = "zero",
        sizes: str = "official",
        prolongation: str = "official",
        restriction: str = "data",
        use_bias: bool = False,
        norm: str = "none",
        norm_affine: str = "grid",
        skip: str = "pointwise",
        head: str = "linear",
        head_channels: int = 128,
        residual: bool = False,
        transfer: str = "stencil",
        activation: str = "gelu",
        unused_first_A: bool = False,
        param_dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        for name, value, known in (
            ("skip", skip, SKIPS),
            ("head", head, HEADS),
            ("transfer", transfer, TRANSFERS),
        ):
            if value not in known:
                raise ValueError(f"{name} is {value!r}; known: {', '.join(known)}")
        if residual and in_channels != out_channels:
            raise ValueError(
                "residual=True needs as many input as output channels, got "
                f"{in_channels} and {out_channels}"
            )
        self.in_channels, self.out_channels = in_channels, out_channels
        self.grid = tuple(grid)
        self.num_axes = len(self.grid)
        self.settings = CycleSettings.fitted(
            cycle,
            self.grid,
            coarsest,
            boundary=boundary,
            sizes=sizes,
            prolongation=prolongation,
            restriction=restriction,
            widening=tuple(widening),
            norm=norm,
            norm_affine=norm_affine,
            use_bias=use_bias,
            unused_first_A=unused_first_A,
        )
        _check_transfer(transfer, boundary)
        self.activation = activations.get(activation)
        self.residual, self.transfer = residual, transfer
        widths = [in_channels, *[channels] * num_layers]
        options = {"param_dtype": param_dtype, "rngs": rngs}
        cycles = {"settings": self.settings, "grid": self.grid, **options}
        self.cycles = nnx.List(
            VCycle(width, channels, **cycles) for width in widths[:-1]
        )
        self.skips = self.norms = nnx.data(None)
        if skip == "pointwise":
            self.skips = nnx.List(
                Pointwise(width, channels, **options) for width in widths[:-1]
            )
        if norm == "cycle":
            self.norms = nnx.List(
                layer_norm(channels, self.grid, self.settings, **options)
                for _ in widths[:-1]
            )
        if head == "cycle":
            self.head = nnx.List([VCycle(widths[-1], out_channels, **cycles)])
        elif head == "mlp":
            hidden = Pointwise(widths[-1], head_channels, **options)
            last = Pointwise(head_channels, out_channels, use_bias=False, **options)
            self.head = nnx.List([hidden, last])
        else:
            self.head = nnx.List(
                [Pointwise(widths[-1], out_channels, use_bias=False, **options)]
            )

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x [batch, *grid, in_channels] to [batch, *grid, out_channels].

        Raises:
            ValueError: if x has the wrong channels, or a grid the parameters misfit.
        """
        self._check(x)
        u, grid = x, x.shape[1:-1]
        interpolated = self.transfer != "stencil" and grid != self.grid
        if interpolated:
            u = resample(u, self.grid, self.transfer)
        for k, cycle in enumerate(self.cycles):
            v = cycle(u)
            if self.norms is not None:
                v = self.norms[k](v)
            if self.skips is not None:
                v = v + self.skips[k](u)
            u = self.activation(v)
        *hidden, last = self.head
        for layer in hidden:
            u = self.activation(layer(u))
        u = last(u)
        if interpolated:
            u = resample(u, grid, self.transfer)
        return u + x if self.residual else u

    def _check(self, x: jax.Array) -> None:
        if x.ndim != self.num_axes + 2 or x.shape[-1] != self.in_channels:
            axes = ", ".join(f"n{i + 1}" for i in range(self.num_axes))
            raise ValueError(
                f"x must have shape [batch, {axes}, {self.in_channels}], got {x.shape}"
            )
        grid, settings = x.shape[1:-1], self.settings
        if grid == self.grid or self.transfer != "stencil":
            return
        transfers = _alternatives(_fitting_transfers(settings.boundary))
        rebuild = f"build it with grid={grid} (--config.model.grid='{grid}')"
        if settings.norm != "none" and settings.norm_affine == "grid":
            raise ValueError(
                f"x has grid {grid}, but this model was built for grid {self.grid} and "
                f"its norms scale every point of that grid: {rebuild}, or with "
                f'norm_affine="channel", or with transfer={transfers}, for other grids'
            )
        if settings.prolongation_sizes(grid) != settings.prolongation_sizes(self.grid):
            raise ValueError(
                f"x has grid {grid}, but this model was built for grid {self.grid} and "
                "its prolongations fit only grids with the same odd and even levels: "
                f'{rebuild}, or with sizes="crop", or with transfer={transfers}, for '
                "other grids"
            )


def _check_transfer(transfer: str, boundary: str) -> None:
    if transfer not in ("stencil", *_fitting_transfers(boundary)):
        fitting = _alternatives(_fitting_transfers(boundary))
        raise ValueError(
            f'transfer must be "stencil" or {fitting} for boundary {boundary!r}, got '
            f"{transfer!r}"
        )


def _fitting_transfers(boundary: str) -> tuple[str, ...]:
    """Interpolations between grids that agree with the boundary."""
    return _PERIODIC_TRANSFERS if boundary == "periodic" else _OTHER_TRANSFERS


def _alternatives(names: tuple[str, ...]) -> str:
    return " or ".join(f'"{name}"' for name in names)
