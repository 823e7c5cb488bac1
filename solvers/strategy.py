"""Which method solves a kind of linear systems fastest: measured, written as a table.

`describe` looks at a few systems, `choose` reads the first row of `TABLE` that fits.
Both depend on the systems alone, never on a clock, so that the same systems get the
same method everywhere. Only methods that need no PETSc are chosen.
"""

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla

from solvers import matrices
from solvers.roughness import contrast, largest_step
from solvers.separable import separate
from solvers.sequence import LinearSystem
from solvers.star import planes_of, star_of
from solvers.stencils import StencilOperator, is_singular

# Beyond these the factors take gigabytes: their entries grow as N log N on plane meshes
# and as N^(4/3) in space.
MAX_PLANE_FACTORS = 400_000
MAX_SPACE_FACTORS = 40_000
# |ln a_i - ln a_j| of neighbours: fft_pcg's scaled form holds up to 0.5, and other
# samples may be rougher than those looked at.
SMOOTH_STEP = 0.3
# Contrast and step from which multigrid is set up and iterates in float64: that costs a
# quarter more, and halves the iterations in thin channels.
ROUGH_CONTRAST, ROUGH_STEP = 1e3, 3.0
WORTHWHILE = 0.8  # of the work of a factorisation, for which old factors are kept
PROBE_RTOL = 1e-8
NEED_X64 = ("fft_pcg", "mg_pcg")  # compute in float64 in JAX
DOMINANCE = 1e-12  # relative rounding errors of row sums


@dataclasses.dataclass(frozen=True)
class Traits:
    """What decides the choice.

    Attributes:
        num_unknowns: N.
        num_dims: axes of the grid; 0 without one.
        kind: what every matrix is known to be: "spd" (or singular with the constants as
            null space), "symmetric" (Hermitian) or "general".
        is_complex: whether A or b is.
        has_entries: whether A is more than an action.
        star: whether A is one real symmetric stencil of reach 1.
        singular: whether it maps constants to zero.
        same_matrix: whether all systems looked at share their matrix.
        separable: whether the stencil is a sum of one-dimensional ones, as those with a
            constant coefficient are.
        contrast: largest over smallest coefficient; 1 without a grid.
        step: largest |ln a_i - ln a_j| of neighbours; 0 without a grid.
        old_factors: work of solving a system with the factors of an earlier one, or of
            the preconditioning matrix, in factorisations; infinite if that does not pay
            or was not tried.
        preconditioner_given: whether the systems name a preconditioning matrix.
    """

    num_unknowns: int
    num_dims: int = 0
    kind: str = "general"
    is_complex: bool = False
    has_entries: bool = True
    star: bool = False
    singular: bool = False
    same_matrix: bool = False
    separable: bool = False
    contrast: float = 1.0
    step: float = 0.0
    old_factors: float = math.inf
    preconditioner_given: bool = False

    @property
    def factors_fit(self) -> bool:
        """Whether sparse factors are small enough."""
        limit = MAX_SPACE_FACTORS if self.num_dims == 3 else MAX_PLANE_FACTORS
        return self.has_entries and self.num_unknowns <= limit

    @property
    def grid_spd(self) -> bool:
        """Whether the methods for positive definite stencils apply."""
        return self.star and self.kind == "spd"

    @property
    def smooth(self) -> bool:
        """Whether the coefficient hardly changes from one point to the next."""
        return self.step <= SMOOTH_STEP

    @property
    def rough(self) -> bool:
        """Whether the coefficient jumps by so much that rounding errors count."""
        return self.contrast > ROUGH_CONTRAST and self.step > ROUGH_STEP


class Row(NamedTuple):
    """One row of the strategy table.

    Attributes:
        method: name in `solvers.sequence`.
        settings: its keywords; others keep their defaults.
        when: which traits it is for.
        reason: a sentence; names in braces are those of the traits.
    """

    method: str
    settings: Mapping[str, Any]
    when: Callable[[Traits], bool]
    reason: str


class Choice(NamedTuple):
    """A method, its settings, and why."""

    method: str
    settings: dict[str, Any]
    reason: str


