"""Weights of neuraloperator's FNO and TFNO, into `operators.models.fno.FNO`."""

from collections.abc import Mapping

import numpy as np

from operators.importers.assignment import (
    Assignment,
    check_kind,
    pointwise,
    put_norm,
)
from operators.layers.pointwise import Pointwise, SoftGating
from operators.layers.spectral_weights import CPWeights, TuckerWeights
from operators.models.fno import FNO

NORMS = ("none", "instance", "group", "batch")


def load(model: FNO, state: Mapping[str, np.ndarray]) -> FNO:
    """Sets the parameters of `model` to those of an official module.

    Reads `neuralop.models.FNO` and `TFNO` of neuraloperator 2.0 with dense, Tucker, CP
    or separable weights; its layout is "neuralop" and its norm "none", "instance",
    "group" or "batch". On grids with even numbers of points both then give the same
    output; on odd ones the official module of version 2.0.0 moves every mode by one.
    Without channel MLP it activates twice per layer; such models are refused.

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
    _put_mlp(plan, model.lifting, "lifting")
    # Its class of batch norm wraps that of PyTorch.
    inner = ".norm" if model.norm == "batch" else ""
    for k, block in enumerate(model.blocks):
        _put_spectral(plan, block.spectral, f"fno_blocks.convs.{k}")
        _put_skip(plan, block.skip, f"fno_blocks.fno_skips.{k}")
        _put_mlp(plan, block.mlp, f"fno_blocks.channel_mlp.{k}")
        _put_skip(plan, block.mlp_skip, f"fno_blocks.channel_mlp_skips.{k}")
        for i, norm in enumerate(block.norms):
            name = f"fno_blocks.norm.{k * len(block.norms) + i}"
            put_norm(plan, norm, name + inner)
    _put_mlp(plan, model.projection, "projection")
    plan.write(model)
    return model


def _check(model: FNO) -> None:
    check_kind(model, FNO)
    if model.architecture != "neuralop":
        raise ValueError(
            f"the model has architecture {model.architecture!r}; build it with "
            "architecture='neuralop'"
        )
    if not len(model.blocks):
        raise ValueError("the model has num_layers=0; the official module has layers")
    layout = model.blocks[0].spectral.layout
    if layout != "neuralop":
        raise ValueError(
            f"the model has layout {layout!r}; build it with layout='neuralop', whose "
            "modes the official weights belong to"
        )
    if model.blocks[0].mlp is None:
        raise ValueError(
            "the model has no channel MLP (channel_mlp_expansion 0); the official one "
            "then activates twice after each layer, which ours does not do"
        )
    if model.norm not in NORMS:
        raise ValueError(
            f"the model has norm {model.norm!r}; this importer knows {', '.join(NORMS)}"
        )


def _put_spectral(plan, layer, name):
    plan.put(layer.bias, f"{name}.bias", lambda w: w.reshape(len(w)))
    weights = layer.weights
    if isinstance(weights, TuckerWeights | CPWeights):
        if isinstance(weights, TuckerWeights):
            plan.put_complex(weights.core, f"{name}.weight.core")
        else:
            plan.put_complex(weights.scale, f"{name}.weight.weights")
        for i, factor in enumerate(weights.factors):
            plan.put_complex(factor, f"{name}.weight.factors.factor_{i}")
        return
    channels = 1 if weights.separable else 2  # leading axes there, trailing ones here

    def channels_last(w):
        return np.moveaxis(w, tuple(range(channels)), tuple(range(-channels, 0)))

    plan.put_complex(weights, f"{name}.weight.tensor", channels_last)


def _put_skip(plan, skip, name):
    if isinstance(skip, Pointwise):
        plan.put(skip.kernel, f"{name}.conv.weight", pointwise)
    elif isinstance(skip, SoftGating):
        plan.put(skip.weight, f"{name}.weight", lambda w: w.reshape(w.shape[1]))


def _put_mlp(plan, mlp, name):
    for k, layer in enumerate((mlp.inner, mlp.outer)):
        plan.put(layer.kernel, f"{name}.fcs.{k}.weight", pointwise)
        plan.put(layer.bias, f"{name}.fcs.{k}.bias")
