"""Weights of neuraloperator's FNO and TFNO, into `operators.models.fno.FNO`."""

from collections.abc import Mapping

import numpy as np

from operators.importers.assignment import Assignment, pointwise, put_complex
from operators.layers.pointwise import Pointwise, SoftGating
from operators.layers.spectral_weights import CPWeights, TuckerWeights
from operators.models.fno import FNO


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
        ValueError: if an array is missing, left over or has the wrong shape, or the
            model has another architecture or layout or no channel MLP; the model is
            unchanged then.
    """
    if model.architecture != "neuralop":
        raise ValueError(
            f"the model has architecture {model.architecture!r}; build it with "
            "architecture='neuralop'"
        )
    plan = Assignment(state)
    _put_mlp(plan, model.lifting, "lifting")
    for k, block in enumerate(model.blocks):
        if block.spectral.layout != "neuralop":
            raise ValueError(
                f"the model has layout {block.spectral.layout!r}; build it with "
                "layout='neuralop', whose modes the official weights belong to"
            )
        _put_spectral(plan, block.spectral, f"fno_blocks.convs.{k}")
        _put_skip(plan, block.skip, f"fno_blocks.fno_skips.{k}")
        if block.mlp is None:
            raise ValueError(
                "the model has no channel MLP (channel_mlp_expansion 0); the official "
                "one then activates twice after each layer, which ours does not do"
            )
        _put_mlp(plan, block.mlp, f"fno_blocks.channel_mlp.{k}")
        _put_skip(plan, block.mlp_skip, f"fno_blocks.channel_mlp_skips.{k}")
        for i, norm in enumerate(block.norms):
            name = f"fno_blocks.norm.{k * len(block.norms) + i}"
            put_norm(plan, norm, name)
    _put_mlp(plan, model.projection, "projection")
    plan.write(model)
    return model


def put_norm(plan: Assignment, norm, name: str) -> None:
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


def _put_spectral(plan, layer, name):
    plan.put(layer.bias, f"{name}.bias", lambda w: w.reshape(len(w)))
    weights = layer.weights
    if isinstance(weights, TuckerWeights | CPWeights):
        if isinstance(weights, TuckerWeights):
            put_complex(plan, weights.core, f"{name}.weight.core")
        else:
            put_complex(plan, weights.scale, f"{name}.weight.weights")
        for i, factor in enumerate(weights.factors):
            put_complex(plan, factor, f"{name}.weight.factors.factor_{i}")
        return
    channels = 1 if weights.separable else 2  # leading axes there, trailing ones here

    def channels_last(w):
        return np.moveaxis(w, tuple(range(channels)), tuple(range(-channels, 0)))

    put_complex(plan, weights, f"{name}.weight.tensor", channels_last)


def _put_skip(plan, skip, name):
    if isinstance(skip, Pointwise):
        plan.put(skip.kernel, f"{name}.conv.weight", pointwise)
    elif isinstance(skip, SoftGating):
        plan.put(skip.weight, f"{name}.weight", lambda w: w.reshape(w.shape[1]))


def _put_mlp(plan, mlp, name):
    for k, layer in enumerate((mlp.inner, mlp.outer)):
        plan.put(layer.kernel, f"{name}.fcs.{k}.weight", pointwise)
        plan.put(layer.bias, f"{name}.fcs.{k}.bias")
