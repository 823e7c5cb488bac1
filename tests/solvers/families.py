"""Coefficient families and five-point systems for the tests of this folder."""

import numpy as np
import scipy.fft

from solvers.sequence import LinearSystem
from solvers.stencils import FIVE_POINT, StencilOperator


def diffusion(a, f):
    """-div(a grad u) = f on the unit square, u = 0 on its boundary; a at all nodes."""
    h1, h2 = (1 / (n - 1) for n in a.shape)
    a1 = 2 / (1 / a[:-1, 1:-1] + 1 / a[1:, 1:-1]) / h1**2
    a2 = 2 / (1 / a[1:-1, :-1] + 1 / a[1:-1, 1:]) / h2**2
    center = a1[:-1] + a1[1:] + a2[:, :-1] + a2[:, 1:]
    north, south, west, east = -a1[:-1], -a1[1:], -a2[:, :-1], -a2[:, 1:]
    planes = [plane.copy() for plane in (center, north, south, west, east)]
    planes[1][0] = planes[2][-1] = planes[3][:, 0] = planes[4][:, -1] = 0
    return LinearSystem(StencilOperator.from_planes(planes, FIVE_POINT), f)


def gaussian_field(shape, *, alpha, tau, seed):
    """Zero-mean field with covariance (-Laplace + tau^2)^-alpha, unit variance."""
    k1, k2 = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    decay = (np.pi**2 * (k1**2 + k2**2) + tau**2) ** (-alpha / 2)
    decay[0, 0] = 0
    noise = np.random.default_rng(seed).standard_normal(shape)
    field = scipy.fft.idctn(noise * decay, norm="ortho")
    return field / field.std()


def coefficient(name, shape, seed=0):
    """One family's field at all nodes, two more per axis than there are unknowns."""
    if name == "constant":
        return np.ones(shape)
    if name == "white":
        return np.exp(2 * np.random.default_rng(seed).standard_normal(shape))
    if name == "multiscale":
        rng = np.random.default_rng(seed)
        x, y = np.meshgrid(*(np.linspace(0, 1, n) for n in shape), indexing="ij")
        log_a = np.zeros(shape)
        for scale in (2, 4, 8, 16, 32):
            s, t = rng.uniform(0, 2 * np.pi, 2)
            log_a += np.sin(np.pi * scale * x + s) * np.sin(np.pi * scale * y + t)
        return np.exp(2 * log_a)
    smooth = gaussian_field(shape, alpha=3.0, tau=3.0, seed=seed)
    if name == "smooth":
        return np.exp(0.2 * smooth)
    rough = gaussian_field(shape, alpha=2.0, tau=3.0, seed=seed)
    low, high = {"two_phase": (3.0, 12.0), "two_phase_1e4": (1.0, 1e4)}[name]
    return np.where(rough > 0, high, low)


def system(name, shape, seed=0):
    """A family's system with f = 1 on `shape` unknowns."""
    nodes = tuple(n + 2 for n in shape)
    return diffusion(coefficient(name, nodes, seed), np.ones(shape))
