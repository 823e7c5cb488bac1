"""Files of state dicts: what is read, and what every other file is told to be."""

import contextlib
import importlib.util
import json
import pathlib
import pickle
import subprocess
import sys
import types

import numpy as np
import pytest

from operators.importers.state_files import read_state

ROOT = pathlib.Path(__file__).parents[2]
PYTHON_OF_PEERS = ROOT / ".venv-torch/bin/python"


def test_states_are_read_from_arrays_in_a_file(tmp_path):
    state = {"a.weight": np.arange(6.0).reshape(2, 3), "b": np.array([1 + 2j])}
    np.savez(tmp_path / "state.npz", **state)
    read = read_state(tmp_path / "state.npz")
    assert set(read) == set(state)
    for name, value in state.items():
        np.testing.assert_array_equal(read[name], value)


@pytest.mark.skipif(
    importlib.util.find_spec("torch") is not None, reason="torch is installed"
)
def test_files_of_torch_say_how_to_be_read_without_torch(tmp_path):
    with pytest.raises(ImportError, match=r"save the state dict as \.npz"):
        read_state(tmp_path / "state.pt")


class Tensor(np.ndarray):
    """What `read_state` asks of a tensor of PyTorch."""

    def same(self):
        return self

    detach = resolve_conj = resolve_neg = same

    def numpy(self):
        return np.asarray(self)


def read_of(monkeypatch, contents, names=()):
    """Reads a file of which PyTorch would say that it holds this."""

    def load(path, map_location, weights_only):
        assert weights_only
        if isinstance(contents, Exception):
            raise contents
        return contents

    serialization = types.SimpleNamespace(
        get_unsafe_globals_in_checkpoint=lambda path: names,
        safe_globals=lambda known: contextlib.nullcontext(),
    )
    torch = types.SimpleNamespace(
        Tensor=Tensor, load=load, serialization=serialization, bfloat16="bfloat16"
    )
    monkeypatch.setitem(sys.modules, "torch", torch)
    return read_state("state.pt")


ONES = np.ones(3).view(Tensor)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ({"a.weight": ONES, "epoch": 5}, "no state dict: 'epoch' hold no arrays"),
        ({0: ONES}, "no state dict: 0 are no names"),
        ({}, "holds no arrays"),
        ([ONES], "holds one list"),
        (ONES, "holds one Tensor"),
        (pickle.UnpicklingError(), "no arrays, or was not written by torch.save"),
        (EOFError(), "is empty, damaged or not written"),
        (KeyError(54), "is empty, damaged or not written"),
        (RuntimeError(), "is empty, damaged or not written"),
    ],
)
def test_files_of_torch_that_are_no_state_dicts_say_what_they_are(
    contents, message, monkeypatch
):
    with pytest.raises(ValueError, match=message):
        read_of(monkeypatch, contents)


def test_files_of_torch_are_read_as_arrays_alone(monkeypatch):
    contents = {"a.weight": ONES, "_metadata": {}}
    names = ["neuralop.layers.spectral_convolution.SpectralConv"]
    assert list(read_of(monkeypatch, contents, names)) == ["a.weight"]
    with pytest.raises(ValueError, match=r"holds objects of posix\.system, which"):
        read_of(monkeypatch, contents, [*names, "posix.system"])


@pytest.mark.parametrize(
    "contents", [b"", b"junk", b"PK\x03\x04", None, {"a": [{}]}, {}]
)
def test_npz_files_without_arrays_are_refused(contents, tmp_path):
    path = tmp_path / "state.npz"
    if isinstance(contents, bytes):
        path.write_bytes(contents)
    elif contents is None:
        with path.open("wb") as file:
            np.save(file, np.ones(3))
    else:
        np.savez(path, **{k: np.array(v, object) for k, v in contents.items()})
    with pytest.raises(ValueError, match=r"holds no arrays|no \.npz file of"):
        read_state(path)


@pytest.mark.slow  # starts PyTorch
@pytest.mark.skipif(not PYTHON_OF_PEERS.exists(), reason="no environment of the peers")
def test_files_that_torch_writes(tmp_path):
    run = subprocess.run(
        [PYTHON_OF_PEERS, "-m", "tests.operators.references.torch_files", tmp_path],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    answers = json.loads(run.stdout.splitlines()[-1])
    expected = {
        "tensor": "holds one Tensor", "list": "holds one list", "none": "no arrays",
        "junk": "empty, damaged or not", "empty": "empty, damaged or not",
        "integers": "0 are no names", "evil": "objects of posix.system",
        "linear": "objects of torch.nn.modules.linear.Linear",
        "bfloat16": [1.5, -2.0], "conjugate": [[1.0, -2.0]], "old": [3.0],
        "sparse": "in a form that is no plain array",
    }  # fmt: skip
    official = answers.pop("official")
    assert official["fno_blocks.norm.3.norm.running_mean"] == [4]
    assert "_metadata" not in official
    assert set(answers) == set(expected)
    for name, value in expected.items():
        assert value == answers[name] or value in answers[name], answers[name]
