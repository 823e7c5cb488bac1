"""U-NO: a U-shaped stack of spectral layers whose grids shrink and grow again."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from operators.layers import activations, normalization
from operators.layers import coordinates as grid_points
from operators.layers.padding import DomainPadding
from operators.layers.pointwise import ChannelMLP, Pointwise
from operators.layers.resampling import fourier_resample, linear_resample
from operators.layers.spectral import SpectralConvolution
from operators.models import uno_settings
from operators.models.uno_settings import LIFTED


def layer_grid(
    grid: Sequence[int], fraction: float | Sequence[float], endpoint: bool = False
) -> tuple[int, ...]:
    """Points per axis of a layer that keeps this fraction of the cells of `grid`.

    Raises:
        ValueError: if an axis would have no cell left.
    """
    fractions = np.broadcast_to(fraction, len(grid))
    cells = [
        round(float(f) * (n - endpoint)) for f, n in zip(fractions, grid, strict=True)
    ]
    if min(cells) < 1:
        raise ValueError(
            f"a layer with fraction {fraction} needs a cell on each axis, but grid "
            f"{tuple(grid)} leaves {cells}: use a finer grid or a larger fraction"
        )
    return tuple(n + endpoint for n in cells)


class SpectralBlock(nnx.Module):
    """One layer K u + W u on a new grid, with what the architecture puts around it.

    "neuralop": z = act(norm(K u + beta) + W u), then act(norm(MLP(z) + G u)).
    "rahman2022": act(norm(K u + W u + b)).
    W and G are pointwise and followed by Fourier resampling.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        modes: modes per axis, in the counting of `layout`.
        architecture: "neuralop" or "rahman2022".
        layout: modes that are kept, see `SpectralConvolution`.
        norm: name of the normalisation, see `normalization.create`.
        activation: name of the activation of the MLP.
        block_activation: that of the layer, or "none".
        mlp_hidden: hidden channels of the MLP; 0 leaves it and G out.
        transform: see `SpectralConvolution`.
        precision: of the matrix products, see `operators.layers.precision.einsum`.
        param_dtype: dtype of the parameters.
        rngs: random streams; draws from `params`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        modes: Sequence[int],
        architecture: str,
        layout: str,
        norm: str,
        activation: str,
        block_activation: str,
        mlp_hidden: int,
        transform: str,
        precision: str,
        param_dtype,
        rngs: nnx.Rngs,
    ):
        peer = architecture == "neuralop"
        plain = {"param_dtype": param_dtype, "rngs": rngs}
        options = plain | {"precision": precision}
        channels = in_channels, out_channels
        self.spectral = SpectralConvolution(
            *channels, modes=modes, layout=layout, transform=transform, use_bias=peer,
            **options,
        )  # fmt: skip
        if not peer:
            _redraw(self.spectral, math.sqrt(1 / (4 * in_channels)), rngs)
        self.skip = Pointwise(*channels, use_bias=not peer, **options)
        mlp = gate = None
        if mlp_hidden:
            mlp = ChannelMLP(
                out_channels, mlp_hidden, out_channels, activation=activation, **options
            )
            gate = Pointwise(*channels, use_bias=False, **options)
        self.mlp, self.gate, self.norm_of_sum = nnx.data(mlp), nnx.data(gate), not peer
        self.norms = nnx.List(
            normalization.create(norm, out_channels, **plain)
            for _ in range(2 if mlp_hidden else 1)
        )
        none = block_activation == "none"
        self.activation = _identity if none else activations.get(block_activation)

    def __call__(self, u: jax.Array, out_grid: Sequence[int]) -> jax.Array:
        """Maps u [batch, *grid, in_channels] to [batch, *out_grid, out_channels]."""
        z, skip = self.spectral(u, out_grid), _pointwise(self.skip, u, out_grid)
        z = self.norms[0](z + skip) if self.norm_of_sum else self.norms[0](z) + skip
        z = self.activation(z)
        if self.mlp is None:
            return z
        z = self.mlp(z) + _pointwise(self.gate, u, out_grid)
        return self.activation(self.norms[1](z))


def _identity(u: jax.Array) -> jax.Array:
    return u


def _pointwise(layer: Pointwise, u: jax.Array, out_grid: Sequence[int]) -> jax.Array:
    """Applies the layer and resamples, in the cheaper order: the two commute."""
    if math.prod(out_grid) < math.prod(u.shape[1:-1]):
        return layer(fourier_resample(u, out_grid))
    return fourier_resample(layer(u), out_grid)


def _redraw(layer: SpectralConvolution, std: float, rngs: nnx.Rngs):
    """Draws both parts of the complex weights from N(0, std^2)."""
    drawn = jax.tree.map(
        lambda w: std * jax.random.normal(rngs.params(), w.shape, w.dtype),
        nnx.state(layer, nnx.Param),
    )
    nnx.update(layer, drawn)


