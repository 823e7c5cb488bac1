"""The best approximation in the trainable space, against brute force."""

import numpy as np
import pytest

from operators.training.refinement.best_approximation import (
    best_approximation,
    box,
    real_basis,
)

TIMES = np.linspace(0.1, 1, 7)
BASIS = np.exp(1j * np.outer(TIMES, np.arange(3)))  # 1, cos t, sin t, cos 2t, sin 2t
GRID = (7, 6)


@pytest.fixture
def truth():
    return np.random.default_rng(0).normal(size=(2, 8, *GRID))


def test_it_is_the_least_squares_solution(truth):
    known, frames = truth[:, 0], truth[:, 1:]
    retained = box(GRID, (2, 1))
    weights = np.linspace(1, 2, 7)
    best = best_approximation(frames, known, BASIS, retained=retained, weights=weights)
    assert best.rank == 5
    # The same by one dense least squares problem over all fields and functions of time.
    units = np.eye(42).reshape(42, *GRID)
    fields = np.fft.irfft2(retained * np.fft.rfft2(units), s=GRID).reshape(42, 42)
    columns = np.einsum("tj,cx->txjc", real_basis(BASIS), fields)
    columns = columns * np.sqrt(weights)[:, None, None, None]
    columns = columns.reshape(7 * 42, -1)
    for i in range(2):
        change = (frames[i] - known[i]) * np.sqrt(weights)[:, None, None]
        fitted = columns @ np.linalg.lstsq(columns, change.ravel(), rcond=1e-10)[0]
        fitted = fitted.reshape(frames[i].shape) / np.sqrt(weights)[:, None, None]
        np.testing.assert_allclose(best.frames[i], known[i] + fitted, atol=1e-10)
    squares = ((best.frames - frames) ** 2).mean((2, 3)) @ weights
    reference = (frames**2).mean((2, 3)) @ weights
    np.testing.assert_allclose(best.relative_l2, np.sqrt(squares / reference))
    parts = best.time_part**2 + best.space_part**2
    np.testing.assert_allclose(best.relative_l2**2, parts)
    assert (best.time_part > 0.1).all()
    assert (best.space_part > 0.1).all()


def test_what_the_space_holds_is_its_own_best_approximation(truth):
    known = truth[:, 0]
    fields = np.fft.irfft2(box(GRID, (3, 2)) * np.fft.rfft2(truth[:, :3]), s=GRID)
    wave = np.einsum("tj,bjxy->btxy", BASIS, fields).real
    best = best_approximation(
        known[:, None] + wave, known, BASIS, retained=box(GRID, (3, 2))
    )
    assert (best.relative_l2 < 1e-13).all()
    # As many functions as frames hold every trajectory of the retained modes.
    many = np.exp(1j * np.outer(TIMES, np.arange(5)))
    best = best_approximation(truth[:, 1:], known, many)
    assert best.rank == 7
    assert (best.relative_l2 < 1e-8).all()


def test_shapes_that_do_not_fit_are_refused(truth):
    known, frames = truth[:, 0], truth[:, 1:]
    with pytest.raises(ValueError, match="one frame per trajectory"):
        best_approximation(frames, known[0], BASIS)
    with pytest.raises(ValueError, match=r"basis must be \[7, functions\]"):
        best_approximation(frames, known, BASIS[1:])
    with pytest.raises(ValueError, match=r"retained must be \(7, 4\)"):
        best_approximation(frames, known, BASIS, retained=np.ones(GRID))
    with pytest.raises(ValueError, match=r"one per frame, \[7\]"):
        best_approximation(frames, known, BASIS, weights=np.ones(8))
