"""Goals for the estimated error of an iteration, and the verdict on them."""

import dataclasses
import math

from solvers.results import SolveRecord


def checked_goal(error_goal: float) -> float:
    """The goal as a float.

    Args:
        error_goal: largest accepted estimate of ||x - A^-1 b||_A / ||x||_A; infinity:
            any.

    Raises:
        ValueError: if it is not positive.
    """
    if not error_goal > 0:
        raise ValueError(f"error_goal is {error_goal}; expected a number > 0")
    return float(error_goal)


def judged(record: SolveRecord, error_goal: float) -> SolveRecord:
    """The record, not converged if its error is above the goal or not known.

    Args:
        record: of a finished solve.
        error_goal: see `checked_goal`.
    """
    error = record.algebraic_error
    if not record.converged or error_goal == math.inf or error <= error_goal:
        return record
    found = "is not known" if math.isnan(error) else f"{error:.2e}"
    status = (
        f"not converged: estimated error {found}, error_goal {error_goal:.2e}; allow "
        "more iterations or try method 'direct'"
    )
    return dataclasses.replace(record, converged=False, status=status)
