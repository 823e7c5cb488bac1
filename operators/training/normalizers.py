"""Gaussian normalisers: fitted on training samples, stored with the run."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
from scipy.interpolate import RegularGridInterpolator

KINDS = ("none", "scalar", "pointwise")
EPSILON = 1e-5  # added to the standard deviation, as in the FNO and MgNO scripts


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Normalizer:
    """Affine map to zero mean and unit variance, z = (x - mean) / scale, and back.

    Attributes:
        mean: broadcasts against [batch, n1, n2, channels]: [1, 1, 1, channels] or,
            pointwise, [1, n1, n2, channels].
        scale: same shape, standard deviation plus 1e-5, in the units of the field.
    """

    mean: np.ndarray
    scale: np.ndarray

    def encode(self, x):
        """Maps x [batch, n1, n2, channels] to normalised values."""
        return (x - self._fit(self.mean, x)) / self._fit(self.scale, x)

    def decode(self, z):
        """Maps normalised values [batch, n1, n2, channels] back to physical units."""
        return z * self._fit(self.scale, z) + self._fit(self.mean, z)

    def resample(self, shape: tuple[int, int]) -> "Normalizer":
        """The normaliser on another grid of the same domain, both ends included.

        Pointwise statistics are functions of position: they are interpolated linearly
        between the nodes.

        Args:
            shape: (n1, n2) of the other grid.
        """
        if self.mean.shape[1:3] in ((1, 1), tuple(shape)):
            return self
        mean, scale = (_interpolate(np.asarray(v), shape) for v in vars(self).values())
        return Normalizer(mean, scale)

    @staticmethod
    def _fit(statistics, x):
        n = statistics.shape[1:3]
        if n not in ((1, 1), x.shape[1:3]):
            raise ValueError(
                f"the pointwise normaliser was fitted on a {n[0]} x {n[1]} grid, but "
                f"the field is {x.shape[1]} x {x.shape[2]}: call resample(shape), or "
                'train with "scalar" normalisers'
            )
        return statistics


def fit(kind: str, samples: np.ndarray) -> Normalizer:
    """Fits mean and standard deviation (ddof 1) in float64.

    Args:
        kind: "none" (identity), "scalar" (one mean per channel) or "pointwise" (one
            per grid point and channel).
        samples: [num, n1, n2, channels] training samples.

    Raises:
        ValueError: for an unknown kind, or for fewer than two samples.
    """
    if kind not in KINDS:
        raise ValueError(f"normaliser kind is {kind!r}; known: {KINDS}")
    channels = samples.shape[-1]
    if kind == "none":
        unit = np.ones((1, 1, 1, channels), np.float32)
        return Normalizer(0 * unit, unit)
    if len(samples) < 2:
        raise ValueError(f"a {kind} normaliser needs 2 samples, got {len(samples)}")
    axes = (0,) if kind == "pointwise" else (0, 1, 2)
    mean = samples.mean(axis=axes, keepdims=True, dtype=np.float64)
    std = samples.std(axis=axes, keepdims=True, dtype=np.float64, ddof=1)
    return Normalizer(mean.astype(np.float32), (std + EPSILON).astype(np.float32))


def save(path: Path, normalizers: dict[str, Normalizer]) -> None:
    """Writes the normalisers of a run into one .npz file."""
    arrays = {
        f"{name}_{key}": np.asarray(value)
        for name, normalizer in normalizers.items()
        for key, value in vars(normalizer).items()
    }
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        np.savez(file, **arrays)
    temporary.replace(path)


def load(path: Path) -> dict[str, Normalizer]:
    """Reads what `save` wrote: {"input": Normalizer, "output": Normalizer}."""
    with np.load(path) as arrays:
        return {
            name: Normalizer(arrays[f"{name}_mean"], arrays[f"{name}_scale"])
            for name in ("input", "output")
        }


def _interpolate(values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Linear interpolation of [1, m1, m2, c] node values to [1, n1, n2, c]."""
    axes = [np.linspace(0, 1, m) for m in values.shape[1:3]]
    points = np.meshgrid(*(np.linspace(0, 1, n) for n in shape), indexing="ij")
    interpolant = RegularGridInterpolator(axes, values[0].astype(np.float64))
    return interpolant(np.stack(points, axis=-1))[None].astype(np.float32)
