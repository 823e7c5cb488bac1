"""Normalisations of grid functions by name, on any number of axes."""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from operators.layers.pointwise import ChannelMLP

KINDS = ("none", "batch", "instance", "instance_affine", "group", "layer")
EPSILON = 1e-5  # added to variances, PyTorch's number


def create(
    kind: str,
    channels: int,
    *,
    num_groups: int = 1,
    param_dtype=jnp.float32,
    rngs: nnx.Rngs,
) -> nnx.Module:
    """Builds a map of u [batch, *grid, channels] to the same shape and dtype.

    Mean and variance are taken, for "batch" over samples and grid, per channel; for
    "instance" over the grid, per sample and channel, "instance_affine" then scales and
    shifts every channel; for "group" over the grid and a group of channels; for "layer"
    over the channels of one point. "none" is the identity.

    Args:
        kind: one of `KINDS`.
        channels: channels of u.
        num_groups: groups of channels, for "group".
        param_dtype: dtype of scale, shift and batch statistics.
        rngs: random streams (scales start at one and shifts at zero).

    Raises:
        ValueError: for an unknown kind, or groups that do not divide the channels.
    """
    options = {"param_dtype": param_dtype, "rngs": rngs}
    if kind == "none":
        return Identity()
    if kind == "batch":
        return BatchNorm(channels, **options)
    if kind == "instance":
        return GroupNorm(channels, num_groups=channels, affine_grid=None, **options)
    if kind == "instance_affine":
        return GroupNorm(channels, num_groups=channels, **options)
    if kind == "group":
        return GroupNorm(channels, num_groups=num_groups, **options)
    if kind == "layer":
        return GroupNorm(channels, pointwise=True, **options)
    raise ValueError(f"norm is {kind!r}; known: {', '.join(KINDS)}")


def _standardise(u: jax.Array, axes: tuple[int, ...], epsilon: float = EPSILON):
    """Returns u with mean 0 and variance 1 along `axes`, the mean and the variance.

    At least in float32. The variance is that of u - mean: as a difference of squares it
    loses all digits where the mean is large.

    Raises:
        ValueError: if each mean is that of a single value, which would become 0.
    """
    if math.prod(u.shape[axis] for axis in axes) == 1:
        raise ValueError(
            "a norm needs more than one value per mean and variance, since a single "
            f"one always becomes 0, got shape {u.shape} and means over axes {axes}; "
            "use more samples or points, fewer scales or groups, or no norm"
        )
    u = u.astype(jnp.promote_types(u.dtype, jnp.float32))
    mean = u.mean(axes, keepdims=True)
    centred = u - mean
    variance = jnp.square(centred).mean(axes, keepdims=True)
    return centred * jax.lax.rsqrt(variance + epsilon), mean, variance


def _transform(u: jax.Array, scale: jax.Array, shift: jax.Array) -> jax.Array:
    """Returns u * scale + shift, with scale and shift for the last axes of u."""
    shape = (1,) * (u.ndim - scale.ndim) + scale.shape
    return u * scale.astype(u.dtype).reshape(shape) + shift.astype(u.dtype).reshape(
        shape
    )


class Identity(nnx.Module):
    """No normalisation."""

    def __call__(self, u: jax.Array) -> jax.Array:
        """Returns u."""
        return u


