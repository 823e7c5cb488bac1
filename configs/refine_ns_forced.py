"""Refines the SFNO on forced flow, 40 frames (Cao et al. 2025).

For a run of `configs/sfno_ns_forced.py` of the same variant. The output operator gets
all modes inside the 2/3 mask and 11 waves in time instead of 5: so few would leave an
error of 1e-3 whatever the minimiser does.

    python -m operators.training.refine --workdir runs/sfno_ns_forced \
        --config configs/refine_ns_forced.py

`:small` refines 4 trajectories of 20 frames on 64 x 64 points in minutes, `:quick` 2
of 10 frames on 32 x 32.
"""

import ml_collections

from configs import common, refinement


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    """Returns the experiment: `full`, `small` or `quick`."""
    common.check_variant(variant)
    config = refinement.refinement(
        "ns_forced",
        variant,
        num={"full": 16, "small": 4, "quick": 2}[variant],
        window_start={"full": 30, "small": 20, "quick": 10}[variant],
        substeps={"full": 10, "small": 4, "quick": 2}[variant],
        time_modes=11,
        reduction=1e-4,
    )
    config.batch_size = 1 if variant == "full" else 2
    if variant == "quick":
        config.minimizers = ("gauss_newton", "linearized_flow")
    return config
