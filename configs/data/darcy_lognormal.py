r"""Darcy flow, log-normal permeability exp(U) (alpha 2, tau 3), 421 x 421 nodes.

The smooth companion of `darcy_smooth`: the same random field, exponentiated instead of
cut in two; the first case of the public script of Li et al. (2021, arXiv:2010.08895).
The coefficient varies by a factor of four as a rule (two to eleven) and has no jumps.

    uv run -m datagen generate --config configs/data/darcy_lognormal.py \
        --out data/darcy_lognormal

Variants: `:small` (129 x 129 nodes), `:quick` (33 x 33, for tests).
"""

import ml_collections

from configs import common


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    """Returns the data set; `small` takes a minute on a laptop, `quick` seconds."""
    return common.darcy_dataset(
        variant,
        name="darcy_lognormal",
        seed=2,
        n=421,
        coefficient="lognormal",
        alpha=2.0,
        tau=3.0,
    )
