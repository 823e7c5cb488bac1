r"""Composites, 27 cubic inclusions of contrast 1e2 to 1e4, 45 x 45 x 45 cells.

Fixed layout, random contrasts, Gaussian source at a random place: the set on which a
pool of vectors, kept from the first samples, saves most of the iterations
(--config.solver.method=deflated_cg). Multigrid is faster still.

    uv run -m datagen generate --config configs/data/composites_3d.py \
        --out data/composites_3d

Where PETSc is installed `--config.solver.preconditioner=icc0` takes fewer iterations
of the pooled method, each of them cheaper.

Variants: `:small` (30^3 cells), `:quick` (10^3 cells, 8 inclusions, for tests).
"""

import ml_collections

from configs import common

# Per variant: cells per axis, inclusions per axis, samples per split and per file.
VARIANTS = {
    "full": (45, 3, (1000, 100, 100), 100),
    "small": (30, 3, (400, 60, 60), 100),
    "quick": (10, 2, (64, 16, 16), 64),
}


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    """Returns the data set; `small` takes minutes on a laptop, `quick` seconds."""
    common.check_variant(variant)
    n, num_inclusions, num, shard_size = VARIANTS[variant]
    return common.dataset(
        "composites_3d",
        seed=31,
        num=num,
        shard_size=shard_size,
        problem={
            "name": "composites",
            "n": n,
            "num_dims": 3,
            "num_inclusions": num_inclusions,
            "contrasts": (1e2, 1e4),
            "layout": "fixed",
            "source": "gaussian",
            "walls": "half_cells",
        },
        solver=common.solver(k=30, fallbacks=("cg", "direct")),
    )
