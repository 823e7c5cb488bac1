"""The problems data can be generated for, by name."""

import difflib
import inspect
from collections.abc import Callable
from typing import Any

from datagen.problems.base import EvolutionProblem, Problem
from datagen.problems.burgers import Burgers
from datagen.problems.composites import Composites
from datagen.problems.composites_unstructured import CompositesUnstructured
from datagen.problems.convection_diffusion import ConvectionDiffusion
from datagen.problems.darcy import Darcy
from datagen.problems.darcy_3d import Darcy3d
from datagen.problems.darcy_multiscale import DarcyMultiscale
from datagen.problems.heat import Heat
from datagen.problems.helmholtz import Helmholtz
from datagen.problems.helmholtz_cavity import HelmholtzCavity
from datagen.problems.helmholtz_sweep import HelmholtzSweep
from datagen.problems.navier_stokes import NavierStokes
from datagen.problems.poisson import Poisson
from datagen.problems.thermal import Thermal

PROBLEMS: dict[str, Callable[..., Problem | EvolutionProblem]] = {
    "burgers": Burgers,
    "composites": Composites,
    "composites_unstructured": CompositesUnstructured,
    "convection_diffusion": ConvectionDiffusion,
    "darcy": Darcy,
    "darcy_3d": Darcy3d,
    "darcy_multiscale": DarcyMultiscale,
    "heat": Heat,
    "helmholtz": Helmholtz,
    "helmholtz_cavity": HelmholtzCavity,
    "helmholtz_sweep": HelmholtzSweep,
    "navier_stokes": NavierStokes,
    "poisson": Poisson,
    "thermal": Thermal,
}


def names() -> list[str]:
    """Known problems."""
    return sorted(PROBLEMS)


def create(name: str, **settings: Any) -> Problem | EvolutionProblem:
    """Builds a problem from its name and its settings, as data configs hold them.

    Raises:
        ValueError: for an unknown problem or setting, or a value out of range.
    """
    if name not in PROBLEMS:
        raise ValueError(f"unknown problem {name!r}; known: {', '.join(names())}")
    known = list(inspect.signature(PROBLEMS[name]).parameters)
    for key in settings:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {known}"
            raise ValueError(f"problem {name!r} has no setting {key!r}; {hint}")
    return PROBLEMS[name](**settings)
