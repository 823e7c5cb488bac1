"""Time steppers by name."""

import difflib

from solvers.spectral.equations import Equation
from solvers.spectral.exponential import (
    ExponentialRK4,
    IntegratingFactorRK4,
    KrogstadRK4,
)
from solvers.spectral.imex import (
    CrankNicolsonHeun,
    CrankNicolsonRK3,
    CrankNicolsonRK4,
    ImexCrankNicolson,
    ImexEuler,
    LegacyFno,
)
from solvers.spectral.lawson import IntegratingFactorRK5, IntegratingFactorRK8
from solvers.spectral.schemes import Scheme

STEPPERS: dict[str, type[Scheme]] = {
    "imex_euler": ImexEuler,
    "imex_cn": ImexCrankNicolson,
    "cn_rk2": CrankNicolsonHeun,
    "cn_rk3": CrankNicolsonRK3,
    "cn_rk4": CrankNicolsonRK4,
    "if_rk4": IntegratingFactorRK4,
    "if_rk5": IntegratingFactorRK5,
    "if_rk8": IntegratingFactorRK8,
    "etdrk4": ExponentialRK4,
    "etdrk4_krogstad": KrogstadRK4,
    "legacy_fno": LegacyFno,
}


def stepper(name: str) -> type[Scheme]:
    """The scheme of that name: `stepper(name)(equation, dt)` is a step; see `Scheme`.

    Raises:
        ValueError: for an unknown name.
    """
    if name not in STEPPERS:
        close = difflib.get_close_matches(str(name), STEPPERS, n=1)
        hint = f", did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"unknown scheme {name!r}{hint}; known: {', '.join(STEPPERS)}")
    return STEPPERS[name]


def transforms_per_step(scheme: str, equation: Equation) -> int:
    """Real FFTs that one step of a scheme takes."""
    return stepper(scheme).evaluations * equation.transforms_per_evaluation
