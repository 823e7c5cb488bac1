"""Residuals of trajectories: zero for solutions, closed forms, orders, gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from operators.training.refinement import residuals
from solvers import spectral

LENGTHS = (2.0, 3.0)
GRID = spectral.PeriodicGrid(shape=(10, 8), lengths=LENGTHS)
EQUATION = spectral.NavierStokes2d(GRID, viscosity=0.02)
TIMES = np.array([0.5, 0.6, 0.7, 0.8, 0.95, 1.1])  # two different spacings


def flow(grid=GRID, seed=0):
    """A smooth random vorticity without mean, the size of 1."""
    x, y = (2 * np.pi * c / p for c, p in zip(grid.mesh(), LENGTHS, strict=True))
    a, b, c = np.random.default_rng(seed).uniform(0.5, 1, 3)
    return a * np.cos(x) * np.cos(y) + b * np.sin(x + 2 * y) + c * np.cos(2 * x - y)


@functools.cache
def compiled(kind, equation=EQUATION, times=tuple(TIMES), **settings):
    """The residual, and the function frames -> fields."""
    residual = residuals.create(kind, equation, times, **settings)
    return residual, jax.jit(residual)


@pytest.mark.slow
def test_defect_takes_each_frame_to_the_time_of_the_next():
    _, fields = compiled("defect", scheme="imex_euler", substeps=2)
    step = jax.jit(spectral.stepper("imex_euler")(EQUATION, 0.05))
    state = EQUATION.to_state(jnp.asarray(flow()))
    frames = [flow()]
    for num in (2, 2, 2, 3, 3):
        for _ in range(num):
            state = step(state, 0.0)
        frames.append(EQUATION.to_field(state))
    # The last two took steps of the wrong length for two per frame.
    frames = jnp.asarray(np.stack(frames))
    sizes = np.abs(fields(frames)).max((1, 2))
    assert (sizes[:3] < 1e-12).all()
    assert (sizes[3:] > 1e-4).all()
    assert (sizes[3:] < 0.3).all()
    # A change of one frame shows in its residual and in the next one, nowhere else.
    change = fields(frames.at[2].add(1e-3 * flow(seed=1))) - fields(frames)
    np.testing.assert_allclose(change[1], 1e-3 * flow(seed=1) / 0.1, atol=1e-12)
    sizes = np.abs(change).max((1, 2))
    assert sizes[2] > 1e-3
    assert (sizes[[0, 3, 4]] < 1e-12).all()


@pytest.mark.slow
def test_defect_takes_any_leading_axes():
    _, fields = compiled("defect", scheme="imex_euler", substeps=2)
    frames = jnp.asarray(np.random.default_rng(3).normal(size=(1, 2, 6, *GRID.shape)))
    together = fields(frames)
    assert together.shape == (1, 2, 5, *GRID.shape)
    for i in range(2):
        np.testing.assert_allclose(together[0, i], fields(frames[0, i]), atol=1e-11)


@pytest.mark.slow
def test_defect_of_a_solution_falls_with_the_substeps():
    grid = spectral.PeriodicGrid(shape=(14, 12), lengths=LENGTHS)
    equation = spectral.NavierStokes2d(grid, viscosity=0.002)
    times = 0.2 * np.arange(4)
    solved = spectral.rollout(
        equation, jnp.asarray(flow(grid)), times, scheme="etdrk4", dt=0.002
    )
    floors = []
    for substeps in (1, 2, 4):
        defect, fields = compiled("defect", equation, tuple(times), substeps=substeps)
        floors.append(float(defect.norm(fields(solved.fields))))
    orders = np.log2(np.divide(floors[:-1], floors[1:]))
    np.testing.assert_allclose(orders, 4.0, atol=0.3)
    assert defect.norm(fields(solved.fields[::-1])) > 1e4 * floors[-1]


@pytest.mark.parametrize("history", [0, 3])
def test_differences_are_exact_for_polynomials_in_time(history):
    known = tuple(0.5 - 0.11 * np.arange(history, 0, -1))
    fd = residuals.create("fd", EQUATION, TIMES, history_times=known)
    times = np.array((*known, *TIMES))
    for power in range(5):
        rates = power * TIMES[1:] ** max(power - 1, 0)
        np.testing.assert_allclose(fd.matrix @ times**power, rates, atol=1e-11)
    width = (fd.matrix != 0).sum(1)
    assert (width <= 5).all()
    # Equal spacings, away from the ends: the textbook's central formula.
    matrix = residuals.create("fd", EQUATION, np.arange(8.0)).matrix
    np.testing.assert_allclose(matrix[2, 1:6] * 12, [1, -8, 0, 8, -1], atol=1e-12)
    np.testing.assert_allclose(matrix[-1, 3:] * 12, [3, -16, 36, -48, 25], atol=1e-11)


@pytest.mark.slow
def test_differences_fall_with_the_spacing_by_their_order():
    wave = jnp.asarray(np.cos(2 * np.pi * GRID.mesh()[0] / LENGTHS[0]))[None]
    decay = EQUATION.viscosity * np.pi**2  # of the wave, whose advection vanishes
    errors = []
    for num in (10, 20):
        times = np.linspace(0, 5, num + 1)
        frames = jnp.asarray(np.exp(-decay * times))[:, None, None] * wave
        fd = residuals.create("fd", EQUATION, times)
        errors.append(float(fd.norm(fd(frames))))
    assert np.log2(errors[0] / errors[1]) == pytest.approx(4.0, abs=0.5)
    assert errors[1] < 1e-5
    # Frames before the last known one make the formula of the first frame central.
    known = times[:3] - times[3]
    fd = residuals.create("fd", EQUATION, times[:8], history_times=known)
    past = jnp.asarray(np.exp(-decay * known))[:, None, None] * wave
    plain = residuals.create("fd", EQUATION, times[:8])(frames[:8])
    first, one_sided = (np.abs(v[0]).max() for v in (fd(frames[:8], past), plain))
    assert first < 0.75 * one_sided


@pytest.mark.slow
@pytest.mark.parametrize("blend", [(0.0, 1.0), (0.5, 0.5), (1.0, 0.0)])
def test_one_step_sees_nothing_but_its_own_step(blend):
    x, y = (2 * np.pi * c / p for c, p in zip(GRID.mesh(), LENGTHS, strict=True))
    wave = jnp.asarray(np.cos(x) * np.cos(y))[None]  # its advection vanishes
    frames = jnp.concatenate([wave, -wave, 3 * wave])  # no solution of anything
    step = 0.2
    residual = residuals.create(
        "one_step", EQUATION, (0.0, 1.0, 2.0), step=step, blend=blend
    )
    rate = -EQUATION.viscosity * np.sum((2 * np.pi / np.array(LENGTHS)) ** 2)
    a = 0.5 * step * rate
    factor = {
        (0.0, 1.0): -rate * a / (1 - a),
        (0.5, 0.5): -rate * a**2 / (1 - a**2),
        (1.0, 0.0): rate * a / (1 + a),
    }[blend]
    np.testing.assert_allclose(residual(frames), factor * frames[1:], atol=1e-13)


def test_norm_weighs_frames_with_their_time():
    defect = residuals.create("defect", EQUATION, TIMES, substeps=1)
    wave = np.cos(2 * np.pi * GRID.mesh()[1] / LENGTHS[1])
    sizes = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    each = np.sqrt(0.5) * LENGTHS[1] / (2 * np.pi) * sizes
    expected = np.sqrt((np.diff(TIMES) * each**2).sum() / 0.6)
    norm = defect.norm(sizes[:, None, None] * wave)
    assert norm == pytest.approx(expected, rel=1e-12)


@pytest.mark.slow
def test_scale_is_the_first_rate():
    defect = residuals.create("defect", EQUATION, TIMES, substeps=1)
    frames = jnp.asarray(np.random.default_rng(4).normal(size=(6, *GRID.shape)))

    @jax.jit
    def rate(field):
        state = EQUATION.to_state(field)
        ahead = EQUATION.to_field(state + 1e-3 * EQUATION.tendency(state))
        return (ahead - EQUATION.to_field(state)) / 1e-3

    expected = defect.norm(np.broadcast_to(rate(frames[0]), (5, *GRID.shape)))
    assert jax.jit(defect.scale)(frames) == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.slow
def test_scale_of_a_steady_start_is_that_of_the_terms_that_cancel():
    wave = np.cos(2 * np.pi * GRID.mesh()[1] / LENGTHS[1])
    drive = 0.02 * (2 * np.pi / LENGTHS[1]) ** 2 * wave
    forced = spectral.NavierStokes2d(GRID, viscosity=0.02, forcing=drive)
    frames = jnp.asarray(np.broadcast_to(wave, (2, 3, *GRID.shape)))
    fd = residuals.create("fd", forced, (0.0, 1.0, 2.0), order=2)
    scale = jax.jit(fd.scale)
    assert (scale(frames) > 1e-4).all()
    assert (scale(frames) < 1e-2).all()
    assert (scale(0 * frames) > 1e-3).all()  # the force is no steady part of it


@pytest.mark.slow
def test_a_flow_that_stays_at_rest_has_no_residual():
    still, _ = compiled("fd", times=(0.0, 1.0, 2.0), order=2)
    assert jax.jit(still.loss)(jnp.zeros((3, *GRID.shape))) == 0


@pytest.mark.parametrize("kind", residuals.KINDS)
def test_all_residuals_take_leading_axes(kind):
    forced = spectral.NavierStokes2d(GRID, 0.02, forcing=np.cos(GRID.mesh()[0]))
    residual = residuals.create(kind, forced, TIMES, **SETTINGS[kind])
    frames = jax.ShapeDtypeStruct((3, 2, 6, *GRID.shape), float)
    both = jax.eval_shape(lambda f: (residual(f), residual.loss(f)), frames)
    assert [v.shape for v in both] == [(3, 2, 5, *GRID.shape), (3, 2)]


SETTINGS = {
    "defect": {"scheme": "imex_euler", "substeps": 2},
    "fd": {},
    "one_step": {"step": 0.1},
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", residuals.KINDS)
def test_losses_have_the_gradients_of_difference_quotients(kind):
    residual, fields = compiled(kind, **SETTINGS[kind])
    frames, direction = np.random.default_rng(2).normal(size=(2, 6, *GRID.shape))
    both = jax.jit(jax.value_and_grad(residual.loss))
    loss, gradient = both(frames)
    ratio = residual.norm(fields(frames)) / residual.scale(jnp.asarray(frames))
    assert loss == pytest.approx(float(ratio), rel=1e-12)
    slope = np.vdot(gradient, direction)
    h = 1e-5
    quotient = (both(frames + h * direction)[0] - both(frames - h * direction)[0]) / h
    assert slope == pytest.approx(float(quotient) / 2, rel=1e-6)
    assert abs(slope) > 1e-3


@pytest.mark.slow
def test_a_forced_steady_flow_has_no_residual_but_for_its_change():
    x, _ = GRID.mesh()
    wave = np.cos(np.pi * x)
    forced = spectral.NavierStokes2d(
        GRID, viscosity=0.02, drag=0.1, forcing=(0.02 * np.pi**2 + 0.1) * wave
    )
    frames = jnp.broadcast_to(jnp.asarray(wave), (5, *GRID.shape))
    for kind, settings in SETTINGS.items():
        residual = residuals.create(kind, forced, np.arange(5.0), **settings)
        assert np.abs(residual(frames)).max() < 1e-13, kind


def test_settings_that_do_not_fit_are_refused():
    create = functools.partial(residuals.create, equation=EQUATION)
    with pytest.raises(ValueError, match=r"'spectral'; known: .'defect'"):
        create("spectral", times=TIMES)
    with pytest.raises(ValueError, match=r"takes no \['step'\]; known: .'checkpoint'"):
        create("defect", times=TIMES, step=1e-3)
    for times in ([1.0], [0.0, 0.0], [0.0, 2.0, 1.0]):
        with pytest.raises(ValueError, match="at least two that rise"):
            create("defect", times=times)
    with pytest.raises(ValueError, match="substeps must be at least 1, but is 0"):
        create("defect", times=TIMES, substeps=0)
    with pytest.raises(ValueError, match="even and below the 3 frames"):
        create("fd", times=[0.0, 1.0, 2.0])
    with pytest.raises(ValueError, match="must rise up to"):
        create("fd", times=TIMES, history_times=(0.7,))
    with pytest.raises(ValueError, match="step must be positive, but is 0"):
        create("one_step", times=TIMES, step=0)
    frames = np.zeros((6, *GRID.shape))
    with pytest.raises(ValueError, match=r"6 times on the grid .* need \[..., 6, 10"):
        create("defect", times=TIMES)(frames[:5])
    with pytest.raises(ValueError, match='take the kind "fd"'):
        create("defect", times=TIMES)(frames, frames)
    with pytest.raises(ValueError, match="history has 6 frames, but there are 0"):
        create("fd", times=TIMES)(frames, frames)
