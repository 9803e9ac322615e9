"""Datasets of arrays in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from cvae_jax.conditions import Condition, Image, Label, Several, Text, Vector
from cvae_jax.conditions.label import is_label
from cvae_jax.data.checks import checksums, require_examples, require_seen
from cvae_jax.data.dataset import Dataset, Split, with_splits
from cvae_jax.data.x_arrays import read_x
from cvae_jax.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    Conditions = ArrayLike | Mapping[str, ArrayLike] | None

# Fewer examples per value than these are texts, not names of classes, and no labels of any kind.
_EXAMPLES_PER_NAME = 5
_EXAMPLES_PER_CLASS = 2
# In the place of a split: conditions of the training split that are true of the same examples.
ALTERNATIVE = "alternative_train"
# Types of arrays that may differ between splits: none of one group and another.
_GROUPS = {"U": "text", "S": "bytes", "f": "floating", "i": "whole", "u": "whole", "b": "whole"}


class Named(NamedTuple):
    """One condition of a dataset, as it is before it is bound to the data.

    Attributes:
      name: of its arrays.
      condition: what it is made of.
      raw: its array of each split, and under `alternative_train` where there is one.
      values: names of its classes, empty for those that the data have.
    """

    name: str
    condition: Condition
    raw: Mapping[str, np.ndarray]
    values: tuple[str, ...] = ()


def from_arrays(
    x: ArrayLike,
    c: Conditions = None,
    *,
    validation: tuple[ArrayLike, Conditions] | None = None,
    test: tuple[ArrayLike, Conditions] | None = None,
    condition: Condition | Mapping[str, Condition] | None = None,
    class_names: Sequence[str] | Mapping[str, Sequence[str]] = (),
    channels_last: bool | None = None,
    name: str = "own data",
) -> Dataset:
    """A dataset of arrays.

    Args:
      x: numbers of any shape (n, *dims): vectors (n, d), images (n, H, W) or (n, H, W, C), series, volumes. Booleans
        and whole numbers from 0 on are scaled to [0, 1], floats stay as they are.
      c: conditions: whole numbers of any type, shape (n,) or (n, 1), one-hot rows and words that repeat are labels;
        other numbers, shape (n, k) or (n,), a vector; other strings texts; anything else of shape (n, H, W) or
        (n, H, W, C) images; a dictionary of these several conditions at once; None, for a plain VAE.
      validation, test: x and c of these splits. Where they are missing, 1/12 and 1/5 are held out, stratified by label.
      condition: what c is made of, where its type does not show it: `Text()` for words that repeat, `Audio()`, or a
        condition of your own; of several conditions a dictionary.
      class_names: what a person calls each label, from 0 or from the smallest on; of several conditions a dictionary.
      channels_last: whether the last axis of x holds channels; if not given, it does in x of four axes with at most 4
        there.
      name: what a person calls the dataset.

    Returns:
      The dataset; training standardizes vectors and audio, and binarizes pixels where the likelihood needs it.

    Raises:
      DataError: naming the array that cannot be used, and what was expected.

    Example:
      >>> data = from_arrays(np.zeros((20, 8, 8), np.uint8), np.arange(20) % 2)
      >>> data.condition, len(data.train), data.train.x.shape[1:]
      (Label(num_classes=2), 15, (8, 8, 1))
    """
    given = {"train": (x, c)} | {
        k: v for k, v in (("validation", validation), ("test", test)) if v is not None
    }
    raw = {split: _named(pair[1], f"{name}: c_{split}") for split, pair in given.items()}
    for split, arrays in raw.items():
        if arrays.keys() != raw["train"].keys():
            raise DataError(
                f"{name}: c_{split} has {_list(arrays)}, expected {_list(raw['train'])} as c_train"
            )
    several = isinstance(c, Mapping)
    of_x = condition if isinstance(condition, Condition) and condition.reads_x else None
    chosen = _by_name(None if of_x else condition, several, "condition")
    values = _by_name(class_names or None, several, "class_names")
    for each in (*chosen, *values):
        if each not in raw["train"]:
            raise DataError(f"{name}: c_train has {_list(raw['train'])}, expected {each}")
    named = []
    for each, array in raw["train"].items():
        part = chosen[each] if each in chosen else infer(array, f"{name}: {each}_train")
        by_split = {split: arrays[each] for split, arrays in raw.items()}
        named.append(Named(each, part, by_split, tuple(values.get(each, ()))))
    images = {split: np.asarray(pair[0]) for split, pair in given.items()}
    dataset = assemble(name, name, images, named, several, channels_last=channels_last)
    if of_x is not None:
        dataset = dataclasses.replace(dataset, condition=of_x, names=())
    require_examples(dataset)
    return dataclasses.replace(dataset, checksums=checksums(dataset))


def _list(names: Iterable[str]) -> str:
    return ", ".join(names) or "no conditions"


def _named(c: Conditions, where: str) -> dict[str, np.ndarray]:
    """Conditions by name: `c`, where there is but one."""
    if c is None:
        return {}
    return {name: _array(each, where) for name, each in (c.items() if isinstance(c, Mapping) else [("c", c)])}


def _array(values: Any, where: str) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype != object:
        return array
    if all(isinstance(value, str) for value in array.flat):
        return array.astype(str)
    raise DataError(f"{where} has Python objects, expected numbers or strings")


def _by_name(choice: Any, several: bool, what: str) -> dict[str, Any]:
    """A choice for each condition: a dictionary where there are several."""
    if choice is None:
        return {}
    if isinstance(choice, Several):
        choice = dict(choice.parts)
    if several != isinstance(choice, Mapping):
        expected = "a dictionary, as c is" if several else "no dictionary, as c is none"
        raise DataError(f"{what} is a {type(choice).__name__}, expected {expected}")
    return dict(choice) if several else {"c": choice}


def infer(raw: np.ndarray, where: str) -> Condition:
    """What an array of conditions is made of, unbound.

    Example:
      >>> infer(np.array(["two", "one"]), "c"), infer(np.array(["two", "one"] * 9), "c")
      (Text(length=0), Label(num_classes=0))
      >>> infer(np.array([[0.5, 1.0]]), "c"), infer(np.array([3.0, 7.0]), "c")
      (Vector(size=0), Label(num_classes=0))

    Raises:
      DataError: if its type does not show it.
    """
    if raw.dtype.kind in "US":
        return Label() if _names_classes(raw) else Text()
    if is_label(raw):
        return Label()
    if raw.ndim in (1, 2) and raw.dtype.kind in "fiub":
        return Vector()
    if raw.ndim in (3, 4):
        return Image()
    raise DataError(
        f"{where} is {raw.dtype} of shape {raw.shape}, expected labels, numbers, texts or images, with a leading axis "
        "of examples"
    )


def _names_classes(raw: np.ndarray) -> bool:
    """Whether strings are names of classes: single words, each of several examples."""
    found = np.unique(raw)
    spaced = any(len(each.split()) != 1 for each in found)
    return raw.size >= _EXAMPLES_PER_NAME * len(found) and not spaced


def repeat(labels: np.ndarray) -> bool:
    """Whether examples share labels: at least 2 examples per class on average, or all of one class."""
    count = len(np.unique(labels, axis=0))
    return count < 2 or len(labels) >= _EXAMPLES_PER_CLASS * count


def assemble(
    name: str,
    where: str,
    x: Mapping[str, np.ndarray],
    named: Sequence[Named],
    several: bool,
    factors: Mapping[str, np.ndarray] | None = None,
    factor_names: tuple[str, ...] = (),
    channels_last: bool | None = None,
) -> Dataset:
    """A dataset of raw arrays: checked, and its conditions bound to them.

    Args:
      name: of the dataset.
      where: what errors call the source of the arrays.
      x: of each split, train among them.
      named: the conditions, with arrays of each split that x has.
      several: whether c is a dictionary.
      factors: of each split that x has.
      factor_names: of their columns.
      channels_last: as of `from_arrays`.

    Raises:
      DataError: naming the array that cannot be used, and what was expected.
    """
    images, x_max, how = read_x(where, x, channels_last)
    made = {each.name: _bound(where, each, images) for each in named}

    def c_of(split: str) -> Any:
        if not made:
            return np.zeros(len(images[split]), np.int32)
        by_name = {each: found.c[split] for each, found in made.items()}
        return by_name if several else next(iter(by_name.values()))

    with_alternative = any(ALTERNATIVE in each.raw for each in named)
    splits = {
        split: Split(
            images[split],
            c_of(split),
            None if factors is None else factors[split],
            c_of(ALTERNATIVE) if with_alternative and split == "train" else None,
        )
        for split in images
    }
    parts = tuple((each, found.condition) for each, found in made.items())
    names = {each: found.names for each, found in made.items() if found.names}
    return with_splits(
        name,
        splits["train"],
        splits.get("validation"),
        splits.get("test"),
        x_max,
        Several(parts) if several else parts[0][1] if parts else None,
        names if several else next(iter(names.values()), ()),
        factor_names,
        how,
    )


class _Bound(NamedTuple):
    """A condition bound to its data.

    Attributes:
      condition: what c is made of.
      c: of each split, and of the alternative.
      names: of its values.
    """

    condition: Condition
    c: dict[str, Any]
    names: tuple[str, ...]


def _bound(where: str, named: Named, images: Mapping[str, np.ndarray]) -> _Bound:
    """A condition bound to its arrays of all splits together."""
    for split, array in named.raw.items():
        pixels = "x_train" if split == ALTERNATIVE else f"x_{split}"
        n = len(images[pixels.removeprefix("x_")])
        if array.ndim == 0 or len(array) != n:
            raise DataError(
                f"{where}: {pixels} has {n} examples and {named.name}_{split} has shape {array.shape}"
            )
    condition, values = named.condition, named.values
    together = _joined(list(named.raw.values()), f"{where}: {named.name}")
    if isinstance(condition, Label):
        condition = _of_classes(condition, together, len(values))
    try:
        condition, c = condition.of_data(together)
    except DataError as error:
        raise DataError(f"{where}: {named.name}: {error}") from None
    by_split, start = {}, 0
    for split, array in named.raw.items():
        rows = slice(start, start + len(array))
        by_split[split], start = jax.tree.map(lambda a, rows=rows: a[rows], c), rows.stop
    # Where other conditions have an alternative and this one has none, it stays as it is.
    by_split.setdefault(ALTERNATIVE, by_split["train"])
    if isinstance(condition, Label):
        if not repeat(c):
            raise DataError(
                f"{where}: {named.name} has {len(np.unique(c))} classes among {len(c)} examples, expected at least "
                f"{_EXAMPLES_PER_CLASS} examples per class (or, for numbers, --condition=vector; for texts, "
                "--condition=text)"
            )
        values = values or condition.value_names(together)
        for split in by_split:
            require_seen(by_split["train"], by_split[split], values, f"{where}: {named.name}_{split}")
    return _Bound(condition, by_split, values or condition.value_names(together))


def _of_classes(condition: Label, raw: np.ndarray, num_names: int) -> Label:
    """A label of as many classes as have names; by their sorted values, where these are not 0 to the last."""
    num_classes = num_names or condition.num_classes
    if is_label(raw) and raw.dtype.kind not in "US" and (raw.ndim == 1 or raw.shape[1] == 1):
        found = np.unique(raw)
        if len(found) and len(found) == num_classes and not 0 <= found.min() <= found.max() < num_classes:
            return Label()
    return dataclasses.replace(condition, num_classes=num_classes)


def _joined(arrays: Sequence[np.ndarray], where: str) -> np.ndarray:
    """The arrays of all splits as one, if they are alike."""
    shapes = {array.shape[1:] for array in arrays}
    if len(shapes) > 1:
        raise DataError(f"{where} has shapes {' and '.join(map(str, sorted(shapes)))}, expected one")
    kinds = {
        "uint8" if array.dtype == np.uint8 else _GROUPS.get(array.dtype.kind, "other") for array in arrays
    }
    # Bytes from 0 to 255 are no numbers from 0 to 1.
    if len(kinds) > 1 and not kinds <= {"floating", "whole"} and not kinds <= {"uint8", "whole"}:
        first, second, *_ = sorted(kinds, reverse=True)
        raise DataError(
            f"{where} is {first} in one split and {second} in another, expected one of them in all"
        )
    return np.concatenate(arrays)
