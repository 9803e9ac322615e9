"""A dataset as arrays in memory: three splits, and how the missing ones are held out."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float, Int, Num

# Splits that a dataset does not bring itself are drawn with this seed: they never depend on a run's settings.
_SPLIT_SEED = 0
_VALIDATION_FRACTION = 1 / 12  # 5,000 of MNIST's 60,000
_TEST_FRACTION = 0.2


class DataError(ValueError):
    """Data that cannot be used; its message is one line for a person."""


@dataclasses.dataclass(frozen=True)
class Split:
    """Examples of one split.

    Attributes:
      x: pixels, shape (n, H, W, C), uint8 from 0 to the dataset's `x_max`, or float32.
      c: labels, shape (n,), int32.
      factors: what the pixels were made from, where it is known: a whole number for each of the dataset's
        `factor_names`, shape (n, f), int32.
    """

    x: Num[np.ndarray, "n H W C"]
    c: Int[np.ndarray, " n"]
    factors: Int[np.ndarray, "n f"] | None = None

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.x)

    def take(self, rows: Int[np.ndarray, " m"]) -> Split:
        """The examples of the given rows."""
        return Split(self.x[rows], self.c[rows], None if self.factors is None else self.factors[rows])


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A dataset's three splits.

    Attributes:
      name: what a person calls it.
      train, validation, test: the splits; training sees the first, model selection the second.
      x_max: the value of x that stands for 1.
      class_names: what a person calls each label.
      factor_names: what a person calls each column of the splits' `factors`; empty where they have none.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    x_max: float
    class_names: tuple[str, ...]
    factor_names: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of x."""
        height, width, channels = self.train.x.shape[1:]
        return height, width, channels

    @property
    def levels(self) -> int:
        """Number of values of a whole-number pixel."""
        return round(self.x_max) + 1

    @property
    def num_classes(self) -> int:
        """Number of labels."""
        return len(self.class_names)


def unit(x: Num[np.ndarray, "*n"], x_max: float) -> Float[np.ndarray, "*n"]:
    """Pixels as float32 between 0 and 1."""
    return x.astype(np.float32) / np.float32(x_max)


def stratified_split(c: Int[np.ndarray, " n"], fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows kept and rows held out, every class in proportion; the same for the same labels.

    Args:
      c: labels, shape (n,).
      fraction: share to hold out, to the nearest example overall, but never all of a class.

    Returns:
      Rows kept and rows held out, both in ascending order.

    Example:
      >>> kept, held_out = stratified_split(np.array([0, 0, 0, 0, 1, 1]), 0.5)
      >>> len(kept), len(held_out)
      (3, 3)
    """
    rng = np.random.default_rng(_SPLIT_SEED)
    labels, counts = np.unique(c, return_counts=True)
    quotas = np.floor(fraction * counts).astype(int)
    left_over = round(fraction * len(c)) - quotas.sum()
    quotas[np.argsort(quotas - fraction * counts, kind="stable")[:left_over]] += 1
    quotas = np.minimum(quotas, counts - 1)
    held_out = np.zeros(len(c), bool)
    for label, quota in zip(labels, quotas, strict=True):
        held_out[rng.permutation(np.flatnonzero(c == label))[:quota]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def with_splits(
    name: str,
    train: Split,
    validation: Split | None,
    test: Split | None,
    x_max: float,
    class_names: tuple[str, ...],
    factor_names: tuple[str, ...] = (),
) -> Dataset:
    """A dataset whose missing splits are held out of train, stratified: the test split first."""
    if test is None:
        kept, held_out = stratified_split(train.c, _TEST_FRACTION)
        train, test = train.take(kept), train.take(held_out)
    if validation is None:
        kept, held_out = stratified_split(train.c, _VALIDATION_FRACTION)
        train, validation = train.take(kept), train.take(held_out)
    return Dataset(name, train, validation, test, x_max, class_names, factor_names)
