"""Seconds per sample of our solvers and of others, on the systems datagen solves.

    uv run -m benchmarks.data --problem darcy --n 421 --num 8 --json out.json

Every method gets the same systems, in turn, on one core; building the matrix is left
out for all, set-up (factorisation, hierarchy) is counted for all. The first call, which
compiles or analyses, stands in a column of its own. All residuals are recomputed.
"""

import argparse
import time

from benchmarks import timing

RTOL = 1e-8
PETSC_METHODS = {
    "petsc_cg_gamg": "petsc:-ksp_type cg -pc_type gamg",
    "petsc_mumps_reused": "petsc:-ksp_type preonly -pc_type cholesky "
    "-pc_factor_mat_solver_type mumps",
}
PEERS = {"scipy_spsolve", *PETSC_METHODS}


def main(argv: list[str] | None = None) -> list[dict]:
    """Runs the benchmark, prints the table, writes the JSON; returns the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problem", default="darcy")
    parser.add_argument("--n", type=int, default=421, help="solved unknowns per axis")
    parser.add_argument("--num", type=int, default=8, help="timed systems")
    parser.add_argument("--coefficient", default="two_phase")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", default=None, help="output file")
    args = parser.parse_args(argv)
    if args.n < 1 or args.num < 1:
        parser.error("--n and --num must be at least 1")
    core = timing.pin_one_core()
    _switch_on_float64()
    systems = _systems(args)
    methods = {
        "mg_pcg": _ours("mg_pcg", systems),
        "direct": _ours("direct", systems),
        "scipy_spsolve": _spsolve(systems),
        **_petsc(systems),
    }
    results = timing.interleave(methods, num=args.num)
    rows = timing.add_ratios(
        [_row(name, args.n, runs) for name, runs in results.items()], peers=PEERS
    )
    timing.report(
        rows,
        title=f"{args.problem} {args.coefficient}, {args.n} x {args.n} unknowns, "
        f"{args.num} systems, true residual {RTOL:.0e}",
        json_path=args.json,
        problem=args.problem,
        coefficient=args.coefficient,
        rtol=RTOL,
        core=core,
    )
    return rows


def _switch_on_float64() -> None:
    import jax

    jax.config.update("jax_enable_x64", True)


def _systems(args) -> list:
    """The systems of args.num + 1 samples, the first of them for the first call."""
    import numpy as np

    from datagen import problems

    # Nodes with both ends: the solved unknowns are the inner ones.
    problem = problems.create(args.problem, n=args.n + 2, coefficient=args.coefficient)
    streams = np.random.SeedSequence(args.seed).spawn(args.num + 1)
    samples = [problem.sample(np.random.default_rng(stream)) for stream in streams]
    systems = [problem.system(sample) for sample in samples]
    shape = systems[0].operator.grid_shape
    if shape != (args.n,) * len(shape):
        raise ValueError(f"expected {args.n} unknowns per axis, got {shape}")
    return systems


def _ours(method, systems, **settings):
    from solvers import sequence

    solver = sequence.create(method, **settings)

    def run(item: int) -> dict:
        _, record = solver.solve(systems[item], rtol=RTOL)
        return {
            "seconds": record.seconds,
            "iterations": record.iterations,
            "matvecs": record.matvecs,
            "true_residual": record.true_relative_residual,
        }

    return run


def _spsolve(systems):
    import scipy.sparse.linalg as spla

    matrices = [system.to_csr().tocsc() for system in systems]

    def run(item: int) -> dict:
        b = systems[item].rhs
        start = time.perf_counter()
        x = spla.spsolve(matrices[item], b.ravel())
        seconds = time.perf_counter() - start
        residual = systems[item].relative_residual(x.reshape(b.shape))
        return {
            "seconds": seconds,
            "iterations": 0,
            "matvecs": 0,
            "true_residual": residual,
        }

    return run


def _petsc(systems) -> dict:
    """PETSc's methods, on matrices converted beforehand; empty without petsc4py."""
    try:
        import solvers.petsc  # noqa: F401  (only to see whether it is there)
    except ImportError as error:
        print(f"skipping PETSc: {error}")
        return {}
    converted = [system._replace(operator=system.to_csr()) for system in systems]
    return {
        name: _ours(method, converted, spd=True)
        for name, method in PETSC_METHODS.items()
    }


def _row(name: str, n: int, runs: list[dict]) -> dict:
    """Means over the timed systems; entry 0 is the first call."""
    import numpy as np

    first, *timed = runs
    residual = max(run["true_residual"] for run in runs)
    seconds = [run["seconds"] for run in timed]
    return {
        "method": name,
        "n": n,
        "num_unknowns": n * n,
        "seconds": float(np.mean(seconds)),
        "seconds_median": float(np.median(seconds)),
        "seconds_min": min(seconds),
        "seconds_first": first["seconds"],
        "iterations": float(np.mean([run["iterations"] for run in timed])),
        "matvecs": float(np.mean([run["matvecs"] for run in timed])),
        "true_residual_max": residual,
        "accepted": bool(residual <= RTOL),
    }


if __name__ == "__main__":
    main()
