"""The cases of `benchmarks.recycling`: problems, tolerances and methods."""

import dataclasses
from typing import Any

from benchmarks.petsc_peers import (
    CG_GAMG,
    CG_GAMG_JUMPS,
    CG_GAMG_PLAIN,
    CG_ICC,
    MUMPS,
)


@dataclasses.dataclass(frozen=True)
class Entry:
    """One method of a case.

    Attributes:
        label: name in the table.
        method: name in `solvers.sequence`.
        settings: keywords of the solver.
        is_peer: whether users could install it elsewhere (SciPy, PETSc).
        carries: whether systems profit from earlier ones.
        sorted: whether it goes through the sorted order; ordering is timed then.
        stencil: whether it gets the stencil instead of a SciPy matrix.
        num_timed: solve only so many systems, drawn at random; None: all.
        maxiter: largest number of iterations; None: the method's own.
    """

    label: str
    method: str
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    is_peer: bool = False
    carries: bool = False
    sorted: bool = False
    stencil: bool = False
    num_timed: int | None = None
    maxiter: int | None = None


@dataclasses.dataclass(frozen=True)
class Case:
    """A sequence of systems and the methods that solve it.

    Attributes:
        name: key in the JSON.
        title: one line for readers.
        problem: name in `datagen.problems`.
        settings: of the problem.
        rtol: true relative residual for all methods.
        num: systems in the sequence.
        entries: the methods.
        quick_settings: changes that make it small.
        quick_num: systems of the small one.
        starts_from_previous: whether every method starts from its last solution, as
            time stepping does.
        is_quick: whether `--quick` runs it.
    """

    name: str
    title: str
    problem: str
    settings: dict[str, Any]
    rtol: float
    num: int
    entries: tuple[Entry, ...]
    quick_settings: dict[str, Any]
    quick_num: int = 10
    starts_from_previous: bool = False

    def quick(self) -> "Case":
        """The same on a small grid."""
        settings = self.settings | self.quick_settings
        return dataclasses.replace(self, settings=settings, num=self.quick_num)


def recycling(preconditioner: str, *, m: int, k: int, cold: int | None):
    """GCRO-DR without and with carrying its space over, sorted and unsorted."""
    gcrodr = {"m": m, "k": k, "preconditioner": preconditioner}
    return (
        Entry("gcrodr_cold", "gcrodr_cold", gcrodr, num_timed=cold),
        Entry("skr (sorted)", "skr", gcrodr, carries=True, sorted=True),
        Entry("skr (unsorted)", "skr", gcrodr, carries=True),
        Entry(
            "skr x-mode (sorted)",
            "skr",
            gcrodr | {"mode": "x", "selection": "singular"},
            carries=True,
            sorted=True,
        ),
    )


def positive_definite(
    k: int, *, levels: int = 3, grid: bool = True, cold: int | None = 12
):
    """Methods for symmetric positive definite systems; mg_pcg on 2-D grids.

    All Krylov methods with ICC(0); CG and the pool also with `levels` of fill-in.
    """
    preconditioner = "icc0"
    common = {"preconditioner": preconditioner}
    pooled = {"k": k, **common}
    filled = f"-pc_type icc -pc_factor_levels {levels}"
    peer = {"settings": {"spd": True}, "is_peer": True}
    entries = (
        Entry("cg", "cg", common),
        Entry("petsc_cg_icc", CG_ICC, **peer),
        Entry(f"petsc_cg_icc({levels})", f"petsc:-ksp_type cg {filled}", **peer),
        Entry("petsc_cg_gamg", CG_GAMG, **peer),
        Entry("petsc_cg_gamg_jumps", CG_GAMG_JUMPS, **peer),
        Entry("petsc_cg_gamg_plain", CG_GAMG_PLAIN, **peer),
        Entry("petsc_mumps_reused", MUMPS, num_timed=cold, **peer),
        *recycling(preconditioner, m=2 * k, k=k, cold=cold),
        Entry("recycled_cg", "recycled_cg", pooled, carries=True, sorted=True),
        Entry("deflated_cg", "deflated_cg", pooled, carries=True, sorted=True),
        Entry(
            f"deflated_cg icc({levels})",
            "deflated_cg",
            pooled | {"preconditioner": f"petsc:{filled}"},
            carries=True,
            sorted=True,
        ),
        Entry(
            "deflated_cg (gcrodr)",
            "deflated_cg",
            pooled | {"harvest": "gcrodr"},
            carries=True,
            sorted=True,
        ),
    )
    return entries + (Entry("mg_pcg", "mg_pcg", stencil=True),) * grid


def general(preconditioner: str, *, cold: int | None = 12):
    """Methods for systems that are not symmetric positive definite."""
    common = {"preconditioner": preconditioner}
    guess = {"guess": "projection", "window": 20}
    long = common | {"m": 200}  # restarts that never come
    carried = {"carries": True, "sorted": True}
    return (
        Entry("gmres", "gmres", long, is_peer=True, num_timed=cold),
        Entry("bicgstab", "bicgstab", common, is_peer=True),
        Entry("lgmres", "lgmres", common, is_peer=True, **carried),
        Entry("gcrotmk", "gcrotmk", common, is_peer=True, **carried),
        Entry("direct", "direct", is_peer=True, num_timed=cold),
        *recycling(preconditioner, m=40, k=20, cold=cold),
        Entry("gmres + projection", "gmres", long | guess, **carried),
        Entry("bicgstab + projection", "bicgstab", common | guess, **carried),
        Entry("frozen_lu", "frozen_lu", **carried),
    )


