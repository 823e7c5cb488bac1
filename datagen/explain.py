"""Solves a few samples with every method that applies: what auto chooses, and why."""

import json
import math
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from datagen import candidates, measuring
from datagen.methods import MethodError, choose, traits_of
from datagen.plan import PlanError, create_problem, sample_rng
from datagen.progress import megabytes, milliseconds
from datagen.storage.ledger import cpu_model

SECONDS = 60.0  # for all methods together, compilation apart
COLOURS = {"auto": "#1b7837", "ours": "#5b8db8", "petsc": "#b9b9b9"}
LEGEND = {"auto": "chosen by auto", "ours": "other methods here", "petsc": "PETSc"}
HEADER = (
    "method",
    "median",
    "in a shard",
    "x best",
    "iterations",
    "memory",
    "true residual",
    "note",
)
FOOT = """\
Every method solves the same systems in turn, interleaved, on one thread, to the same
true relative residual ||b - A x|| / ||b||, set-up included, compilation apart.
A solve that takes too long is ended, but for mg_pcg, fft_pcg and fast_direct.
median: of one system. in a shard: mean over {length} systems, where what is built once
counts by its share; x best: ratio of these. memory: growth of the peak resident set
while a first system was solved. *: what auto chooses, settings included."""


def command(
    config: Mapping[str, Any], root: Path, options, poll: Callable[[], None]
) -> int:
    """`python -m datagen explain`: prints the table, draws and writes the rest.

    Args:
        config: the data config, in plain dicts.
        root: where explain.png goes.
        options: of the command line: num, seconds, json.
        poll: called between solves; may raise to stop.

    Returns:
        The exit code: 1 if no method solved the systems.

    Raises:
        PlanError: if the samples are too few or too many, the seconds no positive
            number, or no method suits.
    """
    num = measuring.number_of_samples(options.num, config)
    if not 0 < options.seconds < math.inf:
        raise PlanError(f"--seconds is {options.seconds}; expected a positive number")
    problem = create_problem(config["problem"])
    print(f"{config['name']}: {problem.equation}")
    print(f"measuring for about {options.seconds:.0f} s, and compiling", flush=True)
    try:
        report = explain(config, problem, num=num, seconds=options.seconds, poll=poll)
    except MethodError as error:
        raise PlanError(str(error)) from error
    print(table(report))
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=1) + "\n")
        print(options.json)
    if not any(row.get("usable") for row in report["rows"]):
        return 1
    root.mkdir(parents=True, exist_ok=True)
    draw(report, root / "explain.png")
    print(root / "explain.png")
    return 0


