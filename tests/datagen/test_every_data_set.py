"""Every data config can be generated, by its own method and by recycled GMRES."""

from pathlib import Path

import numpy as np
import pytest

from configs import loading
from datagen.cli import main
from datagen.storage.read import open_dataset

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(p.stem for p in (ROOT / "configs/data").glob("[!_]*.py"))
FAST = ("darcy_smooth", "helmholtz")
LINEAR = [  # the others are integrated in time
    name
    for name in CONFIGS
    if "scheme" not in loading.load(f"{ROOT}/configs/data/{name}.py:quick").solver
]


def by_speed(names):
    return [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in names]


def generate(name, root, *changes):
    command = ["generate", "--config", f"configs/data/{name}.py:quick", "--out"]
    command += [str(root), "--config.splits.train=3", "--config.splits.valid=0"]
    command += ["--config.splits.test=1", *changes]
    assert main(command) == 0
    return open_dataset(root)


def fields(dataset, split):
    names = tuple(field["name"] for field in dataset.manifest["fields"])
    steps = tuple(range(len(dataset.steps)))
    return dataset.load(split, inputs=names, outputs=(), steps=steps).x


@pytest.mark.parametrize("name", by_speed(LINEAR))
def test_skr_makes_the_same_data_as_a_direct_solver(name, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    direct = generate(name, tmp_path / "direct", "--config.solver.method=direct")
    skr = generate(name, tmp_path / "skr", "--config.solver.method=skr")
    assert skr.manifest["solver"]["ordering"] == "greedy"
    assert skr.manifest["ladder"] == {"planned": 4}
    assert skr.manifest["true_residual"]["max"] <= 1e-7
    loaded = skr.load("test", steps=-1)
    assert loaded.x.shape[-1] + loaded.y.shape[-1] == len(skr.manifest["fields"])
    for split in ("train", "test"):
        ours, theirs = fields(skr, split), fields(direct, split)
        axes = tuple(range(1, ours.ndim - 1))
        error = np.sqrt(((ours - theirs) ** 2).mean(axes) / (theirs**2).mean(axes))
        assert error[np.isfinite(error)].max() < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_the_named_method_needs_no_fallback(name, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert generate(name, tmp_path / "set").manifest["ladder"] == {"planned": 4}
