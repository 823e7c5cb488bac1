import functools

import numpy as np
import pytest
import scipy.fft

from datagen.random_fields import (
    NeumannField,
    cosine_series,
    low_modes,
    normal_modes,
)


def points(n, location):
    return np.linspace(0, 1, n) if location == "nodes" else (np.arange(n) + 0.5) / n


def cosine(k, x):
    return np.cos(np.pi * k * x) * (1 if k == 0 else np.sqrt(2))


@pytest.mark.parametrize(("tau", "rms"), [(3.0, 0.292), (5.0, 0.316)])
def test_variance_is_the_sum_of_the_eigenvalues(tau, rms):
    """The rms values are those of the continuous field, found by hand for K -> oo."""
    field = NeumannField(2.0, tau, 421)
    assert np.sqrt(field.variance()) == pytest.approx(rms, abs=5e-4)
    average = field.pointwise_variance((421, 430), "cells").mean()
    assert average == pytest.approx(field.variance(), rel=1e-12)


def test_eigenvalues_follow_the_covariance():
    values = NeumannField(alpha=1.5, tau=4.0, num_modes=6).eigenvalues()
    assert values.shape == (6, 6)
    assert values[0, 0] == 0  # the constant is left out
    assert values[1, 3] == pytest.approx(4.0 / (10 * np.pi**2 + 16) ** 1.5)
    assert values[5, 0] == pytest.approx(4.0 / (25 * np.pi**2 + 16) ** 1.5)


def test_corner_variance_exceeds_the_average():
    variance = NeumannField(2.0, 3.0, 64).pointwise_variance((65, 65), "nodes")
    expected = 4 * NeumannField(2.0, 3.0, 64).eigenvalues()
    expected[0] /= 2
    expected[:, 0] /= 2
    assert variance[0, 0] == pytest.approx(expected.sum(), rel=1e-12)
    assert variance[0, 0] > 2 * variance[32, 32]


@pytest.mark.parametrize("location", ["nodes", "cells"])
@pytest.mark.parametrize("shape", [(6, 9), (2, 13), (13, 2), (40, 30)])
def test_series_sums_every_cosine(location, shape):
    """Also the modes a grid cannot tell from lower ones: 13 here, on 2 to 40 points."""
    A = np.random.default_rng(0).standard_normal((13, 13))
    phi = [
        np.stack([cosine(k, points(n, location)) for k in range(13)], axis=1)
        for n in shape
    ]
    expected = phi[0] @ A @ phi[1].T
    values = cosine_series(A, shape, location)
    np.testing.assert_allclose(values, expected, atol=1e-12)


@pytest.mark.parametrize("location", ["nodes", "cells"])
def test_series_works_in_three_dimensions(location):
    A = np.zeros((5, 5, 5))
    A[1, 0, 4] = 3.0
    x, y, z = (points(n, location) for n in (4, 6, 7))
    expected = 3 * functools.reduce(
        np.multiply.outer, [cosine(1, x), cosine(0, y), cosine(4, z)]
    )
    np.testing.assert_allclose(cosine_series(A, (4, 6, 7), location), expected)


def test_nodes_and_cells_hold_the_same_function():
    A = NeumannField(2.0, 3.0, 12).draw(np.random.default_rng(3))
    cells = cosine_series(A, (16, 10), "cells")
    nodes = cosine_series(A, (33, 21), "nodes")  # every second node is a cell centre
    np.testing.assert_allclose(cells, nodes[1::2, 1::2], atol=1e-14)


def test_cells_agree_with_the_published_script():
    """GRF.m of Li et al.: idct2(K * coef .* xi), orthonormal, k = 0 removed."""
    K, alpha, tau = 17, 2.0, 3.0
    field = NeumannField(alpha, tau, K)
    xi = normal_modes(np.random.default_rng(5), K)
    k1, k2 = np.meshgrid(np.arange(K), np.arange(K), indexing="ij")
    coef = tau ** (alpha - 1) * (np.pi**2 * (k1**2 + k2**2) + tau**2) ** (-alpha / 2)
    modes = K * coef * xi
    modes[0, 0] = 0
    expected = scipy.fft.idctn(modes, type=2, norm="ortho")
    actual = cosine_series(field.draw(np.random.default_rng(5)), (K, K), "cells")
    np.testing.assert_allclose(actual, expected, atol=1e-14)


