"""What problems of periodic flows share: stored times, rollouts, quality numbers."""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from datagen.initial_fields import fourier_series
from datagen.problems.base import Boundary, Evolution, Sample, TimeStepping

CHUNK = 10  # frames, about, held on the grid of the solver at once
TAIL = 0.9  # modes beyond this share of the highest one show a lack of resolution
RESOLVED = 1e-2  # largest `spectrum_tail` of a flow that its grid resolves


def quality_columns(integrals: Sequence[str]) -> dict[str, str]:
    """Columns that `evolve` fills, with a sentence for each.

    Args:
        integrals: what the balance laws of the equation are of, such as "energy".
    """
    columns = {
        f"{name}_{when}": f"Mean {name} of the {when} frame."
        for name in integrals
        for when in ("first", "last")
    }
    return columns | {
        "cfl_max": "Largest speed x time step / spacing of the grid of the solver.",
        "spectrum_tail": (
            f"Root of the share of the mean square in modes beyond {TAIL:g} of the "
            "highest that the solver keeps, in the first or the last frame."
        ),
    }


def frame_times(first: float, spacing: float, num_frames: int) -> np.ndarray:
    """Times of the stored frames, [num_frames].

    Raises:
        ValueError: if a number is out of range.
    """
    if not 0 <= first < np.inf:
        raise ValueError(f"first_time is {first}; expected zero or more")
    if not 0 < spacing < np.inf:
        raise ValueError(f"frame_spacing is {spacing}; expected a positive number")
    if num_frames < 1 or int(num_frames) != num_frames:
        raise ValueError(f"num_frames is {num_frames}; expected 1, 2, ...")
    return first + spacing * np.arange(num_frames)


def coordinates(
    axes: Sequence[str], shape: Sequence[int], lengths: Sequence[float]
) -> dict[str, np.ndarray]:
    """Points j L / n per axis, the right end left out."""
    zipped = zip(axes, shape, lengths, strict=True)
    return {axis: length / n * np.arange(n) for axis, n, length in zipped}


def boundaries(axes: Sequence[str]) -> tuple[Boundary, ...]:
    """Periodic on every axis."""
    return tuple(Boundary(axis, "PERIODIC", "periodic") for axis in axes)


def as_shape(name: str, value: int | Sequence[int], num_dims: int) -> tuple[int, ...]:
    """Points per axis from one number or one per axis.

    Raises:
        ValueError: unless they are whole numbers of at least 4.
    """
    shape = (value,) * num_dims if np.ndim(value) == 0 else tuple(value)
    if len(shape) != num_dims or not all(int(n) == n and n >= 4 for n in shape):
        raise ValueError(
            f"{name} is {value}; expected a whole number of at least 4"
            + (f", or {num_dims} of them" if num_dims > 1 else "")
        )
    return tuple(map(int, shape))


def check_scheme(equation, stepping: TimeStepping) -> None:
    """Refuses schemes that do not take the equation, before anything is drawn.

    Raises:
        ValueError: naming the scheme and another one.
    """
    import jax

    from solvers import spectral

    def build():
        spectral.stepper(stepping.scheme)(equation, stepping.dt or 1.0)

    jax.eval_shape(build)  # its coefficients are not needed yet


def check_stored(shape: Sequence[int], solver_shape: Sequence[int]) -> None:
    """Refuses to store more points than the solver has: they would hold no more.

    Raises:
        ValueError: naming the points.
    """
    if any(n > m for n, m in zip(shape, solver_shape, strict=True)):
        raise ValueError(
            f"n is {_points(shape)}, but solver_n is {_points(solver_shape)}; expected "
            "no more stored points than points of the solver: choose a smaller n or a "
            "larger solver_n"
        )


def _points(shape):
    return " x ".join(map(str, shape if len(set(shape)) > 1 else shape[:1]))


def check_resolved(
    num_modes: int, solver_shape: Sequence[int], dealias: str = "two_thirds"
) -> None:
    """Refuses initial fields whose modes the solver would cut off.

    Args:
        num_modes: highest wave number per axis.
        solver_shape: points per axis.
        dealias: with "two_thirds" modes below a third of the points are kept,
            otherwise those below half.

    Raises:
        ValueError: naming the largest number of modes.
    """
    highest = (min(solver_shape) - 1) // (3 if dealias == "two_thirds" else 2)
    if num_modes > highest:
        raise ValueError(
            f"initial.num_modes is {num_modes}, but a solver with {min(solver_shape)} "
            f"points per axis keeps {highest} modes: choose at most {highest}, or more "
            "points"
        )


