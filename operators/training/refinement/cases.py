"""Trajectories to refine: what is given, what is true, and the equation behind them."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from solvers import spectral
from solvers.spectral import forcings

BEYOND = 1e-6  # share of a field beyond the 2/3 mask that asks for a finer grid
NEEDED = {"lengths", "viscosity", "drag", "forcing"}  # settings of the problem


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """A batch of trajectories of one equation.

    Attributes:
        equation: on the grid of the refinement.
        given: [batch, num_in, n1, n2] float64, on that grid.
        truth: [batch, T, m1, m2] the true later frames, on the grid of the data.
        times: [num_in + T] of all frames, physical.
        sample_ids: [batch].
    """

    equation: spectral.NavierStokes2d
    given: np.ndarray
    truth: np.ndarray
    times: np.ndarray
    sample_ids: np.ndarray

    @property
    def num_in(self) -> int:
        """Given frames."""
        return self.given.shape[1]

    def part(self, samples: slice) -> "Case":
        """Some of the trajectories."""
        return dataclasses.replace(
            self,
            given=self.given[samples],
            truth=self.truth[samples],
            sample_ids=self.sample_ids[samples],
        )

    def on_data_grid(self, frames) -> np.ndarray:
        """Frames [..., n1, n2] on the grid of the data, by Fourier truncation."""
        return self.equation.grid.resample(frames, self.truth.shape[-2:])

    def errors(self, frames):
        """Relative L^2 errors [batch] over all predicted frames.

        Args:
            frames: [batch, T + 1, n1, n2], the last given one first; NumPy or JAX.
        """
        difference = self.on_data_grid(frames[:, 1:]) - self.truth
        squares = (difference**2).sum((1, 2, 3)) / (self.truth**2).sum((1, 2, 3))
        return squares**0.5


def create(
    settings: Mapping,
    frames: np.ndarray,
    times: np.ndarray,
    num_in: int,
    sample_ids: np.ndarray,
    grid: int = 0,
) -> Case:
    """A case from frames of a data set.

    Args:
        settings: of the problem `navier_stokes` that made them.
        frames: [batch, num_in + T, m1, m2].
        times: of these frames, physical.
        num_in: frames that are given.
        sample_ids: [batch].
        grid: points per axis; 0: those of the data, or half as many again where the
            given frames have content beyond the 2/3 mask of their grid.

    Raises:
        ValueError: for another problem, or a grid coarser than that of the data.
    """
    missing = NEEDED - set(settings)
    if missing or len(settings["lengths"]) != 2:
        raise ValueError(
            "refinement needs trajectories of the problem navier_stokes, but the data "
            f"set has no {sorted(missing) or 'second axis'}"
        )
    stored = spectral.PeriodicGrid(frames.shape[-2:], settings["lengths"])
    given = np.asarray(frames[:, :num_in], float)
    shape = refined_shape(stored, given, grid)
    finer = stored.refined(shape)
    equation = spectral.NavierStokes2d(
        finer,
        viscosity=settings["viscosity"],
        drag=settings["drag"],
        forcing=forcings.create(finer, **settings["forcing"]),
    )
    return Case(
        equation=equation,
        given=np.asarray(stored.resample(given, shape)),
        truth=np.asarray(frames[:, num_in:], float),
        times=np.asarray(times, float),
        sample_ids=np.asarray(sample_ids),
    )


def refined_shape(stored, given, grid: int) -> tuple[int, int]:
    """Points of the refinement, see `create`."""
    if grid:
        if grid < max(stored.shape):
            raise ValueError(
                f"grid is {grid}, but the data have {stored.shape} points: give 0 or "
                "at least as many"
            )
        return (grid, grid)
    kept = spectral.NavierStokes2d(stored, viscosity=1.0)
    beyond = given - np.asarray(kept.to_field(kept.to_state(given)))
    if np.sqrt(np.mean(beyond**2) / np.mean(given**2)) < BEYOND:
        return stored.shape
    return tuple(n + n // 2 for n in stored.shape)
