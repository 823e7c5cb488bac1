import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as spla
from families import diffusion, gaussian_field, system

from solvers import preconditioners, sequence
from solvers.sequence import LinearSystem

pytest.importorskip("petsc4py", reason="petsc4py is not installed")

RTOL = 1e-8
KSP = "petsc:-ksp_type python -ksp_python_type solvers.petsc.GCRODR "
SIZES = "-ksp_gcrodr_m 24 -ksp_gcrodr_k 10 "


def systems(num, shape=(24, 31)):
    """Nonsymmetric systems: diffusion in random fields, and wind along one axis."""
    for seed in range(num):
        nodes = tuple(n + 2 for n in shape)
        a = np.exp(0.7 * gaussian_field(nodes, alpha=2.5, tau=4.0, seed=seed))
        one = diffusion(a, np.ones(shape))
        A = one.operator.to_csr()
        n = A.shape[0]
        wind = sp.diags_array([300.0, -300.0], offsets=[1, -1], shape=(n, n))
        yield LinearSystem(sp.csr_array(A + wind), one.rhs)


def solve(method, **settings):
    solver = sequence.create(method, **settings)
    records = [solver.solve(one, rtol=RTOL)[1] for one in systems(4)]
    solver.close()
    return records


@pytest.mark.parametrize("name", ["none", "jacobi", "ilu"])
def test_python_ksp_takes_the_steps_of_the_numpy_form(name):
    numpy_name = {"ilu": "ilu0"}.get(name, name)
    expected = solve("skr", m=24, k=10, preconditioner=numpy_name)
    records = solve(f"{KSP} {SIZES} -pc_type {name}")
    for record, other in zip(records, expected, strict=True):
        assert record.converged, record.status
        assert record.iterations == other.iterations
        assert record.matvecs == other.matvecs
        assert record.preconditioner_applications == other.preconditioner_applications
        assert record.cycles == other.cycles
        assert record.recycle_dim == other.recycle_dim
        np.testing.assert_allclose(
            record.residual_norms, other.residual_norms, rtol=1e-3
        )
        assert record.phases.refresh > 0
    assert records[-1].recycle_dim > 0


@pytest.mark.parametrize(
    "options",
    [
        "-pc_type gamg -ksp_gcrodr_mode x",
        "-pc_type sor -ksp_gcrodr_selection singular",
        "-pc_type asm -ksp_gcrodr_mode x",
        "-pc_type bjacobi -ksp_gcrodr_refresh adaptive",
        "-pc_type none -ksp_gcrodr_refresh never",
        "-pc_type jacobi -ksp_gcrodr_recycle false",
        "-pc_type jacobi -ksp_gcrodr_k 0",
    ],
)
def test_python_ksp_composes_with_pcs_and_options(options):
    records = solve(f"{KSP} -ksp_gcrodr_m 24 {options}")
    for record in records:
        assert record.converged, record.status
    carries = "false" not in options and "_k 0" not in options
    assert (records[-1].recycle_dim > 0) == carries


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ("-ksp_gcrodr_m 10 -ksp_gcrodr_k 10", "0 <= k < m"),
        ("-ksp_gcrodr_mode z", "known: t, x"),
        ("-ksp_pc_side left", "right"),
    ],
)
def test_impossible_options_are_refused(options, text):
    solver = sequence.create(f"{KSP} {options}")
    with pytest.raises(ValueError, match=text):
        solver.solve(next(systems(1)), rtol=RTOL)


@pytest.mark.parametrize(
    "options", ["-ksp_type cg -pc_tipe jacobi", f"{KSP[6:]} -ksp_gcrodr_mm 30"]
)
def test_misspelt_options_are_refused(options):
    one = next(systems(1))
    spd = diffusion(np.ones((14, 14)), np.ones((12, 12)))
    solver = sequence.create(f"petsc:{options}")
    with pytest.raises(ValueError, match="never asked for the option"):
        solver.solve(one if "python" in options else spd, rtol=RTOL)
    with pytest.raises(ValueError, match="never asked for the option"):
        preconditioners.create("petsc:-pc_type jacobi -pc_color red").update(one)


