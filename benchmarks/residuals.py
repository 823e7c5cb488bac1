"""What residuals of trajectories see: the error, or nothing.

    uv run -m benchmarks.residuals --json out.json
    uv run -m benchmarks.residuals --quick

The first table gives every kind of residual to wrong trajectories of one flow (decaying
turbulence, 11 frames 0.055 apart): H^-1 norms, root mean square over time. The second
compares the defect with the true error in the norm of `estimates.graph_norm`, with the
derivative along the flow ("material") and the plain one, on errors of all kinds and on
iterates of the refiner; then the L^2 error by the defect carried along the linearised
flow, with all substeps and with few. The third says what that costs beside solving
anew. Float64, one pinned core.
"""

import argparse
import functools
import time

from benchmarks import timing

CORE = timing.pin_one_core()  # before JAX starts its threads

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from benchmarks import residual_cases as cases  # noqa: E402
from operators.training.refinement import (  # noqa: E402
    estimates,
    minimizers,
    objective,
    residuals,
    trial_space,
)
from solvers import spectral  # noqa: E402

SUBSTEPS = 11
FEW = 2  # substeps of the cheap estimate
SIZES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
WAVES = 5  # in time, of the refiner's iterates
REFINEMENTS = {"gauss_newton": 6, "lbfgs": 40}  # iterations by minimiser


def kinds(case: cases.Case) -> dict[str, residuals.Residual]:
    """The residuals of the first table; the first word is the kind."""
    create = functools.partial(
        residuals.create, equation=case.equation, times=case.times
    )
    return {
        "one_step": create("one_step"),
        "one_step forward": create("one_step", blend=(0.0, 1.0)),
        "fd": create("fd", history_times=case.known_times),
        "fd without history": create("fd"),
        "defect": create("defect", substeps=SUBSTEPS),
        "defect cn_rk4": create("defect", substeps=SUBSTEPS, scheme="cn_rk4"),
    }


def residual_rows(case: cases.Case) -> list[dict]:
    """Residual of every kind of every trajectory."""
    rows = []
    trajectories = cases.wrong_trajectories(case)
    true = {
        name: cases.rms((frames - case.truth)[1:]) / cases.rms(case.truth[1:])
        for name, (frames, _) in trajectories.items()
    }
    print(f"{'':22s}" + "".join(f"{name:>22s}" for name in trajectories))
    print(_line("true relative L2", true.values(), 22))
    for kind, residual in kinds(case).items():
        history = bool(getattr(residual, "history_times", ()))
        norm = jax.jit(lambda v, h, residual=residual: residual.norm(residual(v, h)))
        values = {
            name: float(norm(frames, before if history else None))
            for name, (frames, before) in trajectories.items()
        }
        rows += [
            {"kind": kind, "trajectory": k, "residual": v, "true_error": true[k]}
            for k, v in values.items()
        ]
        print(_line(kind, values.values(), 22), flush=True)
    return rows


class Effectivity:
    """Compiled measures of frames of one flow.

    Args:
        case: the true flow.
        substeps: of the defect.
    """

    def __init__(self, case: cases.Case, substeps: int):
        create = functools.partial(
            residuals.create, "defect", case.equation, case.times, checkpoint=False
        )
        self.case, self.defect = case, create(substeps=substeps)
        self.few = create(substeps=FEW)
        self.march = jax.jit(self.defect.marcher(cases.SPACING))
        self.measure = jax.jit(self.numbers)

    def numbers(self, frames) -> jax.Array:
        """The [8] numbers of `row` of frames [T + 1, n, n]."""
        fields = self.defect(frames)
        truth, error = self.case.truth, (frames - self.case.truth)[1:]
        estimated = [
            estimates.propagate(d, frames, fields) for d in (self.defect, self.few)
        ]
        size = jnp.sqrt(jnp.mean(error**2))
        norms = [self.defect.norm(fields)] + [
            estimates.graph_norm(self.defect, frames, truth, derivative=d)
            for d in estimates.DERIVATIVES
        ]
        l2 = [jnp.sqrt(jnp.mean(e**2)) / size for e in estimated]
        misfit = [jnp.sqrt(jnp.mean((e - error) ** 2)) / size for e in estimated]
        relative = size / jnp.sqrt(jnp.mean(truth[1:] ** 2))
        return jnp.stack([relative, *norms, *l2, *misfit])

    def row(self, name: str, numbers) -> dict:
        """A row of the second table from `numbers`."""
        true, residual, material, plain, l2, few, misfit, few_misfit = map(
            float, numbers
        )
        n, num_times = self.case.equation.grid.shape[0], len(self.case.times) - 1
        return {
            "trajectory": name, "n": n, "num_times": num_times, "true_error": true,
            "residual": residual, "error_norm": material, "error_norm_plain": plain,
            "effectivity": residual / material, "effectivity_plain": residual / plain,
            "l2_ratio": l2, "l2_ratio_few_substeps": few,
            "l2_misfit": misfit, "l2_misfit_few_substeps": few_misfit,
        }  # fmt: skip


