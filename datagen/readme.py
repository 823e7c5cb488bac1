"""README.md of a data set: what the data are, how they were made, how to open them."""

import math
from typing import Any

from datagen.plan import Plan
from datagen.progress import (
    choice_words,
    fallback_words,
    points,
    recycled,
    recycles,
    solver_words,
)
from datagen.storage.read import default_fields

ONE_STEP = """A single solution is stored as a trajectory of one step: ask for no input
steps; `mean_delta` is 0 and `std_delta`, `rms_delta` are 1 in stats.yaml"""

HISTORY = """
An input that varies in time is read at the same step as the solution. The solution
depends on its earlier steps too: load them all with `steps=tuple(range({num}))`,
or give the solution of the step before to a model of one step.
"""


def readme(plan: Plan, manifest: dict[str, Any]) -> str:
    """The text, in Markdown."""
    fields = "\n".join(
        f"- `{f['name']}` ({f['units']}): {f['description']}"
        for f in plan.content["fields"]
    )
    rows = "\n".join(
        f"| {split} | {c['planned']} | {c['accepted']} | {c['quarantined']} |"
        for split, c in manifest["counts"].items()
    )
    return f"""# {manifest["name"]}

{manifest["equation"]}

{points(plan).capitalize()}, {manifest["dtype"]}.
{_integrated(plan, manifest) if plan.evolves else _solved(plan, manifest)}

{fields}

| split | planned | accepted | quarantined |
|---|---|---|---|
{rows}

Rejected samples keep their row in the file, as NaN with `quality/accepted` False; what
is known of them is in `quarantine/`.

{_opening(plan)}
Check the files with `sha256sum -c checksums.sha256`.
"""


def _solved(plan: Plan, manifest: dict[str, Any]) -> str:
    """How the linear systems were solved, and how well."""
    ladder = ", ".join(f"{n} {rung}" for rung, n in manifest["ladder"].items())
    return f"""{_method(plan)}{_choice(plan)}
Every accepted sample has a relative residual ||b - A x|| / ||b||, recomputed in float64
before the cast, of at most {plan.solver["accept_rtol"]:g}; the largest is \
{manifest["true_residual"].get("max", math.nan):.2e}.
Samples by the last method they needed: {ladder}.{_recycling(plan, manifest)}\
{_errors(plan, manifest)}"""


def _integrated(plan: Plan, manifest: dict[str, Any]) -> str:
    """How the samples were integrated in time, how well, and what is told of them."""
    solver, steps = plan.solver, manifest["iterations"]
    words = ", ".join(solver_words(solver))
    text = f"""Integrated in time with `{solver["method"]}` ({words}).
Every accepted sample is finite, and the balance laws of the equation hold over its time
steps up to a relative defect of {solver["accept_rtol"]:g}; the largest is \
{manifest["true_residual"].get("max", math.nan):.2e}
(`quality/true_rel_residual`). Time steps per sample: {steps.get("q50", math.nan):.0f} \
in the median, {steps.get("max", math.nan):.0f} at most (`quality/iterations`)."""
    if words := fallback_words(plan, manifest["ladder"]):
        text += f"\n{words[0].upper()}{words[1:]}."
    if columns := manifest.get("quality"):
        text += (
            "\n\n| in `quality` | smallest | mean | largest | |\n|---|---|---|---|---|"
        )
    for name, v in (columns or {}).items():
        numbers = " | ".join(
            f"{v.get(k, math.nan):.4g}" for k in ("min", "mean", "max")
        )
        text += f"\n| `{name}` | {numbers} | {plan.content['quality'][name]} |"
    return text


def _errors(plan: Plan, manifest: dict[str, Any]) -> str:
    """Lines on the estimated errors, those of iteration and those of the grid."""
    lines = []
    if goal := plan.solver["settings"].get("error_goal"):
        lines.append(
            "The iteration stopped where its estimated relative error in the energy "
            f"norm was\nbelow {goal:.2e}, a tenth of the discretisation error of "
            f"{plan.solver['discretisation']['num_samples']} samples, at a residual "
            f"below {plan.solver['rtol']:g}."
        )
    if found := manifest["algebraic_error"]:
        lines.append(
            "Relative error of the iteration in the energy norm, estimated "
            f"(`quality/algebraic_error`):\nmean {found['mean']:.2e}, largest "
            f"{found['max']:.2e} of {found['num']} samples."
        )
    if found := manifest["discretisation_error"]:
        lines.append(
            "Relative L2 error of the grid, estimated on every second node with order "
            f"{plan.solver['discretisation']['order']:g}\n"
            f"(`quality/discretisation_error`): mean {found['mean']:.2e}, largest "
            f"{found['max']:.2e} of {found['num']} samples."
        )
    return "".join(f"\n{line}" for line in lines)


