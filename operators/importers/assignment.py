"""Writes state dicts of PyTorch into models, with nothing left over."""

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from flax import nnx

from operators.importers.state_files import read_state
from operators.layers.pointwise import Pointwise

__all__ = [
    "Assignment",
    "channels_last",
    "check_kind",
    "convolution",
    "join_corners",
    "pointwise",
    "put_norm",
    "put_pointwise",
    "read_state",
    "transposed_convolution",
    "variables",
]


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
            ValueError: if there is no such array, or its shape or dtype does not fit.
        """
        self._plan(variable, names, convert, "fiu", "real")

    def put_complex(
        self,
        parts,
        names: str | Sequence[str],
        convert: Callable[..., np.ndarray] = np.asarray,
    ) -> None:
        """Plans variables `real` and `imag` of an object from complex arrays.

        Raises:
            ValueError: as `put`.
        """
        for part in ("real", "imag"):

            def take(*arrays, part=part):
                return getattr(convert(*arrays), part)

            self._plan(getattr(parts, part), names, take, "c", "complex")

    def _plan(self, variable, names, convert, kinds: str, expected: str) -> None:
        names = (names,) if isinstance(names, str) else tuple(names)
        arrays = [self._take(name) for name in names]
        found = zip(names, arrays, strict=True)
        what = " and ".join(f"{name!r} of shape {a.shape}" for name, a in found)
        for name, array in zip(names, arrays, strict=True):
            if array.dtype.kind not in kinds:
                raise ValueError(
                    f"{name!r} must hold {expected} numbers, got dtype {array.dtype}; "
                    "save the state dict of the official module as it is"
                )
        try:
            value = convert(*arrays)
        except (ValueError, IndexError, TypeError) as error:
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


def check_kind(model: nnx.Module, kind: type, *others: type) -> None:
    """Checks the class of a model that an importer gets.

    Raises:
        ValueError: if it is not of this kind, or of one of the others derived from it.
    """
    if not isinstance(model, kind) or isinstance(model, others):
        raise ValueError(
            f"model must be of class {kind.__name__}, got {type(model).__name__}; take "
            "the importer of that model"
        )


def put_pointwise(
    plan: Assignment,
    layer: nnx.Module | None,
    name: str,
    settings: str = "the settings of the official one",
) -> None:
    """Plans kernel and bias of a linear layer or a 1 x 1 convolution.

    Args:
        plan: gets the arrays.
        layer: the layer of our model.
        name: name of the official layer.
        settings: those that give our model this layer, for the error.

    Raises:
        ValueError: if our layer is not linear, or an array does not fit.
    """
    if not isinstance(layer, Pointwise):
        ours = "none" if layer is None else f"a {type(layer).__name__}"
        raise ValueError(
            f"the official module has a linear layer {name!r}, but the model has "
            f"{ours} there; build it with {settings}"
        )
    plan.put(layer.kernel, f"{name}.weight", pointwise)
    if layer.bias is not None:
        plan.put(layer.bias, f"{name}.bias")


def put_norm(plan: Assignment, norm: nnx.Module, name: str) -> None:
    """Plans scale, shift and batch statistics of a normalisation, where it has them."""
    for attribute, array in (
        ("scale", "weight"),
        ("bias", "bias"),
        ("mean", "running_mean"),
        ("var", "running_var"),
    ):
        if getattr(norm, attribute, None) is not None:
            plan.put(getattr(norm, attribute), f"{name}.{array}")
    if hasattr(norm, "mean"):
        plan.drop(f"{name}.num_batches_tracked")
