"""Solves systems with the peers' packages; runs in `.venv-peers`, not in ours.

Reads one JSON request a line from standard input and answers each with one line:

    {"do": "peers"}                       -> names of the peers that can be imported
    {"do": "load", "paths": [...]}        -> how many systems; .npz files with the CSR
        arrays data, indices, indptr and b; forgets earlier systems and factors
    {"do": "solve", "system": 0, "peer": "pardiso_reused", "rtol": 1e-8,
        "settings": {}, "solution": "x.npy"}
        -> {"seconds", "iterations", "true_residual"}, or {"error": a sentence};
        settings and solution, the file that x is written to, may be left out

The clock runs over set-up and solution; conversion of the matrix to the peer's own
format is left out. Direct peers analyse a pattern on the first system they get.
"""

import importlib.util
import json
import os
import sys
import time
import warnings

import numpy as np
import scipy.sparse as sp

# Packages behind each peer.
NEEDS = {
    "pyamg_rs_cg": "pyamg",
    "pyamg_sa_cg": "pyamg",
    "cholmod_reused": "cvxopt",
    "pardiso_reused": "pypardiso",
}
MAX_ITERATIONS = 300
# iparm of PARDISO: nested dissection, no refinement, scaling or matching.
IPARM = {1: 1, 2: 2, 8: 0, 10: 0, 11: 0, 13: 0, 18: 0, 24: 0}
TRIES = 3  # with a tighter tolerance, where the true residual is above the asked one


class Multigrid:
    """Classical ("rs") or smoothed-aggregation ("sa") AMG of pyamg inside CG."""

    def __init__(self, kind, settings):
        self._kind, self._settings, self._factor = kind, settings, 0.9

    def solve(self, A, b, rtol):
        """Returns x, seconds, iterations; anew with a tighter tolerance if needed."""
        for _ in range(TRIES):
            x, seconds, iterations = self._once(A, b, self._factor * rtol)
            residual = relative_residual(A, b, x)
            if residual <= rtol or iterations >= MAX_ITERATIONS:
                break
            self._factor *= 0.9 * rtol / residual  # kept for the systems that follow
        return x, seconds, iterations

    def _once(self, A, b, tol):
        import pyamg

        build = {
            "rs": pyamg.ruge_stuben_solver,
            "sa": pyamg.smoothed_aggregation_solver,
        }[self._kind]
        settings = {k: _as_pyamg(v) for k, v in self._settings.items()}
        norms = []
        start = time.perf_counter()
        hierarchy = build(A, **settings)
        x = hierarchy.solve(
            b, tol=tol, maxiter=MAX_ITERATIONS, accel="cg", residuals=norms
        )
        return x, time.perf_counter() - start, len(norms) - 1


def _as_pyamg(value):
    """JSON lists as the tuples (name, options) that pyamg expects."""
    return tuple(value) if isinstance(value, list) else value


class Cholmod:
    """Supernodal Cholesky; symbolic analysis once, by AMD or a given permutation."""

    def __init__(self, settings):
        self._settings, self._symbolic, self._values = settings, None, None

    def solve(self, A, b, rtol):
        """Returns x, seconds, 0; only back-substitutes if A has not changed."""
        import cvxopt
        from cvxopt import cholmod

        cholmod.options["supernodal"] = 2
        lower = sp.csc_array(sp.tril(A)).tocoo()
        entries = lower.data, *(part.astype(int).tolist() for part in lower.coords)
        matrix = cvxopt.spmatrix(*entries, A.shape)
        right = cvxopt.matrix(b)
        start = time.perf_counter()
        if self._symbolic is None:
            options = {}
            if "order" in self._settings:
                order = np.load(self._settings["order"]).tolist()
                options["p"] = cvxopt.matrix(order, tc="i")
            self._symbolic = cholmod.symbolic(matrix, **options)
        if self._values is None or not np.array_equal(A.data, self._values):
            self._values = A.data
            cholmod.numeric(matrix, self._symbolic)
        cholmod.solve(self._symbolic, right)
        seconds = time.perf_counter() - start
        return np.array(right).ravel(), seconds, 0


