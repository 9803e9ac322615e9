"""Encoder and decoder bodies: `mlp` and `conv`, each conditioned at every layer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from cvae_jax.config import ActivationName
from cvae_jax.nn.conv import Downsample, Upsample
from cvae_jax.nn.dense import Dense, matmul
from cvae_jax.nn.dropout import Dropout, drop
from cvae_jax.nn.embedding import ByClass, Words
from cvae_jax.nn.latent import FromLatents

if TYPE_CHECKING:
    from jax.typing import DTypeLike
    from jaxtyping import Array, Bool, Float

    from cvae_jax.conditions.places import TextMap

ACTIVATIONS = {"silu": nn.silu, "tanh": nn.tanh}
MAX_CHANNELS = 128
Shape = tuple[int, int, int]


class Context(NamedTuple):
    """What every layer of both bodies is told beside its input.

    Attributes:
      e: embedding of the condition, shape (b, e), or the table that it is made of, or None without one.
      maps: features of an image that is the condition, each of shape (b, h, w, f).
      words: of a text that is the condition, which a convolutional decoder puts in their places.
      film: whether they scale each channel, too.
      log_beta: the β that a multi-rate model is at, a scalar or shape (b,), or None for any other model.
    """

    e: Float[Array, "b e"] | ByClass | None
    maps: tuple[Float[Array, "b h w f"], ...] = ()
    words: Words | None = None
    film: bool = False
    log_beta: Float[Array, "*b"] | None = None


class AddCondition(nn.Module):
    """Add a learned term of the condition to each channel, and gate each by β where a model is told one.

    By linearity the sum equals concatenating the condition to a layer's input, without the planes it would take; that
    of a feature map of the same size equals concatenating the map. With `film` they scale each channel too.
    The gate is 2σ(w log β + v) per channel, 1 before training.

    References:
      Perez et al., FiLM: Visual Reasoning with a General Conditioning Layer, 2018, equation 2, of the scale.
      Bae et al., Multi-Rate VAE: Train Once, Get the Full Rate-Distortion Curve, 2022, equation 5, of the gate.
    """

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, h: Float[Array, "b *hw f"], context: Context) -> Float[Array, "b *hw f"]:
        """Condition a batch of activations."""
        if context.e is not None:
            h = self._heed(h, context.e, context, None, "scale")
        for i, features in enumerate(context.maps):
            if features.shape[1:3] == h.shape[1:-1]:
                h = self._heed(h, features, context, f"map_{i}", f"map_{i}_scale")
        if context.log_beta is not None:
            slope = self.param("gate_slope", nn.initializers.zeros, (h.shape[-1],))
            shift = self.param("gate_shift", nn.initializers.zeros, (h.shape[-1],))
            gate = 2.0 * nn.sigmoid(context.log_beta.reshape(-1, 1) * slope + shift)
            h = h * gate.reshape(-1, *(1,) * (h.ndim - 2), h.shape[-1]).astype(self.dtype)
        return h

    def _heed(
        self, h: Array, features: Array | ByClass, context: Context, term: str | None, scale: str
    ) -> Float[Array, "b *hw f"]:
        """Add what features say, the same everywhere or of each place; `term` and `scale` name the parameters."""

        def linear(name: str | None) -> Array:
            to_channels = Dense(h.shape[-1], use_bias=False, dtype=self.dtype, name=name)
            if isinstance(features, ByClass):
                # A term of each class first, for there are fewer classes than examples.
                said = matmul(features.weights.astype(self.dtype), to_channels(features.table))
            else:
                said = to_channels(features)
            return said.reshape(said.shape[0], *(1,) * (h.ndim - said.ndim), *said.shape[1:])

        scaled = h * (1.0 + linear(scale)) if context.film else h
        return scaled + linear(term)


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


def pyramid(shape: Shape) -> list[Shape]:
    """Height, width and channels of the image and of each convolutional stage above it.

    Each stage halves both sides and quadruples the channels up to 128, down to sides of at most 8, twice at least.

    Example:
      >>> pyramid((28, 28, 1))
      [(28, 28, 1), (14, 14, 16), (7, 7, 64)]
    """
    stages = max(2, math.ceil(math.log2(min(shape[:2]) / 8)))
    sizes = [shape]
    for i in range(stages):
        height, width, _ = sizes[-1]
        sizes.append((-(-height // 2), -(-width // 2), min(4 ** (i + 2), MAX_CHANNELS)))
    return sizes


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
