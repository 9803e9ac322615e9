"""Stride-2 convolutions and their transposes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import flax.linen as nn
import jax.numpy as jnp

from cvae_jax.conditions.places import TextMap
from cvae_jax.nn.conditioning import AddCondition, Context
from cvae_jax.nn.conv import Downsample, Shape, Upsample, pyramid
from cvae_jax.nn.dense import Dense
from cvae_jax.nn.dropout import Dropout, drop
from cvae_jax.nn.latent import FromLatents

if TYPE_CHECKING:
    from jax.typing import DTypeLike
    from jaxtyping import Array, Bool, Float


class PointwiseBlock(nn.Module):
    """A residual two-layer network applied at every position, layer 0 of its body's dropout."""

    dtype: DTypeLike = jnp.float32
    dropout: Dropout | None = None

    @nn.compact
    def __call__(self, h: Float[Array, "b h w f"], context: Context) -> Float[Array, "b h w f"]:
        """Refine a batch of feature maps."""
        inner = Dense(2 * h.shape[-1], dtype=self.dtype)(h)
        inner = drop(nn.silu(AddCondition(self.dtype)(inner, context)), self.dropout, 0)
        return h + Dense(h.shape[-1], dtype=self.dtype)(inner)


class ConvEncoder(nn.Module):
    """Stride-2 convolutions up the pyramid, then a pointwise block."""

    dtype: DTypeLike = jnp.float32
    dropout: Dropout | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b H W C"], context: Context) -> Float[Array, "b f"]:
        """Features of a batch of images."""
        h = x
        stages = pyramid((x.shape[1], x.shape[2], x.shape[3]))[1:]
        for layer, (_, _, channels) in enumerate(stages, 1):
            h = Downsample(channels, self.dtype)(h)
            h = drop(nn.silu(AddCondition(self.dtype)(h, context)), self.dropout, layer)
        h = PointwiseBlock(self.dtype, self.dropout)(h, context)
        return h.reshape(h.shape[0], -1)


class ConvDecoder(nn.Module):
    """A pointwise block, then stride-2 transposed convolutions down the pyramid.

    Attributes:
      shape: of the image.
      dtype: of the matrix products.
      text_map: what turns the words of a condition, and z, to a map of the pyramid's top.
    """

    shape: Shape
    dtype: DTypeLike = jnp.float32
    dropout: Dropout | None = None
    text_map: TextMap | None = None

    @nn.compact
    def __call__(
        self, z: Float[Array, "b z"], context: Context, latent_mask: Bool[Array, " z"]
    ) -> Float[Array, "b H W C"]:
        """Parameters of p(x|z,c) for a batch of latents."""
        *below, top = pyramid(self.shape)
        if context.words is not None and self.text_map is not None:
            stamped = self.text_map(context.words, z, latent_mask)
            context = context._replace(maps=(*context.maps, stamped))
        if context.words is not None and context.e is None:
            # The words' map alone says what is where: z, the same everywhere, says how it looks.
            h = FromLatents(top[-1])(z, latent_mask).astype(self.dtype)
            h = jnp.broadcast_to(h[:, None, None], (len(h), *top))
        else:
            h = FromLatents(math.prod(top))(z, latent_mask).astype(self.dtype)
        h = nn.silu(AddCondition(self.dtype)(h, context))
        h = drop(h.reshape(-1, *top), self.dropout, 1)
        h = PointwiseBlock(self.dtype, self.dropout)(h, context)
        for layer, (height, width, channels) in enumerate(reversed(below[1:]), 2):
            h = Upsample(channels, self.dtype)(h)[:, :height, :width]
            h = drop(nn.silu(AddCondition(self.dtype)(h, context)), self.dropout, layer)
        height, width, channels = self.shape
        return Upsample(channels, self.dtype)(h)[:, :height, :width]
