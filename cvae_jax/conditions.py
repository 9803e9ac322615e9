"""From a raw condition to what the networks are told of it: an embedding and, of images, feature maps."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from cvae_jax.condition_kinds import Audio, Image, Kind, Label, Observed, Text, Vector
from cvae_jax.convolutions import Downsample, Upsample
from cvae_jax.networks import pyramid
from cvae_jax.products import Dense

if TYPE_CHECKING:
    from jax.typing import DTypeLike
    from jaxtyping import Array, Bool, Float, Int, PyTree, Shaped, UInt8

_BYTES = 256
# Added to the mean square of a map that is brought to a mean square of 1.
_LEAST_SQUARE = 1e-3


class Given(NamedTuple):
    """A batch of conditions, each to be heeded or not.

    Attributes:
      c: conditions, an array with a leading axis b, or several by name.
      heeded: 1 where the networks are told of the condition, 0 where they are told nothing, shape (b,), float32.
    """

    c: PyTree
    heeded: Float[Array, " b"]


class Embedding(NamedTuple):
    """What the networks are told of a batch of conditions.

    Attributes:
      e: the embedding, shape (b, e), or None where the maps say it all.
      maps: features at the sizes of an image's pyramid, each of shape (b, h, w, f), largest first.
    """

    e: Float[Array, "b e"] | None
    maps: tuple[Float[Array, "b h w f"], ...] = ()


class Embeddings(NamedTuple):
    """What each part of the model is told of a batch of conditions; all fields are None without a condition.

    Attributes:
      encoder, decoder, prior: the same for all three if they share an encoder of the condition.
      observed: the pixels that are given, of a model that completes images, shape (b, H, W, C).
    """

    encoder: Embedding | None
    decoder: Embedding | None
    prior: Embedding | None
    observed: Float[Array, "b H W C"] | None


class LabelEmbedding(nn.Module):
    """A learned vector per class.

    Attributes:
      num_classes: labels run from 0 to num_classes − 1.
      features: size of the embedding.
    """

    num_classes: int
    features: int = 32

    @nn.compact
    def __call__(self, c: Int[Array, " b"] | Float[Array, "b k"]) -> Embedding:
        """Look up a batch of labels, or average the vectors by a batch of weights over the classes."""
        table = self.param("table", nn.initializers.normal(1.0), (self.num_classes, self.features))
        # A product rather than a gather: its gradient is a product too, not a scatter, and so repeats bit for bit.
        weights = jax.nn.one_hot(c, self.num_classes, dtype=jnp.float32) if c.ndim == 1 else c
        return Embedding(weights @ table)


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


class TextEncoder(nn.Module):
    """A convolution over the bytes of a text that finds its words, and a small transformer over them.

    A piece of the text is the strongest answer of each filter among its few bytes, wherever a word begins; attention
    tells the pieces of each other. The embedding is made of the mean over the text's own pieces by two dense layers,
    the map from what each place of a grid reads of them.

    Attributes:
      length: most bytes of a text.
      grid: height and width of the map, None for no map.
      features: of the embedding.
      letter: size of a byte's vector.
      filters: of the convolution.
      span: bytes that a filter sees, odd.
      piece: bytes of a piece.
      width: of each piece, and of the map.
      layers: of attention.
      heads: of each layer.

    References:
      Kim, Convolutional Neural Networks for Sentence Classification, 2014, section 2, of the filters and their maximum.
      Vaswani et al., Attention Is All You Need, 2017, section 3.
    """

    length: int
    grid: tuple[int, int] | None = None
    features: int = 256
    letter: int = 16
    filters: int = 128
    span: int = 7
    piece: int = 4
    width: int = 64
    layers: int = 1
    heads: int = 4
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, c: UInt8[Array, "b l"]) -> Embedding:
        """Embed a batch of texts, which may have no bytes at all."""
        pieces = -(-self.length // self.piece)
        c = jnp.pad(c, ((0, 0), (0, pieces * self.piece - self.length)))
        present = jnp.any(c.reshape(-1, pieces, self.piece) != 0, axis=2)
        words = self._words(c)
        h = Dense(self.width, dtype=self.dtype)(words)
        h = h + self.param("positions", nn.initializers.normal(0.3), (pieces, self.width)).astype(self.dtype)
        for layer in range(self.layers):
            h = h + SelfAttention(self.heads, self.dtype, name=f"attention_{layer}")(h, present)
            inner = nn.silu(Dense(2 * self.width, dtype=self.dtype)(nn.LayerNorm(dtype=self.dtype)(h)))
            h = h + Dense(self.width, dtype=self.dtype)(inner)
        h = jnp.where(present[..., None], nn.LayerNorm(dtype=self.dtype)(h), 0.0)
        count = jnp.maximum(jnp.sum(present, axis=1, dtype=jnp.int32), 1).astype(self.dtype)
        # What is said of a thing and where it is meet only here: the mean keeps them apart.
        e = nn.silu(Dense(2 * self.features, dtype=self.dtype)(jnp.sum(h, axis=1) / count[:, None]))
        e = Dense(self.features, dtype=self.dtype)(e)
        if self.grid is None:
            return Embedding(e)
        return Embedding(e, (Places(self.grid, self.width, self.heads, self.dtype)(h, words, present),))

    def _words(self, c: UInt8[Array, "b l"]) -> Float[Array, "b p f"]:
        """What the filters find in each piece, its neighbours' bytes within their span included."""
        b, length = c.shape
        # A product rather than a gather: its gradient is no scatter, and so repeats bit for bit.
        table = self.param("bytes", nn.initializers.normal(1.0), (_BYTES, self.letter)).astype(self.dtype)
        letters = jnp.where((c != 0)[..., None], jax.nn.one_hot(c, _BYTES, dtype=self.dtype) @ table, 0.0)
        around = jnp.pad(letters, ((0, 0), (self.span // 2, self.span // 2), (0, 0)))
        seen = jnp.concatenate([around[:, i : i + length] for i in range(self.span)], axis=-1)
        found = Dense(self.filters, dtype=self.dtype)(seen)
        return nn.silu(jnp.max(found.reshape(b, -1, self.piece, self.filters), axis=2))


class Places(nn.Module):
    """A map of what a text says of each place: places attend to the pieces of the text.

    Which piece a place heeds depends on all of the text, what it is told there on the words of the piece alone: a word
    that training never saw of a place is told as of any other. The places are half as many to a side as the map,
    which a transposed convolution makes of them: what is said of a place also shapes those around it. Its mean square
    is 1.

    Attributes:
      grid: height and width of the map.
      width: of the map.
      heads: of attention.
    """

    grid: tuple[int, int]
    width: int
    heads: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, h: Float[Array, "b l f"], words: Float[Array, "b l g"], present: Bool[Array, "b l"]
    ) -> Float[Array, "b h w f"]:
        """Read a batch of texts."""
        height, across = -(-self.grid[0] // 2), -(-self.grid[1] // 2)
        each = self.width // self.heads
        places = self.param("places", nn.initializers.normal(1.0), (height * across, self.width))
        query, key, value = (
            Dense(self.width, dtype=self.dtype)(a.astype(self.dtype)).reshape(*a.shape[:-1], self.heads, each)
            for a in (places, h, words)
        )
        scores = jnp.einsum("qhf,bkhf->bhqk", query, key).astype(jnp.float32) / math.sqrt(each)
        scores = jnp.where(present[:, None, None], scores, -1e9)
        # One score more, of being told nothing.
        weights = jax.nn.softmax(jnp.pad(scores, ((0, 0), (0, 0), (0, 0), (0, 1))), axis=-1)[..., :-1]
        told = jnp.einsum("bhqk,bkhf->bqhf", weights.astype(self.dtype), value)
        h = nn.silu(Dense(self.width, dtype=self.dtype)(told.reshape(-1, height, across, self.width)))
        told = Upsample(self.width, self.dtype)(h)[:, : self.grid[0], : self.grid[1]].astype(jnp.float32)
        # Left to grow, as a decoder that learns from it alone makes it, it would drown the image in the encoder.
        size = jnp.sqrt(jnp.mean(jnp.square(told), axis=(1, 2, 3), keepdims=True) + _LEAST_SQUARE)
        return (told / size).astype(self.dtype)


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


class SeveralEncoders(nn.Module):
    """The encoders of several conditions: their embeddings side by side, and the maps of all.

    Attributes:
      kinds: what each condition is made of, by name.
      grid: height and width of the map that a text gets, None for none.
      dtype: of the matrix products.
    """

    kinds: tuple[tuple[str, Kind], ...]
    grid: tuple[int, int] | None = None
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Build the encoder of each."""
        self.encoders = {name: encoder(kind, self.grid, self.dtype) for name, kind in self.kinds}

    def __call__(self, c: dict[str, Array]) -> Embedding:
        """Embed a batch of conditions by name."""
        each = [self.encoders[name](c[name]) for name, _ in self.kinds]
        maps = tuple(m for encoded in each for m in encoded.maps)
        return Embedding(jnp.concatenate([encoded.e for encoded in each], axis=-1), maps)


def encoder(
    condition: Kind | tuple[tuple[str, Kind], ...], grid: tuple[int, int] | None, dtype: DTypeLike
) -> nn.Module:
    """The network that turns a batch of conditions into an `Embedding`.

    Args:
      condition: what they are made of.
      grid: height and width of the map that a text gets, None for none.
      dtype: of the matrix products.
    """
    match condition:
        case Label(num_classes):
            return LabelEmbedding(num_classes)
        case Vector():
            return VectorEncoder(dtype=dtype)
        case Text(length):
            return TextEncoder(length, grid, dtype=dtype)
        case Image() | Audio() | Observed():
            return ImageEncoder(dtype=dtype)
        case tuple():
            return SeveralEncoders(condition, grid, dtype)


def withheld(told: Embedding, heeded: Float[Array, " b"]) -> Embedding:
    """What is told of a batch of conditions, zeros where a condition is not heeded."""

    def one(told: Array) -> Array:
        return told * heeded.reshape(-1, *(1,) * (told.ndim - 1)).astype(told.dtype)

    return jax.tree.map(one, told)


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
