"""The refiner finds the trajectory that the equation prescribes, or the best it can."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from operators import models
from operators.training.refinement import (
    minimizers,
    newton,
    objective,
    residuals,
    trial_space,
    widening,
)
from solvers import spectral

T, SPACING, SAMPLES = 4, 0.1, 2
TIMES = np.arange(1.0, T + 1)
GRID = spectral.PeriodicGrid((16, 12), (6.0, 5.0))


@pytest.fixture(scope="module")
def flow():
    """Two smooth flows, an untrained model of them, and its residual."""
    jax.config.update("jax_enable_x64", True)
    equation = spectral.NavierStokes2d(GRID, viscosity=0.02, drag=0.1)
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(np.arange(16) * 2 * np.pi / 16, np.arange(12) * np.pi / 6)
    waves = [np.cos(i * x + j * y + 1).T for i, j in ((1, 0), (1, 2), (2, -1), (0, 1))]
    start = np.einsum("bw,wxy->bxy", rng.standard_normal((SAMPLES, 4)), waves)
    times = SPACING * np.arange(3 + T)
    truth = spectral.rollout(equation, start, times=times, dt=SPACING / 4).fields
    model = models.create(
        "sfno",
        rngs=nnx.Rngs(0),
        width=4,
        modes=(3, 2, 2),
        num_layers=2,
        latent_steps=T,
        out_steps=T,
    )
    x = jnp.moveaxis(truth[:, :3], 1, -1)[..., None]
    return types.SimpleNamespace(
        equation=equation,
        x=x,
        truth=truth[:, 2:],
        model=model,
        predicted=nnx.jit(lambda model, x: model(x))(model, x)[..., 0],
        prepared={},
        residual=residuals.create(
            "defect", equation, SPACING * np.arange(T + 1), substeps=4
        ),
    )


def prepared(flow, time_modes):
    """Widened model, its space, and frames wrong by some 20 per cent; made once."""
    if time_modes not in flow.prepared:
        wide = widening.widen(flow.model, GRID.shape, time_modes)
        frozen = widening.freeze(wide, flow.x)
        graph, parameters = widening.split(wide)
        parameters = widening.repeated(parameters, SAMPLES)
        space = trial_space.create(wide.output, TIMES, GRID)
        rng = np.random.default_rng(1)
        noise = rng.standard_normal((SAMPLES, *space.shape)) / 5
        frames = predict(graph, parameters, frozen)
        change = jax.jit(lambda f, c: space.project(f[:, 1:]) + space.filter(c))(
            flow.truth - frames, noise
        )
        parameters = add(graph, parameters, space, change)
        frames = predict(graph, parameters, frozen)
        known = objective.known(flow.residual, frames, frozen=frozen)
        flow.prepared[time_modes] = graph, parameters, space, known
    return flow.prepared[time_modes]


def predict(graph, parameters, frozen):
    def one(parameters, frozen):
        return widening.predict(graph, parameters, frozen, TIMES)

    return jax.jit(jax.vmap(one))(parameters, frozen)


def add(graph, parameters, space, change):
    def one(parameters, c):
        return widening.add(graph, parameters, space, c, T)

    return jax.jit(jax.vmap(one))(parameters, change)


def relative(truth):
    norm = lambda u: jnp.sqrt(jnp.sum(u[:, 1:] ** 2, (1, 2, 3)))  # noqa: E731
    return lambda frames: norm(frames - truth) / norm(truth)


def refine(flow, name, case, variables=None, stop=None, **settings):
    graph, _, space, known = case
    minimizer = minimizers.create(
        name, flow.residual, space=space, graph=graph, times=TIMES, **settings
    )
    if variables is None:
        variables = jnp.zeros((SAMPLES, *space.shape))
    stop = stop or minimizers.StopRule(maxiter=6, reduction=1e-6)
    return minimizers.minimize(
        minimizer, known, variables, stop, error=relative(flow.truth)
    )


@pytest.mark.parametrize("time_modes", [pytest.param(0, marks=pytest.mark.slow), 4])
def test_widening_changes_nothing(flow, time_modes):
    wide = widening.widen(flow.model, GRID.shape, time_modes)
    assert wide.output.modes == (6, 4, time_modes or 2)
    assert wide.output.weights.real.dtype == jnp.float64
    frozen = widening.freeze(wide, flow.x)
    graph, parameters = widening.split(wide)
    frames = predict(graph, widening.repeated(parameters, SAMPLES), frozen)
    before = flow.predicted
    np.testing.assert_allclose(
        np.moveaxis(frames[:, 1:], 1, -1),
        before,
        rtol=0,
        atol=1e-12 * abs(before).max(),
    )
    np.testing.assert_array_equal(frames[:, 0], flow.x[..., -1, 0])


def test_coordinates_are_those_of_the_spectral_bias(flow):
    graph, parameters, space, known = prepared(flow, 4)
    change = jnp.asarray(np.random.default_rng(2).standard_normal(known.frames.shape))
    c = space.project(change[:, 1:])
    written = predict(graph, add(graph, parameters, space, c), known.frozen)
    frames = known.frames.at[:, 1:].add(space.increments(c))
    np.testing.assert_allclose(written, frames, rtol=0, atol=1e-11)
    assert space.num_parameters == 4 * 11 * 7
    np.testing.assert_allclose(space.basis.T @ space.basis, np.eye(4), atol=1e-12)


@pytest.mark.parametrize(
    "name", ["linearized_flow", pytest.param("gauss_newton", marks=pytest.mark.slow)]
)
def test_newton_finds_the_trajectory_of_the_equation(flow, name):
    case = prepared(flow, 4)  # seven waves in time for four frames
    history = refine(flow, name, case)
    assert (history.errors[0] > 0.1).all()
    assert (history.errors[-1] < 1e-5).all(), history.errors
    assert history.reason == ["reduced"] * SAMPLES
    assert len(history.seconds) <= 5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings", "maxiter", "factor"),
    [("lbfgs", {}, 25, 1e-2), ("adam", {"bias_rate": 1e-3}, 60, 0.6)],
)
def test_gradients_lower_the_residual_and_the_error(
    flow, name, settings, maxiter, factor
):
    case = prepared(flow, 4)
    variables = case[1] if name == "adam" else None
    stop = minimizers.StopRule(maxiter=maxiter, reduction=0.0)
    history = refine(flow, name, case, variables, stop, **settings)
    assert (history.residuals[-1] < factor * history.residuals[0]).all()
    assert (history.errors[-1] < factor * history.errors[0]).all()


@pytest.mark.slow
def test_the_linearized_flow_ends_at_the_best_approximation(flow):
    case = prepared(flow, 0)  # 3 waves in time, 4 frames
    *_, space, known = case
    history = refine(flow, "linearized_flow", case, stop=minimizers.StopRule(maxiter=4))
    best = space.project((flow.truth - known.frames)[:, 1:])
    frames = known.frames.at[:, 1:].add(space.increments(best))
    least = relative(flow.truth)(frames)
    assert (least > 1e-6).all()
    np.testing.assert_allclose(history.errors[-1], least, rtol=0.02)
    np.testing.assert_allclose(  # the estimate of the last step is the error before it
        history.details[0],
        history.errors[0] * np.sqrt(np.mean(flow.truth[:, 1:] ** 2, (1, 2, 3))),
        rtol=0.1,
    )


def test_the_preconditioner_inverts_the_problem_without_flow(flow):
    *_, space, known = prepared(flow, 4)
    still = jax.tree.map(lambda leaf: 0 * leaf[0], known)._replace(scale=jnp.ones(()))
    goal = objective.Objective(flow.residual, objective.CoordinateFrames(space))
    c = jnp.asarray(np.random.default_rng(3).standard_normal(space.shape))
    c = space.filter(c)
    push = jax.linearize(lambda c: goal.fields(still, c), jnp.zeros_like(c))[1]
    normal = jax.linear_transpose(push, c)(goal.dual(push(c)))[0]
    back = space.preconditioner(flow.residual, -1.0)(normal)
    np.testing.assert_allclose(back, c, atol=1e-8)
    root = space.preconditioner(flow.residual, -0.5)
    np.testing.assert_allclose(root(root(normal)), c, atol=1e-8)


def test_the_objective_is_the_norm_of_the_residual(flow):
    rng = np.random.default_rng(4)
    fields = jnp.asarray(rng.standard_normal((T, *GRID.shape)))
    fields = fields - fields.mean((1, 2), keepdims=True)
    goal = objective.Objective(flow.residual, None)
    half = flow.residual.norm(fields) ** 2 / 2
    np.testing.assert_allclose(goal.half_square(fields), half, rtol=1e-12)
    gradient = jax.grad(goal.half_square)(fields)
    np.testing.assert_allclose(goal.dual(fields), gradient, atol=1e-14)
    assert goal.half_square(jnp.ones_like(fields)) > 0  # a wrong mean costs


def test_conjugate_gradients_solve_symmetric_systems():
    rng = np.random.default_rng(5)
    A = rng.standard_normal((9, 9))
    A = A @ A.T + 9 * np.eye(9)
    b = rng.standard_normal(9)
    x, num = newton.conjugate_gradients(
        lambda v: A @ v, jnp.asarray(b), lambda v: v / np.diag(A), 1e-10, 20
    )
    np.testing.assert_allclose(x, np.linalg.solve(A, b), rtol=1e-8)
    assert 5 < num <= 11


@pytest.mark.parametrize(
    ("residuals", "verdict"),
    [
        ([1.0, 0.5], ""),
        ([1.0, 0.5, 0.009], "reduced"),
        ([1.0, 0.5, 0.499, 0.498], ""),
        ([1.0, 0.5, 0.499, 0.498, 0.497], "stalled"),
        ([1.0, 0.5, 2.0, 0.4, 0.45], ""),
        ([1.0, np.nan], "diverged"),
    ],
)
def test_when_to_stop(residuals, verdict):
    stop = minimizers.StopRule(reduction=1e-2, patience=3)
    assert minimizers.verdict(np.array(residuals), stop) == verdict


def test_bad_settings_are_told(flow):
    space = None
    with pytest.raises(ValueError, match="minimizer is 'sgd'; known: adam"):
        minimizers.create("sgd", flow.residual, space=space)
    with pytest.raises(ValueError, match=r"takes no \['memry'\]"):
        minimizers.create("lbfgs", flow.residual, space=space, memry=3)
    other = residuals.create("one_step", flow.equation, [0.0, 1.0])
    with pytest.raises(ValueError, match="take the residual 'defect'"):
        minimizers.create("linearized_flow", other, space=space)
    with pytest.raises(ValueError, match="reduction in"):
        minimizers.StopRule(reduction=1.0)
    with pytest.raises(ValueError, match="give 0 or at least 2"):
        widening.widen(flow.model, GRID.shape, 1)
    with pytest.raises(ValueError, match="no output operator to refine"):
        widening.widen(nnx.Linear(1, 1, rngs=nnx.Rngs(0)), GRID.shape)
