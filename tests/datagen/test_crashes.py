"""A run that is killed anywhere goes on and ends with the same bytes."""

import json
import os
import random
import socket
import subprocess
import sys
import time
from pathlib import Path

import h5py
import pytest

from datagen.cli import main
from datagen.storage.commit import FAULT_EXIT_CODE, STEPS
from tests.datagen.conftest import file_hashes

SCRIPT = Path(__file__).with_name("crashes.py")
OTHER_KINDS = ("order", "plan", "stats", "README", "manifest", "checksums")


def crash(attempts):
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, (SCRIPT.parents[2], *sys.path[:1]))),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    result = subprocess.run(
        [sys.executable, str(SCRIPT)],
        input=json.dumps(attempts),
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    return json.loads(result.stdout)


def check_faults(faults, config_file, finished, tmp_path):
    attempts = []
    for i, fault in enumerate(faults):
        out = str(tmp_path / str(i))
        arguments = ["generate", "--config", config_file, "--out", out]
        attempts += [{"arguments": arguments, "fault": fault}, {"arguments": arguments}]
    codes = crash(attempts)
    assert codes == [FAULT_EXIT_CODE, 0] * len(faults)
    for i in range(len(faults)):
        root = tmp_path / str(i)
        assert file_hashes(root) == file_hashes(finished), faults[i]
        assert not list((root / "staging").iterdir()), faults[i]
        assert main(["verify", "--out", str(root)]) == 0


@pytest.mark.parametrize(
    ("kind", "steps"),
    [
        ("shard", STEPS),
        ("ledger", STEPS[::3]),
        pytest.param("ledger", STEPS, marks=pytest.mark.slow),
    ],
)
def test_dying_at_any_step_of_a_commit_heals(
    kind, steps, config_file, finished, tmp_path
):
    faults = [f"{kind}:{step}" for step in steps]
    check_faults(faults, config_file, finished, tmp_path)


@pytest.mark.slow
def test_dying_while_describing_heals(config_file, finished, tmp_path):
    # All steps are the same code for all kinds; two of them for each.
    faults = [
        f"{kind}:{STEPS[(number + shift) % len(STEPS)]}"
        for number, kind in enumerate(OTHER_KINDS)
        for shift in (0, 4)
    ]
    check_faults(faults, config_file, finished, tmp_path)


def check_kills(num_kills, config_file, tmp_path):
    def arguments(name):
        out = str(tmp_path / name)
        return ["generate", "--config", f"{config_file}:long", "--out", out]

    start = time.monotonic()
    assert crash([{"arguments": arguments("whole")}]) == [0]
    longest = (time.monotonic() - start) / 2
    rng = random.Random(0)
    attempts = [
        {"arguments": arguments("killed"), "kill_after": rng.uniform(0.05, longest / 4)}
        for _ in range(num_kills)
    ]
    codes = crash(attempts)
    killed = tmp_path / "killed"
    for path in killed.glob("data/*/*"):  # never a file that cannot be read
        with h5py.File(path) as file:
            assert file.attrs["complete"]
    assert -9 in codes
    assert crash([{"arguments": arguments("killed")}]) == [0]
    assert file_hashes(killed) == file_hashes(tmp_path / "whole")
    assert main(["verify", "--out", str(killed)]) == 0


@pytest.mark.slow
def test_sigkill_at_random_times(config_file, tmp_path):
    check_kills(4, config_file, tmp_path)


def test_two_runs_in_one_folder_are_harmless(config_file, finished, tmp_path):
    command = [sys.executable, "-m", "datagen", "generate", "--config", config_file]
    command += ["--out", str(tmp_path / "both")]
    runs = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for _ in range(2)
    ]
    outputs = [run.communicate()[0].decode() for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    assert file_hashes(tmp_path / "both") == file_hashes(finished)


def test_a_file_without_a_record_is_adopted(copied, finished):
    (copied / "ledger/train-00001.json").unlink()
    assert main(["generate", "--out", str(copied)]) == 0
    record = json.loads((copied / "ledger/train-00001.json").read_text())
    assert record["adopted"]
    assert file_hashes(copied) == file_hashes(finished)


def test_a_damaged_file_without_a_record_is_made_again(copied, finished):
    (copied / "ledger/train-00001.json").unlink()
    path = copied / "data/train/tiny-00001.hdf5"
    path.write_bytes(path.read_bytes()[:3000])
    assert main(["generate", "--out", str(copied)]) == 0
    assert file_hashes(copied) == file_hashes(finished)
    assert len(list((copied / "quarantine").glob("*.damaged"))) == 1
    assert not json.loads((copied / "ledger/train-00001.json").read_text())["adopted"]


def test_a_torn_record_counts_as_none(copied, finished):
    (copied / "ledger/train-00001.json").write_text('{"shard": "tr')
    assert main(["generate", "--out", str(copied)]) == 0
    assert main(["verify", "--out", str(copied)]) == 0
    assert file_hashes(copied) == file_hashes(finished)


@pytest.mark.parametrize(
    "name", ["stats.yaml", "README.md", "manifest.json", "checksums.sha256"]
)
def test_what_is_missing_of_the_description_is_written_again(name, copied, finished):
    (copied / name).unlink()
    left_behind = copied / f"staging/{name}.{socket.gethostname()}.{2**22 + 1}.0.tmp"
    left_behind.touch()
    assert main(["generate", "--out", str(copied)]) == 0
    assert not left_behind.exists()
    assert main(["verify", "--out", str(copied)]) == 0
    assert file_hashes(copied) == file_hashes(finished)
