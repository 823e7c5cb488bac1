"""Two-dimensional incompressible flow in a periodic box, by its vorticity."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from solvers.spectral.equations import (
    Equation,
    check_dimension,
    check_nonnegative,
    dealiased_modes,
    equation_pytree,
)
from solvers.spectral.grid import PeriodicGrid
from solvers.spectral.modes import Modes, complex_dtype, scaled, spread, times_i


@equation_pytree("viscosity", "drag", "forcing", "forcing_state")
@dataclasses.dataclass(frozen=True, eq=False)
class NavierStokes2d(Equation):
    """Vorticity form of the Navier-Stokes equations on a periodic rectangle.

        dw/dt + u . grad w = viscosity Laplace w - drag w + f,
        -Laplace psi = w,  u = (d psi / dy, -d psi / dx),

    axis 1 of a field is x, axis 2 is y, u has no mean. Pseudo-spectral: products on the
    grid, derivatives on Fourier coefficients.

    The advection term is one of three expressions that agree if nothing is aliased:

        two_transform   (kx^2 - ky^2) (u v)^ + kx ky (v^2 - u^2)^       2 + 2 real FFTs
        divergence      -i kx (u w)^ - i ky (v w)^                      3 + 2
        convective      -(u w_x + v w_y)^                               4 + 1

    Dealiasing: "two_thirds" keeps |j| < n / 3 per axis in the whole state (initial
    field and forcing are cut off as well), which frees all products from aliasing and
    conserves energy and enstrophy without viscosity and forcing; "legacy" keeps all
    modes and cuts off the advection term alone at |j| <= n / 3, as the data of the FNO
    paper were made; "none" keeps everything.

    Attributes:
        grid: two axes.
        viscosity: nu >= 0, in length^2 / time.
        drag: linear friction mu >= 0, in 1 / time.
        forcing: the curl f of the force: None, a field [n1, n2], or a function of time
            that returns such a field (one more FFT per evaluation).
        dealias: "two_thirds", "legacy" or "none".
        advection: "two_transform", "divergence" or "convective".

    Raises:
        ValueError: for a setting out of range, or a forcing on another grid or not
            finite.
        TypeError: for a complex forcing.

    References:
        Canuto et al. (2007), Spectral Methods: Evolution to Complex Geometries and
        Applications to Fluid Dynamics, section 3.3.
    """

    grid: PeriodicGrid
    viscosity: float = 1e-3
    drag: float = 0.0
    forcing: jax.Array | Callable[[float], jax.Array] | None = None
    dealias: str = "two_thirds"
    advection: str = "two_transform"
    forcing_state: jax.Array | None = dataclasses.field(init=False, default=None)

    budget_names = ("energy", "enstrophy")

    def __post_init__(self):
        check_dimension(self.grid, 2, "NavierStokes2d")
        check_nonnegative("viscosity", self.viscosity)
        check_nonnegative("drag", self.drag)
        _ = self.modes  # checks `dealias`
        if self.advection not in ADVECTION:
            known = ", ".join(map(repr, ADVECTION))
            raise ValueError(f"advection is {self.advection!r}; expected {known}")
        object.__setattr__(self, "forcing_state", None)
        if self.forcing is not None and not callable(self.forcing):
            xp = jnp if isinstance(self.forcing, jax.Array) else np
            _check_forcing(self.forcing, self.grid)
            state = self.modes.select(xp.fft.rfft2(self.forcing))
            object.__setattr__(self, "forcing_state", state)

    @functools.cached_property
    def modes(self) -> Modes:
        """The Fourier modes that a state holds."""
        return dealiased_modes(
            self.grid, self.dealias, fold=self.advection == "two_transform"
        )

    @property
    def transforms_per_evaluation(self) -> int:
        """Real FFTs of one evaluation of the explicit terms."""
        return ADVECTION[self.advection][1] + callable(self.forcing)

    @property
    def linear_symbol(self) -> jax.Array:
        """-viscosity |k|^2 - drag, [*modes.shape], in JAX's default precision."""
        like = jnp.zeros(self.modes.shape)
        return self.viscosity * self.modes.laplacian(like) - self.drag

    def explicit_terms(self, state: jax.Array, time: float = 0.0) -> jax.Array:
        """Advection and forcing, [..., *modes.shape]."""
        terms = ADVECTION[self.advection][0](self, state)
        if self.dealias == "legacy":
            terms = scaled(spread(self._legacy_mask, state), terms)
        force = self._force(state, time)
        terms = terms if force is None else terms + force
        # Steppers use the result several times; XLA would compute it as often.
        return jax.lax.optimization_barrier(terms)

    @functools.cached_property
    def _legacy_mask(self) -> np.ndarray:
        """1 for |j| <= n / 3 per axis, else 0."""
        pairs = zip(self.modes.wavenumbers, self.grid.shape, strict=True)
        masks = [3 * abs(j) <= 2 * (n // 2) for j, n in pairs]
        return (masks[0] & masks[1]).astype(float)

    def _force(self, state, time):
        """The forcing with the rank and precision of a state, or None."""
        force = self.forcing_state
        if callable(self.forcing):
            field = self.grid.check(self.forcing(time), "forcing")
            force = self.modes.to_states(field)[0]
        if force is None:
            return None
        force = jnp.asarray(force, complex_dtype(state.dtype))
        return force.reshape((1,) * (state.ndim - force.ndim) + force.shape)

    def stream_state(self, state: jax.Array) -> jax.Array:
        """Coefficients of the streamfunction, mean zero."""
        return scaled(self._inverse_squares(state), state)

    def _inverse_squares(self, like):
        """1 / |k|^2, and 0 for the mean."""
        squares = -self.modes.laplacian(like)
        return jnp.where(squares > 0, 1 / jnp.where(squares > 0, squares, 1), 0)

    def velocity_states(self, state: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Coefficients of the velocity (u, v)."""
        inverse, rotated = self._inverse_squares(state), times_i(state)
        u = scaled(self.modes.k(1, state) * inverse, rotated)
        return u, scaled(-self.modes.k(0, state) * inverse, rotated)

    def streamfunction(self, vorticity: jax.Array) -> jax.Array:
        """Psi [..., n1, n2], mean zero, of a vorticity field or a state."""
        return self.modes.to_fields(self.stream_state(self._as_state(vorticity)))[0]

    def velocity(self, vorticity: jax.Array) -> tuple[jax.Array, jax.Array]:
        """u, v [..., n1, n2] of a vorticity field or a state."""
        return self.modes.to_fields(*self.velocity_states(self._as_state(vorticity)))

    def _as_state(self, vorticity):
        is_state = jnp.issubdtype(jnp.asarray(vorticity).dtype, jnp.complexfloating)
        return vorticity if is_state else self.to_state(vorticity)

    def courant_rate(self, state: jax.Array) -> jax.Array:
        """Max sqrt((u / h1)^2 + (v / h2)^2) over the grid, [...]."""
        u, v = self.velocity(state)
        h1, h2 = self.grid.spacing
        squares = (u / h1) ** 2 + (v / h2) ** 2
        return jnp.sqrt(jnp.max(squares, axis=self.grid.axes))

    def budget(
        self, state: jax.Array, time: float = 0.0
    ) -> tuple[jax.Array, jax.Array]:
        """Energy and enstrophy with dE/dt = -2 nu Z - 2 mu E + <psi f> and the like.

        E = <|u|^2> / 2, Z = <w^2> / 2, P = <|grad w|^2> / 2, and
        dZ/dt = -2 nu P - 2 mu Z + <w f>.

        Returns:
            values [..., 2] and rates [..., 2].
        """
        total = self.modes.weighted_sum
        squares = jnp.square(state.real) + jnp.square(state.imag)
        k2, inverse = -self.modes.laplacian(state), self._inverse_squares(state)
        energy, enstrophy = total(squares * inverse) / 2, total(squares) / 2
        palinstrophy = total(squares * k2) / 2
        energy_rate = -2 * self.viscosity * enstrophy - 2 * self.drag * energy
        enstrophy_rate = -2 * self.viscosity * palinstrophy - 2 * self.drag * enstrophy
        force = self._force(state, time)
        if force is not None:
            power = state.real * force.real + state.imag * force.imag
            energy_rate = energy_rate + total(power * inverse)
            enstrophy_rate = enstrophy_rate + total(power)
        values = jnp.stack([energy, enstrophy], axis=-1)
        return values, jnp.stack([energy_rate, enstrophy_rate], axis=-1)


def _check_forcing(forcing, grid):
    if np.shape(forcing) != grid.shape:
        raise ValueError(
            f"forcing must have the shape {grid.shape} of the grid, got "
            f"{np.shape(forcing)}"
        )
    if np.iscomplexobj(forcing):
        raise TypeError("forcing must be a real field, got complex numbers")
    if not isinstance(forcing, jax.core.Tracer) and not np.isfinite(forcing).all():
        raise ValueError("forcing must be finite, got NaN or infinity")


def _two_transform(equation, w):
    modes = equation.modes
    product, difference = modes.quadratic(*equation.velocity_states(w))
    k1, k2 = modes.k(0, w, odd=False), modes.k(1, w, odd=False)
    mixed = modes.k(0, w) * modes.k(1, w)
    return scaled(k1**2 - k2**2, product) + scaled(mixed, difference)


def _divergence(equation, w):
    modes = equation.modes
    u, v, field = modes.to_fields(*equation.velocity_states(w), w)
    flux1, flux2 = modes.to_states(u * field, v * field)
    return -times_i(scaled(modes.k(0, w), flux1) + scaled(modes.k(1, w), flux2))


def _convective(equation, w):
    modes = equation.modes
    slopes = [times_i(scaled(modes.k(axis, w), w)) for axis in range(2)]
    u, v, w1, w2 = modes.to_fields(*equation.velocity_states(w), *slopes)
    return -modes.to_states(u * w1 + v * w2)[0]


# By name: the function (equation, state) -> state and its number of real FFTs.
ADVECTION = {
    "two_transform": (_two_transform, 4),
    "divergence": (_divergence, 5),
    "convective": (_convective, 5),
}
