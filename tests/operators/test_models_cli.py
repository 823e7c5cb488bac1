import dataclasses
import os
import pathlib
import re
import subprocess
import sys

import pytest
from flax import nnx

from operators import models
from operators.models import presets
from operators.models.__main__ import main

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = """
import ml_collections

def get_config(variant="full"):
    if variant not in ("full", "small"):
        raise ValueError(f"unknown variant {variant!r}; known: full, small")
    config = ml_collections.ConfigDict()
    config.model = {
        "name": "%s", "in_channels": 1, "out_channels": 1, "grid": (64, 64),
        "channels": 24 if variant == "full" else 4, "num_layers": 4, %s
    }
    config.lock()
    return config
"""


@pytest.fixture
def write(tmp_path):
    def write(name="mgno", extra=""):
        path = tmp_path / "config.py"
        path.write_text(CONFIG % (name, extra))
        return str(path)

    return write


def test_prints_every_parameter_and_the_total(write, capsys):
    assert main(["--config", write()]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["parameter", "shape", "count"]
    counts = [int(line.split()[-1].replace(",", "")) for line in lines[1:-1]]
    assert sum(counts) == 572_661
    assert lines[-1].startswith("mgno: 572,661 parameters (0.57 M")
    assert len({len(line) for line in lines[:-1]}) == 1  # aligned
    assert any(
        "cycles.0.pre.0.0.S.kernel" in line and "3x3x1x24" in line for line in lines
    )


def test_variant_after_a_colon(write, capsys):
    assert main(["--config", write() + ":small"]) == 0
    assert "3x3x1x4" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "extra", "suffix", "message"),
    [
        ("mgmo", "", "", "model is 'mgmo'; known: fno,"),
        ("mgno", '"chanels": 3', "", "'chanels' (did you mean 'channels'?)"),
        ("fno", "", "", "no hyperparameter 'grid'"),
        ("mgno", "", ":tiny", "unknown variant 'tiny'; known: full, small"),
        ("mgno", '"cycle": ((1, 0),) * 9', "", "too small for 9 levels"),
        ("mgno", "oops", "", "is not a config file: "),
    ],
)
def test_errors_are_one_line(write, capsys, name, extra, suffix, message):
    assert main(["--config", write(name, extra) + suffix]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error


def test_missing_file_and_data_config(tmp_path, capsys):
    assert main(["--config", "configs/none.py"]) == 2
    assert "there is no file configs/none.py" in capsys.readouterr().err
    path = tmp_path / "data.py"
    path.write_text("import ml_collections\nget_config = ml_collections.ConfigDict\n")
    assert main(["--config", str(path)]) == 2
    assert "no model section" in capsys.readouterr().err


def test_overrides_change_the_model(write, capsys):
    assert main(["--config", write(), "--config.model.channels=6"]) == 0
    assert "3x3x1x6" in capsys.readouterr().out


def test_preset_prints_the_table_and_compares_with_the_official_count(capsys):
    assert main(["--preset", "fno_darcy"]) == 0
    *table, total, official = capsys.readouterr().out.splitlines()
    assert sum(int(line.split()[-1].replace(",", "")) for line in table[1:]) == 2368001
    assert total.startswith("fno: 2,368,001 parameters (2.37 M, 9.5 MB)")
    assert official.startswith("fno_darcy: 2,368,001 in the official configuration")
    assert "(the same)" in official
    assert "Li et al. (2021)" in official


def test_preset_that_misses_its_count_says_so(capsys, monkeypatch):
    wrong = dataclasses.replace(presets.PRESETS["fno_darcy"], parameters=2_368_000)
    monkeypatch.setitem(presets.PRESETS, "fno_darcy", wrong)
    assert main(["--preset", "fno_darcy"]) == 0
    assert "2,368,000 in the official configuration (NOT" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give one of --config, --preset and --list"),
        (["--preset", "fno_dary"], "preset is 'fno_dary'; known: "),
        (["--list", "--config", "x.py"], "'--config' does not go with --list"),
        (["--presett", "fno_darcy"], "unknown argument '--presett'"),
    ],
)
def test_wrong_arguments_are_one_line(arguments, message, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error


def test_command_lists_models_and_presets():
    result = subprocess.run(
        [sys.executable, "-m", "operators.models", "--list"],
        cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "mgno\n" in result.stdout
    assert "fno\n" in result.stdout
    assert re.search(r"fno_darcy +2,368,001 +Li et al", result.stdout)


def test_create_names_what_is_missing():
    with pytest.raises(
        ValueError, match="'mgno' needs hyperparameter out_channels, grid"
    ):
        models.create("mgno", rngs=nnx.Rngs(0), in_channels=1)