def explain(
    config: Mapping[str, Any],
    problem,
    *,
    num: int,
    seconds: float = SECONDS,
    poll: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Measures every method that applies, those of PETSc too if it is there.

    Args:
        config: the data config, in plain dicts.
        problem: its problem.
        num: samples of the training set to solve, in sorted order.
        seconds: for all methods together, compilation apart.
        poll: called between solves; may raise to stop.

    Returns:
        A report that JSON can hold: name, choice (method and reason of auto), rows
        (best first, then those that failed or were refused) and what was measured.
    """
    solver, traits = dict(config["solver"]), traits_of(problem)
    choice = choose(solver | {"method": "auto"}, problem, traits=traits)
    entries = candidates.candidates(
        problem, solver, choice, traits=traits, outsiders=True
    )
    samples = measuring.samples_in_order(
        problem, lambda i: problem.sample(sample_rng(config["seed"], i)), num
    )
    measuring.measure(
        entries, problem, samples, rtol=solver["rtol"], seconds=seconds, poll=poll
    )
    length = config["shard_size"] * problem.num_systems
    usable = sorted((e for e in entries if e.usable), key=lambda e: e.cost(length))
    best = usable[0].cost(length) if usable else float("nan")
    others = [e for e in entries if not e.usable]
    others.sort(key=lambda e: bool(e.refused))
    return {
        "name": config["name"],
        "equation": problem.equation,
        "grid": " x ".join(str(len(problem.coordinates[a])) for a in problem.axes),
        "choice": choice,
        "rows": [_row(e, length, best) for e in [*usable, *others]],
        "rtol": solver["rtol"],
        "num_samples": num,
        "systems_per_shard": length,
        "cpu": cpu_model(),
    }


def _row(entry: measuring.Measured, length: int, best: float) -> dict[str, Any]:
    row: dict[str, Any] = {"method": entry.name, "settings": entry.settings}
    row["auto"] = entry.auto
    row["refused"], row["note"] = entry.refused, entry.note
    if math.isnan(entry.residual) and not entry.refused:
        row["refused"] = "no solution: not for such systems"
    if not entry.seconds or row["refused"]:
        return row
    num = len(entry.seconds)
    if entry.missed:
        row["note"] = f"misses the residual in {entry.missed} of {num} systems"
    return row | {
        "usable": entry.usable,
        "systems": num,
        "seconds_median": entry.median,
        "seconds": entry.cost(length),
        "ratio": entry.cost(length) / best,
        "iterations": statistics.mean(entry.iterations),
        "bytes": entry.num_bytes,
        "compile_seconds": entry.compile_seconds,
        "true_residual_max": entry.residual,
    }


def table(report: Mapping[str, Any]) -> str:
    """The report as text."""
    lines = [HEADER]
    refused: dict[str, list[str]] = {}
    for row in report["rows"]:
        if "seconds" not in row:
            why = (row["refused"] or row["note"]).removeprefix(f"{row['method']} ")
            refused.setdefault(why, []).append(row["method"])
            continue
        star = "*" if row["auto"] else ""
        notes = [row["note"]] if row["note"] else []
        if row["compile_seconds"] > 0.1:
            notes.append(f"compiled in {row['compile_seconds']:.1f} s")
        if row["systems"] < report["num_samples"]:
            notes.append(f"{row['systems']} systems")
        size = row["bytes"]
        lines.append(
            (
                star + row["method"],
                milliseconds(row["seconds_median"]),
                milliseconds(row["seconds"]),
                f"{row['ratio']:.2f}" if row["usable"] else "-",
                f"{row['iterations']:.4g}",
                "-" if size is None else megabytes(size),
                f"{row['true_residual_max']:.1e}",
                "; ".join(notes),
            )
        )
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEADER))]
    text = "\n".join(
        "  ".join(
            cell.ljust(w) if i in (0, len(HEADER) - 1) else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
    if refused:
        text += "\nnot measured:"
        text += "".join(f"\n  {', '.join(v)}: {why}" for why, v in refused.items())
    choice = report["choice"]
    foot = FOOT.format(length=report["systems_per_shard"])
    return f"{text}\n{foot}\nauto chooses {_chosen(report)}: {choice['reason']}"


def _chosen(report: Mapping[str, Any]) -> str:
    """The method of auto, with the settings that the table decided."""
    choice = report["choice"]
    own = next(row["settings"] for row in report["rows"] if row["auto"])
    words = ", ".join(f"{k} {own[k]}" for k in choice["settings"] if k in own)
    return f"{choice['method']} ({words})" if words else choice["method"]


def draw(report: Mapping[str, Any], path: Path) -> None:
    """Draws the seconds per system as dots, and writes a PNG.

    Raises:
        ValueError: if no method solved the systems.
    """
    rows = [row for row in report["rows"] if row.get("usable")]
    if not rows:
        raise ValueError("no method solved the systems, there is nothing to draw")
    kinds = [_kind(row) for row in rows]
    figure = Figure(figsize=(8, 1.9 + 0.28 * len(rows)), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.subplots()
    values = [1e3 * row["seconds"] for row in rows]
    ax.hlines(range(len(rows)), 0, values, color="0.9", zorder=0)
    ax.scatter(values, range(len(rows)), color=[COLOURS[kind] for kind in kinds])
    for i, (value, row) in enumerate(zip(values, rows, strict=True)):
        text = f"   {value:.3g} ms, {row['ratio']:.2f}x"
        ax.text(value, i, text, va="center", fontsize="small")
    ax.set(xscale="log", xlabel="milliseconds per system (logarithmic scale)")
    ax.set_xlim(min(values) / 2, max(values) * 6)
    ax.set_yticks(range(len(rows)), [row["method"] for row in rows])
    ax.invert_yaxis()
    ax.spines[["top", "right"]].set_visible(False)
    handles = [
        Line2D([], [], color=COLOURS[k], marker="o", ls="", label=LEGEND[k])
        for k in COLOURS
        if k in kinds
    ]
    ax.legend(handles=handles, loc="upper right", frameon=False)
    figure.suptitle(
        f"{report['name']}, {report['grid']}: time to solve one system to a true "
        f"residual of {report['rtol']:g}\n{report['num_samples']} samples, one thread; "
        f"set-up spread over a shard of {report['systems_per_shard']} systems",
        fontsize="medium",
    )
    figure.savefig(path)


def _kind(row: Mapping[str, Any]) -> str:
    if row["auto"]:
        return "auto"
    return "petsc" if row["method"].startswith("petsc") else "ours"
