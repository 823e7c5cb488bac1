r"""Helmholtz equation in random media, 10 wavelengths, impedance boundary, 257 x 257.

-Delta u - k^2 u = f on the unit square, du/dn = i k u, k = k0 (1 + 0.05 g) with a
random cosine series g, one Gaussian source; real and imaginary part of u are stored.
25 nodes per wavelength: waves are 0.16 rad out of phase after crossing the domain, and
u is 5 % off in the mean square (19 % at 129 x 129, 1 % at 513 x 513).

    uv run -m datagen generate --config configs/data/helmholtz.py --out data/helmholtz

Solved directly: one factorisation (about 3.5 million nonzeros at 257 x 257) costs less
than the 75 to 80 products, each with two triangular solves, that BiCGStab or GMRES
need with the shifted Laplacian at any n here. Other choices: --config.solver.method=skr
(recycles nothing useful for such media), bicgstab; --config.problem.source=random.

Variants: `:small` (129 x 129 nodes, 10 wavelengths, 0.63 rad), `:quick` (65 x 65, 4
wavelengths, for tests).
"""

import ml_collections

from configs import common

# Per variant: nodes per axis, wavelengths, samples per split, samples per file.
VARIANTS = {
    "full": (257, 10.0, (1000, 100, 100), 64),
    "small": (129, 10.0, (400, 50, 50), 64),
    "quick": (65, 4.0, (24, 8, 8), 8),
}


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    """Returns the data set; `small` takes minutes on a laptop, `quick` seconds."""
    common.check_variant(variant)
    n, wavelengths, num, shard_size = VARIANTS[variant]
    return common.dataset(
        "helmholtz",
        seed=20,
        num=num,
        shard_size=shard_size,
        problem={
            "name": "helmholtz",
            "n": n,
            "wavelengths": wavelengths,
            "eta": 0.05,
            "family": "grf",  # or "low4"
            "source": "fixed",  # or "random"
            "source_width": 0.02,
            "damping": 0.5,
        },
        solver=common.solver(),
    )
