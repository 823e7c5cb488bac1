r"""Composites, 16 square inclusions of contrast 1e2 to 1e4, 260 x 260 cells.

Fixed layout, random contrasts, Gaussian source at a random place: materials for
which Krylov spaces can be kept from one sample to the next. On grids multigrid is
faster still.

    uv run -m datagen generate --config configs/data/composites.py --out data/composites

Controls in which the inclusions move: `--config.problem.layout=jittered`, `scaled`.

Variants: `:small` (120 x 120 cells), `:quick` (40 x 40, for tests).
"""

import ml_collections

from configs import common

# Per variant: cells per axis (a multiple of 20: faces on the interfaces), samples per
# split, samples per file.
VARIANTS = {
    "full": (260, (1000, 100, 100), 100),
    "small": (120, (1000, 100, 100), 100),
    "quick": (40, (64, 16, 16), 64),
}


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    """Returns the data set; `small` takes minutes on a laptop, `quick` seconds."""
    common.check_variant(variant)
    n, num, shard_size = VARIANTS[variant]
    return common.dataset(
        "composites",
        seed=30,
        num=num,
        shard_size=shard_size,
        problem={
            "name": "composites",
            "n": n,
            "num_dims": 2,
            "num_inclusions": 4,
            "contrasts": (1e2, 1e4),
            "layout": "fixed",
            "source": "gaussian",
            "walls": "half_cells",
        },
        solver=common.solver(),
    )
