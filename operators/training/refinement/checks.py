"""What a refinement needs of its config, its model and its data, before any work."""

import json
import warnings
from collections.abc import Callable, Mapping

import numpy as np

from operators.training import data, workdir
from operators.training.refinement import cases, minimizers, residuals, widening

SECTIONS = (
    "checkpoint",
    "data",
    "grid",
    "time_modes",
    "residual",
    "minimizers",
    "settings",
    "stop",
    "batch_size",
)
LINEARIZED = "linearized_flow"
FLOW = ("lengths", "viscosity", "drag", "forcing")  # what a model learned of a flow


def experiment(config: Mapping) -> None:
    """Checks the settings alone.

    Raises:
        ValueError: for a config of something else, or a setting out of range.
    """
    if missing := [key for key in SECTIONS if key not in config]:
        raise ValueError(
            f"the config has no section {missing[0]!r}, so it is no refinement: give "
            "one of configs/refine_*.py"
        )
    names, known = config["minimizers"], tuple(minimizers.MINIMIZERS)
    if isinstance(names, str) or not names or set(names) - set(known):
        raise ValueError(
            f"config.minimizers is {names!r}, expected one or more of {known}, as in "
            "--config.minimizers=\"('gauss_newton',)\""
        )
    for key, section in (("batch_size", config), ("num_test", config["data"])):
        if section[key] < 1:
            raise ValueError(f"{key} must be at least 1, but is {section[key]}")
    if config["data"]["window_start"] < 0:
        raise ValueError(
            "config.data.window_start must be the number of a frame, 0 or more, but is "
            f"{config['data']['window_start']}"
        )
    if str(config["data"]["path"]).endswith(".npz"):
        raise ValueError(
            f"config.data.path is {config['data']['path']}, but the refiner needs to "
            "know the equation: give the folder of a data set of `datagen`"
        )
    kind = config["residual"]["kind"]
    if kind not in residuals.KINDS:
        raise ValueError(
            f"config.residual.kind is {kind!r}; known: {sorted(residuals.KINDS)}"
        )
    if not chosen(config):
        raise ValueError(
            f"minimizer linearized_flow needs the residual defect, but "
            f"config.residual.kind is {kind!r}: choose another minimizer"
        )


def chosen(config: Mapping) -> list[str]:
    """Minimisers that fit the residual: `linearized_flow` needs the defect."""
    defect = config["residual"]["kind"] == "defect"
    return [name for name in config["minimizers"] if defect or name != LINEARIZED]


def model(operator, config: Mapping) -> None:
    """Checks that a trained model can be refined as the config says.

    Builds the residual and all minimisers, without any data.

    Raises:
        ValueError: if it cannot.
    """
    widening.check_model(operator.model)
    used = operator.config["normalizers"]
    if any(name != "none" for name in used.values()):
        raise ValueError(
            f"the run has normalizers {dict(used)}, but the refiner takes physical "
            "fields only: train with --config.normalizers.input=none "
            "--config.normalizers.output=none"
        )
    waves, output = config["time_modes"], operator.model.output
    least, most = output.modes[2], output.latent_steps + 1
    if waves and not least <= waves <= most:
        raise ValueError(
            f"config.time_modes is {waves}, but the model has {least} waves in time, "
            f"and {most - 1} latent frames: give 0 or {least} to {most}"
        )
    num_in, num_out = operator.config["data"]["window"]
    residual = create_residual(config, None, np.arange(float(num_in + num_out)), num_in)
    for name in chosen(config):
        create_minimizer(config, name, residual, space=None)


def create_residual(config: Mapping, equation, times: np.ndarray, num_in: int):
    """The residual of the config; "fd" reads the given frames too."""
    kind = config["residual"]["kind"]
    settings = dict(config["residual"][kind])
    if kind == "fd" and num_in > 1:
        settings["history_times"] = tuple(times[: num_in - 1])
    return residuals.create(kind, equation, times[num_in - 1 :], **settings)


def create_minimizer(config: Mapping, name: str, residual, **parts):
    """The minimiser of this name and its stop rule; see `minimizers.create`."""
    settings = dict(config["settings"][name])
    stop = minimizers.StopRule(settings.pop("maxiter"), **config["stop"])
    return minimizers.create(name, residual, **parts, **settings), stop


def flows(trained: Mapping, settings: Mapping, load: Callable) -> None:
    """Compares the flow to refine with that of the training; reads no frames.

    Args:
        trained: `config.data` of the run.
        settings: `config.data` of the refinement.
        load: reads a data config by name, `configs.loading.load`.

    Raises:
        ValueError: for another problem, frames that are not as far apart as those of
            the training, or a window that ends after the last frame.
    """
    found = flow(settings, load)
    needed = cases.NEEDED | {"frame_spacing", "num_frames"}
    if missing := needed - set(found):
        raise ValueError(
            "refinement needs trajectories of the problem navier_stokes, but the data "
            f"set has no {sorted(missing)}"
        )
    start, length = settings["window_start"], sum(trained["window"])
    if start + length > found["num_frames"]:
        raise ValueError(
            f"config.data.window_start is {start}, but there are {found['num_frames']} "
            f"frames, and {length} are needed: give at most "
            f"{found['num_frames'] - length}"
        )
    try:
        expected = flow(trained, load)
    except (ValueError, OSError) as error:
        warnings.warn(
            f"the flow of the training is not known ({error}): make sure that it is "
            "the one that is refined, with frames as far apart",
            stacklevel=2,
        )
        return
    spacings = [float(flow["frame_spacing"]) for flow in (found, expected)]
    if not np.isclose(*spacings, rtol=1e-6):
        raise ValueError(
            f"the frames are {spacings[0]:g} apart, but the model was trained on "
            f"frames {spacings[1]:g} apart: choose another config.data"
        )
    for key in FLOW:
        if key in expected and found[key] != expected[key]:
            warnings.warn(
                f"the model was trained on a flow of {key} {expected[key]}, but that "
                f"of config.data has {found[key]}",
                stacklevel=2,
            )


def flow(settings: Mapping, load: Callable) -> dict:
    """Settings of the problem of `config.data`, from the data set or its data config.

    Raises:
        ValueError: where neither is there.
    """
    plan = data.dataset_folder(settings) / "plan.json"
    if plan.exists():
        return json.loads(plan.read_text())["settings"]
    if not settings["config"]:
        raise ValueError(f"{plan} does not exist")
    return workdir.plain_config(load(settings["config"]).problem)