# From the top; the first row that fits and whose method may be used holds.
TABLE = (
    Row(
        "fast_direct",
        {},
        lambda t: t.separable and t.num_dims > 1,
        "constant or separable coefficients on a box: transforms solve the system "
        "directly",
    ),
    Row(
        "direct",
        {},
        lambda t: t.same_matrix and t.factors_fit,
        "one matrix for all systems: factorised once, then back substitutions",
    ),
    Row(
        "fft_pcg",
        {},
        lambda t: t.grid_spd and t.smooth and t.num_dims == 3,
        "3-D grid with a smooth coefficient (largest step of its logarithm "
        "{step:.2g}): transforms precondition as well as multigrid, and compile sooner",
    ),
    Row(
        "direct",
        {},
        lambda t: t.grid_spd and t.num_dims == 1,
        "a line of unknowns: its factors are no larger than the matrix",
    ),
    # The precision is part of the choice: were it taken system by system, a sample in
    # the middle of a shard would wait for another program to be compiled.
    Row(
        "mg_pcg",
        {"inner": "float64"},
        lambda t: t.grid_spd and t.num_dims in (2, 3) and t.rough,
        "symmetric positive definite on a {num_dims}-D grid (contrast {contrast:.3g}, "
        "so in float64): multigrid takes a dozen steps whatever the size, more only "
        "in thin channels",
    ),
    Row(
        "mg_pcg",
        {"inner": "float32"},
        lambda t: t.grid_spd and t.num_dims in (2, 3),
        "symmetric positive definite on a {num_dims}-D grid (contrast {contrast:.3g}): "
        "multigrid takes about a dozen steps whatever the size",
    ),
    Row(
        "bicgstab",
        {"preconditioner": "lu"},
        lambda t: t.preconditioner_given and t.old_factors <= WORTHWHILE,
        "with the factors of the preconditioning matrix, which systems share, a solve "
        "takes {old_factors:.0%} of the work of factors of its own",
    ),
    Row(
        "frozen_lu",
        {},
        lambda t: t.old_factors <= WORTHWHILE,
        "with the factors of an earlier system a solve takes {old_factors:.0%} of the "
        "work of new ones",
    ),
    Row(
        "direct",
        {},
        lambda t: t.factors_fit,
        "no multigrid for such matrices here, factors of {num_unknowns} unknowns are "
        "affordable, and old ones do not serve other systems",
    ),
    Row(
        "deflated_cg",
        {"preconditioner": "ssor"},
        lambda t: t.kind == "spd" and t.has_entries,
        "symmetric positive definite, and factors of {num_unknowns} unknowns would be "
        "too large",
    ),
    Row(
        "cg",
        {"preconditioner": "none"},
        lambda t: t.kind == "spd",
        "symmetric positive definite, and only the action of the matrix is known",
    ),
    Row(
        "bicgstab",
        {"preconditioner": "ilu"},
        lambda t: t.has_entries,
        "factors of {num_unknowns} unknowns would be too large",
    ),
    Row(
        "skr",
        {"preconditioner": "none"},
        lambda t: True,
        "only the action of the matrix is known",
    ),
)


def choose(traits: Traits, *, without: Collection[str] = ()) -> Choice:
    """Reads the table.

    Args:
        traits: from `describe`.
        without: methods that must not be used.

    Raises:
        ValueError: if no method is left.
    """
    for row in TABLE:
        if row.when(traits) and row.method not in without:
            reason = row.reason.format(**dataclasses.asdict(traits))
            return Choice(row.method, dict(row.settings), reason)
    raise ValueError(f"no method is left for such systems without {sorted(without)}")


def settings(method: str, traits: Traits) -> dict[str, Any]:
    """What the table sets for a method: its first row that fits; {} without one."""
    rows = (row for row in TABLE if row.method == method and row.when(traits))
    return dict(next((row.settings for row in rows), {}))


