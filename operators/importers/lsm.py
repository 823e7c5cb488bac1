"""Weights of the released LSM modules, into `operators.models.lsm.LSM`."""

from collections.abc import Mapping

import numpy as np

from operators.importers.assignment import (
    Assignment,
    check_kind,
    convolution,
    join_corners,
    pointwise,
    put_norm,
    put_pointwise,
)
from operators.models.lsm_irregular import LSMIrregular
from operators.models.unet import UNet


def load(model: UNet, state: Mapping[str, np.ndarray]) -> UNet:
    """Sets parameters and batch statistics of `model` to those of an official module.

    Reads `Model` of LSM_2D.py and LSM_3D.py of github.com/thuml/Latent-Spectral-Models
    (commit d5a0b40); the presets have their settings. The counters of batches that
    PyTorch keeps beside the statistics are left out.

    Args:
        model: built with the settings of the official module; changed in place.
        state: `module.state_dict()` as arrays, see `assignment.read_state`.

    Returns:
        `model`.

    Raises:
        ValueError: if an array is missing, left over or has the wrong shape or dtype,
            or the model has another class or lifting; it is unchanged then.
    """
    check_kind(model, UNet, LSMIrregular)
    plan = Assignment(state)
    put_pointwise(plan, model.lifting, "fc0", "lifting_hidden=0")
    put_backbone(plan, model.backbone)
    put_blocks(plan, getattr(model, "blocks", ()))
    put_pointwise(plan, model.projection.inner, "fc1")
    put_pointwise(plan, model.projection.outer, "fc2")
    plan.write(model)
    return model


def load_irregular(
    model: LSMIrregular,
    state: Mapping[str, np.ndarray],
    deformation: Mapping[str, np.ndarray],
) -> LSMIrregular:
    """Sets parameters and batch statistics to those of the official model on points.

    Reads `Model` and `IPHI` of LSM_Irregular_Geo.py, which the released script keeps as
    two modules. Of the layers of `IPHI` for shapes with and without a code the one that
    the model does not use is left out. Equal outputs need geofno_compat=True.

    Args:
        model: built with the settings of the official module; changed in place.
        state: state dict of `Model`, see `assignment.read_state`.
        deformation: state dict of `IPHI`.

    Returns:
        `model`.

    Raises:
        ValueError: if an array is missing, left over or has the wrong shape or dtype,
            or the model has another class or lifting; it is unchanged then.
    """
    check_kind(model, LSMIrregular)
    arrays = dict(state) | {f"iphi.{name}": a for name, a in deformation.items()}
    plan = Assignment(arrays)
    put_pointwise(plan, model.lifting, "fc0", "lifting_hidden=0")
    put_backbone(plan, model.backbone)
    put_blocks(plan, model.blocks)
    for direction, layer in (("in", model.spectral_in), ("out", model.spectral_out)):
        names = [f"fftproject_{direction}.weights{i}" for i in (1, 2)]
        plan.put_complex(layer.weights, names, join_corners)
    skips = ("in", model.grid_skip), ("out", model.point_skip)
    for direction, layer in skips:
        put_pointwise(plan, layer, f"convproject_{direction}", "coordinate_skips=True")
    put_pointwise(plan, model.projection.inner, "fc1")
    put_pointwise(plan, model.projection.outer, "fc2")
    _put_deformation(plan, model.deformation)
    plan.write(model)
    return model


def _put_deformation(plan, network):
    put_pointwise(plan, network.features, "iphi.fc0")
    used, unused = "fc_code", "fc_no_code"
    if network.code is None:
        used, unused = unused, used
    layer = network.widening if network.code is None else network.code
    put_pointwise(plan, layer, f"iphi.{used}")
    plan.drop(f"iphi.{unused}.weight", f"iphi.{unused}.bias")
    for k, layer in enumerate((*network.hidden, network.output), start=1):
        put_pointwise(plan, layer, f"iphi.fc{k}")


def put_backbone(plan: Assignment, backbone) -> None:
    """Plans the arrays of the U-Net between lifting and projection."""
    names = ["inc", *(f"down{k}.maxpool_conv.1" for k in range(1, len(backbone.down)))]
    # The official decoder counts from the coarsest scale.
    names += [f"up{k}.conv" for k in range(len(backbone.up), 0, -1)]
    for name, double in zip(names, [*backbone.down, *backbone.up], strict=True):
        _put_double(plan, double, f"{name}.double_conv")
    put_pointwise(plan, backbone.projection, "outc.conv")


def put_blocks(plan: Assignment, blocks) -> None:
    """Plans the arrays of the spectral blocks, finest scale first."""
    for k, block in enumerate(blocks, start=1):
        name = f"process{k}"
        num = block.sine.shape[1]
        plan.put(block.sine, f"{name}.weights", lambda w, num=num: w[:, :num])
        plan.put(block.cosine, f"{name}.weights", lambda w, num=num: w[:, num:])
        plan.put(block.queries, f"{name}.latent")
        # Keys and values alternate there; ours come one after the other.
        key_value, encoder = block.key_value, f"{name}.encoder_attn"
        plan.put(
            key_value.kernel,
            f"{encoder}.weight",
            lambda w: pointwise(np.concatenate([w[0::2], w[1::2]])),
        )
        plan.put(
            key_value.bias,
            f"{encoder}.bias",
            lambda w: np.concatenate([w[0::2], w[1::2]]),
        )
        put_pointwise(plan, block.query, f"{name}.decoder_attn")


def _put_double(plan, double, name):
    for k in range(2):
        plan.put(double.convolutions[k].kernel, f"{name}.{3 * k}.weight", convolution)
        put_norm(plan, double.norms[k], f"{name}.{3 * k + 1}")
