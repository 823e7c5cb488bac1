"""Error over test resolution of trained runs: a table, `resolution.json`, a figure.

    python -m operators.training.resolution --workdir runs/fno_darcy_small
    python -m operators.training.resolution --workdir runs/fno_darcy runs/mgno_darcy

Every test grid is every s-th point of the stored samples, end points included, so that
all grids share one truth: the finest solution, sampled. Nothing is trained or solved.
A model can meet a grid that it was not trained on in two ways:

    plain      it runs on the test grid
    resampled  input -> training grid -> model -> training grid -> output on test grid

and neither can be judged without a third number, `floor`: the truth of the training
grid, interpolated to the test grid, which is what `resampled` would give with a perfect
model.

Between grids that keep both ends of every axis, fields are interpolated linearly. Where
points coincide values are copied, so that a training grid whose points all belong to
the test grid receives every k-th value, which is exactly what training saw. Elsewhere
a coefficient with jumps gets values between its phases; `--inputs nearest` takes the
nearest point instead, which keeps the phases and moves the interfaces by up to half a
cell (ties alternate). Grids of periodic data leave out the right end; fields on them go
through their Fourier coefficients.
"""

import argparse
import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from datagen.storage.read import DatasetError
from operators.layers import resampling
from operators.training import data, evaluate, figures, metrics, runs, workdir

INPUTS = ("linear", "nearest")
COLUMNS = ("plain", "resampled", "floor")
# Where two ways give the same error, dashes lie over the wide line, and the square
# around the dot.
STYLES = {
    "plain": {"ls": "-", "lw": 3.5, "alpha": 0.5, "marker": "o", "ms": 4},
    "resampled": {"ls": "--", "lw": 1.2, "marker": "s", "ms": 9, "mfc": "none"},
    "floor": {"ls": ":", "lw": 1.0, "marker": "x", "ms": 5},
}


@runs.plain_warnings()
def compare(
    folders: Sequence[str | Path], *, checkpoint: str = "best", **options
) -> dict[str, dict]:
    """Measures runs on the same data, writes each one's `resolution.json`.

    Args:
        folders: workdirs of the runs.
        checkpoint: "best" or "latest".
        **options: see `measure`.

    Returns:
        Label -> content of `resolution.json`; labels are the names of the folders.

    Raises:
        ValueError: as `measure`, and if the runs have different test samples.
    """
    opened = [runs.load(folder, checkpoint=checkpoint) for folder in folders]
    settings = opened[0].config["data"]
    dataset = data.open_data(settings, verify=False)
    for operator in opened[1:]:
        if reason := runs.other_samples(operator, dataset, settings, any_stride=True):
            raise ValueError(
                f"{operator.workdir} {reason}: its errors do not compare with those of "
                f"{opened[0].workdir}, so give runs on the same samples"
            )
    reports = {}
    for operator in opened:
        name = operator.workdir.name
        label = str(operator.workdir) if name in reports else name
        reports[label] = measure(operator, **options)
        workdir.write_json(operator.workdir / "resolution.json", reports[label])
    return reports


def measure(
    operator: runs.Operator,
    *,
    strides: Sequence[int] | None = None,
    num: int | None = None,
    inputs: str = "linear",
    show: Callable[[str], None] = lambda line: None,
) -> dict:
    """Measures the errors of one run on the test split, grid by grid.

    Args:
        operator: from `operators.load`.
        strides: test grids, as strides of the stored grid; None: all that keep both
            ends, down to half the training resolution.
        num: test samples; None: as many as the run's config asks for.
        inputs: how inputs reach a training grid whose points are not all in the test
            grid, "linear" or "nearest".
        show: receives the lines of the table as they are ready.

    Returns:
        Facts of the run, and `grids`: for each the stride, the grid, and mean, std and
        quantiles of every norm, `plain`, `resampled` and `floor`. Where the model does
        not take the grid, `plain` is None and `refused` says why.

    Raises:
        ValueError: if the data are not here, or others than the run was trained on, or
            a stride does not keep both ends.
    """
    if inputs not in INPUTS:
        raise ValueError(f"inputs is {inputs!r}; known: {', '.join(INPUTS)}")
    settings = dict(operator.config["data"])
    settings["num_test"] = settings["num_test"] if num is None else num
    dataset = data.open_data(settings)
    if dataset.manifest_sha256 != operator.info["data_manifest_sha256"]:
        raise ValueError(
            f"{operator.workdir} was trained on other data than {dataset.root} holds "
            "now: generate them again with the config of the run"
        )
    periodic, trained = is_periodic(dataset), settings["stride"]
    strides = _checked_strides(dataset, periodic, trained, strides)
    truth = data.load_split(dataset, settings, "test").y
    report = {
        "workdir": str(operator.workdir),
        "model": operator.config["model"]["name"],
        "num_parameters": operator.num_parameters,
        "step": operator.step,
        "split": "test",
        "num_samples": len(truth),
        "training_stride": trained,
        "axes": list(dataset.coordinates),
        "training_grid": list(truth.shape[1:-1]),
        "inputs": "fourier" if periodic else inputs,
        "outputs": "fourier" if periodic else "linear",
        "data_manifest_sha256": dataset.manifest_sha256,
        "grids": [],
    }
    show(head(report))
    for stride in strides:
        samples = data.load_split(dataset, settings, "test", stride=stride)
        layout = data.layout(dataset, {**settings, "stride": stride})
        errors_of = functools.partial(_errors, samples=samples, layout=layout)
        row = _measure_grid(operator, samples, truth, report, errors_of)
        row = {"stride": stride, **row}
        report["grids"].append(row)
        show(line(row, report))
    return report


