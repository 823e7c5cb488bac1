import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from solvers import spectral
from solvers.spectral import equations, transforms
from solvers.spectral.transforms import FoldedModes

# Unequal axes, odd and even first ones, an even and an odd number of kept rows.
GRIDS = {"odd": ((15, 20), (1.0, 3.0)), "even": ((18, 16), (2 * np.pi, 2.0))}


def both(name):
    """Plain and folded modes of a grid with the cutoffs of the 2/3 rule."""
    shape, lengths = GRIDS[name]
    grid = spectral.PeriodicGrid(shape, lengths)
    cutoffs = tuple((n - 1) // 3 for n in shape)
    return spectral.Modes(grid, cutoffs), FoldedModes(grid, cutoffs)


def noise(grid, *batch, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(*batch, *grid.shape)))


@functools.partial(jax.jit, static_argnums=0)
def quadratic(modes, u, v):
    """The two products as spectra of the grid."""
    return tuple(modes.fill(c) for c in modes.quadratic(*modes.to_states(u, v)))


@pytest.mark.parametrize(
    ("name", "batch"),
    [pytest.param("odd", (), marks=pytest.mark.slow), ("even", (2, 1))],
)
def test_folded_products_are_those_of_plain_transforms(name, batch):
    plain, folded = both(name)
    u, v = (noise(plain.grid, *batch, seed=seed) for seed in (0, 1))
    pairs = zip(quadratic(folded, u, v), quadratic(plain, u, v), strict=True)
    for product, expected in pairs:
        assert product.shape == (*batch, *plain.grid.spectrum_shape)
        np.testing.assert_allclose(product, expected, atol=1e-12)


@pytest.mark.parametrize("name", GRIDS)
def test_folded_coefficients_go_to_the_spectrum_and_back(name):
    plain, folded = both(name)
    spectrum = np.fft.rfft2(np.asarray(noise(plain.grid, 2)))
    state = folded.select(spectrum)  # of a NumPy array: stays one
    assert state.shape == (2, *folded.shape)
    expected = np.asarray(plain.fill(jnp.asarray(plain.select(spectrum))))
    filled = np.asarray(folded.fill(jnp.asarray(state)))
    np.testing.assert_array_equal(filled, expected)
    np.testing.assert_array_equal(folded.select(filled), state)
    # What lies outside of the box is stored as zero, also if it was not.
    j1, j2 = folded.wavenumbers
    outside = (abs(j1) > folded.cutoffs[0]) | (abs(j2) > folded.cutoffs[1])
    assert outside.any()
    assert np.all(state[:, outside] == 0)
    assert np.all(state[:, ~outside] != 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", GRIDS)
def test_norms_and_derivatives_agree_with_the_plain_layout(name):
    plain, folded = both(name)
    u, v = (noise(plain.grid, seed=seed) for seed in (0, 1))
    products, slopes = [], []
    for modes in (plain, folded):
        a, b = modes.to_states(u, v)
        products.append(modes.mean_product(a, b))
        slopes.append(
            [modes.fill(modes.k(axis, a) * a) for axis in (0, 1)]
            + [modes.fill(modes.laplacian(a) * a)]
        )
    np.testing.assert_allclose(*products, rtol=1e-13)
    for one, other in zip(*slopes, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-10)


@pytest.mark.slow
def test_products_are_differentiable_and_keep_single_precision():
    _, folded = both("odd")
    u, v = folded.to_states(noise(folded.grid), noise(folded.grid, seed=1))

    def energy(u):
        return sum(jnp.sum(abs(c) ** 2) for c in folded.quadratic(u, v))

    slope = jax.jvp(energy, (u,), (v,))[1]
    gradient = jax.grad(energy)(u)
    step = 1e-6
    difference = (energy(u + step * v) - energy(u - step * v)) / (2 * step)
    np.testing.assert_allclose(slope, difference, rtol=1e-7)
    np.testing.assert_allclose(jnp.sum((gradient * v).real), slope, rtol=1e-10)
    single = folded.quadratic(u.astype("complex64"), v.astype("complex64"))[0]
    assert single.dtype == "complex64"
    exact = folded.quadratic(u, v)[0]
    assert jnp.max(abs(single - exact)) < 1e-5 * jnp.max(abs(exact))


@pytest.mark.slow
def test_products_map_over_batches_like_loops():
    _, folded = both("even")
    u, v = folded.to_states(noise(folded.grid, 3), noise(folded.grid, 3, seed=1))
    mapped = jax.vmap(folded.quadratic)(u, v)
    for one, other in zip(mapped, folded.quadratic(u, v), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)


def test_the_equation_takes_folded_modes_where_they_pay(monkeypatch):
    grid = spectral.PeriodicGrid((12, 16), (1.0, 1.0))
    modes = functools.partial(equations.dealiased_modes, fold=True)
    assert type(spectral.NavierStokes2d(grid).modes) is FoldedModes
    other = spectral.NavierStokes2d(grid, advection="convective")
    assert type(other.modes) is spectral.Modes
    assert type(modes(grid, "none")) is spectral.Modes
    for shape in ((16, 18), (8, transforms.LARGEST_FOLD + 4)):
        assert type(modes(grid.refined(shape), "two_thirds")) is spectral.Modes
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert type(modes(grid, "two_thirds")) is spectral.Modes


@pytest.mark.parametrize(
    ("shape", "cutoffs"),
    [((12, 18), (3, 5)), ((12, 16), (4, 5)), ((12, 16), None), ((16,), (5,))],
)
def test_refuses_what_it_cannot_fold(shape, cutoffs):
    grid = spectral.PeriodicGrid(shape, (1.0,) * len(shape))
    with pytest.raises(ValueError, match="folded modes need two axes"):
        FoldedModes(grid, cutoffs)
