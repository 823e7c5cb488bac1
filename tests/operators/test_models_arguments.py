"""Hyperparameters that do not fit are refused by name, for every model alike."""

import inspect
import typing
from collections.abc import Sequence

import numpy as np
import pytest
from flax import nnx

from operators import models

SMALL = {
    "fno": {"modes": (2,), "channels": 2, "num_layers": 1, "coordinates": "none"},
    "lsm": {
        "num_axes": 1, "channels": 2, "num_scales": 2, "patches_per_axis": 2,
        "num_heads": 1, "num_tokens": 1, "num_basis": 1,
    },
    "lsm_irregular": {
        "in_channels": 3, "latent_grid": (8, 8), "modes": (2, 2), "channels": 2,
        "num_scales": 2, "patches_per_axis": 2, "num_heads": 1,
    },
    "mgno": {"grid": (9,), "channels": 2, "num_layers": 1, "cycle": ((1, 0), (1, 0))},
    "sfno": {"width": 4, "modes": (2, 2, 2), "latent_steps": 4, "out_steps": 4},
    "unet": {"num_axes": 1, "channels": 2, "num_scales": 2},
    "uno": {
        "modes": ((2,), (2,)), "fractions": (1, 1.0), "layer_channels": (2, 2),
        "channels": 2,
    },
}  # fmt: skip


def create(name, **hparams):
    hparams = {"in_channels": 1, "out_channels": 1} | SMALL[name] | hparams
    return nnx.eval_shape(lambda: models.create(name, rngs=nnx.Rngs(0), **hparams))


@pytest.mark.parametrize(
    ("name", "key", "value", "expected"),
    [
        ("mgno", "cycle", (1, 0), r"one pair \(pre, post\)"),
        ("mgno", "cycle", ((1.5, 0), (1, 0)), r"each entry an int\)\), got \(\(1.5"),
        ("mgno", "cycle", 3, "a tuple or list"),
        ("mgno", "cycle", "10", "a tuple or list"),
        ("mgno", "grid", 17, "a tuple or list .*each entry an int of at least 1.* 17"),
        ("mgno", "widening", (1, 1.5), r"an int of at least 1\), got \(1, 1.5\)"),
        ("mgno", "channels", "4", r"an int of at least 1, got '4' \(str\)"),
        ("mgno", "channels", 4.0, r"an int of at least 1, got 4.0 \(float\)"),
        ("mgno", "channels", True, r"an int of at least 1, got True \(bool\)"),
        ("mgno", "coarsest", -1, "an int of at least 0, got -1"),
        ("mgno", "head_channels", 0, "an int of at least 1, got 0"),
        ("mgno", "residual", 1, r"a bool, got 1 \(int\)"),
        ("mgno", "boundary", None, "a string, got None"),
        ("lsm", "patch_size", 6, "a tuple or list"),
        ("lsm", "patch_size", "66", "a tuple or list"),
        ("lsm", "patch_size", (0,), "each entry an int of at least 1"),
        ("lsm", "channels", -8, "at least 1, got -8"),
        ("lsm", "lifting_hidden", -1, "at least 0, got -1"),
        ("lsm_irregular", "code_channels", -1, "at least 0, got -1"),
        ("lsm_irregular", "center", ("a", 1), r"each entry a number"),
        ("fno", "rank", "1", "a number, got '1'"),
        ("fno", "rank", True, "a number, got True"),
        ("fno", "domain_padding", "half", "a number or a tuple or list"),
        ("fno", "num_layers", -1, "at least 1, got -1"),
        ("uno", "modes", ((1.5,), (2,)), "each entry an int"),
        ("uno", "horizontal_skips", ((1, 0.5),), "a string or .*a pair of ints"),
        ("uno", "horizontal_skips", ((1, 0, 0),), "a string or .*a pair of ints"),
        ("uno", "layer_channels", (2, 0), "each entry an int of at least 1"),
    ],
)
def test_wrong_values_are_named(name, key, value, expected):
    with pytest.raises(ValueError, match=expected) as error:
        create(name, **{key: value})
    assert key in str(error.value)
    assert str(error.value).count("\n") == 0


@pytest.mark.parametrize("name", models.names())
def test_every_whole_number_has_a_least_value_and_every_kind_is_known(name):
    for key, parameter in models.hyperparameters(name).items():
        kind = parameter.annotation
        if key == "param_dtype":
            assert kind is inspect.Parameter.empty
        elif kind is int:
            for value in (-1, 2.0, "2", False):
                with pytest.raises(ValueError, match=f"{key} of model '{name}'"):
                    create(name, **{key: value})
        else:
            unfit = object() if typing.get_origin(kind) is Sequence else b"1"
            with pytest.raises(ValueError, match=f"{key} of model '{name}' must be"):
                create(name, **{key: unfit})


@pytest.mark.parametrize("name", models.names())
@pytest.mark.parametrize(
    "key",
    [
        "in_channels", "out_channels", "channels", "num_layers", "head_channels",
        "projection_hidden", "num_groups", "num_heads", "lifting_channels",
    ],
)  # fmt: skip
def test_zero_is_refused_where_it_has_no_meaning(name, key):
    if key in models.hyperparameters(name):
        with pytest.raises(ValueError, match=f"{key} of model '{name}' .* got 0"):
            create(name, **{key: 0})


def test_lists_numpy_numbers_ints_as_floats_and_meaningful_zeros_pass():
    create("mgno", grid=[9], cycle=[[1, 0], (1, 0)], channels=np.int64(2), coarsest=0)
    create("fno", rank=1, lifting_ratio=2, domain_padding=[0.0], embedding_channels=0)
    create("uno", horizontal_skips=[[1, 0], (2, -1)], norm_layers=[0])
    create("lsm_irregular", center=[0, 0.5], code_channels=0, lifting_hidden=0)
    create("unet", param_dtype="float32")
