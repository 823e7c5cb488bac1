"""Finished and unfinished runs, opened for use: `operators.load(workdir)`."""

import dataclasses
import json
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from operators import models
from operators.training import (
    checkpoints,
    normalizers,
    optimizers,
    sharding,
    state,
    tuning,
)


@dataclasses.dataclass
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
        self._predict = jax.jit(lambda variables, z: nnx.merge(graph, *variables)(z))

    @property
    def num_parameters(self) -> int:
        """Real parameters of the model."""
        return sum(leaf.size for leaf in jax.tree.leaves(self._variables[0]))

    def __call__(self, x: np.ndarray, *, batch_size: int = 16) -> np.ndarray:
        """Applies the operator.

        Args:
            x: [num, *grid, in_channels] inputs in physical units, on the training
                grid or on any other that the model accepts; pointwise normalisers are
                interpolated to it. At the nodes of a mesh: [num, nodes, in_channels],
                coordinates first.
            batch_size: samples per forward pass.

        Returns:
            [num, *grid, out_channels] float32.

        Raises:
            ValueError: if x has the wrong rank, or the model does not take its grid.
        """
        x = np.asarray(x, np.float32)
        channels = self.config["model"]["in_channels"]
        num_axes = self.input.mean.ndim - 2
        if x.ndim != num_axes + 2 or x.shape[-1] != channels or not len(x):
            axes = ", ".join(f"n{i + 1}" for i in range(num_axes))
            raise ValueError(
                f"x must be [num, {axes}, in_channels] with in_channels = {channels}, "
                f"but has shape {x.shape}"
            )
        grid = x.shape[1:-1]
        encode, decode = (n.resample(grid) for n in (self.input, self.output))
        parts = []
        for start in range(0, len(x), batch_size):
            batch = encode.encode(x[start : start + batch_size])
            # A short last batch is filled up, so that one compiled program serves all.
            missing = batch_size - len(batch) if len(x) > batch_size else 0
            filled = np.concatenate([batch, np.repeat(batch[:1], missing, axis=0)])
            y = self._predict(self._variables, jnp.asarray(filled))
            parts.append(np.asarray(decode.decode(y))[: len(batch)])
        return np.concatenate(parts)


def load(workdir: str | Path, *, checkpoint: str = "best") -> Operator:
    """Opens a run for inference.

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
    optimizer = optimizers.create(config["optimizer"], config["schedule"], 1, 1)
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
    return Operator(
        config=config,
        workdir=workdir,
        step=int(train_state.step),
        info=info,
        model=model,
        **fitted,
    )


def check_same_data(facts: dict, dataset, folder: Path) -> None:
    """Raises a ValueError where the checkpoint was trained on other data."""
    if facts["data_manifest_sha256"] != dataset.manifest_sha256:
        raise ValueError(
            f"{folder} was trained on other data than {dataset.root} holds now: give "
            "another --workdir, or put the former data back"
        )


def find_baseline(config, dataset) -> str | None:
    """The baseline's workdir, where there is a run of it on the same data."""
    name = config.eval.baseline
    if not name:
        return None
    try:
        other = load(name)
    except (ValueError, OSError, zipfile.BadZipFile):
        print(f"no baseline in the figures: there is no finished run in {name}")
        return None
    same = other.info["data_manifest_sha256"] == dataset.manifest_sha256
    same &= other.config["data"]["stride"] == config.data.stride
    if not same:
        print(f"no baseline in the figures: {name} was trained on other data")
    return name if same else None


def _keywords(settings: dict) -> dict:
    """Model keywords from JSON: lists become the tuples that configs hold."""

    def freeze(value):
        return tuple(map(freeze, value)) if isinstance(value, list) else value

    return {key: freeze(value) for key, value in settings.items()}
