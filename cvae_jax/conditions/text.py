"""A text as condition, and the network that embeds it, from bytes to words to words in their context."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cvae_jax.conditions.base import Condition
from cvae_jax.errors import DataError
from cvae_jax.nn.attention import SelfAttention
from cvae_jax.nn.dense import Dense
from cvae_jax.nn.embedding import Embedding, Tokens, Words

if TYPE_CHECKING:
    from jax.typing import DTypeLike
    from jaxtyping import Array, Float, Int, Shaped, UInt8

_BYTES = 256
# For longer texts a convolution and a transformer over bytes is the wrong encoder.
_MOST_BYTES = 1024


@dataclasses.dataclass(frozen=True)
class Text(Condition):
    """A text in UTF-8. c has shape (n, length), uint8: its bytes, then zeros. See `encode_text`.

    Attributes:
      length: bytes of a text at most, 0 for those of the longest in the data.

    Example:
      >>> text, c = Text().of_data(np.array(["a two", "one"]))
      >>> text, bytes(c[1])
      (Text(length=5), b'one\\x00\\x00')
    """

    length: int = 0

    @property
    def features(self) -> int:
        """Size of the embedding."""
        return TextEncoder.features

    def of_data(self, raw: Shaped[np.ndarray, " n"]) -> tuple[Self, UInt8[np.ndarray, "n length"]]:
        """The length of the longest text, and the bytes of all.

        Args:
          raw: texts, shape (n,).

        Raises:
          DataError: if they are no texts in UTF-8, or too long.
        """
        if raw.ndim != 1 or raw.dtype.kind not in "US":
            raise DataError(
                f"the text is {raw.dtype} of shape {raw.shape}, expected texts of shape (n,) (numbers are taken by "
                "--condition=label or --condition=vector)"
            )
        texts = [text_of(text, "the condition") for text in raw]
        length = max((len(text.encode()) for text in texts), default=0)
        if not self.length and not 1 <= length <= _MOST_BYTES:
            raise DataError(f"the longest text has {length} bytes, expected 1 to {_MOST_BYTES}")
        bound = dataclasses.replace(self, length=self.length or length)
        return bound, encode_text(texts, bound.length)

    def blank(self, n: int) -> UInt8[np.ndarray, "n length"]:
        """n empty texts."""
        return np.zeros((n, self.length), np.uint8)

    def encoder(self, dtype: DTypeLike) -> TextEncoder:
        """A convolution over bytes, then a small transformer over words."""
        return TextEncoder(self.length, dtype=dtype)

    def describe(self, c: UInt8[np.ndarray, "n length"], names: Sequence[str] = ()) -> list[str]:
        """The texts."""
        return [decode_text(row) for row in np.asarray(c)]


def encode_text(texts: Sequence[str], length: int) -> UInt8[np.ndarray, "n length"]:
    """Texts as rows of UTF-8 bytes, padded with zeros.

    Args:
      texts: n texts.
      length: of a row, ≥ 1.

    Returns:
      Shape (n, length), uint8.

    Raises:
      DataError: if a text is longer than a row.

    Example:
      >>> encode_text(["two", ""], 4).tolist()
      [[116, 119, 111, 0], [0, 0, 0, 0]]
    """
    rows = np.zeros((len(texts), length), np.uint8)
    for row, text in zip(rows, texts, strict=True):
        encoded = text.encode()
        if len(encoded) > length:
            raise DataError(f"text {text!r} has {len(encoded)} bytes, expected at most {length}")
        row[: len(encoded)] = np.frombuffer(encoded, np.uint8)
    return rows


def decode_text(row: UInt8[np.ndarray, " length"]) -> str:
    """The text of a row of bytes.

    Example:
      >>> decode_text(encode_text(["zwölf"], 10)[0])
      'zwölf'
    """
    return row.tobytes().rstrip(b"\0").decode()


def text_of(value: bytes | str, where: str) -> str:
    """A text that can be written as UTF-8.

    Args:
      value: the text.
      where: the name of what has it, for an error.

    Raises:
      DataError: if it is none.
    """
    plain = bytes(value) if isinstance(value, bytes) else str(value)
    try:
        text = plain.decode() if isinstance(plain, bytes) else plain
        text.encode()
    except UnicodeError:
        raise DataError(f"{where} has the text {plain!r}, expected one in UTF-8") from None
    return text


def words_of(c: UInt8[Array, "b l"], most: int) -> Int[Array, "b l"]:
    """For each byte, the number of its word, counted from 1; 0 between words.

    A word is a run of ASCII letters and digits and of bytes beyond ASCII; any other byte but a blank is a word alone.

    Args:
      c: bytes of texts, 0 after their ends, shape (b, l), uint8.
      most: number of words; those beyond count as the last.

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
    """A text's words, found by a convolution over their bytes; the context of each word; and a small transformer.

    A word is the sum of what the filters give at each of its bytes; a filter sees no byte of another word. The context
    of a word is made of the words around it, without the word itself. The embedding is made of words and contexts,
    mixed by attention and averaged over the words.

    Attributes:
      length: most bytes of a text.
      reader: of a network that shares it, a module from `Words` to more features of the text, a batch of arrays, which
        are added to the embedding; the words then go out, too.
      features: of the embedding.
      letter: size of a byte's vector.
      filters: of the convolution over bytes.
      span: bytes that a filter sees, odd.
      bytes_per_word: there is room for a word to so many bytes of `length`.
      width: of each word and of its context.
      neighbours: words to each side that a word's context is made of.
      layers: of attention.
      heads: of each layer.

    References:
      Kim, Convolutional Neural Networks for Sentence Classification, 2014, section 2, of filters over a text.
      Vaswani et al., Attention Is All You Need, 2017, section 3.
    """

    length: int
    reader: nn.Module | None = None
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
        e = Dense(2 * self.features, dtype=self.dtype)(jnp.sum(h, axis=1) / count[:, None])
        out = None
        if self.reader is not None:
            out = Words(about, words, present.astype(jnp.float32))
            more = self.reader(out).reshape(c.shape[0], -1)
            e = e + Dense(2 * self.features, use_bias=False, dtype=self.dtype)(more)
            # So many features add up, and a step of training moves them all at once.
            e = nn.LayerNorm(dtype=self.dtype)(e)
        tokens = (Tokens(h, present.astype(jnp.float32)),)
        return Embedding(Dense(self.features, dtype=self.dtype)(nn.silu(e)), words=out, tokens=tokens)

    def _positions(self, name: str, most: int) -> Float[Array, "w f"]:
        """A vector for each word's position in the text."""
        return self.param(name, nn.initializers.normal(0.3), (most, self.width)).astype(self.dtype)

    def _words(self, c: UInt8[Array, "b l"], number: Int[Array, "b l"], most: int) -> Float[Array, "b w f"]:
        """The sum over each word's bytes of what the filters give."""
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


def _windows(h: Shaped[Array, "b l f"], span: int) -> Shaped[Array, "b l g"]:
    """The span around each position, side by side, zeros beyond the ends."""
    around = jnp.pad(h, ((0, 0), (span // 2, span // 2), (0, 0)))
    return jnp.concatenate([around[:, i : i + h.shape[1]] for i in range(span)], axis=-1)