def _recycling(plan: Plan, manifest: dict[str, Any]) -> str:
    """In how many samples something was recycled, and who solved the others."""
    words = []
    if fallbacks := fallback_words(plan, manifest["ladder"]):
        words.append(fallbacks)
    if recycles(plan.solver):
        words.append(recycled(manifest["recycling"]["recycled"], plan.num_samples))
    return "".join(f"\n{word[0].upper()}{word[1:]}." for word in words)


def _method(plan: Plan) -> str:
    """How the systems were solved."""
    solver = plan.solver
    words = ", ".join(solver_words(solver))
    text = f"Solved with `{solver['method']}`" + (f" ({words})" if words else "")
    if solver["ordering"] == "none":
        return f"{text}, in the order of the sample ids."
    text += f", in the order `{solver['ordering']}`"
    statistics = plan.content["sort_statistics"]
    if train := statistics.get("train"):
        text += (
            f": the features of neighbours differ by {train['mean_step']:.3g} on "
            f"average, unsorted by {train['unsorted']:.3g}"
        )
        if num := sum(split.get("not_sortable", 0) for split in statistics.values()):
            text += f"; {num:.0f} samples without finite features come last"
    return f"{text}."


def _choice(plan: Plan) -> str:
    """A line on why this method, where the config left it open."""
    why = choice_words(plan.solver)
    return f"\n{why[0].upper()}{why[1:]}." if why else ""


def _opening(plan: Plan) -> str:
    """How to open it with this package, h5py and The Well."""
    fields = plan.content["fields"]
    several = len(plan.content["steps"]["values"]) > 1
    if plan.evolves and several:
        return _opening_trajectories(plan)
    axes = ", ".join(plan.content["grid"]["axes"])
    inputs, outputs = default_fields(fields)
    loading = f"inputs={inputs}, outputs={outputs}"
    if several:
        loading += ", steps=-1"
    varying = {f["name"] for f in fields if f["time_varying"]}
    example = [_h5py_line(n, n in varying, several, axes) for n in (*inputs, *outputs)]
    lines = "\n        ".join(example)
    num = len(plan.content["steps"]["values"])
    history = HISTORY.format(num=num) if several and varying & set(inputs) else ""
    note = (
        "The coordinates of the steps are in `dimensions/time`" if several else ONE_STEP
    )
    return f"""## Open it

With this package:

    from datagen.storage.read import open_dataset
    train = open_dataset(".").load(
        "train", {loading}
    )
    train.x, train.y, train.coordinates
{history}
With h5py (the rows of a file are in the order in which they were solved;
`quality/sample_id` tells which is which):

    import h5py
    with h5py.File("{plan.shards[0].file}") as file:
        keep = file["quality/accepted"][()]
        {lines}

With The Well. {note}:

    from the_well.data import WellDataset
    data = WellDataset(path=".", well_split_name="train",
                       n_steps_input={int(several)}, n_steps_output=1)
"""


def _opening_trajectories(plan: Plan) -> str:
    """The same for trajectories, of which inputs and outputs are parts."""
    axes = ", ".join(plan.content["grid"]["axes"])
    names = [f["name"] for f in plan.content["fields"] if f["time_varying"]]
    num = len(plan.content["steps"]["values"])
    lines = "\n        ".join(_h5py_line(name, True, True, axes) for name in names)
    split = plan.shards[0].split
    return f"""## Open it

With this package:

    from datagen.storage.read import open_dataset
    dataset = open_dataset(".")
    # [samples, steps, {axes}]
    {names[0]} = dataset.trajectories("{split}", "{names[0]}")
    dataset.steps  # the {num} times

With h5py (`quality/sample_id` tells which sample a row is):

    import h5py
    with h5py.File("{plan.shards[0].file}") as file:
        keep = file["quality/accepted"][()]
        {lines}

With The Well (the times are in `dimensions/time`):

    from the_well.data import WellDataset
    data = WellDataset(path=".", well_split_name="{split}",
                       n_steps_input={min(10, max(1, num - 1))}, n_steps_output=1)
"""


def _h5py_line(name: str, varies: bool, several: bool, axes: str) -> str:
    """How to read one field with h5py."""
    if not varies:
        return f'{name} = file["t0_fields/{name}"][keep]  # [samples, {axes}]'
    if several:
        return f'{name} = file["t0_fields/{name}"][keep]  # [samples, steps, {axes}]'
    return f'{name} = file["t0_fields/{name}"][keep, 0]  # [samples, {axes}]'
