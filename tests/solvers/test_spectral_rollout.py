import jax
import jax.numpy as jnp
import numpy as np
import pytest

from solvers import spectral
from solvers.spectral import marching

TWO_PI = 2 * np.pi


@pytest.fixture(scope="module")
def burgers():
    return spectral.Burgers1d(spectral.PeriodicGrid((24,), (1.0,)), viscosity=0.05)


@pytest.fixture(scope="module")
def start(burgers):
    x = burgers.grid.mesh()[0]
    return np.stack([np.sin(TWO_PI * x), 2 * np.cos(TWO_PI * x), 0.1 + 0 * x])


TIMES = [0.0, 0.1, 0.25, 0.4]


def test_uneven_times_are_met_and_resampled_on_the_points_asked_for(burgers, start):
    run = spectral.rollout(
        burgers,
        start[2:],
        [0.0, 0.1, 0.25],
        dt=0.011,
        scheme="imex_euler",
        store_shape=np.array([16]),
    )
    assert (run.fields.shape, run.steps) == ((1, 3, 16), 10 + 14)
    np.testing.assert_allclose(run.fields, 0.1, rtol=1e-13)  # the constant stays


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"dt": 1e-9}, ValueError, "dt is 1e-09, which takes 150000000 steps between"),
        ({"dtype": np.float16}, TypeError, "field is float16; expected float32 or"),
    ],
)
def test_endless_runs_and_other_precisions_are_refused(
    burgers, start, changes, error, message
):
    settings = {"dt": 0.1} | changes
    field = start.astype(settings.pop("dtype", float))
    with pytest.raises(error, match=message):
        spectral.rollout(burgers, field, TIMES, **settings)


def test_a_float64_field_is_refused_in_32_bit(burgers, start):
    jax.config.update("jax_enable_x64", False)
    with pytest.raises(RuntimeError, match=r"float64 field .* JAX runs in 32 bit"):
        spectral.rollout(burgers, start, TIMES)


@pytest.mark.slow
def test_fixed_steps_meet_uneven_times_and_resample(burgers, start):
    run = spectral.rollout(
        burgers, start, TIMES, dt=0.011, store_shape=(16,), record=("energy", "cfl")
    )
    assert run.fields.shape == (3, 4, 16)
    assert run.steps == 10 + 14 + 14
    np.testing.assert_allclose(
        run.fields[:, 0], burgers.grid.resample(start, (16,)), atol=1e-14
    )
    # The constant stays, and its CFL number is that of the step of each interval.
    np.testing.assert_allclose(run.fields[2], 0.1, rtol=1e-13)
    steps = np.array([0, 0.01, 0.15 / 14, 0.15 / 14])
    np.testing.assert_allclose(run.diagnostics["cfl"][2], steps * 0.1 * 24, rtol=1e-12)
    np.testing.assert_allclose(run.max_cfl, run.diagnostics["cfl"].max(-1), rtol=1e-14)
    # The same trajectory in two parts.
    first = spectral.rollout(burgers, start, [0.0, 0.1], dt=0.011).fields[:, 1]
    second = spectral.rollout(burgers, first, TIMES[2:], dt=0.011, start=0.1)
    want = burgers.grid.resample(np.asarray(second.fields), (16,))
    np.testing.assert_allclose(run.fields[:, 2:], want, atol=1e-13)
    energy = (np.asarray(second.fields) ** 2).mean(-1) / 2
    np.testing.assert_allclose(run.diagnostics["energy"][:, 2:], energy, rtol=1e-12)


@pytest.mark.slow
def test_adaptive_steps_respect_the_bound_without_compiling_again(burgers, start):
    before = marching._scan_adaptive._cache_size()
    runs = [
        spectral.rollout(burgers, scale * start, TIMES, cfl=cfl)
        for scale, cfl in ((1.0, 0.3), (1.0, 0.05), (3.0, 0.3))
    ]
    assert marching._scan_adaptive._cache_size() == before + 1
    # The speed of these solutions falls with time: no step exceeds the bound.
    for run, cfl in zip(runs, (0.3, 0.05, 0.3), strict=True):
        assert cfl / 2 < float(run.max_cfl.max()) <= cfl * 1.000002
    assert runs[0].steps < runs[2].steps < runs[1].steps
    np.testing.assert_allclose(runs[0].fields, runs[1].fields, atol=1e-5)
    bounded = spectral.rollout(burgers, start, TIMES, cfl=0.3, dt=1e-3)
    assert bounded.steps == 400
    default = spectral.rollout(burgers, start, TIMES)
    assert 0.25 < float(default.max_cfl.max()) <= 0.500001


@pytest.mark.slow
def test_gradient_with_and_without_recomputing(burgers, start):
    field = jnp.asarray(start[0])
    direction = np.random.default_rng(0).normal(size=24)

    def loss(field, equation, checkpoint=False):
        run = spectral.rollout(
            equation, field, [0.05, 0.1], dt=0.01, checkpoint=checkpoint
        )
        return jnp.sum(run.fields**2)

    plain, of_equation = jax.jit(jax.grad(loss, argnums=(0, 1)))(field, burgers)
    again = jax.jit(jax.grad(lambda f: loss(f, burgers, checkpoint=True)))(field)
    np.testing.assert_allclose(again, plain, rtol=1e-12, atol=1e-12)

    def along(s):
        return float(loss(field + s * direction, burgers))

    slope = (along(1e-5) - along(-1e-5)) / 2e-5
    assert float(plain @ direction) == pytest.approx(slope, rel=1e-8)
    others = [
        float(loss(field, spectral.Burgers1d(burgers.grid, 0.05 + s)))
        for s in (1e-6, -1e-6)
    ]
    slope = (others[0] - others[1]) / 2e-6
    assert float(of_equation.viscosity) == pytest.approx(slope, rel=1e-7)


