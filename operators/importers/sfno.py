"""Weights of the released Spectral-Refiner model, into `operators.models.sfno.SFNO`."""

from collections.abc import Mapping

import numpy as np

from operators.importers.assignment import (
    Assignment,
    check_kind,
    join_corners,
    put_norm,
    put_pointwise,
)
from operators.models.sfno import SFNO

CORNERS = 4


def load(model: SFNO, state: Mapping[str, np.ndarray]) -> SFNO:
    """Sets the parameters of `model` to those of the released module.

    Reads `SFNO` of fno/sfno.py of github.com/scaomath/torch-cfd (commit 475c738).

    Args:
        model: built with compat=True and the settings of the module; changed in place.
        state: `module.state_dict()` as arrays, see `assignment.read_state`.

    Returns:
        `model`.

    Raises:
        ValueError: if an array is missing, left over or has the wrong shape or dtype,
            or the model has another class; it is unchanged then.
    """
    check_kind(model, SFNO)
    plan, lifting = Assignment(state), "lifting_operator"
    if model.encoding.mixing is not None:
        put_pointwise(plan, model.encoding.mixing, f"{lifting}.pe.proj")
    put_norm(plan, model.norm, f"{lifting}.norm")
    put_pointwise(plan, model.projection, f"{lifting}.proj")
    _put_corners(plan, model.lifting.weights, f"{lifting}.sconv.weight")
    if model.lift_activation:
        _put_mlp(plan, model.lifting_map, f"{lifting}.mlp")
    else:
        put_pointwise(plan, model.lifting_map, f"{lifting}.mlp")
    for k, block in enumerate(model.blocks):
        _put_corners(plan, block.spectral.weights, f"spectral_conv.{k}.weight")
        _put_mlp(plan, block.mlp, f"mlp.{k}")
        put_pointwise(plan, block.skip, f"w.{k}")
    put_pointwise(plan, model.reduction, "reduction")
    _put_corners(plan, model.output.weights, "output_operator.conv.weight")
    _put_corners(plan, model.output.bias, "output_operator.conv.bias", bias=True)
    plan.write(model)
    return model


def _put_mlp(plan, mlp, name):
    put_pointwise(plan, mlp.inner, f"{name}.linear1")
    put_pointwise(plan, mlp.outer, f"{name}.linear2")


def _put_corners(plan, parts, name, bias=False):
    """Real and imaginary parts stand side by side on the last axis of the corners."""
    names = [f"{name}.{i}" for i in range(CORNERS)]
    for position, part in enumerate(("real", "imag")):

        def convert(*corners, position=position):
            taken = [c[..., position] for c in corners]
            if not bias:
                return join_corners(*taken)
            # One number per mode, whatever the channels.
            return join_corners(*(c[None, None] for c in taken))[..., 0]

        plan.put(getattr(parts, part), names, convert)
