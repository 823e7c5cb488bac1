"""Which transform of a spectral layer is faster, from costs measured beforehand."""

import math
from collections.abc import Sequence

import jax
import numpy as np

# An FFT costs as much as this many multiply-adds of a matrix product, per real number
# and power of two in the number of points. Measured on a CPU by
# benchmarks/spectral_transforms.py (one to three axes, odd and even, 4 to 1024 modes:
# the choice cost at most 1.1 times the faster one). Other back ends are not measured
# yet and take the same number; the choice changes speed and nothing else.
_FFT_COST = {"cpu": 15.0}


def faster_transform(
    grid: Sequence[int],
    out_grid: Sequence[int],
    frequencies: Sequence[np.ndarray],
    backend: str | None = None,
    fft_cost: float | None = None,
) -> str:
    """Returns "dft" or "fft", a static rule in the shapes.

    Args:
        grid: points per axis of the input.
        out_grid: points per axis of the output.
        frequencies: the integer frequencies used, per axis.
        backend: name of the back end; None means JAX's default.
        fft_cost: in multiply-adds, see above; None takes that of the back end.
    """
    if fft_cost is None:
        backend = backend or jax.default_backend()
        fft_cost = _FFT_COST.get(backend, _FFT_COST["cpu"])
    points = [math.prod(g) for g in (grid, out_grid)]
    fft = fft_cost * sum(n * math.log2(n) for n in points)
    dft = sum(dft_products(g, frequencies) for g in (grid, out_grid))
    return "dft" if dft <= fft else "fft"


def dft_products(grid: Sequence[int], frequencies: Sequence[np.ndarray]) -> int:
    """Multiply-adds per channel of a truncated DFT, one real product per axis."""
    total, size = 0, math.prod(grid)
    for n, k in zip(grid, frequencies, strict=True):
        total += size * 2 * (int(np.abs(k).max()) + 1)
        size = size // n * 2 * (int(np.abs(k).max()) + 1)
    return total
