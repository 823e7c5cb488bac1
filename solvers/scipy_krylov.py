"""SciPy's Krylov methods for sequences, all stopping on the true residual norm."""

from typing import NamedTuple

import numpy as np
import scipy.sparse.linalg as spla

from solvers.krylov_solver import KrylovSolver, Outcome, Snapshot, Task

MAX_RESUMES = 5  # further calls of SciPy from the recomputed residual
PROGRESS = 0.5  # smallest reduction by a call that deserves another one


class Run(NamedTuple):
    """What one call of SciPy did for A d = r.

    Attributes:
        d: [N] correction of x.
        iterations: steps.
        cycles: restarts, the first cycle included.
        norms: ||r|| after every step, relative to the start; empty if unknown.
    """

    d: np.ndarray
    iterations: int
    cycles: int
    norms: list[float]


class ScipyKrylov(KrylovSolver):
    """Calls SciPy until the recomputed residual meets the tolerance.

    The preconditioner acts on the right, A M t = r and d = M t, where SciPy would put
    it on the left, so that the norm that is watched is the true one; right-hand sides
    are scaled to norm 1, since SciPy's tests for breakdown know no units. Between calls
    x is corrected and b - A x computed anew. Step limits hold up to one cycle.
    """

    def _iterate(self, task: Task) -> Outcome:
        x, r = task.x.copy(), task.r
        found = Outcome(x)
        norm = float(np.linalg.norm(r))
        norms = [norm / task.norm_b]
        found.recycle_dim = self._begin(task)
        for _ in range(1 + MAX_RESUMES):
            left = task.maxiter - found.iterations
            if task.solved(r) or left <= 0:
                break
            run, failure = self._attempt(task, r / norm, task.aim / norm, left)
            found.iterations += run.iterations
            found.cycles += run.cycles
            norms += [value * norm / task.norm_b for value in run.norms]
            x += norm * run.d
            r = task.b - task.A(x)
            before, norm = norm, float(np.linalg.norm(r))
            if task.solved(r):
                break
            if not norm < PROGRESS * before and found.iterations < task.maxiter:
                found.failure = failure or (
                    f"stagnated at relative residual {norm / task.norm_b:.2e}"
                )
                break
        else:
            found.failure = "the recomputed residual does not follow SciPy's"
        if not task.solved(r) and found.iterations >= task.maxiter:
            found.failure = f"{task.maxiter} steps were not enough"
        found.relative_residual = norm / task.norm_b
        found.residual_norms = tuple(norms) if len(norms) > 1 else ()
        return found

    def _attempt(self, task, b, atol, left):
        """One call of SciPy; what it raises on NaN or breakdown becomes a sentence."""
        try:
            return self._call(task, _operator(task), b, atol, left), ""
        except (ArithmeticError, ValueError, RuntimeError) as error:
            return Run(np.zeros_like(b), 0, 1, []), f"SciPy: {error}"

    def _begin(self, task: Task) -> int:
        """Called before the first call of SciPy; returns how many are carried."""
        return 0

    def _call(self, task, operator, b, atol, left) -> Run:
        raise NotImplementedError


def _operator(task):
    """A M, or A without a preconditioner; SciPy would go on for ever with NaN."""

    def product(v):
        w = task.A(_back(task, v))
        if not np.isfinite(w.sum()):
            raise FloatingPointError("A or M returned NaN or infinite values")
        return w

    return spla.LinearOperator((task.b.size,) * 2, dtype=task.b.dtype, matvec=product)


def _back(task, t):
    """From the variable of A M to that of A."""
    return task.M(t) if task.preconditioned else t


