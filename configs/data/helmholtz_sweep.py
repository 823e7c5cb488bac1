r"""Helmholtz equation at 20 frequencies in a band of 2 %, one random medium per sample.

The problem of `helmholtz` with k = s k0 (1 + 0.1 g), s from 0.99 to 1.01; u is stored
at every frequency, with s as the coordinate of the steps. 193 x 193 nodes, 10
wavelengths, 19 nodes per wavelength.

    uv run -m datagen generate --config configs/data/helmholtz_sweep.py \
        --out data/helmholtz_sweep

One factorisation per medium, of its middle frequency, preconditions the whole band:
BiCGStab then takes 4 to 10 products with A per frequency, at a third of the work of a
factorisation each. `damping` 0.5 makes it the usual shifted Laplacian (about 70
products), for which --config.solver.guess=projection helps most.

Variants: `:small` (97 x 97 nodes, 5 wavelengths), `:quick` (65 x 65, 3 wavelengths, 4
frequencies, for tests).
"""

import ml_collections

from configs import common

# Per variant: nodes per axis, wavelengths, frequencies, samples per split and per file.
VARIANTS = {
    "full": (193, 10.0, 20, (400, 50, 50), 16),
    "small": (97, 5.0, 20, (96, 12, 12), 12),
    "quick": (65, 3.0, 4, (16, 8, 8), 8),
}


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    """Returns the data set; `small` takes minutes on a laptop, `quick` seconds."""
    common.check_variant(variant)
    n, wavelengths, num_frequencies, num, shard_size = VARIANTS[variant]
    return common.dataset(
        "helmholtz_sweep",
        seed=21,
        num=num,
        shard_size=shard_size,
        problem={
            "name": "helmholtz_sweep",
            "n": n,
            "wavelengths": wavelengths,
            "num_frequencies": num_frequencies,
            "delta": 0.02,
            "eta": 0.1,
            "family": "grf",
            "source": "fixed",
            "source_width": 0.02,
            "damping": 0.0,
        },
        solver=common.solver(),
    )
