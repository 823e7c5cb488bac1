"""GCRO-DR(m, k) in JAX for many chains of systems that advance in lockstep.

A chain is an ordered list of systems solved one after the other; it carries its own
recycle space from each to the next. All chains stand at the same position at any time
and are solved together by one compiled program, so that an accelerator sees matrix
products over [chains, m + 1, n] instead of single vectors. Long sequences are cut into
chains of neighbours by `cut_into_chains`:

    import jax
    jax.config.update("jax_enable_x64", True)
    from solvers.krylov.batched_gcrodr import cut_into_chains, iter_chains

    positions = cut_into_chains(systems, num_chains=16)  # sorted list of LinearSystem
    for x, records in iter_chains(positions, rtol=1e-8, precondition="jacobi"):
        ...  # x [16, *grid] and 16 records: system `position` of every chain

A chain whose systems need more steps than the others' makes those wait, but changes
nothing in them: results and counts are those of the chain alone.

A chain works on about m + 1 + 4 k vectors. On a CPU a few chains whose vectors stay in
the cache are faster per system than many; give each core its own with `devices` and
`jax.config.update("jax_num_cpu_devices", ...)`. On accelerators take as many chains as
memory holds, but remember that every chain begins with a cold solve or two.
"""

import dataclasses
import functools
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from solvers.krylov.batched_position import (
    BROKEN,
    EXHAUSTED,
    STAGNATED,
    Preconditioner,
    solve_position,
)
from solvers.precision import require_x64
from solvers.results import SolveRecord
from solvers.stencils import StencilOperator

MAXITER = 10_000
REASONS = {
    STAGNATED: "the residual stagnates, also without recycle space",
    EXHAUSTED: "maxiter reached",
    BROKEN: "NaN or infinity in A, b or M",
}


class ChainResult(NamedTuple):
    """Solutions and reports of all chains.

    Attributes:
        x: [chains, length, *grid], float64 or complex128.
        records: one list of `SolveRecord` per chain, in the order of its systems.
    """

    x: np.ndarray
    records: list[list[SolveRecord]]

    def field(self, name: str) -> np.ndarray:
        """One field of all records as an array [chains, length], e.g. iterations."""
        return np.array([[getattr(r, name) for r in chain] for chain in self.records])


def jacobi(operator: StencilOperator, r: jax.Array) -> jax.Array:
    """M r for M the inverse of the diagonal, [chains, *grid]."""
    return r / operator.diagonal()


PRECONDITIONERS: dict[str, Preconditioner | None] = {"none": None, "jacobi": jacobi}


def cut_into_chains(
    systems: Sequence, num_chains: int
) -> Iterator[tuple[StencilOperator, np.ndarray]]:
    """Cuts an ordered list of systems into chains of neighbours of equal length.

    Args:
        systems: `LinearSystem`s with a `StencilOperator` of batch 1 each, all on one
            grid with the same offsets.
        num_chains: divides the number of systems.

    Yields:
        Per position the operator of batch num_chains and rhs [num_chains, *grid].

    Raises:
        ValueError: if num_chains does not divide the number of systems.
    """
    if num_chains < 1 or len(systems) % num_chains:
        raise ValueError(
            f"num_chains is {num_chains}; expected a divisor of {len(systems)}, the "
            "number of systems: give fewer systems or another number of chains"
        )
    length = len(systems) // num_chains
    return (_stacked(systems[position::length]) for position in range(length))


def _stacked(systems):
    operators = [system.operator for system in systems]
    coefficients = np.concatenate([o.coefficients for o in operators])
    operator = dataclasses.replace(operators[0], coefficients=coefficients)
    return operator, np.stack([system.rhs for system in systems])


def solve_chains(
    operators: Iterable[StencilOperator], rhs: np.ndarray, **settings: Any
) -> ChainResult:
    """Solves all systems of all chains and returns everything at once.

    Args:
        operators: one `StencilOperator` of batch [chains] per position.
        rhs: [chains, length, *grid], one right-hand side per system.
        **settings: see `iter_chains`.

    Raises:
        ValueError: as `iter_chains`, or if there are not as many operators as
            right-hand sides per chain.
    """
    positions = zip(operators, np.moveaxis(np.asarray(rhs), 1, 0), strict=True)
    solved = list(iter_chains(positions, **settings))
    if not solved:
        raise ValueError("operators is empty; expected one operator per position")
    x = np.stack([x for x, _ in solved], axis=1)
    return ChainResult(x, [list(r) for r in zip(*(r for _, r in solved), strict=True)])


