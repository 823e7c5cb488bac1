"""Errors of operators on grids: refinement, shifts, identity weights, changes of grid.

    uv run -m benchmarks.exactness --json out.json
    uv run -m benchmarks.exactness --quick

Prints the tables of docs/operators.md. All networks have random weights and a random
periodic input of frequencies |k| <= 3, float32; errors are relative to the output
without its mean. Rows marked "control" are wrong on purpose: they show what the tests
of the same name can see.
"""

import argparse
import json
import pathlib
import textwrap
from collections.abc import Callable, Sequence

from benchmarks import exactness_cases as cases
from benchmarks import timing

TOP = 3  # largest frequency of the inputs
SHIFTS = (1, 4, 0.5)  # cells
MODES = (8, 8)
IDENTITY_GRIDS = ((15, 16), (16, 17), (17, 31), (31, 32), (32, 33), (33, 85), (85, 15))
CHANGES = (
    ((32, 32), (64, 64)),
    ((64, 64), (32, 32)),
    ((33, 33), (48, 48)),
    ((48, 33), (33, 64)),
)
PLAIN = "3 x 3 convolutions (control)"
# What stands under the titles.
RANDOM = (
    "Random weights; relative L2 of what varies over the grid (the output without its "
    "mean); small is good, 1.9e+00 is 190 %."
)
ORDER = (
    "Order: log2 of the ratio of neighbouring errors, p where they fall as n^-p (about "
    "0: at round-off, or no convergence)."
)
SHIFTED = "Rows with coordinates see where they are, so they cannot commute."
FAILS = {
    "refinement": "The control should fail: its errors stay large.",
    "shifts": "The control should be exact at whole cells and fail at 0.5.",
}
IDENTITY = (
    "White noise; largest error over the largest value; small is good, 2e+00 is 200 %. "
    "The control with fftshift should fail where the first axis is odd; the one padded "
    "at its end should be right here and fail in the next table."
)
CHANGED = "As above; both controls should fail in every column."


def networks(only: Sequence[str] = ()) -> dict[str, Callable]:
    """The networks of the tables by name, all or some."""
    built = {
        name: cases.Model(cases.SIZES[hparams["name"]] | hparams)
        for name, hparams in cases.MODELS.items()
        if not only or name in only
    }
    return built if only else built | {PLAIN: cases.plain_convolutions}


def refinement_rows(
    models: dict[str, Callable], grids: Sequence[int], finest: int
) -> list[dict]:
    """Errors against the finest grid, and observed orders between the others."""
    rows = []
    for name, model in models.items():
        errors = cases.refinement_errors(model, grids, finest=finest, top=TOP)
        orders = cases.observed_orders(errors)
        row = {"grids": list(grids), "finest": finest, "errors": errors}
        rows.append({"method": name} | row | {"orders": orders})
        values = [f"{e:.1e}" for e in errors] + [f"{order:.1f}" for order in orders]
        print(_line(name, values), flush=True)
    return rows


def shift_rows(models: dict[str, Callable], n: int) -> list[dict]:
    """Failures to commute with shifts, on n x n points."""
    rows = []
    for name, model in models.items():
        errors = [cases.shift_error(model, n, cells, top=TOP) for cells in SHIFTS]
        rows.append({"method": name, "n": n, "cells": list(SHIFTS), "errors": errors})
        print(_line(name, [f"{e:.1e}" for e in errors]), flush=True)
    return rows


def layers() -> dict[str, Callable]:
    """Spectral layers with identity weights, ours and the controls."""
    return {
        "ours, dft": cases.identity_layer(MODES, "dft"),
        "ours, fft": cases.identity_layer(MODES, "fft"),
        "fftshift undone by fftshift (control)": cases.control("fftshift", MODES),
        "spectrum padded at its end (control)": cases.control("end", MODES),
    }


def layer_rows(pairs: Sequence[tuple]) -> list[dict]:
    """Errors of layers with identity weights from each grid to another."""
    rows = []
    for name, layer in layers().items():
        errors = [cases.identity_error(layer, grid, MODES, out) for grid, out in pairs]
        rows.append(
            {
                "method": name,
                "grids": [list(grid) for grid, _ in pairs],
                "out_grids": [list(out) for _, out in pairs],
                "errors": errors,
            }
        )
        print(_line(name, [f"{e:.0e}" for e in errors]), flush=True)
    return rows


def measure(*, quick: bool = False, only: Sequence[str] = ()) -> dict[str, list[dict]]:
    """Measures and prints all tables; `quick` takes coarse grids."""
    models = networks(only)
    grids, finest = ((16, 32), 64) if quick else ((16, 32, 64, 128), 256)
    tables = {}
    fails = {key: text if PLAIN in models else "" for key, text in FAILS.items()}
    columns = [*grids, *["order"] * (len(grids) - 1)]
    title = f"Refinement: error on n x n points against {finest} x {finest}"
    _title(title, f"{RANDOM} {ORDER} {fails['refinement']}", columns)
    tables["refinement"] = refinement_rows(models, grids, finest)
    n = 16 if quick else 32
    title = f"Shifts by cells of {n} x {n} points: error of not commuting with them"
    _title(title, f"{RANDOM} {SHIFTED} {fails['shifts']}", SHIFTS)
    tables["shifts"] = shift_rows(models, n)
    pairs = [(grid, grid) for grid in IDENTITY_GRIDS]
    title = "Spectral layers with identity weights, |k| <= 8, on odd and even grids"
    _title(title, IDENTITY, [f"{a}x{b}" for a, b in IDENTITY_GRIDS])
    tables["identity"] = layer_rows(pairs)
    title = "The same layers from one grid to another, by the points of axis 1"
    _title(title, CHANGED, [f"{grid[0]}-{out[0]}" for grid, out in CHANGES])
    tables["grid_change"] = layer_rows(CHANGES)
    return tables


def _title(text: str, note: str, columns: Sequence) -> None:
    """A title, how its table is read, and the heads of the columns."""
    note = textwrap.fill(note, 99, initial_indent="  ", subsequent_indent="  ")
    print(f"\n{text}\n{note}\n{_line('', [str(column) for column in columns])}")


def _line(name: str, values: Sequence[str]) -> str:
    return f"{name:<46}" + "".join(f"{value:>9}" for value in values)


def main() -> None:
    """Measures, prints the tables and writes the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="coarse grids only")
    parser.add_argument("--model", action="append", default=[], help="only these rows")
    parser.add_argument("--json", default=None, help="file to write")
    options = parser.parse_args()
    if unknown := set(options.model) - set(cases.MODELS):
        parser.error(
            f"--model is {sorted(unknown)[0]!r}; known: {'; '.join(cases.MODELS)}"
        )
    tables = measure(quick=options.quick, only=options.model)
    if options.json is not None:
        content = {"title": "Exactness of operators", "hardware": timing.hardware()}
        text = json.dumps(content | tables, indent=1)
        pathlib.Path(options.json).write_text(text + "\n")


if __name__ == "__main__":
    main()
