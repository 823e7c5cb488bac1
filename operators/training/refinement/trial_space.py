"""The trajectories that the output operator of an SFNO can make, and coordinates there.

Per sample the output operator has one complex number per mode in space and time, so the
frames that it can make are those of the model plus

    sum_j phi_j(t_m) c_j(x),

phi_j a few waves in time, c_j any real field of the retained modes. The waves are far
from orthogonal on half of their period; the coordinates here belong to an orthonormal
basis of what they span at the output times, waves that rounding cannot tell apart left
out. In them the Gauss-Newton matrix without advection is a small matrix per mode in
space: the preconditioner.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from operators.training import sobolev
from solvers import spectral

RCOND = 1e-9  # of waves in time that count as different at the output times


@dataclasses.dataclass(frozen=True, eq=False)
class TrialSpace:
    """Increments sum_j phi_j(t_m) c_j(x) that the output operator can add.

    Attributes:
        modes: those in space that are free.
        waves: [T, 2 m] cosines and negative sines at the output times, see
            `SpectralOutput.waves`.
    """

    modes: spectral.Modes
    waves: np.ndarray

    @functools.cached_property
    def _decomposition(self) -> tuple[np.ndarray, np.ndarray]:
        left, singular, right = np.linalg.svd(self.waves, full_matrices=False)
        kept = singular > RCOND * singular[0]
        return left[:, kept], right[kept].T / singular[kept]

    @property
    def basis(self) -> np.ndarray:
        """Orthonormal functions of time at the output times, [T, num]."""
        return self._decomposition[0]

    @property
    def to_waves(self) -> np.ndarray:
        """Matrix [2 m, num] from coordinates to the amplitudes of the waves."""
        return self._decomposition[1]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the coordinates of one trajectory, [num, n1, n2]."""
        return (self.basis.shape[1], *self.modes.grid.shape)

    @property
    def num_parameters(self) -> int:
        """Free real numbers of one trajectory."""
        modes = int(self.modes.weights.sum()) * self.modes.shape[0]
        return self.basis.shape[1] * modes

    def increments(self, c: jax.Array) -> jax.Array:
        """Frames [..., T, n1, n2] of coordinates c [..., num, n1, n2]."""
        return jnp.einsum("mj,...jxy->...mxy", jnp.asarray(self.basis, c.dtype), c)

    def project(self, fields: jax.Array) -> jax.Array:
        """Coordinates of the best approximation in L^2 of fields [..., T, n1, n2]."""
        basis = jnp.asarray(self.basis, fields.dtype)
        return self.filter(jnp.einsum("mj,...mxy->...jxy", basis, fields))

    def filter(self, c: jax.Array) -> jax.Array:
        """Keeps the free modes of fields [..., n1, n2]."""
        return self.modes.to_fields(self.modes.to_states(c)[0])[0]

    def preconditioner(
        self, residual, power: float
    ) -> Callable[[jax.Array], jax.Array]:
        """A power of the Gauss-Newton matrix of the residual without advection.

        Without advection the residual of mode k at frame m is the one of
        (c(t_m) - exp(lambda_k (t_m - t_{m-1})) c(t_{m-1})) / (t_m - t_{m-1}), so that
        the matrix of its H^-1 norm has one block [num, num] per mode.

        Args:
            residual: see `residuals.create`.
            power: -1 for the inverse, -1/2 for its root, a change of variables.

        Returns:
            Function of fields [num, n1, n2], symmetric, zero outside the free modes.
        """
        grid, equation = self.modes.grid, residual.equation
        squares = self.modes.select(
            sobolev.squared_wavenumbers(grid.shape, grid.lengths)
        )
        decay = -equation.viscosity * squares - equation.drag
        spacings = residual.spacings
        basis = self.basis[:, :, None, None]
        before = np.concatenate([np.zeros_like(basis[:1]), basis[:-1]])
        factors = np.exp(decay * spacings[:, None, None])[:, None]
        change = (basis - before * factors) / spacings[:, None, None, None]
        change *= np.sqrt(residual.weights)[:, None, None, None]
        blocks = np.einsum("mixy,mjxy->xyij", change, change, optimize=True)
        weights = dual_weights(grid) / grid.num_points
        blocks *= self.modes.select(weights)[:, :, None, None]
        values, vectors = np.linalg.eigh(blocks)
        values = np.maximum(values, 1e-14 * values[..., -1:]) ** power
        blocks = np.einsum(
            "xyik,xyk,xyjk->xyij", vectors, values, vectors, optimize=True
        )

        def apply(c):
            state = self.modes.to_states(c)[0]
            matrix = jnp.asarray(blocks, state.real.dtype)
            state = jnp.einsum("xyij,jxy->ixy", matrix, state)
            return self.modes.to_fields(state)[0]

        return apply


def dual_weights(grid: spectral.PeriodicGrid) -> np.ndarray:
    """|k|^-2 in `rfftn` layout; the mean counts as the longest wave does.

    The H^-1 norm itself does not see the mean of the vorticity, which the equation
    conserves but a trained model need not.
    """
    squares = sobolev.squared_wavenumbers(grid.shape, grid.lengths)
    squares.flat[0] = np.min(squares[squares > 0])
    return 1 / squares


def create(output, times, grid: spectral.PeriodicGrid) -> TrialSpace:
    """The trial space of an output operator on a grid.

    Args:
        output: `SpectralOutput` of the model, widened.
        times: [T] of the output, in frames.
        grid: of the trajectory.
    """
    cosines, sines = (np.asarray(w) for w in output.waves(np.asarray(times, float)))
    cutoffs = tuple(
        min((n - 1) // 3, int(np.max(k)), -int(np.min(k)))
        for n, k in zip(grid.shape, output.frequencies[:2], strict=True)
    )
    waves = np.concatenate([cosines, -sines]).T
    return TrialSpace(spectral.Modes(grid, cutoffs), waves)
