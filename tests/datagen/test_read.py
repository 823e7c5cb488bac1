"""Reading data sets and .npz files."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest

from datagen import plan, problems
from datagen.cli import main
from datagen.storage import read
from datagen.storage.arrays import open_npz
from datagen.storage.read import DatasetError, open_dataset


def test_loading_gives_inputs_outputs_and_coordinates(finished):
    dataset = open_dataset(str(finished))
    assert dataset.name == "tiny"
    assert dataset.splits == {"train": 6, "valid": 2, "test": 3}
    assert dataset.scalars["tau"] == 3.0
    assert dataset.boundaries[0]["detail"] == "dirichlet:0"
    train = dataset.load("train")
    assert train.x.shape == train.y.shape == (6, 9, 9, 1)
    assert train.x.dtype == train.y.dtype == np.float32
    assert set(np.unique(train.x)) == {3.0, 12.0}
    assert train.y[:, 0].max() == 0 < train.y[:, 4].max()
    np.testing.assert_array_equal(train.coordinates[0], np.linspace(0, 1, 9))
    ids = [dataset.load(split).sample_ids.tolist() for split in dataset.splits]
    assert [i for split in ids for i in split] == list(range(11))


def test_the_order_of_solving_does_not_show(finished, tmp_path):
    """A plan that sorts samples gives the same samples to its readers."""
    content = json.loads((finished / "plan.json").read_text())
    order = np.array([4, 0, 5, 2, 1, 3, 7, 6, 9, 10, 8])
    content["sort"] = {"method": "by hand"}
    content["order_sha256"] = hashlib.sha256(plan._npy(order)).hexdigest()
    content["plan_sha256"] = plan.plan_sha256(content)
    plan.write_plan(plan.Plan(tmp_path / "sorted", content, order))
    assert main(["generate", "--out", str(tmp_path / "sorted")]) == 0
    here, there = open_dataset(tmp_path / "sorted"), open_dataset(finished)
    for split, num in (("train", None), ("train", 3), ("test", 2)):
        one, other = here.load(split, num=num), there.load(split, num=num)
        for a, b in zip(one[:3], other[:3], strict=True):
            np.testing.assert_array_equal(a, b)
    assert here.quality("train")["chain_pos"].tolist() == [1, 0, 3, 1, 0, 2]


def test_num_and_stride_take_a_part(finished):
    dataset = open_dataset(finished)
    whole = dataset.load("train")
    part = dataset.load("train", num=5, stride=2)  # five: into the second file
    np.testing.assert_array_equal(part.x, whole.x[:5, ::2, ::2])
    np.testing.assert_array_equal(part.y, whole.y[:5, ::2, ::2])
    np.testing.assert_array_equal(part.coordinates[1], whole.coordinates[1][::2])


def test_fields_become_channels_in_the_order_asked_for(finished):
    dataset = open_dataset(finished)
    both = dataset.load("test", inputs=("solution", "coefficient"), outputs=())
    one = dataset.load("test")
    np.testing.assert_array_equal(both.x, np.concatenate([one.y, one.x], axis=-1))
    assert both.y.shape == (3, 9, 9, 0)


@pytest.mark.parametrize(
    ("name", "inputs", "outputs"),
    [
        ("composites", ("coefficient", "source"), ("solution",)),
        ("helmholtz", ("wave_number",), ("solution_real", "solution_imag")),
        ("heat", ("coefficient", "source"), ("solution",)),
    ],
)
def test_by_default_all_that_is_given_is_input(name, inputs, outputs):
    specs = problems.create(name).fields
    fields = [{"name": f.name, "time_varying": f.time_varying} for f in specs]
    assert read.default_fields(fields) == (inputs, outputs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "training"}, "no split 'training'; known"),
        ({"split": "test", "num": 4}, "has 3 samples in test, 4 were asked for"),
        ({"split": "test", "inputs": ("a",)}, "no field 'a'; known"),
        ({"split": "test", "stride": 0}, "stride is 0"),
        ({"split": "test", "stride": 9}, "stride is 9"),
    ],
)
def test_impossible_requests_are_refused(finished, arguments, message):
    with pytest.raises(DatasetError, match=message):
        open_dataset(finished).load(**arguments)


@pytest.fixture(scope="module")
def mesh_set(tmp_path_factory):
    root = tmp_path_factory.mktemp("mesh") / "set"
    command = ["generate", "--config", "configs/data/composites_unstructured.py:quick"]
    command += ["--config.splits.train=2", "--config.splits.valid=0"]
    assert main([*command, "--config.splits.test=0", "--out", str(root)]) == 0
    return root


def test_a_mesh_is_not_thinned_out(mesh_set):
    dataset = open_dataset(mesh_set)
    assert len(dataset.load("train").coordinates[0]) == 1813
    with pytest.raises(DatasetError, match=r"unstructured mesh, .* leave stride=1"):
        dataset.load("train", stride=2)
    text = (mesh_set / "README.md").read_text()
    assert "Mesh of 1813 nodes, float32." in text
    assert "inputs=('coefficient', 'source'), outputs=('solution',)" in text
    assert dataset.load("train").x.shape == (2, 1813, 2)


def test_manifests_without_what_came_later_still_open(copied, finished):
    path = copied / "manifest.json"
    manifest = json.loads(path.read_text())
    for key in ("fallbacks", "steps", "solver"):
        del manifest[key]
    manifest["manifest_sha256"] = read.manifest_sha256(manifest)
    path.write_text(json.dumps(manifest))
    make_old(copied / "plan.json")
    old, new = open_dataset(copied), open_dataset(finished)
    assert (old.steps.tolist(), old.step_name) == ([0.0], "time")
    for one, other in zip(old.load("train")[:3], new.load("train")[:3], strict=True):
        np.testing.assert_array_equal(one, other)


def make_old(path, **changes):
    """A plan as it was before steps and `config.solver.m` were in it."""
    content = json.loads(path.read_text())
    for key in ("steps", "solver", "sort_statistics"):
        content.pop(key, None)
    content["config"]["solver"] = {"method": "direct", "rtol": 1e-8}
    content["plan_sha256"] = plan.plan_sha256(content)
    path.write_text(json.dumps(content | changes))


def test_a_plan_of_an_older_version_says_so(copied, config_file, capsys):
    make_old(copied / "plan.json")
    for command in (["status"], ["generate", "--config", config_file]):
        assert main([*command, "--out", str(copied)]) == 1
        error = capsys.readouterr().err
        assert "older version" in error
        assert "can still be opened" in error
        assert "another --out" in error
        assert len(error.splitlines()) == 1
    make_old(copied / "plan.json", seed=7)  # edited by hand besides
    assert main(["status", "--out", str(copied)]) == 1
    assert "older version" not in capsys.readouterr().err
    make_old(copied / "plan.json", schema_version=99)
    assert main(["status", "--out", str(copied)]) == 1
    assert "use a newer one" in capsys.readouterr().err


def test_missing_and_unfinished_data_sets_say_what_to_do(tmp_path, copied):
    with pytest.raises(DatasetError, match="generate --config"):
        open_dataset(tmp_path / "nothing")
    (copied / "manifest.json").unlink()
    with pytest.raises(DatasetError, match="unfinished data set: finish it"):
        open_dataset(copied)


def test_an_edited_manifest_is_refused(copied):
    path = copied / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["counts"]["train"]["accepted"] -= 1
    path.write_text(json.dumps(manifest))
    with pytest.raises(DatasetError, match="changed after it was written"):
        open_dataset(copied)
    manifest["schema_version"] = 2
    path.write_text(json.dumps(manifest))
    with pytest.raises(DatasetError, match="use a newer one"):
        open_dataset(copied)


def test_the_identity_leaves_out_what_the_data_cost(copied, finished):
    path = copied / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["costs"]["cpu_seconds"] += 1
    path.write_text(json.dumps(manifest))
    same = (
        open_dataset(copied).manifest_sha256 == open_dataset(finished).manifest_sha256
    )
    assert same


def test_quality_of_a_split(finished):
    quality = open_dataset(finished).quality("train")
    assert quality["sample_id"].tolist() == list(range(6))
    assert (quality["true_rel_residual"] < 1e-7).all()


def test_npz_is_cut_into_splits_in_order(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(10, 5, 7)), rng.normal(size=(10, 5, 7, 2))
    path = tmp_path / "mine.npz"
    np.savez(path, x=x, y=y, coordinates_x=np.arange(5.0))
    dataset = open_npz(path, splits={"train": 6, "valid": 1, "test": 2})
    test = dataset.load("test", stride=2)
    np.testing.assert_array_equal(test.x, x[7:9, ::2, ::2, None].astype(np.float32))
    np.testing.assert_array_equal(test.y, y[7:9, ::2, ::2].astype(np.float32))
    assert test.sample_ids.tolist() == [7, 8]
    assert test.coordinates[0].tolist() == [0, 2, 4]
    np.testing.assert_array_equal(test.coordinates[1], np.linspace(0, 1, 7)[::2])
    assert dataset.load("train", num=3).x.shape == (3, 5, 7, 1)
    with pytest.raises(DatasetError, match="has 6 samples in train, 7"):
        dataset.load("train", num=7)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros((2, 3, 3))}, "no array 'y'"),
        ({"x": np.zeros(2), "y": np.zeros(2)}, "x has shape"),
        ({"x": np.zeros((2, 3)), "y": np.zeros((2, 3, 1, 1))}, "y has shape"),
        (
            {k: np.zeros((2, 3, 3)) for k in ("x", "y")} | {"points": np.zeros((4, 2))},
            "points has shape",
        ),
        ({"x": np.zeros((2, 3, 3)), "y": np.zeros((2, 3, 4))}, "but y has"),
        ({"x": np.full((2, 3, 3), np.nan), "y": np.zeros((2, 3, 3))}, "not finite"),
        (
            {"x": np.zeros((1, 3, 3)), "y": np.zeros((1, 3, 3))},
            r"has 1 samples, but the splits need 1 \+ 0 \+ 1 samples",
        ),
        (
            {"x": np.zeros((9, 5, 2)), "y": np.zeros((9, 5, 1))},
            r"x has shape \(9, 5, 2\), but y has \(9, 5, 1\): .* num_axes=1\)$",
        ),
        (
            {k: np.zeros((2, 4, 4, 9)) for k in ("x", "y")},
            r"\(2, 4, 4, 9\), .* num_axes=3\), .*; for 9 channels .* num_axes=2$",
        ),
        (
            {k: np.zeros((2, 3, 3)) for k in ("x", "y", "coordinates_x")},
            "coordinates_x has shape",
        ),
    ],
)
def test_npz_that_does_not_fit_is_refused(tmp_path, arrays, message):
    path = tmp_path / "mine.npz"
    np.savez(path, **arrays)
    with pytest.raises(DatasetError, match=message):
        open_npz(path, splits={"train": 1, "test": 1})


@pytest.mark.parametrize(
    ("shape", "extra", "grid"),
    [
        ((4, 7), {}, (7,)),
        ((4, 7, 2), {"num_axes": 1}, (7,)),
        ((4, 5, 7, 6, 2), {}, (5, 7, 6)),
        ((4, 5, 7, 9), {"num_axes": 3}, (5, 7, 9)),
        ((4, 5, 7, 8), {}, (5, 7)),
        ((4, 5, 7, 6), {"coordinates_z": np.arange(6.0)}, (5, 7, 6)),
    ],
)
def test_npz_takes_lines_and_boxes(tmp_path, shape, extra, grid):
    x = np.random.default_rng(0).normal(size=shape)
    np.savez(tmp_path / "mine.npz", x=x, y=x, **extra)
    dataset = open_npz(tmp_path / "mine.npz", splits={"train": 3, "test": 1})
    train = dataset.load("train", stride=2)
    halved = tuple(-(-n // 2) for n in grid)
    assert train.x.shape[:-1] == (3, *halved)
    assert tuple(len(c) for c in train.coordinates) == halved
    assert train.x.shape[-1] == (shape[-1] if len(shape) == len(grid) + 2 else 1)


def test_npz_has_many_channels_on_a_plane_where_that_is_sure(tmp_path):
    """Different channels, or num_axes, tell a plane from a box."""
    x, path = np.ones((2, 4, 4, 9)), tmp_path / "mine.npz"
    for arrays in ({"x": x, "y": x, "num_axes": 2}, {"x": x, "y": x[..., :1]}):
        np.savez(path, **arrays)
        assert open_npz(path, splits={"train": 2}).load("train").x.shape == x.shape


def test_npz_takes_points_without_a_grid(tmp_path):
    rng = np.random.default_rng(0)
    x, points = rng.normal(size=(4, 9)), rng.normal(size=(9, 2))
    np.savez(tmp_path / "mine.npz", x=x, y=x, points=points)
    dataset = open_npz(tmp_path / "mine.npz", splits={"train": 3, "test": 1})
    assert dataset.load("train").x.shape == (3, 9, 1)
    assert list(dataset.coordinates) == ["node"]
    np.testing.assert_array_equal(dataset.points, points)
    with pytest.raises(DatasetError, match="no mesh"):
        dataset.load("train", stride=2)


@pytest.mark.parametrize(
    ("key", "values", "message"),
    [
        ("x", np.zeros((2, 4, 3), complex), "x must be real, .* two channels"),
        ("y", np.full((2, 4, 3), "a"), "y must hold real numbers, but is <U1"),
        ("x", np.full((2, 4, 3), 1e39), r"x has 24 values .* first at \(0, 0, 0\), 1e"),
        ("coordinates_x", np.array([0, 1, np.inf, 3]), "coordinates_x has 1 values"),
        (
            "coordinates_x",
            np.array([0, 1, 1, 2]),
            "increase strictly, but entry 1 is 1",
        ),
        ("coordinates_y", np.array([2.0, 1, 0]), "coordinates_y must increase"),
        ("coordinates_y", np.array(list("abc")), "coordinates_y must hold real"),
        ("periodic", np.array([True] * 3), "for each of the 2 axes"),
        ("periodic", np.array("x"), "periodic must be one bool"),
    ],
)
def test_npz_of_other_than_real_finite_numbers_is_refused(
    tmp_path, key, values, message
):
    arrays = {"x": np.ones((2, 4, 3)), "y": np.ones((2, 4, 3))} | {key: values}
    np.savez(tmp_path / "mine.npz", **arrays)
    with pytest.raises(DatasetError, match=message):
        open_npz(tmp_path / "mine.npz", splits={"train": 2})


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"points": np.array([[0], [np.nan], [2]])}, "points has 1 values"),
        ({"points": np.zeros((3, 1), complex)}, "points must be real"),
        ({"points": np.zeros((3, 1)), "periodic": True}, "no grid to be periodic"),
    ],
)
def test_npz_with_impossible_points_is_refused(tmp_path, extra, message):
    np.savez(tmp_path / "mine.npz", x=np.ones((2, 3)), y=np.ones((2, 3)), **extra)
    with pytest.raises(DatasetError, match=message):
        open_npz(tmp_path / "mine.npz", splits={"train": 2})


@pytest.mark.parametrize(
    ("periodic", "axes"),
    [(True, "xy"), ([False, True], "y"), (False, "")],
)
def test_npz_says_which_axes_are_periodic(tmp_path, periodic, axes):
    x = np.ones((2, 4, 5))
    np.savez(tmp_path / "mine.npz", x=x, y=x, periodic=periodic)
    dataset = open_npz(tmp_path / "mine.npz", splits={"train": 2})
    found = [(b["axis"], b["bc_type"]) for b in dataset.boundaries]
    assert found == [(axis, "PERIODIC") for axis in axes]
    for axis, n in (("x", 4), ("y", 5)):
        expected = np.arange(n) / (n - (axis not in axes))
        np.testing.assert_allclose(dataset.coordinates[axis], expected)


def test_npz_that_is_none_is_refused(tmp_path):
    path = tmp_path / "mine.npz"
    with pytest.raises(DatasetError, match="cannot be read"):
        open_npz(path, splits={"train": 1})
    path.write_text("text")
    with pytest.raises(DatasetError, match="cannot be read"):
        open_npz(path, splits={"train": 1})


def test_reading_needs_neither_jax_nor_scipy():
    code = (
        "import sys, datagen.storage.read; "
        "print([m for m in ('jax', 'scipy', 'jsonschema', 'petsc4py', 'solvers') "
        "if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