class UNO(nnx.Module):
    """U-shaped neural operator on one to three axes, exact in its changes of grid.

    v_0 = Q x;  v_{t+1} = layer_t([v_t, H_s R v_{s+1}]) on grid t;  u = P v_T. Layer t
    lives on a fraction of the points of the input's grid. R is Fourier resampling and
    the spectral weights belong to integer frequencies, so that the model converges
    spectrally under refinement of smooth periodic inputs.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        modes: per layer, the modes per axis as `layout` counts them.
        fractions: per layer, its points over those of the input: a number, or one per
            axis. The last one gives the grid of the output, if the call names none.
        layer_channels: per layer, its output channels.
        channels: channels after the lifting Q.
        lifting_channels: hidden channels of Q.
        projection_channels: hidden channels of P.
        horizontal_skips: pairs (target, source): the output of layer `source` joins
            the input of layer `target`. Source -1 is Q x, target T the input of P.
            "mirrored" joins layer i to layer T - 1 - i, "none" nothing.
        architecture: "neuralop" or "rahman2022": see `SpectralBlock`; Q ends with an
            activation and H is the identity in the latter, H linear in the former.
        layout: modes that are kept: "symmetric", "neuralop" or "li2021".
        input_skip: whether the hidden channels of Q join those of P.
        coordinates: channels appended to the input: "grid", "periodic" or "none".
        endpoint: whether grids hold the right end of the domain (vertex grids of
            problems that are not periodic).
        domain_padding: zeros added to the lifted field, as a fraction of the domain,
            one for all axes or one per axis; at both ends for "neuralop", behind the
            right end for "rahman2022". Layers keep fractions of the padded grid.
        norm: name of the normalisation of the layers.
        norm_layers: layers that get it; empty means all.
        activation: name of the activation; "gelu" is the exact one.
        block_activation: that of the layers, "none" for none; empty: `activation`.
            neuralop 2.0 activates inside the MLP only, since its layers are blocks of
            length one and the last of a block is not activated.
        channel_mlp_expansion: hidden channels of the pointwise map of each layer over
            its channels, "neuralop" only; 0 leaves that map out.
        transform: "auto", "dft" or "fft", the same map; see `SpectralConvolution`.
        precision: of the matrix products; see `operators.layers.precision.einsum`.
        param_dtype: dtype of the parameters; the model computes in its input's dtype.
        rngs: random streams; draws from `params`.

    Raises:
        ValueError: if an argument does not fit.

    References:
        Rahman, Ross, Azizzadenesheli (2022), U-NO, arXiv:2204.11127; neuraloperator
        2.0, neuralop/models/uno.py.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        modes: Sequence[Sequence[int]] = ((8, 8), (8, 8), (4, 4), (8, 8), (8, 8)),
        fractions: Sequence[float | Sequence[float]] = (1, 0.5, 0.5, 1, 1),
        layer_channels: Sequence[int] = (32, 64, 64, 64, 32),
        channels: int = 64,
        lifting_channels: int = 256,
        projection_channels: int = 256,
        horizontal_skips: str | Sequence[tuple[int, int]] = "mirrored",
        architecture: str = "neuralop",
        layout: str = "symmetric",
        input_skip: bool = False,
        coordinates: str = "grid",
        endpoint: bool = False,
        domain_padding: float | Sequence[float] = 0.0,
        norm: str = "none",
        norm_layers: Sequence[int] = (),
        activation: str = "gelu",
        block_activation: str = "",
        channel_mlp_expansion: float = 0.5,
        transform: str = "auto",
        precision: str = "full",
        param_dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        uno_settings.check(modes, fractions, layer_channels, architecture)
        uno_settings.check_norm_layers(norm_layers, len(modes))
        self.num_layers, self.num_axes = len(modes), len(modes[0])
        self.skips = uno_settings.skips(horizontal_skips, self.num_layers)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.fractions, self.coordinates = tuple(fractions), coordinates
        self.input_skip, self.lifted_activated = input_skip, architecture != "neuralop"
        self.activation, self.endpoint = activations.get(activation), endpoint
        peer = architecture == "neuralop"
        self.padding = _padding(domain_padding, self.num_axes, endpoint, peer)
        options = {"precision": precision, "param_dtype": param_dtype, "rngs": rngs}
        inputs = in_channels + grid_points.num_channels(coordinates, self.num_axes)
        self.lifting = _two_layers(inputs, lifting_channels, channels, 0, options)
        widths = {LIFTED: channels, **dict(enumerate(layer_channels))}
        inputs = [
            widths[t - 1]
            + sum(widths[source] for target, source in self.skips if target == t)
            for t in range(self.num_layers + 1)
        ]
        hidden = uno_settings.hidden_channels
        self.layers = nnx.List(
            SpectralBlock(
                inputs[t], widths[t], modes=modes[t], architecture=architecture,
                layout=layout, norm=norm if t in (norm_layers or [t]) else "none",
                activation=activation, block_activation=block_activation or activation,
                mlp_hidden=hidden(channel_mlp_expansion, widths[t]) if peer else 0,
                transform=transform, **options,
            )
            for t in range(self.num_layers)
        )  # fmt: skip
        self.sources = tuple(sorted({source for _, source in self.skips}))
        linear = self.sources if peer else ()
        self.horizontal = nnx.List(
            Pointwise(widths[s], widths[s], use_bias=False, **options) for s in linear
        )
        extra = lifting_channels if input_skip else 0
        self.projection = _two_layers(
            inputs[-1], projection_channels, out_channels, extra, options
        )

    def __call__(
        self, x: jax.Array, out_grid: Sequence[int] | None = None
    ) -> jax.Array:
        """Maps x [batch, *grid, in_channels] to [batch, *out_grid, out_channels].

        Args:
            x: input function on a grid of any size, taken as periodic if there is no
                padding.
            out_grid: points per axis of the output; None takes the last fraction.

        Raises:
            TypeError: if x holds no floating-point numbers.
            ValueError: if x or out_grid has the wrong shape, or x too few points.
        """
        self._check_input(x, out_grid)
        if out_grid is None:
            out_grid = layer_grid(x.shape[1:-1], self.fractions[-1], self.endpoint)
        hidden, v = self._lift(x)
        v = self.padding.pad(v)
        grids = [layer_grid(v.shape[1:-1], f) for f in self.fractions[:-1]]
        widths = self.padding.widths(out_grid)
        grids.append(
            tuple(a + n + b for n, (a, b) in zip(out_grid, widths, strict=True))
        )
        kept = {LIFTED: self._carry(LIFTED, v)} if LIFTED in self.sources else {}
        for t, layer in enumerate(self.layers):
            v = layer(self._join(t, v, kept), grids[t])
            if t in self.sources:
                kept[t] = self._carry(t, v)
        v = self.padding.crop(self._join(self.num_layers, v, kept), out_grid)
        v = self.activation(self.projection[0](v))
        if self.input_skip:
            resample = linear_resample if self.endpoint else fourier_resample
            v = jnp.concatenate([v, resample(hidden, out_grid)], -1)
        return self.projection[1](v)

    def _lift(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the hidden and the output channels of the lifting."""
        x = grid_points.append(x, self.coordinates, endpoint=self.endpoint)
        hidden = self.activation(self.lifting[0](x))
        v = self.lifting[1](hidden)
        return hidden, self.activation(v) if self.lifted_activated else v

    def _carry(self, source: int, v: jax.Array) -> jax.Array:
        """What a horizontal skip carries of the output v of layer `source`."""
        if len(self.horizontal) == 0:
            return v
        return self.horizontal[self.sources.index(source)](v)

    def _join(self, target: int, v: jax.Array, kept: dict[int, jax.Array]) -> jax.Array:
        """Appends to v the skips that end at layer `target`, on the grid of v."""
        joined = [
            fourier_resample(kept[source], v.shape[1:-1])
            for end, source in self.skips
            if end == target
        ]
        return jnp.concatenate([v, *joined], -1) if joined else v

    def _check_input(self, x: jax.Array, out_grid: Sequence[int] | None):
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise TypeError(
                f"x must hold floating-point numbers, got dtype {x.dtype}; convert it, "
                "such as by x.astype(float)"
            )
        if x.ndim != self.num_axes + 2 or x.shape[-1] != self.in_channels:
            axes = ", ".join(f"n{i + 1}" for i in range(self.num_axes))
            raise ValueError(
                f"x must have shape [batch, {axes}, {self.in_channels}], got {x.shape}"
            )
        if out_grid is not None and len(out_grid) != self.num_axes:
            raise ValueError(
                f"out_grid must hold {self.num_axes} numbers of points, got {out_grid}"
            )


def _two_layers(inputs: int, hidden: int, outputs: int, extra: int, options: dict):
    """Pointwise maps inputs -> hidden and hidden + extra -> outputs."""
    first = Pointwise(inputs, hidden, **options)
    return nnx.List([first, Pointwise(hidden + extra, outputs, **options)])


def _padding(
    fractions: float | Sequence[float], num_axes: int, endpoint: bool, both_ends: bool
) -> DomainPadding:
    if np.size(fractions) not in (1, num_axes) or not all(
        0 <= p < 1 for p in np.ravel(fractions)
    ):
        raise ValueError(
            "domain_padding must lie in [0, 1), one number or one for each of "
            f"{num_axes} axes, got {fractions}"
        )
    per_axis = tuple(float(p) for p in np.broadcast_to(fractions, num_axes))
    return DomainPadding(per_axis, endpoint, both_ends)
