"""Dense layers over the flattened image."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import flax.linen as nn
import jax.numpy as jnp

from cvae_jax.config import ActivationName
from cvae_jax.nn.conditioning import AddCondition, Context
from cvae_jax.nn.conv import Shape
from cvae_jax.nn.dense import Dense
from cvae_jax.nn.dropout import Dropout, drop
from cvae_jax.nn.latent import FromLatents

if TYPE_CHECKING:
    from jax.typing import DTypeLike
    from jaxtyping import Array, Bool, Float

ACTIVATIONS = {"silu": nn.silu, "tanh": nn.tanh}


class MLPEncoder(nn.Module):
    """Dense layers over the flattened image.

    Attributes:
      hidden: their widths.
      activation: after each of them.
      dtype: of the matrix products.
    """

    hidden: tuple[int, ...]
    activation: ActivationName
    dtype: DTypeLike = jnp.float32
    dropout: Dropout | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b H W C"], context: Context) -> Float[Array, "b f"]:
        """Features of a batch of images."""
        h = x.reshape(x.shape[0], -1)
        for layer, width in enumerate(self.hidden):
            h = Dense(width, dtype=self.dtype)(h)
            h = ACTIVATIONS[self.activation](AddCondition(self.dtype)(h, context))
            h = drop(h, self.dropout, layer)
        return h


class MLPDecoder(nn.Module):
    """Dense layers from latents to the flattened image.

    Attributes:
      shape: of the image.
      hidden: widths of the encoder's layers, here from the last to the first.
      activation: after each of them.
      dtype: of the matrix products.
    """

    shape: Shape
    hidden: tuple[int, ...]
    activation: ActivationName
    dtype: DTypeLike = jnp.float32
    dropout: Dropout | None = None

    @nn.compact
    def __call__(
        self, z: Float[Array, "b z"], context: Context, latent_mask: Bool[Array, " z"]
    ) -> Float[Array, "b H W C"]:
        """Parameters of p(x|z,c) for a batch of latents."""
        activation = ACTIVATIONS[self.activation]
        first, *rest = reversed(self.hidden)
        h = FromLatents(first)(z, latent_mask).astype(self.dtype)
        h = drop(activation(AddCondition(self.dtype)(h, context)), self.dropout, 0)
        for layer, width in enumerate(rest, 1):
            h = Dense(width, dtype=self.dtype)(h)
            h = drop(activation(AddCondition(self.dtype)(h, context)), self.dropout, layer)
        h = Dense(math.prod(self.shape), dtype=self.dtype)(h)
        return h.reshape(-1, *self.shape)
