"""Which axes the levels coarsen, decided on the host before anything is compiled.

A point smoother only smooths errors along axes of strong coupling. Where one axis is
coupled more strongly than another all over the grid (boxes that are not cubes with as
many points along every axis, layered or fibrous materials), the first levels coarsen
the strong axes alone. That halves their conductances and doubles the others, so the
ratio falls by 4 per level; once the axes are equal, all of them are coarsened.
"""

from collections.abc import Sequence

import numpy as np

# Ratio of conductances above which the weaker axis is left alone. At 2.5 both ways take
# the same number of iterations up to one; at 4 it is 18 against 12.
STRONG = 2.5
Schedule = tuple[tuple[int, ...], ...]


def schedule(systems: Sequence[dict[tuple[int, ...], np.ndarray]]) -> Schedule:
    """Axes that the first levels coarsen; those after them coarsen all axes.

    Args:
        systems: couplings [*n] per offset of `symmetric.half` of one system, or of
            several that share the answer; NumPy.
    """
    shape = list(next(iter(systems[0].values())).shape)
    strengths = _strengths(systems)
    levels: list[tuple[int, ...]] = []
    while True:
        active = [k for k, n in enumerate(shape) if n > 1]
        largest = max((strengths[k] for k in active), default=0.0)
        strong = tuple(k for k in active if strengths[k] * STRONG > largest)
        if not strong or len(strong) == len(active):
            return tuple(levels)
        levels.append(strong)
        for k in strong:
            strengths[k] /= 4
            shape[k] = (shape[k] + 1) // 2


def _strengths(systems):
    """Per axis the sum of all conductances that join its layers, up to a factor."""
    strengths = [0.0] * len(next(iter(systems[0])))
    for planes in systems:
        for offset, a in planes.items():
            if any(offset):
                inside = tuple(  # the others are never used, or close a ring
                    slice(max(0, -o), n - max(0, o))
                    for o, n in zip(offset, a.shape, strict=True)
                )
                total = float(a[inside].sum())
                for axis, step in enumerate(offset):
                    strengths[axis] += abs(step) * total
    return [abs(total) for total in strengths]
