"""Triangle meshes that follow given lines, for sets on finite elements."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
import skfem
from scipy.spatial import Delaunay, cKDTree

LINEAR, QUADRATIC = "triangle", "triangle6"
NUMBERING = {
    LINEAR: "vertices, anticlockwise",
    QUADRATIC: "vertices 0 1 2 anticlockwise, then the middles of 01, 12, 20",
}
CLEARANCE = 0.6  # distance of free points from lines, in mesh sizes
SMOOTHING_STEPS = 12
FLAT = 1e-6  # triangles of less area, in mesh sizes squared, are no triangles


@dataclasses.dataclass(frozen=True, eq=False)
class Mesh:
    """Nodes and cells as they are stored beside the fields.

    Attributes:
        points: [num_nodes, 2] coordinates of the nodes, vertices first.
        cells: [num_cells, 3 or 6] numbers of a cell's nodes, in the order `numbering`
            states (that of Gmsh and VTK).
        regions: [num_cells] which part of the domain a cell lies in.
        boundary: numbers of the nodes on the boundary, ascending.
        cell_type: "triangle" or "triangle6", the names of meshio.
    """

    points: np.ndarray
    cells: np.ndarray
    regions: np.ndarray
    boundary: np.ndarray
    cell_type: str

    @property
    def numbering(self) -> str:
        """Order of the nodes of a cell, in words."""
        return NUMBERING[self.cell_type]


def node_mesh(basis: skfem.Basis, regions: np.ndarray) -> Mesh:
    """The mesh of the nodes of a Lagrange basis of degree 1 or 2 on triangles."""
    cells = basis.element_dofs.T
    # scikit-fem sorts the vertices of a triangle; stored ones turn anticlockwise.
    corners = basis.doflocs[:, cells[:, :3]]  # [2, num_cells, 3]
    (ax, bx, cx), (ay, by, cy) = np.moveaxis(corners, -1, 1)
    turned = (bx - ax) * (cy - ay) < (cx - ax) * (by - ay)
    order = np.array([0, 2, 1] if cells.shape[1] == 3 else [0, 2, 1, 5, 4, 3])
    # scikit-fem's edges of a triangle: 01, 12, 02.
    cells = np.where(turned[:, None], cells[:, order], cells)
    boundary = np.sort(basis.get_dofs().flatten())
    kind = LINEAR if cells.shape[1] == 3 else QUADRATIC
    return Mesh(basis.doflocs.T.copy(), cells, np.asarray(regions), boundary, kind)


def polyline(corners: Sequence[tuple[float, float]], mesh_size: float) -> np.ndarray:
    """Points on a closed polygon, about `mesh_size` apart, corners included, [n, 2]."""
    corners = np.asarray(corners, np.float64)
    sides = []
    for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        num = max(1, round(float(np.linalg.norm(b - a)) / mesh_size))
        t = np.arange(num)[:, None] / num
        sides.append(a + (b - a) * t)
    return np.concatenate(sides)


def circle(center: tuple[float, float], radius: float, mesh_size: float) -> np.ndarray:
    """Points on a circle, about `mesh_size` apart, at least 8, [n, 2]."""
    num = max(8, round(2 * np.pi * radius / mesh_size))
    angles = 2 * np.pi * np.arange(num) / num
    return np.asarray(center) + radius * np.stack([np.cos(angles), np.sin(angles)], 1)


def box(
    lower: tuple[float, float], upper: tuple[float, float]
) -> tuple[tuple[float, float], ...]:
    """Corners of a rectangle, anticlockwise."""
    (x0, y0), (x1, y1) = lower, upper
    return ((x0, y0), (x1, y0), (x1, y1), (x0, y1))


def triangulate(
    outline: np.ndarray,
    lines: Sequence[np.ndarray],
    mesh_size: float,
    *,
    hole: np.ndarray | None = None,
) -> tuple[skfem.MeshTri, np.ndarray]:
    """Triangles in a convex polygon, some of whose edges are the given lines.

    The points of the lines stay where they are. Between them stand the points of a
    lattice of equilateral triangles, moved a few times to the middle of their
    neighbours; all are joined by a Delaunay triangulation. Nothing is random.

    Args:
        outline: [n, 2] points on the boundary of the domain.
        lines: closed polygons [n, 2] inside it, apart from each other; region j + 1 is
            the inside of lines[j], region 0 the rest.
        mesh_size: length of the edges, about.
        hole: closed polygon [n, 2] whose inside is left out.

    Returns:
        The mesh, and the region of every triangle [num_cells].

    Raises:
        ValueError: if the lines are too close to each other for this mesh size.
    """
    loops = [outline, *lines, *(() if hole is None else (hole,))]
    fixed = np.concatenate(loops)
    free = _lattice(fixed.min(axis=0), fixed.max(axis=0), mesh_size)
    near, _ = cKDTree(fixed).query(free)
    free = free[near > CLEARANCE * mesh_size]
    if hole is not None:
        free = free[~_inside(hole, free)]
    points = _clear_lines(_smooth(fixed, free), loops)
    cells = Delaunay(points).simplices
    corners = points[cells]  # [num_cells, 3, 2]
    ab, ac = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = np.abs(ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]) / 2
    middles = corners.mean(axis=1)
    keep = area > FLAT * mesh_size**2
    if hole is not None:
        keep &= ~_inside(hole, middles)
    cells, middles = cells[keep], middles[keep]
    _check_lines(cells, loops, mesh_size)
    regions = np.zeros(len(cells), np.int32)
    for j, line in enumerate(lines):
        regions[_inside(line, middles)] = j + 1
    mesh = skfem.MeshTri(np.ascontiguousarray(points.T), np.ascontiguousarray(cells.T))
    return mesh, regions


def _lattice(lower, upper, mesh_size: float) -> np.ndarray:
    """Equilateral triangles over a box, [n, 2]."""
    columns = int(np.ceil((upper[0] - lower[0]) / mesh_size)) + 1
    rise = mesh_size * np.sqrt(3) / 2
    rows = int(np.ceil((upper[1] - lower[1]) / rise)) + 1
    i, j = np.meshgrid(np.arange(columns), np.arange(rows), indexing="ij")
    x = lower[0] + mesh_size * (i + 0.5 * (j % 2) - 0.25)
    y = lower[1] + rise * j
    points = np.stack([x.ravel(), y.ravel()], axis=1)
    return points[((points > lower) & (points < upper)).all(axis=1)]


def _smooth(fixed: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Moves free points to the mean of their neighbours; [n, 2], the fixed first."""
    points = np.concatenate([fixed, free])
    for _ in range(SMOOTHING_STEPS):
        start, neighbours = Delaunay(points).vertex_neighbor_vertices
        counts = np.diff(start)
        sums = np.add.reduceat(points[neighbours], start[:-1])
        means = sums / counts[:, None]
        points[len(fixed) :] = means[len(fixed) :]
    return points


