"""The refiner finds the trajectory that the equation prescribes, or the best it can."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from operators import models
from operators.layers.spectral_output import SpectralOutput
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
EQUATION = spectral.NavierStokes2d(GRID, viscosity=0.02, drag=0.1)


class Flat(nnx.Module):
    """A model whose latent field is its input: all of an SFNO that refinement needs."""

    out_channels = 1

    def __init__(self):
        self.output = SpectralOutput(
            1, modes=(3, 2, 2), latent_steps=T, window=T, rngs=nnx.Rngs(0)
        )

    def latent(self, x):
        return x

    def head(self, v, last_frame, times=None):
        return last_frame[:, :, :, None] + self.output(v, last_frame, TIMES)


@pytest.fixture(scope="module")
def flow():
    """Two smooth flows, exact for the scheme of the residual, and a bad model."""
    jax.config.update("jax_enable_x64", True)
    times = SPACING * np.arange(T + 1)
    residual = residuals.create(
        "defect", EQUATION, times, scheme="imex_cn", substeps=2, checkpoint=False
    )
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(
        *(np.arange(n) * 2 * np.pi / n for n in GRID.shape), indexing="ij"
    )
    waves = [np.cos(i * x + j * y + 1) for i, j in ((1, 0), (1, 2), (2, -1), (0, 1))]
    start = np.einsum("bw,wxy->bxy", rng.standard_normal((SAMPLES, 4)), waves)
    march = residual.marcher(SPACING)

    @jax.jit
    def solve(start):
        return jax.lax.scan(lambda w, _: (march(w), w), start, length=2 * T)[1]

    truth = jnp.moveaxis(solve(jnp.asarray(start)), 0, 1)
    return types.SimpleNamespace(
        x=jnp.moveaxis(truth[:, :T], 1, -1)[..., None],
        truth=truth[:, T - 1 :],
        model=Flat(),
        residual=residual,
        prepared={},
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


@pytest.mark.slow
def test_widening_changes_nothing(flow):
    wide = widening.widen(flow.model, GRID.shape, 4)
    assert wide.output.modes == (6, 4, 4)
    assert wide.output.weights.real.dtype == jnp.float64
    frozen = widening.freeze(wide, flow.x)
    graph, parameters = widening.split(wide)
    frames = predict(graph, widening.repeated(parameters, SAMPLES), frozen)
    before = flow.model.head(flow.x, flow.x[:, :, :, -1])[..., 0]
    np.testing.assert_allclose(
        np.moveaxis(frames[:, 1:], 1, -1),
        before,
        rtol=0,
        atol=1e-12 * abs(before).max(),
    )
    np.testing.assert_array_equal(frames[:, 0], flow.x[..., -1, 0])
    assert abs(before - flow.x[..., -1:, 0]).max() > 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("compat", [False, True])
def test_widening_keeps_the_output_of_an_sfno(compat):
    model = models.create(
        "sfno",
        rngs=nnx.Rngs(0),
        width=4,
        modes=(3, 2, 2),
        num_layers=2,
        latent_steps=T,
        out_steps=T,
        compat=compat,
    )
    x = np.random.default_rng(0).standard_normal((1, *GRID.shape, 3, 1))
    before = nnx.jit(lambda model, x: model(x))(model, x)[0, ..., 0]
    wide = widening.widen(model, GRID.shape, 4)
    frozen = jax.tree.map(lambda leaf: leaf[0], widening.freeze(wide, x))
    frames = widening.predict(*widening.split(wide), frozen, TIMES)
    np.testing.assert_allclose(
        np.moveaxis(frames[1:], 0, -1), before, rtol=0, atol=1e-12 * abs(before).max()
    )


@pytest.mark.slow
def test_coordinates_are_those_of_the_spectral_bias(flow):
    graph, parameters, space, known = prepared(flow, 4)
    change = np.random.default_rng(2).standard_normal((SAMPLES, *space.shape))
    c = jax.jit(space.filter)(change)
    written = predict(graph, add(graph, parameters, space, c), known.frozen)
    frames = np.array(known.frames)
    frames[:, 1:] += np.einsum("mj,bjxy->bmxy", space.basis, c)
    np.testing.assert_allclose(written, frames, rtol=0, atol=1e-11)
    assert space.num_parameters == 4 * 11 * 7
    np.testing.assert_allclose(space.basis.T @ space.basis, np.eye(4), atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["linearized_flow", "gauss_newton"])
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
    stop = minimizers.StopRule(maxiter=4, reduction=0.0)
    history = refine(flow, "linearized_flow", case, stop=stop)
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


@pytest.mark.slow
def test_the_preconditioner_inverts_the_problem_without_flow(flow):
    *_, space, known = prepared(flow, 4)
    still = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape[1:]), known)
    still = still._replace(scale=1.0)
    goal = objective.Objective(flow.residual, objective.CoordinateFrames(space))
    inverse, root = (
        space.preconditioner(flow.residual, power) for power in (-1.0, -0.5)
    )

    @jax.jit
    def there_and_back(c):
        c = space.filter(c)
        push = jax.linearize(lambda c: goal.fields(still, c), jnp.zeros_like(c))[1]
        normal = jax.linear_transpose(push, c)(goal.dual(push(c)))[0]
        return c, inverse(normal), root(root(normal))

    c = np.random.default_rng(3).standard_normal(space.shape)
    c, *back = there_and_back(c)
    for again in back:  # up to the error of the scheme in the diffusion
        np.testing.assert_allclose(again, c, atol=1e-4)


def test_the_objective_is_the_norm_of_the_residual_mean_and_all():
    rng = np.random.default_rng(4)
    fields = rng.standard_normal((T, *GRID.shape)) + 1
    residual = residuals.create("fd", EQUATION, SPACING * np.arange(T + 1))
    goal = objective.Objective(residual, None)
    value, gradient = jax.jit(jax.value_and_grad(goal.half_square))(fields)
    np.testing.assert_allclose(value, residual.norm(fields) ** 2 / 2, rtol=1e-12)
    np.testing.assert_allclose(goal.dual(jnp.asarray(fields)), gradient, atol=1e-14)
    # A wrong mean costs as much as a wrong wave as long as the domain.
    wave = np.sqrt(2) * np.cos(2 * np.pi * GRID.mesh()[0] / 6.0)
    waves, ones = (np.broadcast_to(f, fields.shape) for f in (wave, 1.0))
    np.testing.assert_allclose(residual.norm(ones), residual.norm(waves), rtol=1e-12)


class Walk:
    """A minimiser of |v| whose steps are given."""

    def __init__(self, steps, monotone):
        self.steps, self.monotone, self.objective = jnp.asarray(steps), monotone, self

    def start(self, known, variables):
        return jnp.zeros((), int)

    def step(self, known, variables, state):
        return variables + self.steps[state], state + 1, 0.0

    def frames(self, known, variables):
        return variables

    def norm(self, known, variables):
        return jnp.abs(variables)


@pytest.mark.parametrize(
    ("steps", "monotone", "reason", "num", "kept"),
    [
        ([-1.0, 0.5, 0.0], True, "stalled", 2, 3.0),  # a rejected step ends it
        ([-1.0, 50.0, 0.0], True, "diverged", 2, 3.0),
        ([-1.0, np.nan, 0.0], True, "diverged", 2, 3.0),
        ([-1.0, np.inf, 0.0], False, "diverged", 2, 3.0),
        ([-3.0, 50.0, 1.0], False, "maxiter", 3, 1.0),  # the best, not the last
    ],
)
def test_the_best_iterate_is_kept_and_a_rejected_step_ends_it(
    steps, monotone, reason, num, kept
):
    known = objective.Known(np.zeros(1), None, None, np.ones(1))
    stop = minimizers.StopRule(maxiter=3, reduction=0.0)
    history = minimizers.minimize(
        Walk(steps, monotone), known, jnp.array([4.0]), stop, error=lambda v: v / 2
    )
    assert (history.reason, len(history.seconds)) == ([reason], num)
    assert (history.variables, history.residual, history.error) == (
        kept,
        kept,
        kept / 2,
    )


@pytest.mark.parametrize(
    ("change", "expected"), [(-3.0, 0.0), (-20.0, -2.0), (9.0, 12.0), (np.inf, np.inf)]
)
def test_newton_steps_are_halved_until_they_help(change, expected):
    goal = types.SimpleNamespace(value=lambda known, v: v**2)
    assert newton.damped(goal, None, 3.0, change, 9.0) == expected


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


def test_bad_settings_are_told():
    space, other = None, residuals.create("one_step", EQUATION, [0.0, 1.0])
    with pytest.raises(ValueError, match="minimizer is 'sgd'; known: adam"):
        minimizers.create("sgd", other, space=space)
    with pytest.raises(ValueError, match=r"takes no \['memry'\]"):
        minimizers.create("lbfgs", other, space=space, memry=3)
    with pytest.raises(ValueError, match="take the residual 'defect'"):
        minimizers.create("linearized_flow", other, space=space)
    with pytest.raises(ValueError, match="reduction in"):
        minimizers.StopRule(reduction=1.0)
    with pytest.raises(ValueError, match="give 0 or at least 2"):
        widening.widen(nnx.eval_shape(Flat), GRID.shape, 1)
    with pytest.raises(ValueError, match="no output operator to refine"):
        widening.widen(nnx.Linear(1, 1, rngs=nnx.Rngs(0)), GRID.shape)