def test_spatial_mean_is_zero():
    A = NeumannField(2.0, 3.0, 50).draw(np.random.default_rng(1))
    assert abs(cosine_series(A, (50, 64), "cells").mean()) < 1e-16
    nodes = cosine_series(A, (51, 64), "nodes")
    trapezoidal = np.trapezoid(np.trapezoid(nodes, axis=0), axis=0) / (50 * 63)
    assert abs(trapezoidal) < 1e-15


def test_draws_have_the_stated_covariance():
    field = NeumannField(2.0, 3.0, 5)
    rng = np.random.default_rng(2)
    num = 4000
    draws = np.stack([field.draw(rng).ravel() for _ in range(num)])[:, 1:]
    scaled = draws / np.sqrt(field.eigenvalues().ravel()[1:])
    covariance = scaled.T @ scaled / num
    # Standard errors: sqrt(2 / num) on the diagonal, 1 / sqrt(num) off it; 5 of them.
    assert np.abs(covariance - np.eye(24)).max() < 5 * np.sqrt(2 / num)
    assert np.abs(scaled.mean(axis=0)).max() < 5 / np.sqrt(num)
    assert np.mean(scaled**4) == pytest.approx(
        3, abs=0.2
    )  # normal, not just variance 1


def test_sampled_variance_matches_the_closed_form():
    field = NeumannField(2.0, 3.0, 33)
    rng = np.random.default_rng(4)
    draws = [cosine_series(field.draw(rng), (33, 33), "cells") for _ in range(400)]
    squares = np.mean(np.square(draws), axis=(1, 2))
    error = squares.std() / np.sqrt(squares.size)
    assert squares.mean() == pytest.approx(field.variance(), abs=4 * error)
    assert error < 0.05 * field.variance()


@pytest.mark.parametrize("num_dims", [1, 2, 3])
def test_low_modes_do_not_depend_on_the_number_of_modes(num_dims):
    few = normal_modes(np.random.default_rng(6), 4, num_dims)
    many = normal_modes(np.random.default_rng(6), 9, num_dims)
    np.testing.assert_array_equal(few, many[(slice(4),) * num_dims])
    assert np.unique(many).size == many.size


def test_draw_depends_on_the_generator_alone():
    field = NeumannField(2.0, 3.0, 20)
    first, again = (field.draw(np.random.default_rng(8)) for _ in range(2))
    other = field.draw(np.random.default_rng(9))
    assert first.tobytes() == again.tobytes()
    assert not np.isclose(first[1:], other[1:]).any()


@pytest.mark.parametrize(("location", "shape"), [("nodes", (9, 14)), ("cells", (8, 5))])
def test_low_modes_invert_the_series(location, shape):
    A = np.random.default_rng(7).standard_normal((4, 4))
    found = low_modes(cosine_series(A, shape, location), location, 4)
    expected = [A[k1, k2] for k1 in range(4) for k2 in range(4) if k1 + k2 < 4]
    np.testing.assert_allclose(found, expected, atol=1e-13)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": 1.0}, "alpha is 1.0; a field of finite variance in 2 dim"),
        ({"alpha": 1.5, "num_dims": 3}, "alpha > 1.5"),
        ({"alpha": float("nan")}, "alpha is nan"),
        ({"tau": 0.0}, "tau is 0.0"),
        ({"num_modes": 1}, "num_modes is 1"),
    ],
)
def test_rejects_impossible_fields(settings, message):
    with pytest.raises(ValueError, match=message):
        NeumannField(**{"alpha": 2.0, "tau": 3.0, "num_modes": 8, **settings})


def test_rejects_unknown_locations_and_other_dimensions():
    with pytest.raises(ValueError, match="location is 'edges'; known: nodes, cells"):
        cosine_series(np.ones((4, 4)), (8, 8), "edges")
    with pytest.raises(ValueError, match=r"2 axes, but the grid \(8,\) has 1"):
        cosine_series(np.ones((4, 4)), (8,), "nodes")
