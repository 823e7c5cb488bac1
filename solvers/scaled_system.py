"""A symmetrically scaled star operator and the inverse of a constant one near it."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from solvers import fast_diagonalization, reference
from solvers.roughness import is_continuous, largest_ratio
from solvers.star import Star, along, total_links

FORMS = ("auto", "scaled", "unscaled")
BAD_INVERSE = 1e-6  # eigenvalues below, in units of the first one above 0, count as 0


class Table(NamedTuple):
    """One axis: basis of `Line`, its weights, and the least eigenvalue above zero."""

    values: jax.Array
    vectors: jax.Array
    weights: jax.Array
    gap: jax.Array


@functools.lru_cache(maxsize=32)
def tables_of(lines) -> tuple[Table, ...]:
    """Device arrays for the axes of a grid, vectors in float32."""
    tables = []
    for line in lines:
        values, vectors = fast_diagonalization.basis(line)
        above = values[values > 1e-9 * max(values.max(), 1e-9)]
        gap = np.float64(above.min() if above.size else 1.0)
        table = (values, vectors.astype(np.float32), line.weights(), gap)
        tables.append(Table(*map(jax.device_put, table)))
    return tuple(tables)


def scaled_system(star, apply, tables, form):
    """D [*grid], the star of D A D in float32 and M, an approximation of its inverse.

    Args:
        star: A in float32, positive links.
        apply: A in float64.
        tables: of the axes of the reference operator.
        form: counts in FORMS.

    References:
        Concus, Golub (1973), section 3: the shift is the mean of the potential that
        the scaling brings, D div(a grad D), and of the reaction term.
    """
    num_dims = star.excess.ndim
    weights = [table.weights.astype(jnp.float32) for table in tables]
    typical = reference.typical_links(star, weights, _total)
    links = total_links(star)
    usable = links > 0  # False for an unknown without neighbours
    degrees = reference.degrees(star, weights, typical, jnp)
    a = jnp.where(usable, links, 1.0) / jnp.where(usable, degrees, 1.0)
    ratios = [
        largest_ratio(link, axis, axis in star.periodic, jnp)
        for axis, link in enumerate(star.links)
    ]
    step = jnp.log(jnp.stack(ratios).max())
    smooth = is_continuous(step, a.max() / a.min(), jnp)
    smooth = jnp.where(form == 0, smooth, form == FORMS.index("scaled"))
    D = jnp.where(smooth, 1 / jnp.sqrt(a), 1.0)
    D = jax.lax.optimization_barrier(D.astype(jnp.float32))
    # In float64: what remains of a sum of large terms decides on the smooth modes.
    wide = D.astype(jnp.float64)
    excess = (wide * apply(wide)).astype(jnp.float32)
    scaled = []
    for axis, link in enumerate(star.links):
        halo = _halo(D, axis, axis in star.periodic)
        before = halo[along(axis, slice(None, -1))]
        scaled.append(link * before * halo[along(axis, slice(1, None))])
    system = jax.lax.optimization_barrier((excess, tuple(scaled)))
    core = reference.interior(star)
    ratio = (excess / reference.volumes(weights))[core]
    shift = jnp.maximum(_total(ratio) / ratio.size, 0.0)
    values = shift
    for axis, (t, table) in enumerate(zip(typical, tables, strict=True)):
        values = values + reference.on_axis(t * table.values, axis, num_dims)
    gaps = [t * table.gap for t, table in zip(typical, tables, strict=True)]
    gap = jnp.stack([jnp.where(g > 0, g, jnp.inf) for g in gaps]).min()
    values = jnp.where(values < BAD_INVERSE * gap, gap, values)
    inverse = jax.lax.optimization_barrier((1 / values).astype(jnp.float32))
    vectors = [table.vectors for table in tables]
    return D, Star(*system, star.periodic), lambda r: _transformed(vectors, inverse, r)


def _transformed(vectors, inverse, r):
    """(Q_1 x Q_2 ...) inverse (Q_1 x Q_2 ...)^T r: every product moves an axis last."""
    for Q in vectors:
        r = jax.lax.dot_general(r, Q, (((0,), (0,)), ((), ())))
    r = r * inverse
    for Q in vectors:
        r = jax.lax.dot_general(r, Q, (((0,), (1,)), ((), ())))
    return r


def _total(values):
    """The sum of all entries, by a dot product: sums are not vectorised on CPUs."""
    return jnp.vdot(values, jnp.ones_like(values))


def _halo(p, axis, periodic):
    """One more entry at both ends of an axis: zero, or from the other end."""
    width = [(0, 0)] * p.ndim
    width[axis] = (1, 1)
    return jnp.pad(p, width, mode="wrap" if periodic else "constant")


def apply_star(star, p):
    """A p, from p with a halo on all sides: one array in memory, not one per axis."""
    halo = p
    for axis in range(p.ndim):
        halo = _halo(halo, axis, axis in star.periodic)
    halo = jax.lax.optimization_barrier(halo)
    core = (slice(1, -1),) * p.ndim
    p = halo[core]
    q = star.excess * p
    for axis, link in enumerate(star.links):
        for shift, own in ((0, slice(None, -1)), (2, slice(1, None))):
            window = slice(shift, shift + p.shape[axis])
            other = halo[(*core[:axis], window, *core[axis + 1 :])]
            q = q + link[along(axis, own)] * (p - other)
    return q


def apply_planes(diagonal, couplings, x, periodic):
    """A x for the planes of `solvers.star.planes_of`, in their precision."""
    y = diagonal * x
    for axis, coupling in enumerate(couplings):
        if axis in periodic:
            y = y + coupling * jnp.roll(x, -1, axis) + jnp.roll(coupling * x, 1, axis)
            continue
        first, last = along(axis, slice(None, -1)), along(axis, slice(1, None))
        for source, width in ((last, (0, 1)), (first, (1, 0))):
            widths = [(0, 0)] * x.ndim
            widths[axis] = width
            y = y + jnp.pad(coupling[first] * x[source], widths)
    return y