def iter_chains(
    positions: Iterable[tuple[StencilOperator, np.ndarray]],
    *,
    m: int = 40,
    k: int = 20,
    rtol: float = 1e-8,
    atol: float = 0.0,
    maxiter: int = MAXITER,
    precondition: str | Preconditioner = "none",
    inner: str = "float64",
    devices: Sequence[jax.Device] | None = None,
) -> Iterator[tuple[np.ndarray, list[SolveRecord]]]:
    """Solves the chains position by position, each when it is asked for.

    Right preconditioning; the tolerance is on the true residual, which is recomputed in
    float64 after every cycle and once more, in NumPy, for the record. The initial guess
    is zero. One program is compiled per shape and setting, at the first position.

    A chain whose residual grows, stagnates (two cycles of less than 1 % each) or turns
    to NaN drops its recycle space and goes on cold once; then it is given up with the
    best x so far, and begins the next position cold.

    Args:
        positions: pairs of an operator of batch [chains] and rhs [chains, *grid].
        m: dimension of the search space of a cycle, k included.
        k: dimension of the recycle space; 0 gives GMRES(m) without any recycling.
        rtol: largest accepted ||b - A x|| / ||b||.
        atol: largest accepted ||b - A x||, if that is larger.
        maxiter: largest number of Arnoldi steps per system.
        precondition: "none", "jacobi" or a pure function (operator, r) -> M r, in the
            precision and scaling of its arguments. Always pass the same function:
            another one compiles another program.
        inner: "float64", or "float32" for cycles in single precision inside iterative
            refinement, with half the memory and traffic.
        devices: the chains are divided evenly among these and run there on their own;
            None: JAX's default device.

    Yields:
        x [chains, *grid] in double precision and one record per chain.

    Raises:
        ValueError: for settings out of range or shapes that do not fit.
        RuntimeError: if JAX runs in 32 bit.
    """
    require_x64("batched_gcrodr")
    _check_settings(m, k, rtol, atol, maxiter, inner)
    if isinstance(precondition, str):
        if precondition not in PRECONDITIONERS:
            known = ", ".join(PRECONDITIONERS)
            raise ValueError(f"unknown precondition {precondition!r}; known: {known}")
        precondition = PRECONDITIONERS[precondition]
    devices = None if devices is None else tuple(devices)
    program = _program(m, precondition, inner, devices)
    limits = np.array([rtol, atol, maxiter], np.float64)
    return _solve_each(positions, program, limits, m, k, inner, devices)


def _solve_each(positions, program, limits, m, k, inner, devices):
    carried = first = None
    for operator, b in positions:
        operator, b = _checked_position(operator, b, first)
        if first is None:
            first = (b.shape, operator.offsets, b.dtype)
            _check_first(operator, m, devices)
            carried = _nothing(operator, k, inner)
        recycle_dim = np.asarray(carried[1]).sum(axis=-1)
        start = time.perf_counter()
        x, norm, carried, counts = program(operator, b, carried, limits)
        x, norm, counts = jax.device_get((x, norm, counts))
        seconds = (time.perf_counter() - start) / b.shape[0]
        yield x, _records(operator, b, x, norm, counts, limits, recycle_dim, seconds)


def _nothing(operator, k, inner):
    """Recycle vectors for the first position, all of them not alive."""
    single = np.complex64 if operator.coefficients.dtype.kind == "c" else np.float32
    dtype = single if inner == "float32" else operator.coefficients.dtype
    Y = np.zeros((operator.batch, k, operator.num_unknowns), dtype)
    return Y, np.zeros(Y.shape[:2], bool)


