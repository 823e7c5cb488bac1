"""Benchmarks against the official PyTorch modules; what needs PyTorch is slow."""

import json
import subprocess
import sys

import jax
import pytest
from flax import nnx

from benchmarks import peers, training_step
from operators import models
from operators.models import presets


def test_full_cases_are_the_official_configurations():
    cases = training_step.cases(quick=False)
    model = nnx.eval_shape(
        lambda: models.create(rngs=nnx.Rngs(0), **cases["fno_li2021"].hparams)
    )
    leaves = jax.tree.leaves(nnx.state(model, nnx.Param))
    assert sum(leaf.size for leaf in leaves) == 2_368_001
    for name in ("navier_stokes", "helmholtz"):
        official = dict(presets.get(f"mgno_{name}").hparams)
        official.pop("unused_first_A", None)  # never acts
        ours = cases[f"mgno_{name}"].hparams
        ours = {key: value for key, value in ours.items() if key in official}
        # Lists and tuples are the same here.
        assert json.loads(json.dumps(ours)) == json.loads(json.dumps(official)), name


def test_losses_decide_what_is_accepted():
    def runs(*losses):
        return [{"loss": loss} for loss in losses]

    same = training_step._agreement(runs(1, 2, 3, 4), runs(1, 2, 3, 5))
    assert same["accepted"]  # only the first three steps count
    assert same["loss_difference"] == 0
    for losses in ((1.001, 2, 3, 4), (1, 2.01, 3, 4), (1, 2, 3.01, 4)):
        assert not training_step._agreement(runs(*losses), runs(1, 2, 3, 4))["accepted"]


def test_missing_environment_says_how_to_build_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"uv run -m benchmarks\.peers --torch"):
        peers.PeerProcess(tmp_path / "python", worker="torch_worker")
    with pytest.raises(FileNotFoundError, match=r"uv run -m benchmarks\.peers`"):
        peers.PeerProcess(tmp_path / "python")


@pytest.mark.slow
@pytest.mark.skipif(
    not (peers.TORCH_FOLDER / "bin" / "python").exists(),
    reason="needs .venv-torch: uv run -m benchmarks.peers --torch",
)
def test_training_step_command_gives_the_losses_of_the_official_module(tmp_path):
    path = tmp_path / "out.json"
    command = [sys.executable, "-m", "benchmarks.training_step", "--quick"]
    command += ["--case", "fno_neuralop", "--case", "lsm", "--num", "2"]
    done = subprocess.run(
        [*command, "--json", path], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "lsm: left out, needs --lsm CHECKOUT" in done.stdout
    rows = json.loads(path.read_text())["rows"]
    assert [row["method"] for row in rows] == ["ours", "torch"]
    for row in rows:
        assert row["accepted"], row
        assert row["first_loss"] == pytest.approx(rows[1]["first_loss"], rel=1e-6)
        assert row["ratio_to_best_peer"] == pytest.approx(
            rows[1]["seconds"] / row["seconds"]
        )