def is_periodic(dataset) -> bool:
    """Whether the grids of a data set leave out the right ends.

    Raises:
        ValueError: for meshes without a grid, and where only some axes are periodic.
    """
    if list(dataset.coordinates) == ["node"]:
        raise ValueError(
            f"{dataset.root} lies on an unstructured mesh, which has no other "
            "resolutions; choose a run on a grid"
        )
    periodic = {b["axis"]: b["bc_type"] == "PERIODIC" for b in dataset.boundaries}
    kinds = {periodic.get(axis, False) for axis in dataset.coordinates}
    if len(kinds) > 1:
        raise ValueError(
            f"{dataset.root} is periodic along some axes only ({periodic}), for which "
            "there is no resampling here"
        )
    return kinds.pop()


def possible_strides(dataset, periodic: bool) -> list[int]:
    """Strides that keep both ends, or the period, of every axis, and leave 2 points."""
    intervals = [n - (not periodic) for n in _stored_grid(dataset)]
    common = int(np.gcd.reduce(intervals))
    largest = min(intervals) // (1 + periodic)
    return [s for s in range(1, largest + 1) if common % s == 0]


def _checked_strides(dataset, periodic: bool, trained: int, strides) -> list[int]:
    """The strides to measure, coarsest grid first."""
    allowed = possible_strides(dataset, periodic)
    if strides is None:
        strides = [s for s in allowed if s <= 2 * trained]
    for stride in (trained, *strides):
        if stride not in allowed:
            raise ValueError(
                f"stride {stride} of the {_by(_stored_grid(dataset))} points of "
                f"{dataset.root} does not keep the domain; possible: {allowed}"
            )
    return sorted(set(strides), reverse=True)


def _stored_grid(dataset) -> tuple[int, ...]:
    return tuple(len(c) for c in dataset.coordinates.values())


def _measure_grid(
    operator: runs.Operator, samples, truth, report: Mapping, errors_of: Callable
) -> dict:
    """Errors of one test grid: plain, resampled, floor; `refused` says why no plain."""
    grid, trained = samples.y.shape[1:-1], tuple(report["training_grid"])
    # Where time is an axis, x may have other times than y, which no grid changes.
    times = samples.x.shape[1 + len(report["axes"]) : -1]
    # As many points in a batch as the evaluation of the run had.
    size = operator.config["eval"]["batch_size"] * np.prod(trained) / np.prod(grid)
    size = max(1, int(size))
    row = {"grid": list(grid), "refused": ""}
    try:
        plain = operator(samples.x, batch_size=size)
        row["plain"] = errors_of(plain, size)
    except ValueError as reason:
        row["plain"], row["refused"] = None, str(reason)
    if grid == trained:
        coarse = None if row["refused"] else plain
    else:
        trained = (*trained[: len(report["axes"])], *times)
        x = resample(samples.x, trained, report["inputs"])
        coarse = operator(x, batch_size=operator.config["eval"]["batch_size"])
    for name, field in (("resampled", coarse), ("floor", truth)):
        fine = resample(field, grid, report["outputs"])
        row[name] = errors_of(fine, size)
    return row


def resample(fields: np.ndarray, grid: tuple[int, ...], kind: str) -> np.ndarray:
    """Fields [num, *grid, channels] on another grid of the same domain, in NumPy.

    Args:
        fields: on a grid with both ends, or for "fourier" on one without the right end.
        grid: points per axis of the result.
        kind: "linear", "fourier" or "nearest" (ties go to even indices).
    """
    values = fields
    for axis, (n, m) in enumerate(zip(fields.shape[1:-1], grid, strict=True), start=1):
        if n == m:
            continue
        if kind == "nearest":
            nearest = np.rint(np.arange(m) * (n - 1) / max(m - 1, 1)).astype(int)
            values = np.take(values, nearest, axis=axis)
        else:
            matrix = (
                resampling.fourier_matrix(n, m)
                if kind == "fourier"
                else resampling.lagrange_matrix(n, m, 2)
            )
            values = np.moveaxis(np.tensordot(values, matrix, (axis, 1)), -1, axis)
    return values.astype(fields.dtype)


