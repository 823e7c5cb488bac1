"""A small data set, made once, and what the tests of jobs and files share."""

import hashlib
import shutil
from pathlib import Path

import pytest

from datagen.cli import main

CONFIG = """
import ml_collections

from configs import common


def get_config(variant="full"):
    if variant not in ("full", "long"):
        raise ValueError(f"unknown variant {variant!r}; known: full, long")
    config = ml_collections.ConfigDict()
    config.name = "tiny"
    config.seed = 5
    train = 6 if variant == "full" else 40
    config.splits = {"train": train, "valid": 2, "test": 3}
    config.shard_size = 4
    config.problem = {"name": "darcy", "n": 9 if variant == "full" else 65}
    config.solver = common.solver("direct")
    config.storage = {"dtype": "float32"}
    return config.lock()
"""
NUM_FILES = 4  # of the data set above: train 4 + 2, valid 2, test 3


def file_hashes(root: Path) -> dict[str, str]:
    """SHA-256 of the data files and of what describes the data, by path."""
    paths = sorted([*root.glob("data/*/*"), root / "order.npy", root / "stats.yaml"])
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
    }


@pytest.fixture(scope="session")
def config_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "tiny.py"
    path.write_text(CONFIG)
    return str(path)


@pytest.fixture(scope="session")
def finished(config_file, tmp_path_factory):
    """A finished data set, not to be changed."""
    root = tmp_path_factory.mktemp("finished") / "tiny"
    assert main(["generate", "--config", config_file, "--out", str(root)]) == 0
    return root


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of it that a test may damage."""
    root = tmp_path / "tiny"
    shutil.copytree(finished, root)
    for path in root.rglob("*"):
        if path.is_file():
            path.chmod(0o644)
    return root
