"""Windows of trajectories: some frames are given, the next ones are to be predicted."""

import dataclasses
from collections.abc import Mapping, Sequence

LAYOUTS = ("time_axis", "repeated", "channels")


@dataclasses.dataclass(frozen=True)
class Window:
    """How a part of a trajectory becomes an input x and a target y.

    "time_axis": the frames are the last axis of the grid, num_in of x, num_out of y.
    "repeated": those of y likewise; x has the given frames as channels, the same at all
    times of y. "channels": the frames of a field are channels, side by side, of x as of
    y.

    Attributes:
        num_in: frames given.
        num_out: frames to predict, which follow at once.
        num_frames: of a trajectory.
        start: first frame of the windows of validation and test.
        fixed: whether those of training start there too, instead of anywhere.
        layout: see above.
        inputs: which fields of a frame make up x.
        outputs: which ones make up y.
    """

    num_in: int
    num_out: int
    num_frames: int
    start: int
    fixed: bool
    layout: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def length(self) -> int:
        """Frames of a window."""
        return self.num_in + self.num_out

    @property
    def num_starts(self) -> int:
        """Frames at which a window can start."""
        return self.num_frames - self.length + 1

    @property
    def given(self) -> range:
        """Frames of x in validation and test."""
        return range(self.start, self.start + self.num_in)

    @property
    def predicted(self) -> range:
        """Frames of y in validation and test."""
        return range(self.given.stop, self.start + self.length)

    @property
    def has_time_axis(self) -> bool:
        """Whether the last axis of the grid of y is time."""
        return self.layout != "channels"

    def split(self, frames):
        """Cuts windows into inputs and targets.

        Args:
            frames: [batch, length, *grid, fields], of NumPy or JAX.

        Returns:
            x and y, [batch, *grid, num_in, fields] and [batch, *grid, num_out, fields]
            on a time axis; see above for the other layouts.
        """
        xp = frames.__array_namespace__()
        given, wanted = frames[:, : self.num_in], frames[:, self.num_in :]
        x = xp.moveaxis(given[..., list(self.inputs)], 1, -1)
        y = xp.moveaxis(wanted[..., list(self.outputs)], 1, -1)
        if self.layout == "time_axis":
            return xp.moveaxis(x, -1, -2), xp.moveaxis(y, -1, -2)
        x = x.reshape((*x.shape[:-2], -1))  # a field's frames side by side
        if self.layout == "channels":
            return x, y.reshape((*y.shape[:-2], -1))
        shape = (*x.shape[:-1], self.num_out, x.shape[-1])
        return xp.broadcast_to(x[..., None, :], shape), xp.moveaxis(y, -1, -2)

    def frames_of(self, y):
        """Frames [batch, num_out, *grid, fields] of targets or predictions y."""
        xp = y.__array_namespace__()
        if self.has_time_axis:
            return xp.moveaxis(y, -2, 1)
        y = y.reshape((*y.shape[:-1], len(self.outputs), self.num_out))
        return xp.moveaxis(y, -1, 1)

    def last_given(self, x):
        """The last frame [batch, *grid, fields of y] of x, or None where x lacks it."""
        if not set(self.outputs) <= set(self.inputs):
            return None
        places = [self.inputs.index(field) for field in self.outputs]
        if self.layout == "time_axis":
            return x[..., -1, places]
        x = x[..., 0, :] if self.layout == "repeated" else x
        return x.reshape((*x.shape[:-1], len(self.inputs), self.num_in))[
            ..., places, -1
        ]

    def input_channels(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """A name for each channel of x; frame 0 is the last that is given."""
        if self.layout == "time_axis":
            return names
        return _side_by_side(names, range(1 - self.num_in, 1))

    def output_channels(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """A name for each channel of y; frame 1 is the first that is predicted."""
        if self.has_time_axis:
            return names
        return _side_by_side(names, range(1, self.num_out + 1))


def create(
    settings: Mapping,
    fields: Sequence[str],
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    num_frames: int,
    name: str,
) -> Window:
    """The window that `config.data` asks for.

    Args:
        settings: `config.data`: `window` (frames given, frames to predict),
            `window_start` (negative: counted from the last possible one, -1),
            `window_fixed` and `window_layout`.
        fields: names of the fields of a frame.
        inputs: those of x.
        outputs: those of y.
        num_frames: of a trajectory.
        name: of the data set, for messages.

    Raises:
        ValueError: for a window that is not inside the trajectory, an unknown layout,
            or settings that windows do not go with.
    """
    window, layout = tuple(settings["window"]), settings["window_layout"]
    if len(window) != 2 or any(type(n) is not int or n < 1 for n in window):
        raise ValueError(
            f"config.data.window is {window}; expected two positive numbers, the "
            "frames given and those to predict, such as (10, 40), or () for none"
        )
    if layout not in LAYOUTS:
        raise ValueError(
            f"config.data.window_layout is {layout!r}; known: {', '.join(LAYOUTS)}"
        )
    for key in ("steps", "input_steps", "time_axis"):
        if settings[key]:
            raise ValueError(
                f"config.data.{key} is {settings[key]}, but config.data.window "
                f"{window} chooses the steps: leave {key} alone, or set window to ()"
            )
    num_starts = num_frames - sum(window) + 1
    if num_starts < 1:
        raise ValueError(
            f"config.data.window {window} is {sum(window)} frames long, but {name} has "
            f"{num_frames}: choose fewer"
        )
    start = settings["window_start"]
    if not -num_starts <= start < num_starts:
        raise ValueError(
            f"config.data.window_start is {start}, but windows of {sum(window)} of the "
            f"{num_frames} frames of {name} start at 0 ... {num_starts - 1}, or at -1 "
            f"... {-num_starts} counted from the last"
        )
    return Window(
        *window,
        num_frames=num_frames,
        start=start % num_starts,
        fixed=settings["window_fixed"],
        layout=layout,
        inputs=tuple(map(fields.index, inputs)),
        outputs=tuple(map(fields.index, outputs)),
    )


def _side_by_side(names: tuple[str, ...], frames: range) -> tuple[str, ...]:
    return tuple(f"{name}[{frame}]" for name in names for frame in frames)
