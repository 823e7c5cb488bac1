"""Periodic axes of any length: stretched once, so that coarsening by two never fails.

A ring whose length is odd cannot be coarsened by two, and inserting an unknown on every
level makes the link that closes the ring stronger from level to level. Therefore
unknowns are inserted on the finest level only, in links far from each other and at odd
indices: none of them belongs to a coarse grid, and every level has an even length.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from solvers.multigrid.symmetric import Stencil, center_of


class Ring(NamedTuple):
    """Where the unknowns of one periodic axis went; NumPy.

    Attributes:
        axis: the axis.
        sources: [m] per new index the old one; for inserted unknowns that before.
        inserted: [m] whether an unknown is inserted.
    """

    axis: int
    sources: np.ndarray
    inserted: np.ndarray

    def spread(self, values: jax.Array) -> jax.Array:
        """Brings values to the new indices, zeros to the inserted ones."""
        values = jnp.take(values, self.sources, axis=self.axis)
        return jnp.where(self.mask(self.inserted, values.ndim), 0.0, values)

    def collect(self, values: jax.Array) -> jax.Array:
        """Takes the values of the old unknowns."""
        return jnp.take(values, np.flatnonzero(~self.inserted), axis=self.axis)

    def mask(self, flags: np.ndarray, num_dims: int) -> np.ndarray:
        """Flags [m] along the axis of the ring."""
        return flags.reshape([-1 if k == self.axis else 1 for k in range(num_dims)])


def ring(axis: int, length: int, levels: int) -> Ring:
    """Stretches a length so that it stays even on that many levels, or becomes 1."""
    step = 2**levels
    grown = (
        -(-length // step) * step if length > step else 2 ** (length - 1).bit_length()
    )
    count = grown - length
    slots = (np.arange(count) + 0.5) * (grown // 2) // max(count, 1)
    inserted = np.zeros(grown, bool)
    inserted[2 * slots.astype(int) + 1] = True
    return Ring(axis, np.cumsum(~inserted) - 1, inserted)


def stretch(values: Stencil, where: Ring) -> Stencil:
    """The stencil on a stretched ring, from values [*n] per offset, without halo.

    A link that gets an unknown becomes two of twice its conductance, without links
    across. If the stencil is a star (five or seven points), elimination of the new
    unknowns gives back the matrix. Diagonal links are led over the new unknown next to
    one of their ends, which they share with straight ones; positive entries, which are
    no conductances, are left out. Both only add energy, so that a definite matrix stays
    definite.
    """
    center, axis = center_of(values), where.axis
    num_dims = len(center)
    step = tuple(int(k == axis) for k in range(num_dims))
    new = where.mask(where.inserted, num_dims)
    # Real unknowns whose link forward, or backward, gets an unknown; and, for inserted
    # ones, the real unknown behind them.
    ahead, behind = np.roll(new, -1, axis), np.roll(new, 1, axis)
    after = (where.sources + where.inserted) % values[center].shape[axis]
    grown = {o: where.spread(a) for o, a in values.items() if not o[axis]}
    added = 0.0
    for offset, a in values.items():
        if not offset[axis]:
            continue
        forward = offset[axis] > 0
        link = jnp.take(a, where.sources if forward else after, axis=axis)
        part, split = 2 * jnp.minimum(link, 0.0), ahead if forward else behind
        grown[offset] = jnp.where(new, part, jnp.where(split, 0.0, link))
        added += jnp.where(ahead if forward else new, part, 0.0)
        ends = jnp.where(split, abs(link), 0.0)
        back = tuple(2 * o if k == axis else o for k, o in enumerate(offset))
        ends += jnp.roll(ends, back, tuple(range(num_dims)))
        grown[center] += ends - jnp.where(new, 2 * part, 0.0)
    grown[step] += added
    grown[center] = jnp.where(grown[center] == 0, 1.0, grown[center])
    return {offset: grown[offset] for offset in values}


def fold(values: Stencil, axis: int) -> Stencil:
    """The stencil on a ring of length 1, whose links lead back to where they start."""
    folded: dict = {}
    for offset, a in values.items():
        rest = tuple(0 if k == axis else o for k, o in enumerate(offset))
        if not any(rest):
            a = a if not any(offset) else 2 * a
        elif rest < (0,) * len(rest):  # the opposite half is stored
            shift = tuple(rest)
            rest = tuple(-o for o in rest)
            a = jnp.roll(a, shift, tuple(range(a.ndim)))
        folded[rest] = folded[rest] + a if rest in folded else a
    zero = jnp.zeros_like(values[center_of(values)])
    return {**{offset: zero for offset in values if not offset[axis]}, **folded}
