"""Applies the bases of `solvers.fast_diagonalization` along an axis, by FFT if faster.

A transform stands for vectors Q of T q = lambda W q: `forward` computes D_1 Q^T r and
`backward` Q D_2 z with diagonal D_1, D_2 that suit the FFT; `factors` = 1 / (D_1 D_2)
belong to the division by the eigenvalues: f(T) = backward f(lambda) factors forward.
"""

import dataclasses
import functools
import math
from typing import NamedTuple

import numpy as np
import scipy.fft
import scipy.fftpack

from solvers.fast_diagonalization import Line, basis

# Time of a step of an FFT, in units of a multiplication and addition in a matrix
# product, on one core: 98 <= n <= 512 gave 4 to 7. FFTs of prime lengths above go
# through two of at least twice the length.
STEP, LARGE_FACTOR, BLUESTEIN = 5.5, 1.1, 3.0


class Dense(NamedTuple):
    """Matrix products with any basis.

    Attributes:
        values: [n] eigenvalues.
        vectors: Q [n, n].
        factors: see the module.
    """

    values: np.ndarray
    vectors: np.ndarray
    factors: float = 1.0

    def scaled(self, values: np.ndarray, factors: float) -> "Dense":
        """The same vectors with other values and factors."""
        return self._replace(values=values, factors=factors)

    def forward(self, r: np.ndarray, axis: int) -> np.ndarray:
        """Q^T along an axis of r."""
        return _product(self.vectors.T, r, axis)

    def backward(self, z: np.ndarray, axis: int) -> np.ndarray:
        """Q along an axis of z."""
        return _product(self.vectors, z, axis)


def _product(Q, r, axis):
    if axis == r.ndim - 1:
        return (r.reshape(-1, r.shape[-1]) @ Q.T).reshape(r.shape)
    blocks = r.reshape(math.prod(r.shape[:axis]), r.shape[axis], -1)
    return np.matmul(Q, blocks).reshape(r.shape)


@dataclasses.dataclass(frozen=True)
class Fast:
    """Sine, cosine and Fourier transforms for one `Line` with a closed form.

    Attributes:
        values: [n] eigenvalues, in the order of the coefficients.
        factors: [n] or one number, see the module.
        kinds: names of the transforms forward and backward.
        doubled: entries of r that count twice, as the FFT halves them.
        mirrored: whether the axis is read from its other end.
    """

    values: np.ndarray
    factors: np.ndarray | float
    kinds: tuple[str, str]
    doubled: tuple[int, ...] = ()
    mirrored: bool = False

    def scaled(self, values: np.ndarray, factors: np.ndarray | float) -> "Fast":
        """The same transforms with other values and factors."""
        return dataclasses.replace(self, values=values, factors=factors)

    def forward(self, r: np.ndarray, axis: int) -> np.ndarray:
        """D_1 Q^T along an axis of r, which stays as it is."""
        if self.mirrored:
            r = np.flip(r, axis)
        if self.doubled:
            r = r.copy()
            for end in self.doubled:
                r[(slice(None),) * axis + (end,)] *= 2
        return _transform(self.kinds[0], r, axis, bool(self.doubled))

    def backward(self, z: np.ndarray, axis: int) -> np.ndarray:
        """Q D_2 along an axis of z, which may be overwritten."""
        x = _transform(self.kinds[1], z, axis, True)
        return np.ascontiguousarray(np.flip(x, axis)) if self.mirrored else x


def _transform(kind, r, axis, overwrite):
    if kind == "rfft":
        return scipy.fftpack.rfft(r, axis=axis, overwrite_x=overwrite)
    if kind == "irfft":
        return scipy.fftpack.irfft(r, axis=axis, overwrite_x=overwrite)
    function = scipy.fft.dst if kind.startswith("dst") else scipy.fft.dct
    return function(r, int(kind[3:]), axis=axis, overwrite_x=overwrite, workers=1)


def transform(line: Line) -> Dense | Fast:
    """The faster transform for a line by counted operations, never by the clock."""
    if cost(line) < line.n**2:
        return fast_transform(line)
    return Dense(*basis(line))


def cost(line: Line) -> float:
    """Of the faster transform of one vector, in steps of a matrix product."""
    fast = fast_transform(line)
    if fast is None:
        return float(line.n**2)
    return min(STEP * fft_steps(_fft_length(fast, line.n)), float(line.n**2))


@functools.lru_cache(maxsize=64)
def fast_transform(line: Line) -> Fast | None:
    """The transform by FFT; None for lines without a closed form.

    References:
        Strang (1999), The discrete cosine transform, SIAM Review 41(1).
    """
    if (found := _lower_wall(line)) is None:
        found = _lower_wall(line.mirrored())
        found = found and dataclasses.replace(found, mirrored=True)
    return found


def _lower_wall(line):
    """As `fast_transform`; of two different ends the wall must be the lower one."""
    n, k = line.n, np.arange(1, line.n + 1)
    factors, doubled = np.full(n, 0.5 / n), ()
    match (line.periodic, line.ends, line.halves):
        case (True, (0.0, 0.0), (False, False)):
            kinds, angles, factors = ("rfft", "irfft"), 2 * (k // 2) / n, 1.0
        case (False, (1.0, 1.0), (False, False)):
            kinds, angles, factors = ("dst1", "dst1"), k / (n + 1), 0.5 / (n + 1)
        case (False, (1.0, 0.0), (False, True)):
            kinds, angles, doubled = ("dst3", "dst2"), (k - 0.5) / n, (-1,)
        case (False, (2.0, 2.0), (False, False)):
            kinds, angles = ("dst2", "dst3"), k / n
        case (False, (2.0, 0.0), (False, False)):
            kinds, angles = ("dst4", "dst4"), (k - 0.5) / n
        case (False, (0.0, 0.0), (False, False)):
            kinds, angles = ("dct2", "dct3"), (k - 1) / n
        case (False, (0.0, 0.0), (True, True)) if n > 1:
            kinds, angles, doubled = ("dct1", "dct1"), (k - 1) / (n - 1), (0, -1)
            factors = 0.5 / (n - 1)
        case _:
            return None
    return Fast(4 * np.sin(np.pi / 2 * angles) ** 2, factors, kinds, doubled)


def _fft_length(fast, n):
    """Length of the real FFT behind a transform."""
    return {"dst1": 2 * (n + 1), "dct1": 2 * (n - 1)}.get(fast.kinds[0], n)


@functools.lru_cache(maxsize=256)
def fft_steps(length: int) -> float:
    """Steps of a real FFT: its length times the sum of its prime factors.

    Or, where that is less, those of the detour that prime lengths take.
    """
    direct = _steps(length)
    if length < 50:
        return direct
    return min(direct, BLUESTEIN * _steps(scipy.fft.next_fast_len(2 * length - 1)))


def _steps(length):
    total, rest, factor = 0.0, length, 2
    while factor * factor <= rest:
        while rest % factor == 0:
            total += factor if factor <= 5 else LARGE_FACTOR * factor
            rest //= factor
        factor += 1
    if rest > 1:
        total += rest if rest <= 5 else LARGE_FACTOR * rest
    return total * length
