import io

import h5py
import numpy as np
import pytest
import skfem

from datagen.cli import main
from datagen.problems import meshes
from datagen.problems.finite_elements import ElementSpace
from datagen.problems.poisson import Poisson
from datagen.storage import well


def area(points, cells):
    a, b, c = np.moveaxis(points[cells[:, :3]], 1, 0)
    return ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]) / 2


def with_circle(mesh_size):
    outline = meshes.polyline(meshes.box((0, 0), (1, 1)), mesh_size)
    line = meshes.circle((0.5, 0.5), 0.3, mesh_size)
    return outline, line, *meshes.triangulate(outline, [line], mesh_size)


@pytest.mark.parametrize("mesh_size", [0.1, 0.03, 0.0125])
def test_triangles_fill_the_domain_and_follow_the_line(mesh_size):
    outline, line, mesh, regions = with_circle(mesh_size)
    size = np.abs(area(mesh.p.T, mesh.t.T))
    assert size.sum() == pytest.approx(1, rel=1e-12)
    num = len(line)
    polygon = num / 2 * 0.3**2 * np.sin(2 * np.pi / num)  # area of a regular polygon
    assert size[regions == 1].sum() == pytest.approx(polygon, rel=1e-12)
    edges = set(map(tuple, np.sort(mesh.facets.T, axis=1).tolist()))
    first = len(outline)
    for i in range(num):
        pair = sorted((first + i, first + (i + 1) % num))
        assert tuple(pair) in edges


@pytest.mark.parametrize("mesh_size", [0.05, 0.02])
def test_triangles_are_close_to_equilateral(mesh_size):
    mesh = meshes.square_mesh(mesh_size)
    corners = mesh.p.T[mesh.t.T]
    sides = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2)
    quality = 4 * np.sqrt(3) * np.abs(area(mesh.p.T, mesh.t.T)) / (sides**2).sum(axis=1)
    assert quality.min() > 0.6  # 1 for equilateral triangles
    assert quality.mean() > 0.97
    assert sides.mean() == pytest.approx(mesh_size, rel=0.1)
    assert sides.max() < 1.6 * mesh_size


def test_the_hole_is_left_out():
    outline = meshes.polyline(meshes.box((0, 0), (2, 1)), 0.1)
    hole = meshes.polyline(meshes.box((0.5, 0.25), (1, 0.75)), 0.1)
    mesh, regions = meshes.triangulate(outline, (), 0.1, hole=hole)
    assert np.abs(area(mesh.p.T, mesh.t.T)).sum() == pytest.approx(1.75, rel=1e-12)
    assert (regions == 0).all()
    assert len(mesh.boundary_facets()) == len(outline) + len(hole)


def test_meshes_are_the_same_every_time():
    first, again = with_circle(0.05)[2], with_circle(0.05)[2]
    assert first.p.tobytes() == again.p.tobytes()
    assert first.t.tobytes() == again.t.tobytes()


def test_refuses_lines_that_are_too_close():
    outline = meshes.polyline(meshes.box((0, 0), (1, 1)), 0.1)
    lines = [meshes.circle((x, 0.5), 0.2, 0.1) for x in (0.295, 0.705)]
    with pytest.raises(ValueError, match=r"cross the given lines at .* choose a small"):
        meshes.triangulate(outline, lines, 0.1)


@pytest.mark.parametrize("degree", [1, 2])
def test_stored_cells_turn_anticlockwise_and_have_their_middles_in_order(degree):
    mesh = ElementSpace(meshes.square_mesh(0.2), degree).mesh
    assert mesh.cell_type == ("triangle", "triangle6")[degree - 1]
    assert mesh.cells.shape[1] == (3, 6)[degree - 1]
    assert (area(mesh.points, mesh.cells) > 0).all()
    assert set(mesh.cells.ravel().tolist()) == set(range(len(mesh.points)))
    x, y = mesh.points.T
    edge = (x == 0) | (x == 1) | (y == 0) | (y == 1)
    np.testing.assert_array_equal(mesh.boundary, np.flatnonzero(edge))
    if degree == 2:
        assert "middles of 01, 12, 20" in mesh.numbering
        corners = mesh.points[mesh.cells[:, :3]]
        middles = (corners + np.roll(corners, -1, axis=1)) / 2
        np.testing.assert_allclose(mesh.points[mesh.cells[:, 3:]], middles, atol=1e-14)


