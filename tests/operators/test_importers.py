"""Official weights in our models give the outputs of the official modules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from operators import models
from operators.importers import assignment, li2021, lsm, mgno, neuralop
from tests.operators.references import filling

# Relative to what varies over the grid, not to a constant that all weights agree on.
TOLERANCE = 2e-6
# Four numbers of `filling`, as the environment that makes the references has them.
FILLED = ("0x1.db9558p-2", "0x1.1b6e8p-4", "0x1.0b28c8p-2", "0x1.5d4dfcp-1")

DARCY = {"name": "mgno", "in_channels": 2, "out_channels": 1, "channels": 3}
NAVIER_STOKES = {
    "name": "mgno", "in_channels": 1, "out_channels": 1, "channels": 2,
    "grid": (64, 64), "cycle": ((1, 0), (2, 1), (2, 0)), "boundary": "periodic",
    "use_bias": True, "norm": "prolongation", "skip": "none", "residual": True,
}  # fmt: skip
HELMHOLTZ = {
    "name": "mgno", "in_channels": 1, "out_channels": 1, "channels": 2,
    "grid": (101, 101), "cycle": (*((1, 0),) * 4, (2, 0)), "boundary": "reflect",
    "use_bias": True, "norm": "cycle", "widening": (1, 2, 3, 4, 5), "skip": "none",
    "head": "cycle", "num_layers": 2,
}  # fmt: skip
LATENT = {
    "name": "lsm", "channels": 8, "num_basis": 3, "num_tokens": 2, "out_channels": 2,
}  # fmt: skip
FOURIER = {
    "name": "fno", "layout": "neuralop", "in_channels": 2, "out_channels": 3,
    "channels": 5, "num_layers": 2, "modes": (6, 4),
}  # fmt: skip
FOURIER_2021 = {
    "name": "fno", "architecture": "li2021", "layout": "li2021", "endpoint": True,
    "in_channels": 1, "out_channels": 1, "channels": 4,
}  # fmt: skip
CYCLE = ((1, 0), (1, 1), (2, 0))
# Reference, importer, settings of our model.
CASES = {
    "mgno_darcy": (mgno, DARCY | {"grid": (16, 12), "num_layers": 2, "cycle": CYCLE}),
    "mgno_navier_stokes_head": (
        mgno, NAVIER_STOKES | {"num_layers": 1, "head": "mlp", "head_channels": 5},
    ),
    "neuralop_2d": (neuralop, FOURIER | {"modes": (6, 5)}),
    "neuralop_group": (
        neuralop, FOURIER | {"norm": "group", "domain_padding": 0.25},
    ),
    "li2021_1d": (li2021, FOURIER_2021 | {"modes": (3,)}),
}  # fmt: skip
SLOW_CASES = {
    "neuralop_1d": (neuralop, FOURIER | {"modes": (7,)}),
    "neuralop_3d": (neuralop, FOURIER | {"modes": (4, 3, 4)}),
    "neuralop_instance": (
        neuralop,
        FOURIER | {"norm": "instance", "skip": "identity", "mlp_skip": "linear"},
    ),
    "neuralop_batch": (neuralop, FOURIER | {"norm": "batch"}),
    "neuralop_gates": (
        neuralop, FOURIER | {"skip": "soft_gating", "mlp_skip": "identity"},
    ),
    "neuralop_tucker": (neuralop, FOURIER | {"factorization": "tucker", "rank": 0.5}),
    "neuralop_cp": (neuralop, FOURIER | {"factorization": "cp", "rank": 0.5}),
    "neuralop_separable": (neuralop, FOURIER | {"separable": True}),
    # Nine points after each of two axes of 18.
    "li2021_2d": (li2021, FOURIER_2021 | {"modes": (3, 4), "domain_padding": 10 / 17}),
    "mgno_darcy_smooth": (mgno, DARCY | {"grid": (51, 51), "num_layers": 1}),
    "mgno_navier_stokes": (mgno, NAVIER_STOKES | {"num_layers": 2}),
    "mgno_helmholtz": (mgno, HELMHOLTZ),
    "mgno_helmholtz dead": (mgno, HELMHOLTZ | {"unused_first_A": True}),
    "lsm_2d": (lsm, LATENT | {"in_channels": 2, "patch_size": (2, 2)}),
    "lsm_3d": (
        lsm, LATENT | {"in_channels": 1, "num_axes": 3, "patch_size": (1, 1, 2)},
    ),
}  # fmt: skip


def build(hparams):
    # Shapes alone: a model whose every number must come from the state dict.
    model = nnx.eval_shape(lambda: models.create(rngs=nnx.Rngs(0), **hparams))
    model.eval()
    return model


def error(model, x, y):
    """Relative L2 error after the mean over samples and grid is taken from y."""
    out = np.asarray(nnx.jit(lambda model, x: model(x))(model, jnp.asarray(x)))
    assert out.dtype == np.float32
    axes = tuple(range(y.ndim - 1))
    varying = y - y.mean(axes, keepdims=True, dtype=np.float64)
    return np.linalg.norm(out - y.astype(np.float64)) / np.linalg.norm(varying)


@pytest.mark.parametrize(
    ("reference", "importer", "hparams"),
    [(name, *case) for name, case in CASES.items()]
    + [
        pytest.param(name, *case, marks=pytest.mark.slow)
        for name, case in SLOW_CASES.items()
    ],
)
def test_official_weights_give_the_official_output(reference, importer, hparams):
    _, state, x, y = filling.read(reference.split()[0])
    model = build(hparams)
    assert importer.load(model, state) is model
    assert error(model, x, y) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("code_channels", [0, 42])
def test_official_weights_give_the_official_output_at_points(code_channels):
    # In float64: the features sin(128 pi x) of the deformation lose digits in float32.
    reference = "lsm_irregular_code" if code_channels else "lsm_irregular"
    facts, state, x, y = filling.read(reference)
    parts = {
        prefix: {k.removeprefix(prefix): v for k, v in state.items() if prefix in k}
        for prefix in ("model.", "iphi.")
    }
    if code_channels:
        code = np.array(facts["arguments"]["code"])[:, None]
        x = np.concatenate([x, np.repeat(code, x.shape[1], 1)], -1)
    with jax.enable_x64(True):
        model = build(
            LATENT
            | {"name": "lsm_irregular", "in_channels": 2 + code_channels}
            | {"code_channels": code_channels, "geofno_compat": True}
            | {"latent_grid": (16, 16), "modes": (3, 3), "param_dtype": "float64"}
        )
        lsm.load_irregular(model, parts["model."], parts["iphi."])
        out = np.asarray(
            nnx.jit(lambda model, x: model(x))(model, jnp.asarray(x, float))
        )
    assert np.linalg.norm(out - y) < TOLERANCE * np.linalg.norm(y - y.mean((0, 1)))


LINE = FOURIER_2021 | {"modes": (3,)}
PLAIN = {"name": "unet", "in_channels": 2, "out_channels": 2, "channels": 8}
STATES = {
    neuralop: filling.read("neuralop_2d")[1],
    li2021: filling.read("li2021_1d")[1],
    mgno: filling.read("mgno_darcy")[1],
    lsm: filling.read("lsm_2d")[1],
}


def small():
    return build(CASES["mgno_darcy"][1]), filling.read("mgno_darcy")[1]


def test_every_official_array_is_needed_and_nothing_may_be_left_over():
    model, state = small()
    for name in state:
        less = {k: v for k, v in state.items() if k != name}
        with pytest.raises(ValueError, match=f"has no '{name}'"):
            mgno.load(model, less)
    with pytest.raises(ValueError, match=r"no place for 1 arrays.*: extra\.weight"):
        mgno.load(model, state | {"extra.weight": np.zeros(3)})
    assert isinstance(model.skips[0].bias.get_value(), jax.ShapeDtypeStruct)


def test_arrays_of_another_shape_are_refused_by_name():
    model, state = small()
    name = "conv_list.1.layer1.0.Pi.weight"
    for shape in ((3, 3, 5, 5), (3,)):
        with pytest.raises(ValueError, match=rf"'{name}' of shape \({shape[0]},"):
            mgno.load(model, state | {name: np.zeros(shape)})


def test_parameters_that_no_array_sets_are_named():
    model, state = small()
    plan = assignment.Assignment(state)
    plan.drop(*state)
    plan.put(model.head[0].kernel, "linear.weight", assignment.pointwise)
    with pytest.raises(ValueError, match=r"nothing about \d+ parameters.*cycles"):
        plan.write(model)


@pytest.mark.parametrize(
    ("importer", "hparams", "message"),
    [
        (neuralop, FOURIER | {"layout": "symmetric"}, "has layout 'symmetric'"),
        (neuralop, FOURIER_2021 | {"modes": (3,)}, "has architecture 'li2021'"),
        (neuralop, FOURIER | {"channel_mlp_expansion": 0}, "no channel MLP"),
        (neuralop, FOURIER | {"norm": "instance_affine"}, "norm 'instance_affine'"),
        (neuralop, CASES["mgno_darcy"][1], "class FNO, got MgNO"),
        (li2021, FOURIER, "architecture 'neuralop' and layout 'neuralop'"),
        (li2021, LINE | {"skip": "identity"}, "'w0', .* Identity .* skip='linear'"),
        (li2021, LINE | {"skip": "none"}, "but the model has none there"),
        (li2021, LINE | {"factorization": "tucker"}, "or TuckerWeights; build it"),
        (li2021, LINE | {"separable": True}, "separable weights"),
        (li2021, LINE | {"norm": "group", "num_groups": 2}, "norm 'group'"),
        (li2021, PLAIN, "class FNO, got UNet"),
        (mgno, FOURIER, "class MgNO, got FNO"),
        (lsm, FOURIER, "class UNet, got FNO"),
        (lsm, PLAIN | {"lifting_hidden": 4}, "a ChannelMLP .* lifting_hidden=0"),
    ],
)
def test_models_of_another_kind_are_refused(importer, hparams, message):
    with pytest.raises(ValueError, match=message):
        importer.load(build(hparams), STATES[importer])


@pytest.mark.parametrize(("importer", "hparams"), [(neuralop, FOURIER), (li2021, LINE)])
def test_models_without_layers_are_refused(importer, hparams):
    model = build(hparams)
    model.blocks = nnx.List([])
    with pytest.raises(ValueError, match="num_layers=0"):
        importer.load(model, STATES[importer])


@pytest.mark.parametrize("norm", ["instance_affine", "none"])
def test_unets_load_the_norms_that_they_have(norm):
    def kept(name):
        statistics = "running" in name or "num_batches" in name
        normalises = name.split("double_conv.")[-1].startswith(("1", "4"))
        return not (statistics or "process" in name or (normalises and norm == "none"))

    state = {name: array for name, array in STATES[lsm].items() if kept(name)}
    model = build(PLAIN | {"norm": norm})
    with pytest.raises(ValueError, match="no place for"):
        lsm.load(model, STATES[lsm])
    lsm.load(model, state)
    layer = model.backbone.up[-1]
    if norm != "none":
        scale = state["up1.conv.double_conv.4.weight"]
        np.testing.assert_array_equal(layer.norms[1].scale[...], scale)


def test_points_need_a_model_on_points_with_a_linear_lifting():
    points = LATENT | {
        "name": "lsm_irregular",
        "in_channels": 2,
        "latent_grid": (16,) * 2,
    }
    points |= {"modes": (3, 3), "num_scales": 2}
    with pytest.raises(ValueError, match="class LSMIrregular, got UNet"):
        lsm.load_irregular(build(PLAIN), {}, {})
    with pytest.raises(ValueError, match="class UNet, got LSMIrregular"):
        lsm.load(build(points), {})
    parts = STATES[lsm], {}
    with pytest.raises(ValueError, match="lifting_hidden=0"):
        lsm.load_irregular(build(points | {"lifting_hidden": 4}), *parts)


def test_complex_and_real_numbers_are_not_mixed_up():
    for importer, hparams, name, message in (
        (mgno, CASES["mgno_darcy"][1], "linear.weight", "real numbers, got .*complex"),
        (li2021, LINE, "conv0.weights1", "complex numbers, got dtype float32"),
        (li2021, LINE, "fc0.bias", "real numbers, got dtype <U1"),
    ):
        state = dict(STATES[importer])
        value = state[name]
        other = value.real if np.iscomplexobj(value) else value.astype(complex)
        state[name] = np.array("a") if "U1" in message else other
        with pytest.raises(ValueError, match=f"'{name}' must hold {message}"):
            importer.load(build(hparams), state)


def test_misspelt_names_get_a_suggestion():
    model, state = small()
    state["linear.weights"] = state.pop("linear.weight")
    with pytest.raises(ValueError, match=r"\(it has 'linear.weights'\)"):
        mgno.load(model, state)


def test_filling_is_the_same_on_every_machine():
    values = filling.fill("name", (2, 2), -1.0, 1.0, "float32")
    expected = [float.fromhex(value) for value in FILLED]
    np.testing.assert_array_equal(values.ravel(), expected)
    halves = filling.fill("name", (2,), -1.0, 1.0, "complex64")
    np.testing.assert_array_equal(halves.view(np.float32), expected)
    counters = filling.fill("name", (), 7, 7, "int64")
    assert counters.shape == ()
    assert counters == 7
