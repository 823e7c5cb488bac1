"""Reads state dicts of PyTorch from files; needs neither JAX nor the official code."""

import os
import pickle
import zipfile
import zlib
from collections.abc import Mapping

import numpy as np

# Classes and functions that neuraloperator names among a model's settings, below
# '_metadata' of its state dicts. They are read as names and never called.
SETTINGS = ("neuralop.", "torch._C._nn.", "torch.nn.functional.")


def read_state(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads a state dict from a file, by array name.

    Numbers in bfloat16 become float32. PyTorch opens nothing but arrays here; the
    settings that neuraloperator adds to its state dicts are left out. PyTorch before
    2.6 cannot leave them out; save without them there:
    torch.save({k: v for k, v in state.items() if k != "_metadata"}, path).

    Args:
        path: an .npz file of arrays, or what `torch.save` wrote of a state dict (.pt,
            .pth; needs PyTorch).

    Raises:
        ValueError: if the file is no state dict.
        ImportError: if the file needs PyTorch and it is not installed.
    """
    if str(path).endswith(".npz"):
        return _read_npz(path)
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"{path} needs PyTorch to be read; install torch here, or save the state "
            "dict as .npz where it is: numpy.savez(path, **{k: v.numpy() for k, v in "
            "state.items()})"
        ) from error
    state = _check(path, _read_torch(path, torch), torch.Tensor)
    return {k: _array(path, k, v, torch) for k, v in state.items()}


def _read_npz(path) -> dict[str, np.ndarray]:
    try:
        # Opened here: of a broken archive NumPy leaves the file open.
        with open(path, "rb") as file, np.load(file) as arrays:
            state = dict(arrays)
    except (ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{path} is damaged or no .npz file of numbers; write it with "
            "numpy.savez(path, **arrays)"
        ) from error
    return _check(path, state, np.ndarray)


class _Setting:
    """Stands for a class or function whose name alone is in a file."""


def _read_torch(path, torch):
    """What the file holds; objects other than arrays are refused by name."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except (AttributeError, ValueError, RuntimeError):
        names = []  # an old PyTorch or format: `load` below refuses what it must
    if others := [name for name in names if not name.startswith(SETTINGS)]:
        raise ValueError(
            f"{path} is no state dict: it holds objects of {_some(others)}, which are "
            "not opened; save `module.state_dict()` alone"
        )
    options = {"map_location": "cpu", "weights_only": True}
    try:
        if not names:
            return torch.load(path, **options)
        known = [(_Setting, name) for name in names]
        with torch.serialization.safe_globals(known):
            return torch.load(path, **options)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} holds objects that are no arrays, or was not written by "
            "torch.save; save `module.state_dict()` alone, without '_metadata'"
        ) from error
    except (EOFError, LookupError, ValueError, TypeError, RuntimeError) as error:
        raise ValueError(
            f"{path} is empty, damaged or not written by torch.save; save "
            "`module.state_dict()` with torch.save"
        ) from error


def _check(path, state, kind: type) -> dict:
    """The arrays by name.

    Raises:
        ValueError: if there is anything else, or nothing.
    """
    if not isinstance(state, Mapping):
        raise ValueError(
            f"{path} is no state dict: it holds one {type(state).__name__}; save "
            "`module.state_dict()`"
        )
    # neuraloperator adds the arguments of the constructor under this name.
    state = {name: value for name, value in state.items() if name != "_metadata"}
    if not state:
        raise ValueError(
            f"{path} holds no arrays; save `module.state_dict()` of a module that has "
            "parameters"
        )
    if numbers := [name for name in state if not isinstance(name, str)]:
        raise ValueError(
            f"{path} is no state dict: {_some(numbers)} are no names; save "
            "`module.state_dict()` alone"
        )
    if others := [name for name, v in state.items() if not isinstance(v, kind)]:
        raise ValueError(
            f"{path} is no state dict: {_some(map(repr, others))} hold no arrays; save "
            "`module.state_dict()` alone"
        )
    return state


def _array(path, name: str, value, torch) -> np.ndarray:
    if value.dtype == torch.bfloat16:  # NumPy has none
        value = value.float()
    try:
        return value.detach().resolve_conj().resolve_neg().numpy()
    except (TypeError, RuntimeError) as error:
        raise ValueError(
            f"{path} holds {name!r} in a form that is no plain array, such as sparse "
            "or quantised; save it dense and in floating point"
        ) from error


def _some(items) -> str:
    names = [str(item) for item in items]
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
