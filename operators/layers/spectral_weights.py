"""Complex matrices per Fourier mode: dense, factorised or one number per channel.

Complex numbers are stored as two real arrays. Every class maps coefficients
[batch, 2, *k, in] to [batch, 2, *k, out] and takes the block of the stored modes that
these coefficients belong to, one slice per axis.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from operators.layers.precision import einsum

FACTORIZATIONS = ("dense", "tucker", "cp")


def create(
    in_channels: int,
    out_channels: int,
    sizes: Sequence[int],
    *,
    init: str = "normal",
    bound: float | None = None,
    factorization: str = "dense",
    rank: float = 1.0,
    separable: bool = False,
    param_dtype=jnp.float32,
    rngs: nnx.Rngs,
) -> nnx.Module:
    """Weights for `sizes` modes per axis.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        sizes: stored modes per axis.
        init: "normal", complex with total variance 2 / (in + out), or "uniform", both
            parts from U[0, 1) / (in * out); factors are always normal.
        bound: draws both parts of dense weights from U[0, bound) instead.
        factorization: "dense", "tucker" or "cp".
        rank: parameters of the factors over those of the dense weights, about.
        separable: one complex number per channel and mode instead of a matrix.
        param_dtype: dtype of the parameters.
        rngs: random streams; draws from `params`.

    Raises:
        ValueError: for an unknown factorisation, a rank outside (0, 1], or separable
            weights that are factorised or change the channels.
    """
    if factorization not in FACTORIZATIONS:
        raise ValueError(
            f"factorization is {factorization!r}; known: {', '.join(FACTORIZATIONS)}"
        )
    if not 0 < rank <= 1:
        raise ValueError(f"rank must lie in (0, 1], got {rank}")
    if separable and (factorization != "dense" or in_channels != out_channels):
        raise ValueError(
            "separable weights are dense and keep the channels, got factorization "
            f"{factorization!r}, {in_channels} -> {out_channels} channels"
        )
    options = {"param_dtype": param_dtype, "rngs": rngs}
    spread = math.sqrt(2 / (in_channels + out_channels))
    shape = (in_channels, out_channels, *sizes)
    if factorization == "tucker":
        return TuckerWeights(shape, tucker_ranks(shape, rank), spread, **options)
    if factorization == "cp":
        return CPWeights(shape, cp_rank(shape, rank), spread, **options)
    if bound is None and init == "uniform":
        bound = 1 / (in_channels * out_channels)
    channels = (in_channels,) if separable else (in_channels, out_channels)
    return DenseWeights((*sizes, *channels), len(sizes), spread, bound, **options)


def tucker_ranks(shape: Sequence[int], rank: float) -> tuple[int, ...]:
    """Ranks s_i x of a Tucker tensor with `rank` times the entries of the dense one.

    x solves prod(s) x^D + sum(s^2) x = rank * prod(s), entries of core and factors.
    """
    entries = math.prod(shape)
    polynomial = np.zeros(len(shape) + 1)
    polynomial[0], polynomial[-1] = entries, -rank * entries
    polynomial[-2] += sum(s**2 for s in shape)
    roots = np.roots(polynomial)
    x = max(r.real for r in roots if abs(r.imag) < 1e-9)
    return tuple(max(1, round(s * x)) for s in shape)


def cp_rank(shape: Sequence[int], rank: float) -> int:
    """Number of terms of a CP tensor with `rank` times the entries of the dense one."""
    return max(1, round(rank * math.prod(shape) / sum(shape)))


class DenseWeights(nnx.Module):
    """One complex matrix, or one number per channel, for every mode.

    Parameters `real`, `imag`: [*modes, in, out], separable [*modes, channels].
    """

    def __init__(self, shape, num_axes, spread, bound, *, param_dtype, rngs):
        def draw():
            if bound is not None:
                return bound * jax.random.uniform(rngs.params(), shape, param_dtype)
            return _normal(shape, spread, param_dtype, rngs)

        self.separable = len(shape) == num_axes + 1
        self.real, self.imag = nnx.Param(draw()), nnx.Param(draw())

    def __call__(self, coefficients, block, precision="full"):
        """Maps [batch, 2, *k, in] to [batch, 2, *k, out]."""
        real, imag = (
            w[...][block].astype(coefficients.dtype) for w in (self.real, self.imag)
        )
        if self.separable:
            return _times(coefficients, real[None], imag[None])
        shape, c = coefficients.shape, coefficients.shape[-1]
        d = real.shape[-1]
        blocks = _real_blocks(real.reshape(-1, c, d), imag.reshape(-1, c, d))
        values = coefficients.reshape(shape[0], 2, -1, c).transpose(2, 0, 1, 3)
        values = values.reshape(-1, shape[0], 2 * c)
        values = einsum("kbi,kio->kbo", values, blocks, precision)
        values = values.reshape(-1, shape[0], 2, d).transpose(1, 2, 0, 3)
        return values.reshape(*shape[:-1], d)


class TuckerWeights(nnx.Module):
    """W[k, i, o] = sum of core[r, s, t] A[i, r] B[o, s] prod_j V_j[k_j, t_j].

    The coefficients pass through A, one small matrix per mode and B, so that the dense
    weights are never formed.
    """

    def __init__(self, shape, ranks, spread, *, param_dtype, rngs):
        options = {"param_dtype": param_dtype, "rngs": rngs}
        # The entries of the product get the spread of dense weights.
        std = (spread / math.sqrt(math.prod(ranks))) ** (1 / (len(shape) + 1))
        self.core = ComplexArray(ranks, std, **options)
        self.factors = nnx.List(
            ComplexArray((s, r), std, **options)
            for s, r in zip(shape, ranks, strict=True)
        )

    def __call__(self, coefficients, block, precision="full"):
        """Maps [batch, 2, *k, in] to [batch, 2, *k, out]."""
        dtype = coefficients.dtype
        A, B, *modes = (factor.get(dtype) for factor in self.factors)
        core = self.core.get(dtype)  # [r, s, *t]
        for V, kept in zip(modes, block, strict=True):
            # The first axis of modes goes, its frequencies come last.
            core = jnp.tensordot(core, V[kept], ((2,), (1,)), precision="highest")
        sizes, ranks = core.shape[2:], core.shape[:2]
        core = jnp.moveaxis(core.reshape(*ranks, -1), -1, 0)
        shape = coefficients.shape
        values = coefficients.reshape(shape[0], 2, -1, shape[-1])
        values = _to_channels_last(values)  # [b, mode, (p, c)]
        values = einsum("bki,io->bko", values, _real_blocks(A.real, A.imag), precision)
        cores = _real_blocks(core.real, core.imag)
        values = einsum("bki,kio->bko", values, cores, precision)
        back = _real_blocks(B.real.T, B.imag.T)
        values = einsum("bki,io->bko", values, back, precision)
        return _to_parts(values).reshape(shape[0], 2, *sizes, B.shape[0])


class CPWeights(nnx.Module):
    """W[k, i, o] = sum over r of scale[r] A[i, r] B[o, r] prod_j V_j[k_j, r]."""

    def __init__(self, shape, rank, spread, *, param_dtype, rngs):
        options = {"param_dtype": param_dtype, "rngs": rngs}
        std = (spread / math.sqrt(rank)) ** (1 / len(shape))
        self.scale = ComplexArray((rank,), None, **options)
        self.factors = nnx.List(ComplexArray((s, rank), std, **options) for s in shape)

    def __call__(self, coefficients, block, precision="full"):
        """Maps [batch, 2, *k, in] to [batch, 2, *k, out]."""
        dtype, shape = coefficients.dtype, coefficients.shape
        A, B, *modes = (factor.get(dtype) for factor in self.factors)
        terms = self.scale.get(dtype)
        for V, kept in zip(modes, block, strict=True):
            V = V[kept]
            lead = (1,) * (terms.ndim - 1)
            terms = terms[..., None, :] * V.reshape(*lead, *V.shape)
        values = coefficients.reshape(shape[0], 2, -1, shape[-1])
        into = _real_blocks(A.real, A.imag)
        values = einsum("bki,io->bko", _to_channels_last(values), into, precision)
        terms = terms.reshape(1, -1, terms.shape[-1])
        values = _times(_to_parts(values), terms.real, terms.imag)
        back = _real_blocks(B.real.T, B.imag.T)
        values = einsum("bki,io->bko", _to_channels_last(values), back, precision)
        return _to_parts(values).reshape(*shape[:-1], B.shape[0])


class ComplexArray(nnx.Module):
    """A complex array as two real parameters `real` and `imag`.

    Drawn with total standard deviation `std`; None: ones, or `bound` times numbers from
    U[0, 1) in both parts.
    """

    def __init__(self, shape, std, *, bound=None, param_dtype, rngs):
        if bound is not None:
            for part in ("real", "imag"):
                value = bound * jax.random.uniform(rngs.params(), shape, param_dtype)
                setattr(self, part, nnx.Param(value))
        elif std is None:
            self.real = nnx.Param(jnp.ones(shape, param_dtype))
            self.imag = nnx.Param(jnp.zeros(shape, param_dtype))
        else:
            self.real = nnx.Param(_normal(shape, std, param_dtype, rngs))
            self.imag = nnx.Param(_normal(shape, std, param_dtype, rngs))

    def get(self, dtype) -> jax.Array:
        """The complex array for real fields of this dtype."""
        real, imag = self.real[...].astype(dtype), self.imag[...].astype(dtype)
        return jax.lax.complex(real, imag)


def _normal(shape, spread, param_dtype, rngs):
    std = spread / math.sqrt(2)  # of each part
    return std * jax.random.normal(rngs.params(), shape, param_dtype)


def _real_blocks(real: jax.Array, imag: jax.Array) -> jax.Array:
    """Real matrices [..., (p, c), (q, d)] of complex ones [..., c, d]."""
    *lead, c, d = real.shape
    rows = [jnp.stack([real, imag], -2), jnp.stack([-imag, real], -2)]
    return jnp.stack(rows, -4).reshape(*lead, 2 * c, 2 * d)


def _times(values: jax.Array, real: jax.Array, imag: jax.Array) -> jax.Array:
    """Complex products, values [batch, 2, ...]; real, imag [1, ...]."""
    a, b = values[:, 0], values[:, 1]
    return jnp.stack([a * real - b * imag, a * imag + b * real], 1)


def _to_channels_last(values: jax.Array) -> jax.Array:
    """[batch, 2, mode, c] -> [batch, mode, (2, c)]."""
    batch, _, modes, c = values.shape
    return values.transpose(0, 2, 1, 3).reshape(batch, modes, 2 * c)


def _to_parts(values: jax.Array) -> jax.Array:
    """[batch, mode, (2, c)] -> [batch, 2, mode, c]."""
    batch, modes, c = values.shape
    return values.reshape(batch, modes, 2, c // 2).transpose(0, 2, 1, 3)
