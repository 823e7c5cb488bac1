"""Integrates samples in time, in batches, and decides which are accepted.

A trajectory is accepted when all its stored fields are finite and the largest relative
defect of the equation's balance laws over its steps is at most `config.solver.accept`.
What is refused is integrated again with half the step (and half the CFL number),
`halvings` times, and then goes to quarantine; the others of its batch stay as they are.

Every batch has the same number of samples, the last one filled up with copies, so that
one compiled program serves a whole run. Batches never reach over the end of a shard:
the bytes of a file are a function of plan and shard.
"""

import dataclasses
import difflib
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from datagen.ladder import HALVED, PLANNED, QUARANTINE, Solved
from datagen.methods import MethodError
from datagen.problems.base import Evolution, TimeStepping
from datagen.storage.well import QUALITY_COLUMNS
from solvers.precision import require_x64
from solvers.results import SolveRecord

STREAM = "initial"  # of random numbers, see `datagen.plan.STREAMS`


def resolve(
    solver: Mapping[str, Any], problem, sizes: list[int], shard_size: int
) -> dict[str, Any]:
    """`plan.solver` of a set that is integrated in time, checked early.

    Args:
        solver: `config.solver`, from `configs.common.time_stepping`.
        problem: see `datagen.problems.base.EvolutionProblem`.
        sizes: samples per split.
        shard_size: samples per file.

    Returns:
        What `datagen.methods.resolve` returns for linear systems: the method is the
        scheme, the tolerances are the accepted defect, and settings holds dt and cfl
        (left out where they decide nothing; dt at most the interval between frames),
        dtype, batch_size (no larger than a
        shard) and halvings.

    Raises:
        MethodError: in one sentence that names the key.
    """
    _check_settings(solver)
    _check_columns(problem.quality_columns)
    scheme = solver["scheme"]
    settings = {key: solver[key] for key in ("dt", "cfl") if solver[key]}
    settings |= {
        "dtype": solver["dtype"],
        "batch_size": min(solver["batch_size"], shard_size, max(sizes)),
        "halvings": solver["halvings"],
    }
    resolved = {
        "method": scheme,
        "settings": settings,
        "preconditioner": "none",
        "ordering": "none",
        "rtol": solver["accept"],
        "accept_rtol": solver["accept"],
        "maxiter": None,
        "carries": False,
        "fallbacks": [],
        "choice": {
            "asked": scheme,
            "method": scheme,
            "settings": {},
            "reason": "named in the config",
            "calibrated": False,
            "costs": {},
        },
    }
    if check := getattr(problem, "check", None):
        try:
            check(stepping(resolved))
        except ValueError as error:
            raise MethodError(f"config.solver: {error}") from error
    if "dt" in settings:
        settings["dt"] = _largest_step(settings["dt"], problem.steps)
    return resolved


