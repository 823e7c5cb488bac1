import jax
import jax.numpy as jnp
import numpy as np
import pytest

from solvers import spectral
from solvers.spectral import diagnostics

TWO_PI = 2 * np.pi
SQUARE = (TWO_PI, TWO_PI)


def reference_field(grid):
    """The initial field of the reference flow."""
    x, y = grid.mesh()
    return np.cos(x) * np.cos(2 * y) + np.sin(2 * x + y) + 0.5 * np.cos(3 * y - x)


def random_field(grid, seed=0):
    """All modes that the two-thirds rule keeps, with a decaying spectrum."""
    field = np.random.default_rng(seed).normal(size=grid.shape)
    spectrum = grid.transform(field)
    keep = [3 * abs(j) < n for j, n in zip(grid.wavenumbers, grid.shape, strict=True)]
    size = sum(j**2 for j in grid.wavenumbers)
    return grid.inverse(spectrum * keep[0] * keep[1] * (size > 0) / (1 + size))


def padded_advection(grid, w):
    """-u . grad w, cut off at n / 3, from four times as many points: no aliasing."""
    fine = grid.refined(tuple(4 * n for n in grid.shape))
    k1, k2 = fine.angular_wavenumbers
    spectrum = fine.transform(grid.resample(w, fine.shape))
    square = k1**2 + k2**2
    psi = spectrum / np.where(square > 0, square, 1)
    slopes = [1j * k2 * psi, -1j * k1 * psi, 1j * k1 * spectrum, 1j * k2 * spectrum]
    u, v, w1, w2 = (fine.inverse(s) for s in slopes)
    product = grid.transform(fine.resample(u * w1 + v * w2, grid.shape))
    keep = [3 * abs(j) < n for j, n in zip(grid.wavenumbers, grid.shape, strict=True)]
    return -grid.inverse(product * keep[0] * keep[1])


@pytest.mark.parametrize(
    "shape", [(16, 12), pytest.param((15, 10), marks=pytest.mark.slow)]
)
def test_advection_forms_are_the_exact_projection_and_conserve(shape):
    grid = spectral.PeriodicGrid(shape, (2.0, 3.0))
    w = random_field(grid)
    want = padded_advection(grid, w)
    forms = ("two_transform", "divergence", "convective")

    @jax.jit
    def all_forms(w):
        fields = []
        for form in forms:
            equation = spectral.NavierStokes2d(grid, advection=form)
            state = equation.explicit_terms(equation.to_state(w))
            fields.append(equation.to_field(state))
        return fields, equation.streamfunction(w)

    fields, psi = all_forms(w)
    for got in fields:
        np.testing.assert_allclose(got, want, atol=1e-13 * abs(want).max())
        # Neither energy nor enstrophy changes.
        assert abs(np.mean(got * w)) < 1e-14 * np.linalg.norm(got) * np.linalg.norm(w)
        assert abs(np.mean(got * psi)) < 1e-14 * np.linalg.norm(got)


@pytest.mark.slow
def test_velocity_and_streamfunction_of_a_taylor_green_vortex():
    grid = spectral.PeriodicGrid((8, 12), (2.0, 2.0))
    x, y = grid.mesh()
    k = np.pi
    equation = spectral.NavierStokes2d(grid)
    w = -2 * k * np.cos(k * x) * np.cos(k * y)

    @jax.jit
    def functions(w):
        rate = equation.courant_rate(equation.to_state(w))
        return *equation.velocity(w), equation.streamfunction(w), rate

    u, v, psi, rate = functions(w)
    speeds = np.hypot(np.asarray(u) * 8 / 2, np.asarray(v) * 12 / 2)
    assert float(rate) == pytest.approx(speeds.max(), rel=1e-14)
    np.testing.assert_allclose(u, np.cos(k * x) * np.sin(k * y), atol=1e-14)
    np.testing.assert_allclose(v, -np.sin(k * x) * np.cos(k * y), atol=1e-14)
    np.testing.assert_allclose(psi, w / (2 * k**2), atol=1e-14)
    assert float(diagnostics.energy(w, grid)) == pytest.approx(0.25, rel=1e-14)
    assert float(diagnostics.enstrophy(w, grid)) == pytest.approx(k**2 / 2, rel=1e-14)
    assert float(diagnostics.palinstrophy(w, grid)) == pytest.approx(k**4, rel=1e-14)


@pytest.mark.slow
def test_forms_of_a_tendency():
    # Steady Kolmogorov flow with drag, and lambda from its three uses.
    grid = spectral.PeriodicGrid((12, 24), SQUARE)
    kappa, viscosity, drag = 4, 1e-3, 0.1
    y = grid.mesh()[1]
    f = -kappa * np.cos(kappa * y)
    steady = f / (viscosity * kappa**2 + drag)
    assert abs(steady).max() / kappa == pytest.approx(34.48275862 / kappa, rel=1e-9)
    equation = spectral.NavierStokes2d(grid, viscosity, drag, f)

    @jax.jit
    def terms(w):
        state = equation.to_state(w)
        back = equation.implicit_solve(
            state - 0.3 * equation.implicit_terms(state), 0.3
        )
        return equation.to_field(equation.tendency(state)), equation.to_field(back)

    tendency, back = terms(steady)
    np.testing.assert_allclose(tendency, 0, atol=1e-12)
    np.testing.assert_allclose(back, steady, rtol=1e-13, atol=1e-12)