class GMRES(ScipyKrylov):
    """Restarted GMRES(m), right-preconditioned.

    Args:
        m: steps between restarts.
        preconditioner: see `KrylovSolver`.
        frozen: see `KrylovSolver`.

    Raises:
        ValueError: for m below 1.
    """

    method = "gmres"

    def __init__(
        self, *, m: int = 40, preconditioner: str = "none", frozen: bool = False
    ):
        super().__init__(preconditioner=preconditioner, frozen=frozen)
        check_sizes(m, 0)
        self.m = m

    def _call(self, task, operator, b, atol, left):
        norms = []
        t, _ = spla.gmres(
            operator,
            b,
            rtol=0.0,
            atol=atol,
            restart=min(self.m, b.size),
            maxiter=left,
            callback=norms.append,
            callback_type="legacy",  # maxiter counts steps
        )
        cycles = -(-len(norms) // self.m)
        return Run(_back(task, t), len(norms), cycles, norms)


class BiCGStab(ScipyKrylov):
    """BiCGStab, right-preconditioned; one step takes two products with A."""

    method = "bicgstab"

    def _call(self, task, operator, b, atol, left):
        before = task.A.count
        t, _ = spla.bicgstab(operator, b, rtol=0.0, atol=atol, maxiter=left)
        steps = -(-(task.A.count - before) // 2)
        return Run(_back(task, t), steps, 1, [])


class LGMRES(ScipyKrylov):
    """LGMRES, which carries the corrections of its last k cycles to the next system.

    Args:
        m: dimension of the search space of a cycle, carried vectors included.
        k: carried vectors.
        preconditioner: see `KrylovSolver`.
        frozen: see `KrylovSolver`.

    Raises:
        ValueError: unless 0 <= k < m.

    References:
        Baker, Jessup, Manteuffel (2005), A technique for accelerating the convergence
        of restarted GMRES, SIAM J. Matrix Anal. Appl. 26(4).
    """

    method = "lgmres"

    def __init__(
        self,
        *,
        m: int = 40,
        k: int = 3,
        preconditioner: str = "none",
        frozen: bool = False,
    ):
        super().__init__(preconditioner=preconditioner, frozen=frozen)
        check_sizes(m, k)
        self.m, self.k = m, k
        self._vectors: list = []

    def reset(self) -> None:
        """Drops the carried vectors and the preconditioner."""
        super().reset()
        self._vectors = []

    def snapshot(self) -> Snapshot:
        """The preconditioner and the carried vectors."""
        return super().snapshot()._replace(carried=list(self._vectors))

    def restore(self, snapshot: Snapshot) -> None:
        """Carries those vectors again."""
        super().restore(snapshot)
        self._vectors = list(snapshot.carried)

    def _begin(self, task):
        # Products with the matrix before are of no use for this one.
        self._vectors = [(v, None) for v, _ in fitting(self._vectors, task.b, 0)]
        return len(self._vectors)

    def _call(self, task, operator, b, atol, left):
        before, cycles = task.A.count, []
        t, _ = spla.lgmres(
            operator,
            b,
            rtol=0.0,
            atol=atol,
            maxiter=max(1, left // self.m),
            inner_m=min(self.m - self.k, left),
            outer_k=self.k,
            outer_v=self._vectors,
            callback=lambda _: cycles.append(1),
        )
        # One product per cycle recomputes the residual; SciPy also makes one in the
        # end, if it converged.
        steps = max(0, task.A.count - before - len(cycles))
        return Run(_back(task, t), steps, len(cycles), [])


class GCROTmk(ScipyKrylov):
    """Flexible GCROT(m, k), which carries the corrections of its last cycles.

    Args:
        m: dimension of the search space of a cycle, carried vectors included; SciPy's
            `m` is m - k here.
        k: carried vectors; they take as many products with A for each new system.
        preconditioner: see `KrylovSolver`.
        frozen: see `KrylovSolver`.

    Raises:
        ValueError: unless 0 < k < m.

    References:
        Hicken and Zingg (2010), A simplified and flexible variant of GCROT for solving
        nonsymmetric linear systems, SIAM J. Sci. Comput. 32(3).
    """

    method = "gcrotmk"

    def __init__(
        self,
        *,
        m: int = 40,
        k: int = 20,
        preconditioner: str = "none",
        frozen: bool = False,
    ):
        super().__init__(preconditioner=preconditioner, frozen=frozen)
        check_sizes(m, k, lowest=1)
        self.m, self.k = m, k
        self._pairs: list = []

    def reset(self) -> None:
        """Drops the carried pairs and the preconditioner."""
        super().reset()
        self._pairs = []

    def snapshot(self) -> Snapshot:
        """The preconditioner and the carried pairs (A u, u)."""
        pairs = [(c, u.copy()) for c, u in self._pairs]
        return super().snapshot()._replace(carried=pairs)

    def restore(self, snapshot: Snapshot) -> None:
        """Carries those pairs again."""
        super().restore(snapshot)
        self._pairs = [(c, u.copy()) for c, u in snapshot.carried]

    def _begin(self, task):
        self._pairs = [(None, u) for _, u in fitting(self._pairs, task.b, 1)]
        return len(self._pairs)

    def _call(self, task, operator, b, atol, left):
        carried = sum(c is None for c, _ in self._pairs)  # one product each
        before, cycles = task.A.count + carried, []
        A = spla.LinearOperator((b.size, b.size), dtype=b.dtype, matvec=task.A)
        M = None
        if task.preconditioned:
            M = spla.LinearOperator((b.size, b.size), dtype=b.dtype, matvec=task.M)
        d, _ = spla.gcrotmk(
            A,
            b,
            rtol=0.0,
            atol=atol,
            maxiter=max(1, left // self.m),
            M=M,
            m=min(self.m - self.k, left),
            k=self.k,
            CU=self._pairs,
            callback=lambda _: cycles.append(1),
        )
        del self._pairs[: max(0, len(self._pairs) - self.k)]
        return Run(d, max(0, task.A.count - before), len(cycles), [])


def fitting(pairs: list, b: np.ndarray, place: int) -> list:
    """Those of the pairs whose vector `place` belongs to systems like b's."""
    return [
        pair
        for pair in pairs
        if pair[place].size == b.size and pair[place].dtype == b.dtype
    ]


def check_sizes(m: int, k: int, lowest: int = 0) -> None:
    """Raises ValueError unless lowest <= k < m."""
    if not lowest <= k < m:
        raise ValueError(f"m is {m} and k is {k}; expected {lowest} <= k < m")
