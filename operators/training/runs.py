"""Finished and unfinished runs, opened for use: `operators.load(workdir)`."""

import contextlib
import dataclasses
import inspect
import json
import warnings
from collections.abc import Iterator, Mapping
from operator import index
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from operators import models
from operators.training import (
    checkpoints,
    data,
    normalizers,
    optimizers,
    sharding,
    state,
    tuning,
)
from operators.training.workdir import read_metrics


class UnfinishedWarning(UserWarning):
    """The training of a run that was loaded has not finished."""


@contextlib.contextmanager
def plain_warnings() -> Iterator[None]:
    """Shows that a run is unfinished as one plain line, without a line of source."""
    with warnings.catch_warnings():
        show_other = warnings.showwarning

        def show(message, category, *where):
            if issubclass(category, UnfinishedWarning):
                print(f"warning: {message}", flush=True)
            else:
                show_other(message, category, *where)

        warnings.simplefilter("always", UnfinishedWarning)
        warnings.showwarning = show
        yield


@dataclasses.dataclass(repr=False)
class Operator:
    """A trained model with its normalisers: physical fields in, physical fields out.

    Attributes:
        config: the run's config as a plain dict.
        workdir: where it was loaded from.
        step: optimiser step of the checkpoint.
        info: what was recorded with the checkpoint (validation error, hashes).
        model: the flax module, in evaluation mode and dtype.
        input: normaliser of the inputs.
        output: normaliser of the outputs.
    """

    config: dict
    workdir: Path
    step: int
    info: dict
    model: nnx.Module
    input: normalizers.Normalizer
    output: normalizers.Normalizer

    def __post_init__(self):
        self.model.eval()  # batch norms use their running averages
        graph, *self._variables = nnx.split(self.model, nnx.Param, ...)

        def predict(variables, z, options):
            return nnx.merge(graph, *variables)(z, **dict(options))

        self._predict = jax.jit(predict, static_argnums=2)

    def __repr__(self) -> str:
        """Model, size, grid where it is known, channels, step and folder."""
        model, grid = self.config["model"], self.input.mean.shape[1:-1]
        if max(grid) == 1:  # one number per channel tells no grid
            grid = model.get("grid") or ()
        parts = [
            model["name"],
            f"{self.num_parameters:,} parameters",
            " x ".join(map(str, grid)),
            f"{model['in_channels']} -> {model['out_channels']} channels",
            f"step {self.step}",
            str(self.workdir),
        ]
        return ", ".join(filter(None, parts))

    @property
    def num_parameters(self) -> int:
        """Real parameters of the model."""
        return sum(leaf.size for leaf in jax.tree.leaves(self._variables[0]))

    def __call__(self, x: np.ndarray, *, batch_size: int = 16, **options) -> np.ndarray:
        """Applies the operator.

        Args:
            x: [num, *grid, in_channels] inputs in physical units, on the training
                grid or on any other that the model accepts; pointwise normalisers are
                interpolated to it. At the nodes of a mesh: [num, nodes, in_channels],
                coordinates first.
            batch_size: samples per forward pass.
            **options: further arguments of the model: `out_steps=80` or `times=(0.5,
            1.0)` frames after the last given one, for a model that takes them.

        Returns:
            [num, *grid, out_channels] float32; a model of trajectories chooses the
            points along time, the last axis of its grid.

        Raises:
            ValueError: if x has the wrong rank, or the model does not take its grid or
                an option; or for options with an output normaliser that knows the
                frames of training only.
        """
        x = np.asarray(x, np.float32)
        channels = self.config["model"]["in_channels"]
        num_axes = self.input.mean.ndim - 2
        if x.ndim != num_axes + 2 or x.shape[-1] != channels or not len(x):
            axes = ", ".join(f"n{i + 1}" for i in range(num_axes))
            forgotten = x.ndim == num_axes + 1 and channels == 1
            raise ValueError(
                f"x must be [num, {axes}, in_channels] with in_channels = {channels}, "
                f"but has shape {x.shape}"
                + ": add the last axis, x[..., None]"
                * forgotten
            )
        grid = x.shape[1:-1]
        encode = self.input.resample(grid)
        options = self._checked(options)
        parts = []
        for start in range(0, len(x), batch_size):
            batch = encode.encode(x[start : start + batch_size])
            # A short last batch is filled up, so that one compiled program serves all.
            missing = batch_size - len(batch) if len(x) > batch_size else 0
            filled = np.concatenate([batch, np.repeat(batch[:1], missing, axis=0)])
            y = self._predict(self._variables, jnp.asarray(filled), options)
            decode = self.output.resample(y.shape[1:-1])
            parts.append(np.asarray(decode.decode(y))[: len(batch)])
        return np.concatenate(parts)

    def _checked(self, options: Mapping) -> tuple[tuple[str, int | tuple], ...]:
        """Options of the model as pairs that can be hashed, without those of None.

        Raises:
            ValueError: for options that the model or the normaliser does not take.
        """
        options = {key: value for key, value in options.items() if value is not None}
        _, *known = inspect.signature(self.model.__call__).parameters
        name = self.config["model"]["name"]
        if unknown := [key for key in options if key not in known]:
            raise ValueError(
                f"model {name} takes no option {unknown[0]!r}; known: "
                f"{', '.join(known) or 'none'}"
            )
        if options and not self.output.everywhere:
            raise ValueError(
                f"{', '.join(options)} cannot be given: the output normaliser of "
                f"{self.workdir} holds statistics of each frame of training; leave it "
                "out, or train with --config.normalizers.output=scalar"
            )
        return tuple((key, _hashable(key, value)) for key, value in options.items())


