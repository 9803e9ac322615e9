"""A residual network with attention, for pictures with many details and for conditions with parts."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import flax.linen as nn
import jax.numpy as jnp

from cvae_jax.networks.base import Network
from cvae_jax.nn.attention import CrossAttention, SelfAttention
from cvae_jax.nn.conditioning import AddCondition, Context
from cvae_jax.nn.conv import Downsample, Shape, require_image
from cvae_jax.nn.dense import Dense
from cvae_jax.nn.dropout import drop
from cvae_jax.nn.latent import FromLatents
from cvae_jax.nn.stride1 import Convolution
from cvae_jax.options import COUNT, static

if TYPE_CHECKING:
    from jax.typing import DTypeLike
    from jaxtyping import Array, Float

_LEAST_SIDE = 4
# Attention compares all pairs of pixels: at most so many pixels a side.
_ATTENTION_SIDE = 8
_HEAD_WIDTH = 32


@dataclasses.dataclass(frozen=True)
class ResNet(Network):
    """Residual blocks at each resolution down to 4 to 7 pixels a side, with attention at 8 pixels and below.

    Each block is normalized, then scaled and shifted by the condition. At 8 pixels a side and below, pixels attend to
    each other, and to the parts of the condition where it has parts, such as the words of a text.

    References:
      He et al., Deep Residual Learning for Image Recognition, 2016; Vahdat & Kautz, NVAE, 2020, section 3.2.
    """

    channels: int = static(
        48,
        bounds=COUNT,
        help="Channels at full resolution; each halving doubles them, up to four times as many.",
    )
    blocks: int = static(1, bounds=COUNT, help="Residual blocks at each resolution.")

    def require_shape(self, shape: tuple[int, ...]) -> None:
        """Refuse anything but images.

        Raises:
          DataError: naming the shape.
        """
        require_image(shape, "the network resnet (mlp takes any shape)")

    def encoder(self, shape: tuple[int, ...], dtype: DTypeLike) -> ResNetEncoder:
        """Blocks from full resolution down."""
        return ResNetEncoder(self.channels, self.blocks, dtype)

    def decoder(self, shape: tuple[int, ...], dtype: DTypeLike) -> ResNetDecoder:
        """Blocks up to full resolution."""
        return ResNetDecoder(require_image(shape, "the network resnet"), self.channels, self.blocks, dtype)


def resolutions(shape: Shape, channels: int) -> list[Shape]:
    """Height, width and channels at each resolution, the full one first.

    Example:
      >>> resolutions((28, 28, 1), 32)
      [(28, 28, 32), (14, 14, 64), (7, 7, 128)]
      >>> [height for height, _, _ in resolutions((32, 32, 3), 32)]
      [32, 16, 8, 4]
    """
    height, width, _ = shape
    sizes = [(height, width, channels)]
    while min(height, width) >= 2 * _LEAST_SIDE:
        height, width = -(-height // 2), -(-width // 2)
        sizes.append((height, width, min(channels * 2 ** len(sizes), 4 * channels)))
    return sizes


class ResidualBlock(nn.Module):
    """Normalize, scale and shift by the condition, convolve, mix the channels, and add to the input.

    Starts as the identity.
    """

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, h: Float[Array, "b h w f"], context: Context, layer: int) -> Float[Array, "b h w f"]:
        """Refine a batch of feature maps; `layer` is the number of its dropout."""
        normal = nn.LayerNorm(dtype=self.dtype)(h)
        inner = nn.silu(AddCondition(self.dtype)(normal, context._replace(film=True, maps=())))
        inner = nn.silu(Convolution(h.shape[-1], dtype=self.dtype)(inner))
        inner = drop(inner, context.dropout, layer)
        return h + _zero_dense(h.shape[-1], self.dtype)(inner)


class AttentionBlock(nn.Module):
    """Attention among pixels, then from pixels to the parts of the condition. Starts as the identity."""

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, h: Float[Array, "b h w f"], context: Context) -> Float[Array, "b h w f"]:
        """Mix the pixels of a batch of feature maps."""
        b, height, width, channels = h.shape
        heads = max(1, channels // _HEAD_WIDTH)
        place = self.param("positions", nn.initializers.normal(0.02), (height * width, channels))
        flat = h.reshape(b, -1, channels)
        mixed = SelfAttention(heads, self.dtype)(
            flat + place.astype(self.dtype), jnp.ones(flat.shape[:2], bool)
        )
        flat = flat + _zero_dense(channels, self.dtype)(mixed)
        if context.tokens:
            mixed = CrossAttention(heads, self.dtype)(flat + place.astype(self.dtype), context.tokens)
            flat = flat + _zero_dense(channels, self.dtype)(mixed)
        return flat.reshape(h.shape)


class ResNetEncoder(nn.Module):
    """Residual blocks, halving the resolution between them."""

    channels: int
    blocks: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b H W C"], context: Context) -> Float[Array, "b f"]:
        """Features of a batch of images."""
        sizes = resolutions((x.shape[1], x.shape[2], x.shape[3]), self.channels)
        h = Convolution(self.channels, dtype=self.dtype)(x)
        for i, (height, _, channels) in enumerate(sizes):
            if i:
                h = Downsample(channels, self.dtype)(h)
            h = _stage(h, context, i * self.blocks, self.blocks, height, self.dtype)
        return nn.silu(nn.LayerNorm(dtype=self.dtype)(h)).reshape(h.shape[0], -1)


class ResNetDecoder(nn.Module):
    """Residual blocks, doubling the resolution between them.

    Attributes:
      shape: of the output.
    """

    shape: Shape
    channels: int
    blocks: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, z: Float[Array, "b z"], context: Context) -> Float[Array, "b H W C"]:
        """Parameters of p(x|z,c) for a batch of latents."""
        sizes = resolutions(self.shape, self.channels)[::-1]
        h = FromLatents(math.prod(sizes[0]))(z, context.latent_mask).astype(self.dtype)
        h = AddCondition(self.dtype)(h, context._replace(maps=())).reshape(-1, *sizes[0])
        for i, (height, width, channels) in enumerate(sizes):
            if i:
                h = Dense(channels, dtype=self.dtype)(h)
                h = jnp.repeat(jnp.repeat(h, 2, axis=1), 2, axis=2)[:, :height, :width]
            h = _stage(h, context, i * self.blocks, self.blocks, height, self.dtype)
        return Convolution(self.shape[2], dtype=self.dtype)(nn.silu(nn.LayerNorm(dtype=self.dtype)(h)))


def _stage(h: Array, context: Context, layer: int, blocks: int, side: int, dtype: DTypeLike) -> Array:
    """The blocks at one resolution."""
    for i in range(blocks):
        h = ResidualBlock(dtype)(h, context, layer + i)
        if side <= _ATTENTION_SIDE:
            h = AttentionBlock(dtype)(h, context)
    return h


def _zero_dense(features: int, dtype: DTypeLike) -> Dense:
    """A dense layer that starts at zero."""
    return Dense(features, dtype=dtype, initializer=nn.initializers.zeros)
