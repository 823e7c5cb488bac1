r"""Composites on triangles, 16 round inclusions of contrast 1e2 to 1e4, P2 elements.

The material of `composites` where no grid method applies: the mesh follows the
interfaces, the matrices are sums of fixed ones, and a pool of vectors kept from the
first samples saves most of the iterations (--config.solver.method=deflated_cg). Sparse
factors are cheaper at these sizes. Fields live on the nodes; the mesh is in the files.

    uv run -m datagen generate --config configs/data/composites_unstructured.py \
        --out data/composites_unstructured

Where PETSc is installed `--config.solver.preconditioner=icc0` takes fewer iterations
of the pooled method, each of them cheaper.

Variants: `:small` (mesh size 0.02, 11 537 nodes), `:quick` (0.05, 1 813 nodes).
"""

import ml_collections

from configs import common

# Per variant: mesh size, samples per split, samples per file.
VARIANTS = {
    "full": (0.01, (1000, 100, 100), 100),
    "small": (0.02, (400, 60, 60), 100),
    "quick": (0.05, (64, 16, 16), 64),
}


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    """Returns the data set; `small` takes minutes on a laptop, `quick` seconds."""
    common.check_variant(variant)
    mesh_size, num, shard_size = VARIANTS[variant]
    return common.dataset(
        "composites_unstructured",
        seed=32,
        num=num,
        shard_size=shard_size,
        problem={
            "name": "composites_unstructured",
            "mesh_size": mesh_size,
            "degree": 2,
            "num_inclusions": 4,
            "contrasts": (1e2, 1e4),
            "shape": "circle",
            "source": "gaussian",
        },
        solver=common.solver(),
    )
