import json

import h5py
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from datagen import problems
from datagen.cli import main
from datagen.problems.heat import Heat
from solvers.sequence import LinearSystem, create


def direct(system):
    x, record = create("direct").solve(system, rtol=1e-11)
    assert record.converged
    return x


def march(problem, sample, source=None):
    """All steps [num_steps, *n]; `source` from times replaces the problem's own."""
    solutions, previous = [], None
    for step in range(problem.num_systems):
        system = problem.system(sample, step, previous)
        b = system.rhs
        if source is not None:
            b = b - problem.source(sample, step) + source(problem.steps[step])
        previous = direct(LinearSystem(system.operator, b))
        solutions.append(previous)
    return np.stack(solutions)


def cells(n, num_dims):
    return np.meshgrid(*[(np.arange(n) + 0.5) / n] * num_dims, indexing="ij")


def orders(errors):
    return np.log2(np.divide(errors[:-1], errors[1:]))


@pytest.mark.parametrize("num_dims", [2, 3])
def test_first_order_in_time(num_dims):
    """A = 1 and an eigenvector of the matrix: no error in space at all."""
    n, errors = 6, []
    w = np.prod([np.sin(np.pi * x) for x in cells(n, num_dims)], axis=0)
    eigenvalue = num_dims * (2 * n * np.sin(np.pi / (2 * n))) ** 2
    for num_steps in (40, 80, 160):
        problem = Heat(
            n=n,
            num_dims=num_dims,
            num_inclusions=1,
            contrasts=(1.0, 1.0),
            drift=0.0,
            time_step=1 / num_steps,
            num_steps=num_steps,
        )
        sample = problem.sample(np.random.default_rng(0))
        u = march(
            problem,
            sample,
            lambda t: (3 * np.cos(3 * t) + eigenvalue * np.sin(3 * t)) * w,
        )
        errors.append(np.abs(u[-1] - np.sin(3.0) * w).max())
    np.testing.assert_allclose(orders(errors), 1.0, atol=0.07)


def test_second_order_in_space():
    """u = t p / a, linear in time; p vanishes on the interface, a = 1000 inside."""
    errors = []
    for n in (20, 40, 80):
        problem = Heat(
            n=n,
            num_dims=2,
            num_inclusions=1,
            contrasts=(1e3, 1e3),
            drift=0.0,
            time_step=0.1,
            num_steps=3,
        )
        sample = problem.sample(np.random.default_rng(1))
        a = problem.coefficient(sample, 0)
        p = np.polynomial.Polynomial.fromroots([0, 0.2, 0.8, 1])
        x, y = cells(n, 2)
        f = -p.deriv(2)(x) * p(y) - p(x) * p.deriv(2)(y)
        exact = 100 * p(x) * p(y) / a
        u = march(problem, sample, lambda t, exact=exact, f=f: exact + 100 * t * f)
        errors.append(np.linalg.norm(u[-1] - 0.3 * exact) / n)
    np.testing.assert_allclose(orders(errors), 2.0, atol=0.1)


def test_steps_approach_the_solution_of_the_ordinary_differential_equations():
    """SciPy's implicit Runge-Kutta method of order 5 on the same grid."""
    common = {"n": 6, "num_dims": 2, "num_inclusions": 2, "drift": 0.0}
    duration, errors = 0.2, []
    for num_steps in (20, 40):
        time_step = duration / num_steps
        problem = Heat(**common, num_steps=num_steps, time_step=time_step)
        sample = problem.sample(np.random.default_rng(2))
        A = problem.system(sample).operator.to_csr().toarray()
        A -= np.eye(len(A)) / time_step
        start, end = sample["source_path"]
        x = np.stack(cells(6, 2))

        def rate(t, u, A=A, start=start, end=end, x=x):
            center = start + (end - start) * t / duration
            gap = x - center[:, None, None]
            return np.exp(-(gap**2).sum(axis=0) / 0.02).ravel() - A @ u

        reference = solve_ivp(
            rate, (0, duration), np.zeros(36), method="Radau", rtol=1e-8, atol=1e-12
        ).y[:, -1]
        u = march(problem, sample)[-1].ravel()
        errors.append(np.linalg.norm(u - reference) / np.linalg.norm(reference))
    assert errors[0] < 0.05
    assert orders(errors)[0] == pytest.approx(1.0, abs=0.15)


def test_contrasts_walk_by_the_drift():
    problem = Heat(n=9, num_steps=200, drift=0.02)
    sample = problem.sample(np.random.default_rng(3))
    logs = sample["log_contrasts"] * np.log(10)
    assert logs.shape == (200, 27)
    assert np.log(1e3) <= logs[0].min() < logs[0].max() <= np.log(1e4)
    steps = np.diff(logs, axis=0)
    np.testing.assert_allclose(np.abs(steps), 0.02, rtol=1e-9)
    assert np.mean(steps > 0) == pytest.approx(0.5, abs=0.03)
    a = problem.coefficient(sample, 7)
    assert a[1, 1, 1] == pytest.approx(10 ** sample["log_contrasts"][7, 0])
    assert a[0, 0, 0] == 1


