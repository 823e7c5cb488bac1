"""Prints the parameters of the model of a config, without allocating them.

python -m operators.models --config configs/mgno_darcy.py[:variant]
python -m operators.models --list
"""

import argparse
import importlib.util
import math
import pathlib
import sys
from collections.abc import Sequence

import jax
from flax import nnx

from operators import models


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns 0, or 2 after a one-line error."""
    parser = argparse.ArgumentParser(
        prog="python -m operators.models", description="Parameters of a model."
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--config", help="configs/<file>.py, or configs/<file>.py:variant"
    )
    what.add_argument("--list", action="store_true", help="models and their settings")
    options = parser.parse_args(arguments)
    try:
        lines = describe_all() if options.list else describe(options.config)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join(lines))
    return 0


def describe_all() -> list[str]:
    """One block per model: its name and its settings with their defaults."""
    lines = []
    for name in models.names():
        lines.append(name)
        for key, parameter in models.hyperparameters(name).items():
            required = parameter.default is parameter.empty
            default = getattr(parameter.default, "__name__", repr(parameter.default))
            lines.append(f"  {key:<22} {'required' if required else default}")
    return lines


def describe(config: str) -> list[str]:
    """The table of parameters of `config`, "path" or "path:variant".

    Raises:
        ValueError: if the file has no usable model section.
        FileNotFoundError: if there is no such file.
    """
    hparams = load_model_section(config)
    rows = parameter_table(hparams)
    cells = [
        (path, "x".join(map(str, shape)), f"{math.prod(shape):,}")
        for path, shape, _ in rows
    ]
    cells = [("parameter", "shape", "count"), *cells]
    widths = [max(len(row[i]) for row in cells) for i in range(3)]
    lines = [
        f"{path:<{widths[0]}}  {shape:<{widths[1]}}  {count:>{widths[2]}}"
        for path, shape, count in cells
    ]
    total = sum(math.prod(shape) for _, shape, _ in rows)
    size = sum(math.prod(shape) * itemsize for _, shape, itemsize in rows)
    lines.append(
        f"{hparams['name']}: {total:,} parameters "
        f"({total / 1e6:.2f} M, {size / 1e6:.1f} MB)"
    )
    return lines


def parameter_table(hparams: dict) -> list[tuple[str, tuple[int, ...], int]]:
    """Rows (path, shape, bytes per entry) of the model `hparams` describes.

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


def load_model_section(config: str) -> dict:
    """The `model` section of a config file as a dictionary.

    Raises:
        ValueError: if the file is no config, or the section lacks a name.
        FileNotFoundError: if there is no such file.
    """
    path, _, variant = config.partition(":")
    if not pathlib.Path(path).is_file():
        raise FileNotFoundError(
            f"no config file {path}; give a file such as configs/*.py"
        )
    spec = importlib.util.spec_from_file_location("config_file", path)
    if spec is None:
        raise ValueError(f"{path} is no Python file; give a file such as configs/*.py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"{path} cannot be read: {error!r}") from error
    if not hasattr(module, "get_config"):
        raise ValueError(f"{path} defines no get_config(variant)")
    section = (module.get_config(variant) if variant else module.get_config()).get(
        "model"
    )
    if section is None or "name" not in section:
        raise ValueError(
            f"{path} has no model section with a name; is it a data config?"
        )
    return section.to_dict()


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")  # shapes only; leave accelerators alone
    sys.exit(main())
