"""Speed-up of the pool against contrast, size and number of systems.

    uv run -m benchmarks.recycling_scan --json scan.json

Inclusions of fixed layout, relative residual 1e-6, the pool with ICC(4) in 2-D and
ICC(1) in 3-D. Each row compares it with the best iterative peer (CG with ICC(0) and
with the same ICC, GAMG tuned for jumps) and with CG + ICC(0), harvest inside the clock.
"""

import argparse
import dataclasses

from benchmarks import recycling, timing
from benchmarks.recycling_cases import Case, composites

METHODS = (
    "cg",
    "petsc_cg_icc",
    "petsc_cg_gamg_jumps",
    "petsc_cg_gamg_plain",
    "mg_pcg",
)
FILLED = ("petsc_cg_icc(", "deflated_cg icc(")
NUMS = (10, 20, 40, 60)  # systems over which the harvest is spread


def main(argv: list[str] | None = None) -> list[dict]:
    """Prints one line per setting and writes the JSON; returns the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="the two smallest only")
    parser.add_argument("--json", default=None, help="output file")
    args = parser.parse_args(argv)
    core = timing.pin_one_core()
    timing.switch_on_float64()
    rows = []
    for case, context in cases(quick=args.quick):
        measured, _ = recycling.run_case(case, seed=args.seed)
        row = {**context, **compare(measured)}
        spread = ", ".join(f"x{row['speedup'][n]:.2f} over {n}" for n in NUMS)
        print(
            f"{context['dims']}-D n {context['n']:4} contrast "
            f"{context['contrast']:8.0e} mv {row['matvecs_cg']:6.1f} -> "
            f"{row['matvecs_pool']:6.1f}, against the best peer "
            f"x{row['speedup_steady']:.2f} later, {spread}"
        )
        rows.append(row)
        timing.write_json(args.json, title="pooled CG", core=core, rows=rows)
    return rows


def cases(*, quick: bool) -> list[tuple[Case, dict]]:
    """The settings: contrast at one size, then size at one contrast, 2-D and 3-D."""
    settings = [(2, 128, 10.0**e) for e in (1, 2, 3, 4, 6)]
    settings += [(2, n, 1e4) for n in (64, 256)]
    settings += [(3, 24, 10.0**e) for e in (1, 2, 3, 4, 6)]
    settings += [(3, n, 1e4) for n in (36, 48)]
    if quick:
        settings = [(2, 32, 1e2), (2, 32, 1e4)]
    chosen = []
    for dims, n, contrast in settings:
        case = composites(
            f"composites_{dims}d_{n}_{contrast:.0e}",
            "",
            {2: 20, 3: 30}[dims],
            num=16,
            n=n,
            num_dims=dims,
            num_inclusions={2: 4, 3: 3}[dims],
            # A tenth of the largest contrast up to it, as in the main cases.
            contrasts=(contrast / 10, contrast),
        )
        entries = tuple(
            e for e in case.entries if e.label in METHODS or e.label.startswith(FILLED)
        )
        context = {"dims": dims, "n": n, "contrast": contrast}
        chosen.append((dataclasses.replace(case, entries=entries), context))
    return chosen


def compare(rows: list[dict]) -> dict:
    """Ratios of one setting; N systems cost the harvest and N - WARM_UP later ones."""
    by_label = {row["method"]: row for row in rows}
    pool = next(row for label, row in by_label.items() if label.startswith(FILLED[1]))
    peers = [row for label, row in by_label.items() if label.startswith("petsc")]
    best = min((row["seconds"] for row in peers if row["accepted"]), default=None)
    best = by_label["cg"]["seconds"] if best is None else best
    num, later = pool["num_systems"], pool["seconds_later"]
    harvest = num * pool["seconds"] - (num - recycling.WARM_UP) * later
    seconds = {n: harvest + (n - recycling.WARM_UP) * later for n in NUMS}
    return {
        "matvecs_cg": by_label["cg"]["matvecs"],
        "matvecs_pool": pool["matvecs_later"],
        "seconds": {label: row["seconds"] for label, row in by_label.items()},
        "seconds_pool_later": later,
        "speedup_steady": best / later,
        "speedup": {n: n * best / seconds[n] for n in NUMS},
    }


if __name__ == "__main__":
    main()
