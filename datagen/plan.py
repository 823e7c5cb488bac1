"""The plan: which sample is drawn from which seed, solved how, and stored where.

`plan.json` and `order.npy` are written once. Everything that decides the bytes of the
data is in them and in the code; `plan_sha256` is its fingerprint and stands in every
file made from it.
"""

import dataclasses
import datetime
import functools
import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from datagen import discretisation, evolution, ordering
from datagen.methods import MethodError, resolve
from datagen.problems.base import is_evolution
from datagen.provenance import code_version
from datagen.storage import commit, read, schemas

SPLITS = read.SPLITS
STREAMS = {"coefficient": 0, "forcing": 1, "boundary": 2, "initial": 3, "augment": 4}
NOT_HASHED = ("plan_sha256", "sort_statistics", "code", "created_at")


class PlanError(ValueError):
    """A config cannot be planned, or does not fit the plan that exists."""


@dataclasses.dataclass(frozen=True)
class Shard:
    """An ordered list of samples, solved one after the other into one file.

    Attributes:
        id: "train-00000".
        split: "train", "valid" or "test".
        start: first place in the order.
        stop: one past the last place.
        file: path below the root.
    """

    id: str
    split: str
    start: int
    stop: int
    file: str


@dataclasses.dataclass(frozen=True)
class Plan:
    """A plan that was read from, or is to be written to, a folder.

    Attributes:
        root: folder of the data set.
        content: content of plan.json.
        order: [N] int64, sample id at every place.
        parents: [N] int64, place of the earlier sample of the same shard whose state
            a sample starts from, -1: none; None: always the place before.
    """

    root: Path
    content: dict[str, Any]
    order: np.ndarray
    parents: np.ndarray | None = None

    @property
    def config(self) -> dict[str, Any]:
        """The data config, as plain dicts and lists."""
        return self.content["config"]

    @property
    def solver(self) -> dict[str, Any]:
        """How samples are solved, see `datagen.methods.resolve`."""
        return self.content["solver"]

    @property
    def sha256(self) -> str:
        """Fingerprint of everything that decides the data."""
        return self.content["plan_sha256"]

    @property
    def staging(self) -> Path:
        """Folder of temporary files."""
        return self.root / "staging"

    @functools.cached_property
    def shards(self) -> tuple[Shard, ...]:
        """All shards, in order."""
        return tuple(Shard(**entry) for entry in self.content["shards"])

    @property
    def num_samples(self) -> int:
        """Samples over all splits."""
        return len(self.order)

    @property
    def evolves(self) -> bool:
        """Whether samples are integrated in time instead of solving linear systems."""
        return "scheme" in self.config["solver"]

    def sample_ids(self, shard: Shard) -> np.ndarray:
        """Ids of a shard, in the order in which they are solved."""
        return self.order[shard.start : shard.stop]

    def problem(self):
        """Builds the problem."""
        return create_problem(self.config["problem"])


def create_problem(settings: Mapping[str, Any]):
    """Builds a problem from `config.problem`.

    Raises:
        PlanError: if a setting is unknown or out of range.
    """
    from datagen import problems

    settings = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
    try:
        return problems.create(**settings)
    except (ValueError, TypeError) as error:
        raise PlanError(f"config.problem: {error}") from error


def sample_rng(seed: int, sample_id: int, stream: str = "coefficient"):
    """The generator of one sample; the same on every machine and in every order."""
    key = (STREAMS[stream], int(sample_id))
    sequence = np.random.SeedSequence(seed, spawn_key=key)
    return np.random.Generator(np.random.Philox(sequence))