@pytest.mark.slow
def test_reference_flow():
    grid = spectral.PeriodicGrid((48, 48), SQUARE)
    w = reference_field(grid)
    assert float(diagnostics.energy(w, grid)) == pytest.approx(0.08125, rel=1e-13)
    assert float(diagnostics.enstrophy(w, grid)) == pytest.approx(0.4375, rel=1e-13)
    equation = spectral.NavierStokes2d(grid, viscosity=0.01)
    record = ("energy", "enstrophy")
    run = spectral.rollout(equation, w, [0, 1], dt=1 / 80, record=record)
    np.testing.assert_allclose(run.fields[0], w, atol=1e-14)
    # Values of the 48 x 48 grid; energy and enstrophy are those of 96 x 96 points.
    assert float(run.fields[1, 0, 0]) == pytest.approx(1.30059546, abs=1e-8)
    energy, enstrophy = (np.asarray(run.diagnostics[name]) for name in record)
    np.testing.assert_allclose(energy, [0.08125, 0.07298161558258], rtol=2e-9)
    np.testing.assert_allclose(enstrophy, [0.4375, 0.39015519665541], rtol=2e-7)


def test_spectra_sum_up_and_find_their_shells():
    grid = spectral.PeriodicGrid((16, 12), SQUARE)
    x, y = grid.mesh()
    w = np.cos(3 * x) + 2 * np.sin(x + 2 * y)
    energy, enstrophy = (
        np.asarray(spectrum(w, grid))
        for spectrum in (diagnostics.energy_spectrum, diagnostics.enstrophy_spectrum)
    )
    np.testing.assert_allclose(enstrophy[[2, 3]], [1.0, 0.25], rtol=1e-13)
    np.testing.assert_allclose(energy[[2, 3]], [1.0 / 5, 0.25 / 9], rtol=1e-13)
    w = np.random.default_rng(1).normal(size=(2, 16, 12))
    sums = np.asarray(diagnostics.enstrophy_spectrum(w, grid)).sum(-1)
    np.testing.assert_allclose(sums, (w**2).mean((-1, -2)) / 2, rtol=1e-13)


@pytest.mark.slow
def test_diagnostics_of_jax_and_numpy_arrays_agree():
    grid = spectral.PeriodicGrid((16, 12), (2.0, 3.0))
    w = np.random.default_rng(1).normal(size=(2, 16, 12))
    for name in ("energy", "energy_spectrum"):
        function = getattr(diagnostics, name)
        want = function(w, grid)
        np.testing.assert_allclose(function(jnp.asarray(w), grid), want, rtol=1e-12)


def test_refuses_settings_out_of_range():
    grid = spectral.PeriodicGrid((8, 8), SQUARE)
    with pytest.raises(ValueError, match="advection is 'skew'"):
        spectral.NavierStokes2d(grid, advection="skew")
    with pytest.raises(ValueError, match="dealias is '3/2'"):
        _ = spectral.NavierStokes2d(grid, dealias="3/2")
    with pytest.raises(ValueError, match="viscosity is -1"):
        spectral.NavierStokes2d(grid, viscosity=-1)
    with pytest.raises(ValueError, match="drag is nan"):
        spectral.NavierStokes2d(grid, drag=np.nan)
    with pytest.raises(ValueError, match=r"forcing must have the shape \(8, 8\)"):
        spectral.NavierStokes2d(grid, forcing=np.zeros((8, 9)))
    with pytest.raises(TypeError, match="forcing must be a real field"):
        spectral.NavierStokes2d(grid, forcing=np.zeros((8, 8), complex))
    with pytest.raises(ValueError, match="forcing must be finite"):
        spectral.NavierStokes2d(grid, forcing=np.full((8, 8), np.nan))
    with pytest.raises(ValueError, match="viscosity is inf; expected a finite number"):
        spectral.NavierStokes2d(grid, viscosity=np.inf)
    with pytest.raises(ValueError, match="needs a grid of 2 axes"):
        spectral.NavierStokes2d(spectral.PeriodicGrid((8,), (1.0,)))
    with pytest.raises(ValueError, match="too small"):
        spectral.NavierStokes2d(spectral.PeriodicGrid((8, 2), SQUARE))


# Slow: the tables of the literature.


