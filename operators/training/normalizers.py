"""Gaussian normalisers: fitted on training samples, stored with the run."""

import dataclasses
from collections.abc import Sequence
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
        mean: broadcasts against [batch, *grid, channels]: [1, 1, ..., 1, channels] or,
            pointwise, [1, *grid, channels].
        scale: same shape, standard deviation plus 1e-5, in the units of the field.
    """

    mean: np.ndarray
    scale: np.ndarray

    def encode(self, x):
        """Maps x [batch, *grid, channels] to normalised values."""
        return (x - self._fit(self.mean, x)) / self._fit(self.scale, x)

    def decode(self, z):
        """Maps normalised values [batch, *grid, channels] back to physical units."""
        return z * self._fit(self.scale, z) + self._fit(self.mean, z)

    def resample(self, shape: Sequence[int]) -> "Normalizer":
        """The normaliser on another grid of the same domain, both ends included.

        Pointwise statistics are functions of position: they are interpolated linearly
        between the nodes. At the nodes of a mesh they hold for that mesh alone; nobody
        should resample them there.

        Args:
            shape: points per axis of the other grid.
        """
        if self._everywhere or self.mean.shape[1:-1] == tuple(shape):
            return self
        mean, scale = (_interpolate(np.asarray(v), shape) for v in vars(self).values())
        return Normalizer(mean, scale)

    @property
    def _everywhere(self) -> bool:
        """Whether the statistics are the same at all points."""
        return set(self.mean.shape[1:-1]) == {1}

    def _fit(self, statistics, x):
        fitted, found = statistics.shape[1:-1], x.shape[1:-1]
        if len(fitted) != len(found) or not (self._everywhere or fitted == found):
            fitted, found = (" x ".join(map(str, n)) for n in (fitted, found))
            raise ValueError(
                f"the pointwise normaliser was fitted on a {fitted} grid, but the "
                f"field is {found}: call resample(shape), or train with "
                '"scalar" normalisers'
            )
        return statistics


def fit(kind: str, samples: np.ndarray, *, num_coordinates: int = 0) -> Normalizer:
    """Fits mean and standard deviation (ddof 1) in float64.

    Args:
        kind: "none" (identity), "scalar" (one mean per channel) or "pointwise" (one
            per grid point and channel).
        samples: [num, *grid, channels] training samples.
        num_coordinates: so many channels come first that are coordinates of points;
            they stay as they are, whatever the kind.

    Raises:
        ValueError: for an unknown kind, or for fewer than two samples.
    """
    if kind not in KINDS:
        raise ValueError(f"normaliser kind is {kind!r}; known: {KINDS}")
    channels = samples.shape[-1]
    if kind == "none":
        unit = np.ones((1,) * (samples.ndim - 1) + (channels,), np.float32)
        return Normalizer(0 * unit, unit)
    if len(samples) < 2:
        raise ValueError(f"a {kind} normaliser needs 2 samples, got {len(samples)}")
    axes = (0,) if kind == "pointwise" else tuple(range(samples.ndim - 1))
    mean = samples.mean(axis=axes, keepdims=True, dtype=np.float64)
    std = samples.std(axis=axes, keepdims=True, dtype=np.float64, ddof=1)
    scale = std + EPSILON
    mean[..., :num_coordinates], scale[..., :num_coordinates] = 0, 1
    return Normalizer(mean.astype(np.float32), scale.astype(np.float32))


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


def _interpolate(values: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Linear interpolation of node values [1, *grid, c] to [1, *shape, c]."""
    axes = [np.linspace(0, 1, m) for m in values.shape[1:-1]]
    points = np.meshgrid(*(np.linspace(0, 1, n) for n in shape), indexing="ij")
    interpolant = RegularGridInterpolator(axes, values[0].astype(np.float64))
    return interpolant(np.stack(points, axis=-1))[None].astype(np.float32)
