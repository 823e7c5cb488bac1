"""Evaluation figures: float64 norms per sample, their summary, errors by frequency."""

import numpy as np

from operators.training.losses import relative_h1, relative_h1_spectral, relative_l2
from solvers.fourier import half_spectrum_weights, half_wavenumbers, wavenumbers

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def evaluate_fields(
    prediction: np.ndarray, target: np.ndarray, spacing: tuple[float, float]
) -> dict[str, dict]:
    """The relative errors of `evaluation.json`, computed in float64.

    Args:
        prediction: [num, n1, n2, channels].
        target: same shape.
        spacing: (h1, h2) of the grid, in domain lengths.

    Returns:
        `relative_l2`, `relative_h1`, `relative_h1_spectral`: each a dict of `mean`,
        `std`, `quantiles` and `per_sample`.
    """
    prediction, target = (np.asarray(v, np.float64) for v in (prediction, target))
    return {
        "relative_l2": summarize(relative_l2(prediction, target)),
        "relative_h1": summarize(relative_h1(prediction, target, spacing)),
        "relative_h1_spectral": summarize(relative_h1_spectral(prediction, target)),
    }


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

    Shell k holds all integer wave vectors with round(|(k_1, k_2)|) = k of the discrete
    Fourier transform with 1/N; by Parseval's identity the shells sum to the mean
    square. Fields that are not periodic carry the spectrum of their jump at the seam.

    Args:
        fields: [num, n1, n2, channels].

    Returns:
        [min(n1, n2) // 2 + 1] energies; corners beyond the last shell are left out.
    """
    _, n1, n2, _ = fields.shape
    transformed = np.fft.rfft2(np.asarray(fields, np.float64), axes=(1, 2))
    power = np.abs(transformed / (n1 * n2)) ** 2
    power = power.mean(axis=(0, 3)) * half_spectrum_weights(n2)[None, :]
    radius = np.hypot(wavenumbers(n1)[:, None], half_wavenumbers(n2)[None, :])
    shell = np.rint(radius).astype(int).ravel()
    last = min(n1, n2) // 2
    return np.bincount(shell, power.ravel())[: last + 1]
