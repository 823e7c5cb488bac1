"""Refinement by Newton's method: least squares, or the defect carried by the flow.

Both linearise the residual at the present frames, L e = r with L block bidiagonal in
time. `GaussNewton` minimises the H^-1 norm of r - L e over the trial space by conjugate
gradients; with few waves in time its error in L^2 need not be the least one.
`LinearizedFlow` solves L e = r over all frames, one after the other, and takes the best
approximation in L^2 of the correction: Newton's method for the error itself. Both halve
a step until it lowers the residual; one that never does is returned in full, for
`minimizers.minimize` to reject and to judge.
"""

import dataclasses
import functools
from typing import ClassVar

import jax
import jax.numpy as jnp

from operators.training.refinement import estimates
from operators.training.refinement.objective import Known, Objective

MAX_HALVINGS = 6


@dataclasses.dataclass(frozen=True, eq=False)
class GaussNewton:
    """Gauss-Newton steps by preconditioned conjugate gradients, halved until they help.

    The preconditioner is the Gauss-Newton matrix without advection, one small matrix
    per mode in space.

    Attributes:
        objective: on `CoordinateFrames`.
        rtol: of the linear solves, on the preconditioned gradient.
        inner: largest number of CG iterations per step.
    """

    objective: Objective
    rtol: float = 0.03
    inner: int = 60
    monotone: ClassVar[bool] = True

    @functools.cached_property
    def _preconditioner(self):
        space = self.objective.frames.space
        return space.preconditioner(self.objective.residual, -1.0)

    def start(self, known: Known, variables):
        """Nothing is carried from step to step."""
        return ()

    def step(self, known: Known, variables, state):
        """One step; returns variables, state and the number of CG iterations."""
        objective, space = self.objective, self.objective.frames.space
        fields, push = jax.linearize(
            functools.partial(objective.fields, known), variables
        )
        pull = jax.linear_transpose(push, variables)

        def normal(c):
            return space.filter(pull(objective.dual(push(c)))[0])

        gradient = space.filter(pull(objective.dual(fields))[0])
        change, num = conjugate_gradients(
            normal, -gradient, self._preconditioner, self.rtol, self.inner
        )
        now = objective.half_square(fields)
        return damped(objective, known, variables, change, now), state, num


@dataclasses.dataclass(frozen=True, eq=False)
class LinearizedFlow:
    """Carries the residual through the linearised flow and corrects by what arrives.

    One sweep over the frames, one after the other, per step. Over times in which the
    flow forgets its start the corrections grow beyond all bounds: then no step helps.

    Attributes:
        objective: on `CoordinateFrames`, with a defect as residual.
    """

    objective: Objective
    monotone: ClassVar[bool] = True

    def start(self, known: Known, variables):
        """Nothing is carried from step to step."""
        return ()

    def step(self, known: Known, variables, state):
        """One correction; returns variables, state and the estimated L^2 error.

        The estimate, a root mean square, is of the frames before the correction.
        """
        objective = self.objective
        fields = objective.fields(known, variables)
        frames = objective.frames(known, variables)
        error = estimates.propagate(objective.residual, frames, fields * known.scale)
        estimate = jnp.sqrt(jnp.mean(error**2))
        change = -objective.frames.space.project(error)
        now = objective.half_square(fields)
        return damped(objective, known, variables, change, now), state, estimate


def damped(objective: Objective, known: Known, variables, change, now) -> jax.Array:
    """Variables plus the largest of change, change / 2, ... that lowers the objective.

    Args:
        objective: half a square.
        known: of the trajectory.
        variables: coordinates.
        change: of the coordinates, the full step.
        now: the objective at the variables.

    Returns:
        Coordinates; with the full step where none of the halved ones helps.
    """

    def worse(trial):
        halvings, value = trial
        return ~(value < now) & (halvings < MAX_HALVINGS)

    def value(halvings):
        return objective.value(known, variables + change / 2.0**halvings)

    def halve(trial):
        return trial[0] + 1, value(trial[0] + 1)

    first = (jnp.zeros((), int), value(0))
    halvings, reached = jax.lax.while_loop(worse, halve, first)
    return variables + jnp.where(reached < now, 1 / 2.0**halvings, 1.0) * change


def conjugate_gradients(apply, b, preconditioner, rtol: float, maxiter: int):
    """Solves A x = b from zero, A and the preconditioner symmetric and positive.

    Stops at rtol in the norm sqrt(r^T M^-1 r). Under `jax.vmap` every system stops by
    itself.

    Args:
        apply: product with A.
        b: right-hand side, an array.
        preconditioner: product with M^-1.
        rtol: dimensionless.
        maxiter: largest number of iterations.

    Returns:
        x and the number of iterations.

    References:
        Saad (2003), Iterative Methods for Sparse Linear Systems, Algorithm 9.1.
    """
    z = preconditioner(b)
    rz = jnp.vdot(b, z)
    target = rtol**2 * rz

    def unfinished(state):
        *_, rz, num = state
        return (rz > target) & (num < maxiter)

    def iterate(state):
        x, r, p, rz, num = state
        q = apply(p)
        step = rz / jnp.vdot(p, q)
        x, r = x + step * p, r - step * q
        z = preconditioner(r)
        rz, before = jnp.vdot(r, z), rz
        return x, r, z + rz / before * p, rz, num + 1

    first = (jnp.zeros_like(b), b, z, rz, jnp.zeros((), int))
    x, *_, num = jax.lax.while_loop(unfinished, iterate, first)
    return x, num
