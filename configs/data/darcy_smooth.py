r"""Darcy flow, two phases 12 and 3, smooth set (alpha 2, tau 3), 421 x 421 nodes.

The random field, the values and the size are those of the data set of Li et al. (2021,
arXiv:2010.08895); the coefficient is drawn at the nodes and the scheme is `clean`, so
errors must not be compared with published ones (docs/data.md says how to make the
published kind). `small` has 2^7 + 1 nodes: every second and fourth node nest.

    uv run -m datagen generate --config configs/data/darcy_smooth.py \
        --out data/darcy_smooth

Variants: `:small` (129 x 129 nodes), `:quick` (33 x 33, for tests).
"""

import ml_collections

# Per variant: points per axis, samples per split, samples per file.
VARIANTS = {
    "full": (421, {"train": 1000, "valid": 100, "test": 100}, 64),
    "small": (129, {"train": 1000, "valid": 100, "test": 100}, 128),
    "quick": (33, {"train": 48, "valid": 8, "test": 8}, 16),
}


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    """Returns the data set; `small` takes a minute on a laptop, `quick` seconds."""
    if variant not in VARIANTS:
        raise ValueError(f"unknown variant {variant!r}; known: {', '.join(VARIANTS)}")
    n, splits, shard_size = VARIANTS[variant]
    config = ml_collections.ConfigDict()
    config.name = "darcy_smooth"
    config.seed = 0  # another one in each set: the same draws never serve two
    config.splits = splits
    config.shard_size = shard_size
    config.problem = {
        "name": "darcy",
        "n": n,
        "coefficient": "two_phase",
        "alpha": 2.0,
        "tau": 3.0,
        "values": (12.0, 3.0),
        "forcing": 1.0,
        "mode": "clean",
        "face_mean": "harmonic",
    }
    config.solver = {
        "method": "mg_pcg",
        "rtol": 1e-8,
        "accept_rtol": 1e-7,  # of the residual recomputed in float64
        "maxiter": 100,
        "stop": "residual",
    }
    config.storage = {"dtype": "float32"}
    return config.lock()
