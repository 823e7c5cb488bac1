"""Normalisers on periodic grids, and samples that no relative error can judge."""

import jax
import numpy as np
import pytest

from operators.training import data, normalizers

SETTINGS = {
    "config": "",
    "inputs": (),
    "outputs": (),
    "num_train": 4,
    "num_valid": 1,
    "num_test": 1,
}


def waves(n):
    """Six samples on n periodic points: mean 3 + sin, deviation 2 + cos."""
    x = 2 * np.pi * np.arange(n) / n
    factors = np.array([1, -1, 2, -2, 0.5, -0.5])[:, None]
    return (3 + np.sin(x) + factors * (2 + np.cos(x)))[..., None]


@pytest.mark.parametrize("shape", [(16, 64), (64, 16), (15, 20)])
def test_pointwise_statistics_of_a_periodic_grid_are_resampled_exactly(shape):
    n, m = shape
    here, there = (normalizers.fit("pointwise", waves(k)) for k in (n, m))
    resampled = normalizers.fit("pointwise", waves(n), periodic=(True,)).resample((m,))
    np.testing.assert_allclose(resampled.mean, there.mean, rtol=1e-6)
    np.testing.assert_allclose(resampled.scale, there.scale, rtol=1e-6)
    assert resampled.periodic == (True,)
    if m == 4 * n:  # coinciding points
        np.testing.assert_allclose(resampled.mean[:, ::4], here.mean, rtol=1e-6)


def test_each_axis_is_resampled_after_its_own_kind():
    def samples(n, m):
        line = np.linspace(1, 2, m)[:, None]
        return waves(n)[:, :, None] * line

    fitted = normalizers.fit("pointwise", samples(16, 3), periodic=(True, False))
    expected = normalizers.fit("pointwise", samples(40, 9))
    resampled = fitted.resample((40, 9))
    np.testing.assert_allclose(resampled.mean, expected.mean, rtol=1e-6)
    np.testing.assert_allclose(resampled.scale, expected.scale, rtol=1e-5)


def test_a_resampled_scale_stays_positive_at_kinks():
    scale = np.full((1, 16, 1), 1e-5, np.float32)
    scale[0, 3] = 1  # the Fourier sum of a spike is negative beside it
    fine = normalizers.Normalizer(0 * scale, scale, (True,)).resample((64,)).scale
    assert fine.min() == scale.min() / 2


def test_periodic_axes_survive_the_disk_and_old_files_open(tmp_path):
    path = tmp_path / "normalizers.npz"
    fitted = {
        "input": normalizers.fit("pointwise", waves(8), periodic=(True,)),
        "output": normalizers.fit("none", waves(8)),
    }
    normalizers.save(path, fitted)
    loaded = normalizers.load(path)
    assert (loaded["input"].periodic, loaded["output"].periodic) == ((True,), ())
    with np.load(path) as file:
        old = {k: v for k, v in file.items() if not k.endswith("periodic")}
    np.savez(path, **old)
    loaded = normalizers.load(path)["input"]
    assert loaded.periodic == ()
    np.testing.assert_array_equal(loaded.mean, fitted["input"].mean)


def test_compiled_functions_do_not_depend_on_what_is_periodic():
    one, other = (
        normalizers.fit("pointwise", waves(8), periodic=p) for p in ((), (True,))
    )
    assert jax.tree.structure(one) == jax.tree.structure(other)


def test_periodic_needs_an_entry_per_axis():
    with pytest.raises(ValueError, match="periodic has 2 entries"):
        normalizers.fit("none", waves(8), periodic=(True, True))


@pytest.mark.parametrize(
    ("stride", "expected"), [(2, (True, False)), (4, (False,) * 2)]
)
def test_samples_know_which_axes_are_periodic(tmp_path, stride, expected):
    x = np.ones((6, 6, 9))
    np.savez(tmp_path / "mine.npz", x=x, y=x, periodic=[True, False])
    settings = SETTINGS | {"path": str(tmp_path / "mine.npz"), "stride": stride}
    train = data.load_split(data.open_data(settings), settings, "train")
    assert train.periodic == expected  # 4 does not divide the period of 6 points


@pytest.mark.parametrize("in_file", [True, False])
def test_targets_that_vanish_are_refused_by_their_ids(tmp_path, in_file):
    y = np.ones((6, 4, 4))
    settings = SETTINGS | {"path": str(tmp_path / "mine.npz"), "stride": 2}
    y[[1, 5], ::2, ::2] = 0  # all that the stride leaves
    if in_file:
        y[[1, 5]] = 0
    np.savez(tmp_path / "mine.npz", x=y, y=y)

    def load():
        dataset = data.open_data(settings)
        assert not in_file
        data.load_split(dataset, settings, "valid")
        data.load_split(dataset, settings, "train")

    ids = r"2 samples \(sample_ids 1, 5\)" if in_file else r"1 samples \(sample_ids 1\)"
    with pytest.raises(ValueError, match=ids):
        load()