def make_plan(
    config: Mapping[str, Any],
    root: Path,
    *,
    existing: Plan | None = None,
    watch: ordering.Watch = ordering.SILENT,
    choice: Mapping[str, Any] | None = None,
) -> Plan:
    """Plans a data set; writes nothing.

    To sort samples the inputs of all of them are drawn once and thrown away.

    Args:
        config: a data config (keys: see `datagen.storage.schemas.PLAN`).
        root: folder of the data set.
        existing: a plan to go on with: its order is taken over without drawing.
        watch: sees every drawn sample go by; may raise to stop.
        choice: a measured choice of the method, from `datagen.calibrate`; None: that
            of the existing plan, or else by the table.

    Raises:
        PlanError: if the config is wrong, or its method does not suit the problem.
    """
    config = plain(config)
    problem = create_problem(config["problem"])
    steps = steps_of(problem)
    solver = _resolved(config, problem, existing, choice)
    shards = _cut(config)
    if existing is None:
        sorted_samples = ordering.order_samples(
            lambda i: problem.features(problem.sample(sample_rng(config["seed"], i))),
            [(shard.split, shard.start, shard.stop) for shard in shards],
            solver["ordering"],
            watch,
        )
    else:
        statistics = existing.content["sort_statistics"]
        order, parents = existing.order, existing.parents
        sorted_samples = ordering.SortedSamples(order, parents, statistics)
    order, parents, statistics = sorted_samples
    content = {
        "schema_version": schemas.SCHEMA_VERSION,
        "config": config,
        "equation": problem.equation,
        "settings": problem.settings,
        "grid": {
            "axes": list(problem.axes),
            "shape": [len(problem.coordinates[axis]) for axis in problem.axes],
        },
        "steps": {
            "name": getattr(problem, "step_name", "time"),
            "values": [0.0] if steps is None else steps.tolist(),
        },
        "fields": [dataclasses.asdict(field) for field in problem.fields],
        "solver": solver,
        "sort": {"method": solver["ordering"]},
        "random": {"generator": "Philox(SeedSequence)", "streams": STREAMS},
        "shards": [dataclasses.asdict(shard) for shard in shards],
        "order_sha256": hashlib.sha256(_npy(order)).hexdigest(),
    }
    if is_evolution(problem):
        content["quality"] = dict(problem.quality_columns)
    if parents is not None:
        content["sort"]["parents_sha256"] = hashlib.sha256(_npy(parents)).hexdigest()
    content["plan_sha256"] = plan_sha256(content)
    content["sort_statistics"] = statistics
    content["code"] = code_version()
    content["created_at"] = datetime.datetime.now(datetime.UTC).isoformat()
    return Plan(root, content, order, parents)


def _resolved(
    config: dict[str, Any], problem, existing: Plan | None, choice
) -> dict[str, Any]:
    """`plan.solver`.

    Raises:
        PlanError: if `config.solver` is wrong, or does not suit the problem.
    """
    solver, sizes = config["solver"], list(config["splits"].values())
    if is_evolution(problem) != ("scheme" in solver):
        suits = "time_stepping" if is_evolution(problem) else "solver"
        does = "is integrated in time" if is_evolution(problem) else "is not"
        raise PlanError(
            f"config.solver has the keys {', '.join(solver)}, but problem "
            f"{config['problem']['name']} {does}; expected configs.common.{suits}(...)"
        )
    try:
        if is_evolution(problem):
            return evolution.resolve(solver, problem, sizes, config["shard_size"])
        if existing is not None and existing.config["solver"] == solver:
            choice = existing.solver.get("choice")  # frozen, whatever the table says
        resolved = resolve(solver, problem, sizes, choice)
        known = existing and existing.solver.get("discretisation")
        return discretisation.frozen(solver, problem, resolved, known)
    except MethodError as error:
        raise PlanError(str(error)) from error


def plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """A data config as plain dicts and lists, checked.

    Raises:
        PlanError: if a key is missing, unknown, or has a value of another kind.
    """
    config = json.loads(json.dumps(dict(config), default=_plain))
    _check_config(config)
    return config


def plan_sha256(content: Mapping[str, Any]) -> str:
    """Fingerprint of a plan's content, code version and date left out."""
    return read.canonical_sha256(
        {key: value for key, value in content.items() if key not in NOT_HASHED}
    )


def write_plan(plan: Plan) -> Plan:
    """Writes a plan, or accepts the equal one that is there.

    Returns:
        The plan as it stands on disk.

    Raises:
        PlanError: if the folder holds a plan of another config.
        CommitError: if it cannot be written.
    """
    if not (plan.root / "plan.json").exists():
        kwargs = {"staging": plan.staging}
        for name, array in (("order", plan.order), ("parents", plan.parents)):
            if array is not None:
                path = plan.root / f"{name}.npy"
                commit.commit(path, _npy(array), kind="order", **kwargs)
        try:
            text = json.dumps(plan.content, indent=1) + "\n"
            commit.commit(
                plan.root / "plan.json",
                text.encode(),
                kind="plan",
                exclusive=True,
                **kwargs,
            )
        except FileExistsError:
            pass  # another process planned at the same moment: compare below
    existing = load_plan(plan.root)
    check_same_plan(plan, existing)
    return existing


