import importlib
import json
import weakref

import numpy as np
import pytest
import scipy.sparse.linalg as spla
from exact import factor
from exact import factored_solve as solve

from datagen import problems
from datagen.methods import choose
from datagen.problems.helmholtz import Helmholtz, helmholtz_operator
from datagen.problems.helmholtz_sweep import MAX_CACHED_MEDIA, HelmholtzSweep
from solvers.sequence import create

SMALL = {"n": 65, "wavelengths": 4.0, "num_frequencies": 5}


def num_products(system, preconditioner):
    A, count = system.to_csr(), []
    operator = spla.LinearOperator(
        A.shape,
        lambda v: count.append(1) or A @ preconditioner.solve(v),
        dtype=A.dtype,
    )
    b = system.rhs.ravel()
    _, info = spla.gmres(operator, b, rtol=1e-8, restart=80, maxiter=1)
    assert info == 0
    return len(count)


def test_steps_span_the_band_and_include_its_ends():
    problem = HelmholtzSweep(**SMALL, delta=0.02)
    np.testing.assert_allclose(problem.steps, [0.99, 0.995, 1.0, 1.005, 1.01])
    assert problem.num_systems == 5
    assert problem.step_name == "frequency"


def test_each_step_is_the_single_problem_at_its_frequency():
    """The single problem with the wave number of that frequency, boundary included."""
    sweep = HelmholtzSweep(**SMALL, delta=0.1)
    single = Helmholtz(n=65, wavelengths=4.0, eta=0.1, damping=0.3)
    sample = sweep.sample(np.random.default_rng(0))
    for step, factor_of_step in enumerate((0.95, 0.975, 1.0, 1.025, 1.05)):
        system = sweep.system(sample, step)
        k = factor_of_step * sample["wave_number"]
        expected = single.system({"wave_number": k})
        np.testing.assert_allclose(
            system.operator.coefficients, expected.operator.coefficients, rtol=1e-14
        )
        np.testing.assert_array_equal(system.rhs, expected.rhs)


def test_medium_is_that_of_the_single_problem():
    sweep = HelmholtzSweep(**SMALL)
    single = Helmholtz(n=65, wavelengths=4.0, eta=0.1)
    ours, theirs = (p.sample(np.random.default_rng(1)) for p in (sweep, single))
    np.testing.assert_array_equal(ours["wave_number"], theirs["wave_number"])
    np.testing.assert_array_equal(sweep.features(ours), single.features(theirs))


def test_frequencies_of_a_sample_share_one_preconditioning_matrix():
    problem = HelmholtzSweep(**SMALL)
    rng = np.random.default_rng(2)
    first, second = problem.sample(rng), problem.sample(rng)
    matrices = [problem.system(first, step).preconditioning_matrix for step in range(5)]
    other = problem.system(second).preconditioning_matrix
    again = problem.system(first, 3).preconditioning_matrix
    assert all(matrix is matrices[0] for matrix in [*matrices, again])
    assert abs(other - matrices[0]).max() > 1
    k = first["wave_number"]
    expected = helmholtz_operator(k, (1 / 64, 1 / 64), 0.5).to_csr()
    assert abs(matrices[0] - expected).max() == 0


def test_undamped_matrix_is_that_of_the_middle_frequency():
    problem = HelmholtzSweep(**SMALL, damping=0.0)
    system = problem.system(problem.sample(np.random.default_rng(3)), 2)
    gap = abs(system.preconditioning_matrix - system.to_csr()).max()
    assert gap <= 1e-12 * abs(system.to_csr()).max()


def test_old_media_are_forgotten_and_never_mistaken():
    """Ids of freed arrays are given again, so arrays live as long as their matrices."""
    problem, rng = HelmholtzSweep(**SMALL), np.random.default_rng(4)
    references = []
    for _ in range(3 * MAX_CACHED_MEDIA):
        k = problem.sample(rng)["wave_number"]
        matrix = problem.mid_frequency_matrix(k)
        expected = helmholtz_operator(k, (1 / 64, 1 / 64), 0.5).to_csr()
        assert abs(matrix - expected).max() == 0
        references.append(weakref.ref(k))
    del k
    alive = [reference() is not None for reference in references]
    assert alive == [False] * 2 * MAX_CACHED_MEDIA + [True] * MAX_CACHED_MEDIA
    assert len(problem._media) == MAX_CACHED_MEDIA


