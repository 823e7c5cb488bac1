"""Evaluation figures: float64 norms per sample, their summary, errors by frequency."""

from collections.abc import Sequence

import numpy as np

from operators.training.losses import (
    bochner_h1,
    relative_h1,
    relative_h1_spectral,
    relative_l2,
)
from solvers.fourier import half_spectrum_weights, half_wavenumbers, wavenumbers

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
ALPHA = 0.1  # of `bochner_h1`, for all runs: that of the configs that train in it


def evaluate_fields(
    prediction: np.ndarray, target: np.ndarray, spacing: Sequence[float] | None
) -> dict[str, dict]:
    """The relative errors of `evaluation.json`, computed in float64.

    Args:
        prediction: [num, *grid, channels].
        target: same shape.
        spacing: of the grid, see `losses.relative_h1`; None at the nodes of a mesh.

    Returns:
        `relative_l2`, `relative_h1`, `relative_h1_spectral`: each a dict of `mean`,
        `std`, `quantiles` and `per_sample`; at nodes, `relative_l2` alone, because the
        others have no meaning there.
    """
    prediction, target = (np.asarray(v, np.float64) for v in (prediction, target))
    errors = {"relative_l2": summarize(relative_l2(prediction, target))}
    if spacing is not None:
        errors["relative_h1"] = summarize(relative_h1(prediction, target, spacing))
        spectral = relative_h1_spectral(prediction, target)
        errors["relative_h1_spectral"] = summarize(spectral)
    return errors


def evaluate_frames(
    prediction: np.ndarray,
    target: np.ndarray,
    spacing: Sequence[float],
    *,
    periodic: bool,
) -> dict[str, dict]:
    """The relative errors of predicted trajectories, computed in float64.

    The norms are those of `evaluate_fields` in space, summed over the frames: norms of
    L^2(0, T; L^2) and L^2(0, T; H^1).

    Args:
        prediction: [num, T, *space, fields].
        target: same shape.
        spacing: of the axes of space.
        periodic: whether all of these are.

    Returns:
        What `evaluate_fields` returns; for periodic fields `bochner_h1` too, which is
        exact for them, with its `alpha`; and `frames` with the `relative_l2` of each
        frame: `mean` and `std` [T], and `quantiles`.
    """
    prediction, target = (np.asarray(v, np.float64) for v in (prediction, target))
    per_frame = frame_errors(prediction, target)
    # Frames as channels: time is no axis of the derivatives.
    shape = (*target.shape[:1], *target.shape[2:-1], -1)
    prediction, target = (
        np.moveaxis(v, 1, -1).reshape(shape) for v in (prediction, target)
    )
    errors = evaluate_fields(prediction, target, spacing)
    if periodic:
        values = bochner_h1(prediction, target, spacing, has_time=False, alpha=ALPHA)
        errors["bochner_h1"] = {"alpha": ALPHA, **summarize(values)}
    quantiles = np.quantile(per_frame, QUANTILES, axis=0)
    many = len(per_frame) > 1
    errors["frames"] = {
        "relative_l2": {
            "mean": per_frame.mean(0).tolist(),
            "std": (per_frame.std(0, ddof=1) if many else 0 * per_frame[0]).tolist(),
            "quantiles": {
                f"{q:g}": v.tolist() for q, v in zip(QUANTILES, quantiles, strict=True)
            },
        }
    }
    return errors


def frame_errors(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Relative L2 error of each frame, [num, T], of fields [num, T, *space, fields]."""
    prediction, target = (np.asarray(v, np.float64) for v in (prediction, target))
    axes = tuple(range(2, target.ndim))
    error, reference = (
        np.sqrt((v**2).sum(axis=axes)) for v in (prediction - target, target)
    )
    return error / np.maximum(reference, np.finfo(float).tiny)


def summarize(errors: np.ndarray) -> dict:
    """Mean, standard deviation (ddof 1), quantiles and all values of errors [num]."""
    quantiles = np.quantile(errors, QUANTILES)
    return {
        "mean": float(errors.mean()),
        "std": float(errors.std(ddof=1)) if len(errors) > 1 else 0.0,
        "quantiles": {
            f"{q:g}": float(v) for q, v in zip(QUANTILES, quantiles, strict=True)
        },
        "per_sample": [float(e) for e in errors],
    }


def spectrum(fields: np.ndarray) -> np.ndarray:
    """Energy per shell of wave numbers, averaged over samples and channels.

    Shell k holds all integer wave vectors with round(|(k_1, ..., k_d)|) = k of the
    discrete Fourier transform with 1/N; by Parseval's identity the shells sum to the
    mean square. Fields that are not periodic carry the spectrum of their jump at the
    seam.

    Args:
        fields: [num, *grid, channels] on a grid of one to three axes.

    Returns:
        [min(grid) // 2 + 1] energies; corners beyond the last shell are left out.
    """
    grid = fields.shape[1:-1]
    axes = tuple(range(1, len(grid) + 1))
    transformed = np.fft.rfftn(np.asarray(fields, np.float64), axes=axes)
    power = np.abs(transformed / np.prod(grid)) ** 2
    power = power.mean(axis=(0, -1)) * half_spectrum_weights(grid[-1])
    frequencies = [*map(wavenumbers, grid[:-1]), half_wavenumbers(grid[-1])]
    squares = sum(k**2 for k in np.meshgrid(*frequencies, indexing="ij", sparse=True))
    shell = np.rint(np.sqrt(squares)).astype(int).ravel()
    last = min(grid) // 2
    return np.bincount(shell, power.ravel())[: last + 1]
