"""How accurately must data be solved? One FNO, trained on data of several tolerances.

    uv run -m benchmarks.learning_curve --json learning_curve.json --figure curve.png
    uv run -m benchmarks.learning_curve --quick

The same samples of smooth Darcy flow (129 x 129 nodes) are solved to several relative
residuals by three methods, which leave different errors at the same residual: `mg_pcg`
next to none, as the cycle has removed the smooth ones; `minres` the largest that the
residual allows, as it makes the residual small and not the error; `cg` lies between.
The same FNO (width 16, same seed) learns from each set at 33 x 33 nodes and is tested
on solutions of residual 1e-12. Beside that test error stand the one on a test split of
the set's own tolerance, which is what a user would see, and the error of the training
data themselves. One set is learned again with another seed, to show what differences
mean nothing. About ten minutes on one core; needs no GPU.
"""

import argparse
import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any, NamedTuple

from benchmarks.timing import hardware, pin_one_core, write_json


class Size(NamedTuple):
    """What is generated and trained.

    Attributes:
        data: data config.
        model: training config.
        rows: methods and relative residuals of the data sets.
        splits: samples per split.
        training: changes of the training config.
    """

    data: str
    model: str
    rows: tuple[tuple[str, float], ...]
    splits: dict[str, int]
    training: dict[str, Any]


FULL = Size(
    "configs/data/darcy_smooth.py:small",
    "configs/fno_darcy.py:small",
    (
        ("mg_pcg", 1e-8),
        ("mg_pcg", 1e-5),
        ("mg_pcg", 1e-3),
        ("mg_pcg", 1e-2),
        ("mg_pcg", 3e-1),
        ("cg", 1e-2),
        ("cg", 3e-1),
        ("minres", 1e-2),
        ("minres", 1e-1),
        ("minres", 3e-1),
    ),
    {"train": 500, "valid": 50, "test": 100},
    {"num_epochs": 12, "model.channels": 16, "data.stride": 4},
)
QUICK = Size(
    "configs/data/darcy_smooth.py:quick",
    "configs/fno_darcy.py:quick",
    (("mg_pcg", 1e-8), ("minres", 3e-1)),
    {"train": 32, "valid": 8, "test": 8},
    {"num_epochs": 2, "data.stride": 1},
)
REFERENCE = ("direct", 1e-12)
OTHER_SEED = ("mg_pcg", 1e-8)
SHARD = 50


class CommandError(RuntimeError):
    """A command of the benchmark failed; holds the end of what it printed."""


