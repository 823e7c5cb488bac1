"""What the time steppers need to know of an equation."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from solvers.spectral.grid import PeriodicGrid
from solvers.spectral.modes import Modes, complex_dtype, scaled, spread
from solvers.spectral.transforms import FoldedModes, supports_folding


class Equation:
    """du/dt = explicit terms + lambda u, with a diagonal linear part per Fourier mode.

    A state holds the Fourier coefficients of real fields, [..., *modes.shape]; which
    modes it holds is the equation's business: go through `to_state` and `to_field`.
    Computations run in the precision of the state. Equations are pytrees, so that they
    can be arguments of compiled functions, which can be differentiated for their
    numbers.

    Subclasses set `grid`, `modes` and give `explicit_terms`, `linear_symbol`,
    `courant_rate` and `budget`.
    """

    grid: PeriodicGrid
    modes: Modes
    transforms_per_evaluation: int  # real FFTs of one call of `explicit_terms`

    @property
    def linear_symbol(self) -> jax.Array:
        """Lambda per mode, [*modes.shape], real, in JAX's default precision."""
        raise NotImplementedError

    def explicit_terms(self, state: jax.Array, time: float = 0.0) -> jax.Array:
        """Everything but lambda u, as a state."""
        raise NotImplementedError

    def implicit_terms(self, state: jax.Array) -> jax.Array:
        """The linear terms lambda u."""
        return scaled(spread(self.linear_symbol, state), state)

    def implicit_solve(self, state: jax.Array, h: float) -> jax.Array:
        """Solves u - h lambda u = state for u."""
        return scaled(1 / (1 - h * spread(self.linear_symbol, state)), state)

    def tendency(self, state: jax.Array, time: float = 0.0) -> jax.Array:
        """du/dt: explicit and linear terms."""
        return self.explicit_terms(state, time) + self.implicit_terms(state)

    def to_state(self, field: jax.Array) -> jax.Array:
        """Coefficients of real fields [..., *grid.shape], cut off at the kept modes.

        Raises:
            ValueError: if the field is on another grid.
            TypeError: unless it is real.
        """
        return self.modes.to_states(jnp.asarray(self.grid.check(field)))[0]

    def to_field(
        self, state: jax.Array, shape: Sequence[int] | None = None
    ) -> jax.Array:
        """Real fields [..., *shape] of a state; other shapes as `grid.inverse`."""
        if shape is None or tuple(shape) == self.grid.shape:
            return self.modes.to_fields(state)[0]
        return self.grid.inverse(self.modes.fill(state), shape)

    def courant_rate(self, state: jax.Array) -> jax.Array:
        """Largest of speed / spacing over the grid, [...]: times dt the CFL number."""
        raise NotImplementedError

    def budget(
        self, state: jax.Array, time: float = 0.0
    ) -> tuple[jax.Array, jax.Array]:
        """Integrals that a balance law holds for, and their exact rates of change.

        Returns:
            values [..., b] and rates [..., b] for the b names in `budget_names`.
        """
        raise NotImplementedError

    budget_names: tuple[str, ...] = ()

    def astype(self, dtype) -> "Equation":
        """The equation with its arrays in the precision of a real dtype."""

        def cast(leaf):
            if isinstance(leaf, np.generic):
                return leaf.item()  # a Python number, which takes any precision
            if not isinstance(leaf, np.ndarray | jax.Array):
                return leaf
            is_complex = jnp.issubdtype(leaf.dtype, jnp.complexfloating)
            return leaf.astype(complex_dtype(dtype) if is_complex else dtype)

        return jax.tree.map(cast, self)


def equation_pytree(*data: str) -> Callable[[type], type]:
    """Makes a frozen dataclass a pytree whose children are the named attributes.

    All other attributes are static. What is checked when an object is built is not
    checked again when JAX takes it apart and puts it together.
    """

    def register(cls: type) -> type:
        def flatten(equation) -> tuple[list[Any], tuple]:
            values = {n: getattr(equation, n) for n in cls.__dataclass_fields__}
            children = []
            for name in data:
                static = callable(values[name])
                children.append(None if static else values.pop(name))
            return children, tuple(values.items())

        def unflatten(static, children):
            equation = object.__new__(cls)
            vars(equation).update(zip(data, children, strict=True))
            vars(equation).update(static)
            return equation

        jax.tree_util.register_pytree_node(cls, flatten, unflatten)
        return cls

    return register


def dealiased_modes(grid: PeriodicGrid, dealias: str, *, fold: bool = False) -> Modes:
    """Modes of a state for a way of dealiasing.

    Args:
        grid: the grid.
        dealias: "two_thirds", "legacy" or "none".
        fold: whether the equation needs no more than `Modes.quadratic`: then they are
            `FoldedModes` where these pay.

    Raises:
        ValueError: for an unknown one, or a grid too small for any mode.
    """
    cutoffs = tuple((n - 1) // 3 for n in grid.shape)
    if dealias not in ("two_thirds", "legacy", "none"):
        raise ValueError(
            f"dealias is {dealias!r}; expected 'two_thirds', 'legacy' or 'none'"
        )
    if min(cutoffs) < 1:
        raise ValueError(f"grid {grid.shape} is too small; expected 4 points per axis")
    if dealias == "two_thirds":
        folded = fold and supports_folding(grid, cutoffs)
        return (FoldedModes if folded else Modes)(grid, cutoffs)
    return Modes(grid, None, odd_nyquist=dealias == "legacy")


def check_dimension(grid: PeriodicGrid, ndim: int, name: str) -> None:
    """Refuses grids of another dimension.

    Raises:
        ValueError: if the dimension is another.
    """
    if grid.ndim != ndim:
        raise ValueError(f"{name} needs a grid of {ndim} axes, got shape {grid.shape}")


def check_nonnegative(name: str, value: float) -> None:
    """Refuses negative numbers; what JAX traces is taken as it comes.

    Raises:
        ValueError: for a negative number, infinity or NaN.
    """
    if isinstance(value, jax.core.Tracer):
        return
    numbers = np.asarray(value)
    if not np.all((numbers >= 0) & (numbers < np.inf)):
        raise ValueError(f"{name} is {value}; expected a finite number >= 0")
