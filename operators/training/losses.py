"""Relative errors of fields on grids: losses for training, norms for evaluation.

Every function takes a prediction and a target [batch, n1, n2, channels] and returns one
error per sample, [batch]. The arrays' own library does the work, so that a training
step runs them in JAX float32 and an evaluation in NumPy float64.
"""

import functools
import inspect

import numpy as np

from solvers.fourier import half_spectrum_weights, half_wavenumbers, wavenumbers


def relative_l2(prediction, target):
    """||prediction - target||_2 / ||target||_2 over grid points and channels.

    Args:
        prediction: [batch, n1, n2, channels].
        target: same shape.

    Returns:
        [batch] errors, dimensionless.

    Raises:
        ValueError: if the shapes differ.
    """
    _check(prediction, target)
    return _ratio(_sum_squares(prediction - target), _sum_squares(target), target)


def relative_h1(prediction, target, spacing: tuple[float, float]):
    """Relative error in the H^1 norm, (||e||^2 + ||grad e||^2)^(1/2) over that of u.

    Gradients are differences of neighbouring points divided by their spacing, summed
    over the faces between them: first-order face gradients, which need nothing beyond
    the boundary and no periodicity.

    Args:
        prediction: [batch, n1, n2, channels].
        target: same shape.
        spacing: (h1, h2), distance of neighbouring points in domain lengths.

    Returns:
        [batch] errors, dimensionless.

    Raises:
        ValueError: if the shapes differ.
    """
    _check(prediction, target)

    def squared_norm(v):
        d1 = (v[:, 1:] - v[:, :-1]) / spacing[0]
        d2 = (v[:, :, 1:] - v[:, :, :-1]) / spacing[1]
        return _sum_squares(v) + _sum_squares(d1) + _sum_squares(d2)

    return _ratio(squared_norm(prediction - target), squared_norm(target), target)


def relative_h1_spectral(prediction, target, weight: float = 1.0, cutoff: int = 20):
    """Relative error in the weighted spectral norm that MgNO and HANO call "H1".

    || w F(prediction - target) || / || w F(target) || with the discrete Fourier
    transform F, w(k) = (1 + weight^2 (t(k_1)^2 + t(k_2)^2))^(1/2) and t(k) = |k| below
    `cutoff`, 0 from there on. Integer wave numbers without 2 pi, no windowing of
    fields that are not periodic: not the H^1 norm, for which see `relative_h1`.

    Args:
        prediction: [batch, n1, n2, channels].
        target: same shape.
        weight: a in w(k); 1 in MgNO's Darcy script, 2 in HANO's loss.
        cutoff: frequencies from here on carry no derivative weight.

    Returns:
        [batch] errors, dimensionless.

    Raises:
        ValueError: if the shapes differ.

    References:
        MgNO's released `utilities3.py` (HsLoss) and `darcy.py`, commit 3a68a90.
    """
    _check(prediction, target)
    xp = target.__array_namespace__()
    _, n1, n2, _ = target.shape
    w = xp.asarray(_spectral_weights(n1, n2, weight, cutoff), dtype=target.dtype)

    def squared_norm(v):
        spectrum = xp.fft.rfftn(v, axes=(1, 2))
        power = xp.real(spectrum) ** 2 + xp.imag(spectrum) ** 2
        return xp.sum(power * w[None, :, :, None], axis=(1, 2, 3))

    return _ratio(squared_norm(prediction - target), squared_norm(target), target)


LOSSES = {
    "relative_l2": relative_l2,
    "relative_h1": relative_h1,
    "relative_h1_spectral": relative_h1_spectral,
}


def create(name: str, spacing: tuple[float, float], **settings):
    """Returns the named loss as a function of (prediction, target) -> [batch].

    Args:
        name: a key of `LOSSES`.
        spacing: (h1, h2) of the training grid, for the losses with true gradients.
        **settings: further keywords of the loss.

    Raises:
        ValueError: for an unknown name or keyword.
    """
    if name not in LOSSES:
        raise ValueError(f"loss is {name!r}; known: {sorted(LOSSES)}")
    known = set(inspect.signature(LOSSES[name]).parameters)
    if unknown := set(settings) - known:
        raise ValueError(
            f"loss {name} takes no {sorted(unknown)}: set the whole section, "
            f"--config.loss=\"{{'name': '{name}'}}\""
        )
    if name == "relative_h1":
        settings["spacing"] = spacing
    return functools.partial(LOSSES[name], **settings)


def _spectral_weights(n1: int, n2: int, weight: float, cutoff: int) -> np.ndarray:
    """Squared weights [n1, n2 // 2 + 1] of the half spectrum, multiplicity included."""
    k1, k2 = np.abs(wavenumbers(n1)), half_wavenumbers(n2)
    k1, k2 = (np.where(k < cutoff, k, 0).astype(float) for k in (k1, k2))
    squared = 1 + weight**2 * (k1[:, None] ** 2 + k2[None, :] ** 2)
    return squared * half_spectrum_weights(n2)[None, :]


def _sum_squares(v):
    return (v**2).sum(axis=(1, 2, 3))


def _ratio(error, reference, target):
    xp = target.__array_namespace__()
    # A vanishing target has no relative error; the tiny number keeps 0 / 0 at 0.
    return xp.sqrt(error) / xp.sqrt(reference + xp.finfo(target.dtype).tiny)


def _check(prediction, target):
    if prediction.shape != target.shape or target.ndim != 4:
        raise ValueError(
            "prediction and target must both be [batch, n1, n2, channels], but have "
            f"shapes {prediction.shape} and {target.shape}"
        )
