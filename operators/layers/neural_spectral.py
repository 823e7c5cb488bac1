"""The block of LSM: attention to a few latent tokens, a trigonometric series, back."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from operators.layers.pointwise import Pointwise

BASES = ("official", "integer")


def split_patches(u: jax.Array, patch: Sequence[int]) -> jax.Array:
    """Cuts u [batch, *grid, channels] into patches, [batch, patches, points, channels].

    Raises:
        ValueError: if the patches do not tile the grid.
    """
    grid = u.shape[1:-1]
    if len(patch) != len(grid) or any(n % p for n, p in zip(grid, patch, strict=True)):
        raise ValueError(f"patches of {tuple(patch)} points do not tile grid {grid}")
    sizes = [k for n, p in zip(grid, patch, strict=True) for k in (n // p, p)]
    u = u.reshape(len(u), *sizes, -1)
    last = u.ndim - 1
    u = u.transpose(0, *range(1, last, 2), *range(2, last, 2), last)
    return u.reshape(len(u), -1, math.prod(patch), u.shape[-1])


def join_patches(
    patches: jax.Array, grid: Sequence[int], patch: Sequence[int]
) -> jax.Array:
    """Puts the patches of `split_patches` back, [batch, *grid, channels]."""
    counts = [n // p for n, p in zip(grid, patch, strict=True)]
    u = patches.reshape(len(patches), *counts, *patch, -1)
    d = len(patch)
    u = u.transpose(0, *(a for i in range(1, d + 1) for a in (i, i + d)), 2 * d + 1)
    return u.reshape(len(patches), *grid, -1)


def _softmax(logits: jax.Array, axis: int) -> jax.Array:
    """Softmax in float32 or better, returned in the dtype of the logits."""
    exact = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    return jax.nn.softmax(exact, axis=axis).astype(logits.dtype)


class NeuralSpectralBlock(nnx.Module):
    """Moves patches to latent tokens, adds a learned series there, and comes back.

    Per patch, with heads h of d = channels / num_heads, points l and tokens t:

        Z = softmax_l(Q K^T) V + Q         K, V affine in the patch, Q learned
        Z <- Z + sum_k a_k sin(pi f_k Z) + b_k cos(pi f_k Z)       per channel
        u <- u + softmax_t(q Z^T) Z        q affine in the patch

    No patch sees another, all share the parameters, and logits are not scaled. Two
    parameters never act: the first sine weights, since f_0 = 0, and the bias of the
    keys, which shifts the logits of all points alike.

    Few tokens meet many points and channels, so that products with the tokens go first:
    Q (W x) is computed as (Q W) x, and so on.

    Args:
        channels: channels of the field, a multiple of num_heads.
        num_heads: heads of both attentions.
        num_tokens: latent tokens per patch.
        num_basis: sines and cosines per channel.
        basis: f_k = k / num_basis ("official", all below 1) or f_k = k ("integer").
        param_dtype: dtype of the parameters.
        rngs: random streams; draws from `params`.

    Raises:
        ValueError: if an argument does not fit.

    References:
        Wu, Hu, Luo, Wang, Long (2023), arXiv:2301.12664; frequencies, missing scaling
        and initialisation are those of github.com/thuml/Latent-Spectral-Models.
    """

    def __init__(
        self,
        channels: int,
        *,
        num_heads: int = 8,
        num_tokens: int = 4,
        num_basis: int = 12,
        basis: str = "official",
        param_dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        if basis not in BASES:
            raise ValueError(f"basis is {basis!r}; known: {', '.join(BASES)}")
        if min(num_heads, num_tokens, num_basis) < 1 or channels % num_heads:
            raise ValueError(
                f"channels must be a multiple of num_heads, and num_tokens and "
                f"num_basis positive, got channels {channels}, num_heads {num_heads}, "
                f"num_tokens {num_tokens}, num_basis {num_basis}"
            )
        self.num_heads = num_heads
        self.step = 1 / num_basis if basis == "official" else 1.0  # f_k = k * step
        options = {"param_dtype": param_dtype, "rngs": rngs}

        def draw(*shape):
            uniform = jax.random.uniform(rngs.params(), shape, param_dtype)
            return nnx.Param(uniform / channels)

        self.sine, self.cosine = draw(channels, num_basis), draw(channels, num_basis)
        self.queries = draw(num_heads, num_tokens, channels // num_heads)
        self.key_value = Pointwise(channels, 2 * channels, **options)  # keys first
        self.query = Pointwise(channels, channels, **options)

    def __call__(self, u: jax.Array, patch: Sequence[int]) -> jax.Array:
        """Maps u [batch, *grid, channels] to the same shape.

        Args:
            u: field.
            patch: points of a patch per axis.

        Raises:
            ValueError: if the patches do not tile the grid.
        """
        patches = split_patches(u, patch)
        latents = self.encode(patches)
        latents = latents + self.series(latents)
        return join_patches(
            patches + self.decode(patches, latents), u.shape[1:-1], patch
        )

    def encode(self, patches: jax.Array) -> jax.Array:
        """Summarises [batch, patches, points, c] as [batch, patches, tokens, c]."""
        batch, count, points, c = patches.shape
        queries = self.queries[...].astype(patches.dtype)
        heads, tokens, d = queries.shape
        kernel = self.key_value.kernel[...].astype(patches.dtype)
        keys, values = (k.reshape(c, heads, d) for k in jnp.split(kernel, 2, axis=1))
        folded = jnp.einsum("chd,htd->cht", keys, queries).reshape(c, -1)
        logits = (patches.reshape(-1, c) @ folded).reshape(batch, count, points, -1)
        means = jnp.einsum("bple,bplc->bpec", _softmax(logits, 2), patches)
        means = means.reshape(batch, count, heads, tokens, c)
        latents = jnp.einsum("bphtc,chd->bpthd", means, values)
        bias = self.key_value.bias[...].astype(patches.dtype)[c:]
        shift = (bias.reshape(heads, 1, d) + queries).swapaxes(0, 1)
        latents = latents + shift[None, None]
        return latents.reshape(batch, count, tokens, c)

    def series(self, latents: jax.Array) -> jax.Array:
        """The trigonometric series of [batch, patches, tokens, channels].

        Horner's rule for Re sum_k (b_k - i a_k) e^(i k theta), one sine and one cosine
        per latent; theta is the angle of the first harmonic.
        """
        z = latents.astype(jnp.promote_types(latents.dtype, jnp.float32))
        sine, cosine = (
            weights[...].astype(z.dtype).T.reshape(-1, 1, 1, 1, z.shape[-1])
            for weights in (self.sine, self.cosine)
        )
        theta = np.pi * self.step * z
        cos, sin = jnp.cos(theta), jnp.sin(theta)
        real, imag = (jnp.broadcast_to(w, z.shape) for w in (cosine[-1], -sine[-1]))
        for a, b in zip(sine[-2::-1], cosine[-2::-1], strict=True):
            real, imag = real * cos - imag * sin + b, real * sin + imag * cos - a
        return real.astype(latents.dtype)

    def decode(self, patches: jax.Array, latents: jax.Array) -> jax.Array:
        """What the points [batch, patches, points, c] read from their latents."""
        batch, count, points, c = patches.shape
        z = latents.reshape(batch, count, -1, self.num_heads, c // self.num_heads)
        kernel = self.query.kernel[...].astype(z.dtype).reshape(c, *z.shape[3:])
        bias = self.query.bias[...].astype(z.dtype).reshape(z.shape[3:])
        folded = jnp.einsum("chd,bpthd->bpcht", kernel, z).reshape(batch, count, c, -1)
        shift = jnp.einsum("hd,bpthd->bpht", bias, z).reshape(batch, count, 1, -1)
        logits = jnp.einsum("bplc,bpce->bple", patches, folded) + shift
        logits = logits.reshape(batch, count, points, self.num_heads, -1)
        out = jnp.einsum("bplht,bpthd->bplhd", _softmax(logits, 4), z)
        return out.reshape(patches.shape)
