"""The output operator of a trained SFNO as the refiner trains it: wide, in float64.

Everything up to the latent field is frozen and computed once. The output operator gets
all modes inside the 2/3 mask of the grid, and more waves in time if asked for; the new
numbers are zero, so the output stays what it was, except where the model has modes
beyond the mask: those the equation does not see, and they are set to zero.
"""

import copy
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from operators.training.refinement.trial_space import TrialSpace


class Frozen(NamedTuple):
    """What refinement keeps fixed, float64.

    Attributes:
        latent: [batch, n1, n2, latent_steps, 1] of `SFNO.latent`.
        last: [batch, n1, n2, 1] the last given frame.
    """

    latent: jax.Array
    last: jax.Array


def check_model(model) -> None:
    """Refuses models that cannot be refined.

    Raises:
        ValueError: unless the model is an SFNO for one field.
    """
    if not all(hasattr(model, name) for name in ("latent", "head", "output")):
        raise ValueError(
            f"{type(model).__name__} has no output operator to refine: train an SFNO "
            "(config.model.name = 'sfno')"
        )
    if model.out_channels != 1:
        raise ValueError(
            f"refinement is written for vorticity, one channel, but the model has "
            f"{model.out_channels}: train it on the vorticity"
        )


def widened_modes(
    modes: tuple[int, int, int], grid: tuple[int, int], time_modes: int = 0
) -> tuple[int, int, int]:
    """Modes of the widened output operator: |k| < m, and waves in time 0 ... m - 1.

    Args:
        modes: of the trained one.
        grid: points per axis of the trajectories to refine.
        time_modes: waves in time wanted; 0: as many as trained.

    Raises:
        ValueError: for fewer waves in time than trained.
    """
    if 0 < time_modes < modes[2]:
        raise ValueError(
            f"time_modes is {time_modes}, but the model has {modes[2]} waves in time, "
            f"all of which count: give 0 or at least {modes[2]}"
        )
    space = [max(m, (n - 1) // 3 + 1) for m, n in zip(modes, grid, strict=False)]
    return (*space, max(time_modes, modes[2]))


def widen(model, grid: tuple[int, int], time_modes: int = 0):
    """A copy of the model with a wide float64 output operator.

    The output stays the same up to modes beyond the 2/3 mask, which are set to zero.

    Args:
        model: trained SFNO.
        grid: points per axis of the trajectories to refine.
        time_modes: waves in time; 0 keeps them.

    Raises:
        ValueError: for a model that cannot be refined, or too few or many waves.
    """
    check_model(model)
    wide = copy.deepcopy(model)
    modes = widened_modes(model.output.modes, grid, time_modes)
    wide.output = model.output.with_modes(modes, param_dtype=jnp.float64)
    _cut(wide.output, grid)
    return wide


def beyond_mask(model, grid: tuple[int, int]) -> bool:
    """Whether a model has modes that `widen` sets to zero on this grid."""
    frequencies = model.output.frequencies[:2]
    return any(
        np.abs(k).max() > (n - 1) // 3 for k, n in zip(frequencies, grid, strict=True)
    )


def _cut(output, grid: tuple[int, int]) -> None:
    """Sets weights and biases of modes beyond the 2/3 mask to zero."""
    kept = np.logical_and.outer(
        *(
            np.abs(k) <= (n - 1) // 3
            for k, n in zip(output.frequencies[:2], grid, strict=True)
        )
    )
    for name in ("weights", "bias"):
        for part in ("real", "imag"):
            values = getattr(getattr(output, name), part)
            shape = kept.shape + (1,) * (values.ndim - 2)
            values[...] = jnp.where(kept.reshape(shape), values[...], 0)


@nnx.jit
def _latent(model, x):
    return model.latent(x)


def freeze(model, x: jax.Array) -> Frozen:
    """Latent fields and last frames of inputs x [batch, n1, n2, num_in, 1]."""
    x = jnp.asarray(x, jnp.float64)
    return Frozen(_latent(model, x), x[:, :, :, -1])


def split(model):
    """The graph of the output operator and its parameters as a plain pytree."""
    graph, state = nnx.split(model.output)
    return graph, state


def repeated(parameters, num: int):
    """Parameters of their own for each of `num` trajectories, equal at the start."""
    return jax.tree.map(lambda p: jnp.repeat(p[None], num, axis=0), parameters)


def predict(graph, parameters, frozen: Frozen, times) -> jax.Array:
    """Frames [T + 1, n1, n2] of one trajectory, the last given one first.

    Args:
        graph: of `split`.
        parameters: those of this trajectory.
        frozen: of this trajectory, without the batch axis.
        times: [T] in frames.
    """
    output = nnx.merge(graph, parameters)
    increments = output(frozen.latent[None], frozen.last[None], np.asarray(times))
    increments = jnp.moveaxis(increments[0, ..., 0], -1, 0)
    last = frozen.last[None, :, :, 0]
    return jnp.concatenate([last, last + increments])


def add(graph, parameters, space: TrialSpace, c: jax.Array, num_times: int):
    """Parameters whose output is that of `parameters` plus the increments of c.

    The coordinates go into the spectral bias, which spans the whole trial space.

    Args:
        graph: of `split`.
        parameters: those of one trajectory.
        space: trial space of the output operator.
        c: [num, n1, n2] coordinates.
        num_times: number of output times, for released models.

    Returns:
        Parameters like `parameters`.
    """
    output = nnx.merge(graph, jax.tree.map(lambda p: p, parameters))
    grid = c.shape[-2:]
    fields = jnp.einsum("wj,jxy->wxy", jnp.asarray(space.to_waves, c.dtype), c)
    real, imaginary = jnp.split(fields, 2)
    spectrum = jnp.fft.fft2(jax.lax.complex(real, imaginary), norm="forward")
    frequencies = output.frequencies[:2]
    inside = [2 * np.abs(k) < n for k, n in zip(frequencies, grid, strict=True)]
    places = np.ix_(*(np.flatnonzero(i) for i in inside))
    rows = np.ix_(
        *(k[i] % n for k, i, n in zip(frequencies, inside, grid, strict=True))
    )
    change = jnp.moveaxis(spectrum[(slice(None), *rows)], 0, -1)[..., None]
    change = change / output.delta
    if output.backward:
        change = change * (grid[0] * grid[1] * (num_times + output.latent_steps + 2))
    for name, part in (("real", change.real), ("imag", change.imag)):
        bias = getattr(output.bias, name)
        bias[...] = bias[...].at[places].add(part)
    return nnx.split(output)[1]
