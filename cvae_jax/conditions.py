"""From a raw condition to an embedding that encoder and decoder share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import flax.linen as nn
import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int


class LabelEmbedding(nn.Module):
    """A learned vector per class.

    Attributes:
      num_classes: labels run from 0 to num_classes − 1.
      features: size of the embedding.
    """

    num_classes: int
    features: int = 32

    @nn.compact
    def __call__(self, c: Int[Array, " b"] | Float[Array, "b k"]) -> Float[Array, "b e"]:
        """Look up a batch of labels, or average the vectors by a batch of weights over the classes."""
        table = self.param("table", nn.initializers.normal(1.0), (self.num_classes, self.features))
        # A product rather than a gather: its gradient is a product too, not a scatter, and so repeats bit for bit.
        weights = jax.nn.one_hot(c, self.num_classes, dtype=jnp.float32) if c.ndim == 1 else c
        return weights @ table
