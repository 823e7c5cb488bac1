"""U-Net on smooth two-phase Darcy flow: LSM's backbone alone, beside `lsm_darcy`.

Data, loss, optimiser and schedule are those of `lsm_darcy`; the model is the same
without its spectral blocks, which hold a tenth of the parameters, so that the
difference between the two is theirs. Published for another U-Net on the authors' data:
0.80 % (table of arXiv:2301.12664). Not run here yet.

    python train.py --config configs/unet_darcy.py
    python train.py --config configs/unet_darcy.py:small
"""

import ml_collections

from configs import common, lsm_darcy


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    """Returns the experiment: `full`, `small` or `quick`."""
    common.check_variant(variant)
    config = lsm_darcy.get_config(variant)
    config.model = ml_collections.ConfigDict(
        {
            "name": "unet",
            "in_channels": 1,
            "out_channels": 1,
            "num_axes": 2,
            "channels": config.model.channels,
            "num_scales": config.model.num_scales,
            "norm": "batch",
        }
    )
    return config
