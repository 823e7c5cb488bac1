"""Solves sequences with the method that `solvers.strategy` chooses for them."""

import dataclasses
import warnings

import numpy as np

from solvers import sequence
from solvers.results import SolveRecord
from solvers.strategy import (
    Choice,
    Traits,
    choose,
    describe,
    methods_without_x64,
    same_matrix,
)

MAX_LOOKS = 4  # at systems of one kind that the choice does not suit


class AutomaticSolver:
    """Looks at the systems, chooses a method, and goes on with it.

    The first system decides, and the second one again, since only two tell whether the
    matrix stays or old factors are worth keeping. Where the matrix stayed, the first
    system with another one decides anew, and so does, a few times, a system that the
    chosen method does not solve, as those with constant coefficients say nothing about
    the others. A system of another size or kind starts afresh. What the method does
    not solve even then is solved directly, or by CG where the factors would be too
    large. `record.method` names what solved a system, `record.status` ends with the
    choice and its reason, `record.fallbacks` holds what failed before.

    Args:
        spd: promise that all matrices are symmetric positive definite, where diagonal
            dominance does not show it (quadratic elements); None: look.
    """

    def __init__(self, *, spd: bool | None = None):
        self.spd = spd
        self.choice: Choice | None = None
        self._traits: Traits | None = None
        self._solvers: dict[tuple, sequence.SequenceSolver] = {}
        self._first: sequence.LinearSystem | None = None
        self._kind: tuple | None = None
        self._only_first = False
        self._looks = 0

    def solve(
        self,
        system,
        *,
        rtol: float,
        maxiter: int | None = None,
        x0: np.ndarray | None = None,
    ) -> tuple[np.ndarray, SolveRecord]:
        """Solves one system; see `solvers.sequence.SequenceSolver`."""
        system.check()
        self._decide(system)
        limits = {"rtol": rtol, "maxiter": maxiter, "x0": x0}
        method, failures = self.choice.method, []
        x, record = self._solver(method).solve(system, **limits)
        if not record.converged:
            self._solver(method).reset()
            if self._chooses_another(system):
                failures.append(f"{method}: {record.status}")
                method = self.choice.method
                x, record = self._solver(method).solve(system, **limits)
        fallback = "direct" if self._traits.factors_fit else "cg"
        suits = self._traits.factors_fit or self._traits.kind == "spd"
        if not record.converged and method != fallback and suits:
            self._solver(method).reset()
            failures.append(f"{method}: {record.status}")
            x, record = self._solver(fallback).solve(system, **limits)
        return x, dataclasses.replace(
            record,
            status=f"{record.status}; auto chose {method}: {self.choice.reason}",
            fallbacks=(*failures, *record.fallbacks),
        )

    def reset(self) -> None:
        """Drops what is carried, and the choice."""
        for solver in self._solvers.values():
            solver.reset()
        self.choice = self._traits = self._first = self._kind = None
        self._only_first, self._looks = False, 0

    def close(self) -> None:
        """Frees the solvers."""
        for solver in self._solvers.values():
            solver.close()
        self._solvers = {}

    def _decide(self, system) -> None:
        """Chooses at the first system of a kind, the second, and another matrix."""
        kind = _kind(system)
        if kind != self._kind:
            self.reset()
            self._kind, self._first, self._only_first = kind, system, True
            self._choose([system])
        elif self._only_first or (
            self._traits.same_matrix and not same_matrix(self._first, system)
        ):
            self._only_first = False
            self._choose([self._first, system])

    def _chooses_another(self, system) -> bool:
        """Whether the table has another choice once it sees what was not solved."""
        if system is self._first or self._looks == MAX_LOOKS:
            return False
        before, self._looks = self.choice, self._looks + 1
        self._choose([self._first, system])
        return self.choice[:2] != before[:2]

    def _choose(self, systems) -> None:
        self._traits = describe(systems, spd=self.spd)
        missing = methods_without_x64()
        self.choice = choose(self._traits, without=missing)
        best = choose(self._traits)
        if best.method != self.choice.method:
            reason = (
                f"{best.method} would be faster but computes in float64: call "
                'jax.config.update("jax_enable_x64", True) first'
            )
            warnings.warn(f"auto chose {self.choice.method}: {reason}", stacklevel=2)
            self.choice = self.choice._replace(reason=reason)

    def _solver(self, method: str) -> sequence.SequenceSolver:
        settings = self.choice.settings if method == self.choice.method else {}
        key = method, tuple(settings.items())
        if key not in self._solvers:
            self._solvers[key] = sequence.create(method, **settings)
        return self._solvers[key]


def _kind(system) -> tuple:
    operator = system.operator
    offsets = getattr(operator, "offsets", ()), getattr(operator, "periodic", ())
    return system.rhs.shape, system.dtype, type(operator), offsets
