"""Every model on all data that it fits: traced, trained a step, overfitted."""

import functools
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

import train
from configs import loading
from datagen import describe
from datagen.storage import read
from operators import models
from operators.training import (
    checks,
    data,
    layouts,
    losses,
    normalizers,
    optimizers,
    sharding,
    state,
)

ROOT = Path(__file__).parent.parent.parent
DATA_CONFIGS = sorted(p.stem for p in (ROOT / "configs/data").glob("[!_]*.py"))
# Settings, highest learning rate and steps that learn 8 samples by heart.
BY_HEART = {
    "fno": ({"channels": 16, "num_layers": 3, "modes": (6, 6)}, 4e-3, 500),
    "lsm": (
        {"channels": 24, "num_scales": 2, "patches_per_axis": 2, "norm": "group"},
        3e-3,
        1200,
    ),
    "mgno": (
        {"grid": (9, 9), "channels": 24, "num_layers": 3, "cycle": ((1, 0), (2, 0))},
        4e-3,
        800,
    ),
    "unet": ({"channels": 32, "num_scales": 2, "norm": "group"}, 3e-3, 2000),
    "uno": (
        {
            "modes": ((8, 8), (4, 4), (8, 8)),
            "fractions": (1, 0.5, 1),
            "layer_channels": (24, 32, 24),
            "channels": 24,
            "lifting_channels": 24,
            "projection_channels": 24,
        },
        4e-3,
        1200,
    ),
}
UNOPTIMISED = {"xla_backend_optimization_level": 0}  # compiles in half the time
SETTINGS = {"inputs": (), "outputs": (), "stride": 1, "steps": ()}


def tiny(name, layout):
    """Settings of a small model called `name` for data of this layout."""
    axes = len(layout.grid)
    own = {
        "fno": {"channels": 4, "num_layers": 2, "modes": (2,) * axes},
        "lsm": {
            "num_axes": axes,
            "channels": 8,
            "num_scales": 2,
            "patches_per_axis": 2,
        },
        "lsm_irregular": {
            "latent_grid": (8,) * layout.num_coordinates,
            "modes": (2,) * layout.num_coordinates,
            "channels": 8,
            "num_scales": 2,
            "patches_per_axis": 2,
        },
        "mgno": {
            "grid": layout.grid,
            "channels": 4,
            "num_layers": 2,
            "cycle": ((1, 0), (1, 0)),
        },
        "sfno": {
            "width": 6,
            "modes": (2, 2, 2),
            "num_layers": 2,
            "latent_steps": 4,
            "out_steps": layout.grid[-1],
        },
        "unet": {"num_axes": axes, "channels": 4, "num_scales": 2},
        "uno": {
            "modes": ((2,) * axes,) * 3,
            "fractions": (1, 0.5, 1),
            "layer_channels": (4, 6, 4),
            "channels": 4,
            "lifting_channels": 8,
            "projection_channels": 8,
        },
    }[name]
    channels = {k: getattr(layout, k) for k in ("in_channels", "out_channels")}
    return {"name": name, **channels, **own}


def fitting(layout):
    """Names of the models that take such data."""
    shared = layout.inputs[: layout.out_channels] == layout.outputs
    frames = layout.axes[-1] == "time" and shared
    names = [n for n in models.names() if n != "sfno" or frames]
    return [n for n in names if (n == "lsm_irregular") == layout.on_nodes]


def described(name, **changes):
    """The layout of a quick data set, whose samples nobody has drawn."""
    facts = describe.describe(loading.load(str(ROOT / f"configs/data/{name}.py:quick")))
    defaults = read.default_fields(facts["fields"])
    return layouts.layout(layouts.Facts(**facts, defaults=defaults), SETTINGS | changes)


def line(n=17, channels=2):
    """A layout of one axis, as of one's own arrays."""
    inputs = tuple(f"x{i}" for i in range(channels))
    return layouts.Layout(("x",), (np.linspace(0, 1, n),), 0, inputs, ("y0",))


def training(settings, layout, peak=1e-3, epochs=1):
    """Graph, state and step of a model on data of a layout."""
    mesh = sharding.data_mesh(1, 1)
    optimizer = optimizers.create(
        {"name": "adam", "b1": (0.9, 0.9), "b2": 0.999, "weight_decay": 0.0},
        {"name": "cosine", "per": "step", "peak": peak},
        epochs,
        1,
    )
    model = models.create(rngs=nnx.Rngs(0), **settings)
    checks.model_fits(model, settings, layout)
    graph, current = state.create_state(model, optimizer, mesh)
    loss_fn = losses.create("relative_l2", layout.spacing)
    step_fn = state.make_train_step(graph, optimizer, loss_fn, mesh)
    return graph, current, step_fn


def fields(layout, num=3, seed=0):
    """Random x and y of such data."""
    rng = np.random.default_rng(seed)
    x = rng.random((num, *layout.grid, layout.in_channels)).astype(np.float32)
    y = rng.random((num, *layout.grid, layout.out_channels)).astype(np.float32)
    return x, y


