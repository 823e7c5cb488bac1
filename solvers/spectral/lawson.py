"""High-order Runge-Kutta methods for exp(-lambda t) u: few transforms at high accuracy.

Where the wanted error is small, not stability but accuracy sets the step, and a method
of eighth order needs about a ninth of the evaluations of Crank-Nicolson with RK4, whose
diffusion is of second order: `python -m benchmarks.navier_stokes --counts`.
"""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.integrate import DOP853, RK45

from solvers.spectral.schemes import Scheme, add, per_mode, scale

# Largest |exponent| per step: beyond it single precision overflows, and a mode has
# decayed below rounding.
LARGEST_EXPONENT = 40.0


class Lawson(Scheme):
    """An explicit Runge-Kutta method in the variable exp(-lambda t) u.

    Exact in the linear part if F = 0, of the method's order for moderate dt |lambda|.
    Where F balances a linear part with dt |lambda| >> 1, `ExponentialRK4` is better.

    Modes that lose more than exp(-40) in a step lose exp(-40).

    References:
        Lawson (1967), SIAM J. Numer. Anal. 4(3).
    """

    a: np.ndarray  # [s, s], strictly lower triangular
    b: np.ndarray  # [s]
    nodes: np.ndarray  # [s]

    def coefficients(self, symbol, dt):
        """Per node and at the end exp(c dt lambda), that less 1, and its inverse."""
        coefficients = {}
        for node in sorted({*self.nodes.tolist(), 1.0} - {0.0}):

            def exponent(s, node=node):
                return node * jnp.maximum(dt * s, -LARGEST_EXPONENT)

            coefficients |= {
                f"growth {node}": per_mode(lambda s: jnp.expm1(exponent(s)), symbol),
                f"factor {node}": per_mode(lambda s: jnp.exp(exponent(s)), symbol),
                f"inverse {node}": per_mode(lambda s: jnp.exp(-exponent(s)), symbol),
            }
        return coefficients

    def __call__(self, u, time):
        """One step."""
        slopes = []
        for row, node in zip(self.a, self.nodes.tolist(), strict=True):
            stage = self._advance(u, row, slopes, node)
            slope = self.equation.explicit_terms(stage, time + node * self.dt)
            if node:
                slope = scale(self.c[f"inverse {node}"], slope)
            # Used by all later stages, in which XLA would compute it again.
            slopes.append(jax.lax.optimization_barrier(slope))
        return self._advance(u, self.b, slopes, 1.0)

    def _advance(self, u, weights, slopes, node):
        """exp(node dt lambda) (u + dt sum of weights * slopes)."""
        pairs = zip(weights.tolist(), slopes, strict=False)
        terms = [(self.dt * weight, slope) for weight, slope in pairs if weight]
        if not terms:
            return u
        total = scale(*terms[0])
        if len(terms) > 1:
            total = add(total, *terms[1:])
        growth, factor = self.c[f"growth {node}"], self.c[f"factor {node}"]
        return add(u, (growth, u), (factor, total))


class IntegratingFactorRK5(Lawson):
    """`Lawson` with the six stages of Dormand and Prince's method of fifth order.

    References:
        Dormand & Prince (1980), J. Comput. Appl. Math. 6(1).
    """

    order, evaluations = 5, 6
    a = np.pad(RK45.A, ((0, 0), (0, 1)))
    b, nodes = RK45.B, RK45.C


class IntegratingFactorRK8(Lawson):
    """`Lawson` with the twelve stages of Dormand and Prince's method of eighth order.

    The cheapest scheme here for relative errors below about 1e-6.

    References:
        Hairer, Nørsett & Wanner (1993), Solving Ordinary Differential Equations I,
        section II.5 (DOP853).
    """

    order, evaluations = 8, 12
    a, b, nodes = DOP853.A, DOP853.B, DOP853.C
