"""Encoder and decoder bodies: `mlp` and `conv`, each conditioned at every layer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from cvae_jax.config import ActivationName
from cvae_jax.convolutions import Downsample, Upsample
from cvae_jax.dropout import Dropout, drop
from cvae_jax.products import Dense

if TYPE_CHECKING:
    from jax.typing import DTypeLike
    from jaxtyping import Array, Bool, Float

ACTIVATIONS = {"silu": nn.silu, "tanh": nn.tanh}
MAX_CHANNELS = 128
Shape = tuple[int, int, int]


class Context(NamedTuple):
    """What every layer of both bodies is told beside its input.

    Attributes:
      e: embedding of the condition, shape (b, e), or None without one.
      maps: features of an image that is the condition, each of shape (b, h, w, f).
      film: whether they scale each channel, too.
      log_beta: the β that a multi-rate model is at, a scalar or shape (b,), or None for any other model.
    """

    e: Float[Array, "b e"] | None
    maps: tuple[Float[Array, "b h w f"], ...] = ()
    film: bool = False
    log_beta: Float[Array, "*b"] | None = None


class Gaussian(NamedTuple):
    """A batch of diagonal Gaussians over latents.

    Attributes:
      mean: shape (b, z).
      logvar: logarithm of the variance, shape (b, z).
    """

    mean: Float[Array, "b z"]
    logvar: Float[Array, "b z"]


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
        self, h: Array, features: Array, context: Context, term: str | None, scale: str
    ) -> Float[Array, "b *hw f"]:
        """Add what features say, the same everywhere or of each place; `term` and `scale` name the parameters."""

        def linear(name: str | None) -> Array:
            said = Dense(h.shape[-1], use_bias=False, dtype=self.dtype, name=name)(features)
            return said.reshape(said.shape[0], *(1,) * (h.ndim - said.ndim), *said.shape[1:])

        scaled = h * (1.0 + linear(scale)) if context.film else h
        return scaled + linear(term)


class ToLatents(nn.Module):
    """Two linear maps onto the latents, giving `mean` and `logvar`.

    Column i of the initial kernels depends on the key and i alone, so that latent i starts the same whatever
    the capacity.
    """

    capacity: int

    @nn.compact
    def __call__(self, h: Float[Array, "b f"]) -> Gaussian:
        """Map a batch of features, in float32."""
        fan_in = h.shape[-1]

        def kernel(key: Array) -> Array:
            return _per_latent_normal(key, self.capacity, fan_in).T / math.sqrt(fan_in)

        def head(name: str) -> Array:
            bias = self.param(f"{name}_bias", nn.initializers.zeros, (self.capacity,))
            return h.astype(jnp.float32) @ self.param(f"{name}_kernel", kernel) + bias

        return Gaussian(head("mean"), head("logvar"))


class FromLatents(nn.Module):
    """A linear map from the latents in use.

    Row i of the initial kernel depends on the key and i alone, scaled by the number of latents in use rather than
    by the capacity.
    """

    features: int

    @nn.compact
    def __call__(self, z: Float[Array, "b z"], latent_mask: Bool[Array, " z"]) -> Float[Array, "b f"]:
        """Map a batch of latents, in float32."""

        def kernel(key: Array) -> Array:
            fan_in = jnp.sum(latent_mask, dtype=jnp.float32)
            return _per_latent_normal(key, z.shape[-1], self.features) * jax.lax.rsqrt(
                jnp.maximum(fan_in, 1.0)
            )

        return z @ self.param("kernel", kernel) + self.param("bias", nn.initializers.zeros, (self.features,))


def _per_latent_normal(key: Array, capacity: int, features: int) -> Float[Array, "z f"]:
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(capacity))
    return jax.vmap(lambda k: jax.random.normal(k, (features,)))(keys)


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
    """A pointwise block, then stride-2 transposed convolutions down the pyramid."""

    shape: Shape
    dtype: DTypeLike = jnp.float32
    dropout: Dropout | None = None

    @nn.compact
    def __call__(
        self, z: Float[Array, "b z"], context: Context, latent_mask: Bool[Array, " z"]
    ) -> Float[Array, "b H W C"]:
        """Parameters of p(x|z,c) for a batch of latents."""
        *below, top = pyramid(self.shape)
        h = FromLatents(math.prod(top))(z, latent_mask).astype(self.dtype)
        h = nn.silu(AddCondition(self.dtype)(h, context))
        h = drop(h.reshape(-1, *top), self.dropout, 1)
        h = PointwiseBlock(self.dtype, self.dropout)(h, context)
        for layer, (height, width, channels) in enumerate(reversed(below[1:]), 2):
            h = Upsample(channels, self.dtype)(h)[:, :height, :width]
            h = drop(nn.silu(AddCondition(self.dtype)(h, context)), self.dropout, layer)
        height, width, channels = self.shape
        return Upsample(channels, self.dtype)(h)[:, :height, :width]
