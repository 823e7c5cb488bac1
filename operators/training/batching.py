"""Batch order and starts of windows as pure functions of (seed, epoch)."""

import numpy as np


def steps_per_epoch(num_samples: int, batch_size: int) -> int:
    """Full batches per epoch; the rest of a shuffled epoch is left out.

    Raises:
        ValueError: if one batch needs more samples than there are.
    """
    if not 1 <= batch_size <= num_samples:
        raise ValueError(
            f"config.batch_size is {batch_size}, but there are {num_samples} training "
            f"samples: set --config.batch_size to 1 ... {num_samples}"
        )
    return num_samples // batch_size


def epoch_order(
    seed: int, epoch: int, num_samples: int, batch_size: int, num_starts: int = 0
) -> np.ndarray:
    """What the batches of one epoch are made of.

    Depends on nothing but its arguments, so a resumed run draws the same batches
    without any iterator state. With num_samples not a multiple of batch_size, another
    random remainder is left out in each epoch.

    Args:
        seed: of the run.
        epoch: from 0.
        num_samples: in the training split.
        batch_size: over all devices.
        num_starts: frames at which windows of trajectories can start; every sample of
            an epoch has one of them, whatever the batch size. 0: no windows.

    Returns:
        Sample indices, int32 [steps, batch], or with windows [steps, batch, 2], pairs
        of sample and start.
    """
    draw = _generator(seed, epoch)
    order = draw.permutation(num_samples)
    steps = steps_per_epoch(num_samples, batch_size)
    order = order[: steps * batch_size].reshape(steps, batch_size)
    if num_starts:
        starts = _generator(seed, epoch, 1).integers(num_starts, size=num_samples)
        order = np.stack([order, starts[order]], axis=-1)
    return order.astype(np.int32)


def samples_of(order: np.ndarray) -> np.ndarray:
    """Sample indices [steps, batch] of what `epoch_order` returned, or of parts."""
    return order[..., 0] if order.ndim == 3 else order


def _generator(seed: int, *key: int) -> np.random.Generator:
    stream = np.random.SeedSequence(seed, spawn_key=key)
    return np.random.Generator(np.random.Philox(stream))