def test_ksp_reports_reason_history_and_monitors():
    from petsc4py import PETSc

    import solvers.petsc

    one = next(systems(1))
    A, b = one.operator, one.rhs.ravel()
    matrix = PETSc.Mat().createAIJ(A.shape, csr=(A.indptr, A.indices, A.data))
    x, rhs = matrix.createVecs()
    rhs.setArray(b)
    ksp = PETSc.KSP().create(PETSc.COMM_SELF)
    ksp.setType("python")
    ksp.setPythonContext(solvers.petsc.GCRODR())
    ksp.setOperators(matrix)
    ksp.getPC().setType("jacobi")
    ksp.setTolerances(rtol=1e-6)
    ksp.setConvergenceHistory()
    seen = []
    ksp.setMonitor(lambda ksp, step, norm: seen.append((step, norm)))
    ksp.solve(rhs, x)
    assert ksp.getConvergedReason() == PETSc.KSP.ConvergedReason.CONVERGED_RTOL
    assert [step for step, _ in seen] == list(range(ksp.getIterationNumber() + 1))
    history = [norm for _, norm in seen]
    np.testing.assert_allclose(ksp.getConvergenceHistory(), history)
    residual = np.linalg.norm(b - A @ x.getArray())
    assert ksp.getResidualNorm() == pytest.approx(residual, rel=1e-8)
    assert residual <= 1e-6 * np.linalg.norm(b)

    first = ksp.getIterationNumber()
    ksp.setInitialGuessNonzero(True)
    ksp.solve(rhs, x)
    assert ksp.getIterationNumber() == 0
    ksp.setInitialGuessNonzero(False)
    ksp.solve(rhs, x)  # the same matrix, the space stays
    assert ksp.getIterationNumber() < first
    ksp.reset()
    assert ksp.getPythonContext().space is None
    ksp.setOperators(matrix)
    ksp.solve(rhs, x)
    assert ksp.getIterationNumber() == first
    ksp.setTolerances(rtol=1e-6, max_it=5)
    ksp.reset()
    ksp.setOperators(matrix)
    ksp.solve(rhs, x)
    assert ksp.getConvergedReason() == PETSc.KSP.ConvergedReason.DIVERGED_MAX_IT
    for thing in (ksp, matrix, x, rhs):
        thing.destroy()


def test_null_space_of_a_neumann_problem_is_projected_out():
    from petsc4py import PETSc

    import solvers.petsc

    n = 60
    difference = sp.diags_array([-1.0, 1.0], offsets=[0, 1], shape=(n - 1, n))
    A = sp.csr_array(
        difference.T @ sp.diags_array(np.linspace(1, 9, n - 1) ** 2) @ difference
    )
    matrix = PETSc.Mat().createAIJ(A.shape, csr=(A.indptr, A.indices, A.data))
    null_space = PETSc.NullSpace().create(constant=True)
    matrix.setNullSpace(null_space)
    x, rhs = matrix.createVecs()
    b = np.sin(2 * np.pi * (np.arange(n) + 0.5) / n) + np.linspace(-1, 1, n)
    rhs.setArray(b - b.mean())
    ksp = PETSc.KSP().create(PETSc.COMM_SELF)
    ksp.setType("python")
    ksp.setPythonContext(solvers.petsc.GCRODR())
    ksp.setOperators(matrix)
    ksp.getPC().setType("jacobi")
    ksp.solve(rhs, x)
    assert ksp.getConvergedReason() > 0
    assert abs(x.getArray().mean()) <= 1e-8 * np.abs(x.getArray()).max()


