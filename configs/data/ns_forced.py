"""Forced flow of the Spectral-Refiner paper, viscosity 1e-3, 100 frames, 64 x 64.

The flow of `ns_fno_1e3` from t = 30 on, a frame every 0.2 (Cao et al. 2025,
arXiv:2405.17211; the published frames come one time step of 1e-3 later).

    uv run -m datagen generate --config configs/data/ns_forced.py --out data/ns_forced

Variants: `:small` (32 x 32 points, 61 frames), `:quick` (16 x 16 points, from t = 3).
`:fine`, `:small_fine` and `:quick_fine`: test trajectories of the same flow with random
numbers of their own, in float64 on more points and with smaller steps: for predictions
on a finer grid, and a truth for the refiner that is not its own.
"""

import ml_collections

from configs import common, flows

# Per variant: stored points, points of the solver, first time, frames, time step,
# samples, samples per file.
VARIANTS = {
    "full": (64, 64, 30.0, 100, 0.04, (1152, 128, 64), 64),
    "small": (32, 64, 30.0, 61, 0.05, (256, 32, 32), 32),
    "quick": (16, 32, 3.0, 31, 0.1, (16, 8, 8), 8),
    "fine": (256, 256, 30.0, 100, 0.0125, (0, 0, 16), 8),
    "small_fine": (64, 96, 30.0, 61, 0.025, (0, 0, 8), 8),
    "quick_fine": (32, 48, 3.0, 31, 0.05, (0, 0, 4), 4),
}


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    """Returns the data set; `small` takes minutes on a laptop, `quick` seconds."""
    common.check_variant(variant, (*common.VARIANTS, *flows.FINE))
    n, solver_n, first, frames, dt, num, shard_size = VARIANTS[variant]
    fine = variant in flows.FINE
    coarse = VARIANTS[variant.replace("_fine", "").replace("fine", "full")]
    return flows.trajectories(
        "ns_forced",
        seed=55 if fine else 54,
        num=num,
        shard_size=shard_size,
        problem={
            "n": n,
            "solver_n": solver_n,
            **flows.fno_flow(1e-3, coarse[1]),  # the same modes of the initial field
            "first_time": first,
            "frame_spacing": 0.2,
            "num_frames": frames,
            "dealias": "two_thirds",
        },
        dt=dt,
        batch_size=min(shard_size, 16),
        dtype="float64" if fine else "float32",
    )
