"""Solving a problem's systems to rounding, for tests of discretisations."""

import numpy as np
import scipy.sparse.linalg as spla

from solvers.sequence import create


def direct(system, rtol=1e-10):
    x, record = create("direct").solve(system, rtol=rtol)
    assert record.converged
    return x


def solution(problem, sample, solve=direct):
    """The stored field `solution` of a sample."""
    x = solve(problem.system(sample))
    return problem.fields_from_solution(sample, x)["solution"]


def factor(A):
    """Factors of a matrix with symmetric pattern and a strong diagonal."""
    settings = {"permc_spec": "MMD_AT_PLUS_A", "options": {"SymmetricMode": True}}
    return spla.splu(A.tocsc(), diag_pivot_thresh=0.01, **settings)


def factored_solve(system):
    return factor(system.to_csr()).solve(system.rhs.ravel()).reshape(system.rhs.shape)


def distance(u, reference):
    """Relative difference in the Euclidean norm."""
    return np.linalg.norm(u - reference) / np.linalg.norm(reference)