SCRIPT = """
from mpi4py import MPI
import sys
import numpy as np
from petsc4py import PETSc
sys.path[:0] = {paths!r}
from test_petsc_gcrodr import systems
import solvers.petsc

comm, options = PETSc.COMM_WORLD, PETSc.Options()
for name, value in {{
    "ksp_type": "python",
    "ksp_python_type": "solvers.petsc.GCRODR",
    "ksp_rtol": "1e-8",
    "ksp_gcrodr_m": "24",
    "ksp_gcrodr_k": "10",
    "pc_type": "jacobi",
}}.items():
    options.setValue(name, value)
ksp = PETSc.KSP().create(comm)
ksp.setFromOptions()
steps, solutions = [], []
for one in systems(3):
    A, b = one.operator, one.rhs.ravel()
    matrix = PETSc.Mat().create(comm)
    matrix.setSizes(A.shape)
    matrix.setType("aij")
    matrix.setUp()
    first, last = matrix.getOwnershipRange()
    mine = A[first:last]
    matrix.setPreallocationNNZ(5)
    matrix.setValuesCSR(mine.indptr, mine.indices, mine.data)
    matrix.assemble()
    x, rhs = matrix.createVecs()
    rhs.setArray(b[first:last])
    ksp.setOperators(matrix)
    ksp.solve(rhs, x)
    assert ksp.getConvergedReason() > 0
    steps.append(ksp.getIterationNumber())
    solutions.append(comm.tompi4py().gather(x.getArray(), 0))
if comm.rank == 0:
    x = np.array([np.concatenate(parts) for parts in solutions])
    np.savez(sys.argv[1], steps=steps, x=x, processes=comm.size)
"""


