"""Weights by a formula, so that a reference file need not hold them.

The released models have up to a million parameters in their smallest configuration. The
files here name each array with its shape, dtype and range; `fill` computes it, bit for
bit the same on every machine, where the reference was made and where it is compared.
"""

import json
import math
import pathlib
import zlib

import numpy as np

FOLDER = pathlib.Path(__file__).parent


def fill(
    name: str, shape: tuple[int, ...], low: float, high: float, dtype: str
) -> np.ndarray:
    """Numbers in [low, high), spread by a hash of the name and the position.

    Complex arrays get real and imaginary parts in turn; integers are `low` everywhere.

    References:
        Steele, Lea, Flood (2014), Fast splittable pseudorandom number generators,
        OOPSLA (the mixing function of SplitMix64).
    """
    kind = np.dtype(dtype)
    if kind.kind in "iu":
        return np.full(shape, low, kind)
    parts = 2 if kind.kind == "c" else 1
    z = np.arange(math.prod(shape) * parts, dtype=np.uint64)
    z += np.uint64(zlib.crc32(name.encode()) << 32)
    z *= np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z ^= z >> np.uint64(shift)
        z *= np.uint64(factor)
    unit = ((z ^ (z >> np.uint64(31))) >> np.uint64(40)) / 2.0**24
    values = (low + (high - low) * unit).astype(np.float32)
    return values.view(np.complex64 if parts == 2 else np.float32).reshape(shape)


def state(arrays: list) -> dict[str, np.ndarray]:
    """The state dict of rows [name, shape, low, high, dtype]."""
    return {name: fill(name, tuple(shape), *rest) for name, shape, *rest in arrays}


def read(name: str) -> tuple[dict, dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Reads a reference file: facts, state dict, input and output.

    Input [batch, *grid, in_channels], or [batch, points, channels], and output are
    float32, computed in float64 where the official module can. The facts are `source`
    and `arguments`, what the official class was called with.
    """
    with np.load(FOLDER / f"{name}.npz") as file:
        facts = json.loads(str(file["facts"]))
        x, y = file["input"], file["output"]
    return facts, state(facts.pop("state")), x, y
