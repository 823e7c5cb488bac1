"""Residuals of predicted trajectories: how far frames are from solving their equation.

Three kinds behind one interface, `create(kind, equation, times, ...)`. All take frames
[..., T + 1, n1, n2] whose first one is the last frame that is known, and return one
residual field per predicted frame, [..., T, n1, n2], a rate of change:

* "defect": (w_m - S(w_{m-1})) / (t_m - t_{m-1}), where S marches every frame to the
  time of the next one, all at once. Zero for an exact trajectory up to the error of S.
* "fd": differences in time minus the right-hand side of the equation. Its floor is the
  error of the differences, set by the spacing of the frames.
* "one_step": the published residual. It takes the time derivative of each frame from a
  short step with the equation itself, so that every field scores O(dt): it does not see
  the error, and is here to show that.

The equation is one of `solvers.spectral`, without explicit dependence on time.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from operators.training import sobolev
from operators.training.refinement.trial_space import dual_weights
from solvers import spectral

SAME = 1e-6  # spacings of times are one when they agree to this, relatively
STEADY = 1e-3  # least rate of change to compare with, over the terms that make it


@dataclasses.dataclass(frozen=True, eq=False)
class Residual:
    """What the kinds share: the norm, its scale and the loss.

    Attributes:
        equation: of `solvers.spectral`, on the grid of the frames.
        times: T + 1 rising times, that of the known frame first.
    """

    equation: object
    times: tuple[float, ...]

    def __call__(self, frames, history=None) -> jax.Array:
        """Residual fields [..., T, n1, n2] of frames [..., T + 1, n1, n2].

        Args:
            frames: the last known frame, then the predicted ones at `times[1:]`.
            history: [..., H, n1, n2] known frames before them, used by "fd" only.

        Raises:
            ValueError: if the frames fit neither the times nor the grid.
        """
        frames = self._checked(frames)
        if history is not None:
            raise ValueError(
                f"{type(self).__name__} looks at no frames before the last known one: "
                'leave out history, or take the kind "fd" with history_times'
            )
        return self._fields(frames)

    def norm(self, fields, order: float = -1.0) -> jax.Array:
        """Root mean square over time of the norm in H^order, one number per trajectory.

        For a negative order the mean counts as the longest wave does: a model can get
        it wrong.

        Args:
            fields: [..., T, n1, n2] at `times[1:]`.
            order: of the norm in space; -1 is the norm of the theory.
        """
        squares = self._squares(fields, order)
        return sobolev.root(squares @ np.asarray(self.weights, squares.dtype))

    def scale(self, frames) -> jax.Array:
        """H^-1 norm of the rate of change at the known frame: what to compare with.

        At least `STEADY` of the terms that it is the sum of, which cancel in a steady
        flow; 1 where these are zero as well.
        """
        equation = self.equation
        field = self._checked(frames)[..., 0, :, :]
        state = equation.to_state(field)
        u, v = equation.velocity(state)
        transport = jnp.mean((u**2 + v**2) * field**2, axis=(-2, -1))
        linear, force = (
            self._squares(equation.to_field(terms), -1.0)
            for terms in (
                equation.implicit_terms(state),
                equation.explicit_terms(jnp.zeros_like(state)),
            )
        )
        rate = self._squares(right_hand_side(equation, field), -1.0)
        floor = STEADY**2 * (transport + linear + force)
        scale = sobolev.root(jnp.maximum(rate, floor))
        return jnp.where(scale > 0, scale, 1.0)

    def _squares(self, fields, order: float):
        """Squared norms [...] in H^order of fields [..., n1, n2]."""
        grid = self.equation.grid
        squares = sobolev.squared_sobolev_norm(
            fields, order=order, lengths=grid.lengths
        )
        if order >= 0:
            return squares
        mean = fields.mean((-2, -1))
        return squares + float(dual_weights(grid).flat[0]) ** -order * mean**2

    def loss(self, frames, history=None) -> jax.Array:
        """Relative H^-1 norm of the residual, one number per trajectory."""
        return self.norm(self(frames, history)) / self.scale(frames)

    @property
    def spacings(self) -> np.ndarray:
        """t_m - t_{m-1}, [T]."""
        return np.diff(self.times)

    @property
    def weights(self) -> np.ndarray:
        """Weights [T] of the mean over time."""
        return self.spacings / self.spacings.sum()

    def _checked(self, frames):
        expected = (len(self.times), *self.equation.grid.shape)
        if frames.shape[-len(expected) :] != expected:
            raise ValueError(
                f"frames have shape {frames.shape}, but {len(self.times)} times on the "
                f"grid {self.equation.grid.shape} need [..., {str(expected)[1:-1]}]: "
                "the last known frame first, then one per predicted time"
            )
        return frames

    def _fields(self, frames):
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, eq=False)
class Defect(Residual):
    """(w_m - S(w_{m-1})) / (t_m - t_{m-1}); see the head of the module.

    Attributes:
        scheme: of the march S, a name of `solvers.spectral.STEPPERS`.
        substeps: equal steps from one frame to the next.
        checkpoint: recompute the substeps in the backward pass instead of storing them.
    """

    scheme: str = "etdrk4"
    substeps: int = 8
    checkpoint: bool = True

    def __post_init__(self):
        if self.substeps < 1:
            raise ValueError(f"substeps must be at least 1, but is {self.substeps}")

    def marcher(self, spacing: float) -> Callable[[jax.Array], jax.Array]:
        """Function that marches fields [..., n1, n2] by this time in `substeps`."""
        equation = self.equation
        step = spectral.stepper(self.scheme)(equation, float(spacing) / self.substeps)

        def body(state, _):
            return step(state, 0.0), None

        body = jax.checkpoint(body) if self.checkpoint else body

        def march(fields):
            state = equation.to_state(fields)
            state = jax.lax.scan(body, state, length=self.substeps)[0]
            return equation.to_field(state)

        return march

    def march(self, frames) -> jax.Array:
        """S of all frames but the last, [..., T, n1, n2], at the times of the next."""
        frames = self._checked(frames)[..., :-1, :, :]
        groups = equal_spacings(self.spacings)
        if len(groups) == 1:
            return self.marcher(self.spacings[0])(frames)
        parts = [
            self.marcher(self.spacings[group[0]])(frames[..., np.array(group), :, :])
            for group in groups
        ]
        order = np.argsort(np.concatenate(groups))
        return jnp.concatenate(parts, axis=-3)[..., order, :, :]

    def _fields(self, frames):
        ahead = frames[..., 1:, :, :] - self.march(frames)
        return ahead / per_frame(self.spacings, ahead)


@dataclasses.dataclass(frozen=True, eq=False)
class FiniteDifference(Residual):
    """Differences in time minus the right-hand side, frame by frame.

    Every derivative takes order + 1 frames: central ones inside, from the last ones
    only at the end (which is BDF), and with the known frames before the first if
    `history_times` names them.

    Attributes:
        order: of the differences; even, so that those inside are central.
        history_times: of the frames before the last known one, rising.
    """

    order: int = 4
    history_times: tuple[float, ...] = ()

    def __post_init__(self):
        known = tuple(float(t) for t in self.history_times)
        object.__setattr__(self, "history_times", known)
        available = len(self.history_times) + len(self.times)
        if self.order < 2 or self.order % 2 or self.order >= available:
            raise ValueError(
                f"order must be even and below the {available} frames there are, but "
                f"is {self.order}"
            )
        known = (*self.history_times, self.times[0])
        if not all(np.diff(known) > 0):
            raise ValueError(f"history_times must rise up to times[0], but are {known}")

    def __call__(self, frames, history=None) -> jax.Array:
        """See `Residual`; history must have one frame per entry of history_times."""
        frames = self._checked(frames)
        given = 0 if history is None else history.shape[-3]
        if given != len(self.history_times):
            raise ValueError(
                f"history has {given} frames, but there are {len(self.history_times)} "
                "history_times"
            )
        known = frames if history is None else jnp.concatenate([history, frames], -3)
        matrix = jnp.asarray(self.matrix, dtype=frames.dtype)
        rates = jnp.einsum("mt,...txy->...mxy", matrix, known)
        return rates - right_hand_side(self.equation, frames[..., 1:, :, :])

    @functools.cached_property
    def matrix(self) -> np.ndarray:
        """Matrix [T, H + T + 1] from all frames to the rates at the predicted times."""
        times = np.array((*self.history_times, *self.times))
        first = len(self.history_times) + 1
        matrix = np.zeros((len(times) - first, len(times)))
        for row, m in enumerate(range(first, len(times))):
            start = np.clip(m - self.order // 2, 0, len(times) - self.order - 1)
            nodes = slice(start, start + self.order + 1)
            matrix[row, nodes] = derivative_weights(times[nodes], times[m])
        return matrix


@dataclasses.dataclass(frozen=True, eq=False)
class OneStep(Residual):
    """The published residual, for fidelity: it does not measure the error.

    One step of IMEX Euler and Crank-Nicolson forwards and backwards from every frame
    gives w_+ and w_-; their mean with `blend` and that of their difference quotients
    go into the equation.

    Attributes:
        step: length of the auxiliary step; 1e-6 in the published runs, where with
            blend (1/2, 1/2) rounding dominates.
        blend: weights (a_-, a_+) of the backward and the forward step.

    References:
        torch-cfd at 475c738, fno/finetune.py and fno/data_gen/solvers.py.
    """

    step: float = 1e-6
    blend: tuple[float, float] = (0.5, 0.5)

    def __post_init__(self):
        if self.step <= 0:
            raise ValueError(f"step must be positive, but is {self.step}")

    def _fields(self, frames):
        equation = self.equation
        state = equation.to_state(frames[..., 1:, :, :])
        explicit = equation.explicit_terms(state, 0.0)
        implicit = equation.implicit_terms(state)
        mean, rate = 0.0, 0.0
        for weight, h in zip(self.blend, (-self.step, self.step), strict=True):
            ahead = state + h * explicit + 0.5 * h * implicit
            ahead = equation.implicit_solve(ahead, 0.5 * h)
            mean = mean + weight * ahead
            rate = rate + weight * (ahead - state) / h
        residual = rate - equation.explicit_terms(mean, 0.0)
        return equation.to_field(residual - equation.implicit_terms(mean))


KINDS = {"defect": Defect, "fd": FiniteDifference, "one_step": OneStep}


def create(kind: str, equation, times: Sequence[float], **settings) -> Residual:
    """Returns the named residual for frames at these times.

    Args:
        kind: a key of `KINDS`.
        equation: of `solvers.spectral`, on the grid of the frames.
        times: [T + 1] rising, that of the last known frame first.
        **settings: fields of the class of that kind.

    Raises:
        ValueError: for an unknown kind or setting, or times that do not rise.
    """
    if kind not in KINDS:
        raise ValueError(f"residual kind is {kind!r}; known: {sorted(KINDS)}")
    known = {f.name for f in dataclasses.fields(KINDS[kind])} - {"equation", "times"}
    if unknown := set(settings) - known:
        raise ValueError(
            f"residual {kind} takes no {sorted(unknown)}; known: {sorted(known)}"
        )
    times = tuple(float(t) for t in times)
    if len(times) < 2 or not all(np.diff(times) > 0):
        raise ValueError(f"times must be at least two that rise, but are {times}")
    return KINDS[kind](equation, times, **settings)


def right_hand_side(equation, fields) -> jax.Array:
    """The equation's rate of change of fields [..., n1, n2], same shape."""
    return equation.to_field(equation.tendency(equation.to_state(fields)))


def derivative_weights(nodes, at: float) -> np.ndarray:
    """Weights w with sum w_j f(nodes_j) = f'(at) for polynomials through the nodes.

    Args:
        nodes: [p + 1] different points; the formula has order p.
        at: where the derivative is taken.
    """
    nodes = np.asarray(nodes, float)
    width = np.ptp(nodes)
    scaled = (nodes - at) / width  # a Vandermonde matrix of numbers up to 1
    moments = np.zeros(len(nodes))
    moments[1] = 1.0
    return np.linalg.solve(np.vander(scaled, increasing=True).T, moments) / width


def per_frame(values, fields) -> jax.Array:
    """Values [T] in the rank and precision of fields [..., T, n1, n2]."""
    shape = (1,) * (fields.ndim - 3) + (-1, 1, 1)
    return jnp.asarray(values, dtype=fields.dtype).reshape(shape)


def equal_spacings(spacings: np.ndarray) -> list[list[int]]:
    """Indices of spacings, grouped by equal ones."""
    groups: list[list[int]] = []
    for m, spacing in enumerate(spacings):
        for group in groups:
            if abs(spacing - spacings[group[0]]) <= SAME * spacing:
                group.append(m)
                break
        else:
            groups.append([m])
    return groups
