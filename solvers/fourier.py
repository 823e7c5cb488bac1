"""Integer wave numbers of discrete Fourier transforms, written once."""

import numpy as np


def wavenumbers(n: int) -> np.ndarray:
    """Integer frequencies [n] of `fft` along an axis of n points, in its order.

    0, 1, ..., then the negative ones; for even n the entry n/2 is -n/2.
    """
    return np.rint(np.fft.fftfreq(n) * n).astype(int)


def half_wavenumbers(n: int) -> np.ndarray:
    """Integer frequencies [n // 2 + 1] of `rfft` along an axis of n points."""
    return np.arange(n // 2 + 1)


def half_spectrum_weights(n: int) -> np.ndarray:
    """How often each `rfft` column stands in the full spectrum, [n // 2 + 1].

    2 for columns that stand for k and -k, 1 for k = 0 and, on even n, for n/2: sums of
    squares over the half spectrum with these weights equal those over the full one.
    """
    weights = np.full(n // 2 + 1, 2.0)
    weights[0] = 1.0
    if n % 2 == 0:
        weights[-1] = 1.0
    return weights
