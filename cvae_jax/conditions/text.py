"""A text as a network reads it: its bytes, its words, what stands about each, and what they say of every place."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import flax.linen as nn
import jax
import jax.numpy as jnp

from cvae_jax.conditions.places import Places
from cvae_jax.nn.dense import Dense
from cvae_jax.nn.embedding import Embedding, Words

if TYPE_CHECKING:
    from jax.typing import DTypeLike
    from jaxtyping import Array, Float, Int, Shaped, UInt8

_BYTES = 256


def words_of(c: UInt8[Array, "b l"], most: int) -> Int[Array, "b l"]:
    """The number of the word that each byte is in, from 1 on, and 0 between words.

    A word is a run of ASCII letters and digits and of bytes beyond ASCII; any other byte but a blank is a word alone.

    Args:
      c: bytes of texts, 0 after their ends, shape (b, l), uint8.
      most: words that are told apart; those beyond count as the last.

    Returns:
      From 0 to `most`, shape (b, l), int32.

    Example:
      >>> text = jnp.frombuffer(b"a 7, up", jnp.uint8)[None]
      >>> words_of(text, 8).tolist()
      [[1, 0, 2, 3, 0, 4, 4]]
    """
    blank = (c == 0) | (c == ord(" "))
    runs = c >= 128
    for low, high in ("09", "AZ", "az"):
        runs |= (ord(low) <= c) & (c <= ord(high))
    goes_on = runs & jnp.pad(runs, ((0, 0), (1, 0)))[:, :-1]
    number = jnp.cumsum(~blank & ~goes_on, axis=1, dtype=jnp.int32)
    return jnp.where(blank, 0, jnp.minimum(number, most))


class TextEncoder(nn.Module):
    """The words of a text, found by a convolution over their bytes; what stands about each; and a small transformer.

    A word is the sum of what the filters find about each of its bytes, none of them reaching into another word.
    What stands about it is read without the word itself: where a thing belongs, from what surrounds its name. The
    embedding is made of both, mixed by attention and averaged over the words, and of what they say of each place, so
    that what is where need not be read twice. Words and what stands about them also go out, for a map.

    Attributes:
      length: most bytes of a text.
      places: what the words say of each place, None for no map.
      features: of the embedding.
      letter: size of a byte's vector.
      filters: of the convolution over bytes.
      span: bytes that a filter sees, odd.
      bytes_per_word: there is room for a word to so many bytes of `length`.
      width: of each word, and of what a place is told.
      neighbours: words to each side that stand about a word.
      layers: of attention.
      heads: of each layer.

    References:
      Kim, Convolutional Neural Networks for Sentence Classification, 2014, section 2, of filters over a text.
      Vaswani et al., Attention Is All You Need, 2017, section 3.
    """

    length: int
    places: Places | None = None
    features: int = 256
    letter: int = 16
    filters: int = 128
    span: int = 7
    bytes_per_word: int = 4
    width: int = 64
    neighbours: int = 6
    layers: int = 1
    heads: int = 4
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, c: UInt8[Array, "b l"]) -> Embedding:
        """Embed a batch of texts, which may have no words at all."""
        most = -(-self.length // self.bytes_per_word)
        number = words_of(c, most)
        words = self._words(c, number, most)
        present = jnp.any(number[:, :, None] == 1 + jnp.arange(most), axis=1)
        words = jnp.where(present[..., None], nn.LayerNorm(dtype=self.dtype)(words), 0.0)
        h = Dense(self.width, dtype=self.dtype)(words) + self._positions("positions", most)
        near = _windows(jnp.where(present[..., None], h, 0.0), 2 * self.neighbours + 1)
        left, right = self.neighbours * self.width, (self.neighbours + 1) * self.width
        about = self._two_layers(jnp.concatenate([near[..., :left], near[..., right:]], axis=-1))
        about = nn.LayerNorm(dtype=self.dtype)(about + self._positions("positions_about", most))
        h = h + about
        for layer in range(self.layers):
            h = h + SelfAttention(self.heads, self.dtype, name=f"attention_{layer}")(h, present)
            h = h + self._two_layers(nn.LayerNorm(dtype=self.dtype)(h))
        h = jnp.where(present[..., None], nn.LayerNorm(dtype=self.dtype)(h), 0.0)
        count = jnp.maximum(jnp.sum(present, axis=1, dtype=jnp.int32), 1).astype(self.dtype)
        # What is said of a thing and where it is meet only here: the map keeps them apart.
        e = Dense(2 * self.features, dtype=self.dtype)(jnp.sum(h, axis=1) / count[:, None])
        said = None
        if self.places is not None:
            said = Words(about, words, present.astype(jnp.float32))
            told = self.places(said).reshape(c.shape[0], -1)
            e = e + Dense(2 * self.features, use_bias=False, dtype=self.dtype)(told)
            # A step of training moves all that so many places add up to.
            e = nn.LayerNorm(dtype=self.dtype)(e)
        return Embedding(Dense(self.features, dtype=self.dtype)(nn.silu(e)), words=said)

    def _positions(self, name: str, most: int) -> Float[Array, "w f"]:
        """A vector for each word's place in the text."""
        return self.param(name, nn.initializers.normal(0.3), (most, self.width)).astype(self.dtype)

    def _words(self, c: UInt8[Array, "b l"], number: Int[Array, "b l"], most: int) -> Float[Array, "b w f"]:
        """What the filters find in each word."""
        # Products rather than gathers: their gradients are no scatters, and so repeat bit for bit.
        table = self.param("bytes", nn.initializers.normal(1.0), (_BYTES, self.letter)).astype(self.dtype)
        letters = jax.nn.one_hot(c, _BYTES, dtype=self.dtype) @ table
        same = _windows(number[..., None], self.span) == number[..., None]
        seen = jnp.where(same[..., None], _windows(letters, self.span).reshape(*same.shape, -1), 0.0)
        found = nn.silu(Dense(self.filters, dtype=self.dtype)(seen.reshape(*c.shape, -1)))
        within = jax.nn.one_hot(number - 1, most, dtype=self.dtype)
        return jnp.einsum("blw,blf->bwf", within, found)

    def _two_layers(self, h: Float[Array, "b w f"]) -> Float[Array, "b w g"]:
        """Two dense layers."""
        return Dense(self.width, dtype=self.dtype)(nn.silu(Dense(2 * self.width, dtype=self.dtype)(h)))


def _windows(h: Shaped[Array, "b l f"], span: int) -> Shaped[Array, "b l span*f"]:
    """What stands within a span about each position, zeros beyond the ends."""
    around = jnp.pad(h, ((0, 0), (span // 2, span // 2), (0, 0)))
    return jnp.concatenate([around[:, i : i + h.shape[1]] for i in range(span)], axis=-1)


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
