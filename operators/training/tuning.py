"""Choices that change how long a training step takes and not its result, measured.

Two of them: micro-batches (the fields of a few samples fit the cache of a CPU, those of
a batch do not) and the transform of spectral layers that leave it open ("auto"). They
are measured on the step itself when a run starts, where that costs little against the
run, and kept in `tuning.json` of the workdir, so that a resumed run takes the same
bits and `operators.load` the same transform.
"""

import dataclasses
import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import jax
from flax import nnx

from operators import models
from operators.training import state, workdir
from operators.training.timing import spell_duration

MICRO_BATCHES = (1, 2, 4)
TRANSFORMS = ("auto", "dft", "fft")
MIN_SECONDS = 60  # runs shorter than this are not worth measuring
MAX_SHARE = 0.1  # of the run's time that the measuring may cost
MIN_GAIN = 1.05  # below this a difference is noise
NUM_STEPS = 3  # timed per choice, in turn with those of the best so far
FILE = "tuning.json"


@dataclasses.dataclass(frozen=True)
class Choice:
    """How a step is computed.

    Attributes:
        micro_batch: samples per device that are computed together; 0: all.
        transform: of the spectral layers whose transform is "auto": "auto" (their own
            rule), "dft" or "fft".
    """

    micro_batch: int = 0
    transform: str = "auto"

    def describe(self) -> str:
        """The choice for people."""
        samples = "sample" if self.micro_batch == 1 else "samples"
        parts = f"micro-batches of {self.micro_batch} {samples}"
        transform = f", transform {self.transform}" if self.transform != "auto" else ""
        return (parts if self.micro_batch else "whole batches") + transform


@dataclasses.dataclass(frozen=True)
class Tuning:
    """A choice and what it rests on.

    Attributes:
        choice: the one to take.
        rows: the measured ones, dicts of `micro_batch`, `transform`, `seconds` (per
            step) and `seconds_best` (of the best so far, taken in turn with it); the
            last one is the choice beside the first form; empty where nothing was
            measured.
    """

    choice: Choice
    rows: tuple[dict, ...] = ()

    def describe(self) -> str:
        """One line for the start of a run."""
        if not self.rows:
            return f"step: {self.choice.describe()}"
        faster, last = "", self.rows[-1]
        first = Choice(self.rows[0]["micro_batch"], self.rows[0]["transform"])
        if self.choice != first:
            gain = last["seconds_best"] / last["seconds"]
            faster = f"{gain:.1f} x as fast as {first.describe()}, "
        return f"step: {self.choice.describe()} ({faster}measured, see {FILE})"


def seconds_of(choice: Choice, rows: Iterable[Mapping]) -> float:
    """Seconds per step of a measured choice: the smallest in any of the rows."""
    key = dataclasses.asdict(choice)
    return min(r["seconds"] for r in rows if {k: r[k] for k in key} == key)


def apply(graph: nnx.GraphDef, current: state.TrainState, transform: str):
    """The graph with another transform in the spectral layers that leave it open."""
    model = nnx.merge(graph, current.params, current.variables)
    set_transform(model, transform)
    return nnx.graphdef(model)


def set_transform(model: nnx.Module, transform: str) -> None:
    """Sets the transform of the layers of a model in which it is "auto"."""
    for _, layer in nnx.iter_modules(model):
        if getattr(layer, "transform", None) == "auto":
            layer.transform = transform


def check(micro_batch: int, samples: int, current: state.TrainState) -> None:
    """Checks the micro-batch that a config asks for.

    Args:
        micro_batch: samples per device that are computed together; 0: to be measured.
        samples: per device and batch.
        current: state of the model.

    Raises:
        ValueError: if it does not divide the batch, or for batch statistics.
    """
    if micro_batch < 0 or (micro_batch and samples % micro_batch):
        raise ValueError(
            f"config.micro_batch is {micro_batch}, which does not divide the {samples} "
            "samples per device of a batch: set a divisor, or 0 to have it measured"
        )
    if micro_batch and state.learns_variables(current):
        raise ValueError(
            f"config.micro_batch is {micro_batch}, but the model has batch statistics, "
            "which need the whole batch: set --config.micro_batch=0"
        )


