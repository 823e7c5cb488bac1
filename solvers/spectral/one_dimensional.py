"""Burgers' equation and the Kuramoto-Sivashinsky equation on a periodic interval."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from solvers.spectral.equations import (
    Equation,
    check_dimension,
    check_nonnegative,
    dealiased_modes,
    equation_pytree,
)
from solvers.spectral.grid import PeriodicGrid
from solvers.spectral.modes import Modes, scaled, times_i


class _Advected(Equation):
    """Equations with the term -u du/dx = -(u^2 / 2)_x and a linear rest."""

    transforms_per_evaluation = 2
    budget_names = ("energy",)
    dealias: str

    @functools.cached_property
    def modes(self) -> Modes:
        """The Fourier modes that a state holds."""
        return dealiased_modes(self.grid, self.dealias)

    def explicit_terms(self, state: jax.Array, time: float = 0.0) -> jax.Array:
        """-(u^2 / 2)_x, [..., *modes.shape]."""
        (u,) = self.modes.to_fields(state)
        return -times_i(
            scaled(self.modes.k(0, state) / 2, self.modes.to_states(u * u)[0])
        )

    def courant_rate(self, state: jax.Array) -> jax.Array:
        """Max |u| / h over the grid, [...]."""
        (u,) = self.modes.to_fields(state)
        return jnp.max(abs(u), axis=-1) / self.grid.spacing[0]

    def budget(
        self, state: jax.Array, time: float = 0.0
    ) -> tuple[jax.Array, jax.Array]:
        """Energy E = <u^2> / 2, to which advection adds nothing.

        Returns:
            values [..., 1] and rates [..., 1].
        """
        energy = self.modes.mean_product(state, state) / 2
        rate = self.modes.mean_product(state, self.implicit_terms(state))
        return energy[..., None], rate[..., None]


@equation_pytree("viscosity")
@dataclasses.dataclass(frozen=True, eq=False)
class Burgers1d(_Advected):
    """du/dt + (u^2 / 2)_x = viscosity u_xx on a periodic interval.

    Smooth initial data steepen into layers of width viscosity / jump: several points
    must lie in one, or the solution oscillates.

    Attributes:
        grid: one axis.
        viscosity: nu >= 0, in length^2 / time.
        dealias: "two_thirds" or "none"; see `NavierStokes2d`.

    Raises:
        ValueError: for a setting out of range.
    """

    grid: PeriodicGrid
    viscosity: float
    dealias: str = "two_thirds"

    def __post_init__(self):
        check_dimension(self.grid, 1, "Burgers1d")
        check_nonnegative("viscosity", self.viscosity)
        _ = self.modes

    @property
    def linear_symbol(self) -> jax.Array:
        """-viscosity k^2, [*modes.shape], in JAX's default precision."""
        return self.viscosity * self.modes.laplacian(jnp.zeros(self.modes.shape))


@equation_pytree()
@dataclasses.dataclass(frozen=True, eq=False)
class KuramotoSivashinsky1d(_Advected):
    """du/dt + (u^2 / 2)_x + u_xx + u_xxxx = 0 on a periodic interval.

    Waves longer than 2 pi grow, shorter ones decay; chaos sets in at a length of 22 or
    so. The fourth derivative makes explicit schemes useless: dt = 0.05 ... 0.25 is
    usual with "etdrk4".

    Attributes:
        grid: one axis.
        dealias: "two_thirds" or "none"; see `NavierStokes2d`.

    References:
        Kassam & Trefethen (2005), SIAM J. Sci. Comput. 26(4), section 4.
    """

    grid: PeriodicGrid
    dealias: str = "two_thirds"

    def __post_init__(self):
        check_dimension(self.grid, 1, "KuramotoSivashinsky1d")
        _ = self.modes

    @property
    def linear_symbol(self) -> jax.Array:
        """k^2 - k^4, [*modes.shape], in JAX's default precision."""
        squares = -self.modes.laplacian(jnp.zeros(self.modes.shape))
        return squares - squares**2
