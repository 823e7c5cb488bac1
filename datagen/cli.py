r"""Generates data sets of PDE solutions, each with its recomputed residual.

    python -m datagen generate --config configs/data/darcy_smooth.py:quick
    python -m datagen generate --config configs/data/darcy_smooth.py \
        --out data/darcy_smooth --config.solver.method=direct

Run the same command again to go on after an interruption of any kind.
"""

import argparse
import ast
import sys
from contextlib import nullcontext
from pathlib import Path

from configs import loading
from datagen import preparation
from datagen.interruption import InterruptedRunError, StopFlag, farewell
from datagen.plan import Plan, PlanError, load_plan, make_plan, plain
from datagen.storage.read import DatasetError

DONE, FAILED, BAD_INPUT, QUARANTINED, AGAIN = 0, 1, 2, 3, 75
COMMANDS = {
    "generate": "plan, run, finalize and verify; goes on where it was interrupted",
    "plan": "write plan.json and order.npy",
    "run": "make the missing files of a plan",
    "finalize": "write stats.yaml, manifest.json, checksums.sha256 and README.md",
    "verify": "read every file and compare it with plan, ledger and manifest",
    "status": "how far a data set is",
    "preview": "draw and solve a few samples into a picture, without a data set",
    "explain": "solve a few samples with every method (or time step) to compare them",
}
EPILOG = """
exit codes:
  0   complete
  1   failed: no space, damaged files, unsolvable samples
  2   bad input: config, option or folder
  3   complete, but samples went to quarantine
  75  interrupted: run the same command again
"""


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    options, rest = _parser().parse_known_args(argv)
    if options.list:
        print(listing())
        return DONE
    if options.command is None:
        _parser().print_help(sys.stderr)
        return BAD_INPUT
    try:
        with StopFlag() as stop:
            return _execute(options, rest, stop)
    except InterruptedRunError as signal:
        sys.stderr.write(farewell(str(signal)))
        return AGAIN
    except (loading.ConfigError, PlanError) as error:
        return _complain(error, BAD_INPUT)
    except (DatasetError, OSError, RuntimeError) as error:
        return _complain(error, FAILED)


def _complain(error: Exception | str, code: int) -> int:
    print("datagen:", " ".join(str(error).split()), file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m datagen",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--list",
        action="store_true",
        help="list problems, methods, preconditioners, orderings and data configs",
    )
    commands = parser.add_subparsers(dest="command", metavar="command")
    for name, text in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            epilog="--config FILE[:variant] names the data config, "
            "--config.key=value changes one of its entries. Where --out holds a plan, "
            "--config may be left out.",
            allow_abbrev=False,
        )
        command.add_argument(
            "--out", help="folder of the data set (default: data/<set>[_<variant>])"
        )
        if name in ("run", "generate"):
            command.add_argument(
                "--engine",
                choices=["serial"],
                default="serial",
                help="how shards are run: serial, in this process",
            )
            command.add_argument(
                "--workers",
                default="1",
                metavar="N",
                help="processes that make shards side by side; auto: one per core (1)",
            )
        if name == "verify":
            command.add_argument(
                "--quick", action="store_true", help="hashes only, without HDF5"
            )
        if name == "preview":
            command.add_argument("--num", type=int, default=4, help="samples (4)")
        if name in ("explain", "plan", "generate"):
            _add_measuring(command, name)
    return parser


def _add_measuring(command, name: str) -> None:
    """Options of the commands that may measure methods."""
    command.add_argument("--num", type=int, help="samples to measure methods on (8)")
    if name == "explain":
        command.add_argument("--json", metavar="FILE", help="write the report there")
        command.add_argument(
            "--seconds", type=float, default=60.0, help="time for all methods (60)"
        )
    else:
        command.add_argument(
            "--calibrate",
            action="store_true",
            help="choose the method by measuring all on this machine, and freeze it",
        )


