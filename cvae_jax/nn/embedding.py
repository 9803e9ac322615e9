"""Embeddings of conditions: what a condition's encoder passes on to encoder, decoder and prior."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax

if TYPE_CHECKING:
    from jaxtyping import Array, Float, PyTree


class MaskedCondition(NamedTuple):
    """A batch of conditions of which some are dropped, as condition dropout and guidance do.

    Attributes:
      c: conditions, an array with a leading axis b, or several by name.
      mask: 1 where the condition is used, 0 where it is dropped, shape (b,), float32.
    """

    c: PyTree
    mask: Float[Array, " b"]


class Words(NamedTuple):
    """The words of a batch of texts, and the context of each.

    Attributes:
      about: of each word the words around it, without the word itself, shape (b, l, f).
      words: shape (b, l, g).
      present: 1 where there is a word and its text is used, else 0, shape (b, l), float32.
    """

    about: Float[Array, "b l f"]
    words: Float[Array, "b l g"]
    present: Float[Array, "b l"]


class Tokens(NamedTuple):
    """The parts of a batch of conditions, for attention: words of a text, frames of audio, patches of an image.

    Attributes:
      values: features of each part, shape (b, l, f).
      present: 1 where there is a part and its condition is used, else 0, shape (b, l), float32.
    """

    values: Float[Array, "b l f"]
    present: Float[Array, "b l"]


class ByClass(NamedTuple):
    """Embeddings that are weighted sums of a table's rows, weights @ table.

    Attributes:
      weights: of each row, shape (b, k).
      table: shape (k, e).
    """

    weights: Float[Array, "b k"]
    table: Float[Array, "k e"]


class Embedding(NamedTuple):
    """A batch of conditions as one part of the model receives them.

    Attributes:
      e: the embedding, shape (b, e), or None where the part receives maps or words alone.
      maps: features at the sizes of an image's pyramid, each of shape (b, h, w, f), largest first.
      words: of a text, for a decoder that makes a map of them.
      weights: of labels, over the rows of the table whose weighted sum is e, shape (b, k).
      tokens: the parts of each condition that has parts.
    """

    e: Float[Array, "b e"] | None
    maps: tuple[Float[Array, "b h w f"], ...] = ()
    words: Words | None = None
    weights: Float[Array, "b k"] | None = None
    tokens: tuple[Tokens, ...] = ()


class Embeddings(NamedTuple):
    """A batch of conditions as each part of the model receives them; all fields are None without a condition.

    Attributes:
      encoder, decoder, prior: equal where the three parts share one encoder of the condition.
      fixed: c itself where it determines pixels of x, which the decoder's output then repeats.
    """

    encoder: Embedding | None
    decoder: Embedding | None
    prior: Embedding | None
    fixed: PyTree


def mask_embedding(embedding: Embedding, mask: Float[Array, " b"]) -> Embedding:
    """The embedding, zero in every part for the conditions that are dropped.

    Args:
      embedding: of a batch of b conditions.
      mask: 1 where the condition is used, 0 where it is dropped, shape (b,).

    Returns:
      The same structure and shapes.
    """

    def one(part: Array) -> Array:
        return part * mask.reshape(-1, *(1,) * (part.ndim - 1)).astype(part.dtype)

    return jax.tree.map(one, embedding)
