"""GCRO-DR(m, k): restarted GMRES that carries a deflation space to the next system."""

import time
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from solvers.krylov.blocks import SERIAL, Rows
from solvers.krylov.problem import CycleState, GCRODRResult, Problem
from solvers.krylov.recycle import RecycleSpace, Recycling
from solvers.krylov.restarts import Run


def gcrodr(
    A: Any,
    b: np.ndarray,
    x0: np.ndarray | None = None,
    *,
    M: Any = None,
    m: int = 40,
    k: int = 20,
    rtol: float = 1e-8,
    atol: float = 0.0,
    maxiter: int = 10_000,
    space: RecycleSpace | np.ndarray | None = None,
    same_operator: bool = False,
    mode: Literal["t", "x"] = "t",
    selection: Literal["harmonic", "singular"] = "harmonic",
    refresh: Literal["always", "adaptive", "never"] = "always",
    keep: bool = True,
    callback: Callable[[float], None] | None = None,
    hook: Callable[[CycleState], None] | None = None,
    rows: Rows = SERIAL,
) -> GCRODRResult:
    """Solves A x = b, real or complex, with GCRO-DR(m, k) and right preconditioning.

    Minimises the true residual over the recycled space of dimension k and m - k new
    Krylov vectors in each cycle; the first cycle without a space is GMRES(m). k = 0 is
    GMRES(m) throughout. Not converging is a result, not an error.

    Args:
        A: [n, n] array, SciPy matrix, LinearOperator, or a callable v -> A v.
        b: [n] right-hand side.
        x0: [n] initial guess; None: zero.
        M: preconditioner, approximates A^-1; of the same kinds as A.
        m: largest dimension of the search space of a cycle.
        k: dimension of the recycled space, 0 <= k < m.
        rtol: relative to ||b||.
        atol: absolute; the larger of both tolerances counts.
        maxiter: largest number of Arnoldi steps (not of cycles).
        space: what an earlier result left, or an array [n, j]. Bringing it to A and M
            takes j products.
        same_operator: promises that A and M are the ones that `space` came from, which
            saves these products. A wrong promise spoils the convergence.
        mode: "t" keeps the space in the preconditioned variable, which costs j
            applications of M to carry over; "x" in that of the solution, which costs
            none but m more vectors; also for M that changes from step to step.
        selection: which vectors are kept: harmonic Ritz vectors or approximate right
            singular vectors.
        refresh: renew the space after every cycle ("always"), after cycles slower than
            the median ("adaptive"), or only while none was passed in ("never").
        keep: whether to renew the space after the last cycle too, for another system,
            and to return it.
        callback: called with ||r|| / ||b|| at the start and after every step.
        hook: called after every cycle; for tests and studies.
        rows: who owns which rows, if b and x are distributed.

    Raises:
        ValueError: if shapes do not fit or settings are out of range.
        TypeError: if A, M or the space is complex beside real b and x0.

    References:
        Parks, de Sturler, Mackey, Johnson, Maiti (2006), Recycling Krylov subspaces
        for sequences of linear systems, SIAM J. Sci. Comput. 28(5).
    """
    start = time.perf_counter()
    problem = Problem(A, M, b, x0, rows)
    check_settings(m, k, mode, selection, refresh)
    if m > problem.size:
        raise ValueError(f"m is {m}; expected at most {problem.size}, the unknowns")
    if maxiter < 0:
        raise ValueError(f"maxiter is {maxiter}; expected 0 or more steps")
    space = None if k == 0 else problem.check_space(space)
    if space is not None and not same_operator:
        space = space.for_another_matrix()
    flexible = mode == "x" and problem.M is not None
    kernels = problem.kernels
    recycling = Recycling(len(problem.b), m, k, kernels, selection, flexible)
    run = Run(problem, recycling, m, maxiter, refresh, keep, callback, hook)
    with np.errstate(all="ignore"):  # NaN and Inf are looked for where they matter
        run.solve(rtol, atol, space)
    return run.result(time.perf_counter() - start)


def check_settings(
    m: int,
    k: int,
    mode: str = "t",
    selection: str = "harmonic",
    refresh: str = "always",
) -> None:
    """Looks at the settings of `gcrodr` that do not depend on the system.

    Raises:
        ValueError: naming the one that is out of range.
    """
    if m < 1:
        raise ValueError(f"m is {m}; expected 1 or more")
    if not 0 <= k < m:
        raise ValueError(f"k is {k}; expected 0 <= k < m = {m} (0 is GMRES(m))")
    for name, value, known in (
        ("mode", mode, ("t", "x")),
        ("selection", selection, ("harmonic", "singular")),
        ("refresh", refresh, ("always", "adaptive", "never")),
    ):
        if value not in known:
            raise ValueError(f"{name} is {value!r}; known: {', '.join(known)}")
