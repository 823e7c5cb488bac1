"""What it costs to sort samples by their features.

    uv run -m benchmarks.sorting --json out.json

Features: 36 cosine modes of a random field with falling amplitudes (smooth), and 36
independent normal numbers, the worst case. One process per row, so that its peak memory
is its own; CPU seconds on one core.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

from benchmarks import timing

CASES = (("greedy", 10_000), ("greedy", 20_000), ("tree", 10_000), ("cells", 100_000))
NUM_FEATURES = 36


def main(argv: list[str] | None = None) -> list[dict]:
    """Runs every case in a process of its own; prints and returns the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", default=None, help="output file")
    parser.add_argument("--one", nargs=3, help="method, samples and kind of one case")
    args = parser.parse_args(argv)
    if args.one:
        method, num, kind = args.one
        print(json.dumps(measure(method, int(num), kind)))
        return []
    rows = []
    for method, num in CASES:
        for kind in ("smooth", "independent"):
            command = [sys.executable, "-m", "benchmarks.sorting", "--one"]
            done = subprocess.run(
                [*command, method, str(num), kind],
                check=True,
                capture_output=True,
                text=True,
            )
            rows.append(json.loads(done.stdout))
            text = (
                "{method:7} {num:7} {kind:12} {seconds:6.1f} s {peak_gigabytes:5.2f} GB"
            )
            print(text.format(**rows[-1]), flush=True)
    timing.write_json(args.json, title="sorting", rows=rows)
    return rows


def measure(method: str, num: int, kind: str) -> dict:
    """Sorts once; CPU seconds, and peak memory of this process in GB."""
    timing.pin_one_core()
    import numpy as np

    from datagen import sorting

    features = np.random.default_rng(0).standard_normal((num, NUM_FEATURES))
    if kind == "smooth":
        features /= np.arange(1, NUM_FEATURES + 1)
    start = time.process_time()
    sorting.order(features, method=method)
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return {
        "method": method,
        "num": num,
        "kind": kind,
        "seconds": seconds,
        "peak_gigabytes": peak,
    }


if __name__ == "__main__":
    main()
