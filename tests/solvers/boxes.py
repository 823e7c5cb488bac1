"""Coefficient families and systems on boxes of any dimension, for multigrid's tests."""

import numpy as np
import scipy.fft

from solvers.boundaries import Robin
from solvers.diffusion import cell_diffusion
from solvers.sequence import LinearSystem

PHASES = {"two_phase": (3.0, 12.0), "two_phase_1e4": (1.0, 1e4)}
SIDES = {
    "dirichlet": ["dirichlet"] * 3,
    "neumann": ["neumann"] * 3,
    "periodic": ["periodic"] * 3,
    "robin": [Robin(1.0)] * 3,
    "mixed": [("dirichlet", "neumann"), (Robin(1.0), "dirichlet"), "neumann"],
    "wrapped": ["periodic", ("dirichlet", "neumann"), "periodic"],
}
SINGULAR = ("neumann", "periodic")


def gaussian(shape, alpha, seed):
    """Field of unit variance, covariance (-Laplace + 9)^-alpha."""
    waves = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    decay = (np.pi**2 * sum(k**2 for k in waves) + 9) ** (-alpha / 2)
    decay.flat[0] = 0
    noise = np.random.default_rng(seed).standard_normal(shape)
    field = scipy.fft.idctn(noise * decay, norm="ortho")
    return field / field.std()


def coefficient(family, shape, seed=0):
    rng, extra = np.random.default_rng(seed), len(shape) / 2 - 1
    if family == "const":
        return np.ones(shape)
    if family == "white":
        return np.exp(2 * rng.standard_normal(shape))
    if family == "smooth":
        return np.exp(0.2 * gaussian(shape, 3 + extra, seed))
    if family == "multiscale":
        points = np.meshgrid(*(np.linspace(0, 1, n) for n in shape), indexing="ij")
        waves = [
            np.prod([np.sin(np.pi * k * x + rng.uniform(0, 7)) for x in points], axis=0)
            for k in (2, 4, 8, 16, 32)
        ]
        return np.exp(2 * sum(waves))
    rough = gaussian(shape, 2 + extra, seed)
    if family == "logn":
        return np.exp(1.2 * rough)
    low, high = PHASES[family]
    return np.where(rough > 0, high, low)


def box(family, shape, sides="dirichlet", seed=0):
    """-div(a grad u) = f on cells, f random, consistent where A is singular."""
    boundaries = SIDES[sides][: len(shape)]
    a = coefficient(family, shape, seed)
    operator = cell_diffusion(a, (1 / shape[0],) * len(shape), boundaries=boundaries)
    f = np.random.default_rng(seed + 1).standard_normal(shape)
    return LinearSystem(operator, f - f.mean() if sides in SINGULAR else f)
