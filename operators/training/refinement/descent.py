"""Refinement by gradients: Adam as published, and L-BFGS in good coordinates."""

import dataclasses
import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax

from operators.training.refinement.objective import Known, Objective


@dataclasses.dataclass(frozen=True, eq=False)
class Adam:
    """Adam on weights and bias of the output operator, each with its own rate.

    The published runs train this way. Every mode moves by about the same amount per
    iteration, whatever its size.

    Attributes:
        objective: on `ParameterFrames`.
        weight_rate: learning rate of the weights.
        bias_rate: that of the spectral bias.
    """

    objective: Objective
    weight_rate: float = 1e-4
    bias_rate: float = 1e-4
    monotone: ClassVar[bool] = False

    @functools.cached_property
    def _optimizer(self):
        rates = {"weights": self.weight_rate, "bias": self.bias_rate}
        return optax.partition(
            {name: optax.adam(rate) for name, rate in rates.items()}, _groups
        )

    def start(self, known: Known, variables):
        """State of the optimiser."""
        return self._optimizer.init(variables)

    def step(self, known: Known, variables, state):
        """One step along the gradient; returns variables, state and a detail, 0."""
        gradient = jax.grad(self.objective.value, 1)(known, variables)
        updates, state = self._optimizer.update(gradient, state)
        return optax.apply_updates(variables, updates), state, jnp.zeros(())


@dataclasses.dataclass(frozen=True, eq=False)
class LBFGS:
    """L-BFGS with a zoom line search, in preconditioned coordinates.

    With c = K y and K the root of the inverse Gauss-Newton matrix without advection the
    Hessian for y differs from the identity by advection alone.

    Attributes:
        objective: on `CoordinateFrames`.
        memory: pairs that are kept.
        line_searches: largest number of evaluations per iteration.
    """

    objective: Objective
    memory: int = 10
    line_searches: int = 20
    monotone: ClassVar[bool] = False

    @functools.cached_property
    def _root(self):
        space = self.objective.frames.space
        return space.preconditioner(self.objective.residual, -0.5)

    @functools.cached_property
    def _optimizer(self):
        search = optax.scale_by_zoom_linesearch(
            max_linesearch_steps=self.line_searches, initial_guess_strategy="one"
        )
        return optax.lbfgs(memory_size=self.memory, linesearch=search)

    def start(self, known: Known, variables):
        """Preconditioned change y of the coordinates, their start, and optax's state.

        The coordinates themselves are computed from y in every step.
        """
        change = jnp.zeros_like(variables)
        return change, variables, self._optimizer.init(change)

    def step(self, known: Known, variables, state):
        """One quasi-Newton step; returns variables, state and a detail, 0."""
        change, start, inner = state

        def value(change):
            return self.objective.value(known, start + self._root(change))

        now, gradient = optax.value_and_grad_from_state(value)(change, state=inner)
        updates, inner = self._optimizer.update(
            gradient, inner, change, value=now, grad=gradient, value_fn=value
        )
        change = optax.apply_updates(change, updates)
        return start + self._root(change), (change, start, inner), jnp.zeros(())


def _groups(parameters) -> Any:
    """The name of the parameter group of every leaf, "weights" or "bias"."""
    return jax.tree.map_with_path(lambda path, _: path[0].key, parameters)
