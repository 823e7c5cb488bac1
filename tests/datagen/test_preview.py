import types

import matplotlib as mpl
import matplotlib.image
import numpy as np
import pytest

from datagen.preview import plot_samples

FIELDS = ("coefficient", "solution")


def samples(num, n1=9, n2=12, channels=1):
    rng = np.random.default_rng(0)
    return types.SimpleNamespace(
        x=np.where(rng.random((num, n1, n2, channels)) < 0.5, 3.0, 12.0),
        y=1e-3 * rng.random((num, n1, n2, channels)),
        sample_ids=np.arange(num) + 7,
        coordinates=(np.linspace(0, 1, n1), np.linspace(0, 1, n2)),
    )


@pytest.mark.parametrize("num", [1, 7])
def test_draws_at_most_six_columns(tmp_path, num):
    path = tmp_path / "samples.png"
    plot_samples(path, samples(num), FIELDS, "title", [1e-9] * num)
    image = matplotlib.image.imread(path)
    assert image.shape[1] == pytest.approx((2.5 * min(num, 6) + 1.5) * 150, rel=0.15)
    colours = image[::5, ::5].reshape(-1, image.shape[-1])
    assert np.unique(colours, axis=0).shape[0] > 100


def test_x_runs_to_the_right_and_y_upwards(tmp_path):
    """The bright corner of the solution, x = 1 and y = 0, is at the lower right."""
    data = samples(1, 20, 20)
    data.y[:] = 0
    data.y[0, 14:, :6] = 1.0
    plot_samples(tmp_path / "a.png", data, FIELDS, "title")
    image = matplotlib.image.imread(tmp_path / "a.png")[..., :3]
    half, width = image.shape[0] // 2, image.shape[1] * 7 // 10
    lower = image[half:, :width]  # the solution without its colour bar
    black = np.array(mpl.colormaps["magma"](0)[:3])
    white = np.array(mpl.colormaps["magma"](255)[:3])
    dark = np.argwhere(np.abs(lower - black).sum(axis=-1) < 0.02)
    bright = np.argwhere(np.abs(lower - white).sum(axis=-1) < 0.02)
    assert bright.shape[0] == pytest.approx(0.09 / 0.91 * dark.shape[0], rel=0.1)
    assert (bright.mean(axis=0) > dark.mean(axis=0) + 50).all()  # below, to the right


@pytest.mark.parametrize("value", [0.0, 4.0])
def test_constant_fields_are_drawn(tmp_path, value):
    data = samples(2)
    data.x[:], data.y[:] = value, value
    plot_samples(tmp_path / "b.png", data, FIELDS, "title")
    assert (tmp_path / "b.png").stat().st_size > 1000


def test_rejects_nothing_to_draw_and_residuals_that_do_not_match(tmp_path):
    with pytest.raises(ValueError, match="no sample to draw"):
        plot_samples(tmp_path / "c.png", samples(0), FIELDS, "title")
    with pytest.raises(ValueError, match="got 2 residuals for 3 samples"):
        plot_samples(tmp_path / "c.png", samples(3), FIELDS, "title", [1e-9, 1e-9])
