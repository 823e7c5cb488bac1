"""Burgers' equation against the Cole-Hopf solution."""

import numpy as np
import pytest

from datagen import problems
from datagen.initial_fields import fourier_series
from datagen.problems.base import TimeStepping
from datagen.problems.burgers import Burgers, cole_hopf

STEP = TimeStepping("if_rk4", 2e-3, None)  # quick to compile


def test_cole_hopf_solution_of_one_decaying_wave():
    """phi = 1 + a exp(-nu k^2 t) cos k x gives u = -2 nu phi_x / phi in closed form."""
    viscosity, k, a, time = 0.02, 2 * np.pi, 0.8, 0.3

    def exact(x, t):
        decayed = a * np.exp(-viscosity * k**2 * t)
        top = 2 * viscosity * k * decayed * np.sin(k * x)
        return top / (1 + decayed * np.cos(k * x))

    n = 256
    modes = np.fft.rfft(exact(np.arange(n) / n, 0.0), norm="forward")[:100]
    modes[0] = 0
    x = np.array([0.0, 0.11, 0.5, 0.73])
    found = cole_hopf(modes, x, time, viscosity, 512)
    np.testing.assert_allclose(found, exact(x, time), atol=1e-12)


@pytest.fixture(scope="module")
def evolved():
    """Three initial fields up to mode n / 2: (problem, samples, evolution)."""
    import jax

    jax.config.update("jax_enable_x64", True)
    problem = Burgers(
        n=32, solver_n=128, viscosity=0.05, alpha=2.5, tau=7.0, sigma=49.0,
        num_modes=16, first_time=0.2, frame_spacing=0.2, num_frames=3,
    )  # fmt: skip
    samples = [problem.sample(np.random.default_rng(i)) for i in range(3)]
    return problem, samples, problem.evolve(samples, STEP)


def test_trajectories_agree_with_cole_hopf(evolved):
    problem, samples, evolution = evolved
    x = problem.coordinates["x"]
    solution = evolution.fields["solution"]
    assert solution.shape == (3, 3, 32)
    for sample, trajectory in zip(samples, solution, strict=True):
        for time, found in zip(problem.steps, trajectory, strict=True):
            exact = cole_hopf(sample["modes"], x, time, 0.05, 512)
            np.testing.assert_allclose(found, exact, atol=1e-7)


def test_initial_field_is_that_of_the_sample_and_energy_decays(evolved):
    problem, samples, evolution = evolved
    expected = [fourier_series(s["modes"], (128,))[::4] for s in samples]
    np.testing.assert_allclose(evolution.fields["initial"], expected, atol=1e-14)
    quality = evolution.quality
    assert set(quality) == set(problem.quality_columns)
    assert (quality["energy_last"] < quality["energy_first"]).all()
    assert (evolution.defect < 1e-4).all()
    assert quality["spectrum_tail"].max() < 1e-6
    np.testing.assert_array_equal(evolution.steps, 300)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Burgers(viscosity=0.0), "viscosity is 0.0"),
        (lambda: Burgers(n=2), "n is 2; expected a whole number of at least 4"),
        (lambda: Burgers(solver_n=256), "keeps 85 modes"),
        (lambda: Burgers(n=2048), "n is 2048, but solver_n is 1024; expected no more"),
        (lambda: Burgers(first_time=0.0), "first_time is 0.0; expected a positive"),
        (lambda: Burgers(alpha=0.4), "needs alpha > 0.5"),
        (lambda: cole_hopf(np.array([0, 1j]), np.zeros(1), 0.0, 1.0, 8), "time is 0.0"),
        (lambda: cole_hopf(np.array([1, 1j]), np.zeros(1), 1.0, 1.0, 8), "mean of the"),
    ],
)
def test_bad_settings_are_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "changes", "points", "tolerance"),
    [
        ("burgers", {"n": 1024, "solver_n": 1024, "num_modes": 341}, 4096, 1e-9),
        ("burgers_script", {"n": 4096}, 16384, 1e-10),
    ],
)
def test_published_measures_agree_with_cole_hopf(name, changes, points, tolerance):
    """At t = 1, relative to the largest value of the solution."""
    import importlib

    config = importlib.import_module(f"configs.data.{name}").get_config()
    settings = config.problem.to_dict() | changes
    problem = problems.create(settings.pop("name"), **settings)
    samples = [problem.sample(np.random.default_rng(i)) for i in range(2)]
    step = TimeStepping(config.solver.scheme, config.solver.dt, None)
    evolution = problem.evolve(samples, step)
    assert (evolution.defect < config.solver.accept).all()
    stride = problem.n // 64
    x = problem.coordinates["x"][::stride]
    for sample, found in zip(samples, evolution.fields["solution"], strict=True):
        exact = cole_hopf(sample["modes"], x, 1.0, problem.viscosity, points)
        error = np.abs(found[-1, ::stride] - exact).max()
        assert error < tolerance * max(1.0, np.abs(exact).max())
