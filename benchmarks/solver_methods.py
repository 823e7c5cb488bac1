"""The methods of `benchmarks.solvers`: ours and those that users could install."""

import pathlib
import time
from collections.abc import Callable

import numpy as np
import scipy.fft
import scipy.sparse as sp
import scipy.sparse.linalg as spla

from benchmarks.petsc_peers import CG_GAMG, CG_ICC, MUMPS, SOR
from benchmarks.solver_cases import Case
from solvers import nested_dissection, sequence, stencils

OURS = ("mg_pcg", "fft_pcg", "fast_direct", "direct", "auto")
MAX_ITERATIONS = 1000  # of PETSc's methods; more cannot win
Run = Callable[[int], dict]

GAMG_2D = (
    f"-pc_gamg_threshold 0.02 {SOR}",
    f"-pc_gamg_threshold 0.005 {SOR}",
    f"-pc_gamg_threshold 0.05 {SOR}",
    f"-pc_gamg_threshold 0.02 -pc_gamg_aggressive_coarsening 0 {SOR}",
    f"-pc_gamg_threshold 0.08 -pc_gamg_agg_nsmooths 0 {SOR}",
)
GAMG_3D = (
    f"-pc_gamg_threshold 0.08 -pc_gamg_agg_nsmooths 0 {SOR}",
    f"-pc_gamg_threshold 0.02 -pc_gamg_agg_nsmooths 0 {SOR}",
    f"-pc_gamg_threshold 0.02 {SOR}",
    f"-pc_gamg_threshold 0.05 {SOR}",
)
RS = (
    {},
    {"strength": ["classical", {"theta": 0.1}]},
    {"strength": ["classical", {"theta": 0.5}]},
)
SA = (
    {},
    {"improve_candidates": None, "strength": ["symmetric", {"theta": 0.02}]},
    {"improve_candidates": None, "strength": ["symmetric", {"theta": 0.08}]},
    {"improve_candidates": None, "smooth": None},
)


class Bench:
    """Systems of one case in the forms that the methods want.

    Args:
        case: the case.
        systems: its systems, as the problem gives them.
        rtol: largest true relative residual.
        folder: for files that the peers' process reads.
        peers: the `PeerProcess`, or None.
    """

    def __init__(self, case: Case, systems, *, rtol, folder, peers):
        self.case, self.systems, self.rtol, self.peers = case, systems, rtol, peers
        self.folder = pathlib.Path(folder)
        self.converted = [s._replace(operator=s.to_csr()) for s in systems]
        self.singular = stencils.is_singular(systems[0].operator)
        # Direct methods and pyamg's AMG want regular matrices: one unknown is fixed.
        self.regular = self.converted
        if self.singular:
            self.regular = [_grounded(s) for s in self.converted]

    def methods(self) -> dict[str, dict[str, Callable[[], Run]]]:
        """For every method its variants, and for each what builds its `Run`."""
        found = {name: {"": lambda name=name: Ours(name, self)} for name in OURS}
        # Peers that tend to win first: slower ones get fewer variants then.
        found |= self._processes() | self._petsc() | self._scipy()
        return {
            name: variants
            for name, variants in found.items()
            if name not in self.case.too_large_for
        }

    def result(self, item: int, x, seconds, iterations, matvecs=None) -> dict:
        """What a run returns; the residual is recomputed here for all alike."""
        one = self.systems[item]
        x = np.asarray(x, np.float64).reshape(one.rhs.shape)
        if self.singular:
            x = x - x.mean()
        return {
            "seconds": seconds,
            "iterations": iterations,
            "matvecs": iterations if matvecs is None else matvecs,
            "true_residual": one.relative_residual(x),
        }

    def _scipy(self):
        orders = ("COLAMD", "MMD_AT_PLUS_A")
        found = {"scipy_spsolve": {p: lambda p=p: self._spsolve(p) for p in orders}}
        if self.case.constant:
            found["scipy_splu_reused"] = {"": self._splu}
            found["scipy_dst"] = {"": self._dst}
        return found

    def _petsc(self):
        try:
            import solvers.petsc  # noqa: F401  (only to see whether it is there)
        except ImportError as error:
            print(f"skipping PETSc: {error}")
            return {}
        num_dims = len(self.systems[0].rhs.shape)
        tuned = GAMG_2D if num_dims == 2 else GAMG_3D
        levels = (0, 2, 4) if num_dims == 2 else (0, 1)
        shift, coarse = "", ""
        if self.singular:
            shift = " -pc_factor_shift_type positive_definite"
            coarse = " -mg_coarse_pc_type svd"
        options = {
            "petsc_cg_gamg": [f"{CG_GAMG}{coarse}"],
            "petsc_cg_gamg_tuned": [f"{CG_GAMG} {more}{coarse}" for more in tuned],
            "petsc_cg_icc": [
                f"{CG_ICC} -pc_factor_levels {level}{shift}" for level in levels
            ],
        }
        found = {
            name: {m: lambda m=m: Petsc(m, self, self.converted) for m in methods}
            for name, methods in options.items()
        }
        mumps = {MUMPS: lambda: Petsc(MUMPS, self, self.regular)}
        return {"petsc_mumps_reused": mumps} | found

    def _processes(self):
        if self.peers is None:
            return {}
        known = self.peers.ask(do="peers")
        self._load()
        rs, sa = ([(_label(v), v) for v in variants] for variants in (RS, SA))
        variants = {
            "pardiso_reused": [("nested dissection", {})],
            "cholmod_reused": [
                ("AMD", {}),
                ("our nested dissection", {"order": self._order()}),
            ],
            "pyamg_rs_cg": rs,
            "pyamg_sa_cg": sa,
        }
        return {
            name: {
                label: lambda name=name, settings=settings: Foreign(
                    name, settings, self
                )
                for label, settings in made
            }
            for name, made in variants.items()
            if name in known
        }

    def _load(self):
        """Writes the systems for the peers' process and has it read them."""
        paths = []
        for number, one in enumerate(self.regular):
            A, path = one.operator, self.folder / f"system_{number}.npz"
            np.savez(
                path, data=A.data, indices=A.indices, indptr=A.indptr, b=one.rhs.ravel()
            )
            paths.append(str(path))
        self.peers.ask(do="load", paths=paths)

    def _order(self):
        """A file with our order of elimination, which CHOLMOD accepts."""
        operator, path = self.systems[0].operator, self.folder / "order.npy"
        order = nested_dissection.dissection(
            operator.grid_shape, operator.offsets, operator.periodic
        )
        np.save(path, order)
        return str(path)

    def _spsolve(self, permutation):
        def run(item):
            A, b = self.regular[item].operator.tocsc(), self.regular[item].rhs.ravel()
            start = time.perf_counter()
            x = spla.spsolve(A, b, permc_spec=permutation)
            return self.result(item, x, time.perf_counter() - start, 0)

        return run

    def _splu(self):
        """One factorisation for all systems, as users of a fixed matrix do."""
        kept = {}

        def run(item):
            b, start = self.regular[item].rhs.ravel(), time.perf_counter()
            if not kept:
                A = self.regular[item].operator.tocsc()
                kept["lu"] = spla.splu(A, permc_spec="MMD_AT_PLUS_A")
            x = kept["lu"].solve(b)
            return self.result(item, x, time.perf_counter() - start, 0)

        return run

    def _dst(self):
        """Sine transforms, for -Laplace on the nodes of the unit square."""

        def run(item):
            b, start = self.systems[item].rhs, time.perf_counter()
            n = len(b)
            waves = np.pi * np.arange(1, n + 1) / (n + 1)
            line = (2 - 2 * np.cos(waves)) * (n + 1) ** 2
            y = scipy.fft.dstn(b, type=1) / (line[:, None] + line)
            x = scipy.fft.idstn(y, type=1)
            return self.result(item, x, time.perf_counter() - start, 0)

        return run


