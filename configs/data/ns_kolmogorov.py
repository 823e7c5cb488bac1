"""Kolmogorov flow with drag, viscosity 1e-3, 100 frames on 64 x 64 points.

Vorticity on (0, 2 pi)^2, force (sin 4 y, 0), drag 0.1, filtered initial velocity of
largest speed 5; a frame every 0.055 from t = 4.5 on, as in Cao et al. (2025,
arXiv:2405.17211), whose script intends wave number 4 and forces 1. The flow is chaotic:
256 x 256 points give other frames than finer grids from t = 5 on, and 64 x 64 points
keep 88 to 92 % of the vorticity. They are trajectories of the discrete equation.

    uv run -m datagen generate --config configs/data/ns_kolmogorov.py \
        --out data/ns_kolmogorov

Variants: `:small` (viscosity 1e-2, 128 x 128 points, 1 % off a finer grid in the last
of 51 frames), `:quick` (viscosity 5e-2, 24 x 24 points).
"""

import ml_collections

from configs import common, flows

TWO_PI = 6.283185307179586
# Per variant: stored points, points of the solver, viscosity, modes of the initial
# field, first time, frames, time step, samples, samples per file.
VARIANTS = {
    "full": (64, 256, 1e-3, 20, 4.5, 100, 0.005, (1024, 64, 64), 32),
    "small": (64, 128, 1e-2, 20, 4.5, 51, 0.01, (128, 16, 16), 16),
    "quick": (24, 48, 5e-2, 15, 1.1, 31, 0.0275, (16, 8, 8), 8),
}


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    """Returns the data set; `small` takes minutes on a laptop, `quick` seconds."""
    common.check_variant(variant)
    n, solver_n, viscosity, modes, first, frames, dt, num, shard_size = VARIANTS[
        variant
    ]
    return flows.trajectories(
        "ns_kolmogorov",
        seed=58,
        num=num,
        shard_size=shard_size,
        problem={
            "n": n,
            "solver_n": solver_n,
            "lengths": (TWO_PI, TWO_PI),
            "viscosity": viscosity,
            "drag": 0.1,
            "forcing": {"name": "kolmogorov", "amplitude": 1.0, "wavenumber": 4},
            "initial": {
                "name": "filtered_velocity",
                "peak_wavenumber": 4.0,
                "max_speed": 5.0,
                "num_modes": modes,
            },
            "first_time": first,
            "frame_spacing": 0.055,
            "num_frames": frames,
            "dealias": "two_thirds",
        },
        dt=dt,
        batch_size=min(shard_size, 16),
        accept=1e-4,
    )
