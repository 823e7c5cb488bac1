"""The restarts of GCRO-DR: cycles, checks after each, and what to do when they fail."""

import dataclasses
from collections.abc import Callable

import numpy as np

from solvers.counting import CountingOperator
from solvers.krylov import arnoldi
from solvers.krylov.blocks import Kernels
from solvers.krylov.recycle import RecycleSpace
from solvers.results import PhaseSeconds

AIM = 0.99  # the recurrence stops a little below the target: it drifts by rounding
MAX_CORRECTIONS = 3
STAGNATION = 0.99  # a cycle that leaves more than this of the residual
MIN_RATES, MAX_RATES = 20, 60  # cycles that the adaptive refresh compares with
RE_PROJECT = 1e-4  # share of C in r above which one projection is not exact enough


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
    """A, M, b and x0, checked, in one arithmetic; counts the products."""

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
        self.b, self.x0 = b.astype(dtype), x0.astype(dtype)
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


class Guard:
    """Decides after every cycle whether and how to go on."""

    def __init__(self, target, k):
        self._target, self._k = target, k
        self._corrections = self._slow = self._drops = self._breakdowns = 0

    def check(self, before, after, cycle):
        """Returns "go", "drop", "perturb" or "stop", and a sentence."""
        if cycle.breakdown:
            self._breakdowns += 1
            if self._breakdowns > 1:
                return "stop", "broke down twice; A or M may be singular"
            return "perturb", "broke down; went on from a random vector"
        if cycle.residual_norm <= self._target:
            self._corrections += 1
            if self._corrections > MAX_CORRECTIONS:
                return "stop", (
                    "the recomputed residual stays above the tolerance; rounding "
                    "errors allow no more"
                )
            return "go", ""
        slow = not after <= STAGNATION * before
        self._slow = self._slow + 1 if slow else 0
        if self._slow < 2 or not self._k:
            return "go", ""
        self._slow, self._drops = 0, self._drops + 1
        if self._drops > 1:
            return "stop", "stagnated again without the old space; gave up"
        return "drop", "stagnated; dropped the space and went on cold"


