import importlib

import numpy as np
import pytest

from configs import common
from datagen import problems
from solvers.sequence import METHODS, create

CONFIGS = ("darcy_smooth", "darcy_rough", "darcy_lognormal")
VARIANTS = ("full", "small", "quick")


def load(name, *variant):
    return importlib.import_module(f"configs.data.{name}").get_config(*variant)


def problem_of(config):
    settings = config.problem.to_dict()
    return problems.create(settings.pop("name"), **settings)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", CONFIGS)
def test_config_describes_a_problem_and_how_to_solve_it(name, variant):
    config = load(name, variant)
    assert set(config) == {
        "name",
        "seed",
        "splits",
        "shard_size",
        "problem",
        "solver",
        "storage",
    }
    assert config.name == name
    assert set(config.splits) == {"train", "valid", "test"}
    assert min(config.splits.values()) >= 8
    assert 8 <= config.shard_size <= 128
    problem = problem_of(config)
    assert problem.matrices == "spd"  # as mg_pcg needs it
    assert set(config.solver) == set(common.solver())
    assert config.solver.method in METHODS
    assert 0 < config.solver.rtol <= config.solver.accept_rtol < 1e-6
    assert config.solver.stop == "residual"
    assert config.storage.dtype == "float32"


@pytest.mark.parametrize("name", CONFIGS)
def test_no_variant_means_full(name):
    assert load(name).to_dict() == load(name, "full").to_dict()


@pytest.mark.parametrize("name", CONFIGS)
def test_quick_sample_is_solved_by_the_named_method(name):
    config = load(name, "quick")
    problem = problem_of(config)
    sample = problem.sample(np.random.default_rng(config.seed))
    system = problem.system(sample)
    solver = create(config.solver.method)
    x, record = solver.solve(
        system, rtol=config.solver.rtol, maxiter=config.solver.maxiter or None
    )
    solver.close()
    assert record.converged
    assert system.relative_residual(x) <= config.solver.accept_rtol
    reference, _ = create("direct").solve(system, rtol=1e-12)
    np.testing.assert_allclose(x, reference, rtol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_variants_differ_in_size_alone(name):
    full, small, quick = (load(name, variant).to_dict() for variant in VARIANTS)
    assert [c["problem"].pop("n") for c in (full, small, quick)][1:] == [129, 33]
    for config in (full, small, quick):
        del config["splits"], config["shard_size"]
    assert full == small == quick


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", ["composites", "composites_3d", "heat"])
def test_interfaces_of_inclusions_lie_on_cell_faces(name, variant):
    problem = load(name, variant).problem
    assert problem.n % (5 * problem.num_inclusions) == 0


@pytest.mark.parametrize("name", CONFIGS)
def test_grids_nest_under_subsampling_by_two(name):
    for variant in VARIANTS:
        x = problem_of(load(name, variant)).coordinates["x"][::2]
        assert (x[0], x[-1]) == (0, 1)


def test_sets_use_different_seeds():
    assert len({load(name).seed for name in CONFIGS}) == len(CONFIGS)


def test_published_numbers():
    """Values and sizes of the sets of Li et al. (2021) and He et al. (2024)."""
    smooth, rough = load("darcy_smooth").problem, load("darcy_rough").problem
    assert (smooth.n, smooth.alpha, smooth.tau) == (421, 2.0, 3.0)
    assert tuple(smooth["values"]) == (12.0, 3.0)
    assert (rough.n, rough.alpha, rough.tau) == (513, 2.0, 5.0)
    assert tuple(rough["values"]) == (12.0, 2.0)


@pytest.mark.parametrize("name", CONFIGS)
def test_compatible_mode_is_three_overrides_away(name):
    config = load(name, "quick")
    config.problem.mode = "fno_compat"
    config.problem.face_mean = "arithmetic"
    config.solver.method = "direct"
    assert problem_of(config).matrices == "symmetric"


@pytest.mark.parametrize("name", CONFIGS)
def test_misspelt_keys_and_unknown_variants_fail(name):
    config = load(name, "quick")
    with pytest.raises(AttributeError, match='Key "taw" does not exist'):
        config.problem.taw = 3.0
    with pytest.raises(ValueError, match="unknown variant 'tiny'; known: full, small"):
        load(name, "tiny")


@pytest.mark.slow
def test_statistics_of_the_rough_set():
    """Expected: an independent implementation on 256^2 cells, 40 samples.

    Mean u 0.0070 (from sample to sample 0.0009), standard deviation inside a field
    0.0046, mean of the largest u 0.0163, share of the first phase 0.49.
    """
    settings = load("darcy_rough").problem.to_dict() | {"n": 257}
    problem, solver = problems.create(**settings), create("mg_pcg")
    rows = []
    for seed in range(80):
        sample = problem.sample(np.random.default_rng(seed))
        x, _ = solver.solve(problem.system(sample), rtol=1e-6)
        u = problem.fields_from_solution(sample, x)["solution"]
        share = (sample["coefficient"] == 12).mean()
        rows.append([u.mean(), u.std(), u.max(), share])
    means, spreads = np.mean(rows, axis=0), np.std(rows, axis=0)
    assert means[0] == pytest.approx(0.0070, abs=3e-4)  # 0.0009 / sqrt(40) = 1.4e-4
    assert 5e-4 < spreads[0] < 1.1e-3
    assert means[1] == pytest.approx(0.0046, abs=2e-4)
    assert means[2] == pytest.approx(0.0163, abs=7e-4)
    assert means[3] == pytest.approx(0.495, abs=0.015)