class Ours:
    """A method of the registry on the stencils themselves.

    Args:
        method: its name.
        bench: the systems.
        systems: the same in another form; None: as the problem gives them.
        settings: keywords of the solver.

    Raises:
        ValueError, TypeError, ImportError: where the method cannot be had.
    """

    maxiter: int | None = None

    def __init__(self, method: str, bench: Bench, systems=None, **settings):
        self._solver = sequence.create(method, **settings)
        self._bench, self._systems = bench, systems or bench.systems
        self.note = ""

    def __call__(self, item: int) -> dict:
        """Solves one system."""
        one, bench = self._systems[item], self._bench
        x, record = self._solver.solve(one, rtol=bench.rtol, maxiter=self.maxiter)
        self.note = record.method
        counts = record.seconds, record.iterations, record.matvecs
        return bench.result(item, x, *counts) | {"status": record.status}

    def close(self) -> None:
        """Frees the solver."""
        self._solver.close()


class Petsc(Ours):
    """A KSP of PETSc on matrices converted beforehand, told that they are SPD."""

    maxiter = MAX_ITERATIONS

    def __init__(self, options: str, bench: Bench, systems):
        super().__init__(options, bench, systems, spd=True)


class Foreign:
    """A peer in the process of `.venv-peers`."""

    def __init__(self, peer: str, settings: dict, bench: Bench):
        self._peer, self._settings, self._bench = peer, settings, bench

    def __call__(self, item: int) -> dict:
        """Solves one system over there."""
        bench, path = self._bench, self._bench.folder / "solution.npy"
        answer = bench.peers.ask(
            do="solve",
            system=item,
            peer=self._peer,
            rtol=bench.rtol,
            settings=self._settings,
            solution=str(path),
        )
        return bench.result(
            item, np.load(path), answer["seconds"], answer["iterations"]
        )


def _label(settings):
    """Settings of pyamg as text for the table."""
    text = ", ".join(f"{name} {value}" for name, value in settings.items())
    return text.translate(str.maketrans("", "", "[]{}'")) or "defaults"


def _grounded(system):
    """The system with its last unknown decoupled from the others and set to zero."""
    A, b = system.operator, system.rhs.copy()
    keep = np.ones(A.shape[0])
    keep[-1] = 0
    mask = sp.diags_array(keep)
    A = sp.csr_array(mask @ A @ mask + sp.diags_array((1 - keep) * A.diagonal()[-1]))
    b.flat[-1] = 0.0
    return system._replace(operator=A, rhs=b)
