"""Layout of the files against the format that foreign readers expect."""

import dataclasses
import io
import json

import h5py
import jsonschema
import numpy as np
import pytest

from datagen import run
from datagen.plan import load_plan, sample_rng
from datagen.storage import read, schemas, well


@pytest.fixture
def shard(finished):
    with h5py.File(finished / "data/train/tiny-00000.hdf5") as file:
        yield file


def test_root_attributes(shard, finished):
    assert shard.attrs["dataset_name"] == "tiny"
    assert shard.attrs["grid_type"] == "cartesian"
    assert shard.attrs["n_spatial_dims"] == 2
    assert shard.attrs["n_trajectories"] == 4
    assert shard.attrs["shard_id"] == "train-00000"
    assert shard.attrs["schema_version"] == 1
    assert shard.attrs["complete"].dtype == bool
    assert shard.attrs["plan_sha256"] == load_plan(finished).sha256
    parameters = list(shard.attrs["simulation_parameters"])
    assert parameters == ["alpha", "tau", "forcing", "value_high", "value_low"]
    for name in parameters:
        assert isinstance(name, str)
        assert shard.attrs[name] == shard["scalars"][name][()]


def test_the_six_groups_and_ours_are_there(shard):
    assert set(shard) == {*well.GROUPS, "quality", "provenance"}
    for order, names in enumerate((["coefficient", "solution"], [], [])):
        found = shard[f"t{order}_fields"].attrs["field_names"]
        assert list(found) == names
        assert h5py.check_string_dtype(
            shard[f"t{order}_fields"].attrs.get_id("field_names").dtype
        )


def test_fields_have_the_shape_of_trajectories(shard):
    coefficient = shard["t0_fields/coefficient"]
    solution = shard["t0_fields/solution"]
    assert coefficient.shape == (4, 9, 9)
    assert solution.shape == (4, 1, 9, 9)  # stationary: one step
    assert not coefficient.attrs["time_varying"]
    assert solution.attrs["time_varying"]
    for data in (coefficient, solution):
        assert data.dtype == np.float32
        assert data.attrs["sample_varying"].dtype == bool
        assert data.attrs["dim_varying"].tolist() == [True, True]
        assert data.fletcher32
    assert coefficient.compression == "gzip"  # two values
    assert solution.compression is None


def test_dimensions_and_boundaries(shard):
    assert list(shard["dimensions"].attrs["spatial_dims"]) == ["x", "y"]
    time = shard["dimensions/time"]
    assert time.shape == (1,)
    assert time.attrs["time_varying"]
    assert not time.attrs["sample_varying"]
    for axis in ("x", "y"):
        points = shard["dimensions"][axis]
        assert points.dtype == np.float32
        np.testing.assert_array_equal(points, np.linspace(0, 1, 9, dtype=np.float32))
        assert not points.attrs["time_varying"]
        wall = shard[f"boundary_conditions/{axis}_wall"]
        assert wall.attrs["bc_type"] == "WALL"
        assert wall.attrs["bc_detail"] == "dirichlet:0"
        assert list(wall.attrs["associated_dims"]) == [axis]
        assert len(wall.attrs["associated_fields"]) == 0
        assert not wall.attrs["time_varying"]
        assert wall["mask"].dtype == bool
        assert np.flatnonzero(wall["mask"]).tolist() == [0, 8]


def test_quality_describes_every_row(shard):
    quality = {name: data[()] for name, data in shard["quality"].items()}
    assert {k: v.dtype.type for k, v in quality.items()} == well.QUALITY_COLUMNS
    assert quality["sample_id"].tolist() == quality["chain_pos"].tolist()
    assert quality["accepted"].all()
    assert (quality["true_rel_residual"] < 1e-12).all()
    assert (quality["method"] == 0).all()


def test_provenance_has_versions_and_nothing_that_changes(shard):
    attributes = dict(shard["provenance"].attrs)
    libraries = {"python", "numpy", "scipy", "h5py", "jax", "jaxlib", "blas"}
    assert set(attributes) == libraries