@functools.lru_cache(maxsize=32)
def _program(m, precondition, inner, devices):
    """The compiled solve of one position, one program per setting and shape."""
    solve = functools.partial(
        solve_position, m=m, precondition=precondition, inner=inner
    )
    if devices is not None:
        # Every device runs its own loops: no communication, no waiting for the others.
        own, everywhere = PartitionSpec("chains"), PartitionSpec()
        solve = jax.shard_map(
            solve,
            mesh=Mesh(np.array(devices), ("chains",)),
            in_specs=(own, own, own, everywhere),
            out_specs=own,
            check_vma=False,
        )
    return jax.jit(solve, donate_argnums=2)


def _records(operator, b, x, norm, counts, limits, recycle_dim, seconds):
    """One `SolveRecord` per chain, accepted on the residual recomputed in NumPy."""
    rtol, atol, _ = limits
    with np.errstate(invalid="ignore", over="ignore"):  # of chains with NaN
        true = operator.relative_residual(x, b)
        norm_b = np.linalg.norm(b.reshape(len(b), -1), axis=-1)
        ceiling = np.maximum(rtol * norm_b, atol) / np.where(norm_b > 0, norm_b, 1)
    records = []
    for c in range(len(b)):
        accepted = bool(true[c] <= ceiling[c])  # False for NaN
        status = "converged" if accepted else _complaint(counts.status[c], true[c])
        record = SolveRecord(
            method="batched_gcrodr",
            converged=accepted,
            status=status,
            iterations=int(counts.iterations[c]),
            matvecs=int(counts.matvecs[c]),
            preconditioner_applications=int(counts.applications[c]),
            seconds=seconds,
            relative_residual=float(norm[c]),
            true_relative_residual=float(true[c]),
            recycle_dim=int(recycle_dim[c]),
            fallbacks=("restarted without recycle space",) * int(counts.drops[c]),
            cycles=int(counts.cycles[c]),
        )
        records.append(record)
    return records


def _complaint(status, true):
    reason = REASONS.get(int(status), "the recomputed residual is larger than reported")
    return (
        f"not converged: {reason}; relative residual {true:.2e}; try a better "
        "preconditioner, a larger m, or method 'direct' for this system"
    )


def _check_settings(m, k, rtol, atol, maxiter, inner):
    if not 0 <= k < m:
        raise ValueError(f"m = {m}, k = {k}; expected 0 <= k < m")
    if not (0 < rtol < 1 and atol >= 0 and maxiter >= 1):
        raise ValueError(
            f"rtol = {rtol}, atol = {atol}, maxiter = {maxiter}; expected "
            "0 < rtol < 1, atol >= 0 and maxiter >= 1"
        )
    if inner not in ("float32", "float64"):
        raise ValueError(f"inner is {inner!r}; known: 'float32', 'float64'")


def _checked_position(operator, b, first):
    """Operator and right-hand side in double precision after a look at their shapes."""
    if not isinstance(operator, StencilOperator):
        raise TypeError(
            "a position needs a StencilOperator of batch [chains], got "
            f"{type(operator).__name__}"
        )
    expected = (operator.batch, *operator.grid_shape)
    if tuple(np.shape(b)) != expected:
        raise ValueError(
            f"rhs of a position has shape {np.shape(b)}, but the operator acts on "
            f"{expected}: give [chains, *grid]"
        )
    b = np.asarray(b)
    dtype = np.result_type(np.float64, operator.coefficients.dtype, b.dtype)
    if first is not None:
        shape, offsets, dtype_first = first
        found, begun = (expected, operator.offsets), (shape, offsets)
        if found != begun or np.result_type(dtype, dtype_first) != dtype_first:
            raise ValueError(
                f"chains, grid, offsets and dtype are {(*found, str(dtype))}, but "
                f"{(*begun, str(dtype_first))} at the first position: solve systems "
                "of another kind in a call of their own"
            )
        dtype = dtype_first
    coefficients = np.asarray(operator.coefficients, dtype)
    operator = dataclasses.replace(operator, coefficients=coefficients)
    return operator, b.astype(dtype, copy=False)


def _check_first(operator, m, devices):
    if m > operator.num_unknowns:
        raise ValueError(
            f"m is {m}; expected at most {operator.num_unknowns}, the number of "
            "unknowns"
        )
    if devices is not None and operator.batch % len(devices):
        raise ValueError(
            f"{operator.batch} chains cannot be divided evenly among {len(devices)} "
            "devices: give another number of either"
        )