def test_one_factorisation_nearly_solves_a_narrow_band():
    """Measured at 4 wavelengths: 3 to 6 products in a band of 2 %, 37 when damped."""
    problem = HelmholtzSweep(**SMALL, damping=0.0)
    sample = problem.sample(np.random.default_rng(5))
    systems = [problem.system(sample, step) for step in range(5)]
    frozen = factor(systems[0].preconditioning_matrix)
    counts = [num_products(system, frozen) for system in systems]
    assert max(counts) <= 8
    assert counts[2] <= 2  # the middle itself
    damped = HelmholtzSweep(**SMALL, damping=0.5)
    shifted = factor(damped.system(sample).preconditioning_matrix)
    assert 20 < num_products(systems[0], shifted) < 60


def test_solutions_vary_smoothly_over_the_band():
    """Differences shrink with the square of the step where lines are taken out."""
    problem = HelmholtzSweep(**SMALL)
    sample = problem.sample(np.random.default_rng(6))
    u = np.stack([solve(problem.system(sample, step)) for step in range(5)])
    scale = np.linalg.norm(u[2])
    first = np.linalg.norm(u[3] - u[2]) / scale
    curvature = np.linalg.norm(u[3] - 2 * u[2] + u[1]) / scale
    assert 0.01 < first < 0.5
    assert curvature < 0.3 * first


def test_fields_have_a_step_axis_where_they_vary():
    problem = HelmholtzSweep(**SMALL)
    sample = problem.sample(np.random.default_rng(7))
    x = np.arange(5 * 65 * 65).reshape(5, 65, 65) * (1 + 2j)
    fields = problem.fields_from_solution(sample, x)
    assert [spec.name for spec in problem.fields] == list(fields)
    for spec in problem.fields:
        expected = (5, 65, 65) if spec.time_varying else (65, 65)
        assert fields[spec.name].shape == expected
    np.testing.assert_array_equal(fields["solution_imag"], 2 * fields["solution_real"])
    np.testing.assert_array_equal(fields["wave_number"], sample["wave_number"])


def test_problem_describes_itself():
    problem = problems.create("helmholtz_sweep", **SMALL)
    assert (problem.name, problem.matrices, problem.preconditioner) == (
        "helmholtz_sweep",
        "general",
        "lu",
    )
    assert "du/dn = i s k u" in problem.equation
    assert "(s k(x))^2" in problem.equation
    assert "5 frequency factors s from 0.99 to 1.01" in problem.equation
    assert problem.scalars["delta"] == 0.02
    assert "middle frequency" in problem.fields[0].description


def test_settings_make_the_problem_again():
    problem = HelmholtzSweep(**SMALL, delta=0.1, source="random")
    settings = json.loads(json.dumps(problem.settings))
    assert problems.create("helmholtz_sweep", **settings) == problem


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"delta": 0.0}, "delta is 0.0; expected 0 < delta < 1"),
        ({"delta": 1.0}, "delta is 1.0"),
        ({"num_frequencies": 1}, "num_frequencies is 1; expected a whole number"),
        ({"num_frequencies": 2.5}, "num_frequencies is 2.5"),
        ({"n": 129}, "n is 129: .* set n to at least 143"),
        ({"family": "grv"}, "family is 'grv'"),
    ],
)
def test_rejects_impossible_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        problems.create("helmholtz_sweep", **settings)


@pytest.mark.parametrize("step", [-1, 5])
def test_rejects_steps_outside_the_band(step):
    problem = HelmholtzSweep(**SMALL)
    with pytest.raises(ValueError, match=f"step is {step}; expected 0 to 4"):
        problem.system(problem.sample(np.random.default_rng(8)), step)


@pytest.mark.parametrize("variant", ["full", "small", "quick"])
def test_config_describes_a_resolved_problem(variant):
    config = importlib.import_module("configs.data.helmholtz_sweep").get_config(variant)
    problem = problems.create(**config.problem.to_dict())
    assert config.name == problem.name == "helmholtz_sweep"
    assert problem.num_systems == (4 if variant == "quick" else 20)


def test_quick_sample_is_solved_by_the_chosen_method():
    config = importlib.import_module("configs.data.helmholtz_sweep").get_config("quick")
    problem = problems.create(**config.problem.to_dict())
    sample = problem.sample(np.random.default_rng(config.seed))
    choice = choose(config.solver.to_dict(), problem)
    settings = {"preconditioner": problem.preconditioner} | choice["settings"]
    solver = create(choice["method"], **settings)
    for step in range(problem.num_systems):
        system = problem.system(sample, step)
        x, record = solver.solve(system, rtol=config.solver.rtol)
        assert record.converged
        assert record.matvecs <= 20
        assert np.linalg.norm(x - solve(system)) < 1e-6 * np.linalg.norm(x)
    solver.close()