@pytest.mark.slow
def test_reference_flow_converges():
    grid = spectral.PeriodicGrid((96, 96), SQUARE)
    equation = spectral.NavierStokes2d(grid, viscosity=0.01)
    record = ("energy", "enstrophy")
    start = reference_field(grid)
    run = spectral.rollout(equation, start, [1.0], dt=0.01, record=record)
    energy, enstrophy = (float(run.diagnostics[name][0]) for name in record)
    assert float(run.fields[0, 0, 0]) == pytest.approx(1.30057438, abs=6e-9)
    assert energy == pytest.approx(0.07298161558258, abs=6e-14)
    assert enstrophy == pytest.approx(0.39015519665541, abs=6e-13)


TAYLOR_GREEN = {
    "imex_euler": (2.462125e-3, 1.240449e-3, 6.226017e-4, 3.118991e-4),
    "imex_cn": (1.041759e-5, 2.604224e-6, 6.510453e-7, 1.627606e-7),
    "cn_rk2": (1.041759e-5, 2.604224e-6, 6.510453e-7, 1.627606e-7),
    "cn_rk3": (1.302100e-6, 3.255219e-7, 8.138027e-8, 2.034507e-8),
    "cn_rk4": (7.093605e-7, 1.773391e-7, 4.433472e-8, 1.108367e-8),
    "if_rk4": (0, 0, 0, 0),
    "etdrk4": (0, 0, 0, 0),
    "etdrk4_krogstad": (0, 0, 0, 0),
}


@pytest.mark.slow
@pytest.mark.parametrize("scheme", TAYLOR_GREEN)
def test_taylor_green_errors_are_the_closed_forms(scheme):
    # On the grid of the next test, so that both share what is compiled.
    grid = spectral.PeriodicGrid((48, 48), SQUARE)
    equation = spectral.NavierStokes2d(grid, viscosity=0.1)
    x, y = grid.mesh()
    start, decay = -2 * np.cos(x) * np.cos(y), np.exp(-0.2)
    for steps, expected in zip((8, 16, 32, 64), TAYLOR_GREEN[scheme], strict=True):
        run = spectral.rollout(equation, start, [1.0], dt=1 / steps, scheme=scheme)
        assert run.steps == steps
        error = abs(run.fields[0] / decay - start).max() / 2
        assert float(error) == pytest.approx(expected, rel=1e-6, abs=2e-15)
        if scheme == "cn_rk4" and steps == 8:
            factor = float(run.fields[0, 0, 0]) / start[0, 0]
            assert factor == pytest.approx(0.8187301723026869, rel=1e-14)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scheme", "viscosity", "order"),
    [
        ("imex_cn", 1e-3, 1),
        ("cn_rk2", 1e-3, 2),
        ("cn_rk3", 0.0, 3),
        ("cn_rk3", 1e-3, 3),
        ("cn_rk4", 0.0, 4),
        ("cn_rk4", 1e-3, 4),
        ("cn_rk4", 0.1, 2),
        ("if_rk4", 0.0, 4),
        ("if_rk4", 1e-3, 4),
        ("if_rk4", 0.1, 4),
        ("etdrk4", 0.0, 4),
        ("etdrk4", 1e-3, 4),
        ("etdrk4", 0.1, 4),
        ("etdrk4_krogstad", 0.1, 4),
    ],
)
def test_orders_with_advection_on_the_reference_flow(scheme, viscosity, order):
    grid = spectral.PeriodicGrid((48, 48), SQUARE)
    equation = spectral.NavierStokes2d(grid, viscosity=viscosity)
    start = reference_field(grid)

    def end(steps, scheme=scheme):
        return spectral.rollout(equation, start, [1.0], dt=1 / steps, scheme=scheme)

    exact = end(400, "etdrk4").fields
    errors = [float(abs(end(n).fields - exact).max()) for n in (20, 40)]
    assert abs(np.log2(errors[0] / errors[1]) - order) < 0.15, errors


@pytest.mark.slow
def test_forced_flow_from_rest():
    grid = spectral.PeriodicGrid((16, 16), (1.0, 1.0))
    x, y = grid.mesh()
    f = 0.1 * (np.sin(TWO_PI * (x + y)) + np.cos(TWO_PI * (x + y)))
    equation = spectral.NavierStokes2d(grid, 1e-3, forcing=f)
    rate = 8 * np.pi**2 * 1e-3
    factor = -np.expm1(-rate) / rate
    assert factor == pytest.approx(0.9615404227246439, rel=1e-15)
    record = ("energy", "enstrophy", "balance")
    bounds = {"etdrk4": (1e-13, 1e-11), "cn_rk2": (5.2e-10, 1e-7)}
    for scheme, (bound, balance) in bounds.items():
        run = spectral.rollout(
            equation, np.zeros((16, 16)), [1.0], dt=1e-3, scheme=scheme, record=record
        )
        error = abs(run.fields[0] - f * factor).max() / abs(f).max()
        assert bound / 10 < error < bound or error < 1e-13
        energy, enstrophy, defect = (float(run.diagnostics[k][0]) for k in record)
        assert energy == pytest.approx(5.85484450e-5, rel=2e-9)
        assert enstrophy == pytest.approx(4.62279992e-3, rel=2e-9)
        assert defect < balance
