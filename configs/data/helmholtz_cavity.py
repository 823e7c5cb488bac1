r"""The Helmholtz benchmark of operator learning: undamped cavity, 101 x 101 nodes.

The discrete map c -> u of de Hoop et al. (2022, arXiv:2203.13181): omega 1000, c = 20 +
tanh(U) with a series of 100 cosines, flux through the middle of the top edge, bilinear
quadrilaterals. The published arrays have 40000 samples, sample index last:
--config.splits.train=40000. Expected: c within 19.8 to 20.2, standard deviation of u
inside a sample 0.010 to 0.012, max |u| 0.033 to 0.040.

    uv run -m datagen generate --config configs/data/helmholtz_cavity.py \
        --out data/helmholtz_cavity

The map is the discrete one: no other n gives the same data. Solved directly (0.6
million nonzeros in the factors); with the factors of the mean medium, GMRES needs 10 to
15 products with A.

Variants: `:small` (51 x 51 nodes, omega 500) and `:quick` (26 x 26, omega 250, for
tests) have the same nodes per wavelength, 12.6, in a smaller cavity.
"""

import ml_collections

from configs import common

# Per variant: nodes per axis, angular frequency, samples per split, samples per file.
VARIANTS = {
    "full": (101, 1000.0, (1000, 100, 100), 128),
    "small": (51, 500.0, (1000, 100, 100), 128),
    "quick": (26, 250.0, (48, 8, 8), 16),
}


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    """Returns the data set; `small` takes a minute on a laptop, `quick` seconds."""
    common.check_variant(variant)
    n, omega, num, shard_size = VARIANTS[variant]
    return common.dataset(
        "helmholtz_cavity",
        seed=22,
        num=num,
        shard_size=shard_size,
        problem={"name": "helmholtz_cavity", "n": n, "omega": omega},
        solver=common.solver(),
    )
