"""The best trajectory that the refiner's trainable space holds.

The last operator of the model adds to the last known frame a sum over a few functions
of time, each times a spatial field of the retained modes:

    w(t, x) = w_0(x) + sum_j b_j(t) c_j(x).

With a trainable bias per mode and frequency every such c_j can be reached, so that the
least squares below give the smallest error that any refinement can have. Space and time
separate: each spatial mode is fitted in time on its own, and one fit is the best in all
Sobolev norms of space at once. NumPy float64.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from operators.training import sobolev
from solvers.fourier import half_wavenumbers, wavenumbers


@dataclasses.dataclass(frozen=True)
class BestApproximation:
    """A fitted trajectory and where it misses the true one.

    Attributes:
        frames: [..., T, n1, n2] the best approximation.
        relative_l2: [...] its error over space and time, relative to the true frames.
        time_part: [...] the part in the retained modes: too few functions of time.
        space_part: [...] the part in the other modes. The squares of both add up.
        rank: number of functions of time that differ at the frames.
    """

    frames: np.ndarray
    relative_l2: np.ndarray
    time_part: np.ndarray
    space_part: np.ndarray
    rank: int


def best_approximation(
    truth,
    known,
    basis,
    *,
    retained=None,
    weights=None,
) -> BestApproximation:
    """Fits the true frames by least squares in the trainable space.

    Args:
        truth: [..., T, n1, n2] true frames at the predicted times.
        known: [..., n1, n2] the last known frame w_0.
        basis: [T, J] functions of time at the frames. Complex columns stand for two
            functions, their real and imaginary part, as modes of a real field do.
        retained: [n1, n2 // 2 + 1] which modes are trainable, in `rfft2` layout, such
            as `box`; None: all.
        weights: [T] of the frames in the norm; None: equal ones.

    Raises:
        ValueError: if the shapes do not fit.
    """
    truth, known = np.asarray(truth, float), np.asarray(known, float)
    basis = real_basis(basis)
    _check(truth, known, basis, retained, weights)
    num_times, *grid = truth.shape[-3:]
    roots = np.sqrt(np.ones(num_times) if weights is None else np.asarray(weights))
    vectors, rank = _orthonormal(roots[:, None] * basis)
    projector = vectors @ vectors.T * roots / roots[:, None]  # [T, T]

    change = truth - known[..., None, :, :]
    spectrum = np.fft.rfft2(change)
    kept = np.ones(spectrum.shape[-2:]) if retained is None else np.asarray(retained)
    inside = np.fft.irfft2(kept * spectrum, s=grid)
    fitted = np.einsum("ts,...sxy->...txy", projector, inside)
    missed = {"time": inside - fitted, "space": change - inside}
    norms = {
        name: sobolev.bochner_norm(field, order=0, lengths=(1.0, 1.0), weights=roots**2)
        for name, field in {**missed, "truth": truth}.items()
    }
    time_part, space_part = (norms[name] / norms["truth"] for name in ("time", "space"))
    return BestApproximation(
        frames=known[..., None, :, :] + fitted,
        relative_l2=np.hypot(time_part, space_part),
        time_part=time_part,
        space_part=space_part,
        rank=rank,
    )


def real_basis(basis) -> np.ndarray:
    """Real and imaginary parts of complex [T, J] side by side, [T, 2 J]."""
    basis = np.asarray(basis)
    if np.iscomplexobj(basis):
        basis = np.concatenate([basis.real, basis.imag], axis=1)
    return basis.astype(float)


def box(grid: Sequence[int], modes: Sequence[int]) -> np.ndarray:
    """Modes with |j| <= modes on both axes, [n1, n2 // 2 + 1] in `rfft2` layout."""
    j1, j2 = wavenumbers(grid[0]), half_wavenumbers(grid[1])
    return (abs(j1)[:, None] <= modes[0]) & (j2 <= modes[1])


def _orthonormal(matrix: np.ndarray) -> tuple[np.ndarray, int]:
    """Orthonormal basis [T, rank] of the columns, and their rank."""
    vectors, sizes, _ = np.linalg.svd(matrix, full_matrices=False)
    floor = max(matrix.shape) * np.finfo(float).eps * sizes[0]
    rank = int((sizes > floor).sum())
    return vectors[:, :rank], rank


def _check(truth, known, basis, retained, weights) -> None:
    num_times = truth.shape[-3]
    if known.shape != truth.shape[:-3] + truth.shape[-2:]:
        raise ValueError(
            f"known has shape {known.shape}, but truth {truth.shape}: it must be one "
            "frame per trajectory"
        )
    if basis.ndim != 2 or len(basis) != num_times:
        raise ValueError(
            f"basis must be [{num_times}, functions], one row per frame, but has shape "
            f"{basis.shape}"
        )
    half = (truth.shape[-2], truth.shape[-1] // 2 + 1)
    if retained is not None and np.shape(retained) != half:
        raise ValueError(
            f"retained must be {half}, the layout of rfft2, but has shape "
            f"{np.shape(retained)}"
        )
    if weights is not None and np.shape(weights) != (num_times,):
        raise ValueError(
            f"weights must be one per frame, [{num_times}], but have shape "
            f"{np.shape(weights)}"
        )