def _check_settings(solver: Mapping[str, Any]) -> None:
    """Refuses schemes, steps and precisions that there are not."""
    from solvers.spectral.steppers import STEPPERS

    scheme, known = solver["scheme"], list(STEPPERS)
    if scheme not in known:
        close = difflib.get_close_matches(scheme, known, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise MethodError(
            f"config.solver.scheme is {scheme!r}; {hint}known: {', '.join(known)}"
        )
    for key in ("dt", "cfl"):
        if not 0 <= solver[key] < np.inf:
            raise MethodError(
                f"config.solver.{key} is {solver[key]}; expected a positive number, or "
                "0 to leave it out"
            )
    if solver["dt"] == solver["cfl"] == 0:
        raise MethodError(
            "config.solver has neither dt nor cfl; give the largest time step, the "
            "largest CFL number, or both"
        )
    if solver["dtype"] == "float64":
        try:
            require_x64("config.solver.dtype=float64")
        except RuntimeError as error:
            raise MethodError(str(error)) from error


def _largest_step(dt: float, steps: np.ndarray) -> float:
    """The dt asked for, but no longer than the intervals between frames.

    Those bound the step anyway: half of a longer dt could be the same step again.
    """
    from solvers.spectral.marching import MAX_STEPS

    longest = float(np.diff(steps).max() if len(steps) > 1 else steps[0])
    if longest / dt > MAX_STEPS:
        raise MethodError(
            f"config.solver.dt is {dt}, which takes {longest / dt:.0f} steps between "
            f"frames; expected at most {MAX_STEPS}: choose dt of at least "
            f"{longest / MAX_STEPS:.3g}"
        )
    return min(dt, longest) if longest > 0 else dt


def _check_columns(columns: Mapping[str, str]) -> None:
    for name in columns:
        if name in QUALITY_COLUMNS or not name.isidentifier() or name != name.lower():
            raise MethodError(
                f"the problem names a quality column {name!r}; expected a lower case "
                f"name other than {', '.join(QUALITY_COLUMNS)}"
            )


def stepping(solver: Mapping[str, Any]) -> TimeStepping:
    """Scheme and step of the first attempt, from `plan.solver`."""
    settings = solver["settings"]
    return TimeStepping(
        solver["method"], settings.get("dt"), settings.get("cfl"), settings["dtype"]
    )


class Evolver:
    """Integrates samples in batches.

    Args:
        problem: see `datagen.problems.base.EvolutionProblem`.
        solver: `plan.solver`, see `resolve`.

    Attributes:
        solve_seconds: CPU time inside the integration so far.
    """

    def __init__(self, problem, solver: Mapping[str, Any]):
        self.problem, self.solver = problem, solver
        self.batch_size = solver["settings"]["batch_size"]
        self.solve_seconds = 0.0

    def solve_all(
        self, rngs: Iterable[np.random.Generator], poll: Callable[[], None]
    ) -> Iterator[Solved]:
        """Integrates one sample per generator, in order.

        Args:
            rngs: random numbers of the samples.
            poll: called before every integration of a batch; may raise to stop.
        """
        rngs = iter(rngs)
        while part := list(itertools.islice(rngs, self.batch_size)):
            trials = [_Trial.drawn(self.problem, rng) for rng in part]
            self._integrate([trial for trial in trials if trial.sample], poll)
            yield from (trial.solved() for trial in trials)

    def close(self) -> None:
        """Nothing is held."""

    def _integrate(self, trials: "list[_Trial]", poll: Callable[[], None]) -> None:
        """Tries the planned step and smaller ones on what is not accepted yet."""
        step = stepping(self.solver)
        for level in range(self.solver["settings"]["halvings"] + 1):
            if not trials:
                return
            self._attempt(trials, step, PLANNED if level == 0 else HALVED, poll)
            trials = [trial for trial in trials if trial.fields is None]
            step = step.halved()

    def _attempt(self, trials, step: TimeStepping, rung: int, poll) -> None:
        poll()
        # Copies, not zeros: a state at rest may take other steps than the samples.
        filled = [trials[min(i, len(trials) - 1)] for i in range(self.batch_size)]
        start = time.process_time()
        try:
            with np.errstate(all="ignore"):  # what is not finite is refused below
                evolution = self.problem.evolve([t.sample for t in filled], step)
            _check_shapes(evolution, self.problem, self.batch_size)
        except Exception as error:
            _check_memory(error, self.batch_size)
            if len(trials) == 1:
                trials[0].failures.append(f"{_words(step)}: {_describe(error)}")
                return
            evolution = None
        finally:
            self.solve_seconds += time.process_time() - start
        if evolution is None:  # one of them may have spoiled it for all: each alone
            for trial in trials:
                self._attempt([trial], step, rung, poll)
            return
        for i, trial in enumerate(trials):
            trial.judge(evolution, i, step, rung, self.solver["accept_rtol"])


@dataclasses.dataclass
class _Trial:
    """One sample of a batch and what came out of it so far.

    Attributes:
        sample: the random inputs; None if drawing them failed.
        failures: one sentence per attempt that failed.
        fields: stored fields once they are accepted.
    """

    sample: dict[str, np.ndarray] | None
    failures: list[str]
    fields: dict[str, np.ndarray] | None = None
    rung: int = QUARANTINE
    record: SolveRecord | None = None
    quality: dict[str, float] = dataclasses.field(default_factory=dict)

    @classmethod
    def drawn(cls, problem, rng: np.random.Generator) -> "_Trial":
        """Draws a sample; one that is not finite is not integrated."""
        try:
            with np.errstate(all="ignore"):
                sample = problem.sample(rng)
            for name, values in sample.items():
                if not np.isfinite(values).all():
                    raise ValueError(f"{name} is not finite")
        except Exception as error:
            return cls(None, [f"drawing the sample: {_describe(error)}"])
        return cls(sample, [])

    def judge(
        self, evolution: Evolution, i: int, step: TimeStepping, rung: int, accept: float
    ) -> None:
        """Takes over row i of a batch, or says why not."""
        defect = float(evolution.defect[i])
        fields = {name: values[i] for name, values in evolution.fields.items()}
        wild = [name for name, v in fields.items() if not np.isfinite(v).all()]
        complaint = ""
        if wild:
            complaint, defect = f"the field {wild[0]} is not finite", np.nan
        elif not defect <= accept:
            complaint = f"balance defect {defect:.2e}, accepted up to {accept:.0e}"
        self.record = SolveRecord(
            method=step.scheme,
            converged=not complaint,
            status=complaint or "converged",
            iterations=int(evolution.steps[i]),
            matvecs=int(evolution.transforms[i]),
            preconditioner_applications=0,
            seconds=np.nan,
            relative_residual=defect,
            true_relative_residual=defect,
        )
        self.quality = {k: float(v[i]) for k, v in evolution.quality.items()}
        if complaint:
            self.failures.append(f"{_words(step)}: {complaint}")
        else:
            self.fields, self.rung = fields, rung

    def solved(self) -> Solved:
        """What the run stores."""
        records = () if self.record is None else (self.record,)
        return Solved(
            self.fields,
            self.rung,
            records,
            self.record.true_relative_residual if self.record else np.nan,
            tuple(self.failures),
            self.sample,
            failed_step=-1 if self.fields is not None else 0,
            quality=self.quality,
        )


def _check_shapes(evolution: Evolution, problem, num: int) -> None:
    """Refuses what a problem returns in other shapes than it promised.

    Raises:
        ValueError: naming the array.
    """
    grid = tuple(len(problem.coordinates[axis]) for axis in problem.axes)
    shapes = {
        spec.name: (num, *((len(problem.steps),) if spec.time_varying else ()), *grid)
        for spec in problem.fields
    }
    numbers = dict.fromkeys(problem.quality_columns, (num,))
    counts = {name: getattr(evolution, name) for name in ("defect", "steps")}
    counts["transforms"] = evolution.transforms
    for what, expected, found in (
        ("field", shapes, evolution.fields),
        ("quality column", numbers, evolution.quality),
        ("array", dict.fromkeys(counts, (num,)), counts),
    ):
        if set(expected) != set(found):
            raise ValueError(
                f"the {what}s evolve returned are {sorted(found)}; expected "
                f"{sorted(expected)}"
            )
        for name, shape in expected.items():
            if np.shape(found[name]) != shape:
                raise ValueError(
                    f"the {what} {name} that evolve returned has shape "
                    f"{np.shape(found[name])}; expected {shape}"
                )


def _check_memory(error: Exception, batch_size: int) -> None:
    """Lets a lack of memory end the run: no sample is to blame for it.

    Raises:
        RuntimeError: that says what to do.
    """
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        raise RuntimeError(
            f"there is not enough memory to integrate {batch_size} samples together: "
            "choose a smaller --config.solver.batch_size and another --out"
        ) from error


def _words(step: TimeStepping) -> str:
    """Scheme and step in a sentence: etdrk4 with dt 0.001."""
    sizes = {"dt": step.dt, "cfl": step.cfl}
    words = [f"{name} {size:g}" for name, size in sizes.items() if size]
    return f"{step.scheme} with {', '.join(words)}"


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
