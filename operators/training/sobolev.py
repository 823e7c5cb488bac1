"""Sobolev norms of periodic fields and Bochner norms of trajectories, by Parseval.

With the unnormalised transform F over N points, angular wave numbers k = 2 pi j / L and
the mean square as the norm of order 0,

    ||f||_{H^s}^2 = N^-2 sum_k (alpha + |k|^2)^s |F f(k)|^2,

without k = 0 where alpha = 0 and s is not 0. Times the volume of the domain this is the
integral norm. Every function takes NumPy or JAX arrays and works in their precision:
float64 for residuals, float32 for training. `compat_sobolev_loss` is the loss of the
published code, whose exponents are others.
"""

import math
from collections.abc import Sequence

import numpy as np

from solvers.fourier import half_spectrum_weights, half_wavenumbers, wavenumbers

SPACE = (-2, -1)  # where the axes of space stand by default: [..., time, n1, n2]


def squared_wavenumbers(grid: Sequence[int], lengths: Sequence[float]) -> np.ndarray:
    """|k|^2 in `rfftn` layout, [*grid[:-1], grid[-1] // 2 + 1], float64.

    Args:
        grid: points per axis.
        lengths: of the periodic domain, one per axis.

    Raises:
        ValueError: if there is not one length per axis.
    """
    if len(grid) != len(lengths):
        raise ValueError(
            f"lengths has {len(lengths)} entries, but the grid is {tuple(grid)}: give "
            "the length of the domain along every axis of space"
        )
    integers = [*map(wavenumbers, grid[:-1]), half_wavenumbers(grid[-1])]
    scaled = (
        2 * np.pi / length * j for j, length in zip(integers, lengths, strict=True)
    )
    return sum(k**2 for k in np.meshgrid(*scaled, indexing="ij", sparse=True))


def parseval_weights(
    grid: Sequence[int],
    order: float,
    lengths: Sequence[float],
    alpha: float = 0.0,
) -> np.ndarray:
    """Weights w with ||f||_{H^s}^2 = sum w |rfftn f|^2, in `rfftn` layout, float64.

    The multiplicity of the columns and N^-2 are included, so that sqrt(w) rfftn f is a
    vector whose Euclidean norm is the norm of f: what least squares need.

    Args:
        grid: points per axis.
        order: s, any real number; 0 is the root of the mean square, mean included.
        lengths: of the domain, one per axis.
        alpha: zeroth-order part, not negative; 0 leaves out the mean where s is not 0.

    Raises:
        ValueError: for a negative alpha, or if there is not one length per axis.
    """
    if alpha < 0:
        raise ValueError(f"alpha must not be negative, but is {alpha}")
    base = alpha + squared_wavenumbers(grid, lengths)
    with np.errstate(divide="ignore"):
        weights = base ** float(order)
    if alpha == 0 and order != 0:
        weights.flat[0] = 0.0
    return weights * half_spectrum_weights(grid[-1]) / math.prod(grid) ** 2


def squared_sobolev_norm(
    field,
    *,
    order: float,
    lengths: Sequence[float],
    alpha: float = 0.0,
    axes: Sequence[int] = SPACE,
):
    """||field||_{H^order}^2 over the axes of space; see `sobolev_norm`."""
    xp = field.__array_namespace__()
    axes = tuple(axis % field.ndim for axis in axes)
    if list(axes) != sorted(set(axes)) or len(axes) != len(lengths):
        raise ValueError(
            f"axes must name {len(lengths)} different axes in rising order, one per "
            f"entry of lengths, but are {axes} of a field of shape {field.shape}"
        )
    weights = parseval_weights([field.shape[a] for a in axes], order, lengths, alpha)
    spectrum = xp.fft.rfftn(field, axes=axes)
    power = xp.real(spectrum) ** 2 + xp.imag(spectrum) ** 2
    return xp.sum(power * _spread(weights, axes, power), axis=axes)


