"""Integrates a few samples with every scheme: what a time step costs and brings."""

import dataclasses
import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from datagen import evolution
from datagen.plan import Plan, PlanError, sample_rng
from datagen.problems.base import TimeStepping
from datagen.progress import milliseconds
from datagen.storage.ledger import cpu_model

NUM_SAMPLES = 2
PART = 0.25  # of all time: what takes longer is timed once, and again if time is left
REFERENCE = 0.25  # of the planned step
REFERENCE_SCHEME = "etdrk4"  # fourth order, diffusion included
HEADER = ("scheme", "step", "first", "last", "defect", "steps", "FFTs", "time", "note")
FOOT = """\
All integrate the same {num} samples together; step: what the plan says, times that.
first, last: relative L2 error of the first and the last stored frame that differ from
the start, against {scheme} with {reference:g} of the step, the largest of the samples.
defect: of the balance laws, accepted up to {accept:g}. FFTs, time: of one sample.
*: as planned. Chaotic flows forget their steps: compare the first frames there."""


def command(plan: Plan, options, poll: Callable[[], None]) -> int:
    """`python -m datagen explain` of a set that is integrated in time.

    Args:
        plan: need not be written; explain.png goes into its folder.
        options: of the command line: num, seconds, json.
        poll: called between integrations; may raise to stop.

    Returns:
        The exit code: 1 if the planned step fails.

    Raises:
        PlanError: if the number of samples or of seconds is out of range.
    """
    if not 0 < options.seconds < math.inf:
        raise PlanError(f"--seconds is {options.seconds}; expected a positive number")
    num = min(NUM_SAMPLES, plan.num_samples) if options.num is None else options.num
    if not 1 <= num <= plan.num_samples:
        raise PlanError(f"--num is {num}; expected 1 to {plan.num_samples}")
    print(f"{plan.config['name']}: {plan.content['equation']}")
    print(f"integrating {num} samples for about {options.seconds:.0f} s", flush=True)
    report = explain(plan, num=num, seconds=options.seconds, poll=poll)
    print(table(report))
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=1) + "\n")
        print(options.json)
    if drawable(report):
        plan.root.mkdir(parents=True, exist_ok=True)
        draw(report, plan.root / "explain.png")
        print(plan.root / "explain.png")
    return int("seconds" not in report["rows"][0])


