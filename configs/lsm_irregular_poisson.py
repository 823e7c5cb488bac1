"""LSM for point clouds on Poisson's equation at the nodes of a mesh, 20 729 nodes.

Model and optimiser as the released script (commit d5a0b40) has them for another set of
points, the elasticity benchmark: width 32, a latent grid of 96 x 96, 12 modes, batch
20, Adam, rate 5e-4 halved every 100 epochs, 501 epochs. Nothing is published for these
data. Not run here yet beyond `:quick` (477 nodes, seconds).

    python train.py --config configs/lsm_irregular_poisson.py
    python train.py --config configs/lsm_irregular_poisson.py:small
"""

import ml_collections

from configs import common, mgno_darcy


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    """Returns the experiment: `full`, `small` or `quick`."""
    common.check_variant(variant)
    config = mgno_darcy.get_config(variant)
    quick = variant == "quick"
    num = (48, 8, 8) if quick else (1000, 100, 100)
    config.data = common.data("poisson", variant, num=num)
    # Per channel; nodes have the same statistics, and coordinates stay as they are.
    config.normalizers = {"input": "scalar", "output": "scalar"}
    latent = {"full": 96, "small": 48, "quick": 16}[variant]
    modes = {"full": 12, "small": 8, "quick": 4}[variant]
    config.model = ml_collections.ConfigDict(
        {
            "name": "lsm_irregular",
            "in_channels": 4,  # two coordinates, source, boundary values
            "out_channels": 1,
            "latent_grid": (latent, latent),
            "modes": (modes, modes),
            "channels": {"full": 32, "small": 16, "quick": 8}[variant],
            "num_scales": 3 if quick else 5,
            "patches_per_axis": 4 if quick else 16,
            "num_heads": 8,
            "num_tokens": 4,
            "num_basis": 12,
            "basis": "official",
            "norm": "batch",
        }
    )
    config.loss = {"name": "relative_l2"}
    config.schedule.peak = 2e-3
    config.eval.baseline = ""
    if variant == "full":
        config.num_epochs, config.batch_size = 501, 20
        config.optimizer.update(b1=(0.9, 0.9), weight_decay=1e-4)
        config.schedule = common.halving(peak=5e-4)
    return config
