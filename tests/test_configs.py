"""Every experiment: builds, is locked, and fits its data; overrides are checked."""

from pathlib import Path

import jax
import pytest
from flax import nnx

from configs import common, loading
from datagen import describe
from datagen.storage import read
from operators import models
from operators.models import presets
from operators.training import checks, data, layouts, losses

ROOT = Path(__file__).parent.parent
QUICK = "configs/mgno_darcy.py:quick"
EXPERIMENTS = sorted(
    p.stem
    for p in (ROOT / "configs").glob("[!_]*_*.py")
    if not p.stem.startswith("refine_")  # of tests/refinement
)


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


def described(source, settings):
    """What `data.describe` says, without a process of its own."""
    facts = describe.describe(source)
    defaults = read.default_fields(facts["fields"])
    return layouts.layout(layouts.Facts(**facts, defaults=defaults), settings)


@pytest.mark.parametrize("variant", common.VARIANTS)
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiments_build_and_their_models_take_their_data(name, variant):
    suffix = "" if variant == "full" else f":{variant}"
    config = loading.load(f"configs/{name}.py{suffix}")
    assert config.is_locked
    source = loading.load(config.data.config)
    assert config.data.config.partition(":")[2] == suffix[1:]
    for split in ("train", "valid", "test"):
        assert config.data[f"num_{split}"] <= source.splits[split]
    layout = described(source, config.data)
    model = nnx.eval_shape(lambda: models.create(rngs=nnx.Rngs(0), **config.model))
    checks.model_fits(model, config.model, layout)
    losses.create(**config.loss, spacing=layout.spacing, has_time=layout.has_time)
    x = jax.ShapeDtypeStruct((2, *layout.input_grid, layout.in_channels), "float32")
    expected = (2, *layout.grid, layout.out_channels)
    made = nnx.eval_shape(lambda model, x: model(x), model, x)
    assert made.shape == expected
    checks.output_fits(made, config.model, layout)


def test_experiments_on_flows_have_the_published_settings():
    forced, decaying, baseline = (
        loading.load(f"configs/{name}.py")
        for name in ("sfno_ns_forced", "sfno_ns_mcwilliams", "fno3d_ns_mcwilliams")
    )
    assert (forced.num_epochs, decaying.num_epochs, baseline.num_epochs) == (10, 15, 10)
    windows = [tuple(c.data.window) for c in (forced, decaying, baseline)]
    assert windows == [(10, 40), (10, 10), (10, 10)]
    for config, counts in (
        (forced, (8_489_521, 9_242_461)),
        (decaying, (15_959_251, 16_469_791)),
    ):
        assert (config.seed, config.batch_size) == (1127825, 4)
        assert dict(config.schedule) == {
            "name": "one_cycle",
            "per": "step",
            "peak": 1e-2,
            "pct_start": 0.3,
            "div_factor": 1e3,
            "final_div_factor": 1e4,
        }
        for compat, count in zip((False, True), counts, strict=True):
            settings = {**config.model, "compat": compat}
            assert num_parameters(settings) == count
    assert num_parameters(baseline.model) == 16_386_997
    published = presets.get("fno_navier_stokes_3d_mcwilliams").hparams
    assert published.items() <= dict(baseline.model).items()
    assert (baseline.schedule.peak, baseline.data.window_fixed) == (1e-3, True)


def num_parameters(settings):
    model = nnx.eval_shape(lambda: models.create(rngs=nnx.Rngs(0), **settings))
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


def test_the_paper_experiment_has_the_published_settings():
    config = loading.load("configs/mgno_darcy.py")
    assert (config.num_epochs, config.batch_size, config.model.channels) == (500, 8, 24)
    assert len(config.model.cycle) == 6
    assert config.model.num_layers == 5
    assert config.model.grid == (211, 211)
    assert loading.load(config.data.config).problem.n == 421
    assert config.data.stride == 2
    assert dict(config.schedule) == {
        "name": "one_cycle",
        "per": "epoch",
        "peak": 5e-4,
        "pct_start": 0.2,
        "div_factor": 2.0,
        "final_div_factor": 100.0,
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config", "configs/mgno_dacry.py"], "did you mean configs/mgno_darcy.py"),
        (["--config", "configs/mgno_darcy.py:tiny"], "known: full, small, quick"),
        (["--config=configs/mgno_darcy.py", "--config.model.chanels=3"], "channels"),
        (["--config=configs/mgno_darcy.py", "--config.sed=3"], "did you mean seed"),
        (["--config=configs/mgno_darcy.py", "--config.seed=2.5"], "expected int"),
        (["--config=configs/mgno_darcy.py", "--config.seed=True"], "expected int"),
        (["--config=configs/mgno_darcy.py", "--config.seed=many"], "expected int"),
        (["--config=configs/mgno_darcy.py", "--wrkdir=x"], "--wrkdir"),
        (["--config=configs/mgno_darcy.py", "--config.seed"], "needs a value"),
        (["--config=configs/common.py"], "not a config file"),
        ([], "give one --config"),
    ],
)
def test_mistakes_on_the_command_line_are_one_sentence(arguments, message):
    with pytest.raises(loading.ConfigError) as caught:
        loading.from_arguments(arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_overrides_keep_types():
    arguments = ["--config.model.grid=(85, 85)", "--config.schedule.peak", "1"]
    config, name = loading.from_arguments(
        ["--config", "configs/mgno_darcy.py:small", *arguments, "--config.data.config="]
    )
    assert config.model.grid == (85, 85)
    assert config.schedule.peak == 1.0
    assert isinstance(config.schedule.peak, float)
    assert config.data.config == ""
    assert loading.run_name(name) == "mgno_darcy_small"


def test_a_section_that_depends_on_its_name_may_be_given_whole():
    config, _ = loading.from_arguments(
        [
            "--config=configs/mgno_darcy.py",
            "--config.loss={'name': 'relative_l2'}",
            "--config.model={'name': 'unet', 'in_channels': 1, 'num_axes': 1}",
            "--config.model.num_axes=3",
        ]
    )
    assert dict(config.loss) == {"name": "relative_l2"}
    assert dict(config.model) == {"name": "unet", "in_channels": 1, "num_axes": 3}
    for bad in ("loss={'nam': 'l2'}", "loss={", "data={'name': 'x'}", "loss=3"):
        with pytest.raises(loading.ConfigError, match=r"dict of literals|is a section"):
            loading.from_arguments(
                ["--config=configs/mgno_darcy.py", f"--config.{bad}"]
            )


def test_data_come_from_a_config_or_a_path_but_not_both():
    config = loading.load("configs/mgno_darcy.py:quick")
    assert data.dataset_folder(config.data) == Path("data/darcy_smooth_quick")
    with config.data.unlocked():
        config.data.path = "mine.npz"
    with pytest.raises(ValueError, match="the other one empty"):
        data.dataset_folder(config.data)
    config.data.config = ""
    assert data.dataset_folder(config.data) == Path("mine.npz")


def test_configs_of_other_commands_are_refused_by_training():
    for name in ("configs/refine_ns_forced.py:quick", "configs/data/ns_forced.py"):
        config, _ = loading.from_arguments(["--config", name])
        with pytest.raises(ValueError, match="trains no model"):
            checks.experiment(config)