def load_plan(root: Path) -> Plan:
    """Reads a plan.

    Raises:
        PlanError: if there is none.
        DatasetError: if it is damaged, was edited, or is of an older version.
    """
    path = root / "plan.json"
    if not path.exists():
        raise PlanError(
            f"{root} holds no plan: run `python -m datagen plan --config <data config> "
            f"--out {root}` first"
        )
    try:
        content = read.read_json(path, schemas.PLAN)
    except read.DatasetError as error:
        if not _is_older(path):
            raise
        raise read.DatasetError(
            f"{path} was written by an older version of this program, which cannot go "
            "on here: a data set that is finished can still be opened and read; to "
            "make it anew choose another --out"
        ) from error
    if content["plan_sha256"] != plan_sha256(content):
        raise read.DatasetError(
            f"{path} was edited: its content does not match its plan_sha256; put the "
            "former content back, or choose another --out for other settings"
        )
    order = _load_array(root, "order", content["order_sha256"])
    parents = None
    if digest := content["sort"].get("parents_sha256"):
        parents = _load_array(root, "parents", digest)
    return Plan(root, content, order, parents)


def _is_older(path: Path) -> bool:
    """Whether a plan that breaks the schema is just as it was once written."""
    try:
        content = json.loads(path.read_text())
        newer = content["schema_version"] > schemas.SCHEMA_VERSION
        return not newer and content["plan_sha256"] == plan_sha256(content)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return False


def _load_array(root: Path, name: str, sha256: str) -> np.ndarray:
    path = root / f"{name}.npy"
    try:
        image = path.read_bytes()
    except OSError as error:
        raise read.DatasetError(f"{path} cannot be read: {error}") from None
    if hashlib.sha256(image).hexdigest() != sha256:
        raise read.DatasetError(
            f"{path} is not the one of {root / 'plan.json'}: put the former one back"
        )
    return np.load(io.BytesIO(image))


def check_same_plan(plan: Plan, existing: Plan) -> None:
    """Refuses to go on in a folder that was planned with other settings.

    Raises:
        PlanError: naming the settings that differ.
    """
    if plan.sha256 == existing.sha256:
        return
    wanted, found = (
        _flat({k: v for k, v in p.content.items() if k not in NOT_HASHED})
        for p in (plan, existing)
    )
    keys = [k for k in sorted(wanted | found) if wanted.get(k) != found.get(k)]
    keys = [k for k in keys if k.startswith("config.")] or keys
    differences = ", ".join(
        f"{key} is {found.get(key, 'absent')!r} there and {wanted.get(key, 'absent')!r}"
        " in your config"
        for key in keys[:6]
    )
    more = f" and {len(keys) - 6} more" if len(keys) > 6 else ""
    raise PlanError(
        f"{plan.root} holds a data set of another config: {differences}{more}; choose "
        "another --out, or delete that folder"
    )


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    flat = {}
    for key, item in value.items():
        flat |= _flat(item, f"{prefix}.{key}" if prefix else key)
    return flat


def _plain(value: Any) -> Any:
    """JSON for config dicts and the like."""
    if hasattr(value, "to_dict"):
        return value.to_dict()
    raise TypeError(f"{value!r} does not fit into a config")


def _check_config(config: dict[str, Any]) -> None:
    schema = schemas.PLAN["properties"]["config"]
    if problem := schemas.violation(config, schema, "config"):
        raise PlanError(f"{problem}; see configs/data for complete examples")
    if "scheme" in config["solver"] and not any(config["splits"].values()):
        raise PlanError("config.splits are all 0; expected at least 1 sample")
    if "scheme" not in config["solver"] and config["splits"]["train"] < 1:
        raise PlanError("config.splits.train is 0; expected at least 1 sample")


def steps_of(problem) -> np.ndarray | None:
    """Times or frequencies [T] of the stored steps; None for stationary problems.

    Raises:
        PlanError: if the problem solves several systems and does not say what they are.
    """
    steps = getattr(problem, "steps", None)
    if steps is None and getattr(problem, "num_systems", 1) > 1:
        raise PlanError(
            f"problem {problem.name} solves {problem.num_systems} systems per sample "
            "but has no attribute steps: the times or frequencies [T] of what it stores"
        )
    return None if steps is None else np.asarray(steps, np.float64)


def _cut(config: dict[str, Any]) -> list[Shard]:
    """Shards of every split; no shard has samples of two splits."""
    shards, begin = [], 0
    for split in SPLITS:
        end = begin + config["splits"][split]
        for number, start in enumerate(range(begin, end, config["shard_size"])):
            stop = min(start + config["shard_size"], end)
            file = f"data/{split}/{config['name']}-{number:05d}.hdf5"
            shards.append(Shard(f"{split}-{number:05d}", split, start, stop, file))
        begin = end
    return shards


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
