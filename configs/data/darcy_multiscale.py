r"""Darcy flow, multiscale trigonometric coefficient of 6 scales, 1025 x 1025 nodes.

After the set of the MgNO paper (He et al. 2024, arXiv:2310.19809): 1000/100/100 samples
of 1023 x 1023 interior nodes, of which models see every fourth. Here the boundary is
stored too, so that stride 4 gives 257 x 257 with both edges. About 8.4 MB a sample.

    uv run -m datagen generate --config configs/data/darcy_multiscale.py \
        --out data/darcy_multiscale

The fixed coefficient it derives from: `--config.problem.coefficient=original`.

Variants: `:small` (257 x 257 nodes), `:quick` (33 x 33, for tests); neither resolves
the finest scale (docs/data.md).
"""

import ml_collections

from configs import common

# Per variant: nodes per axis, samples per split, samples per file.
VARIANTS = {
    "full": (1025, (1000, 100, 100), 64),
    "small": (257, (1000, 100, 100), 64),
    "quick": (33, (48, 8, 8), 16),
}


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    """Returns the data set; `small` takes minutes on a laptop, `quick` seconds."""
    common.check_variant(variant)
    n, num, shard_size = VARIANTS[variant]
    return common.dataset(
        "darcy_multiscale",
        seed=45,
        num=num,
        shard_size=shard_size,
        problem={
            "name": "darcy_multiscale",
            "n": n,
            "coefficient": "randomised",
            "num_scales": 6,
            "elements": "triangles",
            "forcing": 1.0,
        },
        solver=common.solver(),
    )