def sobolev_norm(
    field,
    *,
    order: float,
    lengths: Sequence[float],
    alpha: float = 0.0,
    axes: Sequence[int] = SPACE,
):
    """The norm ||field||_{H^order} of periodic fields, in the mean-square scaling.

    Args:
        field: [..., n1, n2] real values at the points j L / n, or with the axes of
            space elsewhere; any number of axes of space.
        order: s, any real number: 0 is the root of the mean square, 1 with alpha = 0
            that of the gradient, -1 its dual.
        lengths: of the domain, one per axis of space.
        alpha: zeroth-order part of alpha + |k|^2, dimension 1 / length^2. With 0 the
            mean does not count, but for order 0.
        axes: the axes of space, in rising order.

    Returns:
        One number per field, the axes of space removed. Its gradient at 0 is 0.

    Raises:
        ValueError: for a negative alpha, or axes and lengths that do not fit.
    """
    return root(
        squared_sobolev_norm(
            field, order=order, lengths=lengths, alpha=alpha, axes=axes
        )
    )


def bochner_norm(
    trajectory,
    *,
    order: float,
    lengths: Sequence[float],
    alpha: float = 0.0,
    weights=None,
    axes: Sequence[int] = SPACE,
    time_axis: int = -3,
):
    """(sum_m w_m ||u(t_m)||_{H^order}^2)^(1/2), the norm of L^2(0, T; H^order).

    Args:
        trajectory: [..., time, n1, n2], or with its axes elsewhere.
        order: of the norm in space, see `sobolev_norm`.
        lengths: of the domain, one per axis of space.
        alpha: see `sobolev_norm`.
        weights: [time] quadrature weights w_m, or one number for all, such as the
            spacing of the times. None: 1 / number of times, the mean over time.
        axes: the axes of space, in rising order.
        time_axis: the axis of time.

    Returns:
        One number per trajectory, the axes of space and time removed.

    Raises:
        ValueError: as `sobolev_norm`, or for weights that do not fit the times.
    """
    squared = _squared_bochner(
        trajectory, order, lengths, alpha, weights, axes, time_axis
    )
    return root(squared)


def relative_bochner(
    prediction,
    target,
    *,
    order: float,
    lengths: Sequence[float],
    alpha: float = 0.0,
    weights=None,
    axes: Sequence[int] = SPACE,
    time_axis: int = -3,
):
    """||prediction - target|| / ||target|| in `bochner_norm`: time is summed first.

    Args:
        prediction: [..., time, n1, n2].
        target: same shape.
        order: see `bochner_norm`, like all that follows.
        lengths: of the domain.
        alpha: zeroth-order part.
        weights: of the times; a common factor cancels.
        axes: the axes of space.
        time_axis: the axis of time.

    Returns:
        One error per trajectory, dimensionless; 0 where prediction and target vanish.

    Raises:
        ValueError: if the shapes differ, or as `bochner_norm`.
    """
    if prediction.shape != target.shape:
        raise ValueError(
            "prediction and target must have one shape, but have "
            f"{prediction.shape} and {target.shape}"
        )
    settings = (order, lengths, alpha, weights, axes, time_axis)
    error = _squared_bochner(prediction - target, *settings)
    reference = _squared_bochner(target, *settings)
    xp = target.__array_namespace__()
    # The tiny number keeps 0 / 0 at 0.
    return root(error) / xp.sqrt(reference + xp.finfo(target.dtype).tiny)


def compat_sobolev_loss(
    prediction,
    target,
    *,
    order: float = -1,
    alpha: float = 0.1,
    relative: bool = False,
    time_average: bool = True,
    lengths: Sequence[float] = (1.0, 1.0),
    cutoff: float | None = None,
    axes: Sequence[int] = SPACE,
    time_axis: int = -3,
):
    """The loss of the published code, for replication; not the norm that it names.

    It weighs |F e|^2 by (alpha + |k|^2)^(order / 2), a root too many, and by alpha +
    |k|^2 for order 0. It does not divide an absolute value by the number of points, and
    it averages over time in the numerator of a relative value only: with T times that
    is 1 / sqrt(T) of the relative error.

    Args:
        prediction: [..., time, n1, n2].
        target: same shape, or None for 0 with relative = False.
        order: as the published code counts it: -1 is H^(-1/2), 0 and 2 are H^1.
        alpha: zeroth-order part; not 0 where order < 0.
        relative: divide by the same sum of the target.
        time_average: divide by the root of the number of times.
        lengths: of the domain.
        cutoff: largest |j| per axis that counts; beyond it the weight is 0 where order
            < 0, else j counts as 0. None: all count.
        axes: the axes of space.
        time_axis: the axis of time.

    Returns:
        One value per trajectory. The published code then takes the mean.

    Raises:
        ValueError: if the shapes differ, for alpha = 0 with a negative order, or for a
            relative value without a target.

    References:
        torch-cfd at 475c738, fno/losses.py, SobolevLoss.
    """
    _check_released(prediction, target, order, alpha, relative)
    xp = prediction.__array_namespace__()
    axes = tuple(axis % prediction.ndim for axis in axes)
    time_axis %= prediction.ndim
    grid = [prediction.shape[a] for a in axes]
    weights = _released_weights(grid, order, lengths, alpha, cutoff)

    def total(v):
        spectrum = xp.fft.rfftn(v, axes=axes)
        power = xp.real(spectrum) ** 2 + xp.imag(spectrum) ** 2
        return xp.sum(power * _spread(weights, axes, power), axis=(*axes, time_axis))

    loss = root(total(prediction if target is None else prediction - target))
    if relative:
        loss = loss / xp.sqrt(total(target) + xp.finfo(target.dtype).tiny)
    return loss / math.sqrt(prediction.shape[time_axis]) if time_average else loss


