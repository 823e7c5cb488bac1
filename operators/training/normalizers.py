"""Gaussian normalisers: fitted on training samples, stored with the run."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

KINDS = ("none", "scalar", "pointwise")
EPSILON = 1e-5  # added to the standard deviation, as in the FNO and MgNO scripts


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["mean", "scale"],
    meta_fields=[],
    drop_fields=["periodic"],
)
@dataclasses.dataclass(frozen=True)
class Normalizer:
    """Affine map to zero mean and unit variance, z = (x - mean) / scale, and back.

    Attributes:
        mean: broadcasts against [batch, *grid, channels]: [1, 1, ..., 1, channels] or,
            pointwise, [1, *grid, channels].
        scale: same shape, standard deviation plus 1e-5, in the units of the field.
        periodic: one bool per axis of the grid, True where the grid leaves out the
            right end of a period; () if no axis does. Compiled functions only encode
            and decode: on the way into them (as a pytree) it is dropped.
    """

    mean: np.ndarray
    scale: np.ndarray
    periodic: tuple[bool, ...] = ()

    def encode(self, x):
        """Maps x [batch, *grid, channels] to normalised values."""
        return (x - self._fit(self.mean, x)) / self._fit(self.scale, x)

    def decode(self, z):
        """Maps normalised values [batch, *grid, channels] back to physical units."""
        return z * self._fit(self.scale, z) + self._fit(self.mean, z)

    def resample(self, shape: Sequence[int]) -> "Normalizer":
        """The normaliser on another grid of the same domain.

        Pointwise statistics are functions of position: along periodic axes they go
        through their Fourier coefficients, along the others, whose grids hold both
        ends, they are interpolated linearly between the nodes. At the nodes of a mesh
        they hold for that mesh alone; nobody should resample them there.

        Args:
            shape: points per axis of the other grid.
        """
        if self.everywhere or self.mean.shape[1:-1] == tuple(shape):
            return self
        mean, scale = (
            _interpolate(np.asarray(v), tuple(shape), self.periodic)
            for v in (self.mean, self.scale)
        )
        # Fourier sums overshoot at kinks, where no scale may come near zero or below;
        # half the smallest one leaves smooth scales as they are.
        axes = tuple(range(self.scale.ndim - 1))
        least = 0.5 * np.asarray(self.scale).min(axis=axes, keepdims=True)
        return Normalizer(mean, np.maximum(scale, least), self.periodic)

    @property
    def everywhere(self) -> bool:
        """Whether the statistics are the same at all points."""
        return set(self.mean.shape[1:-1]) == {1}

    def _fit(self, statistics, x):
        fitted, found = statistics.shape[1:-1], x.shape[1:-1]
        if len(fitted) != len(found) or not (self.everywhere or fitted == found):
            fitted, found = (" x ".join(map(str, n)) for n in (fitted, found))
            raise ValueError(
                f"the pointwise normaliser was fitted on a {fitted} grid, but the "
                f"field is {found}: call resample(shape), or train with "
                '"scalar" normalisers'
            )
        return statistics


def fit(
    kind: str,
    samples: np.ndarray,
    *,
    num_coordinates: int = 0,
    periodic: Sequence[bool] = (),
) -> Normalizer:
    """Fits mean and standard deviation (ddof 1) in float64.

    Args:
        kind: "none" (identity), "scalar" (one mean per channel) or "pointwise" (one
            per grid point and channel).
        samples: [num, *grid, channels] training samples.
        num_coordinates: so many channels come first that are coordinates of points;
            they stay as they are, whatever the kind.
        periodic: see `Normalizer`.

    Raises:
        ValueError: for an unknown kind, for fewer than two samples, or if periodic has
            not one entry per axis.
    """
    if kind not in KINDS:
        raise ValueError(f"normaliser kind is {kind!r}; known: {KINDS}")
    periodic = tuple(map(bool, periodic))
    if periodic and len(periodic) != samples.ndim - 2:
        raise ValueError(
            f"periodic has {len(periodic)} entries, but the samples [num, *grid, "
            f"channels] have shape {samples.shape}: give one entry per axis of the grid"
        )
    channels = samples.shape[-1]
    if kind == "none":
        unit = np.ones((1,) * (samples.ndim - 1) + (channels,), np.float32)
        return Normalizer(0 * unit, unit, periodic)
    if len(samples) < 2:
        raise ValueError(f"a {kind} normaliser needs 2 samples, got {len(samples)}")
    axes = (0,) if kind == "pointwise" else tuple(range(samples.ndim - 1))
    mean = samples.mean(axis=axes, keepdims=True, dtype=np.float64)
    std = samples.std(axis=axes, keepdims=True, dtype=np.float64, ddof=1)
    scale = std + EPSILON
    mean[..., :num_coordinates], scale[..., :num_coordinates] = 0, 1
    return Normalizer(mean.astype(np.float32), scale.astype(np.float32), periodic)


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

        def read(name):
            # Runs of earlier versions know of no periodic axes.
            periodic = arrays.get(f"{name}_periodic", ())
            return Normalizer(
                arrays[f"{name}_mean"],
                arrays[f"{name}_scale"],
                tuple(map(bool, periodic)),
            )

        return {name: read(name) for name in ("input", "output")}


def _interpolate(
    values: np.ndarray, shape: tuple[int, ...], periodic: tuple[bool, ...]
) -> np.ndarray:
    """Node values [1, *grid, c] on the grid `shape`, [1, *shape, c] float32."""
    # Imported late: that module opens runs, which hold normalisers.
    from operators.training.resolution import resample

    periodic = periodic or (False,) * len(shape)
    between = tuple(
        n if repeats else m
        for n, m, repeats in zip(values.shape[1:-1], shape, periodic, strict=True)
    )
    values = resample(values.astype(np.float64), between, "linear")
    return resample(values, shape, "fourier").astype(np.float32)
