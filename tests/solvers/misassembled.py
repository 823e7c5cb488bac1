"""The paper's Darcy matrices, which are not those of Darcy flow: test fixture only.

Hard systems whose published counts an implementation of GCRO-DR can be compared with.
Never use them as data: their solutions are wrong by 80 to 180 %.
"""

import numpy as np
import scipy.sparse as sp

from solvers.sequence import LinearSystem

SHIFT = 2


def lognormal_exponent(num_nodes, rng):
    """The periodic Gaussian field g [num_nodes, num_nodes] of the paper, a = exp(g).

    Fourier coefficients are complex normal with amplitudes proportional to
    (4 pi^2 |k|^2 + 49)^-1.25, without mean; standard deviation about 0.18.
    """
    alpha, tau = 2.5, 7.0
    k = np.fft.fftfreq(num_nodes, 1 / num_nodes)
    square = k[:, None] ** 2 + k**2
    amplitude = num_nodes**2 * np.sqrt(2) * tau ** (alpha - 1)
    amplitude *= (4 * np.pi**2 * square + tau**2) ** (-alpha / 2)
    amplitude[0, 0] = 0
    real, imaginary = rng.standard_normal((2, num_nodes, num_nodes)) / np.sqrt(2)
    return np.fft.ifft2(amplitude * (real + 1j * imaginary)).real


def paper_misassembled_darcy(a):
    """What the paper's generator makes of a [n + 2, n + 2]: n^2 unknowns, f = 1.

    Two mistakes: each coupling carries the coefficient of the neighbour alone, so that
    the matrix stands for -Laplace(a u); and the coupling to the neighbour above takes
    the coefficient from two positions earlier in the order of unknowns, because a slice
    for the full width is used with the inner one. Nonsymmetric and indefinite.
    """
    n = a.shape[0] - 2
    left, right = (
        np.pad(a[1:-1, 1:-2], ((0, 0), (1, 0))),
        np.pad(a[1:-1, 2:-1], ((0, 0), (0, 1))),
    )
    above = a[:-2, 1:-1].ravel()[n - SHIFT :][: n * n - n]
    below = a[2:, 1:-1].ravel()[: n * n - n]
    diagonals = [4 * a[1:-1, 1:-1].ravel(), -left.ravel()[1:], -right.ravel()[:-1]]
    A = sp.diags_array(
        [*diagonals, -above, -below], offsets=[0, -1, 1, -n, n], shape=(n * n, n * n)
    )
    h = 1 / (n - 1)  # as in the paper; 1 / (n + 1) would be right
    return LinearSystem(sp.csr_array(A), np.full((n, n), h**2))
