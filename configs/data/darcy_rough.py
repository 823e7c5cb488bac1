r"""Darcy flow, two phases 12 and 2, rough set (alpha 2, tau 5), 513 x 513 nodes.

After the set of the MgNO paper (He et al. 2024, arXiv:2310.19809), whose script works
on 512 cell centres and keeps every second one. Here the points are nodes: 513 of them,
so that training on every second one sees 257 x 257 with both edges.

    uv run -m datagen generate --config configs/data/darcy_rough.py \
        --out data/darcy_rough

Variants: `:small` (129 x 129 nodes), `:quick` (33 x 33, for tests).
"""

import ml_collections

from configs import common


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    """Returns the data set; `small` takes a minute on a laptop, `quick` seconds."""
    return common.darcy_dataset(
        variant,
        name="darcy_rough",
        seed=1,
        n=513,
        coefficient="two_phase",
        alpha=2.0,
        tau=5.0,
        values=(12.0, 2.0),
    )