def _execute(options, rest: list[str], stop: StopFlag) -> int:
    config, num_workers = None, 1
    if hasattr(options, "workers"):
        from datagen import workers

        num_workers = workers.number(options.workers)
    if rest or options.out is None:
        config, name = loading.from_arguments(rest)
        options.out = options.out or Path("data") / loading.run_name(name)
    root = Path(options.out)
    if options.command == "preview":
        if config is None:
            config = load_plan(root).config
        with config.unlocked() if hasattr(config, "unlocked") else nullcontext():
            if "ordering" in config["solver"]:  # nothing to sort for a few samples
                config["solver"]["ordering"] = "none"
        return preview(make_plan(config, root), options.num, stop)
    if options.command == "explain":
        if "scheme" in (load_plan(root).config if config is None else config)["solver"]:
            from datagen import explain_steps

            plan = load_plan(root) if config is None else make_plan(config, root)
            return explain_steps.command(plan, options, stop.check)
        from datagen.explain import command

        config = plain(load_plan(root).config if config is None else config)
        return command(config, root, options, stop.check)
    plan = preparation.planned(options, config, root, stop)
    if options.command == "plan":
        from datagen.progress import describe_solver

        print(f"{root}: {plan.num_samples} samples in {len(plan.shards)} shards")
        print(describe_solver(plan))
        return DONE
    if options.command == "verify":
        return verify(plan, quick=options.quick, stop=stop)
    if options.command in ("generate", "run"):
        command = {"generate": generate, "run": run_missing}[options.command]
        return command(plan, stop, num_workers)
    return {
        "finalize": finalize_all,
        "status": show_status,
    }[options.command](plan, stop)


def generate(plan: Plan, stop: StopFlag, num_workers: int = 1) -> int:
    """Plan, run, finalize and verify in one."""
    from datagen import verify
    from datagen.finalize import finalize, is_finalized
    from datagen.progress import fallback_words, measure, megabytes
    from datagen.status import unresolved
    from datagen.storage import read

    if not (finished := is_finalized(plan)):
        run_missing(plan, stop, num_workers)
        stop.check()
        finalize(plan)
    for problem in verify.problems(plan, full=False, poll=stop.check):
        raise DatasetError(problem)
    dataset = read.open_dataset(plan.root, verify=False)
    size = sum(entry["bytes"] for entry in dataset.manifest["files"])
    word = "was finished before" if finished else "is finished"
    fallbacks = fallback_words(plan, dataset.manifest["ladder"])
    print(
        f"{plan.root} {word} and verified: {sum(dataset.splits.values())} samples, "
        f"{megabytes(size)}, {measure(plan)} <= "
        f"{dataset.manifest['true_residual']['max']:.1e}"
        + (f", {fallbacks}" if fallbacks else "")
    )
    if warning := unresolved(dataset.manifest):
        print(f"datagen: warning: {warning}", file=sys.stderr)
    return _quarantine_code(plan)


def run_missing(plan: Plan, stop: StopFlag, num_workers: int = 1) -> int:
    """Makes the shards that are missing."""
    from datagen import run, workers
    from datagen.progress import Progress, announce, recycles

    missing = run.pending(plan)
    if not missing:
        print(f"{plan.root}: all {len(plan.shards)} shards are made")
        return _quarantine_code(plan)
    timing = run.time_sample(plan, missing[0])
    announce(plan, missing, timing, num_workers)
    stop.check()
    with Progress(plan) as progress:
        if num_workers > 1:
            workers.run_workers(
                plan, missing, num_workers, poll=stop.check, display=progress
            )
        else:
            run.run(
                plan,
                poll=stop.check,
                on_sample=progress.sample,
                on_shard=progress.shard,
            )
    if recycles(plan.solver):
        print(progress.recycling())
    return _quarantine_code(plan)


def _quarantine_code(plan: Plan) -> int:
    from datagen import run

    if not (rejected := run.num_rejected(plan)):
        return DONE
    print(
        f"datagen: {rejected} of {plan.num_samples} samples were rejected and are in "
        f"{plan.root / 'quarantine'}; the others are complete",
        file=sys.stderr,
    )
    return QUARANTINED


def finalize_all(plan: Plan, stop: StopFlag) -> int:
    """Closes the data set."""
    from datagen.finalize import finalize

    del stop
    manifest = finalize(plan)
    print(f"{plan.root}: manifest {manifest['manifest_sha256']}")
    return _quarantine_code(plan)


