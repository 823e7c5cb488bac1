"""What `config.data` asks of a data set: points, fields, steps, channels of x and y."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from operators.training import windows
from operators.training.windows import Window

MAX_AXES = 3  # of models, losses and pictures
# Keys that `config.data` of earlier versions does not have, and what they mean there.
FORMER = {
    "steps": (),
    "input_steps": (),
    "time_axis": False,
    "window": (),
    "window_start": -1,
    "window_fixed": False,
    "window_layout": "time_axis",
}


@dataclasses.dataclass(frozen=True)
class Layout:
    """Points and channels of the samples, known before there are any.

    Attributes:
        axes: names of the axes, in array order; ("node",) on a mesh.
        coordinates: one float64 array [n] per axis, after the stride; those of y, where
            x has other times.
        num_coordinates: channels of x that are coordinates of points, 0 on grids.
        inputs: a name for each other channel of x.
        outputs: a name for each channel of y.
        window: of trajectories; None: the samples are read as they are.
    """

    axes: tuple[str, ...]
    coordinates: tuple[np.ndarray, ...]
    num_coordinates: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    window: Window | None = None

    @property
    def grid(self) -> tuple[int, ...]:
        """Points per axis of y, and of x where nothing else is said."""
        return tuple(len(c) for c in self.coordinates)

    @property
    def input_grid(self) -> tuple[int, ...]:
        """Points per axis of x, whose times may be fewer or more than those of y."""
        if self.window is None or self.window.layout != "time_axis":
            return self.grid
        return (*self.grid[:-1], self.window.num_in)

    @property
    def has_time(self) -> bool:
        """Whether the last axis is time."""
        return self.axes[-1] == "time"

    @property
    def space(self) -> tuple[int, ...]:
        """Points per axis without that of time."""
        return self.grid[:-1] if self.has_time else self.grid

    @property
    def num_starts(self) -> int:
        """Frames at which windows of training start; 0 where there is no choice."""
        if self.window is None or self.window.fixed:
            return 0
        return self.window.num_starts

    @property
    def on_nodes(self) -> bool:
        """Whether the values lie at points that form no grid."""
        return self.axes == ("node",)

    @property
    def spacing(self) -> tuple | None:
        """Distance of neighbouring points per axis; None at nodes."""
        return None if self.on_nodes else spacing(self.coordinates)

    @property
    def in_channels(self) -> int:
        """Channels of x."""
        return self.num_coordinates + len(self.inputs)

    @property
    def out_channels(self) -> int:
        """Channels of y."""
        return len(self.outputs)

    def spell_grid(self) -> str:
        """The grid for people: "33 x 33", "477 nodes"."""
        text = " x ".join(map(str, self.grid))
        return f"{text} nodes" if self.on_nodes else text


def spacing(coordinates: Sequence[np.ndarray]) -> tuple:
    """Distance of neighbouring points per axis, from coordinates [n] per axis.

    Returns:
        Per axis a number, or [n - 1] numbers where the points are not equidistant.
    """

    def distance(c):
        if len(c) == 1:  # a single time: no differences, whatever they are divided by
            return 1.0
        steps = np.diff(c)
        even = np.allclose(steps, steps[0], rtol=1e-4, atol=0)
        return float(c[1] - c[0]) if even else steps

    return tuple(distance(np.asarray(c)) for c in coordinates)


@dataclasses.dataclass(frozen=True)
class Facts:
    """What is known of a data set, from its manifest, its config or its arrays.

    Attributes:
        name: of the data set.
        coordinates: axis -> [n].
        num_dims: coordinates of a point on a mesh; unused on grids.
        fields: dicts of `name` and `time_varying`.
        defaults: names of the fields that are input and output unless others are named.
        steps: [T] times or frequencies of the time-varying fields.
        step_name: what the steps are.
    """

    name: str
    coordinates: Mapping[str, np.ndarray]
    num_dims: int
    fields: Sequence[Mapping[str, Any]]
    defaults: tuple[tuple[str, ...], tuple[str, ...]]
    steps: Sequence[float]
    step_name: str


@dataclasses.dataclass(frozen=True)
class Request:
    """Fields and steps to read from a data set.

    Attributes:
        inputs: names of the fields of x.
        outputs: names of the fields of y.
        inputs_at: steps of the inputs that vary, counted from 0.
        outputs_at: those of the outputs.
        time_axis: whether the steps are an axis of the grid instead of channels.
        varying: names of the fields that have steps.
        window: of trajectories, whose frames in validation and test are the steps
            here; None without one.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    inputs_at: tuple[int, ...]
    outputs_at: tuple[int, ...]
    time_axis: bool
    varying: frozenset[str]
    window: Window | None = None

    @property
    def frame_fields(self) -> tuple[str, ...]:
        """Names of the fields of a frame: those of x and y, each once."""
        return tuple(dict.fromkeys((*self.inputs, *self.outputs)))

    def channels(self, names: tuple[str, ...], at: tuple[int, ...]) -> tuple[str, ...]:
        """A name for each channel that these fields make."""
        if self.time_axis or len(at) == 1:
            return names
        parts = [[f"{n}[{i}]" for i in at] if n in self.varying else [n] for n in names]
        return tuple(name for part in parts for name in part)

    def on_time_axis(
        self, values: np.ndarray, names: tuple[str, ...], num: int
    ) -> np.ndarray:
        """Turns steps that lie side by side as channels into the last axis of the grid.

        Args:
            values: [N, *grid, channels] as read, the steps of a field side by side;
                fields without steps are the same at all times.
            names: the fields, in this order.
            num: steps.

        Returns:
            [N, *grid, num, len(names)].
        """
        parts, start = [], 0
        for name in names:
            width = num if name in self.varying else 1
            part = values[..., start : start + width]
            parts.append(np.broadcast_to(part, (*values.shape[:-1], num)))
            start += width
        return np.stack(parts, axis=-1)


