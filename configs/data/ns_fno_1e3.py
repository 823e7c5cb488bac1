"""Navier-Stokes flow of the FNO paper, viscosity 1e-3, 50 frames on 64 x 64 points.

Vorticity on the unit torus, forcing 0.1 (sin 2 pi (x + y) + cos 2 pi (x + y)), frames
at t = 1, 2, ..., 50 (Li et al. 2021, arXiv:2010.08895, section 5.3). The published
files were integrated on 256 x 256 points and subsampled; here 64 x 64 points resolve
the flow, and frames are truncated Fourier series.

    uv run -m datagen generate --config configs/data/ns_fno_1e3.py --out data/ns_fno_1e3

Other readings of the initial field: `--config.problem.initial.scaling=new` (the script
since 2022) or `paper`. The published time stepping: `--config.solver.scheme=legacy_fno
--config.solver.dt=1e-4 --config.problem.dealias=legacy --config.problem.solver_n=256
--config.solver.accept=1e-2`: of first order, its balance defect is beyond 1e-5.

Variants: `:small` (32 x 32 points), `:quick` (16 x 16 points, 10 frames).
"""

import ml_collections

from configs import flows

# Per variant: stored points, points of the solver, first time, time between frames,
# frames, time step, samples, samples per file.
VARIANTS = {
    "full": (64, 64, 1.0, 1.0, 50, 0.04, (1000, 200, 200), 64),
    "small": (32, 64, 1.0, 1.0, 50, 0.05, (200, 32, 32), 32),
    "quick": (16, 32, 1.0, 1.0, 10, 0.1, (16, 8, 8), 8),
}


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    """Returns the data set; `small` takes minutes on a laptop, `quick` seconds."""
    return flows.fno_dataset(
        "ns_fno_1e3", variant, seed=51, viscosity=1e-3, variants=VARIANTS
    )