def composites(name: str, title: str, k: int, *, rtol=1e-6, num=60, **settings) -> Case:
    """Inclusions of random contrast; `grid` methods where the grid is 2-D."""
    dims = settings.get("num_dims", 2)
    settings = {"contrasts": (1e3, 1e4), "walls": "ghost_row", **settings}
    quick = {"n": {2: 48, 3: 12}[dims]}
    if dims == 3:
        quick["num_inclusions"] = 2
    entries = positive_definite(
        k, levels={2: 4, 3: 1}[dims], grid=dims == 2, cold=12 if num >= 60 else 6
    )
    return Case(name, title, "composites", settings, rtol, num, entries, quick)


_CASES = (
    composites(
        "composites_2d",
        "fixed inclusions, contrasts 1e3...1e4, 2-D",
        20,
        n=128,
        num_inclusions=4,
    ),
    composites(
        "composites_3d_32",
        "fixed inclusions, contrasts 1e3...1e4, 3-D",
        30,
        n=32,
        num_dims=3,
        num_inclusions=3,
    ),
    composites(
        "composites_3d_48",
        "fixed inclusions, contrasts 1e2...1e4, 3-D",
        30,
        num=24,
        n=48,
        num_dims=3,
        num_inclusions=3,
        contrasts=(1e2, 1e4),
    ),
    Case(
        "composites_unstructured_p1",
        "fixed inclusions on triangles, P1, contrasts 1e3...1e4",
        "composites_unstructured",
        {"mesh_size": 0.008, "degree": 1, "contrasts": (1e3, 1e4)},
        1e-6,
        60,
        positive_definite(20, grid=False),
        {"mesh_size": 0.03},
    ),
    Case(
        "composites_unstructured_p2",
        "fixed inclusions on triangles, P2, contrasts 1e3...1e4",
        "composites_unstructured",
        {"mesh_size": 0.015, "degree": 2, "contrasts": (1e3, 1e4)},
        1e-6,
        60,
        positive_definite(20, levels=1, grid=False),  # fill-in of P2 grows fast
        {"mesh_size": 0.06},
    ),
    Case(
        "helmholtz_sweep",
        "frequencies within 2 %, one medium, 10 wavelengths, shifted Laplacian",
        "helmholtz_sweep",
        {
            "n": 129,
            "wavelengths": 10.0,
            "min_points": 6.0,
            "delta": 0.02,
            "num_frequencies": 40,
        },
        1e-8,
        40,
        general("lu", cold=None),
        {"n": 65, "wavelengths": 4.0, "num_frequencies": 12},
        quick_num=12,
    ),
    Case(
        "heat",
        "implicit heat, drifting contrasts 1e3...1e4, 3-D",
        "heat",
        {"n": 32, "num_inclusions": 3, "num_steps": 30, "walls": "ghost_row"},
        1e-6,
        30,
        positive_definite(30, levels=1, grid=False, cold=None),
        {"n": 12, "num_inclusions": 2},
        starts_from_previous=True,
    ),
    # Negative controls: nothing that stays put.
    composites(
        "composites_jittered",
        "inclusions that move, contrasts 1e3...1e4, 2-D",
        20,
        num=30,
        n=100,
        num_inclusions=4,
        layout="jittered",
    ),
    Case(
        "darcy_grf",
        "smooth log-normal Darcy flow, independent fields",
        "darcy",
        {"n": 100, "coefficient": "lognormal"},
        1e-8,
        30,
        positive_definite(20),
        {"n": 34},
    ),
    Case(
        "darcy_grf_plain",
        "the same without a preconditioner, as in the paper's first column",
        "darcy",
        {"n": 100, "coefficient": "lognormal"},
        1e-8,
        20,
        (
            Entry("gmres(40)", "gmres", {"m": 40}, is_peer=True, num_timed=4),
            Entry("cg", "cg", is_peer=True),
            *recycling("none", m=40, k=20, cold=8),
        ),
        {"n": 34},
    ),
    Case(
        "helmholtz_grf",
        "independent media, 10 wavelengths, shifted Laplacian",
        "helmholtz",
        {"n": 129, "wavelengths": 10.0, "eta": 0.05},
        1e-8,
        24,
        general("lu"),
        {"n": 65, "wavelengths": 4.0},
    ),
    Case(
        "convection_grf",
        "independent random velocities, cell Peclet 10",
        "convection_diffusion",
        {"n": 102, "family": "grf"},
        1e-8,
        24,
        general("ilu0"),
        {"n": 34, "epsilon": 5e-3},
    ),
    Case(
        "convection_low3",
        "three random coefficients on a base flow, cell Peclet 10",
        "convection_diffusion",
        {"n": 102, "family": "low3"},
        1e-8,
        24,
        general("ilu0"),
        {"n": 34, "epsilon": 5e-3},
    ),
)
CASES = {case.name: case for case in _CASES}
