"""The loop that all minimisers share: steps, records, and when to stop."""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from operators.training.refinement import descent, newton
from operators.training.refinement.objective import (
    CoordinateFrames,
    Known,
    Objective,
    ParameterFrames,
)

MINIMIZERS = {
    "adam": descent.Adam,
    "lbfgs": descent.LBFGS,
    "gauss_newton": newton.GaussNewton,
    "linearized_flow": newton.LinearizedFlow,
}
PROGRESS = 0.01  # an iteration counts where the residual falls by this part
GROWTH = 2.0  # of the residual by a rejected step, from which on it has diverged


@dataclasses.dataclass(frozen=True)
class StopRule:
    """When a trajectory is finished.

    Attributes:
        maxiter: largest number of iterations.
        reduction: of the relative residual, over its start.
        patience: iterations without progress after which it has stalled. A step of
            Newton's method that no halving makes better ends a trajectory at once.
    """

    maxiter: int = 100
    reduction: float = 1e-2
    patience: int = 10

    def __post_init__(self):
        if self.maxiter < 1 or self.patience < 1 or not 0 <= self.reduction < 1:
            raise ValueError(
                "maxiter and patience must be at least 1 and reduction in [0, 1), got "
                f"{self}"
            )


@dataclasses.dataclass
class History:
    """What happened, iterate by iterate, the start first.

    Attributes:
        variables: of the iterate of least residual, the batch as first axis.
        residuals: [iterations + 1, batch] relative H^-1 norms.
        errors: [iterations + 1, batch] of the `error` function; NaN without one.
        seconds: [iterations] wall time of each step of the whole batch, compilation
            left out.
        details: [iterations, batch] what the minimiser counts: CG iterations of
            "gauss_newton", estimated errors of "linearized_flow".
        reason: per trajectory, "reduced", "stalled", "maxiter" or "diverged": a step
            was rejected because it made the residual infinite or far larger.
    """

    variables: Any
    residuals: np.ndarray
    errors: np.ndarray
    seconds: np.ndarray
    details: np.ndarray
    reason: list[str]

    @property
    def residual(self) -> np.ndarray:
        """That of `variables`, [batch]."""
        return self._of_the_least(self.residuals)

    @property
    def error(self) -> np.ndarray:
        """That of `variables`, [batch]."""
        return self._of_the_least(self.errors)

    def _of_the_least(self, records):
        least = np.argmin(self.residuals, axis=0)  # the first of equal ones
        return np.take_along_axis(records, least[None], axis=0)[0]


def create(name: str, residual, *, space, graph=None, times=None, **settings):
    """Returns the named minimiser of a residual.

    Args:
        name: a key of `MINIMIZERS`.
        residual: see `residuals.create`.
        space: `TrialSpace`.
        graph: of the output operator, for "adam".
        times: of the output in frames, for "adam".
        **settings: of the minimiser's class.

    Raises:
        ValueError: for an unknown name or setting, or a residual that does not fit.
    """
    if name not in MINIMIZERS:
        raise ValueError(f"minimizer is {name!r}; known: {', '.join(MINIMIZERS)}")
    cls = MINIMIZERS[name]
    known = {f.name for f in dataclasses.fields(cls)} - {"objective"}
    if unknown := set(settings) - known:
        raise ValueError(
            f"minimizer {name} takes no {sorted(unknown)}; known: {sorted(known)}"
        )
    if name == "linearized_flow" and not hasattr(residual, "marcher"):
        raise ValueError(
            "minimizer linearized_flow carries defects through the flow: take the "
            "residual 'defect', or another minimizer"
        )
    on_parameters = name == "adam"
    frames = ParameterFrames(graph, times) if on_parameters else CoordinateFrames(space)
    return cls(Objective(residual, frames), **settings)


