"""From a raw condition to what the networks are told of it: an embedding and, of images, feature maps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import flax.linen as nn
import jax
import jax.numpy as jnp

from cvae_jax.conditions.kinds import Audio, Image, Kind, Label, Observed, Text, Vector
from cvae_jax.conditions.places import Places
from cvae_jax.conditions.text import TextEncoder
from cvae_jax.nn.conv import Downsample, pyramid
from cvae_jax.nn.dense import Dense
from cvae_jax.nn.embedding import Embedding

if TYPE_CHECKING:
    from jax.typing import DTypeLike
    from jaxtyping import Array, Float, Int, Shaped


class LabelEmbedding(nn.Module):
    """A learned vector per class.

    Attributes:
      num_classes: labels run from 0 to num_classes − 1.
      features: size of the embedding.
    """

    num_classes: int
    features: int = 32

    def setup(self) -> None:
        """Draw the vectors."""
        self.table = self.param("table", nn.initializers.normal(1.0), (self.num_classes, self.features))

    def __call__(self, c: Int[Array, " b"] | Float[Array, "b k"]) -> Embedding:
        """Look up a batch of labels, or average the vectors by a batch of weights over the classes."""
        # A product rather than a gather: its gradient is a product too, not a scatter, and so repeats bit for bit.
        weights = jax.nn.one_hot(c, self.num_classes, dtype=jnp.float32) if c.ndim == 1 else c
        return Embedding(weights @ self.table, weights=weights)


class VectorEncoder(nn.Module):
    """Two dense layers over a standardized vector."""

    features: int = 128
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, c: Float[Array, "b k"]) -> Embedding:
        """Embed a batch of vectors."""
        h = nn.silu(Dense(self.features, dtype=self.dtype)(c.astype(self.dtype)))
        return Embedding(Dense(self.features, dtype=self.dtype)(h))


class ImageEncoder(nn.Module):
    """Stride-2 convolutions up the pyramid of an image or a spectrogram: each stage a map, the last the embedding."""

    features: int = 256
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, c: Shaped[Array, "b H W C"]) -> Embedding:
        """Embed a batch of images: bytes from 0 to 255, or numbers as they are."""
        h = c.astype(jnp.float32) / (255.0 if c.dtype == jnp.uint8 else 1.0)
        h, maps = h.astype(self.dtype), []
        for _, _, channels in pyramid((c.shape[1], c.shape[2], c.shape[3]))[1:]:
            h = nn.silu(Downsample(channels, self.dtype)(h))
            maps.append(h)
        return Embedding(Dense(self.features, dtype=self.dtype)(h.reshape(h.shape[0], -1)), tuple(maps))


class SeveralEncoders(nn.Module):
    """The encoders of several conditions: their embeddings side by side, the maps and the words of all.

    Attributes:
      kinds: what each condition is made of, by name.
      places: what a text says of each place, None where no map is made of it.
      dtype: of the matrix products.
    """

    kinds: tuple[tuple[str, Kind], ...]
    places: Places | None = None
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Build the encoder of each."""
        self.encoders = {name: encoder(kind, self.places, self.dtype) for name, kind in self.kinds}

    def __call__(self, c: dict[str, Array]) -> Embedding:
        """Embed a batch of conditions by name."""
        each = [self.encoders[name](c[name]) for name, _ in self.kinds]
        maps = tuple(m for encoded in each for m in encoded.maps)
        words = [encoded.words for encoded in each if encoded.words is not None]
        together = jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=1), *words) if words else None
        return Embedding(jnp.concatenate([encoded.e for encoded in each], axis=-1), maps, together)


def encoder(
    condition: Kind | tuple[tuple[str, Kind], ...], places: Places | None, dtype: DTypeLike
) -> nn.Module:
    """The network that turns a batch of conditions into an `Embedding`.

    Args:
      condition: what they are made of.
      places: what a text says of each place, None where no map is made of it.
      dtype: of the matrix products.
    """
    match condition:
        case Label(num_classes):
            return LabelEmbedding(num_classes)
        case Vector():
            return VectorEncoder(dtype=dtype)
        case Text(length):
            return TextEncoder(length, places, dtype=dtype)
        case Image() | Audio() | Observed():
            return ImageEncoder(dtype=dtype)
        case tuple():
            return SeveralEncoders(condition, places, dtype)


def features_of(condition: Kind | tuple[tuple[str, Kind], ...]) -> int:
    """Size of a condition's embedding.

    Example:
      >>> features_of((("text", Text(8)), ("speaker", Label(5))))
      288
    """
    match condition:
        case tuple():
            return sum(features_of(kind) for _, kind in condition)
        case Label():
            return LabelEmbedding.features
        case Vector():
            return VectorEncoder.features
        case Text():
            return TextEncoder.features
        case _:
            return ImageEncoder.features


def observe(x: Float[Array, "*b H W C"], kind: Observed) -> Float[Array, "*b H W C"]:
    """What is given of binary images: their pixels where observed, 0 elsewhere."""
    return jnp.where(kind.mask, x, 0.0)
