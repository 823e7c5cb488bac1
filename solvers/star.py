"""Stencils that couple to neighbours along the axes only: links and excess."""

from typing import Any, NamedTuple

import numpy as np

from solvers.stencils import StencilOperator, double


class Star(NamedTuple):
    """The operator (A u)_i = e_i u_i + sum over neighbours j of t_ij (u_i - u_j).

    Arrays are NumPy or JAX.

    Attributes:
        excess: e [*grid]: what the diagonal has beyond the links, that is links to
            walls where u is zero, transfer at Robin sides and the reaction term.
        links: t per axis, [*grid] but one more along that axis; the two at its ends
            lead around it if the axis is periodic and are zero otherwise.
        periodic: axes that wrap around.
    """

    excess: Any
    links: tuple[Any, ...]
    periodic: tuple[int, ...] = ()


def along(axis: int, window: slice) -> tuple:
    """The index that takes a window of one axis and all of those before it."""
    return (*(slice(None),) * axis, window)


def planes_of(
    operator: StencilOperator, name: str
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Diagonal and couplings to the next unknown along each axis, all [*grid].

    NumPy float64, views where possible. The other couplings are not read: A is taken as
    symmetric.

    Args:
        operator: real, of batch 1, in any dimension.
        name: who asks, for the messages.

    Raises:
        TypeError: if it is no `StencilOperator`.
        ValueError: if it holds several systems, has offsets that are not one step along
            an axis, or lacks the diagonal or a step of +1.
    """
    if not isinstance(operator, StencilOperator):
        raise TypeError(
            f"{name} needs a StencilOperator, got {type(operator).__name__}; "
            "solve sparse matrices with 'direct' or 'petsc:...'"
        )
    offsets = operator.offsets
    if operator.batch != 1 or any(sum(map(abs, o)) > 1 for o in offsets):
        raise ValueError(
            f"{name} needs one system that couples to the next unknowns along the axes "
            f"only, got batch {operator.batch} and offsets {offsets}"
        )
    diagonal, *couplings = axis_planes(operator)
    if diagonal is None or any(plane is None for plane in couplings):
        raise ValueError(
            f"offsets {offsets} lack the diagonal or the step of +1 along an axis"
        )
    return diagonal, tuple(couplings)


def axis_planes(operator: StencilOperator) -> list[np.ndarray | None]:
    """Diagonal and couplings as in `planes_of` for any stencil; None for missing ones.

    Of operators with several systems, those of the first.
    """
    num_dims, planes = len(operator.grid_shape), []
    for offset in [(0,) * num_dims, *map(tuple, np.eye(num_dims, dtype=int).tolist())]:
        values = None
        if offset in operator.offsets:
            values = operator.coefficients[0, ..., operator.offsets.index(offset)]
            values = np.ascontiguousarray(double(values))
        planes.append(values)
    return planes


def faces(coupling: Any, axis: int, periodic: bool, xp: Any = np) -> Any:
    """Links t, see `Star`, from the couplings -t [*grid] to the next unknown."""
    last = coupling[along(axis, slice(-1, None))]
    end = last if periodic else xp.zeros_like(last)
    parts = [end, coupling[along(axis, slice(None, -1))], end]
    return -xp.concatenate(parts, axis)


def star_of(
    diagonal: Any, couplings: tuple[Any, ...], periodic: tuple[int, ...], xp: Any = np
) -> Star:
    """The star with a diagonal and couplings as in `planes_of`.

    Args:
        diagonal: [*grid].
        couplings: per axis, [*grid].
        periodic: axes that wrap around.
        xp: NumPy or `jax.numpy`, whichever holds the arrays.
    """
    links = [faces(c, axis, axis in periodic, xp) for axis, c in enumerate(couplings)]
    excess = diagonal
    for axis, link in enumerate(links):
        excess = excess - link[along(axis, slice(None, -1))]
        excess = excess - link[along(axis, slice(1, None))]
    return Star(excess, tuple(links), periodic)


def total_links(star: Star) -> Any:
    """Sum of the links of every unknown, [*grid]."""
    return sum(
        link[along(axis, slice(None, -1))] + link[along(axis, slice(1, None))]
        for axis, link in enumerate(star.links)
    )


def inner(link: Any, axis: int, periodic: bool) -> Any:
    """The links along an axis that join two unknowns, each once."""
    return link[along(axis, slice(1, None if periodic else -1))]
