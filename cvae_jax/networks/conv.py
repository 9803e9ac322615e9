"""Stride-2 convolutions and their transposes."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import flax.linen as nn
import jax.numpy as jnp

from cvae_jax.networks.base import Network
from cvae_jax.nn.conditioning import AddCondition, Context
from cvae_jax.nn.conv import Downsample, Shape, Upsample, pyramid, require_image
from cvae_jax.nn.dense import Dense
from cvae_jax.nn.dropout import drop
from cvae_jax.nn.latent import FromLatents

if TYPE_CHECKING:
    from jax.typing import DTypeLike
    from jaxtyping import Array, Float


@dataclasses.dataclass(frozen=True)
class Conv(Network):
    """Stride-2 convolutions to at most 8 pixels a side, at least two of them, and their transposes.

    Example:
      >>> import jax
      >>> encoder = Conv().encoder((8, 8, 1), jnp.float32)
      >>> features, _ = encoder.init_with_output(jax.random.key(0), jnp.zeros((5, 8, 8, 1)), Context(None))
      >>> features.shape
      (5, 256)
    """

    def require_shape(self, shape: tuple[int, ...]) -> None:
        """Refuse anything but images of at least 4 pixels a side.

        Raises:
          DataError: naming the shape.
        """
        require_image(shape, "the network conv (mlp takes any shape)")

    def encoder(self, shape: tuple[int, ...], dtype: DTypeLike) -> ConvEncoder:
        """Convolutions, then a pointwise block."""
        return ConvEncoder(dtype)

    def decoder(self, shape: tuple[int, ...], dtype: DTypeLike) -> ConvDecoder:
        """A pointwise block, then transposed convolutions."""
        return ConvDecoder(require_image(shape, "the network conv"), dtype)


class PointwiseBlock(nn.Module):
    """A residual two-layer network applied at every position, layer 0 of its body's dropout."""

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, h: Float[Array, "b h w f"], context: Context) -> Float[Array, "b h w f"]:
        """Refine a batch of feature maps."""
        inner = Dense(2 * h.shape[-1], dtype=self.dtype)(h)
        inner = drop(nn.silu(AddCondition(self.dtype)(inner, context)), context.dropout, 0)
        return h + Dense(h.shape[-1], dtype=self.dtype)(inner)


class ConvEncoder(nn.Module):
    """Stride-2 convolutions up the pyramid, then a pointwise block."""

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b H W C"], context: Context) -> Float[Array, "b f"]:
        """Features of a batch of images."""
        h = x
        stages = pyramid((x.shape[1], x.shape[2], x.shape[3]))[1:]
        for layer, (_, _, channels) in enumerate(stages, 1):
            h = Downsample(channels, self.dtype)(h)
            h = drop(nn.silu(AddCondition(self.dtype)(h, context)), context.dropout, layer)
        h = PointwiseBlock(self.dtype)(h, context)
        return h.reshape(h.shape[0], -1)


class ConvDecoder(nn.Module):
    """A pointwise block, then stride-2 transposed convolutions down the pyramid.

    Attributes:
      shape: of the image.
      dtype: of the matrix products.
    """

    shape: Shape
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, z: Float[Array, "b z"], context: Context) -> Float[Array, "b H W C"]:
        """Parameters of p(x|z,c) for a batch of latents."""
        *below, top = pyramid(self.shape)
        h = nn.silu(AddCondition(self.dtype)(self.first_map(z, context, top), context))
        h = drop(h.reshape(-1, *top), context.dropout, 1)
        h = PointwiseBlock(self.dtype)(h, context)
        for layer, (height, width, channels) in enumerate(reversed(below[1:]), 2):
            h = Upsample(channels, self.dtype)(h)[:, :height, :width]
            h = drop(nn.silu(AddCondition(self.dtype)(h, context)), context.dropout, layer)
        height, width, channels = self.shape
        return Upsample(channels, self.dtype)(h)[:, :height, :width]

    def first_map(self, z: Float[Array, "b z"], context: Context, shape: Shape) -> Float[Array, "b *hw f"]:
        """The pyramid's top, of this shape, flat or as a map; for decoders that make it otherwise."""
        return FromLatents(math.prod(shape))(z, context.latent_mask).astype(self.dtype)
