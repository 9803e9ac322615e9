"""Numbers as condition: attributes, or an embedding from another model."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Self

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from cvae_jax.conditions.base import Condition, require_finite
from cvae_jax.errors import DataError
from cvae_jax.nn.dense import Dense
from cvae_jax.nn.embedding import Embedding

if TYPE_CHECKING:
    from jax.typing import DTypeLike
    from jaxtyping import Array, Float, Num


@dataclasses.dataclass(frozen=True)
class Vector(Condition):
    """Attributes, or an embedding from another model. c has shape (n, size), float32, standardized.

    Attributes:
      size: numbers per example, 0 for as many as the data have.

    Example:
      >>> Vector().of_data(np.array([[0.0, 1.0], [2.0, 3.0]]))[0]
      Vector(size=2)
    """

    size: int = 0

    @property
    def features(self) -> int:
        """Size of the embedding."""
        return VectorEncoder.features

    def of_data(self, raw: Num[np.ndarray, "n k"]) -> tuple[Self, Float[np.ndarray, "n k"]]:
        """The condition with its size, and the numbers in float64. They are not standardized here.

        Args:
          raw: numbers, shape (n, k) or (n,).

        Raises:
          DataError: if they are no such numbers.
        """
        numbers = raw[:, None] if raw.ndim == 1 else raw
        if numbers.ndim != 2 or not numbers.shape[1] or numbers.dtype.kind not in "fiub":
            hint = (
                " (strings are taken by --condition=label or --condition=text)"
                if raw.dtype.kind in "US"
                else ""
            )
            raise DataError(
                f"the vector is {raw.dtype} of shape {raw.shape}, expected numbers of shape (n, k){hint}"
            )
        size = numbers.shape[1]
        if self.size not in (0, size):
            raise DataError(f"the vector has {size} numbers, expected {self.size}")
        # In full precision until they are standardized: a large mean would cost float32 its digits.
        numbers = require_finite(numbers.astype(np.float64), "the vector")
        return dataclasses.replace(self, size=size), numbers

    def blank(self, n: int) -> Float[np.ndarray, "n k"]:
        """n vectors of zeros."""
        return np.zeros((n, self.size), np.float32)

    def encoder(self, dtype: DTypeLike) -> VectorEncoder:
        """Two dense layers."""
        return VectorEncoder(dtype=dtype)


class VectorEncoder(nn.Module):
    """Two dense layers over a standardized vector."""

    features: int = 128
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, c: Float[Array, "b k"]) -> Embedding:
        """Embed a batch of vectors."""
        h = nn.silu(Dense(self.features, dtype=self.dtype)(c.astype(self.dtype)))
        return Embedding(Dense(self.features, dtype=self.dtype)(h))