def _clear_lines(points: np.ndarray, loops: Sequence[np.ndarray]) -> np.ndarray:
    """Drops points in the circle over an edge of a line: they would cut the edge."""
    num_fixed = sum(map(len, loops))
    free = points[num_fixed:]
    ends = [(loop, np.roll(loop, -1, axis=0)) for loop in loops]
    middles = np.concatenate([(a + b) / 2 for a, b in ends])
    radii = np.concatenate([np.linalg.norm(b - a, axis=1) / 2 for a, b in ends])
    gaps, nearest = cKDTree(middles).query(free)
    return np.concatenate([points[:num_fixed], free[gaps > 1.01 * radii[nearest]]])


def _inside(polygon: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Which points lie in a polygon, by the parity of crossings, bool [n]."""
    x, y = points.T
    inside = np.zeros(len(points), bool)
    for (ax, ay), (bx, by) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        crosses = (ay > y) != (by > y)
        if crosses.any():
            slope = (bx - ax) / (by - ay)
            inside ^= crosses & (x < ax + slope * (y - ay))
    return inside


def _check_lines(cells: np.ndarray, loops, mesh_size: float) -> None:
    """Refuses a triangulation that cuts through a line."""
    edges = np.sort(cells[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    known = set(map(tuple, edges.tolist()))
    start = 0
    for loop in loops:
        numbers = start + np.arange(len(loop))
        pairs = np.sort(np.stack([numbers, np.roll(numbers, -1)], 1), axis=1)
        if missing := [
            pair for pair in map(tuple, pairs.tolist()) if pair not in known
        ]:
            raise ValueError(
                f"mesh_size is {mesh_size}; triangles of that size cross the given "
                f"lines at {len(missing)} places: choose a smaller one"
            )
        start += len(loop)


@functools.lru_cache(maxsize=8)
def square_mesh(mesh_size: float) -> skfem.MeshTri:
    """Triangles on the unit square."""
    outline = polyline(box((0.0, 0.0), (1.0, 1.0)), mesh_size)
    return triangulate(outline, (), mesh_size)[0]