def test_the_source_moves_from_one_point_to_the_other():
    problem = Heat(n=40, num_dims=2, num_steps=10)
    sample = problem.sample(np.random.default_rng(4))
    start, end = sample["source_path"]
    x = np.stack(cells(40, 2))
    for step in (0, 4, 9):
        peak = x[
            (
                slice(None),
                *np.unravel_index(problem.source(sample, step).argmax(), (40, 40)),
            )
        ]
        where = start + (end - start) * (step + 1) / 10
        assert np.abs(peak - where).max() <= 0.5 / 40 + 1e-12


def test_constant_matrices_are_one_object_per_sample():
    problem = Heat(n=9, num_steps=3, drift=0.0)
    first, second = (problem.sample(np.random.default_rng(seed)) for seed in (5, 6))
    operator = problem.system(first).operator
    assert problem.system(first, 2, np.ones(problem.n)).operator is operator
    other = problem.system(second).operator
    assert other is not operator
    assert not np.array_equal(other.coefficients, operator.coefficients)
    drifting = Heat(n=9, num_steps=3)
    sample = drifting.sample(np.random.default_rng(5))
    pair = [drifting.system(sample, step).operator for step in (0, 1)]
    assert not np.array_equal(pair[0].coefficients, pair[1].coefficients)


def test_matrices_are_symmetric_positive_definite():
    problem = Heat(n=6, num_inclusions=2, num_steps=2)
    system = problem.system(problem.sample(np.random.default_rng(7)), 1)
    A = system.to_csr().toarray()
    np.testing.assert_array_equal(A, A.T)
    assert np.linalg.eigvalsh(A).min() > 1 / problem.time_step


def test_previous_solution_enters_the_right_side_alone():
    problem = Heat(n=9, num_dims=2, num_steps=2)
    sample = problem.sample(np.random.default_rng(8))
    start, later = (problem.system(sample, 1, u) for u in (None, np.ones(problem.n)))
    np.testing.assert_allclose(later.rhs - start.rhs, 1 / 0.01)
    np.testing.assert_array_equal(
        later.operator.coefficients, start.operator.coefficients
    )


@pytest.mark.parametrize("drift", [0.0, 0.02])
def test_fields_have_steps_where_they_vary(drift):
    problem = Heat(n=(9, 10), num_steps=4, drift=drift)
    sample = problem.sample(np.random.default_rng(9))
    fields = problem.fields_from_solution(sample, np.ones((4, 9, 10)))
    for spec in problem.fields:
        expected = (4, 9, 10) if spec.time_varying else (9, 10)
        assert fields[spec.name].shape == expected
    assert problem.fields[0].time_varying == (drift > 0)
    np.testing.assert_allclose(problem.steps, [0.01, 0.02, 0.03, 0.04])
    assert (problem.num_systems, problem.step_name) == (4, "time")
    assert problem.features(sample).shape == (9,)
    settings = json.loads(json.dumps(problem.settings))
    assert problems.create("heat", **settings) == problem


def test_a_trajectory_is_generated_and_stored(tmp_path):
    root = tmp_path / "heat"
    arguments = ["generate", "--config", "configs/data/heat.py:quick", "--out"]
    arguments += [str(root), "--config.splits.train=2", "--config.splits.valid=1"]
    arguments += ["--config.splits.test=1", "--config.solver.method=direct"]
    assert main(arguments) == 0
    with h5py.File(next((root / "data/train").glob("*.hdf5"))) as file:
        u = file["t0_fields/solution"][0]
        assert u.shape == (6, 20, 20)
        times = file["dimensions/time"]
        np.testing.assert_allclose(times, 0.01 * np.arange(1, 7), rtol=1e-6)
        assert times.attrs["step_name"] == "time"
        a, f = (file[f"t0_fields/{name}"][0] for name in ("coefficient", "source"))
        assert a.shape == f.shape == u.shape
    # Implicit Euler, written out for step 3 in the middle cells of the stored arrays.
    flux = 0.0
    for axis in (1, 2):
        p, q = np.roll(a[3], 1, axis - 1), np.roll(a[3], -1, axis - 1)
        v, w = np.roll(u[3], 1, axis - 1), np.roll(u[3], -1, axis - 1)
        flux += 2 * a[3] * p / (a[3] + p) * (v - u[3]) * 400.0
        flux += 2 * a[3] * q / (a[3] + q) * (w - u[3]) * 400.0
    rate = (u[3].astype(float) - u[2]) / 0.01
    gap = (rate - flux - f[3])[1:-1, 1:-1]
    outside = a[3][1:-1, 1:-1] == 1  # fluxes inside drown in the rounding of float32
    assert np.abs(gap[outside]).max() < 1e-2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"walls": "open"}, "walls is 'open'; known: "),
        ({"n": 8}, "need at least 9 cells"),
        ({"num_dims": 1}, "num_dims is 1"),
        ({"drift": -0.1}, "drift is -0.1; expected zero or more"),
        ({"time_step": 0.0}, "time_step is 0.0"),
        ({"num_steps": 0}, "num_steps is 0"),
        ({"contrasts": (-1.0, 1.0)}, "expected two positive numbers"),
    ],
)
def test_rejects_impossible_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        Heat(**settings)
