"""Counts and times what every Krylov method does, in the same way for all of them."""

import time
from collections.abc import Callable

import numpy as np


class CountingOperator:
    """Wraps a linear map; counts the vectors it is applied to and the time it takes.

    Args:
        apply: maps [N] to [N], or a block [N, k] to [N, k] if `takes_blocks`.
        takes_blocks: whether `apply` takes blocks; otherwise they go column by column.

    Attributes:
        count: vectors mapped so far.
        seconds: wall time spent so far.
    """

    def __init__(
        self, apply: Callable[[np.ndarray], np.ndarray], *, takes_blocks: bool = False
    ):
        self._apply, self._takes_blocks = apply, takes_blocks
        self.count, self.seconds = 0, 0.0

    def __call__(self, v: np.ndarray) -> np.ndarray:
        """Applies the map to v [N] or to the columns of v [N, k]."""
        start = time.perf_counter()
        if v.ndim == 1 or self._takes_blocks:
            result = self._apply(v)
        else:
            result = np.stack([self._apply(column) for column in v.T], axis=1)
        self.count += 1 if v.ndim == 1 else v.shape[1]
        self.seconds += time.perf_counter() - start
        return result