class Run:
    """The cycles of one solve."""

    def __init__(self, problem, recycling, m, maxiter, refresh, keep, callback, hook):
        self.problem, self.recycling, self.m = problem, recycling, m
        self.kernels, self.maxiter, self.policy = problem.kernels, maxiter, refresh
        self.keep, self.callback, self.hook = keep, callback, hook
        self.norms, self.flags, self.rates = [], [], []
        self.cycles = self.recycle_dim = 0
        self.converged, self.space, self.given = False, None, None
        self.residual_norm = np.nan

    @property
    def iterations(self):
        """Arnoldi steps done."""
        return max(0, len(self.norms) - 1)

    def solve(self, rtol, atol, space):
        """Iterates; starts once more without a space if NaN or infinity comes up."""
        problem, kernels = self.problem, self.kernels
        self.norm_b, norm_x = kernels.norm(problem.b), kernels.norm(problem.x0)
        self.target = max(rtol * self.norm_b, atol)
        self.x, self.at_zero, self.given = problem.x0.copy(), norm_x == 0, space
        if self.norm_b == 0:
            self.x[:], self.residual_norm, self.norms = 0, 0.0, [0.0]
            self.converged, self.space = True, space
        elif not np.isfinite([self.norm_b, norm_x]).all():
            self.flags.append("b or x0 holds NaN or infinite values")
        else:
            self._iterate_twice(norm_x)

    def _iterate_twice(self, norm_x):
        try:
            self._iterate(self.given)
            return
        except FloatingPointError as error:
            self.flags.append(f"{error}; dropped the space, started again from x0")
        self.recycling.drop()
        self.x, self.at_zero, self.given = self.problem.x0.copy(), norm_x == 0, None
        try:
            self._iterate(None)
        except FloatingPointError as error:
            self.flags.append(f"{error} again; gave up")
            self.residual_norm = np.nan

    def _iterate(self, space):
        self._recompute_residual()
        if self.residual_norm <= self.target:
            if not self.norms:
                self._on_step(self.residual_norm)
            self.converged, self.space = True, space if self.keep else None
            return
        if space is not None:
            self._carry_over(space)
        guard = Guard(self.target, self.recycling.capacity)
        while self.residual_norm > self.target:
            if self.norms and self.iterations >= self.maxiter:
                self.flags.append(f"stopped after maxiter = {self.maxiter} steps")
                break
            before = self.residual_norm
            cycle = self._cycle()
            if self.residual_norm <= self.target:
                break
            action, sentence = guard.check(before, self.residual_norm, cycle)
            if sentence:
                self.flags.append(sentence)
            if action == "stop":
                break
            if action == "drop":
                self.recycling.drop()
            elif action == "perturb":
                self._perturb()
        self.converged = bool(self.residual_norm <= self.target)
        if self.keep:
            self.space = self.recycling.space(self.rates[-MAX_RATES:])

    def _recompute_residual(self):
        """Sets r = b - A x; x = 0 costs no product."""
        b = self.problem.b
        self.r = b.copy() if self.at_zero else b - self.problem.apply(self.x)
        self.residual_norm = self.kernels.norm(self.r)
        if not np.isfinite(self.residual_norm):
            raise FloatingPointError(arnoldi.NOT_FINITE)

    def _carry_over(self, space):
        self.rates = list(space.rates)
        recycling, M = self.recycling, self.problem.M
        start = M.seconds if M else 0.0
        dropped = recycling.load(space, self._op)
        recycling.seconds["carry_over"] -= M.seconds - start if M else 0.0
        if dropped > recycling.basis.k:
            recycling.drop()
            self.flags.append("over half of the space was dependent; went on cold")
        elif dropped:
            self.flags.append(f"dropped {dropped} dependent vectors of the space")
        self.recycle_dim = recycling.basis.k

    def _op(self, Y):
        """Op Y for a block [n, j] of vectors like those of U."""
        result = np.empty_like(Y, order="F")
        t_mode = self.recycling.Z is None
        for column, out in zip(Y.T, result.T, strict=True):
            z = self.problem.precondition(column) if t_mode else column
            out[:] = self.problem.apply(z)
        return result

    def _step(self, v, j):
        """Op v for the j-th Arnoldi step."""
        z = self.problem.precondition(v)
        if self.recycling.Z is not None:
            self.recycling.Z[:, j] = z
        return self.problem.apply(z)

    def _project(self):
        """Takes the part in range(C) out of r; returns its coefficients."""
        C, kernels = self.recycling.basis.C, self.kernels
        g = kernels.dot(C, self.r)
        kernels.subtract(self.r, C, g)
        if np.linalg.norm(g) > RE_PROJECT * self.residual_norm:
            again = kernels.dot(C, self.r)
            kernels.subtract(self.r, C, again)
            g += again
        return g

    def _cycle(self):
        """One cycle: minimises ||b - A x|| over range([U V_s]), renews the space."""
        basis = self.recycling.basis
        g = self._project()
        beta = self.kernels.norm(self.r)
        if not self.norms:
            self._on_step(beta)
        basis.steps, result = 0, arnoldi.Steps(np.zeros(0), beta, False)
        max_steps = min(self.m - basis.k, self.maxiter - self.iterations)
        if beta > AIM * self.target and max_steps > 0:
            basis.block[:, basis.k] = self.r / beta
            result = arnoldi.run(
                self._step,
                basis,
                self.kernels,
                beta=beta,
                target=AIM * self.target,
                max_steps=max_steps,
                on_step=self._on_step,
            )
        self.cycles += 1
        self._update(g, result.y)
        if basis.steps:
            self._refresh(np.log(result.residual_norm / beta) / basis.steps)
        return result

    def _update(self, g, y):
        """Adds V y + U (g - B y) to x, through M; recomputes the residual."""
        recycling, basis, kernels = self.recycling, self.recycling.basis, self.kernels
        t = np.zeros_like(self.x)
        kernels.subtract(t, basis.U, basis.B @ y - g)
        V = basis.V if recycling.Z is None else recycling.Z
        kernels.subtract(t, V[:, : basis.steps], -y)
        self.x += self.problem.precondition(t) if recycling.Z is None else t
        self.at_zero = False
        self._recompute_residual()

    def _on_step(self, residual_norm):
        self.norms.append(residual_norm)
        if self.callback is not None:
            self.callback(residual_norm / self.norm_b)

    def _refresh(self, rate):
        """Renews the space if the policy says so; `rate` is that of the cycle."""
        recycling, basis = self.recycling, self.recycling.basis
        due = self.policy == "always" or not basis.k
        if self.policy == "adaptive" and not due:
            due = len(self.rates) < MIN_RATES or rate > np.median(self.rates)
        if self.policy == "never" and self.given is None:
            due = True
        self.rates.append(float(rate))
        if self.residual_norm <= self.target and not self.keep:
            due = False
        if due and recycling.capacity:
            recycling.refresh()
        if self.hook is not None:
            Z = basis.V if recycling.Z is None else recycling.Z
            state = CycleState(
                op=self._op,
                C=basis.C,
                U=basis.U,
                V=basis.V,
                Z=Z[:, : basis.steps],
                B=basis.B,
                H=basis.H,
                residual_norm=self.residual_norm,
                OpY=recycling.basis.C,
                Y=recycling.basis.U,
            )
            self.hook(state)

    def _perturb(self):
        """Adds a random vector to x, so that the next Krylov space is another one."""
        rng = np.random.default_rng(self.problem.rows.rank)
        v = rng.standard_normal(len(self.x)).astype(self.kernels.dtype)
        z = self.problem.precondition(v / self.kernels.norm(v))
        size = self.kernels.norm(self.problem.apply(z))
        if size > 0:
            self.x += z * (self.residual_norm / size)
        self._recompute_residual()

    def result(self, seconds):
        """The public result."""
        recycling, problem = self.recycling, self.problem
        own = recycling.seconds
        precondition = problem.M.seconds if problem.M else 0.0
        phases = PhaseSeconds(
            arnoldi=max(0.0, seconds - sum(own.values()) - precondition),
            preconditioner=precondition,
            **own,
        )
        return GCRODRResult(
            x=self.x,
            converged=self.converged,
            residual_norm=self.residual_norm,
            residual_norms=np.array(self.norms),
            iterations=self.iterations,
            cycles=self.cycles,
            matvecs=problem.matvecs(),
            preconditioner_applications=problem.applications(),
            phases=phases,
            space=self.space,
            recycle_dim=self.recycle_dim,
            flags=tuple(self.flags),
        )
