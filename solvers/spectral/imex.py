"""Schemes that treat the linear part implicitly and all else explicitly."""

from solvers.spectral.schemes import Scheme, add, per_mode


class ImexEuler(Scheme):
    """u+ = (u + dt F(u)) / (1 - dt lambda). First order."""

    order, evaluations = 1, 1

    def coefficients(self, symbol, dt):
        """Factors of u and F."""
        return {
            "u": per_mode(lambda s: dt * s / (1 - dt * s), symbol),
            "f": per_mode(lambda s: dt / (1 - dt * s), symbol),
        }

    def __call__(self, u, time):
        """One step."""
        force = self.equation.explicit_terms(u, time)
        return add(u, (self.c["u"], u), (self.c["f"], force))


class ImexCrankNicolson(Scheme):
    """u+ = (u + dt F(u) + dt/2 lambda u) / (1 - dt/2 lambda): explicit Euler for F.

    First order in F, second in lambda.
    """

    order, evaluations = 1, 1

    def coefficients(self, symbol, dt):
        """Factors of u and F."""
        return {
            "u": per_mode(lambda s: dt * s / (1 - dt / 2 * s), symbol),
            "f": per_mode(lambda s: dt / (1 - dt / 2 * s), symbol),
        }

    def __call__(self, u, time):
        """One step."""
        force = self.equation.explicit_terms(u, time)
        return add(u, (self.c["u"], u), (self.c["f"], force))


class LegacyFno(ImexCrankNicolson):
    """The scheme that made the Navier-Stokes data of the FNO paper.

    `ImexCrankNicolson` of an equation with the convective form and `dealias="legacy"`.

    Raises:
        ValueError: if the equation is set otherwise.

    References:
        Li et al. (2021), Fourier neural operator, arXiv:2010.08895, appendix A.3.3.
    """

    def __init__(self, equation, dt, dtype=None):
        settings = {"dealias": "legacy", "advection": "convective"}
        for name, expected in settings.items():
            if (value := getattr(equation, name, None)) != expected:
                raise ValueError(
                    f"scheme 'legacy_fno' needs an equation with {name}={expected!r}, "
                    f"got {value!r}; 'imex_cn' takes any"
                )
        super().__init__(equation, dt, dtype)


class CrankNicolsonHeun(Scheme):
    """Heun's method with Crank-Nicolson for the linear part. Second order.

    References:
        Chandler & Kerswell (2013), J. Fluid Mech. 722, section 3.
    """

    order, evaluations = 2, 2

    def coefficients(self, symbol, dt):
        """Factors of u and F."""
        return {
            "u": per_mode(lambda s: dt * s / (1 - dt / 2 * s), symbol),
            "f": per_mode(lambda s: dt / (1 - dt / 2 * s), symbol),
            "half": per_mode(lambda s: dt / 2 / (1 - dt / 2 * s), symbol),
        }

    def __call__(self, u, time):
        """One step."""
        force = self.equation.explicit_terms
        f0 = force(u, time)
        linear = add(u, (self.c["u"], u))
        f1 = force(add(linear, (self.c["f"], f0)), time + self.dt)
        half = self.c["half"]
        return add(u, (self.c["u"], u), (half, f0), (half, f1))


class LowStorage(Scheme):
    """Low-storage Runge-Kutta for F, Crank-Nicolson on every stage's part of dt.

    For s = 1, 2, ... with h = 0 at first:
        h = F(u) + beta_s h,  m = dt/2 (alpha_{s+1} - alpha_s),
        u = (u + gamma_s dt h + m lambda u) / (1 - m lambda).

    The linear part is second order whatever the order in F.

    References:
        Canuto et al. (2007), Spectral Methods: Evolution to Complex Geometries and
        Applications to Fluid Dynamics, appendix D.3.
    """

    alphas: tuple[float, ...]
    betas: tuple[float, ...]
    gammas: tuple[float, ...]

    def coefficients(self, symbol, dt):
        """Factors of u and h in every stage."""
        coefficients = {}
        for s, gamma in enumerate(self.gammas):
            m = dt / 2 * (self.alphas[s + 1] - self.alphas[s])
            coefficients |= {
                f"u{s}": per_mode(lambda z, m=m: 2 * m * z / (1 - m * z), symbol),
                f"h{s}": per_mode(lambda z, m=m, g=gamma: g * dt / (1 - m * z), symbol),
            }
        return coefficients

    def __call__(self, u, time):
        """One step."""
        h = None
        for s, beta in enumerate(self.betas):
            stage_time = time + self.alphas[s] * self.dt
            force = self.equation.explicit_terms(u, stage_time)
            h = force if s == 0 else add(force, (beta, h))
            u = add(u, (self.c[f"u{s}"], u), (self.c[f"h{s}"], h))
        return u


class CrankNicolsonRK3(LowStorage):
    """`LowStorage` with Williamson's three stages: third order in F."""

    order, evaluations = 2, 3
    alphas = (0, 1 / 3, 3 / 4, 1)
    betas = (0, -5 / 9, -153 / 128)
    gammas = (1 / 3, 15 / 16, 8 / 15)


class CrankNicolsonRK4(LowStorage):
    """`LowStorage` with Carpenter and Kennedy's five stages: fourth order in F.

    References:
        Carpenter & Kennedy (1994), Fourth-order 2N-storage Runge-Kutta schemes, NASA
        TM-109112.
    """

    order, evaluations = 2, 5
    alphas = (
        0,
        0.1496590219993,
        0.3704009573644,
        0.6222557631345,
        0.9582821306748,
        1,
    )
    betas = (
        0,
        -0.4178904745,
        -1.192151694643,
        -1.697784692471,
        -1.514183444257,
    )
    gammas = (
        0.1496590219993,
        0.3792103129999,
        0.8229550293869,
        0.6994504559488,
        0.1530572479681,
    )
