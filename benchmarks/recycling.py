"""Where carrying information between systems pays, and where it does not.

    uv run -m benchmarks.recycling --json out.json
    uv run -m benchmarks.recycling --quick
    uv run -m benchmarks.recycling --case composites_2d --case heat --json out.json

Every method solves the same whole sequences, in turn, on one core, to the same true
residual. Ordering, set-up, harvest and carry-over are inside the clock, assembly is
outside for all. Methods that carry nothing may be timed on a random part of a sequence
(`num_timed`); none is ever timed on the head of a sorted path alone.
"""

import argparse
import dataclasses
import gc
import time

from benchmarks import timing
from benchmarks.recycling_cases import CASES, Case, Entry

LEGEND = """\
its: steps per system. mv: products with A, carry-over and residual checks included.
ms: milliseconds per system, ordering, set-up and harvest included. later: without the
first 6 systems. ratio: the best accepted petsc_*, SciPy or direct row's ms over this
row's; above 1 is faster. skr carries GCRO-DR's space on, x-mode as vectors of the
solution; deflated_cg keeps one pool; + projection starts from earlier solutions."""
WARM_UP = 6  # systems left out of `seconds_later`: pools are harvested over these


def main(argv: list[str] | None = None) -> list[dict]:
    """Runs the cases, prints their tables, writes the JSON; returns all rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", action="append", choices=sorted(CASES))
    parser.add_argument("--method", action="append", help="labels of rows to run")
    parser.add_argument("--quick", action="store_true", help="small, under a minute")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", default=None, help="output file")
    args = parser.parse_args(argv)
    core = timing.pin_one_core()
    timing.switch_on_float64()
    rows, curves = [], {}
    print(LEGEND)
    for name in args.case or CASES:
        case = CASES[name].quick() if args.quick else CASES[name]
        if args.method:
            entries = tuple(e for e in case.entries if e.label in args.method)
            case = dataclasses.replace(case, entries=entries)
        case_rows, case_curves = run_case(case, seed=args.seed)
        print_table(case, case_rows)
        rows += case_rows
        curves[case.name] = case_curves
        timing.write_json(
            args.json, title=main.__doc__, core=core, rows=rows, curves=curves
        )
    return rows


def run_case(case: Case, *, seed: int) -> tuple[list[dict], dict[str, list]]:
    """Solves one case with all its methods.

    Returns:
        One row per method, and per method the products with A along the sequence.
    """
    sequence_ = build_sequence(case, seed)
    runs = {}
    for entry in case.entries:
        try:
            runs[entry.label] = Run(entry, sequence_, case, seed)
        except ImportError as error:
            print(f"skipping {entry.label}: {error}")
    for place in range(len(sequence_.systems)):
        for run in runs.values():
            run.solve(place)
    rows = [run.row() for run in runs.values()]
    peers = {entry.label for entry in case.entries if entry.is_peer}
    curves = {label: run.matvecs_by_place() for label, run in runs.items()}
    for run in runs.values():
        run.close()
    gc.collect()
    return timing.add_ratios(rows, peers=peers), curves


class Sequence:
    """Systems in the order in which they are generated, and a sorted order of them.

    Attributes:
        systems: list of `LinearSystem` as the problem gives them.
        converted: the same with SciPy matrices.
        order: [N] the sorted order.
        seconds_ordering: what sorting took, features included.
    """

    def __init__(self, systems, order, seconds_ordering):
        self.systems = systems
        self.converted = [s._replace(operator=s.to_csr()) for s in systems]
        self.order, self.seconds_ordering = order, seconds_ordering


def build_sequence(case: Case, seed: int) -> Sequence:
    """Draws the samples of a case, assembles their systems and sorts them."""
    import numpy as np

    from datagen import problems, sorting
    from datagen.plan import sample_rng

    problem = problems.create(case.problem, **case.settings)
    if problem.num_systems > 1:  # one sample is one sequence, in its own order
        sample = problem.sample(sample_rng(seed, 0))
        systems = list(_steps(problem, sample, case.num))
        return Sequence(systems, np.arange(len(systems)), 0.0)
    samples = [problem.sample(sample_rng(seed, i)) for i in range(case.num)]
    systems = [problem.system(sample) for sample in samples]
    start = time.perf_counter()
    features = np.stack([problem.features(sample) for sample in samples])
    order = sorting.order(features, method="greedy").order
    return Sequence(systems, order, time.perf_counter() - start)


def _steps(problem, sample, num):
    """Systems of one trajectory, each built from an accurate solution before it."""
    from solvers import sequence

    solver = sequence.create("direct")
    previous = None
    for step in range(min(num, problem.num_systems)):
        system = problem.system(sample, step, previous)
        yield system
        previous, _ = solver.solve(system, rtol=1e-10)


class Run:
    """One method on its way through a sequence."""

    def __init__(self, entry: Entry, seq: Sequence, case: Case, seed: int):
        import numpy as np

        from solvers import sequence

        self.entry, self.seq, self.case = entry, seq, case
        self.solver = sequence.create(entry.method, **entry.settings)
        num = len(seq.systems)
        self.order = seq.order if entry.sorted else np.arange(num)
        self.places = np.ones(num, bool)
        if entry.num_timed is not None and entry.num_timed < num:
            rng = np.random.default_rng(seed)
            self.places[:] = False
            self.places[rng.choice(num, entry.num_timed, replace=False)] = True
        self.records: dict[int, object] = {}
        self.previous = None
        # A solver of its own compiles and imports; the one that counts starts cold.
        warm = sequence.create(entry.method, **entry.settings)
        warm.solve(self._system(0), rtol=case.rtol, maxiter=entry.maxiter)
        warm.close()

    def solve(self, place: int) -> None:
        """Solves the system at a place of this method's order, if it is its turn."""
        if self.places[place]:
            self.records[place] = self._solve(self.order[place])

    def _system(self, index):
        return (self.seq.systems if self.entry.stencil else self.seq.converted)[index]

    def _solve(self, index):
        x, record = self.solver.solve(
            self._system(index),
            rtol=self.case.rtol,
            maxiter=self.entry.maxiter,
            x0=self.previous if self.case.starts_from_previous else None,
        )
        self.previous = x if record.converged else None
        return record

    def matvecs_by_place(self) -> list[tuple[int, int]]:
        """(place, products with A) of every solved system, in the order of solving."""
        return [(place, self.records[place].matvecs) for place in sorted(self.records)]

    def row(self) -> dict:
        """Means over the systems this method solved, harvest and ordering included."""
        import numpy as np

        records = [self.records[place] for place in sorted(self.records)]
        later = [r for place, r in sorted(self.records.items()) if place >= WARM_UP]
        ordering = self.seq.seconds_ordering / len(self.seq.systems)
        ordering *= self.entry.sorted
        seconds = np.array([r.seconds for r in records]) + ordering
        residual = max(r.true_relative_residual for r in records)
        system = self.seq.systems[0]
        return {
            "problem": self.case.name,
            "n": system.rhs.shape[0],
            "num_unknowns": system.rhs.size,
            "num_systems": len(self.seq.systems),
            "num_timed": len(records),
            "rtol": self.case.rtol,
            "preconditioner": self.entry.settings.get("preconditioner", "own"),
            "method": self.entry.label,
            "converged": sum(r.converged for r in records) / len(records),
            "iterations": float(np.mean([r.iterations for r in records])),
            "matvecs": float(np.mean([r.matvecs for r in records])),
            "matvecs_later": _mean([r.matvecs for r in later]),
            "seconds": float(seconds.mean()),
            "seconds_median": float(np.median(seconds)),
            "seconds_later": _mean([r.seconds + ordering for r in later]),
            "seconds_by_phase": _phases(records),
            "recycle_dim": int(max(r.recycle_dim for r in records)),
            "fallbacks": sum(bool(r.fallbacks) for r in records),
            "true_residual_max": float(residual),
            "accepted": bool(residual <= self.case.rtol),
        }

    def close(self) -> None:
        """Frees the solver."""
        self.solver.close()


