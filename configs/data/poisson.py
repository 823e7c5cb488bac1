r"""Poisson's equation, Chebyshev source and boundary values, P2 elements, 20 729 nodes.

One matrix for all samples, factorised once. Fields live on the nodes of a mesh of the
unit square, which is in the files.

    uv run -m datagen generate --config configs/data/poisson.py --out data/poisson

The series as in the script behind the paper: `--config.problem.variant=as_coded`.

Variants: `:small` (mesh size 0.025, 7 497 nodes), `:quick` (0.1, 477 nodes).
"""

import ml_collections

from configs import common

# Per variant: mesh size, samples per split, samples per file.
VARIANTS = {
    "full": (0.015, (1000, 100, 100), 100),
    "small": (0.025, (1000, 100, 100), 100),
    "quick": (0.1, (48, 8, 8), 16),
}


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    """Returns the data set; `small` takes minutes on a laptop, `quick` seconds."""
    common.check_variant(variant)
    mesh_size, num, shard_size = VARIANTS[variant]
    return common.dataset(
        "poisson",
        seed=35,
        num=num,
        shard_size=shard_size,
        problem={
            "name": "poisson",
            "mesh_size": mesh_size,
            "series_degree": 5,
            "variant": "as_stated",
        },
        solver=common.solver(),
    )
