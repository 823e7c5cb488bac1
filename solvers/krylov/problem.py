"""What GCRO-DR is given and what it returns: the checked system, the results."""

import dataclasses
from collections.abc import Callable

import numpy as np

from solvers.counting import CountingOperator
from solvers.krylov.blocks import Kernels
from solvers.krylov.recycle import RecycleSpace
from solvers.results import PhaseSeconds
from solvers.scaling import unit_of


@dataclasses.dataclass(frozen=True)
class CycleState:
    """What a hook sees after every cycle: Op V_s = C B + V_{s+1} H, Op U = C.

    The arrays are views that the next cycle overwrites.

    Attributes:
        op: Op for a block [n, j] like U; its products are counted like all others.
        C: [n, k] of this cycle.
        U: [n, k] of this cycle.
        V: [n, s + 1] of this cycle.
        Z: [n, s] with A Z = Op V_s in x-mode; V_s itself in t-mode.
        B: [k, s].
        H: [s + 1, s].
        residual_norm: ||b - A x|| after the cycle.
        OpY: [n, k'] after the refresh.
        Y: [n, k'] after the refresh, with Op Y = OpY.
    """

    op: Callable[[np.ndarray], np.ndarray]
    C: np.ndarray
    U: np.ndarray
    V: np.ndarray
    Z: np.ndarray
    B: np.ndarray
    H: np.ndarray
    residual_norm: float
    OpY: np.ndarray
    Y: np.ndarray


@dataclasses.dataclass(frozen=True)
class GCRODRResult:
    """Solution and report of `gcrodr`.

    Attributes:
        x: [n].
        converged: whether ||b - A x|| <= max(rtol ||b||, atol), recomputed.
        residual_norm: ||b - A x||, recomputed.
        residual_norms: ||r|| as the recurrence sees it: after the projection onto what
            was carried over, then after every step; iterations + 1 numbers.
        iterations: Arnoldi steps.
        cycles: restarts, the first cycle included.
        matvecs: products with A: steps, carry-over, recomputed residuals.
        preconditioner_applications: applications of M.
        phases: seconds; `preconditioner` is M wherever it is applied, `arnoldi` what
            the others leave.
        space: to pass on, or None if nothing worth keeping was found.
        recycle_dim: vectors carried over from before and used.
        flags: what went wrong and what was done about it, sentences.
    """

    x: np.ndarray
    converged: bool
    residual_norm: float
    residual_norms: np.ndarray
    iterations: int
    cycles: int
    matvecs: int
    preconditioner_applications: int
    phases: PhaseSeconds
    space: RecycleSpace | None
    recycle_dim: int
    flags: tuple[str, ...]


class Problem:
    """A, M, b and x0, checked, in one arithmetic; counts the products.

    b and x0 are divided by `unit`, so that norms neither underflow nor overflow.
    """

    def __init__(self, A, M, b, x0, rows):
        b = np.asarray(b)
        if b.ndim != 1:
            raise ValueError(f"b has shape {b.shape}; expected [n]")
        if x0 is not None and np.shape(x0) != b.shape:
            raise ValueError(f"x0 has shape {np.shape(x0)}, but b has {b.shape}")
        self.A, a_dtype = _counting(A, "A", len(b))
        self.M, m_dtype = (None, float) if M is None else _counting(M, "M", len(b))
        x0 = np.zeros(b.shape) if x0 is None else np.asarray(x0)
        dtype = np.result_type(a_dtype, m_dtype, b, x0, np.float64)
        self.unit = unit_of(b, lambda peak: float(max(rows.gather(np.array(peak)))))
        with np.errstate(over="ignore"):
            self.b = b.astype(dtype) / self.unit
            self.x0 = x0.astype(dtype) / self.unit
        self.kernels, self.rows = Kernels(dtype, rows), rows
        self.size = int(rows.reduce(np.array([float(len(b))]))[0])
        self._counts = self.A.count, self.M.count if self.M else 0

    def check_space(self, space):
        """The space as a `RecycleSpace` of fitting shape and arithmetic, or None."""
        if space is None:
            return None
        if not isinstance(space, RecycleSpace):
            space = RecycleSpace(np.asarray(space))
        if space.Y.ndim != 2 or len(space.Y) != len(self.b):
            raise ValueError(
                f"space has shape {space.Y.shape}, but b has {len(self.b)} entries; "
                "drop the space when the size changes"
            )
        self._check_arithmetic(space.Y, "space")
        return space

    def precondition(self, v):
        """M v, or v itself without M."""
        if self.M is None:
            return v
        z = self.M(v)
        self._check_arithmetic(z, "M")
        return z

    def apply(self, z):
        """A z."""
        w = self.A(z)
        self._check_arithmetic(w, "A")
        return w

    def matvecs(self):
        """Products with A in this solve."""
        return self.A.count - self._counts[0]

    def applications(self):
        """Applications of M in this solve."""
        return self.M.count - self._counts[1] if self.M else 0

    def _check_arithmetic(self, values, name):
        if np.iscomplexobj(values) and self.kernels.dtype.kind != "c":
            raise TypeError(
                f"{name} is complex, but the system is real; pass b as complex numbers"
            )


def _counting(operator, name, n):
    """The operator as a counting callable, and its dtype if it tells."""
    if isinstance(operator, CountingOperator):
        return operator, float
    shape = getattr(operator, "shape", None)
    if shape is None and callable(operator):
        return CountingOperator(operator), float
    if shape is None or tuple(shape) != (n, n):
        raise ValueError(f"{name} has shape {shape}, but b has {n} entries")
    dtype = float if operator.dtype is None else operator.dtype
    return CountingOperator(lambda v: operator @ v), dtype