def root(squared):
    """Square root with gradient 0 at 0, where infinity times 0 would make it NaN."""
    xp = squared.__array_namespace__()
    zero = squared == 0
    return xp.where(zero, xp.zeros_like(squared), xp.sqrt(xp.where(zero, 1.0, squared)))


def _squared_bochner(trajectory, order, lengths, alpha, weights, axes, time_axis):
    axes = tuple(axis % trajectory.ndim for axis in axes)
    time_axis %= trajectory.ndim
    if time_axis in axes:
        raise ValueError(f"time_axis {time_axis} is one of the axes of space {axes}")
    squared = squared_sobolev_norm(
        trajectory, order=order, lengths=lengths, alpha=alpha, axes=axes
    )
    axis = time_axis - sum(a < time_axis for a in axes)
    xp = squared.__array_namespace__()
    if weights is None:
        return xp.mean(squared, axis=axis)
    num_times = squared.shape[axis]
    if np.shape(weights) not in ((), (num_times,)):
        raise ValueError(
            f"weights have shape {np.shape(weights)}, but there are {num_times} times: "
            "give one weight per time, or one number"
        )
    weights = xp.asarray(weights, dtype=squared.dtype)
    if weights.ndim:
        weights = weights.reshape(_shape_on(weights.shape, (axis,), squared.ndim))
    return xp.sum(squared * weights, axis=axis)


def _released_weights(grid, order, lengths, alpha, cutoff) -> np.ndarray:
    limit = math.inf if cutoff is None else cutoff
    squared, beyond = 0.0, False
    integers = [*map(wavenumbers, grid[:-1]), half_wavenumbers(grid[-1])]
    for j, length in zip(
        np.meshgrid(*integers, indexing="ij", sparse=True), lengths, strict=True
    ):
        squared = squared + (2 * np.pi / length * np.where(abs(j) > limit, 0, j)) ** 2
        beyond = beyond | (abs(j) > limit)
    weights = (alpha + squared) ** (order / 2 if order else 1.0)
    if order < 0:
        weights = np.where(beyond, 0.0, weights)
    return weights * half_spectrum_weights(grid[-1])


def _check_released(prediction, target, order, alpha, relative) -> None:
    if target is not None and prediction.shape != target.shape:
        raise ValueError(
            "prediction and target must have one shape, but have "
            f"{prediction.shape} and {target.shape}"
        )
    if relative and target is None:
        raise ValueError("a relative value needs a target: set relative=False")
    if order < 0 and alpha <= 0:
        raise ValueError(
            f"alpha must be positive for order {order}, but is {alpha}: the weight of "
            "the mean would be infinite"
        )


def _spread(weights: np.ndarray, axes: tuple[int, ...], power):
    """Weights in the layout and precision of a spectrum of more axes."""
    shape = _shape_on(weights.shape, axes, power.ndim)
    return power.__array_namespace__().asarray(
        weights.reshape(shape), dtype=power.dtype
    )


def _shape_on(sizes, axes, ndim: int) -> list[int]:
    shape = [1] * ndim
    for size, axis in zip(sizes, axes, strict=True):
        shape[axis] = size
    return shape
