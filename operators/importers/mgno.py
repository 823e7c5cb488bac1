"""Weights of the released MgNO modules, into `operators.models.mgno.MgNO`."""

from collections.abc import Mapping

import numpy as np

from operators.importers.assignment import (
    Assignment,
    channels_last,
    check_kind,
    convolution,
    put_pointwise,
    transposed_convolution,
)
from operators.layers.multigrid import VCycle
from operators.models.mgno import MgNO


def load(model: MgNO, state: Mapping[str, np.ndarray]) -> MgNO:
    """Sets the parameters of `model` to those of an official module.

    Reads `MgNO_DC`, `MgNO_DC_smooth`, `MgNO_NS` and `MgNO_helm` of
    github.com/xlliu2017/MgNO (commit 3a68a90); the presets have their settings. The
    first A of every Helmholtz cycle never acts: it is dropped unless the model has it.

    Args:
        model: built with the settings of the official module; changed in place.
        state: `module.state_dict()` as arrays, see `assignment.read_state`.

    Returns:
        `model`.

    Raises:
        ValueError: if an array is missing, left over or has the wrong shape or dtype,
            or the model is of another class; it is unchanged then.
    """
    check_kind(model, MgNO)
    plan = Assignment(state)
    for k, cycle in enumerate(model.cycles):
        _put_cycle(plan, cycle, f"conv_list.{k}")
        if model.skips is not None:
            put_pointwise(plan, model.skips[k], f"linear_list.{k}")
        if model.norms is not None:
            _put_norm(plan, model.norms[k], f"norm_layer_list.{k}")
    *hidden, last = model.head
    if isinstance(last, VCycle):
        _put_cycle(plan, last, "last_layer")
    elif hidden:
        put_pointwise(plan, hidden[0], "last_layer.0")
        put_pointwise(plan, last, "last_layer.2")
    else:
        # The Darcy models, which have the pointwise branch, call it otherwise.
        name = "last_layer" if model.skips is None else "linear"
        put_pointwise(plan, last, name)
    plan.write(model)
    return model


def _put_cycle(plan, cycle, prefix):
    for level, steps in enumerate(cycle.pre):
        name = f"{prefix}.layer{level}"
        if level > 0:  # restriction and smoothing steps are numbered together
            plan.put(cycle.Pi[level - 1].kernel, f"{name}.0.Pi.weight", convolution)
            plan.put(cycle.R[level - 1].kernel, f"{name}.0.R.weight", convolution)
            if cycle.A is not None:
                _put_convolution(plan, cycle.A[level - 1], f"{name}.0.A")
        for i, step in enumerate(steps, start=min(level, 1)):
            _put_step(plan, step, f"{name}.{i}")
    for level, steps in enumerate(cycle.post):
        for i, step in enumerate(steps):
            _put_step(plan, step, f"{prefix}.post_smooth_layer{level}.{i}")
    for level, prolongation in enumerate(cycle.P):
        name = f"{prefix}.RTlayers.{level}.weight"
        plan.put(prolongation.kernel, name, transposed_convolution)
    for level, norm in enumerate(() if cycle.norms is None else cycle.norms):
        _put_norm(plan, norm, f"{prefix}.norm_layer_list.{level}")


def _put_step(plan, step, name):
    _put_convolution(plan, step.S, f"{name}.S")
    if step.A is not None:
        _put_convolution(plan, step.A, f"{name}.A")
    else:
        plan.drop(f"{name}.A.weight", f"{name}.A.bias")


def _put_convolution(plan, layer, name):
    plan.put(layer.kernel, f"{name}.weight", convolution)
    if layer.bias is not None:
        plan.put(layer.bias, f"{name}.bias")


def _put_norm(plan, norm, name):
    if norm.scale is not None:
        plan.put(norm.scale, f"{name}.weight", channels_last)
        plan.put(norm.bias, f"{name}.bias", channels_last)