def minimize(
    minimizer,
    known: Known,
    variables,
    stop: StopRule,
    *,
    error: Callable[[jax.Array], jax.Array] | None = None,
    show: Callable[[str], None] | None = None,
) -> History:
    """Refines a batch of trajectories, each with its own variables.

    A trajectory that has reached the goal, has stalled or diverges keeps its variables
    while the others go on. Of every trajectory the iterate of least residual is
    returned.

    Args:
        minimizer: of `create`.
        known: the batch as first axis of every array.
        variables: pytree, the batch as first axis of every leaf.
        stop: see there.
        error: true errors [batch] of frames [batch, T + 1, n1, n2], for the records.
        show: receives one line per iteration.
    """
    programs = _compile(minimizer, known, variables, error)
    state, best = programs.start(known, variables), variables
    residuals, errors = ([x] for x in programs.measure(known, variables))
    active = np.ones(len(residuals[0]), bool)
    seconds, details, reason = [], [], ["maxiter"] * len(active)
    for iteration in range(1, stop.maxiter + 1):
        began = time.perf_counter()
        variables, state, detail, tried = programs.step(
            known, variables, state, active, residuals[-1]
        )
        jax.block_until_ready(variables)
        seconds.append(time.perf_counter() - began)
        details.append(np.asarray(detail))
        measured = programs.measure(known, variables)
        best = programs.choose(measured[0] < np.min(residuals, 0), variables, best)
        residuals.append(measured[0])
        errors.append(measured[1])
        if show:
            show(_line(iteration, residuals[-1], errors[-1], seconds[-1]))
        for sample in np.flatnonzero(active):
            so_far = np.array(residuals)[:, sample]
            if why := verdict(so_far, stop, tried[sample]):
                active[sample], reason[sample] = False, why
        if not active.any():
            break
    records = map(np.array, (residuals, errors, seconds, details))
    return History(best, *records, reason)


@dataclasses.dataclass(frozen=True)
class _Programs:
    """Compiled functions of a batch."""

    start: Callable
    step: Callable
    measure: Callable
    choose: Callable


def _compile(minimizer, known, variables, error) -> _Programs:
    objective = minimizer.objective
    start = jax.jit(jax.vmap(minimizer.start))

    def one(known, variables, state, active, before):
        new, advanced, detail = minimizer.step(known, variables, state)
        norm = objective.norm(known, new)
        taken = jnp.isfinite(norm)
        if minimizer.monotone:
            taken = norm < before
        tried = jnp.where(taken, 0.0, norm)

        def keep(new, old):
            return jnp.where(active & taken, new, old)

        kept = jax.tree.map(keep, new, variables)
        return kept, jax.tree.map(keep, advanced, state), detail, tried

    @jax.jit
    def measure(known, variables):
        frames = jax.vmap(objective.frames)(known, variables)
        norms = jax.vmap(objective.norm)(known, variables)
        return norms, error(frames) if error else jnp.full_like(norms, jnp.nan)

    def choose(chosen, new, old):
        return jax.tree.map(functools.partial(jnp.where, chosen), new, old)

    step = jax.jit(jax.vmap(one))
    state = jax.eval_shape(start, known, variables)
    active = np.ones(len(known.frames), bool)
    before = jax.eval_shape(measure, known, variables)[0]
    step = step.lower(known, variables, state, active, before).compile()
    return _Programs(
        start,
        step,
        lambda *a: tuple(np.asarray(x) for x in measure(*a)),
        jax.jit(jax.vmap(choose)),
    )


def verdict(residuals: np.ndarray, stop: StopRule, rejected: float = 0.0) -> str:
    """Why a trajectory is finished, given its residuals so far; "" if it is not.

    Args:
        residuals: of the iterates, the start first.
        stop: see there.
        rejected: residual of the last step where it was not taken, else 0.
    """
    if not np.isfinite(residuals[-1]):
        return "diverged"
    if residuals[-1] <= stop.reduction * residuals[0]:
        return "reduced"
    if rejected != 0:
        return "stalled" if rejected <= GROWTH * residuals[-1] else "diverged"
    best = np.minimum.accumulate(residuals)
    if len(best) <= stop.patience:
        return ""
    progress = best[-1] <= (1 - PROGRESS) * best[-1 - stop.patience]
    return "" if progress else "stalled"


def _line(iteration, residuals, errors, seconds) -> str:
    text = f"  {iteration:4d}  residual {np.mean(residuals):.3e}"
    if not np.isnan(errors).all():
        text += f"  error {np.mean(errors):.3e}"
    return text + f"  {seconds:.2f} s"
