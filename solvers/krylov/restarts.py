"""The restarts of GCRO-DR: cycles, checks after each, and what to do when they fail."""

import numpy as np

from solvers.krylov import arnoldi
from solvers.krylov.problem import CycleState, GCRODRResult
from solvers.results import PhaseSeconds

AIM = 0.99  # the recurrence stops a little below the target: it drifts by rounding
MAX_CORRECTIONS = 3
STAGNATION = 0.99  # cycles that leave more than this of the residual made no progress
DROP_AFTER = 2  # such cycles in a row: a space that was passed in is dropped, once
GIVE_UP_AFTER = 20  # such cycles in a row without one
GROWTH = 1.5  # a cycle minimises the residual: if it grows that much, it is rounding
MIN_RATES, MAX_RATES = 20, 60  # cycles that the adaptive refresh compares with
RE_PROJECT = 1e-4  # share of C in r above which one projection is not exact enough


class Guard:
    """Decides after every cycle whether and how to go on.

    Progress is measured from the smallest residual so far. The space that a solve has
    built itself is never dropped: where a few eigenvalues are far smaller than the
    others, the residual stands still for some cycles until the space knows them. It
    goes only where rounding has spoilt it: on a singular A its vectors grow without
    bound, and the residual with them.

    Args:
        target: residual norm to reach.
        k: dimension of the space; 0 (GMRES) leaves stagnation to `maxiter`.
        carried: whether a space that was passed in is in use.
    """

    def __init__(self, target, k, carried):
        self._target, self._k, self._carried = target, k, carried
        self._corrections = self._slow = self._breakdowns = self._growths = 0
        self._mark = np.inf  # residual norm when there was progress last

    def check(self, before, after, cycle):
        """Returns what to do, a word that `Run` knows, and a sentence."""
        self._mark = min(self._mark, before)
        self._slow += 1
        if after <= STAGNATION * self._mark:
            self._mark = after
            self._corrections = self._slow = self._breakdowns = self._growths = 0
        if after > GROWTH * before:
            self._growths, self._carried = self._growths + 1, False
            sentence = (
                "the residual grew by rounding, A may be singular; undid the cycle"
            )
            if self._growths > 1:
                return "abandon", f"{sentence} and gave up"
            return "undo", f"{sentence}, dropped the space and went on cold"
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
        return self._judge_pace()

    def _judge_pace(self):
        if self._carried and self._slow >= DROP_AFTER:
            self._carried, self._slow = False, 0
            return "drop", "stagnated; dropped the space and went on cold"
        if self._k and self._slow >= GIVE_UP_AFTER:
            return "stop", f"stagnated for {GIVE_UP_AFTER} cycles; gave up"
        return "go", ""


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
        self.target = max(rtol * self.norm_b, atol / problem.unit)
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
        carried = self.recycling.basis.k > 0
        guard = Guard(self.target, self.recycling.capacity, carried)
        while self.residual_norm > self.target:
            if self.norms and self.iterations >= self.maxiter:
                self.flags.append(f"stopped after maxiter = {self.maxiter} steps")
                break
            before, x = self.residual_norm, self.x.copy()
            cycle = self._cycle()
            if self.residual_norm <= self.target:
                break
            action, sentence = guard.check(before, self.residual_norm, cycle)
            if sentence:
                self.flags.append(sentence)
            if not self._act(action, x):
                break
        self.converged = bool(self.residual_norm <= self.target)
        if self.keep:
            self.space = self.recycling.space(self.rates[-MAX_RATES:])

    def _act(self, action, x):
        """Does what the guard asks for, x from before the cycle; whether to go on."""
        if action in ("undo", "abandon"):
            self.x = x
            self._recompute_residual()
        if action in ("drop", "undo", "abandon"):
            self.recycling.drop()
            self.given = None
        if action == "perturb":
            self._perturb()
        return action not in ("stop", "abandon")

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
            x=self.x * problem.unit,
            converged=self.converged,
            residual_norm=self.residual_norm * problem.unit,
            residual_norms=np.array(self.norms) * problem.unit,
            iterations=self.iterations,
            cycles=self.cycles,
            matvecs=problem.matvecs(),
            preconditioner_applications=problem.applications(),
            phases=phases,
            space=self.space,
            recycle_dim=self.recycle_dim,
            flags=tuple(self.flags),
        )