def verify(plan: Plan, *, quick: bool, stop: StopFlag) -> int:
    """Names everything that is wrong."""
    from datagen import verify as verification

    problems = 0
    for problem in verification.problems(plan, full=not quick, poll=stop.check):
        _complain(problem, FAILED)
        problems += 1
    if problems:
        return FAILED
    print(f"{plan.root}: {len(plan.shards)} files are as planned and recorded")
    return _quarantine_code(plan)


def show_status(plan: Plan, stop: StopFlag) -> int:
    """Prints how far it is."""
    from datagen.status import describe

    del stop
    print(describe(plan))
    return DONE


def preview(plan: Plan, num: int, stop: StopFlag) -> int:
    """Draws and solves the first training samples into preview.png."""
    import numpy as np

    from datagen.ladder import Ladder
    from datagen.plan import sample_rng
    from datagen.preview import plot_samples
    from datagen.storage.read import Samples

    if not 1 <= num <= plan.num_samples:
        raise PlanError(f"--num is {num}; expected 1 to {plan.num_samples}")
    if plan.evolves:
        from datagen import strips

        print(strips.preview(plan, num, stop.check))
        return DONE
    problem = plan.problem()
    ladder, solved = Ladder(problem, plan.solver), []
    for sample_id in plan.order[:num].tolist():
        stop.check()
        solved.append(ladder.solve(sample_rng(plan.config["seed"], sample_id)))
        if not solved[-1].accepted:
            raise DatasetError(f"sample {sample_id}: {'; '.join(solved[-1].failures)}")
    ladder.close()
    names = (problem.fields[0].name, problem.fields[-1].name)
    x, y = (np.stack([s.fields[name] for s in solved])[..., None] for name in names)
    # Of several steps the last one.
    num_axes = len(problem.axes)
    x, y = (v[:, -1] if v.ndim > num_axes + 2 else v for v in (x, y))
    coordinates = tuple(problem.coordinates[axis] for axis in problem.axes)
    path = plan.root / "preview.png"
    plan.root.mkdir(parents=True, exist_ok=True)
    plot_samples(
        path,
        Samples(x, y, plan.order[:num], coordinates),
        names,
        problem.equation,
        [s.true_residual for s in solved],
        getattr(problem, "mesh", None),
    )
    print(path)
    return DONE


def listing() -> str:
    """Problems, methods, preconditioners, orderings, schemes and data configs."""
    from datagen import problems, sorting
    from solvers import preconditioners, sequence
    from solvers.spectral.steppers import STEPPERS

    lines = ["problems:", *(f"  {name}" for name in problems.names())]
    lines += ["methods (--config.solver.method=...):"]
    for name in sequence.names():
        info = sequence.METHODS.get(name)
        lines.append(f"  {name:24s} {_properties(info)}".rstrip())
    lines += ["preconditioners (--config.solver.preconditioner=...):"]
    lines += [f"  {name}" for name in ("auto", *preconditioners.names())]
    lines += ["orderings (--config.solver.ordering=...):"]
    lines += [f"  {name}" for name in ("auto", *sorting.METHODS)]
    lines += ["time stepping (--config.solver.scheme=...), of sets that evolve:"]
    lines += [f"  {name}" for name in STEPPERS]
    lines += ["data configs (--config ...[:variant]):"]
    folder = Path(loading.__file__).parent / "data"
    for path in sorted(folder.glob("[!_]*.py")):
        docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
        lines.append(
            f"  configs/data/{path.name:24s} {docstring.partition(chr(10))[0]}"
        )
    return "\n".join(lines)


def _properties(info) -> str:
    """What a method asks of the matrices, and what it takes and keeps."""
    if info is None:
        return "real systems; what the options ask for"
    words = [
        {"any": "any matrix", "spd": "positive definite"}.get(info.needs, info.needs)
    ]
    words += [] if info.complex_systems else ["real"]
    words += ["carries state: ordering matters"] if info.carries else []
    words += [f"takes {', '.join(info.settings)}"] if info.settings else []
    return "; ".join(words)
