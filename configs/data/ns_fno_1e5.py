"""Navier-Stokes flow of the FNO paper, viscosity 1e-5, 20 frames on 64 x 64 points.

As `ns_fno_1e3` with frames at t = 1, 2, ..., 20; also the flow of the MgNO paper, whose
file has 1200 trajectories. 64 x 64 points hold all but about 2 % of the vorticity of
the last frames.

    uv run -m datagen generate --config configs/data/ns_fno_1e5.py --out data/ns_fno_1e5

Variants: `:small` (t = 0.5, 1, ..., 10, solved on 128 x 128 points; the later flow
would need more), `:quick` (10 frames up to t = 5).
"""

import ml_collections

from configs import flows

# As in ns_fno_1e3.py.
VARIANTS = {
    "full": (64, 256, 1.0, 1.0, 20, 0.01, (1000, 100, 100), 32),
    "small": (64, 128, 0.5, 0.5, 20, 0.025, (200, 32, 32), 32),
    "quick": (16, 32, 0.5, 0.5, 10, 0.1, (16, 8, 8), 8),
}


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    """Returns the data set; `small` takes minutes on a laptop, `quick` seconds."""
    return flows.fno_dataset(
        "ns_fno_1e5", variant, seed=53, viscosity=1e-5, variants=VARIANTS
    )
