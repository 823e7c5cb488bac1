"""Keeps right-hand sides in the range where squares neither underflow nor overflow."""

import math
from collections.abc import Callable

import numpy as np

SAFE_RANGE = 1e-100, 1e100  # of the largest entry; norms and residuals square it


def unit_of(
    b: np.ndarray, largest: Callable[[float], float] = lambda peak: peak
) -> float:
    """A power of two to divide b by, so that ||b||^2 is a regular number.

    1 for b with entries of usual size, zero, NaN or infinity. Divisions by it are
    exact: solutions scale with b up to the last bit.

    Args:
        b: of any shape, real or complex.
        largest: the largest of such numbers over all processes.
    """
    parts = (b.real, b.imag) if np.iscomplexobj(b) else (b,)
    peak = largest(max(float(np.abs(part).max(initial=0.0)) for part in parts))
    lowest, highest = SAFE_RANGE
    if peak == 0 or not math.isfinite(peak) or lowest <= peak <= highest:
        return 1.0
    return math.ldexp(1.0, math.frexp(peak)[1] - 1)