class BatchNorm(nnx.BatchNorm):
    """Batch normalisation, then a scale and a shift per channel.

    After `model.train()` it uses and records the mean and variance of the batch, after
    `model.eval()` the recorded ones. New values enter the record with weight 0.1; the
    variance is that of the samples at hand, n / (n - 1) smaller than what PyTorch
    records. Padded points count like all others.

    Args:
        channels: channels of the input.
        param_dtype: dtype of scale, shift and record.
        rngs: random streams (unused: scale starts at one and shift at zero).
    """

    def __init__(self, channels: int, *, param_dtype=jnp.float32, rngs: nnx.Rngs):
        super().__init__(
            channels,
            use_running_average=False,
            momentum=0.9,
            epsilon=EPSILON,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        dtype = jnp.promote_types(param_dtype, jnp.float32)  # Flax: always float32
        self.mean = nnx.BatchStat(jnp.zeros((channels,), dtype))
        self.var = nnx.BatchStat(jnp.ones((channels,), dtype))

    def __call__(self, u: jax.Array) -> jax.Array:
        """Maps u [batch, *grid, channels] to the same shape and dtype.

        Raises:
            ValueError: in training, if there is one sample with one point.
        """
        if self.use_running_average:
            factor = jax.lax.rsqrt(self.var[...] + EPSILON)
            scale = self.scale[...] * factor
            shift = self.bias[...] - self.mean[...] * scale
            return _transform(u, scale, shift)
        out, *statistics = _standardise(u, tuple(range(u.ndim - 1)))
        for record, value in zip((self.mean, self.var), statistics, strict=True):
            value = jax.lax.stop_gradient(value).reshape(-1).astype(record[...].dtype)
            record[...] = self.momentum * record[...] + (1 - self.momentum) * value
        return _transform(out, self.scale[...], self.bias[...]).astype(u.dtype)


class GroupNorm(nnx.Module):
    """Normalisation of each sample over its grid and groups of channels.

    Args:
        channels: channels of the input.
        num_groups: groups of adjacent channels; one group is everything together, as
            many groups as channels is instance normalisation.
        pointwise: takes mean and variance at each point over its channels alone.
        affine_grid: () for a scale and a shift per channel, None for none; a grid ties
            the layer to it and gives every point its own (PyTorch's LayerNorm).
        epsilon: added to variances.
        param_dtype: dtype of scale and shift.
        rngs: random streams (unused: scale starts at one and shift at zero).

    Raises:
        ValueError: if the groups do not divide the channels.
    """

    def __init__(
        self,
        channels: int,
        *,
        num_groups: int = 1,
        pointwise: bool = False,
        affine_grid: tuple[int, ...] | None = (),
        epsilon: float = EPSILON,
        param_dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        if num_groups < 1 or channels % num_groups:
            raise ValueError(
                f"num_groups must divide the {channels} channels, got {num_groups}"
            )
        self.num_groups, self.pointwise = num_groups, pointwise
        self.epsilon = epsilon
        self.scale = self.bias = nnx.data(None)
        if affine_grid is not None:
            shape = (*affine_grid, channels)
            self.scale = nnx.Param(jnp.ones(shape, param_dtype))
            self.bias = nnx.Param(jnp.zeros(shape, param_dtype))

    def __call__(self, u: jax.Array) -> jax.Array:
        """Maps u [batch, *grid, channels] to the same shape and dtype.

        Raises:
            ValueError: if u has no grid axis, or a mean would hold one value only.
        """
        if u.ndim < 3 and not self.pointwise:
            raise ValueError(f"u must be [batch, *grid, channels], got {u.shape}")
        groups = u.reshape(*u.shape[:-1], self.num_groups, -1)
        axes = () if self.pointwise else tuple(range(1, u.ndim - 1))
        out = _standardise(groups, (*axes, u.ndim), self.epsilon)[0].reshape(u.shape)
        if self.scale is not None:
            out = _transform(out, self.scale[...], self.bias[...])
        return out.astype(u.dtype)


class ConditionalNorm(nnx.Module):
    """Group normalisation with the scale and the shift of an embedding per sample.

    Args:
        channels: channels of the input.
        embedding_channels: length of the embedding.
        hidden: hidden units between the embedding and (scale - 1, shift).
        num_groups: groups of channels; `channels` of them by default (0).
        param_dtype: dtype of the parameters.
        rngs: random streams; draws from `params`.
    """

    def __init__(
        self,
        channels: int,
        embedding_channels: int,
        *,
        hidden: int = 512,
        num_groups: int = 0,
        param_dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        options = {"param_dtype": param_dtype, "rngs": rngs}
        self.embedding_channels = embedding_channels
        groups = num_groups or channels
        self.norm = GroupNorm(channels, num_groups=groups, affine_grid=None, **options)
        self.mlp = ChannelMLP(embedding_channels, hidden, 2 * channels, **options)

    def __call__(self, u: jax.Array, embedding: jax.Array) -> jax.Array:
        """Maps u [batch, *grid, channels], embedding [batch, embedding_channels].

        Raises:
            ValueError: if the embedding has the wrong shape.
        """
        expected = (u.shape[0], self.embedding_channels)
        if embedding.shape != expected:
            raise ValueError(
                f"embedding must have shape {expected}, got {embedding.shape}"
            )
        ones = (1,) * (u.ndim - 2)
        v = self.mlp(embedding.astype(u.dtype).reshape(len(u), *ones, -1))
        scale, shift = jnp.split(v, 2, axis=-1)
        return self.norm(u) * (1 + scale) + shift
