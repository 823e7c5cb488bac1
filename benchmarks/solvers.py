"""Seconds per system of our solvers and of the best that others offer, on grids.

    uv run -m benchmarks.peers                      # once: pyamg, CHOLMOD, PARDISO
    uv run -m benchmarks.solvers --json out.json
    uv run -m benchmarks.solvers --quick
    uv run -m benchmarks.solvers --case two_phase --n 211 --num 8

Every method solves the same independent random systems, in turn, on one core, to the
same true residual, which is recomputed here for all of them. Building the matrix is
left out for all, set-up is counted for all. What is done once for all systems of a
case (compilation, symbolic analysis, ordering) stands in a column of its own. Peers
come with their best settings: of several variants the fastest on a system that is not
timed is taken, per case.
"""

import argparse
import dataclasses
import math
import statistics
import tempfile
from collections.abc import Callable

from benchmarks import timing

RTOL = 1e-8
SECONDS = 2.0  # per method and case; slow methods solve fewer systems
QUICK_SECONDS, QUICK_NUM = 0.3, 3
BUSY = 1.5  # load average above which measuring makes little sense
OUT_OF_RACE = 20  # times slower than the best peer: no more variants are tried
LEGEND = """\
ms: median over the systems, set-up included; min: the fastest of them. once, s: first
call less the median: compilation, symbolic analysis, ordering. its: steps. ratio: the
best accepted peer's ms over this row's; above 1 is faster. * peers: SciPy, PETSc
(GAMG with its defaults and tuned, ICC with the best fill-in, MUMPS), pyamg (classical
and smoothed aggregation), CHOLMOD, PARDISO; "reused" keeps the symbolic analysis, and
the factors while the matrix stays the same."""


def main(argv: list[str] | None = None) -> list[dict]:
    """Runs the cases, prints their tables, writes the JSON; returns all rows."""
    args = _arguments(argv)
    core = timing.pin_one_core()
    timing.switch_on_float64()
    from benchmarks.solver_cases import CASES

    for name in args.case or ():
        if name not in CASES:
            raise SystemExit(f"unknown case {name!r}; known: {', '.join(CASES)}")
    load = timing.hardware()["load_average"]
    if load is not None and load > BUSY:
        # Short solves in a process that slept before get the core at once.
        print(f"the load is {load:.1f}: other programs run, and ratios mean little")
    peers, rows = _start_peers(), []
    print(LEGEND)
    for name in args.case or CASES:
        case = CASES[name]
        if args.quick and case.quick_n is None and not args.case:
            continue
        quick_n = case.quick_n or min(case.n, 24)
        n = args.n or (quick_n if args.quick else case.n)
        num = args.num or (QUICK_NUM if args.quick else case.num)
        seconds = QUICK_SECONDS if args.quick else SECONDS
        found = run_case(
            case,
            n=n,
            num=num,
            seed=args.seed,
            seconds=seconds,
            peers=peers,
            only=args.method,
        )
        print_table(case, found)
        rows += found
        timing.write_json(args.json, title=main.__doc__, core=core, rows=rows)
    if peers is not None:
        peers.close()
    return rows


