"""Spread a population over devices: a mesh of axes `member` and `batch`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

if TYPE_CHECKING:
    from jaxtyping import PyTree

Tree = TypeVar("Tree", bound="PyTree")


def make_mesh(num_members: int, batch_size: int, devices: Sequence[Any] | None = None) -> Mesh:
    """Spread members over the devices. If devices are left over, they split each batch.

    Args:
      num_members: of the population.
      batch_size: examples per step.
      devices: all that JAX sees if None.

    Returns:
      A mesh of axes `member` and `batch`; devices that neither can use are left out.
    """
    devices = jax.devices() if devices is None else devices
    over_members = min(num_members, len(devices))
    over_batch = len(devices) // over_members
    while batch_size % over_batch:
        over_batch -= 1
    used = np.array(devices[: over_members * over_batch], dtype=object)
    return Mesh(used.reshape(over_members, over_batch), ("member", "batch"))


def padded(num_members: int, mesh: Mesh) -> int:
    """The number of members, rounded up to a multiple of the mesh's `member` axis."""
    size = mesh.shape["member"]
    return -(-num_members // size) * size


def by_member(tree: Tree, mesh: Mesh) -> Tree:
    """Shard every array's leading axis over `member`; scalars are replicated."""

    def place(leaf: jax.Array) -> jax.Array:
        spec = PartitionSpec("member") if leaf.ndim else PartitionSpec()
        return jax.device_put(leaf, NamedSharding(mesh, spec))

    return jax.tree.map(place, tree)


def replicated(tree: Tree, mesh: Mesh) -> Tree:
    """Copy every array to every device."""
    return jax.tree.map(lambda leaf: jax.device_put(leaf, NamedSharding(mesh, PartitionSpec())), tree)


def by_batch(mesh: Mesh) -> NamedSharding | None:
    """The sharding of a batch over the axis `batch`; None if the batch is not split."""
    return NamedSharding(mesh, PartitionSpec("batch")) if mesh.shape["batch"] > 1 else None