def alternatives(
    graph: nnx.GraphDef, current: state.TrainState, first: Choice, x, samples: int
) -> list[Choice]:
    """Other ways to compute the step that are worth measuring, each changing one thing.

    On accelerators a whole batch is the fastest; parts of it only save memory.

    Args:
        graph: structure of the model.
        current: its state.
        first: the choice to start from.
        x: ShapeDtypeStruct of an input.
        samples: per device and batch.
    """
    choices = []
    if (
        not first.micro_batch
        and jax.default_backend() == "cpu"
        and not state.learns_variables(current)
        and loops_well(graph, current, x)
    ):
        sizes = (m for m in MICRO_BATCHES if m < samples and samples % m == 0)
        choices += [dataclasses.replace(first, micro_batch=m) for m in sizes]
    if first.transform == "auto":
        programs = {_forward(graph, current, x)}
        for transform in ("dft", "fft"):
            program = _forward(apply(graph, current, transform), current, x)
            if program not in programs:
                programs.add(program)
                choices.append(dataclasses.replace(first, transform=transform))
    return choices


def _forward(graph: nnx.GraphDef, current: state.TrainState, x) -> str:
    """The program of the model, spelled out."""

    def forward(params, variables, x):
        model = nnx.merge(graph, params, variables, copy=True)
        model.eval()
        return model(x)

    return str(jax.make_jaxpr(forward)(current.params, current.variables, x))


def loops_well(graph: nnx.GraphDef, current: state.TrainState, x) -> bool:
    """Whether the gradient of a model is as fast inside a loop on a CPU as outside.

    XLA computes the gradient of a convolution with respect to its kernel there 30 times
    slower, unless a layer has its own rule (`operators.layers.correlation`).
    """

    def total(params, variables, x):
        return nnx.merge(graph, params, variables)(x).sum()

    with models.inside_loops():
        program = jax.make_jaxpr(jax.grad(total))(current.params, current.variables, x)
    return not any(_is_kernel_gradient(e) for e in _equations(program.jaxpr))


def _is_kernel_gradient(equation) -> bool:
    """Whether this is XLA's convolution that sums over the batch."""
    if equation.primitive.name != "conv_general_dilated":
        return False
    return equation.params["dimension_numbers"].lhs_spec[0] != 0


def _equations(program):
    """All equations of a program and of the programs inside it."""
    for equation in program.eqns:
        yield equation
        for value in jax.tree.leaves(tuple(equation.params.values())):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _equations(inner)


def measure(
    build: Callable,
    first: Choice,
    others: Callable,
    current: state.TrainState,
    arguments: tuple,
    num_steps: int,
) -> tuple[Tuning, float]:
    """Times the step, and others that compute the same if the run is long enough.

    Each is timed in turn with the best so far, since a shared machine is not the same
    from one minute to the next. Micro-batches grow until they become slower.

    Args:
        build: choice -> step function.
        first: the choice to start from.
        others: () -> list of choices, see `alternatives`; called for long runs only.
        current: a state to use up.
        arguments: the other arguments of a step.
        num_steps: of the whole run.

    Returns:
        The tuning, and the seconds per step of its choice.
    """
    race = _Race(build, current, arguments)
    race.enter(first)
    seconds = race.compare([first])[first]
    total = num_steps * seconds
    choices = others() if total > MIN_SECONDS else []
    cost = len(choices) * (race.seconds_to_compile + 2 * NUM_STEPS * seconds)
    if not choices or cost > MAX_SHARE * total:
        return Tuning(first), seconds
    duration = spell_duration(cost)
    print(f"measuring {len(choices)} forms of the step: about {duration}", flush=True)
    best, rows = first, [{**dataclasses.asdict(first), "seconds": seconds}]
    settled = set()  # settings whose best value is known
    for choice in choices:
        (changed,) = (k for k, v in vars(choice).items() if v != vars(first)[k])
        if changed in settled:
            continue
        choice = dataclasses.replace(best, **{changed: vars(choice)[changed]})
        race.enter(choice)
        times = race.compare([best, choice])
        row = {"seconds": times[choice], "seconds_best": times[best]}
        rows.append({**dataclasses.asdict(choice), **row})
        if times[best] > MIN_GAIN * times[choice]:
            best = choice
        elif vars(best)[changed] != vars(first)[changed]:
            settled.add(changed)
    if best != first:  # once more beside the first: the machine may have changed since
        times = race.compare([first, best])
        row = {"seconds": times[best], "seconds_best": times[first]}
        rows.append({**dataclasses.asdict(best), **row})
        if times[first] <= MIN_GAIN * times[best]:
            best = first
    return Tuning(best, tuple(rows)), seconds_of(best, rows)


