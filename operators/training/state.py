"""The state of a training run and the one compiled function that advances it."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh

from operators import models
from operators.training.normalizers import Normalizer
from operators.training.sharding import replicated, split_batch
from operators.training.windows import Window


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything that training changes; what a checkpoint holds.

    Attributes:
        params: the model's parameters.
        variables: what else the model holds: running averages of batch norms, which
            a step in train mode renews. Empty for most models.
        opt_state: the optimiser's state, scheduled hyperparameters included.
        step: optimiser steps done, int32. It is also the data cursor: epoch and batch
            follow from it.
    """

    params: nnx.State
    variables: nnx.State
    opt_state: optax.OptState
    step: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Arrays:
    """Training samples on the devices.

    Attributes:
        x: [num, *grid, in_channels] inputs, encoded.
        y: [num, *grid, out_channels] targets in physical units.
        output: decodes predictions to physical units.
    """

    x: jax.Array
    y: jax.Array
    output: Normalizer

    def batch(self, indices: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns x and y of the samples with these indices [batch]."""
        return self.x[indices], self.y[indices]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Trajectories:
    """Whole training trajectories on the devices, which batches cut windows from.

    Attributes:
        frames: [num, T, *grid, fields] in physical units.
        input: encodes inputs.
        output: decodes predictions to physical units.
        window: what is cut from them.
    """

    frames: jax.Array
    input: Normalizer
    output: Normalizer
    window: Window = dataclasses.field(metadata={"static": True})

    def batch(self, indices: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns x, encoded, and y of pairs [batch, 2] of sample and first frame."""
        size = (1, self.window.length, *self.frames.shape[2:])

        def cut(index):
            place = (index[0], index[1], *(0,) * (len(size) - 2))
            return jax.lax.dynamic_slice(self.frames, place, size)[0]

        x, y = self.window.split(jax.vmap(cut)(indices))
        return self.input.encode(x), y


def create_state(
    model: nnx.Module, optimizer: optax.GradientTransformation, mesh: Mesh
) -> tuple[nnx.GraphDef, TrainState]:
    """Splits the model and starts the optimiser, replicated over the mesh."""
    graph, params, variables = nnx.split(model, nnx.Param, ...)
    opt_state = optimizer.init(params)
    state = TrainState(params, variables, opt_state, jnp.zeros((), jnp.int32))
    return graph, jax.device_put(state, replicated(mesh))


def make_train_step(
    graph: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    loss_fn: Callable,
    mesh: Mesh,
    *,
    micro_batch: int = 0,
) -> Callable:
    """Compiles (state, arrays, indices [batch] or [batch, 2]) -> (state, metrics).

    The arrays are `Arrays`, or `Trajectories` with pairs of sample and start.

    The step gathers the batch on the devices, differentiates the **sum** of the
    per-sample losses of decoded predictions (so that coupled weight decay acts as in
    the released scripts), and updates the donated state. The model runs in train
    mode: batch norms use the statistics of the whole batch, over all devices. The
    metrics stay on the device: nothing waits for them.

    With micro-batches the gradients of parts of the batch are added up, which is the
    same sum up to rounding, but needs the memory of one part: on a CPU the fields of
    a part fit the cache. Not for models with batch statistics.

    Args:
        graph: structure of the model, see `create_state`.
        optimizer: see `operators.training.optimizers.create`.
        loss_fn: (prediction, target) -> [batch], in physical units.
        mesh: devices that share the batch.
        micro_batch: samples per device in a part, a divisor of its share of the batch;
            0: all of them at once.
    """
    sums = _gradient_sums(graph, loss_fn, mesh)

    def finish(state: TrainState, loss, gradient, variables, batch: int):
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {
            "loss": loss / batch,
            "gradient_norm": optax.tree.norm(gradient),
            "update_norm": optax.tree.norm(updates),
            "parameter_norm": optax.tree.norm(params),
            **{k: v for k, v in opt_state.hyperparams.items()},
        }
        return TrainState(params, variables, opt_state, state.step + 1), metrics

    def step(state: TrainState, arrays: Arrays, indices: jax.Array):
        (loss, variables), gradient = sums(state, arrays, indices)
        return finish(state, loss, gradient, variables, len(indices))

    def scanned(state: TrainState, arrays: Arrays, indices: jax.Array):
        def add(total, part):
            with models.inside_loops():
                (loss, _), gradient = sums(state, arrays, part)
            return jax.tree.map(jnp.add, total, (loss, gradient)), None

        zeros = jnp.zeros(()), jax.tree.map(jnp.zeros_like, state.params)
        size = micro_batch * mesh.size
        parts = indices.reshape(-1, size, *indices.shape[1:])
        (loss, gradient), _ = jax.lax.scan(add, zeros, parts)
        return finish(state, loss, gradient, state.variables, len(indices))

    everywhere = replicated(mesh)
    return jax.jit(
        scanned if micro_batch else step,
        donate_argnums=0,
        in_shardings=(everywhere, everywhere, everywhere),
        out_shardings=everywhere,
    )


def _gradient_sums(graph: nnx.GraphDef, loss_fn: Callable, mesh: Mesh) -> Callable:
    """(state, arrays, indices) -> (loss, variables), gradient: sums over samples."""
    over_batch = split_batch(mesh)

    def sums(state: TrainState, arrays: Arrays, indices: jax.Array):
        indices = jax.lax.with_sharding_constraint(indices, over_batch)
        x, y = (
            jax.lax.with_sharding_constraint(v, over_batch)
            for v in arrays.batch(indices)
        )

        def objective(params):
            model = nnx.merge(graph, params, state.variables, copy=True)
            model.train()
            prediction = arrays.output.decode(model(x))
            return loss_fn(prediction, y).sum(), other_variables(model)

        return jax.value_and_grad(objective, has_aux=True)(state.params)

    return sums


def make_errors(graph: nnx.GraphDef, error_fn: Callable) -> Callable:
    """Compiles (params, variables, arrays) -> error_fn per sample, [batch].

    The model runs in evaluation mode: batch norms use their running averages.
    """

    def errors(params, variables, arrays: Arrays):
        model = nnx.merge(graph, params, variables)
        model.eval()
        return error_fn(arrays.output.decode(model(arrays.x)), arrays.y)

    return jax.jit(errors)


def other_variables(model: nnx.Module) -> nnx.State:
    """What a model holds besides its parameters, see `TrainState.variables`."""
    return nnx.split(model, nnx.Param, ...)[2]


def learns_variables(state: TrainState) -> bool:
    """Whether a step in train mode changes more than parameters: batch statistics.

    Then the result depends on which samples are computed together. Arrays that a model
    holds as constants do not count.
    """
    leaves = jax.tree.leaves(
        state.variables, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable)
    )
    return any(isinstance(leaf, nnx.Variable) for leaf in leaves)
