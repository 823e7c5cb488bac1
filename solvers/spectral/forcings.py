"""Steady forcings of two-dimensional flows, as the curl of the force on a grid."""

import inspect
import math
import numbers
from collections.abc import Callable, Sequence

import numpy as np

from solvers.spectral.grid import PeriodicGrid


def diagonal_wave(
    grid: PeriodicGrid, amplitude: float = 0.1, wavenumber: int = 1
) -> np.ndarray:
    """A (sin(2 pi m (x / L1 + y / L2)) + cos(...)), the forcing of the FNO data.

    Args:
        grid: two axes.
        amplitude: A.
        wavenumber: m, waves per period of the box.

    References:
        Li et al. (2021), Fourier neural operator, arXiv:2010.08895, section 5.3.
    """
    x, y = grid.mesh()
    phase = 2 * np.pi * wavenumber * (x / grid.lengths[0] + y / grid.lengths[1])
    return amplitude * (np.sin(phase) + np.cos(phase))


def kolmogorov(
    grid: PeriodicGrid, amplitude: float = 1.0, wavenumber: int = 4
) -> np.ndarray:
    """Curl -A kappa cos(kappa y) of the force (A sin(kappa y), 0).

    Args:
        grid: two axes.
        amplitude: A.
        wavenumber: m, waves per period L2 along y; kappa = 2 pi m / L2.

    References:
        Kochkov et al. (2021), PNAS 118 (21) e2101784118, arXiv:2102.01010.
    """
    kappa = 2 * np.pi * wavenumber / grid.lengths[1]
    return -amplitude * kappa * np.cos(kappa * grid.mesh()[1])


# By name: the function and the axes along which its waves run.
FORCINGS: dict[str, tuple[Callable[..., np.ndarray], tuple[int, ...]]] = {
    "diagonal_wave": (diagonal_wave, (0, 1)),
    "kolmogorov": (kolmogorov, (1,)),
}


def create(
    grid: PeriodicGrid,
    name: str,
    *,
    cutoffs: Sequence[int] | None = None,
    **settings: float,
) -> np.ndarray | None:
    """The forcing [n1, n2] of that name, float64; None for "none".

    `create(grid, **settings["forcing"])` is that of a data set with these settings.

    Args:
        grid: two axes.
        name: "none" or a name in `FORCINGS`.
        cutoffs: highest wave number per axis that the equation keeps
            (`equation.modes.cutoffs`); None: those below half the points of the grid.
        **settings: amplitude and wavenumber.

    Raises:
        ValueError: for an unknown name, settings that it does not have, or a wave
            number above the cutoffs.
    """
    if name == "none" and not settings:
        return None
    if name not in FORCINGS:
        known = ", ".join(["none", *FORCINGS])
        raise ValueError(
            f"forcing is {name!r} with the settings {[*settings]}; known: {known}; "
            "none has no settings"
        )
    function, axes = FORCINGS[name]
    defaults = inspect.signature(function).parameters
    wavenumber = settings.get("wavenumber", defaults["wavenumber"].default)
    fits = settings.keys() <= {"amplitude", "wavenumber"}
    fits = fits and all(map(_is_finite, settings.values()))
    if not fits or wavenumber < 1 or int(wavenumber) != wavenumber:
        raise ValueError(
            f"forcing {name!r} has the settings {settings}; expected amplitude, a "
            "finite number, and wavenumber, 1, 2, ..."
        )
    kept = cutoffs or [(n - 1) // 2 for n in grid.shape]
    highest = min(kept[axis] for axis in axes)
    if wavenumber > highest:
        raise ValueError(
            f"forcing.wavenumber is {wavenumber}, but {highest} is the highest that "
            f"the solver keeps on {grid.shape} points: choose at most {highest}, or "
            "more points for the solver"
        )
    return function(grid, **settings)


def _is_finite(value) -> bool:
    return isinstance(value, numbers.Real) and math.isfinite(value)
