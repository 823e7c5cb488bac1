r"""Darcy flow, two phases 12 and 3, smooth set (alpha 2, tau 3), 421 x 421 nodes.

The random field, the values and the size are those of the data set of Li et al. (2021,
arXiv:2010.08895); the coefficient is drawn at the nodes and the scheme is `clean`, so
errors must not be compared with published ones (docs/data.md says how to make the
published kind). `small` has 2^7 + 1 nodes: every second and fourth node nest.

    uv run -m datagen generate --config configs/data/darcy_smooth.py \
        --out data/darcy_smooth

Variants: `:small` (129 x 129 nodes), `:quick` (33 x 33, for tests).
"""

import ml_collections

from configs import common


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    """Returns the data set; `small` takes a minute on a laptop, `quick` seconds."""
    return common.darcy_dataset(
        variant,
        name="darcy_smooth",
        seed=0,
        n=421,
        coefficient="two_phase",
        alpha=2.0,
        tau=3.0,
        values=(12.0, 3.0),
    )