def test_stored_fields_are_those_of_the_seed(shard, finished):
    plan = load_plan(finished)
    problem = plan.problem()
    for row in range(4):
        sample = problem.sample(sample_rng(plan.config["seed"], row))
        stored = shard["t0_fields/coefficient"][row]
        np.testing.assert_array_equal(stored, sample["coefficient"].astype(np.float32))
        system = problem.system(sample)
        x = shard["t0_fields/solution"][row, 0, 1:-1, 1:-1].astype(float)
        assert system.relative_residual(x) < 1e-5  # float32 copy


def test_json_files_follow_their_schemas(finished):
    for name, schema in (
        ("plan.json", schemas.PLAN),
        ("manifest.json", schemas.MANIFEST),
        ("ledger/train-00000.json", schemas.LEDGER),
    ):
        content = json.loads((finished / name).read_text())
        jsonschema.Draft202012Validator.check_schema(schema)
        jsonschema.validate(content, schema)
        assert schemas.violation(content, schema) == ""


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("config", "seed"), -1),
        (("config", "seed"), 1.5),
        (("config", "seed"), True),
        (("config", "solver", "rtol"), 0),
        (("config", "storage", "dtype"), "float16"),
        (("config", "name"), "a b"),
        (("config", "surprise"), 1),
        (("shards",), {}),
        (("plan_sha256",), "0"),
    ],
)
def test_our_check_of_schemas_agrees_with_jsonschema(finished, path, value):
    content = json.loads((finished / "plan.json").read_text())
    node = content
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    assert path[-1] in schemas.violation(content, schemas.PLAN)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content, schemas.PLAN)


def test_statistics_are_those_of_the_training_samples(finished):
    yaml = pytest.importorskip("yaml")
    stats = yaml.safe_load((finished / "stats.yaml").read_text())
    train = read.open_dataset(finished).load("train")
    for name, values in (("coefficient", train.x), ("solution", train.y)):
        values = values.astype(np.float64)
        np.testing.assert_allclose(stats["mean"][name], values.mean(), rtol=1e-12)
        np.testing.assert_allclose(stats["std"][name], values.std(), rtol=1e-12)
        rms = np.sqrt((values**2).mean())
        np.testing.assert_allclose(stats["rms"][name], rms, rtol=1e-12)
    assert set(stats["mean_delta"]) == {"solution"}
    assert stats["std_delta"]["solution"] == 1.0


def test_merged_moments_do_not_lose_digits():
    rng = np.random.default_rng(0)
    values = 1e6 + rng.standard_normal(3000)
    total = [0.0, 0.0, 0.0]
    for part in np.split(values, [1, 500, 501]):
        moments = [part.size, part.mean(), ((part - part.mean()) ** 2).sum()]
        total = well.merge_moments(total, moments)
    np.testing.assert_allclose(total[2] / total[0], values.var(), rtol=1e-10)
    assert well.merge_moments([0.0] * 3, [0.0] * 3) == [0.0] * 3


def test_chunks_hold_several_small_samples_or_one_large_step():
    def chunks(n):
        fields = {"u": np.arange(n * n * 3, dtype=np.float32).reshape(3, n, n)}
        image = well.encode(content(fields))
        with h5py.File(io.BytesIO(image)) as file:
            return file["t0_fields/u"].chunks

    assert chunks(9) == (3, 1, 9, 9)
    assert chunks(70) == (1, 1, 70, 70)


def test_steps_are_cut_into_equal_chunks():
    """HDF5 stores whole chunks: 31 steps in chunks of 28 would take room for 56."""
    values = np.random.default_rng(0).random((2, 31, 24, 24), np.float32)
    image = well.encode(
        dataclasses.replace(content({"u": values}), steps=np.arange(31.0))
    )
    with h5py.File(io.BytesIO(image)) as file:
        assert file["t0_fields/u"].chunks == (1, 16, 24, 24)
        np.testing.assert_array_equal(file["t0_fields/u"][()], values)


