"""Settings of U-NO: what a model is given per layer, and its horizontal skips."""

import numbers
from collections.abc import Sequence

import numpy as np

ARCHITECTURES = ("neuralop", "rahman2022")
LIFTED = -1  # the "layer" in front of layer 0, as source of a horizontal skip


def mirrored(num_layers: int) -> tuple[tuple[int, int], ...]:
    """Pairs (target, source) that join layer i to layer num_layers - 1 - i."""
    return tuple((num_layers - 1 - i, i) for i in range(num_layers // 2))


def skips(
    pairs: str | Sequence[tuple[int, int]], num_layers: int
) -> tuple[tuple[int, int], ...]:
    """The pairs (target, source), sorted.

    Raises:
        ValueError: for an unknown name, and a pair that comes twice or leads backwards.
    """
    if isinstance(pairs, str):
        named = {"mirrored": mirrored(num_layers), "none": ()}
        if pairs not in named:
            raise ValueError(
                f"horizontal_skips is {pairs!r}; known: mirrored, none, or pairs "
                "(target, source)"
            )
        pairs = named[pairs]
    pairs = sorted((int(target), int(source)) for target, source in pairs)
    if len(set(pairs)) < len(pairs):
        raise ValueError(
            "horizontal_skips must hold every pair (target, source) once, got "
            f"{tuple(pairs)}"
        )
    for target, source in pairs:
        if not LIFTED <= source < target <= num_layers:
            raise ValueError(
                "horizontal_skips must hold pairs (target, source) with -1 <= source < "
                f"target <= {num_layers}, got {(target, source)}"
            )
    return tuple(pairs)


def hidden_channels(expansion: float, channels: int) -> int:
    """Hidden channels of the map of a layer; rounding never leaves the map out.

    Raises:
        ValueError: if `expansion` is negative.
    """
    if expansion < 0:
        raise ValueError(
            f"channel_mlp_expansion must be 0 or positive, got {expansion}"
        )
    return max(1, round(expansion * channels)) if expansion else 0


def check_norm_layers(layers: Sequence[int], num_layers: int) -> None:
    """Checks that these are layers of the model.

    Raises:
        ValueError: if a number counts from the end or goes beyond it.
    """
    if not all(layer in range(num_layers) for layer in layers):
        raise ValueError(
            f"norm_layers must hold layers between 0 and {num_layers - 1}, got "
            f"{tuple(layers)}"
        )


def check(modes, fractions, layer_channels, architecture: str) -> None:
    """Checks what is given per layer, and the name of the architecture.

    Raises:
        ValueError: for an unknown name, or lengths, types or signs that do not fit.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(
            f"architecture is {architecture!r}; known: {', '.join(ARCHITECTURES)}"
        )
    lengths = {len(modes), len(fractions), len(layer_channels)}
    if lengths != {len(modes)} or not modes:
        raise ValueError(
            "modes, fractions and layer_channels must hold one entry per layer, got "
            f"{len(modes)}, {len(fractions)} and {len(layer_channels)}"
        )
    if any(np.ndim(m) != 1 or len(m) != len(modes[0]) for m in modes):
        raise ValueError(
            "modes must hold one tuple per layer with one number per axis, such as "
            f"((8, 8), (4, 4)), got {modes}"
        )
    for fraction in fractions:
        _check_fraction(fraction, len(modes[0]))


def _check_fraction(fraction: float | Sequence[float], num_axes: int):
    values = fraction if isinstance(fraction, Sequence | np.ndarray) else [fraction]
    real = all(isinstance(f, numbers.Real) for f in values)
    per_axis = values is not fraction or len(values) == num_axes
    if not (real and per_axis and all(0 < f < np.inf for f in values)):
        raise ValueError(
            "fractions must hold one positive number per layer, or one for each of "
            f"{num_axes} axes, got {fraction!r}"
        )
