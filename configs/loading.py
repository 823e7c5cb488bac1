"""Reads an experiment from the command line: `--config FILE[:variant]` and overrides.

    --config configs/mgno_darcy.py:small --config.seed=1 --config.model.channels=32
    --config configs/mgno_darcy.py:small --config.loss="{'name': 'relative_l2'}"

A config file defines `get_config(variant)`. Overrides keep the type of the literal that
they replace; a misspelt key, file, variant or type is a `ConfigError` of one line.
"""

import ast
import difflib
import importlib.util
from pathlib import Path

import ml_collections

CHOICES = ("model", "loss", "schedule")  # sections whose keys depend on their name


class ConfigError(ValueError):
    """A mistake in a config's name or in an override, in one sentence."""


def load(name: str) -> ml_collections.ConfigDict:
    """Loads `path/to/config.py[:variant]` as a locked config.

    Raises:
        ConfigError: if the file is missing or is no config, or for an unknown variant.
    """
    file, _, variant = name.partition(":")
    path = Path(file)
    if not path.is_file():
        known = sorted(str(p) for p in path.parent.glob("[!_]*.py"))
        close = difflib.get_close_matches(file, known, n=1, cutoff=0.6)
        hint = f"did you mean {close[0]}?" if close else f"known there: {known}"
        raise ConfigError(f"--config: there is no file {file}; {hint}")
    spec = importlib.util.spec_from_file_location(f"_config_{path.stem}", path)
    if spec is None:
        raise ConfigError(f"--config {name} is not a config file: no Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        config = module.get_config(*([variant] if variant else []))
    except ValueError as error:
        raise ConfigError(f"--config {name}: {error}") from error
    except (AttributeError, SyntaxError, ImportError) as error:
        raise ConfigError(f"--config {name} is not a config file: {error}") from error
    return config.lock()


def override(config: ml_collections.ConfigDict, key: str, text: str) -> None:
    """Sets one entry from text, keeping its type.

    Args:
        config: the config, changed in place.
        key: dotted path, such as "model.channels".
        text: a Python literal, or a bare string where the entry is one. A section of
            `CHOICES` may be given whole, as a dict.

    Raises:
        ConfigError: for an unknown key, a section, or a value of another type.
    """
    *parents, last = key.split(".")
    node = config
    for depth, part in enumerate([*parents, last]):
        known = sorted(node) if isinstance(node, ml_collections.ConfigDict) else []
        if part not in known:
            prefix = ".".join(["config", *parents[:depth]])
            close = difflib.get_close_matches(part, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known: {known}"
            raise ConfigError(f"--config.{key}: {prefix} has no key {part!r}; {hint}")
        if depth < len(parents):
            node = node[part]
    current = node[last]
    if key in CHOICES and text.lstrip().startswith("{"):
        node[last] = _section(key, text)
        return
    if isinstance(current, ml_collections.ConfigDict):
        raise ConfigError(
            f"--config.{key}={text}: {key} is a section; set one of its keys, "
            + ", ".join(f"--config.{key}.{name}" for name in sorted(current))
        )
    try:
        value = text if isinstance(current, str) else ast.literal_eval(text)
        if value is None or isinstance(current, bool) != isinstance(value, bool):
            raise TypeError
        node[last] = value
    except (ValueError, SyntaxError, TypeError):
        kind = type(current).__name__
        raise ConfigError(
            f"--config.{key}={text}: expected {kind}, as in {current!r}"
        ) from None


def _section(key: str, text: str) -> ml_collections.ConfigDict:
    """A whole section from the text of a dict.

    Raises:
        ConfigError: if the text is no dict with a name and literal values.
    """
    try:
        value = ast.literal_eval(text)
        if not isinstance(value.get("name"), str):
            raise ValueError
        return ml_collections.ConfigDict(value).lock()
    except (ValueError, SyntaxError, TypeError, AttributeError):
        raise ConfigError(
            f"--config.{key}={text}: expected a dict of literals with a name, as in "
            "\"{'name': 'relative_l2'}\""
        ) from None


def from_arguments(arguments: list[str]) -> tuple[ml_collections.ConfigDict, str]:
    """Takes `--config NAME` and `--config.key=value` from leftover arguments.

    Args:
        arguments: what an argument parser left over.

    Returns:
        The locked config and its name as given, "file[:variant]".

    Raises:
        ConfigError: if `--config` is missing, or anything else is left over.
    """
    names, overrides, rest = [], [], list(arguments)
    while rest:
        flag, equals, value = rest.pop(0).partition("=")
        if not flag.startswith("--config"):
            raise ConfigError(f"unknown argument {flag!r}; see --help")
        if not equals:
            if not rest:
                raise ConfigError(f"{flag} needs a value")
            value = rest.pop(0)
        if flag == "--config":
            names.append(value)
        else:
            overrides.append((flag.removeprefix("--config."), value))
    if len(names) != 1:
        raise ConfigError("give one --config FILE[:variant]; see --help")
    config = load(names[0])
    for key, text in overrides:
        override(config, key, text)
    return config, names[0]


def run_name(name: str) -> str:
    """Folder name of a config: "mgno_darcy_small" for "configs/mgno_darcy.py:small"."""
    file, _, variant = name.partition(":")
    return "_".join(filter(None, (Path(file).stem, variant)))
