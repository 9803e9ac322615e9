"""A dataset as arrays in memory: three splits, and how the missing ones are held out."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import jax
import numpy as np

from cvae_jax.conditions import Condition, Label, Several
from cvae_jax.conditions.text import text_of
from cvae_jax.errors import DataError

if TYPE_CHECKING:
    from jaxtyping import Float, Int, Num, Shaped

    Conditions = Shaped[np.ndarray, "n ..."] | dict[str, Shaped[np.ndarray, "n ..."]]

SPLITS = ("train", "validation", "test")

# Splits that a dataset does not bring itself are drawn with this seed: they never depend on a run's settings.
_SPLIT_SEED = 0
_VALIDATION_FRACTION = 1 / 12  # 5,000 of MNIST's 60,000
_TEST_FRACTION = 0.2


@dataclasses.dataclass(frozen=True)
class Split:
    """Examples of one split.

    Attributes:
      x: numbers, shape (n, *dims), channels last: (n, H, W, C) of images, (n, d, 1) of vectors; uint8 from 0 to
        the dataset's `x_max`, or float32.
      c: conditions, of the dataset's `condition`: an array, or several by name; zeros, shape (n,), int32, where it has
        none.
      factors: what the pixels were made from, where it is known: a whole number for each of the dataset's
        `factor_names`, shape (n, f), int32.
      alternative: for each example another condition that is true of it, where a training split has them.
    """

    x: Num[np.ndarray, " n *dims"]
    c: Conditions
    factors: Int[np.ndarray, "n f"] | None = None
    alternative: Conditions | None = None

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.x)

    @property
    def labels(self) -> Int[np.ndarray, " n"]:
        """c, of a dataset whose condition is a label.

        Raises:
          DataError: if c is anything else.
        """
        if isinstance(self.c, dict) or self.c.ndim != 1:
            raise DataError("the condition is no label, expected one: this compares classes")
        return self.c

    def take(self, rows: Int[np.ndarray, " m"]) -> Split:
        """The examples of the given rows."""

        fields = (self.x, self.c, self.factors, self.alternative)
        return Split(*jax.tree.map(lambda a: a[rows], fields))


@dataclasses.dataclass(frozen=True)
class Scaling:
    """How one condition of numbers is standardized: less the mean, over the deviation.

    Attributes:
      condition: what the numbers are made of before.
      kept: columns of a vector that vary; None for all numbers of a spectrogram.
      mean, deviation: of those columns, or of all numbers.
    """

    condition: Condition
    kept: tuple[int, ...] | None
    mean: np.ndarray
    deviation: np.ndarray

    def of(self, c: np.ndarray) -> np.ndarray:
        """The standardized condition, float32."""
        some = c if self.kept is None else c[:, list(self.kept)]
        return ((some - self.mean) / self.deviation).astype(np.float32)


class _Classes:
    """What follows from the names and the type of conditions."""

    x_max: float
    condition: Condition | None
    names: tuple[str, ...] | Mapping[str, tuple[str, ...]]

    @property
    def levels(self) -> int:
        """Number of values of a whole-number pixel."""
        return round(self.x_max) + 1

    @property
    def labelled(self) -> bool:
        """Whether c is a label."""
        return isinstance(self.condition, Label)

    @property
    def num_classes(self) -> int:
        """Number of labels; 0 where c is no label."""
        return self.condition.num_classes if isinstance(self.condition, Label) else 0

    @property
    def class_names(self) -> tuple[str, ...]:
        """What a person calls each label; empty where c is no label."""
        return tuple(self.names) if self.labelled else ()


@dataclasses.dataclass(frozen=True)
class Description(_Classes):
    """What a trained model has to know of the data it was trained on.

    Attributes:
      name: what a person calls the dataset.
      shape: of one x, channels last: (H, W, C) of an image, (d, 1) of a vector.
      x_max, condition, names, checksums, scalings: as of `Dataset`.
      limits: the values of x, over `x_max`, that pictures draw black and white.
      seen_classes: the labels that the training split has, ascending; none where c is no label.
    """

    name: str
    shape: tuple[int, ...]
    x_max: float
    condition: Condition | None
    names: tuple[str, ...] | Mapping[str, tuple[str, ...]] = ()
    checksums: Mapping[str, str] = dataclasses.field(default_factory=dict)
    scalings: Mapping[str, Scaling] = dataclasses.field(default_factory=dict)
    limits: tuple[float, float] = (0.0, 1.0)
    seen_classes: tuple[int, ...] = ()

    def pixels(self, x: Any) -> Float[np.ndarray, " n *dims"]:
        """x as the model takes it: float32, whole numbers over `x_max`.

        Args:
          x: shape (n, *dims), the channels last; one channel may be left out.

        Raises:
          DataError: if they have another shape.
        """
        x = np.asarray(x)
        if x.shape[1:] == self.shape[:-1] and self.shape[-1] == 1:
            x = x[..., None]
        if not x.ndim or x.shape[1:] != self.shape:
            raise DataError(f"x has shape {x.shape}, expected (n, {', '.join(map(str, self.shape))})")
        return unit(x, self.x_max) if np.issubdtype(x.dtype, np.integer) else x.astype(np.float32)

    def conditions(self, c: Any) -> Any:
        """Conditions as the model takes them, from values as they were in the data.

        Args:
          c: values with a leading axis; of classes with names also these; of several conditions a dictionary.

        Raises:
          DataError: if they cannot be of this condition: an unknown class, another shape, none at all, or of several
            conditions not as many of each.
        """
        if self.condition is None:
            raise DataError("c holds conditions, expected None: the model was trained without a condition")
        if not isinstance(self.condition, Several):
            found = self._one("", self.condition, c, self.names)
            _require_as_many({"c": found})
            return found
        if not isinstance(c, Mapping) or c.keys() != dict(self.condition.parts).keys():
            found = ", ".join(c) if isinstance(c, Mapping) else type(c).__name__
            expected = ", ".join(name for name, _ in self.condition.parts)
            raise DataError(f"c is {found}, expected a dictionary of {expected}")
        names = self.names if isinstance(self.names, Mapping) else {}
        each = {
            name: self._one(name, part, c[name], names.get(name, ())) for name, part in self.condition.parts
        }
        _require_as_many(each)
        return each

    def _one(self, name: str, condition: Condition, raw: Any, names: Any) -> Any:
        """The values of one condition."""
        raw, scaling = np.asarray(raw), self.scalings.get(name)
        if isinstance(condition, Label) and raw.dtype.kind in "US":
            return np.array([_place(text_of(each, "c"), names) for each in raw.flat], np.int32)
        if condition.reads_x:
            raw = self.pixels(raw)
        try:
            if scaling is None:
                return condition.of_data(raw)[1]
            return scaling.of(scaling.condition.of_data(raw)[1])
        except DataError as error:
            raise DataError(f"c: {name}: {error}" if name else f"c: {error}") from None


def _require_as_many(conditions: Mapping[str, np.ndarray]) -> None:
    """Refuse conditions that are not as many of each, or none."""
    numbers = {name: len(each) for name, each in conditions.items()}
    if len(set(numbers.values())) > 1:
        found = ", ".join(f"{count} of {name}" for name, count in numbers.items())
        raise DataError(f"c has {found}, expected as many of each")
    if not all(numbers.values()):
        raise DataError("c has no conditions, expected at least one")


def _place(name: str, names: Sequence[str]) -> int:
    if name not in names:
        raise DataError(f"c has the class {name!r}, expected one of {', '.join(names)}")
    return names.index(name)


@dataclasses.dataclass(frozen=True)
class Dataset(_Classes):
    """A dataset's three splits.

    Attributes:
      name: what a person calls it.
      train, validation, test: the splits; training sees the first, model selection the second.
      x_max: the value of x that stands for 1.
      condition: what c is made of, None without conditions.
      names: of the values of c, where they have names: of a label each class, of a text all there are; of several
        conditions a dictionary of these.
      factor_names: what a person calls each column of the splits' `factors`; empty where they have none.
      checksums: of each split's arrays as they were read, by its name; empty where nobody compares them.
      scalings: how conditions were standardized, by name; "" of a condition that is the only one.
      read_as: how x was read, in words.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    x_max: float
    condition: Condition | None
    names: tuple[str, ...] | Mapping[str, tuple[str, ...]] = ()
    factor_names: tuple[str, ...] = ()
    checksums: Mapping[str, str] = dataclasses.field(default_factory=dict)
    scalings: Mapping[str, Scaling] = dataclasses.field(default_factory=dict)
    read_as: str = ""

    @property
    def description(self) -> Description:
        """What a trained model has to know of its data."""
        return Description(
            self.name,
            self.shape,
            self.x_max,
            self.condition,
            self.names,
            self.checksums,
            self.scalings,
            self.limits,
            tuple(self.seen_classes.tolist()),
        )

    @functools.cached_property
    def limits(self) -> tuple[float, float]:
        """The values of x, over `x_max`, that pictures draw black and white: 0 and 1, or the least and the largest."""
        x = self.train.x
        if np.issubdtype(x.dtype, np.integer) or not x.size:
            return 0.0, 1.0
        low, high = float(x.min()) / self.x_max, float(x.max()) / self.x_max
        return (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)

    @property
    def splits(self) -> dict[str, Split]:
        """The splits by name."""
        return {name: getattr(self, name) for name in SPLITS}

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one x, channels last."""
        return self.train.x.shape[1:]

    @property
    def seen_classes(self) -> Int[np.ndarray, " k"]:
        """The labels that the training split has, ascending; none where c is no label."""
        return np.unique(self.train.labels) if self.labelled else np.zeros(0, np.int32)

    def measured_on(self, split: Literal["validation", "test"]) -> Dataset:
        """The dataset with a split in the place of test: for `validation`, the two change places."""
        if split == "test":
            return self
        return dataclasses.replace(self, validation=self.test, test=self.validation)


def as_in_data(x: Float[np.ndarray, " n *dims"]) -> Float[np.ndarray, "n ..."]:
    """What a model decodes, in the shape of the data: images keep their channel axis, anything else loses one of 1."""
    return x[..., 0] if x.ndim != 4 and x.shape[-1] == 1 else x


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
    condition: Condition | None,
    names: tuple[str, ...] | Mapping[str, tuple[str, ...]] = (),
    factor_names: tuple[str, ...] = (),
    read_as: str = "",
) -> Dataset:
    """A dataset whose missing splits are held out of train, stratified by label if it has any: the test split first."""

    def held_out(split: Split, fraction: float) -> tuple[Split, Split]:
        strata = split.labels if isinstance(condition, Label) else np.zeros(len(split), np.int32)
        kept, other = stratified_split(strata, fraction)
        return split.take(kept), split.take(other)

    if test is None:
        train, test = held_out(train, _TEST_FRACTION)
    if validation is None:
        train, validation = held_out(train, _VALIDATION_FRACTION)
    if not read_as:
        whole = np.issubdtype(train.x.dtype, np.integer)
        read_as = f"{train.x.dtype} " + (f"0–{x_max:g} scaled to [0, 1]" if whole else "as it is")
    return Dataset(name, train, validation, test, x_max, condition, names, factor_names, read_as=read_as)