def load(workdir: str | Path, *, checkpoint: str = "best") -> Operator:
    """Opens a run for inference; warns where its training has not finished.

    Args:
        workdir: folder that `train.py` wrote.
        checkpoint: "best" (lowest validation error) or "latest".

    Raises:
        ValueError: if the folder holds no run, or no whole checkpoint.
    """
    workdir = Path(workdir)
    if checkpoint not in ("best", "latest"):
        raise ValueError(f"checkpoint is {checkpoint!r}; known: 'best', 'latest'")
    if not (workdir / "config.json").exists():
        raise ValueError(
            f"{workdir} holds no run (no config.json): give the --workdir of train.py"
        )
    config = json.loads((workdir / "config.json").read_text())
    folder = workdir / "checkpoints" / checkpoint
    if not folder.exists():
        raise ValueError(f"{workdir} has no {checkpoint} checkpoint yet: train it on")
    model = models.create(rngs=nnx.Rngs(0), **_keywords(config["model"]))
    # Its schedule is for training; the arrays of the state are the same for all.
    schedule = {"name": "constant", "per": "step", "peak": 1.0}
    optimizer = optimizers.create(config["optimizer"], schedule, 1, 1)
    mesh = sharding.data_mesh(1, 1)
    graph, template = state.create_state(model, optimizer, mesh)
    restored = checkpoints.Checkpoints(folder, read_only=True).restore(template)
    if restored is None:
        raise ValueError(f"{workdir} has no {checkpoint} checkpoint yet: train it on")
    train_state, info = restored
    model = nnx.merge(graph, train_state.params, train_state.variables)
    if tuned := tuning.load(workdir):
        tuning.set_transform(model, tuned.choice.transform)
    fitted = normalizers.load(workdir / "normalizers.npz")
    _warn_unfinished(workdir, config["num_epochs"])
    return Operator(
        config=config,
        workdir=workdir,
        step=int(train_state.step),
        info=info,
        model=model,
        **fitted,
    )


def _hashable(name: str, value) -> int | tuple[float, ...]:
    """A whole number or a line of numbers, as an int or a tuple."""
    try:
        if np.ndim(value):
            return tuple(map(float, value))
        if not isinstance(value, bool):
            return index(value)
    except (TypeError, ValueError):
        pass
    raise ValueError(
        f"{name} is {value!r}; expected a whole number, or a line of numbers such as "
        "(0.5, 1.0)"
    )


def _warn_unfinished(folder: Path, num_epochs: int) -> None:
    """Warns with the epoch in which the training of a run is or was left."""
    records = read_metrics(folder)
    if records and records[-1]["epoch"] < num_epochs:
        warnings.warn(
            f"epoch {records[-1]['epoch']} of {num_epochs}: training of {folder} has "
            "not finished",
            UnfinishedWarning,
            stacklevel=4,  # the caller of `operators.load`
        )


def check_same_data(facts: dict, dataset, folder: Path) -> None:
    """Raises a ValueError where the checkpoint was trained on other data."""
    if facts["data_manifest_sha256"] != dataset.manifest_sha256:
        raise ValueError(
            f"{folder} was trained on other data than {dataset.root} holds now: give "
            "another --workdir, or put the former data back"
        )


def other_samples(
    operator: Operator, dataset, settings: Mapping, *, any_stride: bool = False
) -> str:
    """Why the errors of a run do not compare with those of another on its samples.

    Args:
        operator: the run.
        dataset: open data set of the other run.
        settings: `config.data` of the other run.
        any_stride: whether the two may be trained on different points.

    Returns:
        A reason to follow the name of the run; "" where both read the same test samples
        and channels, and neither was trained on samples that the other is tested on.
    """
    if operator.info["data_manifest_sha256"] != dataset.manifest_sha256:
        return f"was trained on other data than {dataset.root} holds now"
    has, wanted = (
        {**data.tested_on(dataset, s), "stride": any_stride or s["stride"]}
        for s in (operator.config["data"], settings)
    )
    changes = [f"{k} {has[k]}, not {wanted[k]}" for k in has if has[k] != wanted[k]]
    return f"has other samples: config.data.{'; '.join(changes)}" if changes else ""


def find_baseline(config, dataset) -> str | None:
    """The baseline's workdir, where there is a run of it on the same samples.

    Whatever is the matter with the baseline, the run that asks for it is not to fail:
    the reason is printed.
    """
    name = config.eval.baseline
    if not name:
        return None
    try:
        with warnings.catch_warnings():  # who opens it next warns
            warnings.simplefilter("ignore", UnfinishedWarning)
            reason = other_samples(load(name), dataset, config.data)
    except Exception as error:
        # Files of another program or version fail in ways of their own.
        text = " ".join(str(error).split()) or type(error).__name__
        reason = f"cannot be opened ({text})"
    if reason:
        print(f"no baseline in the figures: {name} {reason}")
    return None if reason else name


def _keywords(settings: dict) -> dict:
    """Model keywords from JSON: lists become the tuples that configs hold."""

    def freeze(value):
        return tuple(map(freeze, value)) if isinstance(value, list) else value

    return {key: freeze(value) for key, value in settings.items()}
