"""Pseudo-spectral solvers of evolution equations on periodic grids.

grid = spectral.PeriodicGrid((128, 128), (2 * np.pi, 2 * np.pi))
equation = spectral.NavierStokes2d(grid, viscosity=1e-3)
trajectory = spectral.rollout(equation, vorticity, times=[0.5, 1.0], cfl=0.5)
trajectory.fields  # [..., 2, 128, 128]
"""

from solvers.spectral import diagnostics
from solvers.spectral.equations import Equation
from solvers.spectral.grid import PeriodicGrid
from solvers.spectral.modes import Modes
from solvers.spectral.navier_stokes import NavierStokes2d
from solvers.spectral.one_dimensional import Burgers1d, KuramotoSivashinsky1d
from solvers.spectral.rollout import Trajectory, rollout
from solvers.spectral.schemes import Scheme
from solvers.spectral.steppers import STEPPERS, stepper, transforms_per_step

__all__ = [
    "STEPPERS",
    "Burgers1d",
    "Equation",
    "KuramotoSivashinsky1d",
    "Modes",
    "NavierStokes2d",
    "PeriodicGrid",
    "Scheme",
    "Trajectory",
    "diagnostics",
    "rollout",
    "stepper",
    "transforms_per_step",
]
