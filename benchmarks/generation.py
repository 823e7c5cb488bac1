"""What a sample costs from the seed to the verified file, and how workers share it.

    uv run -m benchmarks.generation --json out.json
    uv run -m benchmarks.generation --num 1000 --workers 2

Runs the command `python -m datagen generate` in a temporary folder and reads its
ledger. Milliseconds are CPU time per sample, of all processes together: `solving` is
what solvers use, certificates included; `making` the rest of making a shard (drawing,
assembling, checking, encoding, writing, reading back, hashing); `around` everything
else, per run: starting processes, compiling, finalizing and verifying. `10 000 in`
takes samples/s while shards are made, and once what is around them.
"""

import argparse
import json
import pathlib
import resource
import shutil
import subprocess
import sys
import tempfile
import time

from benchmarks import timing

CONFIG = "configs/data/darcy_smooth.py"
HEADER = "workers samples samples/s  solving   making   around  10 000 in"
ROW = (
    "{workers:7} {samples:7} {samples_per_second:9.1f} {ms_solving:5.1f} ms "
    "{ms_making:5.1f} ms {seconds_around:6.1f} s {seconds_for_10000:8.0f} s"
)


def main(argv: list[str] | None = None) -> list[dict]:
    """Generates once per number of workers; prints and returns the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default=CONFIG, help="data config")
    parser.add_argument("--num", type=int, default=200, help="samples (200)")
    parser.add_argument(
        "--workers", type=int, nargs="+", default=[1, 2], help="processes (1 2)"
    )
    parser.add_argument("--repeat", type=int, default=1, help="runs of each, in turn")
    parser.add_argument("--tmp", default=None, help="folder for the data, thrown away")
    parser.add_argument("--json", default=None, help="output file")
    args = parser.parse_args(argv)
    rows = []
    print(HEADER, flush=True)
    for _ in range(args.repeat):
        for workers in args.workers:
            rows.append(generate(args, workers))
            print(ROW.format(**rows[-1]), flush=True)
    if len({row["sha256"] for row in rows}) != 1:
        raise RuntimeError("the runs made different bytes; expected the same from all")
    timing.write_json(args.json, title="generation", rows=rows)
    return rows


def generate(args: argparse.Namespace, workers: int) -> dict:
    """Makes the samples in a folder of their own and says what they cost."""
    root = pathlib.Path(tempfile.mkdtemp(dir=args.tmp))
    num, config = args.num, args.config
    shard_size = max(1, min(64, num // (2 * max(args.workers))))
    command = [sys.executable, "-m", "datagen", "generate", "--config", config]
    command += ["--out", str(root / "set"), "--workers", str(workers)]
    splits = {"train": num, "valid": 0, "test": 0}
    command += [f"--config.splits.{split}={n}" for split, n in splits.items()]
    command += [f"--config.shard_size={shard_size}"]
    try:
        start, cpu = time.perf_counter(), _children_seconds()
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        seconds, cpu = time.perf_counter() - start, _children_seconds() - cpu
        return _row(root / "set", workers, seconds, cpu) | {"said": done.stdout}
    finally:
        shutil.rmtree(root)


def _row(root: pathlib.Path, workers: int, seconds: float, cpu: float) -> dict:
    records = [json.loads(p.read_text()) for p in sorted(root.glob("ledger/*.json"))]
    samples = sum(record["num_accepted"] for record in records)
    made, solved = (sum(r[key] for r in records) for key in ("cpu_s", "solve_s"))
    manifest = json.loads((root / "manifest.json").read_text())
    busy = sum(record["wall_s"] for record in records) / workers
    return {
        "workers": workers,
        "method": manifest["solver"]["method"],
        "samples": samples,
        "seconds": seconds,
        "samples_per_second": samples / busy,
        "seconds_for_10000": seconds + busy * (10_000 / samples - 1),
        "ms_solving": 1e3 * solved / samples,
        "ms_making": 1e3 * (made - solved) / samples,
        "seconds_around": cpu - made,
        "bytes": sum(record["bytes"] for record in records),
        "true_residual_max": manifest["true_residual"]["max"],
        "sha256": manifest["manifest_sha256"],
    }


def _children_seconds() -> float:
    """CPU time of all processes started from here that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
