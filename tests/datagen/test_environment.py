"""Threads change last bits, so that they are no choice of the user's."""

import os
import subprocess
import sys

import pytest

from datagen import environment

# A grid large enough for JAX to share it out among its threads.
SOLVE = """
import hashlib, os, sys
from datagen.environment import settings
os.environ.update(settings() if sys.argv[1] == "ours" else {"JAX_ENABLE_X64": "1"})
import numpy as np
from datagen.problems.darcy_3d import Darcy3d
from solvers import sequence
problem = Darcy3d(n=(42, 46, 50), log_std=0.5)
system = problem.system(problem.sample(np.random.default_rng(0)))
x, record = sequence.create("fft_pcg").solve(system, rtol=1e-8)
assert record.converged, record.status
print(hashlib.sha256(x.tobytes()).hexdigest())
"""


def test_threads_and_precision_are_fixed_and_places_are_kept(monkeypatch):
    for name in ("PJRT_NPROC", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "4")
    monkeypatch.setenv("JAX_ENABLE_X64", "0")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "mine")
    found = environment.settings()
    threads = [f"{name}_NUM_THREADS" for name in environment.THREADS]
    assert {found[name] for name in [*threads, "PJRT_NPROC"]} == {"1"}
    assert found["JAX_ENABLE_X64"] == "1"
    assert found["JAX_COMPILATION_CACHE_DIR"] == "mine/one_thread"
    for folder in ("mine/one_thread", ""):  # of the parent process; no cache
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", folder)
        assert environment.settings()["JAX_COMPILATION_CACHE_DIR"] == folder


@pytest.mark.slow
def test_bytes_do_not_depend_on_the_threads_asked_for(tmp_path):
    """Nor on programs that others compiled for more threads."""

    def solved(whose, threads, cache):
        changes = {"PJRT_NPROC": threads, "OMP_NUM_THREADS": threads}
        changes["JAX_COMPILATION_CACHE_DIR"] = str(tmp_path / cache)
        command = [sys.executable, "-c", SOLVE, whose]
        done = subprocess.run(
            command, env=os.environ | changes, capture_output=True, check=True
        )
        return done.stdout

    one, two = solved("theirs", "1", "own"), solved("theirs", "2", "shared")
    assert one != two  # else this test shows nothing
    assert solved("ours", "2", "shared") == one
