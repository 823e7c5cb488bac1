"""Batch order as a pure function of (seed, epoch), and batches over devices."""

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


def epoch_order(seed: int, epoch: int, num_samples: int, batch_size: int) -> np.ndarray:
    """Sample indices of one epoch, int32 [steps, batch].

    Depends on nothing but its arguments, so a resumed run draws the same batches
    without any iterator state. With num_samples not a multiple of batch_size, another
    random remainder is left out in each epoch.
    """
    stream = np.random.SeedSequence(seed, spawn_key=(epoch,))
    order = np.random.Generator(np.random.Philox(stream)).permutation(num_samples)
    steps = steps_per_epoch(num_samples, batch_size)
    return order[: steps * batch_size].reshape(steps, batch_size).astype(np.int32)
