"""A split on the device."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from flax import struct

from cvae_jax.data.dataset import Split

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, Num, PyTree


@struct.dataclass
class Examples:
    """A split on the device.

    Attributes:
      x: pixels from 0 to x_max, shape (n, *dims).
      c: conditions, with a leading axis n.
      x_max: the value of x that stands for 1, scalar float32.
    """

    x: Num[Array, " n *dims"]
    c: PyTree
    x_max: Float[Array, ""]

    def __len__(self) -> int:
        """Number of examples."""
        return self.x.shape[0]

    def take(self, rows: Int[Array, " b"]) -> tuple[Float[Array, " b *dims"], PyTree]:
        """The examples of the given rows, pixels as float32 between 0 and 1."""
        c = jax.tree.map(lambda a: a[rows], self.c)
        return self.x[rows].astype(jnp.float32) / self.x_max, c


def on_device(split: Split, x_max: float) -> Examples:
    """Put a split on the device, pixels in the type they are stored in."""
    return Examples(jnp.asarray(split.x), jax.tree.map(jnp.asarray, split.c), jnp.float32(x_max))
