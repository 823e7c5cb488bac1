"""Models by name: what `config.model` names, `create` builds."""

import difflib
import inspect
import math
import numbers
import types
import typing
from collections.abc import Sequence
from typing import Any

from flax import nnx

from operators.layers.correlation import inside_loops as inside_loops  # for training
from operators.models.fno import FNO
from operators.models.lsm import LSM
from operators.models.lsm_irregular import LSMIrregular
from operators.models.mgno import MgNO
from operators.models.sfno import SFNO
from operators.models.unet import UNet
from operators.models.uno import UNO

_MODELS = {
    "fno": FNO,
    "lsm": LSM,
    "lsm_irregular": LSMIrregular,
    "mgno": MgNO,
    "sfno": SFNO,
    "unet": UNet,
    "uno": UNO,
}
# Whole numbers, or entries of tuples of them, that may be 0; all others are positive.
_MAY_BE_ZERO = (
    "coarsest", "code_channels", "embedding_channels", "lifting_hidden", "norm_layers",
)  # fmt: skip


def names() -> list[str]:
    """Names of the models, sorted."""
    return sorted(_MODELS)


def hyperparameters(name: str) -> dict[str, inspect.Parameter]:
    """Keyword arguments of the model called `name`, without `rngs`.

    Raises:
        ValueError: for an unknown name.
    """
    if name not in _MODELS:
        raise ValueError(f"model is {name!r}; known: {', '.join(names())}")
    parameters = dict(inspect.signature(_MODELS[name].__init__).parameters)
    return {k: p for k, p in parameters.items() if k not in ("self", "rngs")}


def create(name: str, *, rngs: nnx.Rngs, **hparams: Any) -> nnx.Module:
    """Builds a model, a callable x [batch, n1, n2, in_channels] -> [.., out_channels].

    Args:
        name: one of `names()`.
        rngs: random streams; parameters draw from `params`.
        **hparams: keyword arguments of the model's class, all literals.

    Raises:
        ValueError: for an unknown name, a misspelt or missing hyperparameter, or a
            value that does not fit: of another type than the signature of the model's
            class says, a whole number that is not positive where 0 has no meaning, or
            refused by the class.
    """
    known = hyperparameters(name)
    if unknown := sorted(set(hparams) - set(known)):
        raise ValueError(
            f"model {name!r} has no hyperparameter {', '.join(map(repr, unknown))}"
            f"{_suggestion(unknown[0], known)}; known: {', '.join(known)}"
        )
    missing = [k for k, p in known.items() if p.default is p.empty and k not in hparams]
    if missing:
        raise ValueError(f"model {name!r} needs hyperparameter {', '.join(missing)}")
    for key, value in hparams.items():
        kind, least = known[key].annotation, 0 if key in _MAY_BE_ZERO else 1
        if kind is not inspect.Parameter.empty and not _fits(value, kind, least):
            raise ValueError(
                f"{key} of model {name!r} must be {_describe(kind, least)}, got "
                f"{value!r} ({type(value).__name__})"
            )
    return _MODELS[name](**hparams, rngs=rngs)


def _fits(value: Any, kind: Any, least: float) -> bool:
    """Whether a hyperparameter is what its annotation says, ints `least` or more."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        return any(_fits(value, part, least) for part in parts)
    if origin is tuple:
        if not isinstance(value, tuple | list) or len(value) != len(parts):
            return False
        pairs = zip(value, parts, strict=True)
        return all(_fits(v, part, -math.inf) for v, part in pairs)
    if origin is not Sequence:
        number = {int: numbers.Integral, float: numbers.Real}.get(kind)
        if number is None:
            return isinstance(value, kind)
        fits = isinstance(value, number) and not isinstance(value, bool)
        return fits and (kind is float or value >= least)
    if not isinstance(value, tuple | list):
        return False
    if typing.get_origin(parts[0]) is Sequence:
        # How deep and how large is for the models, which know what the entries mean.
        return all(
            _fits(v, parts[0], -math.inf) for v in value if isinstance(v, tuple | list)
        )
    return all(_fits(v, parts[0], least) for v in value)


def _describe(kind: Any, least: float) -> str:
    """What the values of an annotation are, for a message."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        return " or ".join(_describe(part, least) for part in parts)
    if origin is tuple:
        return "a pair of ints"
    if origin is Sequence:
        nested = typing.get_origin(parts[0]) is Sequence
        entry = _describe(parts[0], -math.inf if nested else least)
        return f"a tuple or list (each entry {entry})"
    names = {int: "an int", float: "a number", bool: "a bool", str: "a string"}
    bound = f" of at least {least}" if kind is int and math.isfinite(least) else ""
    return names[kind] + bound


def _suggestion(word: str, known: dict) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
