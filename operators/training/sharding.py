"""Data-parallel layout: one mesh axis `data` over all devices."""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def data_mesh(num_devices: int, batch_size: int) -> Mesh:
    """Mesh with the one axis `data`.

    Args:
        num_devices: devices to use; 0 means all of them.
        batch_size: global batch size, which the devices share evenly.

    Raises:
        ValueError: for a negative number, more than there are, or a batch that does
            not divide evenly.
    """
    devices = jax.devices()
    if num_devices < 0:
        raise ValueError(
            f"config.num_devices is {num_devices}; expected at least 0: set the number "
            "of devices, or 0 for all"
        )
    num_devices = num_devices or len(devices)
    if num_devices > len(devices):
        raise ValueError(
            f"config.num_devices is {num_devices}, but JAX sees {len(devices)} "
            f"{devices[0].platform} devices: lower it, or set 0 for all"
        )
    if batch_size % num_devices:
        fitting = max(1, round(batch_size / num_devices)) * num_devices
        raise ValueError(
            f"config.batch_size is {batch_size}, which {num_devices} devices cannot "
            f"share evenly: set --config.batch_size={fitting} or --config.num_devices"
        )
    return Mesh(np.array(devices[:num_devices]), ("data",))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split_batch(mesh: Mesh) -> NamedSharding:
    """The leading (batch) axis divided over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))
