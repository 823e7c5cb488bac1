"""Short sequences of every kind of matrix, for the tests of all methods."""

import numpy as np
import scipy.sparse as sp
from families import system

from solvers.sequence import LinearSystem

SHAPE = (14, 17)
NEEDS = {  # kind -> what the matrices are
    "spd": "spd",
    "indefinite": "symmetric",
    "nonsymmetric": "any",
    "hermitian": "spd",
    "complex": "any",
}
COMPLEX = ("hermitian", "complex")


def suits(method_needs, kind):
    """Whether a method that needs that may be given this kind of matrix."""
    order = ["any", "symmetric", "spd"]
    return order.index(NEEDS[kind]) >= order.index(method_needs)


def upwind(shape):
    """First differences on the grid: a nonsymmetric matrix with a positive diagonal."""
    ahead = [sp.eye_array(n) - sp.eye_array(n, k=-1) for n in shape]
    return sp.kron(ahead[0], sp.eye_array(shape[1])) + 0.5 * sp.kron(
        sp.eye_array(shape[0]), ahead[1]
    )


def matrix(kind, drift=0.0):
    """One matrix of a kind [N, N]; `drift` changes it a little."""
    A = system("two_phase", SHAPE).to_csr()
    scale = A.diagonal().mean()
    steps = scale * sp.diags_array(np.linspace(1, 2, A.shape[0]))
    A = A + drift * steps
    N = upwind(SHAPE) * scale
    if kind == "indefinite":
        A = A - 0.04 * scale * sp.eye_array(A.shape[0])
    elif kind == "nonsymmetric":
        A = A + N
    elif kind == "hermitian":
        A = A + 0.02j * (N - N.T)
    elif kind == "complex":
        A = A + (-0.04 + 0.1j) * scale * sp.eye_array(A.shape[0])
    return sp.csr_array(A)


def systems(kind, num=3, *, drift=0.01, seed=0):
    """`num` systems whose matrices drift, right-hand sides at random [*SHAPE]."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(num):
        b = rng.standard_normal(SHAPE)
        if kind in COMPLEX:
            b = b + 1j * rng.standard_normal(SHAPE)
        made.append(LinearSystem(matrix(kind, drift * i), b))
    return made


def true_residual(one, x):
    """Relative residual by NumPy alone."""
    b = one.rhs.ravel()
    return np.linalg.norm(b - one.operator @ x.ravel()) / np.linalg.norm(b)
