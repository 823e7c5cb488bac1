"""Errors of the time steppers of `solvers.spectral`, by number of steps.

    uv run -m benchmarks.time_steppers --json out.json
    uv run -m benchmarks.time_steppers --quick

The reference flow of two-dimensional Navier-Stokes, at two viscosities, and the stiff
Kuramoto-Sivashinsky equation, against many more steps of the best scheme; then what
single precision adds. No clock is read.
"""

import argparse
import math

import jax
import numpy as np

from benchmarks import timing
from solvers import spectral

SCHEMES = [name for name in spectral.STEPPERS if name != "legacy_fno"]
STEPS = (20, 40, 80)
BEST = "etdrk4_krogstad"
ROUNDING = 1e-12  # errors below it have no order


def flow(n: int, viscosity: float):
    """The reference flow: equation and initial vorticity [n, n]."""
    grid = spectral.PeriodicGrid((n, n), (2 * np.pi, 2 * np.pi))
    x, y = grid.mesh()
    vorticity = np.cos(x) * np.cos(2 * y) + np.sin(2 * x + y) + 0.5 * np.cos(3 * y - x)
    return spectral.NavierStokes2d(grid, viscosity=viscosity), vorticity


def waves(n: int):
    """Kuramoto-Sivashinsky on length 22: equation and initial field [n]."""
    grid = spectral.PeriodicGrid((n,), (22.0,))
    x = 2 * np.pi * grid.mesh()[0] / 22
    field = np.cos(x) + 0.3 * np.sin(2 * x) - 0.5 * np.cos(3 * x)
    return spectral.KuramotoSivashinsky1d(grid), field


def relative(field, exact) -> float:
    """Relative L2 difference."""
    return float(np.linalg.norm(field - exact) / np.linalg.norm(exact))


def order(previous: float, error: float) -> float:
    """Observed order between a step and its half; NaN where rounding decides."""
    return math.log2(previous / error) if error > ROUNDING else math.nan


def scheme_rows(problem: str, equation, field, end: float, schemes) -> list[dict]:
    """Error and balance-law defect of every scheme after every number of steps."""

    def last(steps, scheme):
        run = spectral.rollout(
            equation, field, [end], dt=end / steps, scheme=scheme, record=("balance",)
        )
        return np.asarray(run.fields[0]), float(run.diagnostics["balance"][0])

    exact, _ = last(10 * STEPS[-1], BEST)
    rows = []
    for scheme in schemes:
        previous = math.nan
        for steps in STEPS:
            got, defect = last(steps, scheme)
            error = relative(got, exact)
            row = {
                "problem": problem,
                "method": scheme,
                "n": equation.grid.shape[0],
                "steps": steps,
                "transforms": steps * spectral.transforms_per_step(scheme, equation),
                "error": error,
                "order": order(previous, error),
                "balance": defect,
            }
            rows.append(row)
            previous = error
        print(
            f"{problem:28s} {scheme:16s}",
            *(f"{row['error']:9.1e}" for row in rows[-len(STEPS) :]),
            f"order {row['order']:5.2f}  balance {defect:.1e}",
            flush=True,
        )
    return rows


def precision_rows(n: int, steps: tuple[int, ...]) -> list[dict]:
    """Difference of float32 and float64 after many steps of the reference flow."""
    equation, field = flow(n, 1e-3)
    rows = []
    for scheme in ("etdrk4", "cn_rk4"):
        for count in steps:
            ends = [
                spectral.rollout(
                    equation, field.astype(dtype), [10.0], dt=10 / count, scheme=scheme
                ).fields
                for dtype in (np.float32, np.float64)
            ]
            difference = relative(*map(np.asarray, ends))
            row = {"problem": "float32", "method": scheme, "n": n, "steps": count}
            rows.append(row | {"error": difference})
            print(f"float32 {scheme} {count} steps: {difference:.1e}", flush=True)
    return rows


def main() -> None:
    """Runs all tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", help="file for the rows")
    parser.add_argument("--quick", action="store_true", help="two schemes, small grids")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    n, schemes = (48, ("cn_rk4", "etdrk4")) if options.quick else (96, SCHEMES)
    rows = []
    for viscosity in (0.01, 0.1):
        name = f"navier_stokes nu={viscosity}"
        rows += scheme_rows(name, *flow(n, viscosity), 1.0, schemes)
    rows += scheme_rows("kuramoto_sivashinsky", *waves(48), 4.0, schemes)
    rows += precision_rows(n // 2, (1000,) if options.quick else (1000, 10_000))
    timing.write_json(options.json, title=__doc__.splitlines()[0], rows=rows)


if __name__ == "__main__":
    main()
