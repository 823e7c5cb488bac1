"""Linear operators on structured grids, stored as one coefficient array per offset."""

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp

FIVE_POINT = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))
BLOCK_SIZE = 1 << 14  # numbers: 128 KiB in float64


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["coefficients"],
    meta_fields=["offsets", "periodic"],
)
@dataclasses.dataclass(frozen=True)
class StencilOperator:
    """Batch of sparse matrices on a box grid whose rows couple to fixed offsets.

    (A u)_i = sum_o coefficients[i, o] u_{i + offsets[o]}, where u is zero outside the
    grid: boundary values are eliminated before, so coefficients that point outside are
    never used (problems store zeros there). Along periodic axes i + offsets[o] wraps
    around instead.

    Attributes:
        coefficients: [batch, *grid, num_offsets], NumPy or JAX; entry (i, o) is
            A[i, i + offsets[o]].
        offsets: one tuple of steps per coefficient, one step per grid axis; distinct.
        periodic: grid axes that wrap around, each longer than twice the largest step
            along it.

    Raises:
        ValueError: if the offsets repeat themselves or do not fit the array, or if
            there is no such periodic axis or it is too short.
    """

    coefficients: Any
    offsets: tuple[tuple[int, ...], ...]
    periodic: tuple[int, ...] = ()

    def __post_init__(self):
        shape = getattr(self.coefficients, "shape", None)
        if shape is None:  # JAX unflattens pytrees with placeholders in place of arrays
            return
        lengths = {len(offset) for offset in self.offsets}
        if len(set(self.offsets)) != len(self.offsets) or len(lengths) != 1:
            raise ValueError(
                f"offsets {self.offsets} must be distinct tuples of one length"
            )
        if len(shape) != lengths.pop() + 2 or shape[-1] != len(self.offsets):
            raise ValueError(
                f"coefficients have shape {tuple(shape)}; expected [batch, *grid, "
                f"{len(self.offsets)}] with one grid axis per entry of an offset"
            )
        reach = self._reach()
        for axis in self.periodic:
            if not 0 <= axis < len(reach) or shape[1 + axis] <= 2 * reach[axis]:
                raise ValueError(
                    f"periodic is {self.periodic}; expected axes of the grid "
                    f"{tuple(shape[1:-1])} that are longer than twice the steps along "
                    f"them, {reach}"
                )

    @classmethod
    def from_planes(
        cls,
        planes: Sequence[np.ndarray],
        offsets: tuple[tuple[int, ...], ...],
        periodic: tuple[int, ...] = (),
    ) -> "StencilOperator":
        """Builds one system (batch 1) from one array [*grid] per offset, in NumPy.

        The planes stay contiguous in memory, which is the order the solvers read; they
        are complex128 if one of them is complex, float64 otherwise.
        """
        stacked = double(np.stack(planes))
        return cls(np.moveaxis(stacked, 0, -1)[None], offsets, periodic)

    @property
    def batch(self) -> int:
        """Number of systems."""
        return self.coefficients.shape[0]

    @property
    def grid_shape(self) -> tuple[int, ...]:
        """Unknowns per axis."""
        return tuple(self.coefficients.shape[1:-1])

    @property
    def num_unknowns(self) -> int:
        """Unknowns of one system."""
        return int(np.prod(self.grid_shape))

    def diagonal(self) -> Any:
        """Diagonals [batch, *grid]; zeros if no offset is zero."""
        center = (0,) * len(self.grid_shape)
        if center not in self.offsets:
            return jnp.zeros_like(self.coefficients[..., 0])
        return self.coefficients[..., self.offsets.index(center)]

    def apply(self, u: jax.Array) -> jax.Array:
        """A u for u [batch, *grid], same shape; matrix-free, in the arrays' dtype."""
        self._check_shape("u", u)
        reach = self._reach()
        padded = u
        for axis, r in enumerate(reach):
            width = [(0, 0)] * u.ndim
            width[1 + axis] = (r, r)
            mode = "wrap" if axis in self.periodic else "constant"
            padded = jnp.pad(padded, width, mode=mode)
        terms = (
            self.coefficients[..., k] * padded[(slice(None), *window)]
            for k, window in enumerate(self._windows(reach))
        )
        return functools.reduce(jnp.add, terms)

    def to_csr(self, index: int = 0) -> sp.csr_array:
        """System `index` as a SciPy matrix [N, N], unknowns in row-major order.

        In float64 or complex128. Entries that leave the grid are dropped, zeros inside
        are kept: the pattern depends on the grid alone. NumPy only.
        """
        values = [
            double(self.coefficients[index, ..., k])[here].ravel()
            for k, offset in enumerate(self.offsets)
            for here, _ in _overlaps(offset, self.grid_shape, self.periodic)
        ]
        sources, columns, starts = _csr_pattern(
            self.grid_shape, self.offsets, self.periodic
        )
        # Copies: SciPy may reorder the arrays of a matrix in place.
        arrays = (np.concatenate(values)[sources], columns.copy(), starts.copy())
        return sp.csr_array(arrays, shape=(self.num_unknowns, self.num_unknowns))

    def residual(self, u: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Residual b - A u in NumPy float64 or complex128, all [batch, *grid]."""
        u, b = double(u), double(b)
        self._check_shape("u", u)
        self._check_shape("b", b)
        r = b.astype(np.result_type(u, b, double(self.coefficients[:0])))
        planes = [double(self.coefficients[..., k]) for k in range(len(self.offsets))]
        for k, here, there in _blocks(self.grid_shape, self.offsets, self.periodic):
            r[here] -= planes[k][here] * u[there]
        return r

    def residual_norm(self, u: np.ndarray, b: np.ndarray) -> np.ndarray:
        """||b - A u||_2 [batch], recomputed in NumPy float64."""
        return _norms(self.residual(u, b))

    def relative_residual(self, u: np.ndarray, b: np.ndarray) -> np.ndarray:
        """||b - A u||_2 / ||b||_2 [batch] in NumPy float64: the certificate of u.

        Where b is zero: 0 for an exact u, infinity otherwise. NaN stays NaN.
        """
        return relative_to(self.residual_norm(u, b), _norms(double(b)))

    def _reach(self) -> tuple[int, ...]:
        return tuple(
            max(abs(o) for o in steps) for steps in zip(*self.offsets, strict=True)
        )

    def _windows(self, reach: tuple[int, ...]):
        for offset in self.offsets:
            yield tuple(
                slice(r + o, r + o + n)
                for r, o, n in zip(reach, offset, self.grid_shape, strict=True)
            )

    def _check_shape(self, name: str, u: Any) -> None:
        if tuple(u.shape) != (self.batch, *self.grid_shape):
            raise ValueError(
                f"{name} has shape {tuple(u.shape)}, but the operator acts on "
                f"{(self.batch, *self.grid_shape)}"
            )


def is_singular(operator: StencilOperator) -> bool:
    """Whether all rows sum to zero up to rounding, so that A maps constants to zero.

    That is how pure Neumann and periodic problems without a reaction term look. Only
    entries inside the grid count, in NumPy double precision. False if a row is all zero
    or not finite, or if one system of the batch is regular.
    """
    shape = operator.grid_shape
    # Corners tell regular systems at once in most cases.
    corners = itertools.product(*({0, n - 1} for n in shape))
    windows = [tuple(slice(i, i + 1) for i in corner) for corner in corners]
    return all(
        _rows_sum_to_zero(operator, window)
        for window in [*windows, tuple(slice(0, n) for n in shape)]
    )


def _rows_sum_to_zero(operator, window):
    """Whether the rows in a window of slices sum to zero up to rounding."""
    sums = np.zeros((operator.batch, *(s.stop - s.start for s in window)))
    totals = np.zeros_like(sums)
    sums = sums.astype(double(operator.coefficients[:0]).dtype)
    for k, offset in enumerate(operator.offsets):
        values = double(operator.coefficients[(slice(None), *window, k)])
        inside = [slice(None)]
        for axis, (o, n, s) in enumerate(
            zip(offset, operator.grid_shape, window, strict=True)
        ):
            if axis not in operator.periodic:
                low, high = max(s.start, -o), min(s.stop, n - o)
                inside.append(slice(max(low - s.start, 0), max(high - s.start, 0)))
            else:
                inside.append(slice(None))
        inside = tuple(inside)
        sums[inside] += values[inside]
        totals[inside] += abs(values[inside])
    small = abs(sums) <= 8 * np.finfo(np.float64).eps * totals
    return bool((small & (totals > 0)).all())


def double(values: Any) -> np.ndarray:
    """A NumPy array in complex128 if the values are complex, otherwise in float64."""
    values = np.asarray(values)
    kind = np.complex128 if np.iscomplexobj(values) else np.float64
    return values.astype(kind, copy=False)


def relative_to(norm: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Ratio norm / scale elementwise, with 0 / 0 = 0 and x / 0 = infinity."""
    norm, scale = np.asarray(norm, np.float64), np.asarray(scale, np.float64)
    safe = np.where(scale == 0, 1.0, scale)
    return np.where((scale == 0) & (norm != 0), np.inf, norm / safe)


@functools.lru_cache(maxsize=8)
def _csr_pattern(
    shape: tuple[int, ...],
    offsets: tuple[tuple[int, ...], ...],
    periodic: tuple[int, ...],
):
    """Where each entry comes from, its column, and the row starts; rows sorted."""
    numbers = np.arange(int(np.prod(shape)), dtype=np.int32).reshape(shape)
    pairs = [pair for offset in offsets for pair in _overlaps(offset, shape, periodic)]
    rows = np.concatenate([numbers[here].ravel() for here, _ in pairs])
    columns = np.concatenate([numbers[there].ravel() for _, there in pairs])
    sources = np.arange(rows.size)
    size = (numbers.size, numbers.size)
    pattern = sp.coo_array((sources, (rows, columns)), shape=size).tocsr()
    return pattern.data, pattern.indices, pattern.indptr


def row_blocks(shape: Sequence[int]) -> list[slice]:
    """Cuts the first axis so that a few float64 arrays of a block fit into the cache.

    Elementwise work on large arrays takes half the time block by block.
    """
    height = max(1, BLOCK_SIZE // max(1, int(np.prod(shape[1:]))))
    starts = range(0, shape[0], height)
    return [slice(start, min(start + height, shape[0])) for start in starts]


def _norms(values: np.ndarray) -> np.ndarray:
    """Euclidean norms [batch] of [batch, ...], bit for bit those of np.linalg.norm."""
    values = values.reshape(len(values), -1)
    if np.iscomplexobj(values):
        return np.linalg.norm(values, axis=1)
    return np.sqrt(np.add.reduce(np.square(values), axis=1))


@functools.lru_cache(maxsize=8)
def _blocks(
    shape: tuple[int, ...],
    offsets: tuple[tuple[int, ...], ...],
    periodic: tuple[int, ...],
) -> list[tuple[int, tuple[slice, ...], tuple[slice, ...]]]:
    """The terms of A u in blocks of rows that fit into a core's cache.

    Returns:
        Number of an offset, rows i and columns i + offset as indices of [batch, *grid];
        the offsets of a row come in their order.
    """
    blocks = []
    for block in row_blocks(shape):
        for k, offset in enumerate(offsets):
            for here, there in _overlaps(offset, shape, periodic):
                start = max(block.start, here[0].start)
                stop = min(block.stop, here[0].stop)
                shift = there[0].start - here[0].start
                if start < stop:
                    rows, columns = (
                        (slice(None), slice(start + s, stop + s), *rest)
                        for s, rest in ((0, here[1:]), (shift, there[1:]))
                    )
                    blocks.append((k, rows, columns))
    return blocks


def _overlaps(
    offset: tuple[int, ...], shape: tuple[int, ...], periodic: tuple[int, ...]
):
    """Slices of the rows i and of the columns i + offset that both lie in the grid.

    One pair, and one more for each way around the periodic axes.
    """
    axes = []
    for axis, (o, n) in enumerate(zip(offset, shape, strict=True)):
        low, high = max(0, -o), max(0, n - max(0, o))
        pairs = [(slice(low, high), slice(max(0, o), max(0, n - low)))]
        if axis in periodic and o > 0:
            pairs.append((slice(n - o, n), slice(0, o)))
        elif axis in periodic and o < 0:
            pairs.append((slice(0, -o), slice(n + o, n)))
        axes.append(pairs)
    return [tuple(zip(*choice, strict=True)) for choice in itertools.product(*axes)]
