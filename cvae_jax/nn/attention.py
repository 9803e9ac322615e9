"""Attention."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import flax.linen as nn
import jax
import jax.numpy as jnp

from cvae_jax.nn.dense import Dense
from cvae_jax.nn.embedding import Tokens

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


class CrossAttention(nn.Module):
    """Multi-head attention from positions to the parts of conditions.

    Positions get nothing where no part is present.

    Attributes:
      heads: they divide the features of a position.
      dtype: of the matrix products.

    References:
      Rombach et al., High-Resolution Image Synthesis with Latent Diffusion Models, 2022, section 3.3.
    """

    heads: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, h: Float[Array, "b n f"], tokens: tuple[Tokens, ...]) -> Float[Array, "b n f"]:
        """What a batch of positions takes from the tokens of all conditions."""
        b, positions, width = h.shape
        query = Dense(width, dtype=self.dtype)(nn.LayerNorm(dtype=self.dtype)(h))
        mixed = []
        for i, each in enumerate(tokens):
            place = self.param(f"positions_{i}", nn.initializers.normal(0.02), each.values.shape[1:])
            values = nn.LayerNorm(dtype=self.dtype)(each.values) + place.astype(self.dtype)
            mixed.append(Dense(2 * width, dtype=self.dtype)(values))
        both = jnp.concatenate(mixed, axis=1).reshape(b, -1, 2, self.heads, width // self.heads)
        present = jnp.concatenate([each.present for each in tokens], axis=1)
        query = query.reshape(b, positions, self.heads, -1)
        scores = jnp.einsum("bqhf,bkhf->bhqk", query, both[:, :, 0]).astype(jnp.float32)
        scores = jnp.where(present[:, None, None] > 0, scores / math.sqrt(width // self.heads), -1e9)
        weights = jax.nn.softmax(scores, axis=-1) * present[:, None, None]
        out = jnp.einsum("bhqk,bkhf->bqhf", weights.astype(self.dtype), both[:, :, 1])
        return Dense(width, dtype=self.dtype, use_bias=False)(out.reshape(b, positions, width))
