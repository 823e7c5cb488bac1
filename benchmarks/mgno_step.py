"""Seconds per training step of MgNO: our convolutions against XLA's own rules.

    uv run -m benchmarks.mgno_step --grids 65 --json out.json

Loss and gradients of the paper's smooth-Darcy model (5 layers, 6 levels, 24 channels),
float32, jitted, both variants in turn on one pinned core; minima. `xla_rules` differs
only in how convolutions are transposed and differentiated; the largest difference of
the two gradients, relative to their norm, is the row's `gradient_difference`.
"""

import argparse
import contextlib
import json
import pathlib
import time

from benchmarks import timing

timing.pin_one_core()  # before JAX starts its threads

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from flax import nnx  # noqa: E402
from jax import lax  # noqa: E402

from operators import models  # noqa: E402
from operators.layers import convolution, correlation  # noqa: E402

CYCLE = (*((1, 0),) * 5, (2, 0))


def zero_insertion(u, kernel, *, crop, padding="zero"):
    """The textbook transposed convolution, as `convolution.transposed_convolve`."""
    if padding != "zero":
        raise ValueError(f"only zero padding is compared here, got {padding!r}")
    widths = [(k - 1 - crop, k - 1 - crop) for k in kernel.shape[:2]]
    return lax.conv_general_dilated(
        u,
        kernel[::-1, ::-1],
        (1, 1),
        widths,
        lhs_dilation=(2, 2),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


@contextlib.contextmanager
def xla_rules():
    """Traces models with XLA's transposed convolution and rules of differentiation."""
    saved = convolution.transposed_convolve, correlation._ROW_PRODUCTS_FROM
    convolution.transposed_convolve = zero_insertion
    correlation._ROW_PRODUCTS_FROM = float("inf")
    try:
        yield
    finally:
        convolution.transposed_convolve, correlation._ROW_PRODUCTS_FROM = saved


def build_step(n: int, batch: int):
    """A jitted function of nothing that returns loss and gradients, and the model."""
    model = models.create(
        "mgno", rngs=nnx.Rngs(0), in_channels=1, out_channels=1, grid=(n, n),
        channels=24, num_layers=5, cycle=CYCLE,
    )  # fmt: skip
    graph, state = nnx.split(model)
    rng = np.random.default_rng(0)
    x, y = (jnp.asarray(rng.normal(size=(batch, n, n, 1)), jnp.float32) for _ in "xy")

    def loss(state):
        return jnp.sum((nnx.merge(graph, state)(x) - y) ** 2)

    step = jax.jit(jax.value_and_grad(loss))
    return lambda: jax.block_until_ready(step(state))


def measure(n: int, batch: int, num: int) -> list[dict]:
    """Rows of both variants on one grid."""
    steps, gradients = {}, {}
    for name, rules in (("ours", contextlib.nullcontext), ("xla_rules", xla_rules)):
        with rules():  # traced here, with these rules
            steps[name] = build_step(n, batch)
            gradients[name] = jax.tree.leaves(steps[name]()[1])
    norm = np.sqrt(sum(float(jnp.sum(g**2)) for g in gradients["xla_rules"]))
    difference = max(
        float(jnp.linalg.norm(a - b)) / norm
        for a, b in zip(*gradients.values(), strict=True)
    )

    def timed(step):
        def run(item: int) -> dict:
            start = time.perf_counter()
            step()
            return {"seconds": time.perf_counter() - start}

        return run

    results = timing.interleave({k: timed(s) for k, s in steps.items()}, num=num)
    rows = [
        {
            "method": name,
            "n": n,
            "batch": batch,
            "seconds": min(run["seconds"] for run in runs[1:]),
            "gradient_difference": difference,
            "accepted": bool(difference < 1e-4),
        }
        for name, runs in results.items()
    ]
    return timing.add_ratios(rows, peers={"xla_rules"})


def main() -> None:
    """Measures every grid, prints the table and writes the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--grids", type=int, nargs="+", default=[65], help="n of n x n")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--num", type=int, default=5, help="timed steps per variant")
    parser.add_argument("--json", default=None, help="file to write")
    options = parser.parse_args()
    rows = []
    for n in options.grids:
        rows += measure(n, options.batch, options.num)
    machine = timing.hardware()
    print(f"{'method':<12}{'n':>6}{'batch':>7}{'seconds':>10}{'ratio':>8}")
    for row in rows:
        print(
            f"{row['method']:<12}{row['n']:>6}{row['batch']:>7}{row['seconds']:>10.3f}"
            f"{row['ratio_to_best_peer']:>8.2f}"
        )
    print(f"{machine['cpu']}, {machine['cores_used']} core, {machine['date']}")
    if options.json is not None:
        content = {"title": "MgNO training step", "hardware": machine, "rows": rows}
        pathlib.Path(options.json).write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
