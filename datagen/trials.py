"""Tries methods and preconditioners on systems of a problem, before a plan is made.

What fits can only partly be read from names: whether PETSc is built with complex
numbers, or whether options give a symmetric preconditioner, a trial tells.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from solvers import preconditioners, sequence
from solvers.sequence import LinearSystem

NUM_SYSTEMS = 3  # a pivot may vanish by bad luck in one sample, not in all
NUM_VECTORS = 8
TRIAL_RTOL = 1e-8
SYMMETRY_TOLERANCE = 1e-6  # exact ones reach the rounding errors of a solve with A
# Pivoting and thresholds make these unsymmetric even for symmetric matrices.
UNSYMMETRIC = ("ilu",)
# These read one triangle and take the other for its mirror image.
ONLY_SYMMETRIC = ("icc0",)


def systems(problem) -> Iterator[LinearSystem]:
    """First systems of up to `NUM_SYSTEMS` random samples.

    Samples that cannot be drawn or are not finite are left out: the ladder tells of
    them, one by one.
    """
    for seed in range(NUM_SYSTEMS):
        try:
            with np.errstate(all="ignore"):
                sample = problem.sample(np.random.default_rng(seed))
                system = problem.system(sample, 0, None)
                finite = np.isfinite(system.relative_residual(0 * system.rhs))
        except Exception:
            continue
        if finite and system.rhs.any():
            yield system


def sequence_start(problem) -> list[LinearSystem]:
    """A few systems for `solvers.strategy.describe`, always the same ones.

    The first two follow one another when data are made: two steps of one sample where
    a sample has several, which start from zero here, since matrices do not depend on
    the step before; otherwise two samples.
    """
    found = list(systems(problem))
    if found and problem.num_systems > 1:
        sample = problem.sample(np.random.default_rng(0))
        zero = np.zeros_like(found[0].rhs)
        found[:1] = [problem.system(sample, 0), problem.system(sample, 1, zero)]
    return found


def complaint(name: str, *, frozen: bool, needs: str, problem) -> str:
    """What speaks against a preconditioner for a method and a problem.

    Args:
        name: the preconditioner; it exists.
        frozen: see `solvers.preconditioners.create`.
        needs: what the method needs matrices to be, and so its preconditioner.
        problem: see `datagen.problems.base.Problem`.

    Returns:
        A sentence, or "".
    """
    if name == "none":
        return ""
    if name in ONLY_SYMMETRIC and problem.matrices not in ("symmetric", "spd"):
        return "it needs symmetric matrices, which this problem does not promise"
    if name in UNSYMMETRIC and needs != "any":
        return "it is not symmetric, as the method needs it"
    found = ""
    for system in systems(problem):
        M = preconditioners.create(name, frozen=frozen)
        try:
            M.update(system)
            return "" if needs == "any" else _asymmetry(M, system)
        except (ArithmeticError, ValueError, RuntimeError) as error:
            found = _first_clause(error)
        except TypeError as error:  # the kind of numbers, or of matrix: all alike
            return _first_clause(error)
        finally:
            M.reset()
    return found


def petsc_complaint(method: str, settings: Mapping[str, Any], problem) -> str:
    """What speaks against the options of a method `petsc:...`: one step tells.

    Args:
        method: the method; PETSc is there.
        settings: keywords for `solvers.sequence.create`.
        problem: see `datagen.problems.base.Problem`.

    Returns:
        A sentence, or "".
    """
    for system in systems(problem):
        solver = sequence.create(method, **settings)
        try:
            solver.solve(system, rtol=TRIAL_RTOL, maxiter=1)
        except (ValueError, TypeError) as error:
            return " ".join(str(error).split())
        finally:
            solver.close()
        break
    return ""


def _first_clause(error: Exception) -> str:
    """What is wrong, without the advice, which is given for another place."""
    return " ".join(str(error).partition(";")[0].split()) or type(error).__name__


def _asymmetry(M, system: LinearSystem) -> str:
    """Whether M is symmetric (Hermitian) and positive, on some random vectors."""
    rng = np.random.default_rng(0)
    V = rng.standard_normal((system.rhs.size, NUM_VECTORS)).astype(system.dtype)
    if system.dtype.kind == "c":
        V += 1j * rng.standard_normal(V.shape)
    table = V.conj().T @ np.column_stack([M(v) for v in V.T.copy()])
    if not np.isfinite(table).all():
        return "it gives infinite values"
    if np.abs(table - table.conj().T).max() > SYMMETRY_TOLERANCE * np.abs(table).max():
        return "it is not symmetric, as the method needs it"
    if np.diagonal(table).real.min() <= 0:
        return "it is not positive definite, as the method needs it"
    return ""


def suitable(needs: str, problem, but: str) -> list[str]:
    """Preconditioners that a method may use, best first: the problem's own, then all.

    Args:
        needs: what the method needs matrices to be.
        problem: see `datagen.problems.base.Problem`.
        but: a name that is not wanted.
    """
    system = next(systems(problem), None)
    is_complex = system is not None and system.dtype.kind == "c"
    names = dict.fromkeys([problem.preconditioner, *preconditioners.PRECONDITIONERS])
    if not is_complex:
        names |= dict.fromkeys(preconditioners.PETSC_PRECONDITIONERS)
    unfit = set(UNSYMMETRIC if needs != "any" else ())
    if problem.matrices not in ("symmetric", "spd"):
        unfit |= set(ONLY_SYMMETRIC)
    if needs != "any" and problem.matrices != "spd":
        # As indefinite as the matrix, unless the problem gives one to build them from.
        unfit |= {"lu", "ssor", "ilu0", "icc0"} - {problem.preconditioner}
    return [name for name in names if name not in unfit | {but}]


def preconditioning_matrix_given(problem) -> bool:
    """Whether systems name a matrix of their own to build preconditioners from."""
    system = next(systems(problem), None)
    return system is not None and system.preconditioning_matrix is not None
