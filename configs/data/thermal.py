r"""Heat conduction in a plate with a slot, two sides given, P2 elements, 17 758 nodes.

One matrix for all samples, factorised once, and a solution that is linear in two
numbers. Fields live on the nodes of the mesh, which is in the files.

    uv run -m datagen generate --config configs/data/thermal.py --out data/thermal

With a heat flux on the right, as in the script behind the paper:
`--config.problem.variant=as_coded`.

Variants: `:small` (mesh size 0.03, 7 900 nodes), `:quick` (0.1, 734 nodes).
"""

import ml_collections

from configs import common

# Per variant: mesh size, samples per split, samples per file.
VARIANTS = {
    "full": (0.02, (1000, 100, 100), 100),
    "small": (0.03, (1000, 100, 100), 100),
    "quick": (0.1, (48, 8, 8), 16),
}


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    """Returns the data set; `small` takes minutes on a laptop, `quick` seconds."""
    common.check_variant(variant)
    mesh_size, num, shard_size = VARIANTS[variant]
    return common.dataset(
        "thermal",
        seed=36,
        num=num,
        shard_size=shard_size,
        problem={
            "name": "thermal",
            "mesh_size": mesh_size,
            "variant": "as_stated",
        },
        solver=common.solver(),
    )
