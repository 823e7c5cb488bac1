"""Relative errors of fields: losses for training, norms for evaluation.

Every function takes a prediction and a target [batch, *grid, channels] of one to three
axes and returns one error per sample, [batch]. The arrays' own library does the work,
so that a training step runs them in JAX float32 and an evaluation in NumPy float64.
Values at the nodes of a mesh, [batch, node, channels], have only `relative_l2`: without
neighbours there are no derivatives and no frequencies.
"""

import functools
import inspect
from collections.abc import Sequence

import numpy as np

from solvers.fourier import half_spectrum_weights, half_wavenumbers, wavenumbers


def relative_l2(prediction, target):
    """||prediction - target||_2 / ||target||_2 over points and channels.

    Args:
        prediction: [batch, *grid, channels]; grid is [num_nodes] on a mesh, whose nodes
            all count the same, whatever area they stand for.
        target: same shape.

    Returns:
        [batch] errors, dimensionless.

    Raises:
        ValueError: if the shapes differ.
    """
    _check(prediction, target)
    return _ratio(_sum_squares(prediction - target), _sum_squares(target), target)


def relative_h1(prediction, target, spacing: Sequence[float]):
    """Relative error in the H^1 norm, (||e||^2 + ||grad e||^2)^(1/2) over that of u.

    Gradients are differences of neighbouring points divided by their spacing, summed
    over the faces between them: first-order face gradients, which need nothing beyond
    the boundary and no periodicity. Time is an axis like the others where it is one.

    Args:
        prediction: [batch, *grid, channels].
        target: same shape.
        spacing: one entry per axis, the distance of neighbouring points in domain
            lengths: a number, or [n - 1] numbers where the points are not equidistant.

    Returns:
        [batch] errors, dimensionless.

    Raises:
        ValueError: if the shapes differ, or spacing has not one entry per axis.
    """
    _check(prediction, target)
    if len(spacing) != target.ndim - 2:
        raise ValueError(
            f"spacing has {len(spacing)} entries, but the fields [batch, *grid, "
            f"channels] have shape {target.shape}: give one entry per axis of the grid"
        )

    def squared_norm(v):
        total = _sum_squares(v)
        for axis, h in enumerate(spacing, start=1):
            ahead, behind = (_along(axis, s) for s in (slice(1, None), slice(-1)))
            total = total + _sum_squares((v[ahead] - v[behind]) / _on_axis(h, axis, v))
        return total

    return _ratio(squared_norm(prediction - target), squared_norm(target), target)


def relative_h1_spectral(prediction, target, weight: float = 1.0, cutoff: int = 20):
    """Relative error in the weighted spectral norm that MgNO and HANO call "H1".

    || w F(prediction - target) || / || w F(target) || with the discrete Fourier
    transform F, w(k) = (1 + weight^2 (t(k_1)^2 + t(k_2)^2))^(1/2), a term for each
    axis, and t(k) = |k| below `cutoff`, 0 from there on. Integer wave numbers without
    2 pi, no windowing of fields that are not periodic: not the H^1 norm, for which see
    `relative_h1`.

    Args:
        prediction: [batch, *grid, channels].
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
    w = _spectral_weights(target.shape[1:-1], weight, cutoff)
    w = xp.asarray(w[None, ..., None], dtype=target.dtype)
    axes = tuple(range(1, target.ndim - 1))

    def squared_norm(v):
        spectrum = xp.fft.rfftn(v, axes=axes)
        power = xp.real(spectrum) ** 2 + xp.imag(spectrum) ** 2
        return xp.sum(power * w, axis=(*axes, target.ndim - 1))

    return _ratio(squared_norm(prediction - target), squared_norm(target), target)


LOSSES = {
    "relative_l2": relative_l2,
    "relative_h1": relative_h1,
    "relative_h1_spectral": relative_h1_spectral,
}
ON_NODES = ("relative_l2",)  # those that need no grid


def create(name: str, spacing: Sequence[float] | None, **settings):
    """Returns the named loss as a function of (prediction, target) -> [batch].

    Args:
        name: a key of `LOSSES`.
        spacing: of the training grid, see `relative_h1`; None at the nodes of a mesh.
        **settings: further keywords of the loss.

    Raises:
        ValueError: for an unknown name or keyword, or a loss that needs a grid where
            there is none.
    """
    if name not in LOSSES:
        raise ValueError(f"loss is {name!r}; known: {sorted(LOSSES)}")
    if spacing is None and name not in ON_NODES:
        raise ValueError(
            f"loss {name} needs a grid, but the data lie on the nodes of a mesh: set "
            "--config.loss=\"{'name': 'relative_l2'}\""
        )
    known = set(inspect.signature(LOSSES[name]).parameters)
    if unknown := set(settings) - known:
        raise ValueError(
            f"loss {name} takes no {sorted(unknown)}: set the whole section, "
            f"--config.loss=\"{{'name': '{name}'}}\""
        )
    if name == "relative_h1":
        settings["spacing"] = spacing
    return functools.partial(LOSSES[name], **settings)


def _spectral_weights(grid: tuple[int, ...], weight: float, cutoff: int) -> np.ndarray:
    """Squared weights [*grid[:-1], n // 2 + 1], multiplicity of columns included."""
    frequencies = [*map(wavenumbers, grid[:-1]), half_wavenumbers(grid[-1])]
    counted = [np.where(np.abs(k) < cutoff, k, 0).astype(float) for k in frequencies]
    squared = sum(k**2 for k in np.meshgrid(*counted, indexing="ij", sparse=True))
    # The columns lie along the last axis.
    return (1 + weight**2 * squared) * half_spectrum_weights(grid[-1])


def _along(axis: int, part: slice) -> tuple[slice, ...]:
    """Index that takes a part of one axis."""
    return (*(slice(None),) * axis, part)


def _on_axis(h, axis: int, v):
    """Spacing of an axis, ready to divide differences along it."""
    if np.ndim(h) == 0:
        return h
    shape = [1] * v.ndim
    shape[axis] = -1
    return v.__array_namespace__().asarray(h, dtype=v.dtype).reshape(shape)


def _sum_squares(v):
    return (v**2).sum(axis=tuple(range(1, v.ndim)))


def _ratio(error, reference, target):
    xp = target.__array_namespace__()
    # The root has no slope at 0, and infinity times 0 would make the gradient NaN: a
    # perfect prediction has gradient 0. Errors that are not finite stay what they are.
    perfect = error == 0
    root = xp.where(perfect, 0.0, xp.sqrt(xp.where(perfect, 1.0, error)))
    # A vanishing target has no relative error; the tiny number keeps 0 / 0 at 0.
    return root / xp.sqrt(reference + xp.finfo(target.dtype).tiny)


def _check(prediction, target):
    if prediction.shape != target.shape or not 3 <= target.ndim <= 5:
        raise ValueError(
            "prediction and target must both be [batch, *grid, channels] with one to "
            f"three axes, but have shapes {prediction.shape} and {target.shape}"
        )