def explain(
    plan: Plan, *, num: int, seconds: float, poll: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Integrates samples by the plan, with other steps and with other schemes.

    Args:
        plan: need not be written.
        num: samples, the first of the plan, integrated together.
        seconds: no integration is begun after that time; the planned one always is.
        poll: called between integrations; may raise to stop.

    Returns:
        A report that JSON can hold: what was measured and rows, the planned one first
        and the reference second. Rows hold scheme, factor (of the planned step), dt,
        cfl and either `refused`, a sentence, or steps, transforms, defect, seconds (per
        sample), compile_seconds, warm (False where there was no time to measure twice:
        then the seconds include compilation) and, where there is a reference, the
        errors `first` and `last`.
    """
    problem = plan.problem()
    ids = plan.order[:num].tolist()
    rngs = (sample_rng(plan.config["seed"], i, evolution.STREAM) for i in ids)
    samples = [problem.sample(rng) for rng in rngs]
    runs = [Run(*attempt) for attempt in _attempts(evolution.stepping(plan.solver))]
    for run in runs:
        run.check(problem)
    end = time.perf_counter() + seconds
    for again in (False, True):
        for run in runs:
            poll()
            if run.refused or (again and len(run.seconds) > 1):
                continue
            if time.perf_counter() < end or (run is runs[0] and not again):
                run.measure(problem, samples, PART * seconds)
            elif not again:
                run.refused = f"not begun after {seconds:g} s"
    reference = next(run.frames for run in runs if run.factor == REFERENCE)
    rows = [run.row(reference) for run in runs]
    return {
        "name": plan.config["name"],
        "equation": problem.equation,
        "rows": rows,
        "num_samples": num,
        "accept": plan.solver["accept_rtol"],
        "cpu": cpu_model(),
    }


@dataclasses.dataclass
class Run:
    """One scheme with one step: what came out of it.

    Attributes:
        factor: the step is that of the plan, times this.
        step: scheme and step.
        refused: why it gave nothing, in a sentence.
        seconds: of every integration of all samples; the first one compiles.
        found: numbers of the last integration.
        frames: [B, 2, *grid], the first and the last frame that are not the start.
    """

    factor: float
    step: TimeStepping
    refused: str = ""
    seconds: list[float] = dataclasses.field(default_factory=list)
    found: dict[str, float] = dataclasses.field(default_factory=dict)
    frames: np.ndarray | None = None

    def check(self, problem) -> None:
        """Finds out whether the scheme takes the problem at all."""
        try:
            if check := getattr(problem, "check", None):
                check(self.step)
        except ValueError as error:
            self.refused = " ".join(str(error).split())

    def measure(self, problem, samples: list[Any], limit: float) -> None:
        """Integrates once and, where that takes no longer than `limit`, twice."""
        try:
            self._integrate(problem, samples)
            if len(self.seconds) == 1 and self.seconds[0] < limit:
                self._integrate(problem, samples)
        except Exception as error:
            self.refused = " ".join(str(error).split())

    def _integrate(self, problem, samples: list[Any]) -> None:
        start = time.perf_counter()
        with np.errstate(all="ignore"):
            found = problem.evolve(samples, self.step)
        self.seconds.append(time.perf_counter() - start)
        name = next(spec.name for spec in problem.fields if spec.time_varying)
        frames = np.asarray(found.fields[name], np.float64)
        if not np.isfinite(frames).all():
            raise ValueError("the trajectories are not finite")
        first = int(problem.steps[0] == 0 and len(problem.steps) > 1)
        self.frames = frames[:, [first, -1]]
        self.found = {
            "steps": float(np.mean(found.steps)),
            "transforms": float(np.mean(found.transforms)),
            "defect": float(np.max(found.defect)),
        }

    def row(self, reference: np.ndarray | None) -> dict[str, Any]:
        """What the report says, with errors against frames of a reference."""
        step = {"dt": self.step.dt, "cfl": self.step.cfl}
        row = {"scheme": self.step.scheme, "factor": self.factor, **step}
        if self.refused:
            return row | {"refused": self.refused}
        num, seconds = len(self.frames), min(self.seconds)
        row |= self.found | {"seconds": seconds / num}
        row["compile_seconds"] = self.seconds[0] - seconds
        row["warm"] = len(self.seconds) > 1
        if reference is None or self.factor == REFERENCE:
            return row
        return row | _errors(self.frames, reference)


def _attempts(planned: TimeStepping) -> list[tuple[float, TimeStepping]]:
    """Factors of the planned step and steppings: planned, reference, the others."""
    from solvers.spectral.steppers import STEPPERS

    def scaled(factor: float) -> TimeStepping:
        dt, cfl = (v and v * factor for v in (planned.dt, planned.cfl))
        return dataclasses.replace(planned, dt=dt, cfl=cfl)

    reference = {"scheme": REFERENCE_SCHEME, "dtype": "float64"}
    others = [name for name in STEPPERS if name != planned.scheme]
    return [
        (1.0, planned),
        (REFERENCE, dataclasses.replace(scaled(REFERENCE), **reference)),
        *((factor, scaled(factor)) for factor in (2.0, 0.5)),
        *((1.0, dataclasses.replace(planned, scheme=name)) for name in others),
    ]


def _errors(frames: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Relative L2 errors of two frames [B, 2, *grid], the largest of the samples."""
    axes = tuple(range(2, frames.ndim))
    size = np.sqrt((reference**2).mean(axes))
    errors = np.sqrt(((frames - reference) ** 2).mean(axes)) / np.where(size, size, 1)
    return dict(zip(("first", "last"), errors.max(0).tolist(), strict=True))


def table(report: Mapping[str, Any]) -> str:
    """The report as text."""
    lines, refused = [HEADER], []
    for i, row in enumerate(report["rows"]):
        if "refused" in row:
            refused.append(f"\n  {row['scheme']} {_step(row)}: {row['refused']}")
            continue
        errors = [f"{row[k]:.1e}" if k in row else "-" for k in ("first", "last")]
        notes = ["reference"] if row["factor"] == REFERENCE else []
        if not row["warm"]:
            notes.append("time includes compilation")
        elif row["compile_seconds"] > 0.1:
            notes.append(f"compiled in {row['compile_seconds']:.1f} s")
        line = ("*" if i == 0 else "") + row["scheme"], _step(row), *errors
        line += (
            f"{row['defect']:.1e}",
            f"{row['steps']:.0f}",
            f"{row['transforms']:.0f}",
        )
        lines.append((*line, milliseconds(row["seconds"]), "; ".join(notes)))
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEADER))]
    ends = (0, len(HEADER) - 1)
    text = "\n".join(
        "  ".join(
            cell.ljust(width) if i in ends else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
    if refused:
        text += "\nnot measured:" + "".join(refused)
    foot = FOOT.format(
        num=report["num_samples"],
        scheme=REFERENCE_SCHEME,
        reference=REFERENCE,
        accept=report["accept"],
    )
    return f"{text}\n{foot}"


def _step(row: Mapping[str, Any]) -> str:
    return f"x {row['factor']:g}"


def drawable(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Rows with an error and a time that does not include compilation."""
    return [r for r in report["rows"] if r.get("first", 0) > 0 and r["warm"]]


def draw(report: Mapping[str, Any], path: Path) -> None:
    """Draws the error of the first frame against the time of a sample, as a PNG."""
    figure = Figure(figsize=(7, 5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.subplots()
    planned = report["rows"][0]
    for row in drawable(report):
        ours = row["scheme"] == planned["scheme"]
        colour = "#1b7837" if row is planned else "#5b8db8" if ours else "#b9b9b9"
        place = 1e3 * row["seconds"], row["first"]
        ax.scatter(*place, color=colour)
        text = f"  {row['scheme']}, step {_step(row)}" if ours else f"  {row['scheme']}"
        ax.text(*place, text, va="center", fontsize="small")
    ax.set(xscale="log", yscale="log", xlabel="milliseconds per sample")
    ax.set_ylabel("relative L2 error of the first stored frame")
    ax.margins(x=0.25)
    ax.spines[["top", "right"]].set_visible(False)
    figure.suptitle(
        f"{report['name']}: error and time of {report['num_samples']} samples\n"
        f"planned: {planned['scheme']} (green)",
        fontsize="medium",
    )
    figure.savefig(path)