def describe(systems: Sequence[LinearSystem], *, spd: bool | None = None) -> Traits:
    """Looks at a few systems of one kind.

    Args:
        systems: one or more, in the order in which they are solved: from all of them
            it is read whether the matrix stays, and from the first one and the next
            with another matrix what old factors are worth (two factorisations, where
            that matters).
        spd: whether all matrices are promised to be symmetric positive definite; None:
            read from the entries, where diagonal dominance tells.

    Raises:
        ValueError: without systems.
    """
    if not systems:
        raise ValueError("systems is empty; expected one system or more")
    first, *others = systems
    operator = first.operator
    is_grid = isinstance(operator, StencilOperator)
    has_entries = not isinstance(operator, spla.LinearOperator)
    kind = "spd" if spd else _kind(first)
    star = is_grid and kind != "general" and _is_star(operator, first)
    stencils = [system.operator for system in systems] if star else []
    another = next((s for s in others if not same_matrix(first, s)), None)
    traits = Traits(
        num_unknowns=first.rhs.size,
        num_dims=first.rhs.ndim if is_grid else 0,
        kind=kind,
        is_complex=any(system.dtype.kind == "c" for system in systems),
        has_entries=has_entries,
        star=star,
        singular=star and is_singular(operator),
        separable=star and all(map(_is_separable, stencils)),
        same_matrix=bool(others) and another is None,
        contrast=max(map(contrast, stencils), default=1.0),
        step=max(map(largest_step, stencils), default=0.0),
        preconditioner_given=first.preconditioning_matrix is not None,
    )
    if traits.factors_fit and not traits.grid_spd and others:
        work = 0.0 if another is None else _work_with_old_factors(first, another)
        traits = dataclasses.replace(traits, old_factors=work)
    return traits


def methods_without_x64() -> tuple[str, ...]:
    """Methods of the table that this process cannot run: JAX is in 32 bit."""
    import jax

    return () if jax.config.jax_enable_x64 else NEED_X64


def _kind(system: LinearSystem) -> str:
    """What the entries prove: "spd" by diagonal dominance, "symmetric" or "general"."""
    if isinstance(system.operator, spla.LinearOperator):
        return "general"
    A = system.to_csr()
    if not np.isfinite(A.data).all() or matrices.asymmetry(A) > 8 * DOMINANCE:
        return "general"
    diagonal = A.diagonal()
    beside = abs(A).sum(axis=1) - abs(diagonal)
    dominant = (diagonal.real > 0) & (diagonal.real >= (1 - DOMINANCE) * beside)
    # Equality in all rows is the singular case, which the solvers treat.
    return "spd" if dominant.all() else "symmetric"


def _is_star(operator: StencilOperator, system: LinearSystem) -> bool:
    reach = max(abs(step) for offset in operator.offsets for step in offset)
    return operator.batch == 1 and reach == 1 and system.dtype.kind != "c"


def _is_separable(operator: StencilOperator) -> bool:
    try:
        diagonal, couplings = planes_of(operator, "fast_direct")
    except ValueError:
        return False
    scale = np.abs(diagonal).max(initial=0.0)
    if not scale > 0:
        return False
    couplings = tuple(plane / scale for plane in couplings)
    star = star_of(diagonal / scale, couplings, operator.periodic)
    return not isinstance(separate(star), str)


def same_matrix(one: LinearSystem, other: LinearSystem) -> bool:
    """Whether two systems have equal entries; operators are known by identity."""
    A, B = one.operator, other.operator
    if A is B or isinstance(A, spla.LinearOperator):
        return A is B
    if isinstance(A, StencilOperator) and isinstance(B, StencilOperator):
        return A.offsets == B.offsets and np.array_equal(A.coefficients, B.coefficients)
    return matrices.same(one.to_csr(), matrices.remember(other.to_csr()))


def _work_with_old_factors(first: LinearSystem, second: LinearSystem) -> float:
    """Steps for the second system with earlier factors, in factorisations by flops."""
    from solvers.frozen_lu import FrozenLU  # it loads what is rarely needed

    given = second.preconditioning_matrix
    if given is not None:
        first = LinearSystem(sp.csr_array(given), second.rhs)
    solver = FrozenLU()
    solver.solve(first, rtol=PROBE_RTOL)
    if (factors := solver.snapshot()) is None:
        return math.inf
    _, record = solver.solve(second, rtol=PROBE_RTOL)
    if not record.converged or record.fallbacks:
        return math.inf
    return record.iterations / factors.affordable_steps
