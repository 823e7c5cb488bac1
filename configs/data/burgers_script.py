"""Burgers' equation, viscosity 0.001, up to t = 1 on 1024 points (FNO script).

u(0) is Gaussian of covariance 49^2 (49 - d^2/dx^2)^-2.5, the measure of the script
beside the data of Li et al. (2021, arXiv:2010.08895). Layers of width 0.005 form, which
the solver resolves with 4096 points.

    uv run -m datagen generate --config configs/data/burgers_script.py \
        --out data/burgers_script

Solutions are stored at t = 0.1, 0.2, ..., 1; the map of the paper is to the last one.
Variants: `:small` (fewer samples), `:quick` (viscosity 0.02, 128 points).
"""

import ml_collections

from configs import common

# Per variant: stored points, points of the solver, viscosity, modes of the initial
# field, time step, samples, samples per file.
VARIANTS = {
    "full": (1024, 4096, 1e-3, 512, 2.5e-4, (1000, 100, 200), 50),
    "small": (1024, 4096, 1e-3, 512, 2.5e-4, (200, 50, 50), 50),
    "quick": (128, 256, 2e-2, 64, 2e-3, (32, 8, 8), 16),
}


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    """Returns the data set; `small` takes minutes on a laptop, `quick` seconds."""
    common.check_variant(variant)
    n, solver_n, viscosity, num_modes, dt, num, shard_size = VARIANTS[variant]
    return common.dataset(
        "burgers_script",
        seed=61,
        num=num,
        shard_size=shard_size,
        problem={
            "name": "burgers",
            "n": n,
            "solver_n": solver_n,
            "viscosity": viscosity,
            "alpha": 2.5,
            "tau": 7.0,
            "sigma": 49.0,
            "num_modes": num_modes,
            "first_time": 0.1,
            "frame_spacing": 0.1,
            "num_frames": 10,
        },
        solver=common.time_stepping(
            "etdrk4", dt=dt, batch_size=shard_size, accept=1e-3
        ),
    )
