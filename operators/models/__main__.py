"""Prints the parameters of a model, without allocating them.

python -m operators.models --config configs/mgno_darcy.py[:variant] [--config.key=value]
python -m operators.models --preset fno_darcy
python -m operators.models --list
"""

import argparse
import math
import sys
from collections.abc import Sequence

import jax
from flax import nnx

from configs import loading
from operators import models
from operators.models import presets


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns 0, or 2 after a one-line error."""
    parser = argparse.ArgumentParser(
        prog="python -m operators.models",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--preset", help="an official configuration, see --list")
    what.add_argument(
        "--list", action="store_true", help="models, their settings, and presets"
    )
    options, rest = parser.parse_known_args(arguments)
    try:
        lines = _chosen_lines(options, rest)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join(lines))
    return 0


def _chosen_lines(options: argparse.Namespace, rest: list[str]) -> list[str]:
    if rest and (options.list or options.preset):
        raise ValueError(
            f"{rest[0]!r} does not go with --list or --preset; give one of --config, "
            "--preset and --list"
        )
    if options.list:
        return describe_all()
    if options.preset:
        return describe_preset(options.preset)
    if not rest:
        raise ValueError("give one of --config, --preset and --list; see --help")
    config, name = loading.from_arguments(rest)
    if "name" not in config.get("model", {}):
        raise ValueError(
            f"{name} has no model section with a name; is it a data config?"
        )
    return describe(config.model.to_dict())


def describe_all() -> list[str]:
    """One block per model, its settings with their defaults; then the presets."""
    lines = []
    for name in models.names():
        lines.append(name)
        for key, parameter in models.hyperparameters(name).items():
            required = parameter.default is parameter.empty
            default = getattr(parameter.default, "__name__", repr(parameter.default))
            lines.append(f"  {key:<22} {'required' if required else default}")
    known = presets.PRESETS
    width = max(len(name) for name in known)
    lines += ["", "presets, their parameters and where they come from"]
    lines += [
        f"  {name:<{width}} {preset.parameters:>12,}  {preset.source}"
        for name, preset in sorted(known.items())
    ]
    return lines


def describe_preset(name: str) -> list[str]:
    """The table of parameters of a preset, and its official count.

    Raises:
        ValueError: for an unknown name.
    """
    preset = presets.get(name)
    rows = parameter_table(preset.hparams)
    verdict = "the same" if count(rows) == preset.parameters else "NOT the same"
    return [
        *_layout(preset.hparams["name"], rows),
        f"{name}: {preset.parameters:,} in the official configuration ({verdict}); "
        f"{preset.source}",
    ]


def describe(hparams: dict) -> list[str]:
    """The table of parameters of the model that `hparams` describes, and its total.

    Args:
        hparams: `name` and keyword arguments, see `operators.models.create`.

    Raises:
        ValueError: as `operators.models.create`.
    """
    return _layout(hparams["name"], parameter_table(hparams))


def count(rows: Sequence[tuple[str, tuple[int, ...], int]]) -> int:
    """Number of real parameters in the rows of `parameter_table`."""
    return sum(math.prod(shape) for _, shape, _ in rows)


def _layout(name: str, rows) -> list[str]:
    """Lines of the table, one a parameter, and the total."""
    cells = [
        (path, "x".join(map(str, shape)) or "scalar", f"{math.prod(shape):,}")
        for path, shape, _ in rows
    ]
    cells = [("parameter", "shape", "count"), *cells]
    widths = [max(len(row[i]) for row in cells) for i in range(3)]
    lines = [
        f"{path:<{widths[0]}}  {shape:<{widths[1]}}  {count:>{widths[2]}}"
        for path, shape, count in cells
    ]
    total = count(rows)
    size = sum(math.prod(shape) * itemsize for _, shape, itemsize in rows)
    lines.append(
        f"{name}: {total:,} parameters ({total / 1e6:.2f} M, {size / 1e6:.1f} MB)"
    )
    return lines


def parameter_table(hparams: dict) -> list[tuple[str, tuple[int, ...], int]]:
    """Rows (path, shape, bytes per entry) of the model that `hparams` describes.

    Raises:
        ValueError: as `operators.models.create`.
    """
    model = nnx.eval_shape(lambda: models.create(**hparams, rngs=nnx.Rngs(0)))
    leaves = nnx.to_flat_state(nnx.state(model, nnx.Param))
    return [
        (
            ".".join(map(str, path)),
            leaf.get_value().shape,
            leaf.get_value().dtype.itemsize,
        )
        for path, leaf in leaves
    ]


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")  # shapes only; leave accelerators alone
    sys.exit(main())