def content(fields):
    rows = len(next(iter(fields.values())))
    spec = type("Spec", (), {"name": "u", "time_varying": True})
    spec.units = spec.description = ""
    return well.ShardContent(
        dataset_name="d",
        shard_id="train-00000",
        plan_sha256="0" * 64,
        coordinates={"x": np.arange(2.0)},
        boundaries=(),
        scalars={},
        specs=(spec,),
        fields=fields,
        quality={
            k: np.ones(rows, t) * (np.arange(rows) if k == "sample_id" else 1)
            for k, t in well.QUALITY_COLUMNS.items()
        },
        provenance={},
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_stopped_before_the_commit(tmp_path, bad):
    values = np.arange(3 * 81, dtype=np.float32).reshape(3, 9, 9)
    values[1, 4, 4] = bad
    path = tmp_path / "shard"
    path.write_bytes(well.encode(content({"u": values})))
    with pytest.raises(well.ShardError, match="not finite at row 1"):
        well.inspect(
            path,
            plan_sha256="0" * 64,
            shard_id="train-00000",
            sample_ids=np.arange(3),
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"plan_sha256": "1" * 64}, "plan_sha256 is"),
        ({"shard_id": "train-00001"}, "shard_id is 'train-00000'"),
        ({"sample_ids": np.array([0, 2, 1])}, "sample ids are not those"),
    ],
)
def test_a_file_that_belongs_elsewhere_is_refused(tmp_path, changes, message):
    path = tmp_path / "shard"
    path.write_bytes(well.encode(content({"u": np.ones((3, 9, 9), np.float32)})))
    expected = {
        "plan_sha256": "0" * 64,
        "shard_id": "train-00000",
        "sample_ids": np.arange(3),
    }
    assert well.inspect(path, **expected).moments["u"] == [243.0, 1.0, 0.0]
    with pytest.raises(well.ShardError, match=message):
        well.inspect(path, **(expected | changes))


def test_the_size_told_beforehand_is_about_right(finished):
    plan = load_plan(finished)
    phases = np.where(np.arange(81.0).reshape(9, 9) % 7 > 3, 12.0, 3.0)
    smooth = np.linspace(0, 1, 81, dtype=np.float32).reshape(9, 9)
    assert well.stored_bytes(smooth) == smooth.nbytes
    assert well.stored_bytes(phases.astype(np.float32)) < smooth.nbytes / 2
    timing = run.time_sample(plan, plan.shards[0])
    assert 300 < timing.num_bytes < 500  # 324 of the solution and some phases


@pytest.mark.parametrize("num_rows", [1, 2, 3])
def test_reading_in_blocks_finds_the_same(tmp_path, monkeypatch, num_rows):
    values = np.random.default_rng(0).random((5, 65, 65), np.float32)
    whole = content({"u": values})
    whole.quality["accepted"][:] = [True, True, False, True, True]
    path = tmp_path / "shard"
    path.write_bytes(well.encode(whole))
    arguments = {
        "plan_sha256": "0" * 64,
        "shard_id": "train-00000",
        "sample_ids": np.arange(5),
    }
    one = well.inspect(path, **arguments)
    monkeypatch.setattr(well, "READ_BYTES", num_rows * values[0].nbytes)
    several = well.inspect(path, **arguments)
    assert several.content_sha256 == one.content_sha256
    assert several.moments == one.moments
    accepted = values[[0, 1, 3, 4]].astype(np.float64)
    squares = np.square(accepted - accepted.mean()).sum()
    expected = [accepted.size, accepted.mean(), squares]
    np.testing.assert_allclose(one.moments["u"], expected, rtol=1e-12)
    values[4, 3, 3] = np.nan
    path.write_bytes(well.encode(whole))
    with pytest.raises(well.ShardError, match="not finite at row 4"):
        well.inspect(path, **arguments)
