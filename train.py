"""Trains a neural operator, from the data to the figures.

    python train.py --config configs/mgno_darcy.py:small
    python train.py --config configs/mgno_darcy.py --config.seed=1 --workdir runs/seed1

Generates the data set on first use, trains with checkpoints, and ends with the test
errors, `evaluation.json` and figures in the workdir (runs/<config>_<variant>).
The same command continues a run that was stopped; a finished one says so.
"""

import argparse
import functools
import os
import sys
import time
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from configs import loading
from operators import models
from operators.training import (
    batching,
    checkpoints,
    checks,
    data,
    device_data,
    evaluate,
    interruption,
    losses,
    normalizers,
    optimizers,
    progress,
    runs,
    sharding,
    state,
    timing,
    tuning,
    workdir,
)

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))


class StoppedError(Exception):
    """A signal came; everything is saved."""


class NonFiniteError(ValueError):
    """A loss, gradient or update is not finite."""


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code (0 done, 1 failed, 2 bad input, 75 again)."""
    parser = argparse.ArgumentParser(
        prog="train.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--workdir", help="folder of the run")
    parser.add_argument("--list", action="store_true", help="list configs and models")
    options, rest = parser.parse_known_args(argv)
    if options.list:
        found = sorted(map(str, Path("configs").glob("[!_]*_*.py")))
        # Those of the refiner are for `operators.training.refine`.
        print("configs:", *(p for p in found if not Path(p).stem.startswith("refine")))
        print("models:", *models.names())
        return 0
    cache = os.environ.get(
        "JAX_COMPILATION_CACHE_DIR", str(CACHE / "operators" / "jax")
    )
    jax.config.update("jax_compilation_cache_dir", cache)
    try:
        config, name = loading.from_arguments(rest)
        folder = Path(options.workdir or Path("runs") / loading.run_name(name))
        with interruption.StopFlag() as stop:
            train_and_evaluate(config, folder, stop=stop, name=name)
    except StoppedError as signal:
        print(f"{signal}; run the same command again to go on", file=sys.stderr)
        return interruption.EXIT_CODE
    except NonFiniteError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def train_and_evaluate(config, folder: Path, *, stop, name: str = "") -> dict:
    """Trains as the config says and evaluates the best checkpoint on the test split.

    Args:
        config: see `configs/`.
        folder: workdir; continues the run that it holds.
        stop: `interruption.StopFlag`, or any object with an attribute `requested`.
        name: the config's name, for the messages.

    Returns:
        The report of `operators.training.evaluate`.

    Raises:
        StoppedError: after a signal, with everything saved.
        NonFiniteError: if the training diverged; the last finite checkpoint stays.
        ValueError: if settings, data and model do not fit together.
        OSError: if a folder cannot be written.
    """
    checks.experiment(config)
    checks.positive_counts(config)
    mesh = sharding.data_mesh(config.num_devices, config.batch_size)
    resumed = workdir.prepare(folder, config)
    with workdir.Lock(folder):
        return prepare_and_train(config, folder, mesh, resumed, stop, name)


def prepare_and_train(config, folder, mesh, resumed, stop, name) -> dict:
    """Does the work of `train_and_evaluate` once the folder is ours alone."""
    run = Run(config, mesh)
    wanted = (mesh.size, config.micro_batch, run.samples, run.state)
    tuned = tuning.resume(folder, *wanted) if resumed else None
    run.use(tuned or run.measure_steps(name))
    if not data.generate(config.data, stop):
        raise StoppedError(f"the data of {name} are not complete")
    run.load_data()
    train(run, folder, stop)
    baseline = runs.find_baseline(config, run.dataset)
    report = evaluate.evaluate(folder, baseline=baseline, dataset=run.dataset)
    print(evaluate.describe(report))
    pictures = ", ".join(sorted(path.name for path in folder.glob("*.png")))
    print(f"figures and checkpoints: {folder}/ ({pictures}, checkpoints/)")
    return report


class Run:
    """Model, optimiser, compiled functions and data of one training run."""

    def __init__(self, config, mesh):
        self.config, self.mesh = config, mesh
        self.put = functools.partial(jax.device_put, device=sharding.replicated(mesh))
        self.steps_per_epoch = batching.steps_per_epoch(
            config.data.num_train, config.batch_size
        )
        self.num_steps = config.num_epochs * self.steps_per_epoch
        self.optimizer = optimizers.create(
            config.optimizer, config.schedule, config.num_epochs, self.steps_per_epoch
        )
        self.layout = data.describe(config.data)
        settings = dict(config.loss)
        name = settings.pop("name")
        self.loss_fn = losses.create(
            name, self.layout.spacing, has_time=self.layout.has_time, **settings
        )
        model = models.create(rngs=nnx.Rngs(config.seed), **config.model)
        # The model sees the data's shape before anything is computed or generated.
        checks.model_fits(model, config.model, self.layout)
        checks.normalizers_fit(model, config.normalizers, config.model, self.layout)
        shape = (1, *self.layout.input_grid, config.model.in_channels)
        self.example = jax.ShapeDtypeStruct(shape, np.float32)
        model.eval()
        output = jax.eval_shape(lambda x: model(x), self.example)
        checks.output_fits(output, config.model, self.layout)
        self.graph, self.state = state.create_state(model, self.optimizer, mesh)
        self.samples = config.batch_size // mesh.size
        tuning.check(config.micro_batch, self.samples, self.state)
        self.build_step = functools.cache(self._build_step)

    def _build_step(self, choice: tuning.Choice):
        """The training step, computed as chosen."""
        return state.make_train_step(
            tuning.apply(self.graph, self.state, choice.transform),
            self.optimizer,
            self.loss_fn,
            self.mesh,
            micro_batch=choice.micro_batch,
        )

    def use(self, tuned: tuning.Tuning) -> None:
        """Takes a measured, stored or given way to compute the steps."""
        print(tuned.describe(), flush=True)
        self.tuned, choice = tuned, tuned.choice
        graph = tuning.apply(self.graph, self.state, choice.transform)
        self.step_fn = self.build_step(choice)
        self.errors_fn = state.make_errors(graph, losses.relative_l2)
        self.build_step.cache_clear()

    def measure_steps(self, name: str) -> tuning.Tuning:
        """Chooses the fastest step and prints how long the run will take with it."""
        config = self.config
        arrays = device_data.stand_in(
            self.layout, config.data.num_train, config.normalizers
        )
        arrays, indices = self.put(arrays), self.order(0)[0]
        copy = jax.tree.map(lambda leaf: leaf.copy(), self.state)
        tuned, seconds = tuning.measure(
            self.build_step,
            first := tuning.Choice(config.micro_batch),
            lambda: tuning.alternatives(
                self.graph, self.state, first, self.example, self.samples
            ),
            copy,
            (arrays, indices),
            self.num_steps,
        )
        total = seconds * self.num_steps
        print(
            f"training: {config.num_epochs} epochs of {self.steps_per_epoch} steps, "
            f"{seconds:.2g} s each: about {timing.spell_duration(total)} on this "
            f"{jax.default_backend().upper()}",
            flush=True,
        )
        if total > 3600 and name and ":" not in name:
            print(f"a smaller variant: --config {name}:small", flush=True)
        return tuned

    def load_data(self) -> None:
        """Reads the splits, fits the normalisers, puts everything on the devices."""
        config, settings = self.config, self.config.data
        self.dataset = data.open_data(settings)
        checks.request_fits(self.dataset, settings)
        checks.loss_fits(config.loss, self.dataset, self.layout, settings.stride)
        print(f"data: {self.dataset.root}, read at {self.layout.spell_grid()}")
        self.splits = device_data.load(self.dataset, config, self.layout, self.put)

    def order(self, epoch: int) -> np.ndarray:
        """What each batch of an epoch is made of, see `batching.epoch_order`."""
        num, size = self.config.data.num_train, self.config.batch_size
        starts = self.layout.num_starts
        return batching.epoch_order(self.config.seed, epoch, num, size, starts)

    def validate(self, current: state.TrainState) -> float:
        """Mean relative L2 error over the validation split."""
        errors = [
            self.errors_fn(current.params, current.variables, batch)
            for batch in self.splits.valid
        ]
        return float(np.concatenate(jax.device_get(errors)).mean())


def train(run: Run, folder: Path, stop) -> None:
    """The loop: steps, logs, validation, checkpoints; returns when all is done.

    Nothing in a step waits for the device: metrics are fetched every
    `log.every_steps` steps, and a loss that is not finite stops the run there.
    """
    config, per_epoch = run.config, run.steps_per_epoch
    latest = checkpoints.Checkpoints(
        folder / "checkpoints" / "latest", config.checkpoint.keep
    )
    best = checkpoints.Checkpoints(folder / "checkpoints" / "best", 1)
    current, lowest = run.state, float("inf")
    if restored := latest.restore(current):
        current, facts = restored
        lowest = facts["best_valid_relative_l2"]
        runs.check_same_data(facts, run.dataset, folder)
    # Only now: a refused run must leave the folder as it was.
    tuning.save(folder, run.tuned, run.mesh.size)
    workdir.record_config(folder, config)
    normalizers.save(folder / "normalizers.npz", run.splits.normalizers)
    first = int(current.step)
    if first == run.num_steps:
        print(f"{folder} is finished: all {first} steps are done")
        return

    def save(checkpoint):
        facts = {
            "best_valid_relative_l2": lowest,
            "data_manifest_sha256": run.dataset.manifest_sha256,
        }
        checkpoint.save(current, facts)

    log = workdir.MetricsLog(folder, first, config.log.tensorboard)
    bar = progress.Bar(first, run.num_steps)
    for epoch in range(first // per_epoch, config.num_epochs):
        order = run.order(epoch)
        ids = run.splits.sample_ids[batching.samples_of(order)]
        begin, start = int(current.step) - epoch * per_epoch, time.perf_counter()
        window, values = [], []
        for index in range(begin, per_epoch):
            current, metrics = run.step_fn(current, run.splits.train, order[index])
            window.append(metrics)
            bar.update()
            stopping = stop.requested if index + 1 < per_epoch else ""
            if len(window) == config.log.every_steps or stopping:
                values += fetch(window, ids[: index + 1], epoch)
                window = []
            if stopping:
                save(latest)
                raise StoppedError(f"{stopping}: saved step {int(current.step)}")
        values += fetch(window, ids, epoch)
        seconds = time.perf_counter() - start
        record = {
            **values[-1],
            "epoch": epoch + 1,
            "loss": float(np.mean([v["loss"] for v in values])),
            "samples_per_second": (per_epoch - begin) * config.batch_size / seconds,
        }
        last = epoch + 1 == config.num_epochs
        if last or (epoch + 1) % config.eval.every_epochs == 0:
            record["valid_relative_l2"] = run.validate(current)
            if record["valid_relative_l2"] < lowest:
                lowest = record["valid_relative_l2"]
                save(best)
        log.write((epoch + 1) * per_epoch, **record)
        bar.report(record, config.num_epochs)
        stopping = stop.requested
        if stopping or last or (epoch + 1) % config.checkpoint.every_epochs == 0:
            save(latest)
        if stopping and not last:
            raise StoppedError(f"{stopping}: saved step {int(current.step)}")
    bar.close()
    log.close()


def fetch(window: list, sample_ids: np.ndarray, epoch: int) -> list:
    """Brings the metrics of the last steps to the host; they must be finite.

    Args:
        window: metrics of the last steps.
        sample_ids: [steps, batch] of the steps of this epoch so far.
        epoch: from 0.

    Raises:
        NonFiniteError: naming the first bad step and the samples of its batch.
    """
    values = [{k: float(v) for k, v in m.items()} for m in jax.device_get(window)]
    bad = [i for i, m in enumerate(values) if not np.isfinite(list(m.values())).all()]
    if bad:
        index = len(sample_ids) - len(values) + bad[0]
        raise NonFiniteError(
            f"step {index + 1} of epoch {epoch + 1} has {values[bad[0]]}: samples "
            f"{sample_ids[index].tolist()}. Checkpoints saved so far are "
            "finite. Look at these samples, or lower --config.schedule.peak in another "
            "--workdir"
        )
    return values


if __name__ == "__main__":
    sys.exit(main())
