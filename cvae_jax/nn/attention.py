"""Attention."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import flax.linen as nn
import jax
import jax.numpy as jnp

from cvae_jax.nn.dense import Dense

if TYPE_CHECKING:
    from jax.typing import DTypeLike
    from jaxtyping import Array, Float


class SelfAttention(nn.Module):
    """Multi-head attention among the positions that are present, layer-normalized at its entry."""

    heads: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, h: Float[Array, "b l f"], present: Array) -> Float[Array, "b l f"]:
        """Mix a batch of sequences."""
        b, length, width = h.shape
        each = width // self.heads
        mixed = Dense(3 * width, dtype=self.dtype)(nn.LayerNorm(dtype=self.dtype)(h))
        query, key, value = jnp.moveaxis(mixed.reshape(b, length, 3, self.heads, each), 2, 0)
        scores = jnp.einsum("bqhf,bkhf->bhqk", query, key).astype(jnp.float32) / math.sqrt(each)
        # A large number rather than infinity: a text of no bytes has no position to attend to.
        scores = jnp.where(present[:, None, None], scores, -1e9)
        weights = jax.nn.softmax(scores, axis=-1).astype(self.dtype)
        return Dense(width, dtype=self.dtype)(
            jnp.einsum("bhqk,bkhf->bqhf", weights, value).reshape(b, length, width)
        )
