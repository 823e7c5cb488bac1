"""Operators are the same map on all grids, and controls fail each of these claims."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from benchmarks import exactness
from benchmarks import exactness_cases as cases
from operators.layers.resampling import fourier_matrix
from operators.layers.spectral import SpectralConvolution

FNO = {"name": "fno", "coordinates": "none", "modes": (8, 8), "channels": 6}
UNO = {
    "name": "uno", "coordinates": "none", "modes": ((8, 8), (4, 4), (8, 8)),
    "fractions": (0.5, 0.5, 1), "layer_channels": (8, 8, 8), "channels": 8,
    "lifting_channels": 16, "projection_channels": 16,
}  # fmt: skip
MGNO = {
    "name": "mgno", "channels": 6, "num_layers": 1, "cycle": ((1, 0), (1, 0), (2, 0)),
    "boundary": "periodic", "sizes": "crop", "prolongation": "wrap",
}  # fmt: skip
UNET = {"name": "unet", "channels": 6, "num_scales": 3, "norm": "none",
        "coordinates": "none"}  # fmt: skip
ROUNDOFF = 2e-6  # of networks in float32
SPECTRAL = 5e-6  # on 64 points, from the specification


@pytest.fixture(scope="module")
def fno():
    return cases.Model(FNO | {"num_layers": 2})


@pytest.fixture(scope="module")
def uno():
    return cases.Model(UNO)


def converges_spectrally(model, *, grids=(16, 32, 64), finest=128, top=6):
    errors = cases.refinement_errors(model, grids, finest=finest, top=top)
    orders = cases.observed_orders(errors)
    return errors[-1] <= SPECTRAL and orders[0] > 4 and orders == sorted(orders)


def test_fno_converges_spectrally(fno):
    assert converges_spectrally(fno)
    # Smoother, so that the finest output can be interpolated at the points of 65.
    assert cases.refinement_errors(fno, (65,), finest=128, top=2)[0] <= ROUNDOFF


@pytest.mark.slow
def test_uno_converges_spectrally_and_slower_by_its_coarsest_grid(uno):
    errors = cases.refinement_errors(uno, (32, 64, 128, 129), finest=256, top=2)
    orders = cases.observed_orders(errors[:3])
    assert 4 < orders[0] < orders[1]
    assert max(errors[2:]) <= 2 * SPECTRAL


def test_plain_convolutions_do_not_converge_spectrally():
    assert not converges_spectrally(cases.plain_convolutions)
    errors = cases.refinement_errors(cases.plain_convolutions, (32, 64), finest=256)
    assert min(errors) > 0.1


@pytest.mark.slow
@pytest.mark.parametrize(
    "hparams", [FNO | {"num_layers": 2, "coordinates": "grid"}, MGNO, UNET]
)
def test_sawtooth_coordinates_and_pixel_kernels_do_not_converge_spectrally(hparams):
    assert not converges_spectrally(cases.Model(hparams))


@pytest.mark.slow
def test_fno_of_the_specification():
    # 16 modes in all, 32 channels, 4 layers: there 1.3e-2, 2.4e-4, 1.2e-6 and, on 128
    # points, 1.7e-7, relative to the field with its mean.
    hparams = FNO | {"layout": "neuralop", "modes": (16, 16), "channels": 32}
    errors = cases.refinement_errors(cases.Model(hparams), (16, 32, 64, 128))
    assert np.all(np.array(errors) < [1e-1, 1e-3, 5e-6, 1e-6])
    periodic = cases.Model(hparams | {"coordinates": "periodic"})
    assert cases.refinement_errors(periodic, (64,))[0] <= SPECTRAL


@pytest.mark.parametrize("cells", [1, 7])
def test_fno_commutes_with_shifts_by_whole_cells(fno, cells):
    for n in (32, 65):
        assert cases.shift_error(fno, n, cells) <= ROUNDOFF


@pytest.mark.slow
def test_uno_commutes_with_shifts_of_its_coarsest_grid(uno):
    assert cases.shift_error(uno, 32, 2) <= 5 * ROUNDOFF
    assert cases.shift_error(uno, 32, 1) > 1e-2  # half a cell there: aliasing


def test_fno_is_the_same_on_shifted_points(fno):
    assert cases.shift_error(fno, 32, 0.5, top=2) <= ROUNDOFF
    assert cases.shift_error(cases.plain_convolutions, 32, 0.5, top=2) > 0.1


@pytest.mark.slow
def test_mgno_commutes_with_shifts_of_its_coarsest_grid():
    wrapped = cases.Model(MGNO)
    assert cases.shift_error(wrapped, 32, 4) <= ROUNDOFF
    assert cases.shift_error(wrapped, 32, 2) > 1e-3
    released = cases.Model(MGNO | {"prolongation": "official"})
    assert cases.shift_error(released, 32, 4) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("hparams", [FNO | {"coordinates": "grid"}, UNET])
def test_coordinates_and_zero_padding_break_shifts(hparams):
    assert cases.shift_error(cases.Model(hparams), 32, 4) > 1e-3


@pytest.mark.parametrize(
    ("grid", "modes"),
    [
        ((15, 16), (4, 4)),
        ((16, 17), (8, 8)),  # 8 is Nyquist of 16
        ((17, 33), (3, 6)),
        ((32, 31), (8, 7)),
        ((33, 32), (16, 5)),
        ((85, 15), (5, 8)),
    ],
)
def test_identity_weights_project_on_the_kept_modes(grid, modes):
    assert cases.identity_error(cases.identity_layer(modes), grid, modes) <= 1e-6
    # The control is right on even grids only.
    wrong = cases.identity_error(cases.control("fftshift", modes), grid, modes)
    assert (wrong > 0.1) == (grid[0] % 2 == 1)


@pytest.mark.parametrize(
    ("grid", "out"),
    [
        ((32, 32), (64, 64)),
        ((64, 64), (32, 32)),
        ((33, 33), (48, 48)),
        ((24, 17), (9, 40)),
    ],
)
def test_change_of_grid_is_fourier_resampling_of_the_kept_modes(grid, out):
    modes = (8, 8)
    transform = "dft" if grid[0] == 32 else "fft"
    layer = cases.identity_layer(modes, transform)
    assert cases.identity_error(layer, grid, modes, out) <= 1e-6
    u = cases.band_limited(grid, top=min(8, (min(*grid, *out) - 1) // 2))
    for axis in (1, 2):
        matrix = fourier_matrix(grid[axis - 1], out[axis - 1])
        u = np.moveaxis(np.tensordot(matrix, u, (1, axis)), 0, axis)
    np.testing.assert_allclose(
        cases.projection(u, modes, out), u, atol=1e-12 * np.abs(u).max()
    )
    wrong = cases.control("end", modes)
    assert cases.identity_error(wrong, grid, modes, out) > 0.1
    if grid[0] % 2 == 0:  # and it is right as long as the grid stays
        assert cases.identity_error(wrong, grid, modes) <= 1e-6


def kept_by_peer(u, modes):
    """Modes -floor(m / 2) ... ceil(m / 2) - 1 by 0 ... floor(m / 2), below Nyquist."""
    n1, n2 = u.shape[1:3]
    k1, k2 = np.fft.fftfreq(n1, 1 / n1), np.arange(n2 // 2 + 1)
    rows = (-(modes[0] // 2) <= k1) & (k1 < modes[0] / 2) & (2 * abs(k1) < n1)
    mask = rows[:, None] * ((k2 <= modes[1] // 2) & (2 * k2 < n2)).astype(float)
    # A real field shares what (k, 0) gets with (-k, 0).
    mask[:, 0] = (mask[:, 0] + mask[-np.arange(n1), 0]) / 2
    spectrum = np.fft.rfft2(u, axes=(1, 2)) * mask[None, :, :, None]
    return np.fft.irfft2(spectrum, s=(n1, n2), axes=(1, 2))


@pytest.mark.parametrize(
    ("grid", "modes"),
    [
        ((15, 16), (8, 8)),
        ((16, 15), (7, 7)),
        ((17, 33), (6, 9)),
        ((16, 17), (16, 12)),  # 8 is Nyquist of 16
        ((32, 12), (9, 12)),
    ],
)
def test_identity_weights_of_the_layout_of_the_peer(grid, modes):
    u = np.random.default_rng(0).normal(size=(1, *grid, 1)).astype(np.float32)

    def run(transform):
        layer = nnx.eval_shape(
            lambda: SpectralConvolution(
                1, 1, modes=modes, layout="neuralop", transform=transform,
                rngs=nnx.Rngs(0),
            )
        )  # fmt: skip
        ones = jax.tree.map_with_path(
            lambda path, p: jnp.full(p.shape, 1.0 if "'real'" in str(path) else 0.0),
            nnx.state(layer, nnx.Param),
        )
        nnx.update(layer, ones)
        return layer(u)

    for out in jax.jit(lambda: (run("dft"), run("fft")))():
        np.testing.assert_allclose(out, kept_by_peer(u, modes), atol=2e-6)


def test_frequencies_beyond_the_output_grid_do_not_alias():
    grid, out = (32, 32), (16, 16)
    layer = cases.identity_layer((6, 6))
    x = np.arange(32) / 32
    for k in (10, 12):  # would come back as -6 and -4
        wave = np.cos(2 * np.pi * k * x)[None, :, None, None] * np.ones((1, 1, 32, 1))
        assert np.abs(layer(wave, out)).max() <= 1e-6
        assert np.abs(wave[:, ::2]).max() > 0.9  # what sampling would return
    assert layer(wave, grid).shape == (1, 32, 32, 1)


@pytest.mark.parametrize("cells", [1.0, 0.5, 0.3])
def test_spectral_layers_commute_with_all_shifts(cells):
    modes = (4, 4)
    layer, wrong = cases.identity_layer(modes), cases.control("fftshift", modes)
    assert cases.linear_shift_error(layer, (17, 15), cells) <= 1e-6
    assert cases.linear_shift_error(wrong, (17, 15), cells) > 0.02


def test_complex_weights_act_as_their_hermitian_part_in_both_transforms():
    rng = np.random.default_rng(0)
    modes, grid = (3, 2), (9, 8)
    real, imag = rng.normal(size=(2, 7, 3))
    u = rng.normal(size=(1, *grid, 1))

    def with_weights(real, imag, transform):
        return cases.identity_layer(modes, transform, real=real, imag=imag)(u, grid)

    reference = with_weights(real, imag, "dft")
    projected_real, projected_imag = real.copy(), imag.copy()
    projected_real[:, 0] = (real[:, 0] + real[::-1, 0]) / 2  # W(k) + conj W(-k)
    projected_imag[:, 0] = (imag[:, 0] - imag[::-1, 0]) / 2
    for weights in ((real, imag), (projected_real, projected_imag)):
        for transform in ("dft", "fft"):
            np.testing.assert_allclose(
                with_weights(*weights, transform), reference, atol=2e-6
            )
    # The other part has no effect at last frequency 0, and all of it elsewhere.
    assert np.abs(with_weights(real[::-1], imag, "dft") - reference).max() > 0.1


def test_every_table_says_how_it_is_read(monkeypatch, capsys):
    for name in ("refinement_rows", "shift_rows", "layer_rows"):
        monkeypatch.setattr(exactness, name, lambda *_: [])
    exactness.measure(quick=True)
    tables = [" ".join(t.split()) for t in capsys.readouterr().out.split("\n\n")]
    assert len(tables) == 4
    for table in tables[:2]:
        assert "Random weights; relative L2 of what varies over the grid" in table
        assert "small is good, 1.9e+00 is 190 %" in table
        assert "The control should" in table
    assert "Order: log2 of the ratio" in tables[0]
    assert "fail where the first axis is odd" in tables[2]
    assert "both controls should fail" in tables[3]
    exactness.measure(quick=True, only=["FNO"])
    assert "The control should" not in capsys.readouterr().out


@pytest.mark.slow
def test_command_prints_the_tables(capsys):
    tables = exactness.measure(quick=True, only=["FNO"])
    (row,) = tables["refinement"]
    assert row["errors"][1] < 1e-2 * row["errors"][0]
    printed = capsys.readouterr().out
    assert f"{row['errors'][1]:.1e}" in printed
    assert f"{row['orders'][0]:.1f}" in printed
    rows = {row["method"]: max(row["errors"]) for row in tables["grid_change"]}
    assert rows.pop("ours, dft") < 1e-6
    assert rows.pop("ours, fft") < 1e-6
    assert min(rows.values()) > 0.1
    assert tables["shifts"][0]["errors"][0] <= ROUNDOFF
