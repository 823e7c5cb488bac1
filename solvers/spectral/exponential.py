"""Schemes that are exact in the linear part: fourth order including diffusion."""

import math

import jax
import jax.numpy as jnp

from solvers.spectral.schemes import Scheme, add, per_mode, scale


def phi(z: jax.Array, num: int) -> list[jax.Array]:
    """phi_1(z), ..., phi_num(z) for real z, accurate to rounding.

    phi_0 = exp and phi_k(z) = (phi_{k-1}(z) - 1 / (k-1)!) / z. That recurrence cancels
    near 0: for |z| < 1 it runs backwards from the Taylor series of phi_num.
    """
    near = abs(z) < 1
    small, large = jnp.where(near, z, 0.0), jnp.where(near, 1.0, z)
    series = [jnp.zeros_like(z)]
    for j in reversed(range(18)):
        series[0] = small * series[0] + 1 / math.factorial(j + num)
    for k in range(num - 1, 0, -1):
        series.insert(0, small * series[0] + 1 / math.factorial(k))
    direct = [jnp.exp(large)]
    for k in range(num):
        direct.append((direct[-1] - 1 / math.factorial(k)) / large)
    return [jnp.where(near, a, b) for a, b in zip(series, direct[1:], strict=True)]


class IntegratingFactorRK4(Scheme):
    """The classical Runge-Kutta method for exp(-lambda t) u.

    Fourth order; forcing that balances a stiff linear part is integrated worse than by
    `ExponentialRK4`.

    References:
        Lawson (1967), SIAM J. Numer. Anal. 4(3); Trefethen (2000), Spectral Methods in
        MATLAB, chapter 10.
    """

    order, evaluations = 4, 4

    def coefficients(self, symbol, dt):
        """Exp - 1 and exp over a whole and half a step."""
        return {
            "whole": per_mode(lambda s: jnp.expm1(dt * s), symbol),
            "half": per_mode(lambda s: jnp.expm1(dt / 2 * s), symbol),
            "e": per_mode(lambda s: jnp.exp(dt * s), symbol),
            "e2": per_mode(lambda s: jnp.exp(dt / 2 * s), symbol),
        }

    def __call__(self, u, time):
        """One step."""
        force, h, c = self.equation.explicit_terms, self.dt, self.c
        middle, end = time + h / 2, time + h
        u_half, u_end = add(u, (c["half"], u)), add(u, (c["whole"], u))
        k1 = force(u, time)
        first = scale(c["e2"], k1)
        k2 = force(add(u_half, (h / 2, first)), middle)
        k3 = force(add(u_half, (h / 2, k2)), middle)
        k4 = force(add(u_end, (h, scale(c["e2"], k3))), end)
        slopes = add(k4, (c["e2"], add(first, (2, k2), (2, k3))))
        return add(u, (c["whole"], u), (h / 6, slopes))


class ExponentialRK4(Scheme):
    """Exponential time differencing with four stages (ETDRK4 of Cox and Matthews).

    Fourth order, exact where F is constant; on stiff parts of the spectrum the order
    falls towards 3. The functions phi_k are evaluated by series near zero and by their
    recurrence elsewhere, so that no contour is needed.

    References:
        Cox & Matthews (2002), J. Comput. Phys. 176, equations 26-29; Kassam & Trefethen
        (2005), SIAM J. Sci. Comput. 26(4).
    """

    order, evaluations = 4, 4

    def coefficients(self, symbol, dt):
        """Of u: exp - 1 over a step and half of it; the weights of the slopes."""

        def first(s):
            p1, p2, p3 = phi(dt * s, 3)
            return dt * (p1 - 3 * p2 + 4 * p3)

        def middle(s):
            _, p2, p3 = phi(dt * s, 3)
            return dt * (2 * p2 - 4 * p3)

        def last(s):
            _, p2, p3 = phi(dt * s, 3)
            return dt * (4 * p3 - p2)

        return {
            "whole": per_mode(lambda s: jnp.expm1(dt * s), symbol),
            "half": per_mode(lambda s: jnp.expm1(dt / 2 * s), symbol),
            "stage": per_mode(lambda s: dt / 2 * phi(dt / 2 * s, 1)[0], symbol),
            "first": per_mode(first, symbol),
            "middle": per_mode(middle, symbol),
            "last": per_mode(last, symbol),
        }

    def __call__(self, u, time):
        """One step."""
        force, h, c = self.equation.explicit_terms, self.dt, self.c
        u_half = add(u, (c["half"], u))
        k1 = force(u, time)
        a = add(u_half, (c["stage"], k1))
        k2 = force(a, time + h / 2)
        k3 = force(add(u_half, (c["stage"], k2)), time + h / 2)
        slope = add(k3, (1, k3), (-1, k1))
        k4 = force(add(a, (c["half"], a), (c["stage"], slope)), time + h)
        return self._combine(u, k1, k2, k3, k4)

    def _combine(self, u, k1, k2, k3, k4):
        c = self.c
        middle = (c["middle"], add(k2, (1, k3)))
        return add(u, (c["whole"], u), (c["first"], k1), middle, (c["last"], k4))


class KrogstadRK4(ExponentialRK4):
    """As `ExponentialRK4`, with Krogstad's stages: the order lasts where it is stiff.

    The same number of evaluations and a few more products per mode. On the
    Kuramoto-Sivashinsky equation 2 to 5 times more accurate, on turbulence alike.

    References:
        Krogstad (2005), Generalized integrating factor methods for stiff PDEs,
        J. Comput. Phys. 203, equation 51 (ETDRK4-B).
    """

    def coefficients(self, symbol, dt):
        """Those of `ExponentialRK4`, and the weights within the stages."""

        def second(s):
            p1, p2 = phi(dt / 2 * s, 2)
            return dt * (p1 / 2 - p2)

        def third(s):
            p1, p2 = phi(dt * s, 2)
            return dt * (p1 - 2 * p2)

        return super().coefficients(symbol, dt) | {
            "second1": per_mode(second, symbol),
            "second2": per_mode(lambda s: dt * phi(dt / 2 * s, 2)[1], symbol),
            "third1": per_mode(third, symbol),
            "third3": per_mode(lambda s: 2 * dt * phi(dt * s, 2)[1], symbol),
        }

    def __call__(self, u, time):
        """One step."""
        force, h, c = self.equation.explicit_terms, self.dt, self.c
        u_half, u_end = add(u, (c["half"], u)), add(u, (c["whole"], u))
        k1 = force(u, time)
        k2 = force(add(u_half, (c["stage"], k1)), time + h / 2)
        k3 = force(add(u_half, (c["second1"], k1), (c["second2"], k2)), time + h / 2)
        k4 = force(add(u_end, (c["third1"], k1), (c["third3"], k3)), time + h)
        return self._combine(u, k1, k2, k3, k4)
