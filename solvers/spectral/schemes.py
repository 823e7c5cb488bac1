"""What all time steppers have in common."""

import functools

import jax
import jax.numpy as jnp

from solvers.spectral.equations import Equation
from solvers.spectral.modes import scaled, spread


class Scheme:
    """One step of a time stepper with fixed step size: state(t) -> state(t + dt).

    A scheme is built from an equation and dt, both of which may be traced, and computes
    its coefficients then, in JAX's default precision. What it carries from step to step
    is its own business:

        carry = step.start(state, time)
        carry = step(carry, time)        # as often as wanted, time at the step's start
        state = step.finish(carry)

    One-step schemes carry the state itself, and `step(state, time)` is all.

    States may be pytrees of arrays; the symbol of the equation has the same structure.
    Updates are written as increments u + (...): the rounding of a factor near 1, which
    single precision would repeat in every step, then hits the increment alone.

    Attributes:
        order: order of convergence for smooth solutions with fixed linear part.
        evaluations: calls of `explicit_terms` per step.

    Args:
        equation: see `Equation`.
        dt: step size.
        dtype: real precision of the coefficients; None: JAX's default.
    """

    order: int
    evaluations: int

    def __init__(self, equation: Equation, dt: float, dtype=None):
        self.equation = equation
        self.dt = dt
        symbol = equation.linear_symbol
        coefficients = self.coefficients(symbol, dt)
        if dtype is not None:
            coefficients = jax.tree.map(lambda c: c.astype(dtype), coefficients)
        self.c = coefficients

    def coefficients(self, symbol, dt: float) -> dict:
        """Factors per mode by name, each with the structure of the symbol."""
        raise NotImplementedError

    def start(self, state, time: float):
        """What is carried, from a state."""
        return state

    def __call__(self, carry, time: float):
        """One step; `time` is its start."""
        raise NotImplementedError

    def finish(self, carry):
        """The state, from what is carried."""
        return carry


def per_mode(function, symbol):
    """Coefficients function(lambda) with the structure of a symbol."""
    return jax.tree.map(function, symbol)


def add(u, *terms):
    """Returns u + sum of factor * v over pairs (factor, v), for pytrees u and v.

    A factor is a number, or coefficients per mode with the structure of u, whose arrays
    lack the leading axes of u.
    """
    if not terms:
        return u
    # First the increments: each addition to u rounds in units of u.
    increments = [scale(factor, v) for factor, v in terms]
    total = functools.reduce(lambda a, b: jax.tree.map(jnp.add, a, b), increments)
    return jax.tree.map(jnp.add, u, total)


def scale(factor, v):
    """The product factor * v, with factors as in `add`."""
    leaves = jax.tree.leaves(factor)
    if len(leaves) == 1 and jnp.ndim(leaves[0]) == 0:
        return jax.tree.map(lambda leaf: _product(leaves[0], leaf), v)
    return jax.tree.map(_product, factor, v)


def _product(factor, leaf):
    factor = spread(factor, leaf)
    return scaled(factor, leaf) if jnp.iscomplexobj(leaf) else factor * leaf
