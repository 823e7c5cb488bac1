r"""Implicit heat conduction in a composite with drifting contrasts.

30^3 cells, 27 cubic inclusions, 1e3 to 1e4 at the start, each times exp(+-0.02) every
step; 30 steps, and a source that moves on a straight line. One linear system per step:
the matrix hardly changes from one to the next.

    uv run -m datagen generate --config configs/data/heat.py --out data/heat

Two dimensions: `--config.problem.num_dims=2`. Constant matrices:
`--config.problem.drift=0.0`.

Variants: `:small` (15^3 cells), `:quick` (20 x 20 cells, 4 inclusions, 6 steps).
"""

import ml_collections

from configs import common

# Per variant: cells per axis, axes, inclusions per axis, steps, samples, per file.
VARIANTS = {
    "full": (30, 3, 3, 30, (200, 20, 20), 20),
    "small": (15, 3, 3, 30, (100, 20, 20), 20),
    "quick": (20, 2, 2, 6, (24, 8, 8), 12),
}


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    """Returns the data set; `small` takes minutes on a laptop, `quick` seconds."""
    common.check_variant(variant)
    n, num_dims, num_inclusions, num_steps, num, shard_size = VARIANTS[variant]
    return common.dataset(
        "heat",
        seed=34,
        num=num,
        shard_size=shard_size,
        problem={
            "name": "heat",
            "n": n,
            "num_dims": num_dims,
            "num_inclusions": num_inclusions,
            "contrasts": (1e3, 1e4),
            "drift": 0.02,
            "time_step": 0.01,
            "num_steps": num_steps,
            "walls": "half_cells",
        },
        solver=common.solver(k=30, fallbacks=("cg", "direct")),
    )