def effectivity_rows(effectivity: Effectivity, sizes, iterations) -> list[dict]:
    """Residual against error for all errors of `cases.errors` and the refiner.

    Args:
        effectivity: of the flow.
        sizes: of the errors, relative.
        iterations: by minimiser, that refine the first frame repeated.
    """
    case, rows = effectivity.case, []
    print(
        f"{'':36s}{'error':>9s}{'residual':>10s}{'material':>9s}{'plain':>7s}", end=""
    )
    print(f"{'L2 est.':>9s}{'2 steps':>9s}")
    for name, error in cases.errors(case, effectivity.march).items():
        for size in sizes:
            numbers = effectivity.measure(case.truth + size * error)
            rows.append(effectivity.row(name, numbers))
            _show(rows[-1])
    for name, num in iterations.items():
        for iteration, numbers in enumerate(refined(effectivity, name, num)):
            rows.append(effectivity.row(f"refined by {name}", numbers))
            if iteration % max(1, num // 8) == 0:
                _show(rows[-1])
    return rows


def refined(effectivity: Effectivity, minimizer: str, maxiter: int) -> np.ndarray:
    """Measures [iterations + 1, 8] of iterates from the first frame repeated."""
    case, defect = effectivity.case, effectivity.defect
    grid = case.equation.grid
    phases = np.pi * np.outer(case.times[1:] / case.times[-1], np.arange(WAVES)) / 2
    space = trial_space.TrialSpace(
        spectral.Modes(grid, tuple((n - 1) // 3 for n in grid.shape)),
        np.concatenate([np.cos(phases), -np.sin(phases)], axis=1),
    )
    start = jnp.broadcast_to(case.truth[:1], case.truth.shape)[None]
    history = minimizers.minimize(
        minimizers.create(minimizer, defect, space=space),
        objective.known(defect, start),
        jnp.zeros((1, *space.shape)),
        minimizers.StopRule(maxiter=maxiter, reduction=0.0, patience=maxiter),
        error=lambda frames: effectivity.numbers(frames[0])[None],
    )
    return history.errors[:, 0]


def cost_rows(effectivity: Effectivity, repetitions: int) -> list[dict]:
    """Seconds of a residual, of the L^2 estimates and of solving anew."""
    case, defect = effectivity.case, effectivity.defect
    frames = case.truth[::-1]
    fields = jax.jit(defect)(frames)

    def solve(field):
        def step(field, _):
            field = defect.marcher(cases.SPACING)(field)
            return field, field

        return jax.lax.scan(step, field, length=len(case.times) - 1)[1]

    runs = {
        "residual": (jax.jit(defect), (frames,)),
        "solving anew": (jax.jit(solve), (case.truth[0],)),
    }
    for name, d in (("all", defect), ("few", effectivity.few)):
        run = jax.jit(functools.partial(estimates.propagate, d))
        runs[f"L2 estimate, {name} substeps"] = (run, (frames, fields))
    seconds = dict.fromkeys(runs, np.inf)
    for repetition in range(repetitions + 1):  # the first compiles
        for name, (run, arguments) in runs.items():
            start = time.perf_counter()
            jax.block_until_ready(run(*arguments))
            if repetition:
                taken = time.perf_counter() - start
                seconds[name] = min(seconds[name], taken)
    anew = seconds["solving anew"]
    for name, value in seconds.items():
        print(f"{name:30s}{value:10.4f} s  {value / anew:6.2f} of solving anew")
    return [{"what": k, "seconds": v} for k, v in seconds.items()]


def summary(rows: list[dict]) -> dict:
    """The ranges of the effectivities."""
    ranges = {}
    for key in ("effectivity", "effectivity_plain", "l2_ratio"):
        values = [row[key] for row in rows if row["true_error"] >= 0.5e-5]
        ranges[key] = [min(values), max(values)]
        print(f"{key:20s} {ranges[key][0]:6.2f} ... {ranges[key][1]:.2f}")
    return ranges


def main() -> None:
    """Prints the tables and writes the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", help="path of the JSON file")
    parser.add_argument("--quick", action="store_true", help="coarse grid, few errors")
    arguments = parser.parse_args()
    timing.switch_on_float64()
    quick = arguments.quick
    case = cases.decaying_flow(32 if quick else 64, 10)
    rows = residual_rows(case)
    print()
    effectivity = Effectivity(case, 4 if quick else SUBSTEPS)
    found = effectivity_rows(effectivity, SIZES[::2] if quick else SIZES, REFINEMENTS)
    ranges = {"10 frames": summary(found)}
    if not quick:
        longer = Effectivity(cases.decaying_flow(96, 40), 8)
        print("\n40 frames, 96 x 96")
        later = effectivity_rows(longer, SIZES[::2], {"gauss_newton": 6})
        ranges["40 frames"] = summary(later)
        found += later
    print()
    costs = cost_rows(effectivity, 3 if quick else 10)
    timing.write_json(
        arguments.json,
        title="Residuals of trajectories and what they say about the error",
        rows=rows,
        effectivity=found,
        ranges=ranges,
        costs=costs,
    )


def _line(name: str, values, width: int) -> str:
    return f"{name:22s}" + "".join(f"{v:{width}.2e}" for v in values)


def _show(row: dict) -> None:
    print(
        f"{row['trajectory']:36s}{row['true_error']:9.1e}{row['residual']:10.2e}"
        f"{row['effectivity']:9.2f}{row['effectivity_plain']:7.2f}"
        f"{row['l2_ratio']:9.3f}{row['l2_ratio_few_substeps']:9.3f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