def request(facts: Facts, settings: Mapping) -> Request:
    """Turns `config.data` into fields and steps.

    Raises:
        ValueError: for fields or steps that do not exist, or a choice that is missing.
    """
    settings = {**FORMER, **settings}
    known = [field["name"] for field in facts.fields]
    varying = frozenset(f["name"] for f in facts.fields if f["time_varying"])
    chosen, defaults = [], facts.defaults
    if settings["window"]:  # earlier frames of what is predicted
        moving = tuple(name for name in known if name in varying)
        defaults = (tuple(settings["outputs"]) or moving, moving)
    for key, default in zip(("inputs", "outputs"), defaults, strict=True):
        names = tuple(settings[key]) or default
        if unknown := [n for n in names if n not in known]:
            raise ValueError(
                f"config.data.{key} names {unknown[0]!r}, but {facts.name} has the "
                f"fields {known}: choose among them, or () for {default}"
            )
        chosen.append(names)
    if settings["window"]:
        return _windowed(facts, settings, *chosen, varying)
    outputs_at = _steps(facts, settings)
    inputs_at = tuple(settings["input_steps"]) or outputs_at
    num, time_axis = len(facts.steps), settings["time_axis"]
    for key, wanted in (("steps", outputs_at), ("input_steps", inputs_at)):
        if bad := [i for i in wanted if not -num <= i < num]:
            raise ValueError(
                f"config.data.{key} has {bad[0]}, but {facts.name} has {num} steps: 0 "
                f"to {num - 1}, or -1 to {-num} from the end"
            )
    if time_axis and (len(inputs_at) != len(outputs_at) or len(outputs_at) < 2):
        raise ValueError(
            f"config.data.time_axis needs the same number of input and output steps, "
            f"at least 2, but there are {len(inputs_at)} and {len(outputs_at)}"
        )
    inputs_at, outputs_at = (tuple(i % num for i in s) for s in (inputs_at, outputs_at))
    return Request(*chosen, inputs_at, outputs_at, time_axis, varying)


def _windowed(facts: Facts, settings: Mapping, inputs, outputs, varying) -> Request:
    """The request for windows of trajectories."""
    if list(facts.coordinates) == ["node"]:
        raise ValueError(
            f"{facts.name} lies on the nodes of a mesh, where there are no windows: "
            "leave config.data.window () and choose --config.data.steps"
        )
    if still := [name for name in outputs if name not in varying]:
        raise ValueError(
            f"config.data.outputs names {still[0]!r}, which does not vary in "
            f"{facts.name}, but windows predict frames: choose among {sorted(varying)}"
        )
    fields = tuple(dict.fromkeys((*inputs, *outputs)))
    window = windows.create(
        settings, fields, inputs, outputs, len(facts.steps), facts.name
    )
    at = tuple(window.given), tuple(window.predicted)
    return Request(inputs, outputs, *at, window.has_time_axis, varying, window)


def _steps(facts: Facts, settings: Mapping) -> tuple[int, ...]:
    """Steps of the outputs, as given; all of them on a time axis."""
    num = len(facts.steps)
    if settings["steps"]:
        return tuple(settings["steps"])
    if num > 1 and not settings["time_axis"]:
        raise ValueError(
            f"{facts.name} has {num} steps ({facts.step_name}): choose some as "
            "channels, for instance --config.data.steps='(-1,)' for the last, or all "
            "as an axis, --config.data.time_axis=True"
        )
    return tuple(range(num))


def layout(facts: Facts, settings: Mapping) -> Layout:
    """Points and channels of the data as `config.data` reads them.

    Raises:
        ValueError: where they cannot be read as asked for.
    """
    asked, stride = request(facts, settings), settings["stride"]
    if stride != 1 and list(facts.coordinates) == ["node"]:
        raise ValueError(
            f"config.data.stride is {stride}, but {facts.name} lies on the nodes of a "
            "mesh, of which none can be left out: set --config.data.stride=1"
        )
    points = {axis: np.asarray(c)[::stride] for axis, c in facts.coordinates.items()}
    if min(map(len, points.values())) < 2:
        raise ValueError(
            f"config.data.stride is {stride}, which leaves a single point of an axis"
        )
    on_nodes = list(points) == ["node"]
    if asked.time_axis:
        if on_nodes or len(points) == MAX_AXES:
            advice = (
                "leave --config.data.time_axis=False and choose --config.data.steps"
            )
            if asked.window:
                advice = "set --config.data.window_layout=channels"
            raise ValueError(
                f"{facts.name} has the axes {', '.join(points)}, and no model takes "
                f"time as one more: {advice}"
            )
        points["time"] = np.asarray(facts.steps, float)[list(asked.outputs_at)]
    if window := asked.window:
        names = (
            window.input_channels(asked.inputs),
            window.output_channels(asked.outputs),
        )
    else:
        names = (
            asked.channels(asked.inputs, asked.inputs_at),
            asked.channels(asked.outputs, asked.outputs_at),
        )
    return Layout(
        tuple(points),
        tuple(points.values()),
        facts.num_dims if on_nodes else 0,
        *names,
        window,
    )
