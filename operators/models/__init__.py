"""Models by name: what `config.model` names, `create` builds."""

import difflib
import inspect
from typing import Any

from flax import nnx

from operators.layers.correlation import inside_loops as inside_loops  # for training
from operators.models.fno import FNO
from operators.models.lsm import LSM
from operators.models.lsm_irregular import LSMIrregular
from operators.models.mgno import MgNO
from operators.models.unet import UNet
from operators.models.uno import UNO

_MODELS = {
    "fno": FNO,
    "lsm": LSM,
    "lsm_irregular": LSMIrregular,
    "mgno": MgNO,
    "unet": UNet,
    "uno": UNO,
}


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
            value that does not fit.
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
    return _MODELS[name](**hparams, rngs=rngs)


def _suggestion(word: str, known: dict) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
