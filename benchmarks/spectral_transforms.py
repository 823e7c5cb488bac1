"""Seconds of a spectral layer by FFT and by matrix products, and the rule for "auto".

    uv run -m benchmarks.spectral_transforms --json out.json [--quick]

One `SpectralConvolution` forward and backward (gradients of input and weights),
float32, jitted, both transforms in turn; minima over the repetitions. On CPU one pinned
core. `choice` is what transform="auto" takes on this back end, `regret` its seconds
over those of the faster one. `--fit` prints the cost of an FFT, as in
`operators.layers.spectral_costs`, that makes the largest regret smallest. `difference`
is the largest deviation of the two outputs, relative to the largest value.
"""

import argparse
import json
import pathlib
import time

from benchmarks import timing

CORE = timing.pin_one_core()  # before JAX starts its threads

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from flax import nnx  # noqa: E402

from operators.layers import spectral, spectral_costs  # noqa: E402

# (grid, modes, channels, batch), layout symmetric.
CASES = [
    ((1024,), (16,), 64, 8),
    ((8192,), (16,), 64, 2),
    ((1024,), (64,), 64, 8),
    ((8192,), (256,), 32, 2),
    ((8192,), (1024,), 32, 2),
    ((64, 64), (8, 8), 32, 8),
    ((64, 64), (16, 16), 32, 8),
    ((96, 96), (12, 12), 32, 8),
    ((128, 128), (12, 12), 32, 4),
    ((128, 128), (32, 32), 32, 4),
    ((240, 240), (12, 12), 32, 2),
    ((241, 241), (12, 12), 32, 2),
    ((256, 256), (32, 32), 32, 1),
    ((256, 256), (64, 64), 32, 1),
    ((480, 480), (12, 12), 32, 1),
    ((480, 480), (100, 100), 8, 1),
    ((32, 32, 32), (4, 4, 4), 20, 1),
    ((32, 32, 32), (8, 8, 8), 20, 1),
    ((64, 64, 40), (8, 8, 8), 20, 1),
    ((64, 64, 64), (16, 16, 16), 8, 1),
]
QUICK = [CASES[0], CASES[5], CASES[16]]


def build(grid, modes, channels, batch, transform):
    """Compiles loss and gradients of one layer; returns (run, forward, arguments)."""
    layer = spectral.SpectralConvolution(
        channels, channels, modes=modes, transform=transform, rngs=nnx.Rngs(0)
    )
    graph, params = nnx.split(layer)
    u = np.random.default_rng(0).normal(size=(batch, *grid, channels))
    u = jnp.asarray(u, jnp.float32)

    def loss(params, u):
        return jnp.sum(nnx.merge(graph, params)(u) ** 2)

    forward = jax.jit(lambda params, u: nnx.merge(graph, params)(u))
    run = jax.jit(jax.grad(loss, argnums=(0, 1)))
    return run, forward, (params, u)


def measure(case, repetitions: int) -> dict:
    """Times both transforms in turn on one case."""
    grid, modes, channels, batch = case
    runs, outputs, seconds = {}, {}, {}
    for transform in ("dft", "fft"):
        run, forward, arguments = build(*case, transform)
        runs[transform] = lambda run=run, arguments=arguments: run(*arguments)
        outputs[transform] = np.asarray(forward(*arguments))
        seconds[transform] = np.inf
        jax.block_until_ready(runs[transform]())
    for _ in range(repetitions):
        for transform, run in runs.items():
            start = time.perf_counter()
            jax.block_until_ready(run())
            elapsed = time.perf_counter() - start
            seconds[transform] = min(seconds[transform], elapsed)
    frequencies = spectral.mode_frequencies(modes, "symmetric")
    choice = spectral_costs.faster_transform(grid, grid, frequencies)
    difference = np.abs(outputs["dft"] - outputs["fft"]).max()
    return {
        "grid": grid,
        "modes": modes,
        "channels": channels,
        "batch": batch,
        "seconds_dft": seconds["dft"],
        "seconds_fft": seconds["fft"],
        "choice": choice,
        "regret": seconds[choice] / min(seconds.values()),
        "difference": float(difference / np.abs(outputs["fft"]).max()),
    }


def fit(rows: list[dict]) -> tuple[float, float]:
    """The largest regret that the best cost of an FFT leaves, and that cost."""
    outcomes = []
    for cost in np.geomspace(1, 200, 80):
        regrets = []
        for row in rows:
            frequencies = spectral.mode_frequencies(row["modes"], "symmetric")
            choice = spectral_costs.faster_transform(
                row["grid"], row["grid"], frequencies, fft_cost=cost
            )
            fastest = min(row["seconds_dft"], row["seconds_fft"])
            regrets.append(row[f"seconds_{choice}"] / fastest)
        outcomes.append((max(regrets), float(cost)))
    return min(outcomes)


def main():
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--json", type=pathlib.Path, help="file for the rows")
    parser.add_argument("--quick", action="store_true", help="three small cases")
    parser.add_argument("--fit", action="store_true", help="prints the best cost")
    parser.add_argument("--repetitions", type=int, default=7)
    options = parser.parse_args()
    rows = []
    print(f"back end {jax.default_backend()}, core {CORE}")
    print(f"{'grid':>14} {'modes':>12} {'c':>3} {'b':>3} {'dft ms':>8} {'fft ms':>8}"
          f" {'choice':>6} {'regret':>6} {'difference':>10}")  # fmt: skip
    for case in QUICK if options.quick else CASES:
        row = measure(case, 2 if options.quick else options.repetitions)
        rows.append(row)
        grid, modes = ("x".join(map(str, row[key])) for key in ("grid", "modes"))
        print(
            f"{grid:>14} {modes:>12} {row['channels']:>3} {row['batch']:>3}"
            f" {1e3 * row['seconds_dft']:8.2f} {1e3 * row['seconds_fft']:8.2f}"
            f" {row['choice']:>6} {row['regret']:6.2f} {row['difference']:10.1e}",
            flush=True,
        )
    if options.fit:
        regret, cost = fit(rows)
        print(f"best cost of an FFT: {cost:.1f}, largest regret {regret:.2f}")
    if options.json:
        result = {"hardware": timing.hardware(), "backend": jax.default_backend()}
        options.json.write_text(json.dumps(result | {"rows": rows}, indent=1))


if __name__ == "__main__":
    main()
