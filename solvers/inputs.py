"""What callers pass to the solvers, checked; every complaint is one sentence."""

import difflib
import inspect
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp

from solvers.scaling import unit_of
from solvers.stencils import StencilOperator

WHOLE = ("m", "k", "window", "max_windows", "num_harvest")  # settings that count
CHECK_INPUT = "check the input"  # the advice where no method could help


def did_you_mean(name: str, known: Collection[str]) -> str:
    """Returns ", did you mean ...?" for a name close to a known one, else ""."""
    close = difflib.get_close_matches(name, known, n=1)
    return f", did you mean {close[0]!r}?" if close else ""


def check_settings(
    method: str,
    solver_class: Callable[..., Any],
    fixed: Mapping[str, Any],
    extra: Collection[str],
    settings: Mapping[str, Any],
) -> None:
    """Looks at keywords before a class gets them.

    Args:
        method: name in the registry.
        solver_class: its class.
        fixed: keywords that the registry sets.
        extra: further keywords that the method takes, beside those of the class.
        settings: what the caller passes to the class.

    Raises:
        TypeError: for an unknown keyword, or a fraction where a count is expected.
    """
    parameters = inspect.signature(solver_class).parameters.values()
    taken = [p.name for p in parameters if p.name not in fixed] + list(extra)
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        for name in settings:
            if name not in taken:
                takes = ", ".join(taken) or "no settings"
                hint = did_you_mean(name, taken)
                raise TypeError(f"method {method!r} takes {takes}; got {name!r}{hint}")
    for name in WHOLE:
        if settings.get(name) is not None and not _is_scalar(settings[name], "iu"):
            raise TypeError(f"{name} is {settings[name]!r}; expected an integer")


def check_limits(rtol: float, maxiter: int | None) -> None:
    """Looks at what ends a solve.

    Raises:
        TypeError: if they are no numbers, or maxiter is a fraction.
        ValueError: for a tolerance outside (0, 1).
    """
    if not _is_scalar(rtol, "fiu"):
        raise TypeError(f"rtol is {rtol!r}; expected a number")
    if not 0 < rtol < 1:
        raise ValueError(f"rtol is {rtol}; expected 0 < rtol < 1")
    if maxiter is not None and not _is_scalar(maxiter, "iu"):
        raise TypeError(f"maxiter is {maxiter!r}; expected an integer or None")


def check_arrays(operator: Any, rhs: Any) -> None:
    """Looks at what A and b are.

    Raises:
        TypeError: if A is no matrix, or b no array of numbers.
    """
    if not hasattr(operator, "shape") and not hasattr(operator, "grid_shape"):
        raise TypeError(
            f"the operator is a {type(operator).__name__}; expected a SciPy matrix, a "
            "StencilOperator or a LinearOperator"
        )
    if sp.issparse(rhs):
        raise TypeError(
            "rhs is a sparse matrix; expected an array, for instance "
            "rhs.toarray().ravel()"
        )
    try:
        dtype = np.asarray(rhs).dtype
    except ValueError:  # rows of different lengths
        dtype = np.dtype(object)
    if dtype.kind not in "fiucb":
        raise TypeError(f"rhs holds values of type {dtype}; expected numbers")


def check_real(method: str, values: Mapping[str, Any]) -> None:
    """Looks at what a method for real systems is given.

    Args:
        method: name in the registry.
        values: arrays, or None, by what they are called.

    Raises:
        TypeError: if one of them is complex.
    """
    for name, array in values.items():
        if np.iscomplexobj(array):
            raise TypeError(
                f"{name} is complex, but method {method!r} solves real systems; use "
                "'direct', 'gmres', 'bicgstab' or 'skr'"
            )


UNBALANCED = "A maps constants to zero, but the sum of b is not zero"
BALANCE = (
    "subtract the mean of b where unknowns are in cells, on nodes that multiple of "
    "their control volumes (solvers.boundaries.control_volumes), or fix a value"
)


def has_mean(b: np.ndarray, rtol: float) -> bool:
    """Whether the mean of b alone keeps its residual above rtol ||b||.

    That is so for symmetric A that map constants to zero: A x has the mean zero.
    """
    b = b / unit_of(b)
    mean_part = abs(b.sum()) / math.sqrt(b.size)  # norm of b's part along constants
    return bool(mean_part > rtol * np.linalg.norm(b))


def not_finite(system) -> str:
    """What is not finite in a `LinearSystem`, and how much; "" if all is.

    The entries of an operator that is only known by its action are not.
    """
    matrices = {"A": system.operator, "b": system.rhs}
    matrices["preconditioning_matrix"] = system.preconditioning_matrix
    found = []
    for name, values in matrices.items():
        if isinstance(values, StencilOperator):
            values = values.coefficients
        elif sp.issparse(values):
            values = sp.csr_array(values).data
        elif values is None or not isinstance(values, np.ndarray):
            continue
        if count := int(np.size(values) - np.count_nonzero(np.isfinite(values))):
            what = "entry" if count == 1 else "entries"
            found.append(f"{name} holds {count} NaN or infinite {what}")
    return " and ".join(found)


def _is_scalar(value, kinds):
    """Whether this is one number of one of NumPy's kinds, not a bool."""
    return np.ndim(value) == 0 and np.asarray(value).dtype.kind in kinds
