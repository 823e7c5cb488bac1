"""Decaying Taylor-Green vortices, viscosity 1e-3, 51 frames on 64 x 64 points.

m x m pairs of vortices on the unit torus, m = 1 ... 10 and the place at random, largest
speed 1 at t = 0, frames at t = 0, 0.02, ..., 1. The exact solution is the initial field
times exp(-8 pi^2 m^2 nu t). For checks; little can be learned from it.

    uv run -m datagen generate --config configs/data/ns_taylor_green.py \
        --out data/ns_taylor_green

Variants: `:small` (32 x 32 points), `:quick` (16 x 16 points, m up to 4, 11 frames).
"""

import ml_collections

from configs import common, flows

# Per variant: points, largest m, frames, time between them, samples, samples per file.
VARIANTS = {
    "full": (64, 10, 51, 0.02, (100, 20, 20), 20),
    "small": (32, 10, 51, 0.02, (100, 20, 20), 20),
    "quick": (16, 4, 11, 0.05, (16, 8, 8), 8),
}


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    """Returns the data set; all variants take seconds."""
    common.check_variant(variant)
    n, largest, frames, spacing, num, shard_size = VARIANTS[variant]
    return flows.trajectories(
        "ns_taylor_green",
        seed=59,
        num=num,
        shard_size=shard_size,
        problem={
            "n": n,
            "solver_n": n,
            "lengths": (1.0, 1.0),
            "viscosity": 1e-3,
            "drag": 0.0,
            "forcing": {"name": "none"},
            "initial": {
                "name": "taylor_green",
                "counts": (1, largest),
                "num_modes": largest,
            },
            "first_time": 0.0,
            "frame_spacing": spacing,
            "num_frames": frames,
            "dealias": "two_thirds",
        },
        dt=0.01,
        batch_size=shard_size,
    )