class Pardiso:
    """PARDISO of MKL for symmetric positive definite matrices; analysis once."""

    def __init__(self, settings):
        import pypardiso

        self._solver = pypardiso.PyPardisoSolver(mtype=2)
        numbers = IPARM | {int(k): v for k, v in settings.items()}
        for place, value in numbers.items():
            self._solver.set_iparm(place, value)
        self._analysed, self._values = False, None

    def solve(self, A, b, rtol):
        """Returns x, seconds, 0; only back-substitutes if A has not changed."""
        upper = sp.csr_array(sp.triu(A))
        upper.sort_indices()
        same = self._values is not None and np.array_equal(A.data, self._values)
        start = time.perf_counter()
        if not self._analysed:
            self._call(11, upper, b)
            self._analysed = True
        x = self._call(33 if same else 23, upper, b)
        seconds = time.perf_counter() - start
        self._values = A.data
        return x, seconds, 0

    def _call(self, phase, A, b):
        self._solver.set_phase(phase)
        return self._solver._call_pardiso(A, b)  # `solve` would analyse every time

    def close(self):
        """Frees MKL's memory."""
        self._solver.free_memory(everything=True)


def build(peer, settings):
    """The solver behind a name.

    Raises:
        ValueError: for an unknown name.
        ImportError: if its package is missing.
    """
    if peer not in NEEDS:
        raise ValueError(f"unknown peer {peer!r}; known: {', '.join(NEEDS)}")
    if peer == "cholmod_reused":
        return Cholmod(settings)
    if peer == "pardiso_reused":
        return Pardiso(settings)
    return Multigrid(peer.split("_")[1], settings)


def relative_residual(A, b, x):
    """||b - A x|| / ||b|| in float64."""
    return float(np.linalg.norm(b - A @ x) / np.linalg.norm(b))


class Worker:
    """Answers requests; keeps systems and what the peers carry between them."""

    def __init__(self):
        self.systems, self.solvers = [], {}

    def answer(self, do, **request):
        """Calls the method that a request names."""
        known = {"peers": self.peers, "load": self.load, "solve": self.solve}
        if do not in known:
            raise ValueError(f"cannot do {do!r}; known: {', '.join(known)}")
        return known[do](**request)

    def peers(self):
        """Names of the peers whose packages are there."""
        return [p for p, package in NEEDS.items() if importlib.util.find_spec(package)]

    def load(self, paths):
        """Reads the systems; drops what belongs to earlier ones."""
        for solver in self.solvers.values():
            getattr(solver, "close", lambda: None)()
        self.systems, self.solvers = [], {}
        for path in paths:
            with np.load(path) as file:
                arrays = file["data"], file["indices"], file["indptr"]
                b = file["b"].ravel()
            self.systems.append((sp.csr_array(arrays, shape=(b.size, b.size)), b))
        return len(self.systems)

    def solve(self, system, peer, rtol, settings=None, solution=None):
        """Solves one of the systems and writes x where `solution` says."""
        settings = settings or {}
        key = peer, json.dumps(settings, sort_keys=True)
        if key not in self.solvers:
            self.solvers[key] = build(peer, settings)
        A, b = self.systems[system]
        with warnings.catch_warnings(action="ignore"):  # failures show in the residual
            x, seconds, iterations = self.solvers[key].solve(A, b, rtol)
        if solution is not None:
            np.save(solution, x)
        residual = relative_residual(A, b, x)
        return {
            "seconds": seconds,
            "iterations": iterations,
            "true_residual": residual if np.isfinite(residual) else None,
        }


def main():
    """Answers line by line until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    # What libraries print must not get among the answers.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    worker = Worker()
    for line in sys.stdin:
        try:
            answer = worker.answer(**json.loads(line))
        except Exception as error:  # one bad request must not end the benchmark
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