@pytest.mark.parametrize("degree", [1, 2])
def test_loads_and_edge_loads_integrate_what_they_should(degree):
    space = ElementSpace(meshes.square_mesh(0.1), degree)
    x, y = space.quadrature_points.T
    load = space.load(np.stack([x * y, np.exp(-x)], axis=1))
    expected = [1 / 4, 1 - np.exp(-1)]
    np.testing.assert_allclose(load.sum(axis=0), expected, rtol=1e-7)
    right = space.edge_load(lambda p: p[0] == 1)
    assert right.sum() == pytest.approx(1)
    assert right @ space.points[:, 1] == pytest.approx(1 / 2)
    assert (right[space.points[:, 0] < 1] == 0).all()
    linear = space.points @ [2.0, 3.0]
    assert linear @ space.stiffness() @ linear == pytest.approx(13)


def test_rejects_an_unknown_degree():
    with pytest.raises(ValueError, match="degree is 3; known"):
        ElementSpace(skfem.MeshTri(), 3)


@pytest.mark.parametrize(("mesh_size", "num"), [(0.025, 7473), (0.02, 11637)])
def test_node_counts_are_those_of_the_published_sets(mesh_size, num):
    nodes = Poisson(mesh_size=mesh_size).coordinates["node"]
    assert len(nodes) == pytest.approx(num, rel=0.02)


def content(problem, num=3, **changes):
    shape = (num, len(problem.coordinates["node"]))
    quality = {k: np.zeros(num, t) for k, t in well.QUALITY_COLUMNS.items()}
    settings = {
        "dataset_name": "d",
        "shard_id": "train-00000",
        "plan_sha256": "0" * 64,
        "coordinates": problem.coordinates,
        "boundaries": problem.boundaries,
        "scalars": problem.scalars,
        "specs": problem.fields,
        "fields": {s.name: np.ones(shape, np.float32) for s in problem.fields},
        "quality": quality,
        "provenance": {},
        "mesh": problem.mesh,
    }
    return well.ShardContent(**settings | changes)


def test_a_file_of_nodes_holds_the_mesh():
    problem = Poisson(mesh_size=0.2)
    image = well.encode(content(problem))
    assert image == well.encode(content(problem))
    with h5py.File(io.BytesIO(image)) as file:
        assert file.attrs["grid_type"] == "unstructured"
        assert file.attrs["n_spatial_dims"] == 1  # axes of the arrays
        np.testing.assert_array_equal(file["mesh/points"], problem.mesh.points)
        np.testing.assert_array_equal(file["mesh/cells"], problem.mesh.cells)
        np.testing.assert_array_equal(file["mesh/regions"], problem.mesh.regions)
        assert file["mesh/points"].dtype == np.float64
        assert file["mesh"].attrs["cell_type"] == "triangle6"
        assert "anticlockwise" in file["mesh"].attrs["numbering"]
        assert file["mesh/cells"].fletcher32
        wall = file["boundary_conditions/node_wall"]
        found = np.flatnonzero(wall["mask"])
        np.testing.assert_array_equal(found, problem.mesh.boundary)
        solution = file["t0_fields/solution"]
        assert solution.shape == (3, 1, len(problem.mesh.points))
        assert solution.attrs["dim_varying"].tolist() == [True]


def test_a_set_on_a_mesh_is_generated_and_read(tmp_path, monkeypatch):
    config = "configs/data/composites_unstructured.py:quick"
    arguments = ["generate", "--config", config, "--out", str(tmp_path / "set")]
    arguments += ["--config.splits.train=3", "--config.splits.valid=1"]
    arguments += ["--config.splits.test=1", "--config.solver.method=direct"]
    assert main(arguments) == 0
    with h5py.File(next((tmp_path / "set/data/train").glob("*.hdf5"))) as file:
        points, cells = file["mesh/points"][()], file["mesh/cells"][()]
        a, u = file["t0_fields/coefficient"][0], file["t0_fields/solution"][0, 0]
        inside = file["mesh/regions"][()] == 1  # a cell of the first inclusion
        assert len(np.unique(a[cells[inside]])) == 1
        assert a.shape == u.shape == (len(points),)
        edge = file["boundary_conditions/node_wall/mask"][()]
        assert (u[edge] == 0).all()
        assert (u[~edge] > 0).all()
