r"""Steady transport in random incompressible flow, Peclet number 1000, 257 x 257 nodes.

-0.001 Delta u + b . grad u = 1 on the unit square, u = 0 on the walls; b from a random
sine stream function, root mean square speed 1. Central fluxes, second order: errors of
0.03 to 0.05 % at 257 x 257 nodes. --config.problem.scheme=upwind gives the first-order
M-matrix of many solver papers, whose solution is 32 to 34 % off at this size.

    uv run -m datagen generate --config configs/data/convection_diffusion.py \
        --out data/convection_diffusion

Solved directly: factors of 3.4 million nonzeros at 257 x 257. GMRES and BiCGStab with
incomplete factors (drop tolerance 1e-3) take 17 to 31 products at 129 x 129, but 40 to
280 at 257 x 257. --config.problem.family=low3 has three random parameters around a
fixed flow, whose factors precondition all samples (20 to 35 products at both sizes).

Variants: `:small` (129 x 129 nodes), `:quick` (65 x 65, for tests).
"""

import ml_collections

from configs import common

# Per variant: nodes per axis, samples per split, samples per file.
VARIANTS = {
    "full": (257, (1000, 100, 100), 64),
    "small": (129, (1000, 100, 100), 64),
    "quick": (65, (48, 8, 8), 16),
}


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    """Returns the data set; `small` takes minutes on a laptop, `quick` seconds."""
    common.check_variant(variant)
    n, num, shard_size = VARIANTS[variant]
    return common.dataset(
        "convection_diffusion",
        seed=23,
        num=num,
        shard_size=shard_size,
        problem={
            "name": "convection_diffusion",
            "n": n,
            "epsilon": 1e-3,
            "family": "grf",  # or "low3"
            "scheme": "central",  # or "upwind"
            "forcing": 1.0,
        },
        solver=common.solver(),
    )