@dataclasses.dataclass
class Quality:
    """Numbers of a run, collected chunk by chunk.

    Attributes:
        equation: what is integrated.
        columns: name -> [B], see `quality_columns`.
        defect: [B] bound of the largest relative defect of the balance laws.
        steps: time steps.
    """

    equation: Any
    columns: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    defect: np.ndarray | float = 0.0
    steps: int = 0

    def take(self, trajectory) -> None:
        """Adds a chunk."""
        # Every chunk starts its balances anew: the sum bounds the defect of the run.
        self.defect = self.defect + np.asarray(trajectory.diagnostics["balance"])[:, -1]
        self.steps += trajectory.steps
        self._largest("cfl_max", np.asarray(trajectory.max_cfl))

    def look(self, fields, when: str) -> None:
        """Looks at the first or last stored frame [B, *grid] on the solver's grid."""
        values = np.asarray(_integrals()(self.equation, fields))
        for i, name in enumerate(self.equation.budget_names):
            self.columns[f"{name}_{when}"] = values[:, i]
        cutoffs = self.equation.modes.cutoffs
        if self.equation.dealias == "legacy":  # beyond, nothing is advected
            cutoffs = tuple(n // 3 for n in self.equation.grid.shape)
        tail = spectrum_tail(np.asarray(fields), cutoffs)
        self._largest("spectrum_tail", tail)

    def _largest(self, name: str, values: np.ndarray) -> None:
        self.columns[name] = np.maximum(self.columns.get(name, 0.0), values)


def evolve(
    equation,
    samples: Sequence[Sample],
    times: np.ndarray,
    stepping: TimeStepping,
    store_shape: Sequence[int],
) -> tuple[np.ndarray, Quality]:
    """Integrates a batch from Fourier coefficients at time zero.

    The frames are computed in chunks on the grid of the solver and truncated to the
    stored grid by Fourier series. The time before the first frame is cut into intervals
    no longer than those between frames, and into whole chunks.

    Args:
        equation: a `solvers.spectral` equation.
        samples: each with `modes`, in the layout of `datagen.initial_fields`.
        times: [T] of the frames, equally spaced.
        stepping: scheme and largest step.
        store_shape: points per axis of the stored grid.

    Returns:
        Frames [B, T, *store_shape] and the quality of the run.
    """
    from solvers import spectral

    def run(fields, part, start):
        trajectory = spectral.rollout(
            equation,
            fields,
            part,
            scheme=stepping.scheme,
            dt=stepping.dt,
            cfl=stepping.cfl,
            start=start,
            record=("balance",),
            allow_nonfinite=True,
        )
        quality.take(trajectory)
        return trajectory.fields

    quality = Quality(equation)
    size = _chunk_size(len(times) - 1)
    modes = np.stack([sample["modes"] for sample in samples])
    fields = equation.grid.check(
        fourier_series(modes, equation.grid.shape).astype(stepping.dtype)
    )
    now = 0.0
    for part in _cut(_warm_up(times, size), size):
        fields, now = run(fields, part, now)[:, -1], float(part[-1])
    quality.look(fields, "first")
    store = functools.partial(_resample(), equation.grid, tuple(store_shape))
    frames = [np.asarray(store(fields))[:, None]]
    for part in _cut(times[1:], size):
        chunk = run(fields, part, now)
        frames.append(np.asarray(store(chunk)))
        fields, now = chunk[:, -1], float(part[-1])
    quality.look(fields, "last")
    return np.concatenate(frames, axis=1), quality


def evolution(
    equation,
    fields: Mapping[str, np.ndarray],
    quality: Quality,
    stepping: TimeStepping,
) -> Evolution:
    """What `EvolutionProblem.evolve` returns."""
    from solvers.spectral.steppers import transforms_per_step

    num = len(quality.columns["cfl_max"])
    per_step = transforms_per_step(stepping.scheme, equation)
    return Evolution(
        fields=fields,
        defect=quality.defect,
        steps=np.full(num, quality.steps),
        transforms=np.full(num, quality.steps * per_step),
        quality=quality.columns,
    )


def spectrum_tail(
    fields: np.ndarray, cutoffs: Sequence[int] | None = None
) -> np.ndarray:
    """Root of the share of the mean square in the highest tenth of the modes.

    Args:
        fields: [B, *grid].
        cutoffs: highest mode that can be there per axis; None: all of the grid.

    Returns:
        [B], between 0 and 1; a mode counts if it is in the tenth on any axis.
    """
    axes = tuple(range(1, fields.ndim))
    powers = np.abs(np.fft.rfftn(fields.astype(np.float64), axes=axes)) ** 2
    outer = np.zeros((1,) * len(axes), bool)
    for axis, n in zip(axes, fields.shape[1:], strict=True):
        j = np.abs(np.fft.fftfreq(n, 1 / n))[: powers.shape[axis]]
        highest = n // 2 if cutoffs is None else cutoffs[axis - 1]
        outer = outer | (j > TAIL * highest).reshape(
            [-1 if a == axis else 1 for a in axes]
        )
    powers[..., 1 : (fields.shape[-1] + 1) // 2] *= 2
    total = powers.sum(axis=axes)
    tail = (powers * outer).sum(axis=axes)
    return np.sqrt(tail / np.where(total > 0, total, 1))


def _warm_up(times: np.ndarray, size: int) -> np.ndarray:
    """Ends of intervals up to the first frame, no longer than those between frames."""
    spacing = times[1] - times[0] if len(times) > 1 else times[0]
    chunks = math.ceil(times[0] / (spacing * size) - 1e-9) if times[0] else 0
    return np.linspace(0, times[0], chunks * size + 1)[1:]


def _chunk_size(intervals: int) -> int:
    """Intervals computed at once: such that all chunks are alike, if that can be."""
    if intervals <= 2 * CHUNK:
        return max(intervals, 1)
    divisors = [k for k in range(CHUNK // 2, 2 * CHUNK + 1) if intervals % k == 0]
    return min(divisors, key=lambda k: abs(k - CHUNK), default=CHUNK)


def _cut(times: np.ndarray, size: int) -> list[np.ndarray]:
    return [times[i : i + size] for i in range(0, len(times), size)]


@functools.cache
def _resample():
    import jax

    return jax.jit(
        lambda grid, shape, fields: grid.resample(fields, shape), static_argnums=(0, 1)
    )


@functools.cache
def _integrals():
    import jax

    return jax.jit(
        lambda equation, fields: equation.budget(equation.to_state(fields))[0]
    )
