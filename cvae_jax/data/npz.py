"""A dataset of one's own: an `.npz` of arrays."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from cvae_jax.conditions.kinds import Condition, Label
from cvae_jax.data.cache import UNREADABLE, read_npz
from cvae_jax.data.dataset import Dataset, Split, with_splits
from cvae_jax.data.preprocessing import made_of, text_of
from cvae_jax.errors import DataError

_SPLITS = ("train", "validation", "test")
# The model has an embedding for every label up to the largest.
_LARGEST_LABEL = 2**20 - 1


def from_npz(path: Path, conditions: tuple[str, ...], features: tuple[str, ...] = ()) -> Dataset:
    """Arrays `x_train`, `c_train` and optionally `x_`, `c_validation` and `x_`, `c_test`, and factors of each.

    Several conditions are arrays of their own names, `text_train` and so on, or of the names given. `c_reworded`, or
    `text_reworded`, says what `c_train` or `text_train` says, in other words.

    Args:
      path: the file.
      conditions: what each is: `label`, `vector`, `image`, `text`, `audio`; or one of `none` and `observed`.
      features: names of their arrays, without `_train`.

    Returns:
      The dataset; splits that the file lacks are held out of train.

    Raises:
      DataError: if the file or its arrays cannot be used.
    """
    try:
        arrays = read_npz(path)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist, expected an .npz with x_train and c_train") from None
    except UNREADABLE as error:
        why = str(error).strip().partition("\n")[0] or type(error).__name__
        raise DataError(f"{path} cannot be read as .npz with plain arrays: {why}") from None

    found = ", ".join(sorted(arrays)) or "nothing"

    by_label = conditions in (("label",), ("none",), ("observed",)) and not features
    kinds, given, names = (None, None, None) if by_label else _given(path, arrays, conditions, features)

    def split(name: str) -> Split | None:
        x, c = arrays.get(f"x_{name}"), arrays.get(f"c_{name}")
        if x is None:
            if name == "train":
                raise DataError(f"{path} has no x_train, expected it beside c_train; it holds {found}")
            if c is not None:
                raise DataError(f"{path} has c_{name} but no x_{name}")
            return None
        if given is not None:
            known = _factors(path, name, len(x), arrays)
            reworded = given.get("reworded") if name == "train" else None
            return Split(_pixels(path, name, x), given[name], known, reworded)
        if c is None:
            if conditions == ("label",):
                raise DataError(f"{path} has no c_{name}, expected labels of x_{name} (or --condition=none)")
            c = np.zeros(len(x), np.int32)
        labelled = _labelled_split(path, name, x, c)
        return dataclasses.replace(labelled, factors=_factors(path, name, len(x), arrays))

    train, validation, test = split("train"), split("validation"), split("test")
    assert train is not None
    for name, other in (("validation", validation), ("test", test)):
        if other is not None and other.x.shape[1:] != train.x.shape[1:]:
            raise DataError(
                f"{path}: x_{name} has images of shape {other.x.shape[1:]}, expected {train.x.shape[1:]} as x_train"
            )
        if other is not None and other.x.dtype != train.x.dtype:
            raise DataError(f"{path}: x_{name} is {other.x.dtype}, expected {train.x.dtype} as x_train")
    x_max = 255.0 if train.x.dtype == np.uint8 else 1.0
    if kinds is None:
        class_names = tuple(str(i) for i in range(int(train.labels.max(initial=0)) + 1))
    elif isinstance(kinds, Label):
        assert names is not None
        (class_names,), kinds = names.values(), None
    else:
        class_names = ()
    factor_names = _factor_names(path, train, arrays)
    return with_splits(path.stem, train, validation, test, x_max, class_names, factor_names, kinds, names)


def _pixels(path: Path, name: str, x: np.ndarray) -> np.ndarray:
    if x.ndim == 3:
        x = x[..., None]
    if x.ndim != 4 or 0 in x.shape[1:]:
        raise DataError(f"{path}: x_{name} has shape {x.shape}, expected (n, H, W) or (n, H, W, C)")
    if np.issubdtype(x.dtype, np.floating):
        with np.errstate(over="ignore"):  # What float32 does not hold is refused as infinite.
            return x.astype(np.float32)
    if x.dtype != np.uint8:
        raise DataError(f"{path}: x_{name} is {x.dtype}, expected uint8 (0 to 255) or floating (0 to 1)")
    return x


def _labelled_split(path: Path, name: str, x: np.ndarray, c: np.ndarray) -> Split:
    x = _pixels(path, name, x)
    if c.ndim != 1 or len(x) != len(c):
        raise DataError(
            f"{path}: x_{name} has {len(x)} examples and c_{name} has shape {c.shape}, expected ({len(x)},)"
        )
    if not np.issubdtype(c.dtype, np.integer):
        raise DataError(f"{path}: c_{name} is {c.dtype}, expected whole numbers")
    if c.size and not -_LARGEST_LABEL <= int(c.min()) <= int(c.max()) <= _LARGEST_LABEL:
        raise DataError(
            f"{path}: c_{name} has labels from {c.min()} to {c.max()}, expected from 0 to {_LARGEST_LABEL}"
        )
    return Split(x, c.astype(np.int32))


def _factors(path: Path, name: str, n: int, arrays: dict[str, np.ndarray]) -> np.ndarray | None:
    """The factors of a split, as wide as those of train; None where the file has none at all."""
    factors = arrays.get(f"factors_{name}")
    if factors is None:
        if any(other.startswith("factors_") for other in arrays):
            raise DataError(
                f"{path} has no factors_{name}, expected factors of x_{name} as of the other splits"
            )
        return None
    if factors.ndim != 2 or len(factors) != n or factors.shape[1:] != arrays["factors_train"].shape[1:]:
        raise DataError(
            f"{path}: factors_{name} has shape {factors.shape}, expected ({n}, f), f the same in all splits"
        )
    if not np.issubdtype(factors.dtype, np.integer):
        raise DataError(f"{path}: factors_{name} is {factors.dtype}, expected whole numbers")
    if factors.size and not -(2**31) <= int(factors.min()) <= int(factors.max()) < 2**31:
        raise DataError(
            f"{path}: factors_{name} has values from {factors.min()} to {factors.max()}, expected those of int32"
        )
    return factors.astype(np.int32)


def _factor_names(path: Path, train: Split, arrays: dict[str, np.ndarray]) -> tuple[str, ...]:
    """`factor_names`, or a number for each factor."""
    count = 0 if train.factors is None else train.factors.shape[1]
    given = arrays.get("factor_names", np.arange(count))
    given = given.astype(str) if given.dtype.kind in "iu" else given
    if given.dtype.kind not in "US" or given.ndim > 1:
        raise DataError(
            f"{path}: factor_names is {given.dtype} of shape {given.shape}, expected {count} names"
        )
    names = tuple(text_of(name, f"{path}: factor_names") for name in np.atleast_1d(given))
    if len(names) != count:
        raise DataError(
            f"{path}: factor_names has {len(names)} names, expected one for each of {count} factors"
        )
    return names


def _given(
    path: Path, arrays: dict[str, np.ndarray], conditions: tuple[str, ...], features: tuple[str, ...]
) -> tuple[Condition, dict[str, Any], dict[str, tuple[str, ...]]]:
    """What the conditions are made of, those of each split, and names of classes, by the names of their arrays.

    Where an array is there in other words, those are conditions of one more split, `reworded`; what is not says there
    what it says in train.
    """
    alone = len(conditions) == 1 and not features
    names = ("c",) if alone else features or conditions
    rewords = {name for name in names if f"{name}_reworded" in arrays}
    images = {split: f"x_{split}" for split in _SPLITS if f"x_{split}" in arrays}
    if rewords:
        images["reworded"] = "x_train"
    kinds, class_names, by_split = [], {}, {split: {} for split in images}
    for name, condition in zip(names, conditions, strict=True):
        wanted = {split: f"{name}_{split}" for split in images}
        if name not in rewords and "reworded" in wanted:
            wanted["reworded"] = wanted["train"]
        missing = [array for array in wanted.values() if array not in arrays]
        if missing:
            raise DataError(
                f"{path} has no {missing[0]}, expected the {condition} that is its condition; it holds "
                f"{', '.join(sorted(arrays))}"
            )
        raw = {split: arrays[array] for split, array in wanted.items()}
        for split, array in raw.items():
            n = len(arrays[images[split]])
            if array.ndim == 0 or len(array) != n:
                raise DataError(
                    f"{path}: {images[split]} has {n} examples and {wanted[split]} has shape {array.shape}"
                )
        made = made_of(condition, raw, f"{path}: {name}")
        kinds.append((name, made.kind))
        class_names |= {name: made.names} if made.names else {}
        for split, array in made.c.items():
            by_split[split][name] = array
    if len(conditions) == 1:
        return kinds[0][1], {split: c[names[0]] for split, c in by_split.items()}, class_names
    return tuple(kinds), by_split, class_names
