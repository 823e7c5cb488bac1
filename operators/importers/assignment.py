"""Reads state dicts of PyTorch and writes them into models, with nothing left over."""

import difflib
import os
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from flax import nnx


def read_state(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads a state dict from a file, by array name.

    Args:
        path: an .npz file of arrays, or what `torch.save` wrote of a state dict (.pt,
            .pth; needs PyTorch, and opens nothing but arrays).

    Raises:
        ValueError: if the file is no state dict.
        ImportError: if the file needs PyTorch and it is not installed.
    """
    if str(path).endswith(".npz"):
        with np.load(path) as file:
            return dict(file)
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"{path} needs PyTorch to be read; install torch here, or save the state "
            "dict as .npz where it is: numpy.savez(path, **{k: v.numpy() for k, v in "
            "state.items()})"
        ) from error
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} holds more than arrays, as the files of neuraloperator do under "
            "'_metadata'; where you trust it, load it with weights_only=False, drop "
            "that entry and save the rest with numpy.savez"
        ) from error
    arrays = {k: v for k, v in state.items() if isinstance(v, torch.Tensor)}
    # neuraloperator adds the arguments of the constructor under this name.
    if others := [k for k in state if k not in arrays and k != "_metadata"]:
        raise ValueError(
            f"{path} is no state dict: {', '.join(map(repr, others[:5]))} hold no "
            "arrays; save `module.state_dict()` alone"
        )
    return {name: value.detach().numpy() for name, value in arrays.items()}


class Assignment:
    """Collects which array goes where; `write` checks everything before it writes.

    Args:
        state: arrays of the official module by name.
    """

    def __init__(self, state: Mapping[str, np.ndarray]):
        self._state, self._used = dict(state), set()
        self._values: list[tuple[nnx.Variable, np.ndarray]] = []

    def put(
        self,
        variable: nnx.Variable,
        names: str | Sequence[str],
        convert: Callable[..., np.ndarray] = np.asarray,
    ) -> None:
        """Plans to set a variable to `convert` of one named array, or of several.

        Raises:
            ValueError: if there is no such array, or its shape does not fit.
        """
        names = (names,) if isinstance(names, str) else tuple(names)
        arrays = [self._take(name) for name in names]
        found = zip(names, arrays, strict=True)
        what = " and ".join(f"{name!r} of shape {a.shape}" for name, a in found)
        try:
            value = convert(*arrays)
        except (ValueError, IndexError) as error:
            raise ValueError(f"{what} has the wrong number of axes") from error
        if value.shape != variable.shape:
            raise ValueError(
                f"{what} becomes {value.shape} in our order of axes, but the model has "
                f"{variable.shape} there; build the model with the settings of the "
                "official one"
            )
        self._values.append((variable, value))

    def _take(self, name: str) -> np.ndarray:
        if name not in self._state:
            close = difflib.get_close_matches(name, self._state, n=1)
            hint = f" (it has {close[0]!r})" if close else ""
            raise ValueError(
                f"the state dict has no {name!r}{hint}, which the model needs; build "
                "the model with the settings of the official one"
            )
        self._used.add(name)
        return np.asarray(self._state[name])

    def drop(self, *names: str) -> None:
        """Leaves arrays out that mean nothing here, if they are there."""
        self._used.update(names)

    def write(self, model: nnx.Module) -> None:
        """Sets the variables of `model`, which `nnx.eval_shape` may have built.

        Raises:
            ValueError: if an array is left over, or a parameter or batch statistic of
                the model would keep its value.
        """
        if left := sorted(set(self._state) - self._used):
            raise ValueError(
                f"the model has no place for {len(left)} arrays of the state dict: "
                f"{_some(left)}; build it with the settings of the official one"
            )
        planned = {id(variable) for variable, _ in self._values}
        missing = [path for path, v in variables(model) if id(v) not in planned]
        if missing:
            raise ValueError(
                f"the state dict says nothing about {len(missing)} parameters of the "
                f"model: {_some(missing)}"
            )
        for variable, value in self._values:
            variable.set_value(jnp.asarray(value, variable.dtype))


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def variables(model: nnx.Module) -> Iterator[tuple[str, nnx.Variable]]:
    """Parameters and batch statistics of a model with their paths."""
    for path, node in nnx.iter_graph(model):
        if isinstance(node, nnx.Param | nnx.BatchStat):
            yield ".".join(map(str, path)), node


def pointwise(array: np.ndarray) -> np.ndarray:
    """[out, in] or [out, in, 1, ...] of a linear layer or a 1 x 1 convolution."""
    return array.reshape(array.shape[0], array.shape[1]).T


def convolution(array: np.ndarray) -> np.ndarray:
    """[out, in, k1, ...] of a convolution, to [k1, ..., in, out]."""
    return np.moveaxis(array, (1, 0), (-2, -1))


def transposed_convolution(array: np.ndarray) -> np.ndarray:
    """[in, out, k1, ...] of a transposed convolution, to [k1, ..., in, out]."""
    return np.moveaxis(array, (0, 1), (-2, -1))


def channels_last(array: np.ndarray) -> np.ndarray:
    """[channels, n1, ...] to [n1, ..., channels]."""
    return np.moveaxis(array, 0, -1)


def join_corners(*corners: np.ndarray) -> np.ndarray:
    """Corners [in, out, m, ...] of the spectrum as one array [2 m, ..., m, in, out].

    The corners differ in the sign of the leading frequencies; that of the first axis
    changes fastest, and positive frequencies come first.
    """
    axis = 2
    while len(corners) > 1:
        pairs = zip(corners[0::2], corners[1::2], strict=True)
        corners = [np.concatenate([low, high], axis) for high, low in pairs]
        axis += 1
    return np.moveaxis(corners[0], (0, 1), (-2, -1))


def put_pointwise(plan: Assignment, layer, name: str) -> None:
    """Plans kernel and bias of a linear layer or a 1 x 1 convolution."""
    plan.put(layer.kernel, f"{name}.weight", pointwise)
    if layer.bias is not None:
        plan.put(layer.bias, f"{name}.bias")


def put_complex(plan: Assignment, parts, names, convert=np.asarray) -> None:
    """Plans `real` and `imag` of an object from one or several complex arrays."""
    plan.put(parts.real, names, lambda *arrays: convert(*arrays).real)
    plan.put(parts.imag, names, lambda *arrays: convert(*arrays).imag)
