"""Methods to measure on a problem: as planned, as auto chooses, and others."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from datagen.measuring import Measured
from datagen.methods import MethodError, filled, method_settings
from solvers import sequence, strategy

MAX_FACTORS_3D = 100_000  # unknowns: factors of more take minutes and gigabytes
MAX_LINE = 2500  # unknowns along an axis: eigenvectors of more take half a minute
FACTORS = ("direct", "frozen_lu", "mumps")
# Weak couplings dropped and one sweep of SOR: the best settings that we know for jumps
# (docs/recycling.md), far ahead of the defaults.
_GAMG = (
    "petsc:-ksp_type cg -pc_type gamg -mg_levels_ksp_type richardson "
    "-mg_levels_pc_type sor -mg_levels_ksp_max_it 1 -pc_gamg_reuse_interpolation 1 "
)
_MUMPS = "petsc:-ksp_type preonly -pc_factor_mat_solver_type mumps -pc_type "
PETSC = {
    "spd": {
        "petsc cg+icc": "petsc:-ksp_type cg -pc_type icc",
        "petsc cg+gamg tuned": _GAMG + "-pc_gamg_threshold 0.02",
        "petsc cg+gamg plain": _GAMG
        + "-pc_gamg_threshold 0.08 -pc_gamg_agg_nsmooths 0",
        "petsc mumps": _MUMPS + "cholesky",
    },
    "symmetric": {"petsc mumps": _MUMPS + "lu"},
    "general": {"petsc mumps": _MUMPS + "lu"},
}
# Beside every method as it is: what helps sweeps and slow drift.
VARIANTS = {"bicgstab + guess": ("bicgstab", {"guess": "projection"})}


def candidates(
    problem,
    solver: Mapping[str, Any],
    choice: Mapping[str, Any],
    *,
    traits: strategy.Traits | None = None,
    outsiders: bool = False,
) -> list[Measured]:
    """All methods that might solve a problem, those refused with the reason.

    Every method comes as it would be planned by its name, with what the strategy table
    sets beyond the keys of `config.solver`, such as mg_pcg's `inner`. What auto chooses
    is one of them, or stands beside them where the table has other settings for it.

    Args:
        problem: see `datagen.problems.base.Problem`.
        solver: `config.solver`, for the settings.
        choice: what auto chooses, from `datagen.methods.choose`.
        traits: from `datagen.methods.traits_of`; None: the table sets nothing.
        outsiders: add what a plan cannot get by calibration: `VARIANTS`, and methods of
            PETSc if it is there.
    """
    found = []
    for name in sequence.METHODS:
        if name != "auto":
            row = strategy.settings(name, traits) if traits else {}
            chosen = {k: v for k, v in row.items() if k not in solver}
            found.append(_candidate(name, name, problem, solver, chosen))
    _mark(found, problem, solver, choice)
    if outsiders:
        pairs = {name: (text, {}) for name, text in PETSC[problem.matrices].items()}
        for name, (method, more) in (VARIANTS | pairs).items():
            entry = _candidate(name, method, problem, solver, {})
            entry.settings |= more
            found.append(entry)
    return found


def _candidate(name, method, problem, solver, chosen) -> Measured:
    entry = Measured(name, method, {}, dict(chosen))
    sides = [len(problem.coordinates[axis]) for axis in problem.axes]
    num = int(np.prod(sides))
    if len(sides) == 3 and num > MAX_FACTORS_3D and name.split()[-1] in FACTORS:
        entry.refused = f"factors of {num} unknowns in 3-D are out of reach"
    elif method == "fast_direct" and (n := max(sides[:-1], default=0)) > MAX_LINE:
        entry.refused = f"eigenvectors of {n} unknowns along an axis are out of reach"
    else:
        try:
            asked = filled(solver, chosen)
            entry.settings = method_settings("method", method, asked, problem)
        except MethodError as error:
            text = str(error).partition(": ")[2]
            entry.refused = text.partition(f" ({problem.equation})")[0]
    return entry


def _mark(found, problem, solver, choice) -> None:
    """Says which candidate is what auto chooses; adds it if none is."""
    method = choice["method"]
    own = _candidate(method, method, problem, solver, choice["settings"])
    plain = next((entry for entry in found if entry.method == method), None)
    if plain is not None and plain.settings == own.settings:
        plain.auto, plain.chosen = True, own.chosen
        return
    own.auto = True
    if plain is None:
        found.insert(0, own)
        return
    other = [v for k, v in own.settings.items() if plain.settings.get(k) != v]
    own.name = " ".join([method, *map(str, other or ["as chosen"])])
    found.insert(found.index(plain) + 1, own)


def settings_of(method: str) -> set[str]:
    """Keywords that a method takes."""
    return set(sequence.method_info(method).settings)
