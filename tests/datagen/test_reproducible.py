"""Bytes are a function of plan and shard, whatever a method carries along."""

from pathlib import Path

import pytest

from datagen.cli import main
from tests.datagen.conftest import file_hashes

ROOT = Path(__file__).parents[2]
CASES = (
    ("heat", ("--config.solver.method=deflated_cg",)),
    ("darcy_rough", ("--config.solver.method=recycled_cg",)),
    ("darcy_rough", ("--config.solver.method=lgmres", "--config.solver.ordering=tree")),
    ("convection_diffusion", ("--config.solver.method=skr",)),
    (
        "convection_diffusion",
        ("--config.solver.method=skr", "--config.solver.ordering=tree"),
    ),
    ("convection_diffusion", ("--config.solver.method=frozen_lu",)),
    ("convection_diffusion", ("--config.solver.method=gcrotmk",)),
    (
        "heat",
        ("--config.solver.method=bicgstab", "--config.solver.guess=projection"),
    ),
    (
        "darcy_smooth",
        (
            "--config.solver.method=cg",
            "--config.solver.guess=projection",
            "--config.solver.ordering=tree",
        ),
    ),
)
IDS = [" ".join((n, *(c.partition("=")[2] for c in changes))) for n, changes in CASES]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "changes"), CASES, ids=IDS)
def test_a_shard_does_not_depend_on_what_was_made_before(
    name, changes, tmp_path, monkeypatch
):
    monkeypatch.chdir(ROOT)
    root = tmp_path / "set"
    command = ["generate", "--config", f"configs/data/{name}.py:quick", "--out"]
    command += [str(root), "--config.splits.train=10", "--config.splits.valid=0"]
    command += ["--config.splits.test=4", "--config.shard_size=5", *changes]
    assert main(command) == 0
    whole = file_hashes(root)
    for shard in ("train-00001", "test-00000"):
        (root / "ledger" / f"{shard}.json").unlink()
        split, number = shard.split("-")
        (file,) = (root / "data" / split).glob(f"*-{number}.hdf5")
        file.unlink()
    assert main(["generate", "--out", str(root)]) == 0
    assert file_hashes(root) == whole
    assert main(["verify", "--out", str(root)]) == 0
