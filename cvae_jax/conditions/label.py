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


@dataclasses.dataclass(frozen=True)
class Label(Condition):
    """A class. c has shape (n,), int32, from 0 to num_classes − 1.

    Attributes:
      num_classes: 0 for as many as the data have.
      values: the numbers that the classes have in the data, ascending; empty where they are 0 to num_classes − 1.

    Example:
      >>> Label().of_data(np.array([3, 7, 7]))
      (Label(num_classes=2), array([0, 1, 1], dtype=int32))
      >>> Label().of_data(np.array(["red", "blue", "red"]))
      (Label(num_classes=2), array([1, 0, 1], dtype=int32))
    """

    num_classes: int = 0
    values: tuple[int, ...] = dataclasses.field(default=(), repr=False)

    @property
    def features(self) -> int:
        """Size of the embedding."""
        return LabelEmbedding.features

    def of_data(self, raw: Shaped[np.ndarray, " n *k"]) -> tuple[Self, Int[np.ndarray, " n"]]:
        """The condition with the classes of the data, and labels: the position of each value among the sorted values.

        A label with `num_classes` but no `values` takes the numbers from 0 on as they are.

        Args:
          raw: whole numbers, booleans or names of classes, shape (n,) or (n, 1), or one-hot rows, shape (n, k).

        Raises:
          DataError: if they are none of these, or of another class.
        """
        if not is_label(raw):
            raise DataError(
                f"the label is {raw.dtype} of shape {raw.shape}, expected whole numbers or names of shape (n,), or "
                "one-hot rows (or --condition=vector)"
            )
        if raw.dtype.kind in "US":
            classes, labels = np.unique(raw, return_inverse=True)
            return self._of_places(labels.reshape(-1), len(classes))
        if raw.ndim == 2 and raw.shape[1] > 1:
            return self._of_places(raw.argmax(axis=1), raw.shape[1])
        numbers = raw.reshape(-1).astype(np.int64)
        if self.num_classes and not self.values:
            return self._of_places(numbers, self.num_classes)
        found = np.unique(numbers)
        values = np.array(self.values, np.int64) if self.values else found
        if (strange := np.setdiff1d(found, values)).size:
            expected = ", ".join(map(str, self.values))
            raise DataError(f"the label is {strange[0]}, expected one of {expected}")
        from_zero = np.array_equal(values, np.arange(len(values)))
        bound = dataclasses.replace(
            self, num_classes=len(values), values=() if from_zero else tuple(values.tolist())
        )
        return bound, np.searchsorted(values, numbers).astype(np.int32)

    def _of_places(self, labels: np.ndarray, num_classes: int) -> tuple[Self, Int[np.ndarray, " n"]]:
        """This condition of at least so many classes, and labels that are numbers from 0 on."""
        most = self.num_classes or num_classes
        if num_classes > most or (labels.size and not 0 <= labels.min() <= labels.max() < most):
            raise DataError(
                f"the label runs from {labels.min()} to {labels.max()}, expected whole numbers from 0 to {most - 1}"
            )
        return dataclasses.replace(self, num_classes=most), labels.astype(np.int32)

    def blank(self, n: int) -> Int[np.ndarray, " n"]:
        """n labels 0."""
        return np.zeros(n, np.int32)

    def encoder(self, dtype: DTypeLike) -> LabelEmbedding:
        """A table of vectors."""
        return LabelEmbedding(self.num_classes)

    def value_names(self, raw: Shaped[np.ndarray, " n *k"]) -> tuple[str, ...]:
        """The names of the classes, or their values if they have no names.

        Example:
          >>> Label().value_names(np.array(["red", "blue", "red"])), Label().value_names(np.array([3, 7]))
          (('blue', 'red'), ('3', '7'))
        """
        if raw.dtype.kind in "US":
            return tuple(text_of(name, "the condition") for name in np.unique(raw))
        bound = self.of_data(raw)[0]
        values = bound.values or range(bound.num_classes)
        of_booleans = raw.dtype.kind == "b" and (raw.ndim == 1 or raw.shape[1] == 1)
        return tuple(str(bool(value)) if of_booleans else str(value) for value in values)

    def describe(self, c: Int[np.ndarray, " n"], names: Sequence[str] = ()) -> list[str]:
        """The names of the classes, or their numbers.

        Example:
          >>> Label(2).describe(np.array([1, 0]), ("blue", "red")), Label(2).describe(np.array([1, 0]))
          (['red', 'blue'], ['1', '0'])
        """
        return [names[int(label)] if names else str(label) for label in np.asarray(c)]


def is_label(raw: np.ndarray) -> bool:
    """Whether an array can hold labels: names, whole numbers of any type, or one-hot rows.

    Example:
      >>> is_label(np.array([[3.0], [1.0]])), is_label(np.array([[0, 1], [1, 0]])), is_label(np.array([0.5]))
      (True, True, False)
    """
    if raw.ndim not in (1, 2) or raw.dtype.kind not in "biufUS":
        return False
    if raw.ndim == 1 or raw.shape[1] == 1:
        if raw.dtype.kind in "bUS":
            return True
        numbers = raw.astype(np.float64)
        # Larger numbers are no whole numbers of 64 bits.
        return bool(np.all((np.abs(numbers) < 2.0**63) & (numbers == np.round(numbers))))
    if raw.dtype.kind in "US":
        return False
    return bool(np.isin(raw, (0, 1)).all() and (raw.sum(axis=1) == 1).all())


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
