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

from operators.training import sobolev
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


def bochner_l2(prediction, target):
    """Relative error in L^2(0, T; L^2): all frames count the same.

    Another name of `relative_l2`, which is this norm where time is an axis or the
    channels are times: by Parseval's identity no transform is needed.

    Args:
        prediction: [batch, *space, time, channels], or [batch, *space, channels] with
            frames as channels.
        target: same shape.

    Returns:
        [batch] errors, dimensionless.

    Raises:
        ValueError: if the shapes differ.
    """
    return relative_l2(prediction, target)


def bochner_h1(
    prediction, target, spacing: Sequence[float], has_time: bool, alpha: float = 0.1
):
    """Relative error in L^2(0, T; H^1) of periodic fields, exact by Parseval.

    (sum_t ||e(t)||^2)^(1/2) over that of the target, with ||f||^2 the sum of (alpha +
    |k|^2) |f_k|^2 over angular wave numbers k = 2 pi j / L. Frames and channels count
    the same. With alpha = 0.1 it is the loss that the Spectral-Refiner was trained
    with times the root of the number of frames.

    Args:
        prediction: [batch, *space, time, channels], or [batch, *space, channels].
        target: same shape.
        spacing: one number per axis of the grid, see `relative_h1`; that of time does
            not matter.
        has_time: whether the last axis of the grid is time.
        alpha: weight of the field beside its gradient, dimension 1 / length^2.

    Returns:
        [batch] errors, dimensionless.

    Raises:
        ValueError: if the shapes differ, or the points are not equidistant.
    """
    _check(prediction, target)
    axes, lengths = _periodic_axes(target.shape, spacing, has_time)
    # Frames and channels side by side, as if all were times.
    shape = (*target.shape[: axes[-1] + 1], -1)
    return sobolev.relative_bochner(
        prediction.reshape(shape),
        target.reshape(shape),
        order=1,
        lengths=lengths,
        alpha=alpha,
        axes=axes,
        time_axis=-1,
    )


def sobolev_released(
    prediction,
    target,
    spacing: Sequence[float],
    has_time: bool,
    order: float = 0.0,
    alpha: float = 0.1,
    relative: bool = True,
    time_average: bool = True,
):
    """The loss of the published Spectral-Refiner, for replication.

    Not the norm that its order names, and with time_average too small by the root of
    the number of frames: see `sobolev.compat_sobolev_loss`, `bochner_h1`.

    Args:
        prediction: [batch, *space, time, 1], or [batch, *space, time] with the frames
            of one field as channels.
        target: same shape.
        spacing: see `bochner_h1`.
        has_time: whether the last axis of the grid is time.
        order: as the published code counts it, 0 in training.
        alpha: zeroth-order part.
        relative: divide by the same of the target.
        time_average: divide by the root of the number of frames.

    Returns:
        [batch] values.

    Raises:
        ValueError: if the shapes differ, there are several fields, or the points are
            not equidistant.
    """
    _check(prediction, target)
    axes, lengths = _periodic_axes(target.shape, spacing, has_time)
    if has_time and target.shape[-1] != 1:
        raise ValueError(
            f"sobolev_released is for one field, but there are {target.shape[-1]}: "
            "choose bochner_h1"
        )
    frames = (v[..., 0] if has_time else v for v in (prediction, target))
    return sobolev.compat_sobolev_loss(
        *frames,
        order=order,
        alpha=alpha,
        relative=relative,
        time_average=time_average,
        lengths=lengths,
        axes=axes,
        time_axis=-1,
    )


LOSSES = {
    "relative_l2": relative_l2,
    "relative_h1": relative_h1,
    "relative_h1_spectral": relative_h1_spectral,
    "bochner_l2": bochner_l2,
    "bochner_h1": bochner_h1,
    "sobolev_released": sobolev_released,
}
ON_NODES = ("relative_l2",)  # those that need no grid
PERIODIC = ("bochner_h1", "sobolev_released")  # those that need a periodic domain
OF_THE_DATA = ("prediction", "target", "spacing", "has_time")  # no settings


def create(
    name: str,
    spacing: Sequence[float] | None,
    *,
    has_time: bool = False,
    **settings,
):
    """Returns the named loss as a function of (prediction, target) -> [batch].

    Args:
        name: a key of `LOSSES`.
        spacing: of the training grid, see `relative_h1`; None at the nodes of a mesh.
        has_time: whether the last axis of the grid is time.
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
    if unknown := set(settings) - known.difference(OF_THE_DATA):
        raise ValueError(
            f"loss {name} takes no {sorted(unknown)}: set the whole section, "
            f"--config.loss=\"{{'name': '{name}'}}\""
        )
    told = {"spacing": spacing, "has_time": has_time}
    settings |= {key: value for key, value in told.items() if key in known}
    return functools.partial(LOSSES[name], **settings)


def _spectral_weights(grid: tuple[int, ...], weight: float, cutoff: int) -> np.ndarray:
    """Squared weights [*grid[:-1], n // 2 + 1], multiplicity of columns included."""
    frequencies = [*map(wavenumbers, grid[:-1]), half_wavenumbers(grid[-1])]
    counted = [np.where(np.abs(k) < cutoff, k, 0).astype(float) for k in frequencies]
    squared = sum(k**2 for k in np.meshgrid(*counted, indexing="ij", sparse=True))
    # The columns lie along the last axis.
    return (1 + weight**2 * squared) * half_spectrum_weights(grid[-1])


def _periodic_axes(shape, spacing: Sequence[float], has_time: bool):
    """Axes of space of arrays [batch, *grid, channels], and the lengths of a period."""
    axes = tuple(range(1, len(shape) - 1 - has_time))
    if len(spacing) != len(shape) - 2 or any(np.ndim(spacing[a - 1]) for a in axes):
        raise ValueError(
            f"spacing is {spacing}, but the fields [batch, *grid, channels] have shape "
            f"{tuple(shape)}: give one number per axis of the grid, which must be "
            "equidistant in space"
        )
    return axes, tuple(shape[a] * spacing[a - 1] for a in axes)


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
