"""Apply a function to a dataset, one batch of rows after another."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    from jaxtyping import Array, Int


def in_batches(function: Callable[[Array], Any], rows: Int[Array, " n"], size: int) -> Any:
    """Apply a function to batches of rows in one compiled loop, and concatenate the results.

    Args:
      function: from rows of shape (b,) to a pytree of arrays with a leading axis b.
      rows: shape (n,), integer.
      size: b. The last batch is padded by repeating its last row, and the results of the padding are dropped.

    Returns:
      The pytree, every array with a leading axis n.

    Example:
      >>> in_batches(lambda rows: 2 * rows, jnp.arange(5), 2).tolist()
      [0, 2, 4, 6, 8]
    """
    n = rows.shape[0]
    size = min(size, n)
    padded = jnp.pad(rows, (0, -n % size), mode="edge").reshape(-1, size)
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:n], jax.lax.map(function, padded))