def _errors(prediction, size: int, *, samples, layout) -> dict:
    """Summaries of the norms, computed in parts to bound the float64 copies."""
    parts = [
        evaluate.measure(prediction[part], samples.y[part], samples, layout)
        for part in (slice(i, i + size) for i in range(0, len(samples.y), size))
    ]
    summaries = {}
    for norm in [name for name in parts[0] if name != "frames"]:
        values = np.concatenate([part[norm]["per_sample"] for part in parts])
        summaries[norm] = metrics.summarize(values)
        del summaries[norm]["per_sample"]
    return summaries


def head(report: Mapping) -> str:
    """What was measured, and the names of the columns."""
    finest = ", the finest grid stored: none finer can be tested"
    finest = finest if report["training_stride"] == 1 else ""
    return (
        f"{report['workdir']}: {report['model']}, {report['num_parameters']:,} "
        f"parameters, trained on {_by(report['training_grid'])}{finest}\n"
        f"mean relative L2 error over {report['num_samples']} test samples\n"
        f"  {'grid':>15s}" + "".join(f"{name:>12s}" for name in COLUMNS)
    )


def line(row: Mapping, report: Mapping) -> str:
    """One grid of the table."""
    errors = [row[name] and row[name]["relative_l2"]["mean"] for name in COLUMNS]
    cells = ["refused" if e is None else f"{100 * e:.3f} %" for e in errors]
    text = f"  {_by(row['grid']):>15s}" + "".join(f"{cell:>12s}" for cell in cells)
    if row["stride"] == report["training_stride"]:
        text += "  <- trained here"
    return text + (f"\n      refused: {row['refused']}" if row["refused"] else "")


def legend(report: Mapping) -> str:
    """What the columns mean."""
    return (
        "plain: the model runs on the test grid\n"
        f"resampled: input to the training grid ({report['inputs']}), model there, "
        f"output to the test grid ({report['outputs']})\n"
        "floor: the truth on the training grid, taken to the test grid: resampled with "
        "a perfect model"
    )


def plot(reports: Mapping[str, Mapping]) -> Figure:
    """Draws the errors over the points of the first axis, a colour for each run.

    Args:
        reports: label -> what `measure` returned.
    """
    figure = Figure(figsize=(8.2, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    drawn, trained = set(), set()  # the floor is that of a training grid
    for index, (label, report) in enumerate(reports.items()):
        points = report["training_grid"][0]
        panel.plot([], [], color=f"C{index}", lw=3.5, label=f"{label} ({points})")
        for name in COLUMNS[:2]:
            drawn |= _curve(panel, report, name, color=f"C{index}")
        if points not in trained:
            panel.axvline(points, color="0.75", lw=4, zorder=0)
            drawn |= _curve(panel, report, "floor", color="0.4")
        trained.add(points)
    sizes = sorted({row["grid"][0] for r in reports.values() for row in r["grids"]})
    panel.set(xscale="log", yscale="log", xlabel="points per axis of the test grid")
    panel.set_ylabel("mean relative $L^2$ error")
    panel.set_xticks(sizes, [str(size) for size in sizes], fontsize=8)
    panel.set_xticks([], minor=True)
    figures.log_ticks(panel, percent=True)
    panel.grid(alpha=0.3)
    for name in filter(drawn.__contains__, COLUMNS):
        panel.plot([], [], color="0.3", label=name, **STYLES[name])
    panel.plot([], [], color="0.75", lw=4, label="training grid")
    figure.legend(loc="outside right upper", fontsize=8)
    return figure


def _curve(panel, report: Mapping, name: str, color: str) -> set[str]:
    """Draws the errors of one way; its name, if there are any above 0."""
    points = [
        (row["grid"][0], row[name]["relative_l2"]["mean"])
        for row in report["grids"]
        if row[name] and row[name]["relative_l2"]["mean"] > 0
    ]
    if not points:
        return set()
    panel.plot(*zip(*points, strict=True), color=color, **STYLES[name])
    return {name}


def _by(grid: Sequence[int]) -> str:
    return " x ".join(map(str, grid))


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m operators.training.resolution",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--workdir", nargs="+", action="extend", required=True, help="folders of runs"
    )
    parser.add_argument(
        "--strides", nargs="+", type=int, help="test grids: every s-th stored point"
    )
    parser.add_argument("--num", type=int, help="test samples; default: all of the run")
    parser.add_argument("--checkpoint", default="best", choices=("best", "latest"))
    parser.add_argument("--inputs", default="linear", choices=INPUTS)
    parser.add_argument(
        "--figure",
        help="file of the figure; default: resolution.png in the workdir, "
        "or in the folder above the first of several",
    )
    options = parser.parse_args(argv)
    first = Path(options.workdir[0])
    folder = first if len(options.workdir) == 1 else first.parent
    figure = options.figure or folder / "resolution.png"
    try:
        reports = compare(
            options.workdir,
            strides=options.strides,
            num=options.num,
            checkpoint=options.checkpoint,
            inputs=options.inputs,
            show=functools.partial(print, flush=True),
        )
        plot(reports).savefig(figure, dpi=130)
    except (ValueError, DatasetError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(legend(next(iter(reports.values()))))
    print(f"written: {figure}, and resolution.json in each workdir")
    return 0


if __name__ == "__main__":
    sys.exit(main())
