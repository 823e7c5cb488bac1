"""Sequences with a fixed layout of square inclusions and random contrasts."""

import itertools

import numpy as np
import scipy.sparse as sp

from solvers.sequence import LinearSystem


def coefficient(rng, n, dim, per_axis, contrast):
    """Background 1, one random value per inclusion, log-uniform; [n] * dim cells."""
    x = (np.arange(n) + 0.5) / n
    a = np.ones((n,) * dim)
    centers = (np.arange(per_axis) + 0.5) / per_axis
    for center in itertools.product(centers, repeat=dim):
        inside = np.ix_(*(np.abs(x - c) <= 0.3 / per_axis for c in center))
        a[inside] = np.exp(rng.uniform(*np.log(contrast)))
    return a


def flux_matrix(a):
    """-div(a grad u) on unit cells; harmonic means, one row of zero ghost cells."""
    n, dim = a.shape[0], a.ndim
    numbers = np.arange(a.size).reshape(a.shape)
    diagonal, rows, columns, values = np.zeros(a.shape), [], [], []
    padded = np.pad(a, 1, mode="edge")
    for axis in range(dim):
        lower = np.take(padded, range(n + 1), axis)
        upper = np.take(padded, range(1, n + 2), axis)
        faces = 2 / (1 / lower + 1 / upper)
        for other in range(dim):
            if other != axis:
                faces = np.take(faces, range(1, n + 1), other)
        diagonal += np.take(faces, range(n), axis) + np.take(
            faces, range(1, n + 1), axis
        )
        inner = np.take(faces, range(1, n), axis).ravel()
        i = np.take(numbers, range(n - 1), axis).ravel()
        j = np.take(numbers, range(1, n), axis).ravel()
        rows += [i, j]
        columns += [j, i]
        values += [-inner, -inner]
    rows, columns = [*rows, numbers.ravel()], [*columns, numbers.ravel()]
    entries = np.concatenate([*values, diagonal.ravel()])
    places = (np.concatenate(rows), np.concatenate(columns))
    A = sp.coo_array((entries, places), shape=(a.size, a.size)).tocsr()
    return A * n**2


def source(rng, n, dim):
    """A Gaussian bump of width 0.1 at a random place."""
    x = (np.arange(n) + 0.5) / n
    bumps = [np.exp(-((x - c) ** 2) / 0.02) for c in rng.uniform(0.2, 0.8, dim)]
    return _outer(bumps)


def _outer(factors):
    product = factors[0]
    for factor in factors[1:]:
        product = np.multiply.outer(product, factor)
    return product


def systems(num, n, *, dim=2, per_axis=4, contrast=(1e3, 1e4), seed=0):
    """`num` systems of one layout, each with its own contrasts and source."""
    rng = np.random.default_rng(seed)
    return [
        LinearSystem(
            flux_matrix(coefficient(rng, n, dim, per_axis, contrast)),
            source(rng, n, dim),
        )
        for _ in range(num)
    ]
