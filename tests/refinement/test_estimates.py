"""Error estimates: what the residual says, and the error carried by the flow."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from operators.training.refinement import estimates, residuals
from solvers import spectral

LENGTHS = (2 * np.pi, 2 * np.pi)
GRID = spectral.PeriodicGrid(shape=(16, 16), lengths=LENGTHS)
EQUATION = spectral.NavierStokes2d(GRID, viscosity=0.01)
TIMES = np.array([0.0, 0.2, 0.4, 0.6, 0.9, 1.2, 1.5])


@functools.cache
def case():
    """A defect, the trajectory its own march makes, and compiled measures of frames."""
    defect = residuals.create(
        "defect", EQUATION, TIMES, scheme="cn_rk2", substeps=4, checkpoint=False
    )
    x, y = GRID.mesh()
    frames = [jnp.asarray(2 * np.cos(x) * np.cos(2 * y) + np.sin(2 * x + y))]
    marches = {h: jax.jit(defect.marcher(h)) for h in (0.2, 0.3)}
    for spacing in defect.spacings:
        frames.append(marches[round(spacing, 1)](frames[-1]))
    truth = jnp.stack(frames)

    @jax.jit
    def measure(frames):
        fields = defect(frames)
        return {
            "residual": defect.norm(fields),
            "material": estimates.graph_norm(defect, frames, truth),
            "plain": estimates.graph_norm(defect, frames, truth, derivative="plain"),
            "errors": estimates.propagate(defect, frames, fields),
        }

    return defect, truth, measure


def perturbed(size, low, high, growth):
    """The true trajectory plus a field of wave numbers low <= |j| < high."""
    _, truth, _ = case()
    noise = np.fft.rfft2(np.random.default_rng(0).normal(size=GRID.shape))
    j = np.hypot(*GRID.wavenumbers)
    field = np.fft.irfft2(noise * ((j >= low) & (j < high)), s=GRID.shape)
    scaled = field / np.sqrt((field**2).mean())
    return truth + size * growth[:, None, None] * scaled


GROWTH = {
    "linear": TIMES,
    "at once": (TIMES > 0).astype(float),
    "random": np.append(0, np.random.default_rng(1).normal(size=6)),
}


@pytest.mark.slow
@pytest.mark.parametrize("growth", GROWTH)
@pytest.mark.parametrize("wavenumbers", [(1, 3), (4, 6)])
def test_residual_measures_the_error_in_the_norm_with_the_material_derivative(
    wavenumbers, growth
):
    _, _, measure = case()
    for size in (1e-1, 1e-5):
        found = measure(perturbed(size, *wavenumbers, GROWTH[growth]))
        assert 0.8 < found["residual"] / found["material"] < 1.25


@pytest.mark.slow
def test_with_the_plain_derivative_the_ratio_depends_on_the_kind_of_error():
    _, _, measure = case()
    rough = measure(perturbed(1e-4, 4, 6, GROWTH["linear"]))
    assert rough["residual"] > 1.2 * rough["plain"]


@pytest.mark.slow
def test_propagated_residual_is_the_error_up_to_its_square():
    _, truth, measure = case()
    missed = []
    for size in (1e-2, 1e-3):
        frames = perturbed(size, 1, 5, GROWTH["random"])
        difference = measure(frames)["errors"] - (frames - truth)[1:]
        missed.append(float(jnp.abs(difference).max()))
    assert missed[1] < 1e-5
    assert missed[0] / missed[1] == pytest.approx(100, rel=0.1)


@pytest.mark.slow
def test_drag_is_a_part_of_the_norm():
    # A wave that grows on a flow at rest, where all is linear: no other terms.
    equation = spectral.NavierStokes2d(GRID, viscosity=0.3, drag=3.0)
    times = np.linspace(0, 1, 33)
    defect = residuals.create("defect", equation, times, scheme="imex_cn", substeps=1)
    error = jnp.asarray(times[:, None, None] * np.cos(2 * GRID.mesh()[0]))

    @jax.jit
    def ratio(error):
        norm = estimates.graph_norm(defect, error, 0 * error, derivative="plain")
        return defect.norm(defect(error)) / norm

    assert ratio(error) == pytest.approx(1, abs=0.06)


@pytest.mark.slow
def test_fields_are_carried_along_the_flow_and_not_by_their_own():
    # A steady shear flow, kept by a force: u = sin y, v = 0, vorticity -cos y.
    _, y = GRID.mesh()
    equation = spectral.NavierStokes2d(GRID, viscosity=0.01, forcing=-0.01 * np.cos(y))
    x, _ = GRID.mesh()
    defect = residuals.create("defect", equation, [0.0, 0.3], substeps=6)
    carry = jax.jit(functools.partial(estimates.carry, defect))
    carried = carry(jnp.asarray(np.cos(x))[None], jnp.asarray(-np.cos(y))[None])[0]
    np.testing.assert_allclose(carried, np.cos(x - 0.3 * np.sin(y)), atol=1e-5)


def test_settings_that_do_not_fit_are_refused():
    defect = residuals.create("defect", EQUATION, TIMES)
    frames = np.zeros((7, 16, 16))
    with pytest.raises(ValueError, match=r"'total'; known: \['material', 'plain'\]"):
        estimates.graph_norm(defect, frames, frames, derivative="total")
    with pytest.raises(ValueError, match="must have one shape"):
        estimates.graph_norm(defect, frames, frames[None])
