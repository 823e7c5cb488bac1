"""From options and config to the plan in a folder: checked, measured, sorted."""

import os
from pathlib import Path

from datagen.interruption import StopFlag
from datagen.methods import MethodError
from datagen.plan import (
    Plan,
    PlanError,
    check_same_plan,
    create_problem,
    load_plan,
    make_plan,
    plain,
    write_plan,
)


def planned(options, config, root: Path, stop: StopFlag) -> Plan:
    """The plan of a folder, made first where the command may do that.

    Args:
        options: of the command line: command and, if it has them, calibrate and num.
        config: the data config; None where the folder holds a plan.
        root: folder of the data set.
        stop: looked at while samples are drawn and solved.

    Raises:
        PlanError: if options, config, folder and plan do not fit together.
    """
    makes = options.command in ("plan", "generate")
    calibrate = makes and options.calibrate
    if makes and options.num is not None and not calibrate:
        raise PlanError(
            f"--num is {options.num}, but it is for --calibrate, which is not there; "
            "config.splits says how many samples there will be"
        )
    existing = load_plan(root) if (root / "plan.json").exists() else None
    if existing is None and makes and config:
        check_folder(root)
        choice = measured(plain(config), options.num, stop) if calibrate else None
        watch = drawing(config, stop)
        return prepare(make_plan(config, root, watch=watch, choice=choice))
    plan = existing or load_plan(root)
    if config is not None:
        check_same_plan(make_plan(config, root, existing=plan), plan)
    if calibrate:
        check_calibrated(plan, options.num)
    return plan


def drawing(config, stop: StopFlag):
    """Shows how far the drawing of all inputs is that sorting needs."""
    import tqdm

    def watch(ids):
        print(
            f"{config.name}: drawing the inputs of {len(ids)} samples once, to sort "
            "them (--config.solver.ordering=none does without)",
            flush=True,
        )
        for sample_id in tqdm.tqdm(ids, unit="sample", disable=None, leave=False):
            stop.check()
            yield sample_id

    return watch


def measured(config, num: int | None, stop: StopFlag) -> dict:
    """The choice of `plan --calibrate`.

    Args:
        config: a data config, in plain dicts.
        num: samples to measure on; None: as many as usual.
        stop: looked at between solves.

    Raises:
        PlanError: if the config names a method, the number is out of range, or no
            method can be chosen.
    """
    from datagen.calibrate import calibrate
    from datagen.measuring import number_of_samples

    if "scheme" in config["solver"]:
        raise PlanError(
            f"--calibrate measures methods for linear systems, and {config['name']} is "
            "integrated in time: compare time steps with `python -m datagen explain`"
        )
    if (method := config["solver"]["method"]) != "auto":
        raise PlanError(
            f"--calibrate chooses the method, but config.solver.method is {method}; "
            "leave one of them out"
        )
    num = number_of_samples(num, config)
    problem = create_problem(config["problem"])
    print(f"{config['name']}: measuring methods on {num} samples", flush=True)
    try:
        return calibrate(config, problem, num=num, poll=stop.check)
    except MethodError as error:
        raise PlanError(str(error)) from error


def check_calibrated(plan: Plan, num: int | None) -> None:
    """Refuses to measure for a plan that stands already.

    Raises:
        PlanError: if it was made without measuring, or the number of samples is out of
            range.
    """
    from datagen.measuring import number_of_samples

    number_of_samples(num, plan.config)
    if not plan.solver["choice"]["calibrated"]:
        raise PlanError(
            f"{plan.root} was planned without --calibrate, and a plan stays as it is; "
            "leave --calibrate out to go on, or choose another --out"
        )


def check_folder(root: Path) -> None:
    """Looks whether a new data set can live in a folder, before any work is done.

    Raises:
        PlanError: if it holds something else, or cannot be written to.
    """
    if root.is_dir():
        ours = {"order.npy", "parents.npy", "staging", "logs"}
        ours |= {"preview.png", "explain.png"}
        strangers = sorted({path.name for path in root.iterdir()} - ours)
        if strangers:
            raise PlanError(
                f"--out {root} holds other files, such as {strangers[0]}; choose a "
                "new or an empty folder"
            )
    place = next(path for path in (root, *root.absolute().parents) if path.exists())
    if not place.is_dir():
        raise PlanError(f"--out {root}: {place} is a file; choose another one")
    if not os.access(place, os.W_OK):
        raise PlanError(f"--out {root} is not writable; choose another one")


def prepare(plan: Plan) -> Plan:
    """Makes the folder and writes the plan, or accepts the equal one that is there.

    Raises:
        PlanError: if the folder cannot be used.
    """
    try:
        plan.root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PlanError(
            f"--out {plan.root}: {error.strerror}; choose another one"
        ) from None
    return write_plan(plan)
