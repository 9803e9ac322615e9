"""What the networks are told of conditions, and to what extent they are told of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax

if TYPE_CHECKING:
    from jaxtyping import Array, Float, PyTree


class Given(NamedTuple):
    """A batch of conditions, each to be heeded or not.

    Attributes:
      c: conditions, an array with a leading axis b, or several by name.
      heeded: 1 where the networks are told of the condition, 0 where they are told nothing, shape (b,), float32.
    """

    c: PyTree
    heeded: Float[Array, " b"]


class Words(NamedTuple):
    """The words of a batch of texts, and what stands about each.

    Attributes:
      about: shape (b, l, f).
      words: shape (b, l, g).
      present: 1 where there is a word that is heeded, else 0, shape (b, l), float32.
    """

    about: Float[Array, "b l f"]
    words: Float[Array, "b l g"]
    present: Float[Array, "b l"]


class ByClass(NamedTuple):
    """Embeddings that are sums of a table's rows, weights @ table.

    Attributes:
      weights: of each row, shape (b, k).
      table: shape (k, e).
    """

    weights: Float[Array, "b k"]
    table: Float[Array, "k e"]


class Embedding(NamedTuple):
    """What the networks are told of a batch of conditions.

    Attributes:
      e: the embedding, shape (b, e), or None where the maps say it all.
      maps: features at the sizes of an image's pyramid, each of shape (b, h, w, f), largest first.
      words: of a text, for a decoder that puts them on a map.
      weights: of labels, over the rows of the table that e is made of, shape (b, k).
    """

    e: Float[Array, "b e"] | None
    maps: tuple[Float[Array, "b h w f"], ...] = ()
    words: Words | None = None
    weights: Float[Array, "b k"] | None = None


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


def withheld(told: Embedding, heeded: Float[Array, " b"]) -> Embedding:
    """What is told of a batch of conditions, zeros where a condition is not heeded."""

    def one(told: Array) -> Array:
        return told * heeded.reshape(-1, *(1,) * (told.ndim - 1)).astype(told.dtype)

    return jax.tree.map(one, told)
