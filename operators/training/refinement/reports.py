"""Files of a refinement: finished parts, and the table and figure of the report."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def table(report: Mapping) -> str:
    """Errors, residuals and times of every minimiser, beside solving anew."""
    space, best = report["trial_space"], np.mean(report["best_approximation"]["error"])
    lines = [
        f"{report['workdir']}: {len(report['sample_ids'])} unseen trajectories, "
        f"{len(report['times'])} frames on {_by(report['grid'])} points, residual "
        f"{report['residual']['kind']}",
        f"  free per trajectory: {space['num_parameters']:,} numbers, "
        f"{space['num_functions']} functions of time",
        f"  best approximation in that space: error {best:.2e}",
        f"  floor, our solver with many steps on this grid: error "
        f"{np.mean(report['floor']):.2e}, below which nothing is claimed",
        f"  {'':16s}{'error':>10s}{'':>11s}{'residual':>10s}{'iterations':>12s}"
        f"{'s/iteration':>13s}{'s in all':>10s}{'s anew':>10s}",
        _row("model", report["start"], None),
    ]
    for name, result in report["minimizers"].items():
        lines.append(_row(name, result, report["seconds_before"]))
    lines.append(
        "mean relative L2 errors over the trajectories, x: that of the model over it;\n"
        "seconds of all trajectories, compilation left out, those in all with the\n"
        "model's forward pass; s anew: our solver to the same error, on the cheapest\n"
        "of this grid and coarser ones, in float64 or float32 (-: it does not reach it)"
    )
    return "\n".join([*lines, *verdicts(report)])


def verdicts(report: Mapping) -> list[str]:
    """Whether solving anew is cheaper, one line per minimiser."""
    lines = []
    for name, result in report["minimizers"].items():
        if result["anew"] is None:
            continue
        anew = result["anew"]
        ratio = (report["seconds_before"] + sum(result["seconds"])) / anew["seconds"]
        word = "cheaper" if ratio > 1 else "dearer"
        ratio = max(ratio, 1 / ratio)
        lines.append(
            f"solving anew is {ratio:.3g} times {word} than {name} "
            f"({_by(anew['grid'])} points, {anew['dtype']}, {anew['substeps']} steps "
            "per frame)"
        )
    return lines


def _row(name: str, result: Mapping, before: float | None) -> str:
    error, residual = np.mean(result["error"]), np.mean(result["residual"])
    text = f"  {name:16s}{error:10.2e}"
    if before is None:
        return text + f"{'':11s}{residual:10.2e}"
    seconds, anew = result["seconds"], result["anew"]
    text += f"{result['reduction']:10.3g}x{residual:10.2e}{len(seconds):12d}"
    text += f"{np.mean(seconds):13.3g}{before + sum(seconds):10.3g}"
    return text + (f"{anew['seconds']:10.3g}" if anew else f"{'-':>10s}")


def figure(report: Mapping) -> Figure:
    """Error and residual against iterations, and error against wall time."""
    picture = Figure(figsize=(11, 3.6), layout="constrained")
    FigureCanvasAgg(picture)
    panels = picture.subplots(1, 3)
    best = np.mean(report["best_approximation"]["error"])
    for index, (name, result) in enumerate(report["minimizers"].items()):
        style = {"color": f"C{index}", "marker": ".", "label": name.replace("_", " ")}
        errors, residuals = (
            np.mean(result[key], axis=1) for key in ("errors", "residuals")
        )
        clock = np.cumsum([report["seconds_before"], *result["seconds"]])
        panels[0].plot(errors, **style)
        panels[1].plot(residuals, **style)
        panels[2].plot(clock, errors, **style)
    panels[0].axhline(best, color="0.4", ls="--", label="best in the trial space")
    panels[2].axhline(best, color="0.4", ls="--")
    panels[0].axhline(np.mean(report["floor"]), color="0.4", ls=":", label="floor")
    rows = _frontier(report["anew"])
    panels[2].plot(
        [row["seconds"] for row in rows],
        [np.mean(row["error"]) for row in rows],
        color="k",
        marker="x",
        label="solving anew",
    )
    panels[2].set_xscale("symlog", linthresh=1e-2)
    for panel, x, y in zip(
        panels,
        ("iteration", "iteration", "seconds, all trajectories"),
        ("relative $L^2$ error", "relative $H^{-1}$ residual", "relative $L^2$ error"),
        strict=True,
    ):
        panel.set(yscale="log", xlabel=x, ylabel=y)
        panel.grid(alpha=0.3)
    handles = {}
    for panel in (panels[0], panels[2]):
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    picture.legend(
        handles.values(), handles.keys(), loc="outside right upper", fontsize=8
    )
    return picture


def _frontier(rows: list[Mapping]) -> list[Mapping]:
    """Rows that no cheaper one beats, the cheapest first."""
    best, kept = np.inf, []
    for row in sorted(rows, key=lambda row: row["seconds"]):
        if np.mean(row["error"]) < best:  # false for NaN
            best = np.mean(row["error"])
            kept.append(row)
    return kept


class Parts:
    """Finished batches of a refinement, in the folder of the run until all are done.

    Args:
        folder: of the run.
        key: what must be the same for a part to count: config, step, data.
    """

    def __init__(self, folder: Path, key: Mapping):
        self._folder, self._key = folder, json.dumps(key, sort_keys=True)

    def part(self, index: int, work: Callable[[], tuple[dict, dict]]):
        """Report and frames by name of one batch, from its file or from `work`."""
        path = self._folder / f"refinement_part{index}.npz"
        if path.exists():
            with np.load(path) as file:
                if str(file["key"]) == self._key:
                    names = json.loads(str(file["names"]))
                    report = json.loads(str(file["report"]))
                    return report, {name: file[f"frames_{name}"] for name in names}
        report, frames = work()
        text = json.dumps(report, default=lambda values: np.asarray(values).tolist())
        temporary = path.with_name(path.name + ".tmp")
        with temporary.open("wb") as file:
            np.savez(
                file,
                key=self._key,
                report=text,
                names=json.dumps(list(frames)),
                **{f"frames_{name}": values for name, values in frames.items()},
            )
        temporary.replace(path)
        return json.loads(text), frames

    def clear(self) -> None:
        """Removes the files of all parts."""
        for path in self._folder.glob("refinement_part*.npz*"):
            path.unlink()


def _by(grid) -> str:
    return " x ".join(map(str, grid))
