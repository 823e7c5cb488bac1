"""Navier-Stokes flow of the FNO paper, viscosity 1e-4, 30 frames on 64 x 64 points.

As `ns_fno_1e3` with frames at t = 1, 2, ..., 30. The paper trains on 1000 and on 10 000
trajectories: `--config.splits.train=10000`. The stored grid keeps all but a few
thousandths of the vorticity.

    uv run -m datagen generate --config configs/data/ns_fno_1e4.py --out data/ns_fno_1e4

Variants: `:small` (t = 1 ... 20, solved on 96 x 96 points), `:quick` (10 frames).
"""

import ml_collections

from configs import flows

# As in ns_fno_1e3.py.
VARIANTS = {
    "full": (64, 192, 1.0, 1.0, 30, 0.0125, (1000, 200, 200), 32),
    "small": (64, 96, 1.0, 1.0, 20, 0.025, (200, 32, 32), 32),
    "quick": (16, 32, 1.0, 1.0, 10, 0.1, (16, 8, 8), 8),
}


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    """Returns the data set; `small` takes minutes on a laptop, `quick` seconds."""
    return flows.fno_dataset(
        "ns_fno_1e4", variant, seed=52, viscosity=1e-4, variants=VARIANTS
    )
