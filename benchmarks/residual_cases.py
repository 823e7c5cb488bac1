"""Trajectories for `benchmarks.residuals`: a decaying flow and what can go wrong."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from datagen import initial_fields
from operators.training.refinement import residuals
from solvers import spectral

LENGTH = 2 * np.pi
VISCOSITY = 1e-3
WARM_UP = 4.5
SPACING = 0.055  # of the frames
KNOWN = 3  # frames before the first and after the last that differences may use
SEED = 1127825


@dataclasses.dataclass(frozen=True)
class Case:
    """A decaying flow from random vortices.

    Attributes:
        equation: of the flow.
        times: [T + 1], the first 0.
        truth: [T + 1, n, n] exact frames.
        before: [KNOWN, n, n] the frames before them.
        after: [KNOWN, n, n] the frames after them.
    """

    equation: spectral.NavierStokes2d
    times: np.ndarray
    truth: jnp.ndarray
    before: jnp.ndarray
    after: jnp.ndarray

    @property
    def known_times(self) -> np.ndarray:
        """Of `before`."""
        return SPACING * np.arange(-KNOWN, 0)


def decaying_flow(n: int, num_times: int) -> Case:
    """McWilliams' random vortices on n x n points after a warm-up, nu = 1e-3."""
    grid = spectral.PeriodicGrid(shape=(n, n), lengths=(LENGTH, LENGTH))
    equation = spectral.NavierStokes2d(grid, viscosity=VISCOSITY)
    law = initial_fields.McWilliamsField(num_modes=(n - 1) // 3)
    drawn = law.draw(np.random.default_rng(SEED))
    field = jnp.asarray(initial_fields.fourier_series(drawn, grid.shape))
    start = WARM_UP - KNOWN * SPACING
    warm = spectral.rollout(equation, field, [start], scheme="etdrk4", dt=2.5e-3)
    times = SPACING * np.arange(num_times + 1 + 2 * KNOWN)
    solved = spectral.rollout(
        equation, warm.fields[0], times, scheme="etdrk4", dt=SPACING / 100
    )
    before, truth, after = jnp.split(solved.fields, [KNOWN, KNOWN + num_times + 1])
    return Case(equation, times[: num_times + 1], truth, before, after)


def wrong_trajectories(case: Case) -> dict[str, tuple]:
    """The trajectories of the residual table: (frames, frames before them) by name."""
    noise = random_fields(case, np.random.default_rng(SEED), len(case.times))
    noise = noise * rms(case.truth) / rms(noise[1:])
    noise[0] = 0
    frozen = jnp.broadcast_to(case.truth[:1], case.truth.shape)
    wrong = {
        "exact": case.truth,
        "1 % noise": case.truth + 0.01 * noise,
        "10 % noise": case.truth + 0.1 * noise,
        "first frame repeated": frozen,
    }
    named = {name: (frames, case.before) for name, frames in wrong.items()}
    return named | {"time reversed": (case.truth[::-1], case.after[::-1])}


def errors(case: Case, march) -> dict[str, np.ndarray]:
    """Errors [T + 1, n, n] by name, zero at the first frame, rms as the truth later.

    They differ in what decides how a residual relates to them: how rough they are in
    space, how smooth in time, and whether the flow carries them.

    Args:
        case: the true flow.
        march: takes a field to the time of the next frame.
    """
    rng = np.random.default_rng(SEED)
    top = (case.equation.grid.shape[0] - 1) // 3
    bands = {"large": (1, 5), "middle": (top // 4, top // 2), "small": (top - 6, top)}
    t = (case.times / case.times[-1])[:, None, None]
    waves = [np.sin(np.pi * j * t / 2) for j in range(1, 5)]
    found = {"white noise per frame": random_fields(case, rng, len(t))}
    for name, band in bands.items():
        fields = random_fields(case, rng, 4, band)[:, None]
        noise = random_fields(case, rng, len(t), band)
        found |= {
            f"{name} scales, another per frame": noise,
            f"{name} scales, growing": t * fields[0],
            f"{name} scales, constant": fields[0] + 0 * t,
            f"{name} scales, 4 waves in time": sum(
                wave * field for wave, field in zip(waves, fields, strict=True)
            ),
            f"{name} scales, carried by the flow": carried(case, march, fields[0, 0]),
        }
    rate = residuals.right_hand_side(case.equation, case.truth)
    found["growing delay"] = t * np.asarray(rate)
    found["first frame repeated"] = np.asarray(case.truth[:1] - case.truth)
    found = {name: np.where(t > 0, error, 0) for name, error in found.items()}
    return {k: e * rms(case.truth) / rms(e[1:]) for k, e in found.items()}


def carried(case: Case, march, field: np.ndarray) -> np.ndarray:
    """A small error made once, after the known frame, and carried by the true flow."""
    size = 1e-6 * rms(case.truth) / rms(field)
    frames = [case.truth[0], case.truth[1] + size * field]
    for _ in case.times[2:]:
        frames.append(march(frames[-1]))
    return np.array(jnp.stack(frames) - case.truth)


def random_fields(case: Case, rng, num: int, band=(1, np.inf)) -> np.ndarray:
    """White noise [num, n, n] of the wave numbers band[0] <= |j| < band[1]."""
    grid = case.equation.grid
    spectrum = np.fft.rfft2(rng.normal(size=(num, *grid.shape)))
    j1, j2 = (abs(j) for j in grid.wavenumbers)
    n1, n2 = grid.shape
    size = np.hypot(j1, j2)
    kept = (size >= band[0]) & (size < band[1]) & (3 * j1 < n1) & (3 * j2 < n2)
    return np.fft.irfft2(spectrum * kept, s=grid.shape)


def rms(fields) -> float:
    """Root mean square of everything."""
    return float(np.sqrt(np.mean(np.asarray(fields) ** 2)))
