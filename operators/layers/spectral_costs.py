"""Which transform of a spectral layer is faster, from costs measured beforehand."""

import math
from collections.abc import Sequence

import jax
import numpy as np

# Costs per real number, in units of one multiply-add of a matrix product: an FFT costs
# `point` per point and `stage` per point and power of two, for both directions.
# Measured for the CPU by benchmarks/spectral_transforms.py.
_COSTS = {"cpu": (40.0, 8.0)}
_OTHER = (40.0, 8.0)


def faster_transform(
    grid: Sequence[int],
    out_grid: Sequence[int],
    frequencies: Sequence[np.ndarray],
    backend: str | None = None,
) -> str:
    """Returns "dft" or "fft", a static rule in the shapes.

    Args:
        grid: points per axis of the input.
        out_grid: points per axis of the output.
        frequencies: the integer frequencies used, per axis.
        backend: name of the back end; None means JAX's default.
    """
    point, stage = _COSTS.get(backend or jax.default_backend(), _OTHER)
    sizes = [len(k) for k in frequencies]
    fft = sum(
        math.prod(g) * (point + stage * math.log2(math.prod(g)))
        for g in (grid, out_grid)
    )
    dft = sum(dft_products(g, sizes) for g in (grid, out_grid))
    return "dft" if dft <= fft else "fft"


def dft_products(grid: Sequence[int], sizes: Sequence[int]) -> int:
    """Multiply-adds per channel of a truncated DFT, one real product per axis."""
    total, points = 2 * sizes[-1] * math.prod(grid), math.prod(grid[:-1])
    done = sizes[-1]
    for n, size in zip(reversed(grid[:-1]), reversed(sizes[:-1]), strict=True):
        total += 4 * size * points * done
        points, done = points // n, done * size
    return total
