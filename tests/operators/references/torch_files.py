"""Writes files with PyTorch and prints what `read_state` says about each, as JSON.

    .venv-torch/bin/python -m tests.operators.references.torch_files FOLDER

A test runs it, since the environment of the models has no PyTorch.
"""

import json
import os
import pathlib
import sys

import numpy as np
import torch
from neuralop.models import FNO

from operators.importers.state_files import read_state


class Evil:
    """Would run a command if it were opened."""

    def __reduce__(self):
        return os.system, ("false",)


def files() -> dict:
    """What to save, by name; bytes are written as they are."""
    return {
        "tensor": torch.ones(3),
        "list": [torch.ones(3)],
        "none": {},
        "junk": b"junk bytes" * 10,
        "empty": b"",
        "integers": {0: torch.ones(2)},
        "linear": torch.nn.Linear(2, 2),
        "evil": {"a": Evil()},
        "bfloat16": {"a": torch.tensor([1.5, -2.0], dtype=torch.bfloat16)},
        "conjugate": {"a": torch.tensor([1 + 2j]).conj()},
        "sparse": {"a": torch.eye(2).to_sparse()},
        "old": {"a": torch.full((1,), 3.0)},
    }


def answer(path: pathlib.Path):
    """Numbers of the array "a", or the error."""
    try:
        array = read_state(path)["a"]
    except ValueError as error:
        return str(error)
    parts = np.stack([array.real, array.imag], -1) if array.dtype.kind == "c" else array
    return parts.tolist()


def main() -> None:
    """Prints one line of JSON."""
    folder, answers = pathlib.Path(sys.argv[1]), {}
    for name, contents in files().items():
        path = folder / f"{name}.pt"
        if isinstance(contents, bytes):
            path.write_bytes(contents)
        else:
            zipped = name != "old"
            torch.save(contents, path, _use_new_zipfile_serialization=zipped)
        answers[name] = answer(path)
    module = FNO(
        n_modes=(4, 4), in_channels=1, out_channels=1, hidden_channels=4, n_layers=2,
        norm="batch_norm",
    )  # fmt: skip
    torch.save(module.state_dict(), folder / "official.pt")
    state = read_state(folder / "official.pt")
    answers["official"] = {name: list(array.shape) for name, array in state.items()}
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