@pytest.mark.slow
def test_says_which_samples_blow_up_and_leaves_the_others_alone(burgers, start):
    alone = spectral.rollout(burgers, start[:1], TIMES, dt=0.011)
    wild = np.stack([start[0], 1e6 * start[1], start[2]])
    with pytest.raises(FloatingPointError, match=r"in samples \[1\] at t = 0.1 \(snap"):
        spectral.rollout(burgers, wild, TIMES, dt=0.011)
    run = spectral.rollout(burgers, wild, TIMES, dt=0.011, allow_nonfinite=True)
    assert np.isnan(run.fields[1, -1]).all()
    np.testing.assert_allclose(run.fields[0], alone.fields[0], atol=1e-14)
    # With adaptive steps a sample beyond all reason does not hold the others up.
    run = spectral.rollout(burgers, wild, TIMES, cfl=0.3, allow_nonfinite=True)
    assert run.steps < 1000
    assert np.isnan(run.fields[1, -1]).all()
    np.testing.assert_allclose(run.fields[0], alone.fields[0], atol=1e-5)


@pytest.mark.slow
def test_samples_that_need_too_many_steps_are_marked(monkeypatch):
    monkeypatch.setattr(marching, "MAX_STEPS", 12)
    burgers = spectral.Burgers1d(spectral.PeriodicGrid((20,), (1.0,)), viscosity=0.05)
    x = burgers.grid.mesh()[0]
    field = np.stack([np.cos(TWO_PI * x), 2 * np.cos(TWO_PI * x)])
    # By its speed the first needs 0.2 * 20 / 0.5 = 8 steps, the second 16.
    run = spectral.rollout(burgers, field, [0.2], cfl=0.5, allow_nonfinite=True)
    assert 8 <= run.steps <= 10
    assert np.isfinite(run.fields[0]).all()
    assert np.isnan(run.fields[1]).all()


@pytest.mark.slow
def test_single_precision_stays_single_and_close(burgers, start):
    exact = spectral.rollout(burgers, start, TIMES, dt=1e-4)
    run = spectral.rollout(
        burgers, start.astype(np.float32), TIMES, dt=1e-4, record=("energy", "balance")
    )
    assert run.fields.dtype == run.diagnostics["balance"].dtype == np.float32
    # 4000 steps, factors near 1: rounding does not add up.
    np.testing.assert_allclose(run.fields, exact.fields, atol=3e-6)
    assert float(run.diagnostics["balance"].max()) < 1e-4


@pytest.mark.slow
def test_forcing_in_time_is_integrated_to_the_order_of_the_scheme():
    # f = cos(t) g with g of one wave vector: nothing is advected from rest.
    grid = spectral.PeriodicGrid((8, 8), (1.0, 1.0))
    x, y = grid.mesh()
    g = np.sin(TWO_PI * (x + y))
    equation = spectral.NavierStokes2d(
        grid, viscosity=0.01, forcing=lambda time: jnp.cos(5 * time) * g
    )
    rate = 8 * np.pi**2 * 0.01
    end = (rate * np.cos(5) + 5 * np.sin(5) - rate * np.exp(-rate)) / (rate**2 + 25)
    errors = []
    for dt in (0.1, 0.05):
        run = spectral.rollout(equation, 0 * g, [1.0], dt=dt)
        errors.append(float(abs(run.fields[0] - end * g).max()))
    assert abs(np.log2(errors[0] / errors[1]) - 4) < 0.2, errors


def test_refuses_what_it_cannot_do(burgers, start):
    def refused(match, *, error=ValueError, field=start, times=TIMES, **settings):
        with pytest.raises(error, match=match):
            spectral.rollout(burgers, field, times, **settings)

    refused("times must be increasing numbers from start = 0.0", times=[0.2, 0.1])
    refused("from start = 0.3 on", start=0.3)
    refused("times must be", times=[])
    refused("dt is 0", dt=0)
    refused("cfl is -1", cfl=-1)
    refused("record is 'energy'", record="energy")
    refused(r"expected some of \('energy', 'cfl', 'balance'\)", record=("mass",))
    refused("unknown scheme 'rk4'", scheme="rk4")
    refused("1 numbers of points", store_shape=(8, 8))
    refused(r"\[\.\.\., 24\]", field=start[:, :8])
    refused("real floating-point", error=TypeError, field=start.astype(complex))


@pytest.mark.slow
def test_adaptive_steps_follow_a_flow_that_starts_from_rest():
    # One interval, no velocity to measure at its start: the force limits the steps.
    grid = spectral.PeriodicGrid((16, 16), (1.0, 1.0))
    x, y = grid.mesh()
    f = 20 * np.sin(TWO_PI * (x + y))
    equation = spectral.NavierStokes2d(grid, viscosity=np.float64(1e-3), forcing=f)
    rate = 8 * np.pi**2 * 1e-3
    field = np.zeros((16, 16), np.float32)
    run = spectral.rollout(equation, field, [2.0], cfl=0.5, record=("energy", "cfl"))
    assert run.fields.dtype == np.float32
    want = -f * np.expm1(-2 * rate) / rate
    np.testing.assert_allclose(run.fields[0], want, atol=1e-5 * abs(want).max())
    speed = abs(want).max() / (TWO_PI * np.sqrt(2)) * 16  # / spacing
    # Half the last speed on average.
    assert 0.8 < run.steps / (2 * speed / 2 / 0.5) < 1.5
    assert 0.3 < float(run.max_cfl) < 0.63
    assert float(run.diagnostics["cfl"][0]) == float(run.max_cfl)