def _mean(values) -> float:
    return sum(values) / len(values) if values else float("nan")


def _phases(records) -> dict[str, float]:
    """Mean seconds by phase."""
    names = [field.name for field in dataclasses.fields(records[0].phases)]
    return {n: _mean([getattr(r.phases, n) for r in records]) for n in names}


def print_table(case: Case, rows: list[dict]) -> None:
    """Prints the rows of one case."""
    print(
        f"\n{case.name}: {case.title}, {rows[0]['num_unknowns']} unknowns, "
        f"{rows[0]['num_systems']} systems, true residual {case.rtol:.0e}"
    )
    header = ("method", "precond.", "its", "mv", "mv later", "ms", "ms later", "ratio")
    print("{:28} {:>9} {:>7} {:>7} {:>8} {:>8} {:>8} {:>6}".format(*header))
    for row in rows:
        used = row["preconditioner"].split("levels ")
        used = used[0] if len(used) == 1 else f"icc({used[1]})"
        notes = "" if row["accepted"] else f"  solved {row['converged']:.0%}"
        notes += f"  ({row['num_timed']} timed)" * (
            row["num_timed"] < row["num_systems"]
        )
        print(
            f"{row['method']:28} {used[:9]:>9} "
            f"{row['iterations']:7.1f} {row['matvecs']:7.1f} "
            f"{row['matvecs_later']:8.1f} {1e3 * row['seconds']:8.2f} "
            f"{1e3 * row['seconds_later']:8.2f} {row['ratio_to_best_peer']:6.2f}{notes}"
        )


if __name__ == "__main__":
    main()
