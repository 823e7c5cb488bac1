"""Sections that the experiments share."""

import ml_collections

VARIANTS = ("full", "small", "quick")


def check_variant(variant: str) -> None:
    """Raises a ValueError that lists the variants for an unknown one."""
    if variant not in VARIANTS:
        raise ValueError(f"unknown variant {variant!r}; known: {', '.join(VARIANTS)}")


def darcy_smooth(variant: str) -> ml_collections.ConfigDict:
    """`config.data` for smooth two-phase Darcy flow.

    The full set is stored on 421 x 421 nodes and read with stride 2 (211 x 211).
    """
    suffix = "" if variant == "full" else f":{variant}"
    num = {"full": (1000, 100, 100), "small": (1000, 100, 100), "quick": (48, 8, 8)}
    num_train, num_valid, num_test = num[variant]
    return ml_collections.ConfigDict(
        {
            "config": f"configs/data/darcy_smooth.py{suffix}",
            "path": "",
            "inputs": ("coefficient",),
            "outputs": ("solution",),
            "num_train": num_train,
            "num_valid": num_valid,
            "num_test": num_test,
            "stride": 1 if variant == "quick" else 2,
        }
    )


def housekeeping(config: ml_collections.ConfigDict) -> None:
    """Adds evaluation, logging, checkpoint and device settings."""
    config.eval = {"every_epochs": 1, "batch_size": 20, "baseline": ""}
    config.log = {"every_steps": 50, "tensorboard": True}
    config.checkpoint = {"every_epochs": 1, "keep": 2}
    config.num_devices = 0  # 0: all
