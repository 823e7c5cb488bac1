r"""Darcy flow in the cube, log-normal permeability of log std 1, 65 x 65 x 65 nodes.

    uv run -m datagen generate --config configs/data/darcy_3d.py --out data/darcy_3d

Two phases: `--config.problem.coefficient=two_phase` (values 12 and 3). A smooth random
field has no outlying eigenvectors that stay put, so nothing is recycled here.

Variants: `:small` (33^3 nodes), `:quick` (13^3, for tests).
"""

import ml_collections

from configs import common

# Per variant: nodes per axis, samples per split, samples per file.
VARIANTS = {
    "full": (65, (1000, 100, 100), 64),
    "small": (33, (500, 50, 50), 64),
    "quick": (13, (48, 8, 8), 16),
}


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    """Returns the data set; `small` takes minutes on a laptop, `quick` seconds."""
    common.check_variant(variant)
    n, num, shard_size = VARIANTS[variant]
    return common.dataset(
        "darcy_3d",
        seed=33,
        num=num,
        shard_size=shard_size,
        problem={
            "name": "darcy_3d",
            "n": n,
            "coefficient": "lognormal",
            "alpha": 2.5,
            "tau": 3.0,
            "log_std": 1.0,
            "values": (12.0, 3.0),
            "forcing": 1.0,
        },
        solver=common.solver(fallbacks=("cg", "direct")),
    )
