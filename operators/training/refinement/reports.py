"""The table and the figure of a refinement, from the content of `refinement.json`."""

from collections.abc import Mapping

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
        f"  {'':16s}{'error':>10s}{'':>11s}{'residual':>10s}{'iterations':>12s}"
        f"{'s/iteration':>13s}{'s in all':>10s}{'s anew':>10s}",
        _row("model", report["start"], None),
    ]
    for name, result in report["minimizers"].items():
        lines.append(_row(name, result, result["anew"]))
    lines.append(
        "mean relative L2 errors over the trajectories, x: that of the model over it;\n"
        "seconds of all trajectories, compilation left out; s anew: our solver on the\n"
        "same grid to the same error (-: it does not reach it)"
    )
    return "\n".join([*lines, *verdicts(report)])


def verdicts(report: Mapping) -> list[str]:
    """Whether solving anew is cheaper, one line per minimiser."""
    lines = []
    for name, result in report["minimizers"].items():
        if result["anew"] is None:
            continue
        ratio = sum(result["seconds"]) / result["anew"]["seconds"]
        word = "cheaper" if ratio > 1 else "dearer"
        ratio = max(ratio, 1 / ratio)
        lines.append(f"solving anew is {ratio:.3g} times {word} than {name}")
    return lines


def _row(name: str, result: Mapping, anew: Mapping | None) -> str:
    error, residual = np.mean(result["error"]), np.mean(result["residual"])
    text = f"  {name:16s}{error:10.2e}"
    if "seconds" not in result:
        return text + f"{'':11s}{residual:10.2e}"
    seconds = result["seconds"]
    text += f"{result['reduction']:10.3g}x{residual:10.2e}{len(seconds):12d}"
    text += f"{np.mean(seconds):13.3g}{sum(seconds):10.3g}"
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
        clock = np.concatenate([[0.0], np.cumsum(result["seconds"])])
        panels[0].plot(errors, **style)
        panels[1].plot(residuals, **style)
        panels[2].plot(clock, errors, **style)
    panels[0].axhline(best, color="0.4", ls="--", label="best in the trial space")
    panels[2].axhline(best, color="0.4", ls="--")
    rows = [r for r in report["anew"] if np.isfinite(np.mean(r["error"]))]
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


def _by(grid) -> str:
    return " x ".join(map(str, grid))
