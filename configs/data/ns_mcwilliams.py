"""Decaying turbulence of McWilliams (1984), 100 frames on 64 x 64 points.

Vorticity on (0, 2 pi)^2 without forcing, mean kinetic energy 1/4 and peak wave number 4
at t = 0, viscosity 1e-3; a frame every 0.055 from t = 4.5 on (Cao et al. 2025,
arXiv:2405.17211; the published frames come one time step of 1e-3 later).

    uv run -m datagen generate --config configs/data/ns_mcwilliams.py \
        --out data/ns_mcwilliams

The variant of Reynolds number 5000: `--config.problem.viscosity=2e-4
--config.problem.solver_n=512 --config.solver.dt=5.5e-3`.

Variants: `:small` (viscosity 5e-3, which 128 x 128 points resolve; 48 x 48 stored, 50
frames), `:quick` (viscosity 2e-2, 24 x 24 points). `:fine`, `:small_fine` and
`:quick_fine`: test trajectories of the same flows with random numbers of their own, in
float64 on more points, from a solver with still more points and with smaller steps: for
predictions on a finer grid, and a truth for the refiner that is not its own.
"""

import ml_collections

from configs import common, flows

TWO_PI = 6.283185307179586
# Per variant: stored points, points of the solver, viscosity, modes of the initial
# field, first time, frames, scheme, time step, samples, samples per file.
VARIANTS = {
    "full": (64, 256, 1e-3, 40, 4.5, 100, "if_rk8", 0.0275, (1024, 64, 64), 32),
    "small": (48, 128, 5e-3, 40, 4.5, 50, "etdrk4", 0.0275, (256, 32, 32), 32),
    "quick": (24, 48, 2e-2, 15, 1.1, 31, "etdrk4", 0.0275, (16, 8, 8), 8),
    "fine": (256, 384, 1e-3, 40, 4.5, 100, "if_rk8", 0.01375, (0, 0, 16), 8),
    "small_fine": (128, 256, 5e-3, 40, 4.5, 50, "if_rk8", 0.0275, (0, 0, 8), 8),
    "quick_fine": (48, 96, 2e-2, 15, 1.1, 31, "etdrk4", 0.01375, (0, 0, 4), 4),
}


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    """Returns the data set; `small` takes minutes on a laptop, `quick` seconds."""
    common.check_variant(variant, (*common.VARIANTS, *flows.FINE))
    row = VARIANTS[variant]
    n, solver_n, viscosity, modes, first, frames, scheme, dt, num, shard_size = row
    fine = variant in flows.FINE
    return flows.trajectories(
        "ns_mcwilliams",
        seed=57 if fine else 56,
        num=num,
        shard_size=shard_size,
        problem={
            "n": n,
            "solver_n": solver_n,
            "lengths": (TWO_PI, TWO_PI),
            "viscosity": viscosity,
            "drag": 0.0,
            "forcing": {"name": "none"},
            "initial": {
                "name": "mcwilliams",
                "peak_wavenumber": 4.0,
                "tau": 1.0,
                "density": "amplitude",  # "power": the spectrum of the paper of 1984
                "num_modes": modes,
            },
            "first_time": first,
            "frame_spacing": 0.055,
            "num_frames": frames,
            "dealias": "two_thirds",
        },
        scheme=scheme,
        dt=dt,
        batch_size=min(shard_size, 16),
        accept=1e-4,
        dtype="float64" if fine else "float32",
    )
