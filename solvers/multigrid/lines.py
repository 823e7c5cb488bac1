"""Zebra line smoother: whole grid lines solved at once, every second line at a time.

Where neighbours along one axis are coupled much more strongly than along another, and
which axis that is changes from place to place, neither a point smoother nor coarsening
along one axis is enough. Lines along every axis in turn are: the strong axis is always
among them. The sweeps one way before and the other way after the coarse correction keep
the cycle symmetric. In three dimensions lines do not replace planes: two axes that are
both strong need coarsening along them.

A sweep is a recurrence along the lines and vectorised across them; on a CPU its loop
takes the time of one product with the stencil.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from solvers.multigrid import transfer
from solvers.multigrid.symmetric import Offset, Stencil, center_of, halo, window


class Sweep(NamedTuple):
    """Lines along one axis whose indices along the others have one parity.

    Their matrices are tridiagonal and factored as (1 + L) D (1 + L)^T.

    Attributes:
        axis: axis of the lines.
        parity: of their indices, zero along `axis`.
        lower: L, couplings to the unknown before, [n, *lines].
        inverse: 1 / D, [n, *lines].
    """

    axis: int
    parity: Offset
    lower: jax.Array
    inverse: jax.Array


def zebra(stencil: Stencil, periodic: tuple[int, ...] = ()) -> tuple[Sweep, ...]:
    """Factors all lines of a stencil of even sizes: one sweep per axis and colour.

    On periodic axes the link that closes a line is cut, and its conductance added to
    the diagonal at both ends: that adds energy, so the smoother converges all the same.
    """
    num_dims, sweeps = len(center_of(stencil)), []
    for axis in range(num_dims):
        others = tuple(k for k in range(num_dims) if k != axis)
        step = tuple(int(k == axis) for k in range(num_dims))
        for parity in transfer.classes(num_dims, others):
            rows = transfer.rows(stencil, parity, others)
            diagonal = jnp.moveaxis(rows[center_of(stencil)], axis, 0)
            after = jnp.moveaxis(rows[step], axis, 0)
            if axis in periodic:
                ends = jnp.array([0, -1])
                diagonal = diagonal.at[ends].add(abs(after[-1]))
            sweeps.append(Sweep(axis, parity, *_factors(diagonal, after)))
    return tuple(sweeps)


def smooth(
    sweeps: tuple[Sweep, ...],
    stencil: Stencil,
    b: jax.Array,
    x: jax.Array | None = None,
    periodic: tuple[int, ...] = (),
) -> jax.Array:
    """Runs the sweeps in order; returns x [*(m + 2)] with its halo.

    Run in the reverse order it is the adjoint.

    Args:
        sweeps: of `zebra`.
        stencil: A.
        b: [*(m + 2)] right-hand side with its halo.
        x: [*(m + 2)] start with its halo; None: zero.
        periodic: axes that wrap around.
    """
    for sweep in sweeps:
        others = tuple(k for k in range(b.ndim) if k != sweep.axis)
        r = transfer.strided(b, sweep.parity, others)
        if x is not None:
            for offset, a in transfer.rows(stencil, sweep.parity, others).items():
                start = tuple(p + o for p, o in zip(sweep.parity, offset, strict=True))
                r -= a * transfer.strided(x, start, others)
        d = _solve(sweep, jnp.moveaxis(r, sweep.axis, 0))
        d = _spread(jnp.moveaxis(d, 0, sweep.axis), sweep.parity, others)
        x = halo(d if x is None else window(x) + d, periodic)
    return x


def _factors(diagonal, after):
    """L and 1 / D of tridiagonal matrices, first axis along the lines."""

    def eliminate(state, row):
        pivot, link = state
        lower = link / pivot
        pivot = row[0] - lower * link
        return (pivot, row[1]), (lower, 1 / pivot)

    one = jnp.ones_like(diagonal[0])
    _, factors = jax.lax.scan(eliminate, (one, 0 * one), (diagonal, after))
    return jax.lax.optimization_barrier(factors)


def _solve(sweep, r):
    """Solutions of all lines [n, *lines] by substitution, vectorised over the lines."""

    def forward(before, row):
        value = row[1] - row[0] * before
        return value, value

    def backward(state, row):
        after, lower = state
        value = row[1] * row[2] - lower * after
        return (value, row[0]), value

    zero = jnp.zeros_like(r[0])
    _, r = jax.lax.scan(forward, zero, (sweep.lower, r))
    rows = (sweep.lower, r, sweep.inverse)
    _, x = jax.lax.scan(backward, (zero, zero), rows, reverse=True)
    return x


def _spread(values, parity, axes):
    """Values of one colour in place, zeros elsewhere."""
    edges = [
        (p, 1 - p, 1) if k in axes else (0, 0, 0)
        for k, p in zip(range(values.ndim), parity, strict=True)
    ]
    return jax.lax.pad(values, jnp.zeros((), values.dtype), edges)
