"""Burgers' equation, viscosity 0.1, from u(0) to u(1) on 8192 points (FNO paper).

u(0) is Gaussian of covariance 625 (25 - d^2/dx^2)^-2, the measure of Li et al. (2021,
arXiv:2010.08895); the script beside the published data has another one, see
`burgers_script`. Subsample the points by slicing; the solution is far smoother than
any grid here needs.

    uv run -m datagen generate --config configs/data/burgers.py --out data/burgers

Variants: `:small` (1024 points), `:quick` (128 points).
"""

import ml_collections

from configs import common

# Per variant: points, modes of the initial field, samples, samples per file.
VARIANTS = {
    "full": (8192, 2730, (1000, 100, 200), 100),
    "small": (1024, 341, (1000, 100, 200), 100),
    "quick": (128, 42, (32, 8, 8), 16),
}


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    """Returns the data set; `small` takes a minute on a laptop, `quick` seconds."""
    common.check_variant(variant)
    n, num_modes, num, shard_size = VARIANTS[variant]
    return common.dataset(
        "burgers",
        seed=60,
        num=num,
        shard_size=shard_size,
        problem={
            "name": "burgers",
            "n": n,
            "solver_n": n,
            "viscosity": 0.1,
            "alpha": 2.0,
            "tau": 5.0,
            "sigma": 25.0,
            "num_modes": num_modes,
            "first_time": 1.0,
            "frame_spacing": 1.0,
            "num_frames": 1,
        },
        # Rough modes lose their energy within a step: the balance law sees it, u(1)
        # does not.
        solver=common.time_stepping("etdrk4", dt=1e-3, batch_size=100, accept=1e-2),
    )
