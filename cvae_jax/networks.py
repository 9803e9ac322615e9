"""Encoder and decoder bodies: `mlp` and `conv`, each conditioned at every layer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import flax.linen as nn
import jax
import jax.numpy as jnp

from cvae_jax.convolutions import Downsample, Upsample
from cvae_jax.dropout import Dropout, drop
from cvae_jax.products import Dense

if TYPE_CHECKING:
    from jax.typing import DTypeLike
    from jaxtyping import Array, Bool, Float

HIDDEN = (512, 512)
MAX_CHANNELS = 128
Shape = tuple[int, int, int]


class AddCondition(nn.Module):
    """Add a learned per-channel term of the condition; nothing without a condition.

    By linearity this equals concatenating the condition to a layer's input, without the planes it would take.
    """

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, h: Float[Array, "b *hw f"], e: Float[Array, "b e"] | None) -> Float[Array, "b *hw f"]:
        """Condition a batch of activations `h` on embeddings `e`."""
        if e is None:
            return h
        term = Dense(h.shape[-1], use_bias=False, dtype=self.dtype)(e)
        return h + jnp.expand_dims(term, tuple(range(1, h.ndim - 1)))


class ToLatents(nn.Module):
    """Two linear maps onto the latents, giving `mean` and `logvar`.

    Column i of the initial kernels depends on the key and i alone, so that latent i starts the same whatever
    the capacity.
    """

    capacity: int

    @nn.compact
    def __call__(self, h: Float[Array, "b f"]) -> tuple[Float[Array, "b z"], Float[Array, "b z"]]:
        """Map a batch of features, in float32."""
        fan_in = h.shape[-1]

        def kernel(key: Array) -> Array:
            return _per_latent_normal(key, self.capacity, fan_in).T / math.sqrt(fan_in)

        def head(name: str) -> Array:
            bias = self.param(f"{name}_bias", nn.initializers.zeros, (self.capacity,))
            return h.astype(jnp.float32) @ self.param(f"{name}_kernel", kernel) + bias

        return head("mean"), head("logvar")


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
            return _per_latent_normal(key, z.shape[-1], self.features) * jax.lax.rsqrt(fan_in)

        return z @ self.param("kernel", kernel) + self.param("bias", nn.initializers.zeros, (self.features,))


def _per_latent_normal(key: Array, capacity: int, features: int) -> Float[Array, "z f"]:
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(capacity))
    return jax.vmap(lambda k: jax.random.normal(k, (features,)))(keys)


class MLPEncoder(nn.Module):
    """Dense layers over the flattened image."""

    dtype: DTypeLike = jnp.float32
    dropout: Dropout | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b H W C"], e: Float[Array, "b e"] | None) -> Float[Array, "b f"]:
        """Features of a batch of images."""
        h = x.reshape(x.shape[0], -1)
        for layer, width in enumerate(HIDDEN):
            h = Dense(width, dtype=self.dtype)(h)
            h = drop(nn.silu(AddCondition(self.dtype)(h, e)), self.dropout, layer)
        return h


class MLPDecoder(nn.Module):
    """Dense layers from latents to the flattened image."""

    shape: Shape
    dtype: DTypeLike = jnp.float32
    dropout: Dropout | None = None

    @nn.compact
    def __call__(
        self, z: Float[Array, "b z"], e: Float[Array, "b e"] | None, latent_mask: Bool[Array, " z"]
    ) -> Float[Array, "b H W C"]:
        """Parameters of p(x|z,c) for a batch of latents."""
        first, *rest = reversed(HIDDEN)
        h = FromLatents(first)(z, latent_mask).astype(self.dtype)
        h = drop(nn.silu(AddCondition(self.dtype)(h, e)), self.dropout, 0)
        for layer, width in enumerate(rest, 1):
            h = Dense(width, dtype=self.dtype)(h)
            h = drop(nn.silu(AddCondition(self.dtype)(h, e)), self.dropout, layer)
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
    def __call__(self, h: Float[Array, "b h w f"], e: Float[Array, "b e"] | None) -> Float[Array, "b h w f"]:
        """Refine a batch of feature maps."""
        inner = Dense(2 * h.shape[-1], dtype=self.dtype)(h)
        inner = drop(nn.silu(AddCondition(self.dtype)(inner, e)), self.dropout, 0)
        return h + Dense(h.shape[-1], dtype=self.dtype)(inner)


class ConvEncoder(nn.Module):
    """Stride-2 convolutions up the pyramid, then a pointwise block."""

    dtype: DTypeLike = jnp.float32
    dropout: Dropout | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b H W C"], e: Float[Array, "b e"] | None) -> Float[Array, "b f"]:
        """Features of a batch of images."""
        h = x
        stages = pyramid((x.shape[1], x.shape[2], x.shape[3]))[1:]
        for layer, (_, _, channels) in enumerate(stages, 1):
            h = Downsample(channels, self.dtype)(h)
            h = drop(nn.silu(AddCondition(self.dtype)(h, e)), self.dropout, layer)
        h = PointwiseBlock(self.dtype, self.dropout)(h, e)
        return h.reshape(h.shape[0], -1)


class ConvDecoder(nn.Module):
    """A pointwise block, then stride-2 transposed convolutions down the pyramid."""

    shape: Shape
    dtype: DTypeLike = jnp.float32
    dropout: Dropout | None = None

    @nn.compact
    def __call__(
        self, z: Float[Array, "b z"], e: Float[Array, "b e"] | None, latent_mask: Bool[Array, " z"]
    ) -> Float[Array, "b H W C"]:
        """Parameters of p(x|z,c) for a batch of latents."""
        *below, top = pyramid(self.shape)
        h = FromLatents(math.prod(top))(z, latent_mask).astype(self.dtype)
        h = nn.silu(AddCondition(self.dtype)(h, e))
        h = drop(h.reshape(-1, *top), self.dropout, 1)
        h = PointwiseBlock(self.dtype, self.dropout)(h, e)
        for layer, (height, width, channels) in enumerate(reversed(below[1:]), 2):
            h = Upsample(channels, self.dtype)(h)[:, :height, :width]
            h = drop(nn.silu(AddCondition(self.dtype)(h, e)), self.dropout, layer)
        height, width, channels = self.shape
        return Upsample(channels, self.dtype)(h)[:, :height, :width]
