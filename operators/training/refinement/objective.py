"""What the refiner minimises: the relative H^-1 norm of a residual, and its derivative.

All functions are for one trajectory; `jax.vmap` makes them many, each with its own
parameters. The variables are either coordinates of the trial space (`CoordinateFrames`)
or the parameters of the output operator (`ParameterFrames`).
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from operators.training.refinement import widening
from operators.training.refinement.trial_space import TrialSpace, dual_weights


class Known(NamedTuple):
    """What is fixed for one trajectory.

    Attributes:
        frames: [T + 1, n1, n2] of the model before refinement, the given frame first.
        history: [H, n1, n2] frames before the first of `frames`, or None.
        frozen: see `widening.Frozen`, or None.
        scale: what the residual is relative to, `Residual.scale`.
    """

    frames: jax.Array
    history: jax.Array | None
    frozen: widening.Frozen | None
    scale: jax.Array


def known(residual, frames, history=None, frozen=None) -> Known:
    """`Known` of a batch of trajectories: every array has the batch as first axis."""
    return Known(frames, history, frozen, residual.scale(frames))


@dataclasses.dataclass(frozen=True, eq=False)
class CoordinateFrames:
    """Frames from coordinates of the trial space, [num, n1, n2]."""

    space: TrialSpace

    def __call__(self, known: Known, c: jax.Array) -> jax.Array:
        """Frames [T + 1, n1, n2]."""
        return known.frames.at[1:].add(self.space.increments(c))


@dataclasses.dataclass(frozen=True, eq=False)
class ParameterFrames:
    """Frames from the parameters of the output operator.

    Attributes:
        graph: see `widening.split`.
        times: of the output, in frames.
    """

    graph: Any
    times: np.ndarray

    def __call__(self, known: Known, parameters) -> jax.Array:
        """Frames [T + 1, n1, n2]."""
        return widening.predict(self.graph, parameters, known.frozen, self.times)


@dataclasses.dataclass(frozen=True, eq=False)
class Objective:
    """Half the square of the relative H^-1 norm of the residual.

    Attributes:
        residual: see `residuals.create`.
        frames: `CoordinateFrames` or `ParameterFrames`.
    """

    residual: Any
    frames: Any

    def fields(self, known: Known, variables) -> jax.Array:
        """Residual [T, n1, n2] over the scale of the trajectory."""
        frames = self.frames(known, variables)
        return self.residual(frames, known.history) / known.scale

    def value(self, known: Known, variables) -> jax.Array:
        """Half the square of the relative norm."""
        return self.half_square(self.fields(known, variables))

    def norm(self, known: Known, variables) -> jax.Array:
        """The relative norm, what the stop rule looks at; `Residual.loss`."""
        return jnp.sqrt(2 * self.value(known, variables))

    def half_square(self, fields: jax.Array) -> jax.Array:
        """Half the square of the norm of residual fields [T, n1, n2]."""
        return jnp.vdot(fields, self.dual(fields)) / 2

    def dual(self, fields: jax.Array) -> jax.Array:
        """The gradient of `half_square`: -Laplace^-1 of the fields, weighted in time.

        The mean counts too, see `dual_weights`, as it does in `Residual.norm`.

        Linear and symmetric; the sum of its products with other fields is the inner
        product of the norm.
        """
        grid = self.residual.equation.grid
        inverse = jnp.asarray(dual_weights(grid) / grid.num_points, fields.dtype)
        spectrum = jnp.fft.rfft2(fields) * inverse[None]
        weights = jnp.asarray(self.residual.weights, fields.dtype)[:, None, None]
        return weights * jnp.fft.irfft2(spectrum, s=grid.shape)