def arrays(layout, x, y):
    """The arrays of a step, encoded as `train.py` does it."""
    own = {"num_coordinates": layout.num_coordinates}
    encode = normalizers.fit("scalar", x, **own)
    return state.Arrays(encode.encode(x), y, normalizers.fit("scalar", y))


def test_every_model_has_settings_here():
    for name in models.names():
        assert tiny(name, line())["name"] == name


@pytest.mark.parametrize("name", DATA_CONFIGS)
def test_every_data_set_has_models_that_take_it(name):
    last = ("burgers_script", "heat", "helmholtz_sweep")
    steps = {"steps": (-1,)} if name in last else {}
    if name.startswith("ns_"):  # trajectories
        steps = {"window": (2, 3), "window_layout": "channels"}
    layout = described(name, **steps)
    assert fitting(layout)
    for model_name in fitting(layout):
        settings = tuple(tiny(model_name, layout).items())
        expected = (2, *layout.grid, layout.out_channels)
        assert output_shape(settings, layout.grid) == expected, model_name


@functools.cache  # several data sets have the same shape
def output_shape(settings, grid):
    """Shape of the output of a model, of which no number is computed."""
    settings = dict(settings)

    def output(x):
        return models.create(rngs=nnx.Rngs(0), **settings)(x)

    shape = (2, *grid, settings["in_channels"])
    return jax.eval_shape(output, jax.ShapeDtypeStruct(shape, np.float32)).shape


# The plane is where `test_eight_samples_are_learned_by_heart` trains every model.
KINDS = {
    "line": line,
    "box": lambda: described("darcy_3d", stride=2),
    "time": lambda: described(
        "heat", time_axis=True, stride=3, inputs=("solution", "source")
    ),
    "nodes": lambda: described("poisson"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_model_trains_on_every_kind_of_data(kind):
    layout = KINDS[kind]()
    x, y = fields(layout)
    assert fitting(layout)
    for name in fitting(layout):
        _, current, step_fn = training(tiny(name, layout), layout)
        before = jax.device_get(current.params)
        values = arrays(layout, x, y)
        indices = np.array([0, 2], np.int32)
        step = step_fn.lower(current, values, indices).compile(UNOPTIMISED)
        current, metrics = step(current, values, indices)
        assert all(map(np.isfinite, metrics.values())), name
        changed = [
            (a != b).any()
            for a, b in zip(
                jax.tree.leaves(before), jax.tree.leaves(current.params), strict=True
            )
        ]
        assert np.mean(changed) > 0.9, name


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_HEART)
def test_eight_samples_are_learned_by_heart(name, home):
    settings = dict.fromkeys(("inputs", "outputs", "steps", "input_steps"), ())
    settings |= {"config": "", "path": str(home / "data/darcy_smooth_quick")}
    settings |= {"num_train": 8, "stride": 4, "time_axis": False}
    dataset = data.open_data(settings)
    layout = data.layout(dataset, settings)
    samples = data.load_split(dataset, settings, "train")
    own, peak, num_steps = BY_HEART[name]
    own = {"name": name, "in_channels": 1, "out_channels": 1, **own}
    graph, current, step_fn = training(own, layout, peak, num_steps)
    values, indices = arrays(layout, samples.x, samples.y), np.arange(8, dtype=np.int32)
    for _ in range(num_steps):
        current, _ = step_fn(current, values, indices)
    errors_fn = state.make_errors(graph, losses.relative_l2)
    errors = errors_fn(current.params, current.variables, values)
    assert errors.mean() < 1e-3


def test_all_models_on_grids_are_asked_to_learn_by_heart():
    assert {*BY_HEART, "lsm_irregular", "sfno"} == set(models.names())


@pytest.mark.slow
def test_experiments_of_other_dimensions_run_from_the_command_line(
    home, monkeypatch, tmp_path
):
    monkeypatch.chdir(home)
    splits = ("num_train=16", "num_valid=4", "num_test=4")
    time = ("config=configs/data/heat.py:quick", "inputs=()", "time_axis=True", *splits)
    cube = "--config.model={'name': 'fno', 'in_channels': 2, 'out_channels': 1, "
    cube += "'channels': 4, 'num_layers': 2, 'modes': (2, 2, 2)}"
    runs = {
        "fno_darcy_3d": ([], [13, 13, 13]),
        "lsm_irregular_poisson": ([], [477]),
        "unet_darcy": ([*(f"--config.data.{s}" for s in time), cube], [20, 20, 6]),
    }
    for name, (changes, grid) in runs.items():
        config = ["--config", f"configs/{name}.py:quick", "--config.num_epochs=1"]
        workdir = ["--workdir", str(tmp_path / name)]
        assert train.main([*config, *workdir, *changes]) == 0
        report = json.loads((tmp_path / name / "evaluation.json").read_text())
        assert report["grid"] == grid
        assert ("relative_h1" in report) == (name != "lsm_irregular_poisson")
        assert (tmp_path / name / "samples.png").stat().st_size > 10_000
