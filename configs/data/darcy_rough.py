r"""Darcy flow, two phases 12 and 2, rough set (alpha 2, tau 5), 513 x 513 nodes.

After the set of the MgNO paper (He et al. 2024, arXiv:2310.19809), whose script works
on 512 cell centres and keeps every second one. Here the points are nodes: 513 of them,
so that training on every second one sees 257 x 257 with both edges.

    uv run -m datagen generate --config configs/data/darcy_rough.py \
        --out data/darcy_rough

Variants: `:small` (129 x 129 nodes), `:quick` (33 x 33, for tests).
"""

import ml_collections

# Per variant: points per axis, samples per split, samples per file.
VARIANTS = {
    "full": (513, {"train": 1000, "valid": 100, "test": 100}, 64),
    "small": (129, {"train": 1000, "valid": 100, "test": 100}, 128),
    "quick": (33, {"train": 48, "valid": 8, "test": 8}, 16),
}


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    """Returns the data set; `small` takes a minute on a laptop, `quick` seconds."""
    if variant not in VARIANTS:
        raise ValueError(f"unknown variant {variant!r}; known: {', '.join(VARIANTS)}")
    n, splits, shard_size = VARIANTS[variant]
    config = ml_collections.ConfigDict()
    config.name = "darcy_rough"
    config.seed = 1  # another one in each set: the same draws never serve two
    config.splits = splits
    config.shard_size = shard_size
    config.problem = {
        "name": "darcy",
        "n": n,
        "coefficient": "two_phase",
        "alpha": 2.0,
        "tau": 5.0,
        "values": (12.0, 2.0),
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
