"""Damage of any kind is found and named, by the reader and by `verify`."""

import json
import random

import numpy as np
import pytest

from datagen.cli import main
from datagen.storage import well
from datagen.storage.read import DatasetError, open_dataset

FILE = "data/train/tiny-00000.hdf5"


def complaints(root, capsys, *options):
    capsys.readouterr()
    code = main(["verify", "--out", str(root), *options])
    return code, capsys.readouterr().err


def refused(root, match):
    with pytest.raises(DatasetError, match=match):
        open_dataset(root)


def test_a_whole_data_set_has_nothing_to_complain_about(finished, capsys):
    assert complaints(finished, capsys) == (0, "")
    assert complaints(finished, capsys, "--quick") == (0, "")


def test_every_flipped_bit_is_found(copied, capsys):
    path = copied / FILE
    whole = path.read_bytes()
    rng = random.Random(1)
    for offset in [rng.randrange(len(whole)) for _ in range(40)]:
        damaged = bytearray(whole)
        damaged[offset] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        refused(copied, "is damaged")
    code, error = complaints(copied, capsys)
    assert code == 1
    assert FILE in error


def test_flipped_bits_in_fields_are_found_without_checksums_of_files(copied):
    """HDF5's own checksum stops them where nobody compares hashes."""
    path = copied / FILE
    whole = path.read_bytes()
    dataset = open_dataset(copied)
    values = dataset.load("train").y[1, 4, :, 0].tobytes()
    start = whole.index(values[4:-4])
    rng = random.Random(2)
    for _ in range(20):
        damaged = bytearray(whole)
        damaged[start + rng.randrange(len(values) - 8)] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(DatasetError, match="damaged at solution"):
            open_dataset(copied, verify=False).load("train")


@pytest.mark.parametrize("missing", [1, 500, -1])
def test_a_truncated_file_is_named(copied, capsys, missing):
    path = copied / FILE
    path.write_bytes(path.read_bytes()[:-missing])
    refused(copied, "is damaged: it has")
    code, error = complaints(copied, capsys, "--quick")
    assert code == 1
    assert f"{FILE} is damaged: it has" in error


def test_a_missing_file_is_named_and_can_be_made_again(copied, capsys):
    (copied / FILE).unlink()
    refused(copied, "is missing")
    code, error = complaints(copied, capsys)
    assert code == 1
    assert f"{FILE} is missing; delete it and" in error
    assert main(["generate", "--out", str(copied)]) == 1  # it still has its record
    (copied / "ledger/train-00000.json").unlink()  # as the message says
    assert main(["generate", "--out", str(copied)]) == 0
    assert complaints(copied, capsys) == (0, "")


def test_swapped_files_are_named(copied, capsys):
    # Equal sizes would fool a check of sizes; the hash tells whose content it is.
    one, other = copied / FILE, copied / "data/test/tiny-00000.hdf5"
    contents = one.read_bytes(), other.read_bytes()
    one.write_bytes(contents[1])
    other.write_bytes(contents[0])
    refused(copied, "holds the content of data/test/tiny-00000.hdf5")
    error = complaints(copied, capsys)[1]
    assert "holds the content of data/test" in error
    assert "holds the content of data/train" in error


def test_a_swapped_file_is_found_without_hashes(copied):
    with pytest.raises(well.ShardError, match="shard_id is 'test-00000'"):
        well.inspect(
            copied / "data/test/tiny-00000.hdf5",
            plan_sha256=json.loads((copied / "plan.json").read_text())["plan_sha256"],
            shard_id="train-00000",
            sample_ids=np.arange(4),
        )


def test_an_edited_plan_is_named(copied, capsys):
    path = copied / "plan.json"
    plan = json.loads(path.read_text())
    plan["config"]["seed"] += 1
    path.write_text(json.dumps(plan))
    code, error = complaints(copied, capsys)
    assert code == 1
    assert "plan.json was edited" in error


def test_an_edited_order_is_named(copied, capsys):
    np.save(copied / "order.npy", np.arange(11)[::-1])
    code, error = complaints(copied, capsys)
    assert code == 1
    assert "order.npy is not the one" in error


def test_a_plan_edited_with_its_hash_does_not_fit_the_files(copied, capsys):
    from datagen.plan import plan_sha256

    path = copied / "plan.json"
    plan = json.loads(path.read_text())
    plan["config"]["seed"] += 1
    plan["plan_sha256"] = plan_sha256(plan)
    path.write_text(json.dumps(plan))
    code, error = complaints(copied, capsys)
    assert code == 1
    assert "belongs to another plan" in error


def test_changed_statistics_and_stray_files_are_named(copied, capsys):
    text = (copied / "stats.yaml").read_text()
    (copied / "stats.yaml").write_text(text.replace("mean:", "mean: "))
    (copied / "data/train/copy.hdf5").write_bytes(b"")
    code, error = complaints(copied, capsys)
    assert code == 1
    assert "stats.yaml was changed" in error
    assert "copy.hdf5 is not in the plan" in error


def test_an_outlier_written_with_all_checksums_of_its_file_is_found(copied, capsys):
    """Rewrites a value through HDF5, so that only the recorded hashes are left."""
    import h5py

    with h5py.File(copied / FILE, "r+") as file:
        file["t0_fields/solution"][0, 0, 4, 4] = 1e7
    refused(copied, "is damaged")
    assert complaints(copied, capsys)[0] == 1


def test_verify_before_the_end_says_unfinished(copied, capsys):
    (copied / "manifest.json").unlink()
    code, error = complaints(copied, capsys)
    assert code == 1
    assert "unfinished" in error
