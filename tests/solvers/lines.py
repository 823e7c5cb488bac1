"""Ends of a line of nodes or cells, for tests of transforms."""

from solvers.fast_diagonalization import Line

OPEN, HALF = (False, False), (True, True)
# Lines with a fast sine or cosine transform.
FAST = {
    "nodes, walls": ((1.0, 1.0), OPEN),
    "nodes, closed": ((0.0, 0.0), HALF),
    "nodes, wall and closed": ((1.0, 0.0), (False, True)),
    "nodes, closed and wall": ((0.0, 1.0), (True, False)),
    "cells, walls": ((2.0, 2.0), OPEN),
    "cells, closed": ((0.0, 0.0), OPEN),
    "cells, wall and closed": ((2.0, 0.0), OPEN),
    "cells, closed and wall": ((0.0, 2.0), OPEN),
}
LINES = FAST | {
    "cells, ghost row": ((1.0, 2.0), OPEN),
    "Robin": ((0.3, 0.01), HALF),
}


def line_of(name, n):
    if name == "periodic":
        return Line(n, periodic=True)
    return Line(n, *LINES[name])
