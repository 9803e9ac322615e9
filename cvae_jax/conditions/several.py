"""Several conditions of each example at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from cvae_jax.conditions.base import Condition
from cvae_jax.conditions.label import Label
from cvae_jax.nn.embedding import Embedding

if TYPE_CHECKING:
    from jax.typing import DTypeLike
    from jaxtyping import Array


@dataclasses.dataclass(frozen=True)
class Several(Condition):
    """Several conditions by name. c is a dictionary of their arrays.

    Attributes:
      parts: the name of each, and what it is made of.

    Example:
      >>> from cvae_jax.conditions.text import Text, encode_text
      >>> both = Several((("text", Text(3)), ("colour", Label(5))))
      >>> both.name, both.features
      ('text,label', 288)
      >>> both.blank(1)
      {'text': array([[0, 0, 0]], dtype=uint8), 'colour': array([0], dtype=int32)}
      >>> c = {"text": encode_text(["one", "two"], 3), "colour": np.array([4, 0])}
      >>> both.describe(c), both.describe(c, {"colour": ("red", "blue", "green", "grey", "pink")})
      (['one, colour 4', 'two, colour 0'], ['one, pink', 'two, red'])
    """

    parts: tuple[tuple[str, Condition], ...]

    @property
    def name(self) -> str:
        """The names of the kinds, separated by commas."""
        return ",".join(part.name for _, part in self.parts)

    @property
    def features(self) -> int:
        """Size of all embeddings together."""
        return sum(part.features for _, part in self.parts)

    def of_data(self, raw: Mapping[str, np.ndarray]) -> tuple[Self, dict[str, Any]]:
        """These conditions with the fields that depend on the data filled in, and c made from the data.

        Args:
          raw: by name what `of_data` of each condition takes.
        """
        bound = {name: part.of_data(raw[name]) for name, part in self.parts}
        parts = tuple((name, part) for name, (part, _) in bound.items())
        return dataclasses.replace(self, parts=parts), {name: c for name, (_, c) in bound.items()}

    def blank(self, n: int) -> dict[str, Any]:
        """n conditions of zeros."""
        return {name: part.blank(n) for name, part in self.parts}

    def encoder(self, dtype: DTypeLike) -> SeveralEncoders:
        """The encoders of all, side by side."""
        return SeveralEncoders(self.parts, dtype)

    def describe(self, c: Mapping[str, Any], names: Mapping[str, Sequence[str]] | None = None) -> list[str]:
        """The titles of the values, separated by commas. A class without a name is shown as its number."""
        known = dict(names or {})

        def titles(name: str, part: Condition) -> list[str]:
            found = part.describe(c[name], known.get(name, ()))
            nameless = isinstance(part, Label) and not known.get(name)
            return [f"{name} {title}" for title in found] if nameless else found

        each = [titles(name, part) for name, part in self.parts]
        return [", ".join(title for title in row if title) for row in zip(*each, strict=True)]


def parts_of(condition: Condition | None) -> tuple[Condition, ...]:
    """The single conditions in this one: those of `Several`, the condition itself, or an empty tuple for None."""
    if condition is None:
        return ()
    return tuple(part for _, part in condition.parts) if isinstance(condition, Several) else (condition,)


class SeveralEncoders(nn.Module):
    """The encoders of several conditions: their embeddings side by side, and the maps of all.

    Attributes:
      parts: the name of each condition, and what it is made of.
      dtype: of the matrix products.
    """

    parts: tuple[tuple[str, Condition], ...]
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Build the encoder of each."""
        self.encoders = {name: part.encoder(self.dtype) for name, part in self.parts}

    def __call__(self, c: Mapping[str, Array]) -> Embedding:
        """Embed a batch of conditions by name."""
        each = [self.encoders[name](c[name]) for name, _ in self.parts]
        maps = tuple(m for embedding in each for m in embedding.maps)
        tokens = tuple(t for embedding in each for t in embedding.tokens)
        return Embedding(jnp.concatenate([embedding.e for embedding in each], axis=-1), maps, tokens=tokens)
