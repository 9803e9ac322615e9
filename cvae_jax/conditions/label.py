"""A class as condition, and the table that embeds it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cvae_jax.conditions.base import Condition
from cvae_jax.conditions.text import text_of
from cvae_jax.errors import DataError
from cvae_jax.nn.embedding import Embedding

if TYPE_CHECKING:
    from jax.typing import DTypeLike
    from jaxtyping import Array, Float, Int, Shaped

# The model has an embedding for every label up to the largest.
_LARGEST_LABEL = 2**20 - 1


@dataclasses.dataclass(frozen=True)
class Label(Condition):
    """A class. c has shape (n,), int32, from 0 to num_classes − 1.

    Attributes:
      num_classes: 0 for as many as the data have.

    Example:
      >>> Label().of_data(np.array([0, 2, 2]))
      (Label(num_classes=3), array([0, 2, 2], dtype=int32))
      >>> Label().of_data(np.array(["red", "blue", "red"]))
      (Label(num_classes=2), array([1, 0, 1], dtype=int32))
    """

    num_classes: int = 0

    @property
    def features(self) -> int:
        """Size of the embedding."""
        return LabelEmbedding.features

    def of_data(self, raw: Shaped[np.ndarray, " n"]) -> tuple[Self, Int[np.ndarray, " n"]]:
        """The number of classes, and labels: whole numbers as they are, names by their place in the alphabet.

        Args:
          raw: whole numbers ≥ 0 or names of classes, shape (n,).

        Raises:
          DataError: if they are neither, or too large.
        """
        if raw.ndim != 1 or raw.dtype.kind not in "biuUS":
            raise DataError(
                f"the label is {raw.dtype} of shape {raw.shape}, expected whole numbers or names of shape (n,)"
            )
        if raw.dtype.kind in "US":
            classes, labels = np.unique(raw, return_inverse=True)
            num_classes = len(classes)
        else:
            labels = raw
            num_classes = int(raw.max(initial=0)) + 1
        most = self.num_classes or _LARGEST_LABEL + 1
        if num_classes > most or (labels < 0).any():
            raise DataError(
                f"the label runs from {labels.min()} to {labels.max()}, expected whole numbers from 0 to {most - 1}"
            )
        return dataclasses.replace(self, num_classes=self.num_classes or num_classes), labels.astype(np.int32)

    def blank(self, n: int) -> Int[np.ndarray, " n"]:
        """n labels 0."""
        return np.zeros(n, np.int32)

    def encoder(self, dtype: DTypeLike) -> LabelEmbedding:
        """A table of vectors."""
        return LabelEmbedding(self.num_classes)

    def value_names(self, raw: Shaped[np.ndarray, " n"]) -> tuple[str, ...]:
        """The names of the classes: their numbers, where they have no other.

        Example:
          >>> Label().value_names(np.array(["red", "blue", "red"]))
          ('blue', 'red')
        """
        if raw.dtype.kind in "US":
            return tuple(text_of(name, "the condition") for name in np.unique(raw))
        return tuple(map(str, range(self.of_data(raw)[0].num_classes)))

    def describe(self, c: Int[np.ndarray, " n"], names: Sequence[str] = ()) -> list[str]:
        """The names of the classes, or their numbers.

        Example:
          >>> Label(2).describe(np.array([1, 0]), ("blue", "red")), Label(2).describe(np.array([1, 0]))
          (['red', 'blue'], ['1', '0'])
        """
        return [names[int(label)] if names else str(label) for label in np.asarray(c)]


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