def test_two_processes_take_the_same_steps_as_one(tmp_path):
    mpiexec = shutil.which("mpiexec", path=Path(sys.executable).parent)
    if mpiexec is None:
        pytest.skip("mpiexec is not installed beside this Python")
    here = Path(__file__).parent
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(paths=[str(here), str(here.parent.parent)]))
    command = [mpiexec, "-n", "2", sys.executable, str(script)]
    done = subprocess.run(
        [*command, str(tmp_path / "out.npz")],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = np.load(tmp_path / "out.npz")
    assert found["processes"] == 2
    expected = solve(f"{KSP} {SIZES} -pc_type jacobi")[:3]
    difference = found["steps"] - np.array([record.iterations for record in expected])
    assert np.abs(difference).max() <= 1
    for x, one in zip(found["x"], systems(3), strict=True):
        b = one.rhs.ravel()
        assert np.linalg.norm(b - one.operator @ x) <= 1e-8 * np.linalg.norm(b)


@pytest.mark.parametrize(
    "options", ["-pc_type ilu", "-pc_type lu", "-pc_type sor", "-pc_type gamg"]
)
def test_preconditioner_follows_the_matrices_in_one_object(options):
    made = preconditioners.create(f"petsc:{options}")
    assert made.name == f"petsc:{options}"
    r = np.random.default_rng(0).standard_normal((24 * 31, 3))
    objects = set()
    for one in systems(3):
        assert made.update(one)
        assert not made.update(one)
        objects.add(made._pc.handle)
        block = made(r)
        np.testing.assert_allclose(block[:, 1], made(r[:, 1]), rtol=1e-12)
        np.testing.assert_allclose(made(1j * r[:, 0]), 1j * block[:, 0])
        if "-pc_type lu" in options:
            exact = spla.spsolve(one.operator.tocsc(), r[:, 0])
            np.testing.assert_allclose(block[:, 0], exact, rtol=1e-8)
    assert len(objects) == 1
    assert made.update(next(systems(1, shape=(5, 7))))
    assert made(np.ones(35)).shape == (35,)
    made.reset()
    assert made._pc is None
    assert made.update(next(systems(1)))
    made.reset()


def test_preconditioners_that_break_down_say_what_to_do():
    singular = LinearSystem(sp.csr_array(np.diag([1.0, -1.0, 0.0])), np.ones(3))
    with pytest.raises(ArithmeticError, match="use preconditioner"):
        preconditioners.create("petsc:-pc_type lu").update(singular)
    [record] = [
        sequence.create("skr", preconditioner="icc0").solve(singular, rtol=RTOL)[1]
    ]
    assert not record.converged
    turning = LinearSystem(sp.csr_array(np.eye(3) * 1j), np.ones(3))
    with pytest.raises(TypeError, match="real numbers"):
        preconditioners.create("petsc:-pc_type jacobi").update(turning)


@pytest.mark.parametrize(
    ("options", "per_step", "cycles"),
    [
        ("-ksp_type gmres -ksp_gmres_restart 20 -pc_type ilu", 1, 2),
        ("-ksp_type bcgs -pc_type ilu", 2, 1),
        ("-ksp_type preonly -pc_type lu", 0, 0),
    ],
)
def test_products_are_counted_by_the_kind_of_ksp(options, per_step, cycles):
    [record] = sequence.solve_sequence(
        systems(1), method=f"petsc:{options}", rtol=RTOL
    ).records
    assert record.converged, record.status
    assert record.cycles >= cycles
    checks = per_step > 0  # of the residual, after the iteration
    restarts = max(0, record.cycles - 1)
    assert record.matvecs == per_step * record.iterations + restarts + checks
    assert record.preconditioner_applications >= max(1, record.matvecs)
    assert record.phases.setup > 0


def test_a_ksp_that_stops_too_early_goes_on_from_its_x():
    """The preconditioned norm is met long before the true one."""
    options = "-ksp_type cg -pc_type jacobi -ksp_norm_type"
    one = system("two_phase_1e4", (24, 26), 1)
    early = sequence.create(f"petsc:{options} preconditioned", spd=True)
    runs, solve_once = [], early._solve_once

    def watch(b, x, rtol, limit, warm):
        reason, found = solve_once(b, x, rtol, limit, warm)
        runs.append((rtol, limit, warm, found["iterations"], found["matvecs"]))
        return reason, found

    early._solve_once = watch
    _, record = early.solve(one, rtol=1e-9)
    assert record.converged, record.status
    rtols, limits, warm, steps, matvecs = zip(*runs, strict=True)
    assert rtols[0] == 0.99e-9
    assert rtols[1] < 0.5e-9
    assert warm == (False, True)
    assert limits[1] == limits[0] - steps[0]
    assert record.iterations == sum(steps)
    assert record.matvecs == sum(matvecs) + 2
    assert record.matvecs == record.iterations + 3  # and the first residual from x
    solver = sequence.create(f"petsc:{options} unpreconditioned", spd=True)
    record = solver.solve(one, rtol=1e-9)[1]
    assert record.converged
    assert record.matvecs == record.iterations + 1
    assert len(record.residual_norms) == record.iterations + 1
    assert record.true_relative_residual > 0.5e-9  # not better than asked for


@pytest.mark.parametrize("options", ["-ksp_type cg", KSP.removeprefix("petsc:")])
def test_right_sides_of_any_size_are_solved(options):
    one = system("two_phase", (14, 17), 1)
    tiny = one._replace(rhs=one.rhs * 1e-169)
    solver = sequence.create(f"petsc:{options} -pc_type jacobi", spd=True)
    records = [solver.solve(each, rtol=RTOL)[1] for each in (tiny, one)]
    assert all(record.converged for record in records)
    assert 0 < records[0].true_relative_residual <= RTOL


def test_hpddm_takes_about_as_many_steps():
    from solvers.petsc import has_hpddm

    if not has_hpddm():
        pytest.skip("this PETSc is built without HPDDM")
    hpddm = solve(
        "petsc:-ksp_type hpddm -ksp_hpddm_type gcrodr -ksp_gmres_restart 24 "
        "-ksp_hpddm_recycle 10 -ksp_hpddm_variant right -pc_type jacobi"
    )
    ours = solve(f"{KSP} {SIZES} -pc_type jacobi")
    counts = [np.mean([r.iterations for r in records]) for records in (hpddm, ours)]
    assert abs(counts[0] - counts[1]) <= 0.15 * counts[1]
