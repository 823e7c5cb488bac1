"""Official configurations: each has its exact count. Nothing is allocated."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from operators import models
from operators.layers import spectral
from operators.models import presets
from operators.models.__main__ import count, parameter_table


@pytest.mark.parametrize("name", sorted(presets.PRESETS))
def test_preset_has_exactly_the_official_number_of_parameters(name):
    preset = presets.PRESETS[name]
    assert count(parameter_table(preset.hparams)) == preset.parameters


def test_presets_are_sorted_named_after_their_model_and_say_where_they_come_from():
    assert list(presets.PRESETS) == sorted(presets.PRESETS)
    known = sorted(models.names(), key=len, reverse=True)
    for name, preset in presets.PRESETS.items():
        model = preset.hparams["name"]
        longest = next(m for m in known if name.startswith(f"{m}_"))
        assert longest == model, f"{name} builds {model}"
        assert preset.source, name


def unresolved(layer, grids):
    """Modes of a spectral layer at or above half the points of one of its grids."""
    inside = np.array(True)
    limit = np.min(grids, 0)
    for k, n in zip(
        spectral.mode_frequencies(layer.modes, layer.layout), limit, strict=True
    ):
        inside = inside[..., None] & (2 * np.abs(k) < n)
    return ~inside


def grids_of(model, n):
    """Points of each layer's input and output, on n x n points."""
    outputs = [(round(f * n),) * 2 for f in model.fractions]
    return list(zip([(n, n), *outputs], outputs, strict=False))


@pytest.mark.parametrize(
    ("name", "n"),
    [
        ("uno_darcy", 16), ("uno_navier_stokes_256", 256), ("uno_navier_stokes", 64),
        ("uno_navier_stokes_p", 64),
    ],
)  # fmt: skip
def test_sources_count_the_weights_of_modes_that_no_grid_resolves(name, n):
    preset = presets.get(name)
    model = nnx.eval_shape(lambda: models.create(rngs=nnx.Rngs(0), **preset.hparams))
    dead = 0
    for layer, grids in zip(model.layers, grids_of(model, n), strict=True):
        per_mode = 2 * np.prod(layer.spectral.weights.real.shape[-2:])
        dead += per_mode * unresolved(layer.spectral, grids).sum()
    assert (f"{dead:,} never act" if dead else "") in preset.source
    assert (dead > 0) == ("never act" in preset.source)


@pytest.mark.slow
def test_weights_of_modes_that_no_grid_resolves_get_no_gradient():
    hparams = presets.get("uno_darcy").hparams | {
        "channels": 2, "layer_channels": (2,) * 5, "lifting_channels": 2,
        "projection_channels": 2, "param_dtype": "float64",
    }  # fmt: skip
    with jax.enable_x64(True):
        model = models.create(rngs=nnx.Rngs(0), **hparams)
        x = np.random.default_rng(0).normal(size=(2, 16, 16, 1))
        loss = nnx.jit(nnx.grad(lambda model, x: jnp.sum(model(x) ** 2)))
        gradients = loss(model, x)
    for t, grids in enumerate(grids_of(model, 16)):
        slope = gradients["layers"][t]["spectral"]["weights"]["real"][...]
        silent = np.all(np.abs(slope) < 1e-14, axis=(-2, -1))
        expected = unresolved(model.layers[t].spectral, grids)
        np.testing.assert_array_equal(silent, expected)


def test_unknown_preset_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"known: .*fno_darcy"):
        presets.get("fno_darc")
