"""Weights of the FNO scripts of 2020 and 2021, into `operators.models.fno.FNO`."""

from collections.abc import Mapping

import numpy as np

from operators.importers.assignment import (
    Assignment,
    check_kind,
    join_corners,
    put_norm,
    put_pointwise,
)
from operators.layers.spectral_weights import DenseWeights
from operators.models.fno import FNO


def load(model: FNO, state: Mapping[str, np.ndarray]) -> FNO:
    """Sets the parameters of `model` to those of an official module.

    Reads `FNO1d`, `FNO2d` and `FNO3d` of zongyi-li/fourier_neural_operator, with or
    without batch norm. Coordinates of those models include the right end of the domain
    (endpoint=True), and they pad by a number of points: 9 points after each axis are
    domain_padding = 10 / (n - 1) here.

    Args:
        model: built with the settings of the official module; changed in place.
        state: `module.state_dict()` as arrays, see `assignment.read_state`.

    Returns:
        `model`.

    Raises:
        ValueError: if an array is missing, left over or has the wrong shape or dtype,
            or the model is none of these; it is unchanged then.
    """
    _check(model)
    plan = Assignment(state)
    put_pointwise(plan, model.lifting, "fc0")
    corners = 2 ** (model.num_axes - 1)
    for k, block in enumerate(model.blocks):
        names = [f"conv{k}.weights{i + 1}" for i in range(corners)]
        plan.put_complex(block.spectral.weights, names, join_corners)
        put_pointwise(plan, block.skip, f"w{k}", "skip='linear'")
        put_norm(plan, block.norms[0], f"bn{k}")
    put_pointwise(plan, model.projection.inner, "fc1")
    put_pointwise(plan, model.projection.outer, "fc2")
    plan.write(model)
    return model


def _check(model: FNO) -> None:
    check_kind(model, FNO)
    if not len(model.blocks):
        raise ValueError("the model has num_layers=0; the official module has layers")
    layouts = {block.spectral.layout for block in model.blocks}
    if model.architecture != "li2021" or layouts != {"li2021"}:
        raise ValueError(
            f"the model has architecture {model.architecture!r} and layout "
            f"{', '.join(map(repr, layouts))}; build it with 'li2021' for both"
        )
    weights = [block.spectral.weights for block in model.blocks]
    if not all(isinstance(w, DenseWeights) and not w.separable for w in weights):
        raise ValueError(
            f"the model has separable weights or {type(weights[0]).__name__}; build it "
            "with factorization='dense' and separable=False"
        )
    if model.norm not in ("none", "batch"):
        raise ValueError(
            f"the model has norm {model.norm!r}; the official modules have 'batch' or "
            "'none'"
        )