def main() -> None:
    """Generates, trains, prints the table, writes JSON and figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", help="file for the results")
    parser.add_argument("--figure", help="file for the figure")
    parser.add_argument("--folder", help="keep data sets and runs here; goes on there")
    parser.add_argument("--quick", action="store_true", help="a look, in a minute")
    options = parser.parse_args()
    pin_one_core()
    size = QUICK if options.quick else FULL
    began = time.perf_counter()
    with contextlib.ExitStack() as stack:
        folder = options.folder or stack.enter_context(tempfile.TemporaryDirectory())
        rows = measure(pathlib.Path(folder), size)
    seconds = time.perf_counter() - began
    print(table(rows))
    print(f"{hardware()['cpu']}, one core, {seconds:.0f} s, {hardware()['date']}")
    title = "Test error of an FNO against the tolerance of its data"
    settings = {k: v for k, v in size._asdict().items() if k != "rows"}
    write_json(options.json, title=title, rows=rows, seconds=seconds, **settings)
    if options.figure:
        draw(rows, options.figure)


def measure(folder: pathlib.Path, size: Size) -> list[dict]:
    """One row per data set, and one for the other seed."""
    reference = generate(folder, *REFERENCE, size)
    rows = []
    for method, rtol in size.rows:
        data = generate(folder, method, rtol, size)
        row = {"method": method, "rtol": rtol, "seed": 0}
        row |= data_facts(data, reference)
        row |= learn(folder, data, reference, size, seed=0)
        rows.append(row)
        print(table(rows[-1:], header=len(rows) == 1), flush=True)
        if (method, rtol) == OTHER_SEED:
            rows.append(row | {"seed": 1})
            rows[-1] |= learn(folder, data, reference, size, seed=1)
    return rows


def generate(folder: pathlib.Path, method: str, rtol: float, size: Size):
    """Makes the data set of one method and tolerance; returns its folder."""
    root = folder / f"{method}_{rtol:.0e}"
    command = ["-m", "datagen", "generate", "--config", size.data, "--out", str(root)]
    changes = {f"splits.{split}": num for split, num in size.splits.items()}
    changes |= {"shard_size": SHARD, "solver.method": method, "solver.rtol": rtol}
    changes |= {"solver.preconditioner": "jacobi"}  # of cg and minres
    changes |= {"solver.accept_rtol": min(2 * rtol, 0.99)}
    run(command, changes)
    return root


def run(command: list[str], changes: dict) -> None:
    """Runs a command of ours in a process of its own.

    Raises:
        CommandError: if it fails.
    """
    command = [sys.executable, *command]
    command += [f"--config.{key}={value}" for key, value in changes.items()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        end = (done.stdout + done.stderr)[-2000:]
        raise CommandError(f"{' '.join(command)} failed:\n{end}")


def data_facts(root: pathlib.Path, reference: pathlib.Path) -> dict:
    """Cost of a data set, and its distance from the reference.

    Raises:
        CommandError: if a fallback helped, which would hide what is measured.
    """
    import numpy as np

    from datagen.storage.read import open_dataset
    from operators.training.losses import relative_l2

    ours, exact = open_dataset(root), open_dataset(reference)
    if set(ours.manifest["ladder"]) != {"planned"}:
        raise CommandError(f"{root}: {ours.manifest['ladder']}")
    u, v = (set_.load("train").y.astype(np.float64) for set_ in (ours, exact))
    records = [json.loads(p.read_text()) for p in (root / "ledger").glob("*.json")]
    per_sample = [r["cpu_s"] / r["num_samples"] for r in records]
    quality = ours.quality("train")
    return {
        "data_error": float(relative_l2(u, v).mean()),
        "iterations": float(quality["iterations"].mean()),
        "milliseconds_per_sample": 1e3 * float(np.median(per_sample)),
        "true_residual_max": float(quality["true_rel_residual"].max()),
    }


def learn(folder, data, reference, size: Size, *, seed: int) -> dict:
    """Trains the FNO on a data set and tests it.

    Returns:
        test_error on the reference's test split; own_test_error on the data set's own;
        seconds of the training process.
    """
    import numpy as np

    import operators
    from datagen.storage.read import open_dataset
    from operators.training.losses import relative_l2

    workdir = folder / f"run_{data.name}_seed{seed}"
    changes = {"data.config": "", "data.path": data, "seed": seed}
    changes |= size.training
    changes |= {f"data.num_{split}": num for split, num in size.splits.items()}
    start = time.perf_counter()
    run(["train.py", "--config", size.model, "--workdir", str(workdir)], changes)
    seconds = time.perf_counter() - start
    operator, errors = operators.load(workdir), {}
    for key, root in (("test_error", reference), ("own_test_error", data)):
        test = open_dataset(root).load("test", stride=size.training["data.stride"])
        prediction = operator(test.x).astype(np.float64)
        found = relative_l2(prediction, test.y.astype(np.float64))
        errors[key] = float(np.asarray(found).mean())
    return errors | {"training_seconds": seconds}


def table(rows: list[dict], *, header: bool = True) -> str:
    """The rows as Markdown."""
    lines = [
        "| method | rtol | its | ms/sample | data error | test error | own test |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        name = row["method"] + (f" (seed {row['seed']})" if row["seed"] else "")
        lines.append(
            f"| {name} | {row['rtol']:.0e} | {row['iterations']:.1f} | "
            f"{row['milliseconds_per_sample']:.1f} | {row['data_error']:.2%} | "
            f"{row['test_error']:.2%} | {row['own_test_error']:.2%} |"
        )
    return "\n".join(lines if header else lines[2:])


def draw(rows: list[dict], path: str) -> None:
    """Test errors over the error of the training data, one colour per method."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    names = {"mg_pcg": "multigrid CG", "cg": "CG", "minres": "MINRES"}
    for color, method in zip(("C0", "C1", "C2"), names, strict=True):
        ours = [r for r in rows if r["method"] == method]
        x = [r["data_error"] for r in ours]
        label = f"data by {names[method]}"
        axis.loglog(x, [r["test_error"] for r in ours], "o", color=color, label=label)
        own = [r["own_test_error"] for r in ours]
        axis.loglog(x, own, "s", ms=9, mfc="none", color=color)
        for row in (r for r in ours if not r["seed"]):
            place = (row["data_error"], row["test_error"])
            text = f"{row['rtol']:g}"
            axis.annotate(text, place, (0, 8), textcoords="offset points", ha="center")
    axis.plot([], [], "ks", mfc="none", label="as its own test split shows it")
    axis.plot(axis.get_xlim(), axis.get_xlim(), ":", color="gray", label="y = x")
    axis.set_ylim(0.5 * min(r["own_test_error"] for r in rows), 0.5)
    axis.set_xlabel("relative L2 error of the training data (numbers: residual)")
    axis.set_ylabel("relative L2 test error of the FNO")
    axis.legend(fontsize="small", loc="upper left")
    figure.savefig(path, dpi=150)
    plt.close(figure)
    print(f"wrote {os.fspath(path)}")


if __name__ == "__main__":
    main()
