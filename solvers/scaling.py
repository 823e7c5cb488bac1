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


def in_units(
    b: np.ndarray, x0: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray | None, float]:
    """A right-hand side and an initial guess in units of `unit_of`, and that unit.

    Where b is zero so is the solution, and then the guess. A guess so large that its
    squares would overflow is of no use and becomes zero too.

    Args:
        b: [*grid] real.
        x0: [*grid] real, or None.
    """
    unit = unit_of(b)
    if unit != 1:
        b = b / unit
        if x0 is not None:
            with np.errstate(over="ignore"):
                x0 = x0 / unit
            usable = np.abs(x0).max(initial=0.0) <= SAFE_RANGE[1]
            x0 = x0 if usable else np.zeros_like(x0)
    if x0 is not None and not b.any():
        x0 = np.zeros_like(x0)
    return b, x0, unit