class _Race:
    """Compiled steps that advance one state in turn, and how long each takes."""

    def __init__(self, build: Callable, current: state.TrainState, arguments: tuple):
        self._build, self._state, self._arguments = build, current, arguments
        self._steps = {}
        self.seconds_to_compile = 0.0

    def enter(self, choice: Choice) -> None:
        """Compiles the step of a choice."""
        self._steps[choice] = self._build(choice)
        self.seconds_to_compile = self._time(choice)

    def compare(self, choices: list[Choice]) -> dict[Choice, float]:
        """Smallest of `NUM_STEPS` times of each, in turn."""
        turns = [{c: self._time(c) for c in choices} for _ in range(NUM_STEPS)]
        return {c: min(turn[c] for turn in turns) for c in choices}

    def _time(self, choice: Choice) -> float:
        start = time.perf_counter()
        done = self._steps[choice](self._state, *self._arguments)
        self._state, _ = jax.block_until_ready(done)
        return time.perf_counter() - start


def save(folder: Path, tuning: Tuning, num_devices: int) -> None:
    """Adds the choice for this kind of device to `tuning.json`."""
    try:
        content = _read(folder)
    except ValueError:
        content = {}  # damaged, as `load` said
    content[_device()] = {
        "num_devices": num_devices,
        **dataclasses.asdict(tuning.choice),
        "measured": tuning.rows,
    }
    workdir.write_json(folder / FILE, content)


def load(folder: Path, num_devices: int | None = None) -> Tuning | None:
    """The tuning of a run for this kind of device, if there is one.

    A damaged one is as good as none: a warning names the file.

    Args:
        folder: workdir.
        num_devices: that share the batch now; None: no matter.
    """
    try:
        entry = _read(folder).get(_device())
        tuned, num = (None, None) if entry is None else _parse(entry)
    except ValueError as error:
        _warn_of_damage(folder, error)
        return None
    return tuned if num_devices in (None, num) else None


def resume(
    folder: Path,
    num_devices: int,
    micro_batch: int,
    samples: int,
    current: state.TrainState,
) -> Tuning | None:
    """The tuning to go on with, if there is one that fits.

    Args:
        folder: workdir.
        num_devices: that share the batch now.
        micro_batch: `config.micro_batch`; unless 0, it wins over the stored one.
        samples: per device and batch.
        current: state of the model.
    """
    tuned = load(folder, num_devices)
    if tuned is None:
        return None
    if micro_batch not in (0, tuned.choice.micro_batch):
        return Tuning(dataclasses.replace(tuned.choice, micro_batch=micro_batch))
    try:
        check(tuned.choice.micro_batch, samples, current)
    except ValueError as error:
        _warn_of_damage(folder, error)
        return None
    return tuned


def _warn_of_damage(folder: Path, error: ValueError) -> None:
    logging.warning("%s is damaged and left aside: %s", folder / FILE, error)


def _read(folder: Path) -> dict:
    """Content of `tuning.json`; raises a ValueError for what is not a JSON object."""
    path = folder / FILE
    content = json.loads(path.read_text()) if path.exists() else {}
    if not isinstance(content, dict):
        raise ValueError("it holds no JSON object")
    return content


def _parse(entry) -> tuple[Tuning, int]:
    """An entry's tuning and number of devices; raises a ValueError for any other."""
    try:
        micro_batch, transform = entry["micro_batch"], entry["transform"]
        num_devices = entry["num_devices"]
        tuned = Tuning(Choice(micro_batch, transform), tuple(entry["measured"]))
        tuned.describe()  # fails where the rows lack the choice or its seconds
    except (LookupError, TypeError, ValueError, ArithmeticError) as error:
        raise ValueError(f"an entry is not as written ({error!r})") from error
    counts = ((micro_batch, 0), (num_devices, 1))
    if any(type(count) is not int or count < least for count, least in counts):
        raise ValueError(
            f"micro_batch is {micro_batch!r} and num_devices {num_devices!r}; expected "
            "an integer from 0 and one from 1"
        )
    if transform not in TRANSFORMS:
        raise ValueError(f"transform is {transform!r}; known: {TRANSFORMS}")
    return tuned, num_devices


def _device() -> str:
    """Kind of the devices: a choice for one is none for another."""
    return jax.devices()[0].device_kind
