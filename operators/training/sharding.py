"""Data-parallel layout: one mesh axis `data` over all devices of all processes."""

import os

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

SLURM_VARIABLES = (
    "SLURM_STEP_NODELIST",
    "SLURM_NTASKS",
    "SLURM_PROCID",
    "SLURM_LOCALID",
)


def initialize_distributed(requested: bool) -> None:
    """Joins the other processes of the job; call it before any other JAX call.

    Under `srun` with several tasks it happens by itself; elsewhere only on request,
    with the coordinator taken from the environment as `jax.distributed` documents.

    Args:
        requested: initialise although SLURM's variables are not all set.
    """
    slurm = all(name in os.environ for name in SLURM_VARIABLES)
    if requested or (slurm and int(os.environ["SLURM_NTASKS"]) > 1):
        jax.distributed.initialize()


def data_mesh(num_devices: int, batch_size: int) -> Mesh:
    """Mesh with the one axis `data`.

    Args:
        num_devices: devices to use; 0 means all of them.
        batch_size: global batch size, which the devices share evenly.

    Raises:
        ValueError: if there are fewer devices, or the batch does not divide evenly.
    """
    devices = jax.devices()
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