def _arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", action="append", help="cases to run; default: all")
    parser.add_argument("--method", action="append", help="methods to run")
    parser.add_argument("--quick", action="store_true", help="small, under a minute")
    parser.add_argument("--n", type=int, help="solved unknowns per axis")
    parser.add_argument("--num", type=int, help="timed systems per case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", default=None, help="output file")
    args = parser.parse_args(argv)
    for name in ("n", "num"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            parser.error("--n and --num must be at least 1")
    return args


def _start_peers():
    """The peers' process, or None with a line that says why."""
    from benchmarks.peers import PeerProcess

    try:
        return PeerProcess()
    except FileNotFoundError as error:
        print(f"skipping pyamg, CHOLMOD and PARDISO: {error}")
        return None


def run_case(case, *, n, num, seed, seconds, peers, only=None) -> list[dict]:
    """Solves one case with all its methods; returns one row per method.

    Args:
        case: a `benchmarks.solver_cases.Case`.
        n: solved unknowns per axis.
        num: timed systems; two more are for first calls and for choosing variants.
        seed: of the systems.
        seconds: for each method; slow ones solve fewer systems.
        peers: a `benchmarks.peers.PeerProcess`, or None.
        only: names of methods; None: all.
    """
    from benchmarks import solver_methods

    systems = case.systems(num + 2, n=n, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        bench = solver_methods.Bench(
            case, systems, rtol=RTOL, folder=folder, peers=peers
        )
        entries, limit = [], math.inf
        for name, variants in bench.methods().items():
            entry = choose(name, variants, limit) if not only or name in only else None
            if entry is not None:
                entries.append(entry)
                if entry.accepted and name not in solver_methods.OURS:
                    limit = min(limit, OUT_OF_RACE * entry.trials[-1]["seconds"])
        runs = timing.take_turns(
            {entry.name: entry.run for entry in entries if entry.accepted},
            range(2, num + 2),
            {e.name: max(1, int(seconds / e.trials[-1]["seconds"])) for e in entries},
        )
        rows = [
            entry.row(runs.get(entry.name, []), case=case, system=systems[0])
            for entry in entries
        ]
        for entry in entries:
            entry.close()
    peers = {row["method"] for row in rows if row["is_peer"]}
    return timing.add_ratios(rows, peers=peers)


@dataclasses.dataclass
class Entry:
    """A method with its best variant.

    Attributes:
        name: in the table.
        variant: the settings that were the fastest.
        run: solves one system.
        trials: what came of the systems 0 and 1.
    """

    name: str
    variant: str
    run: Callable[[int], dict]
    trials: list[dict]

    @property
    def accepted(self) -> bool:
        """Whether all systems so far were solved."""
        return all(trial["true_residual"] <= RTOL for trial in self.trials)

    def close(self) -> None:
        """Frees the solver."""
        getattr(self.run, "close", lambda: None)()

    def row(self, runs: list[dict], *, case, system) -> dict:
        """The row of the JSON; unsolved methods have that of their last trial."""
        from benchmarks.solver_methods import OURS

        timed = runs or self.trials[-1:]
        seconds = [run["seconds"] for run in timed]
        median = statistics.median(seconds)
        residual = max(run["true_residual"] for run in [*self.trials, *timed])
        return {
            "problem": case.name,
            "n": system.rhs.shape[0],
            "num_unknowns": system.rhs.size,
            "rtol": RTOL,
            "method": self.name,
            "settings": self.variant or getattr(self.run, "note", ""),
            "is_peer": self.name not in OURS,
            "num_timed": len(runs),
            "seconds": median,
            "seconds_mean": statistics.fmean(seconds),
            "seconds_min": min(seconds),
            "seconds_setup": max(0.0, self.trials[0]["seconds"] - median),
            "iterations": statistics.fmean(run["iterations"] for run in timed),
            "matvecs": statistics.fmean(run["matvecs"] for run in timed),
            "true_residual_max": residual,
            "accepted": bool(residual <= RTOL),
        }


def choose(
    name: str, variants: dict[str, Callable], limit: float = math.inf
) -> Entry | None:
    """Tries the variants of a method on two systems and keeps the fastest.

    Args:
        name: of the method.
        variants: what builds each, by its settings.
        limit: no more are tried after one that takes so many seconds.

    Returns:
        The best, accepted before fast; None if none can be had, with a line that says
        why.
    """
    best = None
    for variant, build in variants.items():
        run = None
        try:
            run = build()
            trials = [run(0)]
            if math.isnan(trials[0]["true_residual"]):
                raise ArithmeticError(trials[0].get("status", "no solution"))
            if not _hopeless(trials[0], best):
                trials += _again(run)
        except (ImportError, ArithmeticError, RuntimeError, TypeError, ValueError) as e:
            reason = str(e).splitlines()[0]
            print(f"skipping {name}{f' ({variant})' * bool(variant)}: {reason}")
            getattr(run, "close", lambda: None)()
            continue
        entry = Entry(name, variant, run, trials)
        if best is None or _rank(entry) < _rank(best):
            entry, best = best, entry
        if entry is not None:
            entry.close()
        if trials[0]["seconds"] > limit:
            break
    if best is not None and len(best.trials) < 2:  # the first call may compile
        best.trials += _again(best.run)
    return best


def _hopeless(first: dict, best: Entry | None) -> bool:
    """Whether a variant need not run again after its first call."""
    if not first["true_residual"] <= RTOL:
        return True
    return best is not None and first["seconds"] > 2 * best.trials[0]["seconds"]


def _again(run) -> list[dict]:
    """The fastest of up to four runs of system 1; short ones are noisy."""
    results = [run(1)]
    while len(results) < 4 and len(results) * results[0]["seconds"] < 0.2:
        results.append(run(1))
    return [min(results, key=lambda result: result["seconds"])]


def _rank(entry: Entry):
    solved = entry.accepted
    return not solved, len(entry.trials) < 2, entry.trials[-1]["seconds"]


def print_table(case, rows: list[dict]) -> None:
    """Prints the rows of one case, the fastest first."""
    if not rows:
        return
    print(
        f"\n{case.name}: {case.title}, {rows[0]['num_unknowns']} unknowns, "
        f"true residual {RTOL:.0e}"
    )
    header = ("method", "ms", "min", "once, s", "its", "residual", "ratio", "systems")
    print("{:22} {:>9} {:>9} {:>8} {:>6} {:>9} {:>6} {:>7}".format(*header))
    for row in sorted(rows, key=lambda row: (not row["accepted"], row["seconds"])):
        ratio = f"{row['ratio_to_best_peer']:.2f}" if row["accepted"] else "-"
        print(
            f"{'*' * row['is_peer'] + row['method']:22} {1e3 * row['seconds']:9.2f} "
            f"{1e3 * row['seconds_min']:9.2f} {row['seconds_setup']:8.2f} "
            f"{row['iterations']:6.1f} {row['true_residual_max']:9.1e} "
            f"{ratio:>6} {row['num_timed']:7d}  "
            + ("" if row["accepted"] else "NOT SOLVED ")
            + row["settings"].removeprefix("petsc:")[:70]
        )


if __name__ == "__main__":
    main()
