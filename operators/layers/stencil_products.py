"""Stencils on two axes as matrix products, and their gradients, for CPU.

With few channels XLA's convolutions and a product per tap leave most of a processor's
width unused, so three or four taps stand beside each other as channels: the products
are wider, and the taps left over are shifts of their results.
"""

import jax
import jax.numpy as jnp

_0 = (0, 0)  # no padding along an axis


def smooth(u: jax.Array, kernel: jax.Array) -> jax.Array:
    """out[i] = sum over t of u[i + t] kernel[t], kernel [3, 3, in, out].

    The taps of axis 1 are channels of the input, those of axis 2 of the output.
    """
    n1, n2 = (n - 2 for n in u.shape[1:3])
    rows = jnp.concatenate([u[:, t : t + n1] for t in range(3)], -1)
    taps = kernel.swapaxes(1, 2).reshape(-1, 3, kernel.shape[-1])
    out = jnp.einsum("bijc,ctd->bijtd", rows, taps)
    return sum(out[:, :, t : t + n2, t] for t in range(3))


def smooth_kernel_gradient(u: jax.Array, g: jax.Array) -> jax.Array:
    """Sum over i of u[i + t] g[i], [3, 3, c, d]."""
    n1, c, d = g.shape[1], u.shape[-1], g.shape[-1]
    shifts = [jnp.pad(g, (_0, _0, (t, 2 - t), _0)) for t in range(3)]
    shifts = jnp.concatenate(shifts, -1)
    rows = jnp.concatenate([u[:, t : t + n1] for t in range(3)], -1)
    return _product(rows, shifts).reshape(3, c, 3, d).swapaxes(1, 2)


def prolong(u: jax.Array, kernel: jax.Array) -> jax.Array:
    """out[2j + t] += u[j] kernel[t], kernel [4, 4, in, out], 2 m + 2 points."""
    batch, m1, m2, c = u.shape
    # Point 2m + s of the output is u[m] kernel[s] + u[m - 1] kernel[s + 2].
    taps = kernel.reshape(2, 2, 2, 2, c, -1).transpose(0, 2, 4, 1, 3, 5)
    taps = taps.reshape(4 * c, 2, 2, -1)
    out = jnp.einsum("bijc,cstd->bisjtd", _four_shifts(u), taps)
    return out.reshape(batch, 2 * m1 + 2, 2 * m2 + 2, -1)


def strided_kernel_gradient(fine: jax.Array, coarse: jax.Array) -> jax.Array:
    """Sum over j of fine[2j + t] coarse[j] for t in [0, 4)^2, [4, 4, c, d]."""
    batch, m1, m2, d = coarse.shape
    c = fine.shape[-1]
    shifts = _four_shifts(coarse)  # t = 2 a + s
    fine = fine.reshape(batch, m1 + 1, 2, m2 + 1, 2 * c)
    taps = jnp.stack([_product(fine[:, :, s], shifts) for s in range(2)])
    taps = taps.reshape(2, 2, c, 2, 2, d)  # [s1, s2, c, a1, a2, d]
    return taps.transpose(3, 0, 4, 1, 2, 5).reshape(4, 4, c, d)


def _product(u: jax.Array, g: jax.Array) -> jax.Array:
    """Sum of u[b, i, j, c] g[b, i, j, d] over b, i, j, [c, d]."""
    return jnp.einsum("bijc,bijd->cd", u, g)


def _four_shifts(u: jax.Array) -> jax.Array:
    """u[i - a1, j - a2] for a1, a2 in {0, 1} beside each other, [.., 4 c]."""
    shifts = [
        jnp.pad(u, (_0, (a1, 1 - a1), (a2, 1 - a2), _0))
        for a1 in range(2)
        for a2 in range(2)
    ]
    return jnp.concatenate(shifts, -1)
