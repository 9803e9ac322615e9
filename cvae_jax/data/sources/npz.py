"""A dataset of one's own: an `.npz` of arrays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cvae_jax.conditions import Condition, Label
from cvae_jax.conditions.label import is_label
from cvae_jax.conditions.text import text_of
from cvae_jax.data.arrays import ALTERNATIVE, Named, assemble, infer, repeat
from cvae_jax.data.dataset import SPLITS, Dataset
from cvae_jax.data.sources.cache import read_own_npz
from cvae_jax.errors import DataError

Arrays = Mapping[str, np.ndarray]


def from_npz(path: Path, condition: tuple[Condition, ...] | None, features: tuple[str, ...] = ()) -> Dataset:
    """Arrays `x_train`, `c_train` and optionally `x_` and `c_validation`, `x_` and `c_test`, and factors of each.

    Several conditions are arrays of their own names, `text_train` and so on, or of the names given. `class_names` or
    `label_names` holds the names of a label's classes, `channels_last` whether the last axis of x holds channels.
    `c_alternative_train`, or `text_alternative_train`, has for each example another condition that is true of it.

    Args:
      path: the file.
      condition: what each is made of; None for what its array's type shows; () for no condition, and labels only where
        the file has some.
      features: names of their arrays, without `_train`.

    Returns:
      The dataset; splits that the file lacks are held out of train.

    Raises:
      DataError: if the file or its arrays cannot be used.
    """
    arrays = read_own_npz(path, "with x_train and c_train")
    x = {split: arrays[f"x_{split}"] for split in SPLITS if f"x_{split}" in arrays}
    if "train" not in x:
        raise DataError(f"{path} has no x_train, expected it beside c_train; it holds {_names(arrays)}")
    for split in SPLITS:
        if f"c_{split}" in arrays and split not in x:
            raise DataError(f"{path} has c_{split} but no x_{split}")
    if condition is not None and all(each.reads_x for each in condition):
        named = _labels(path, arrays, x)
    else:
        named = _conditions(path, arrays, x, condition, features)
    factors, factor_names = _factors(path, arrays, x)
    channels_last = bool(arrays["channels_last"]) if "channels_last" in arrays else None
    return assemble(path.stem, str(path), x, named, len(named) > 1, factors, factor_names, channels_last)


def _names(arrays: Arrays) -> str:
    return ", ".join(sorted(arrays)) or "nothing"


def _conditions(
    path: Path,
    arrays: Arrays,
    x: Arrays,
    condition: tuple[Condition, ...] | None,
    features: tuple[str, ...],
) -> list[Named]:
    """The conditions, by the names of their arrays."""
    if features:
        names = features
    else:
        names = ("c",) if condition is None or len(condition) == 1 else tuple(part.name for part in condition)
    named = []
    for i, name in enumerate(names):
        of_split = {split: f"{name}_{split}" for split in x}
        if (alternative := f"{name}_{ALTERNATIVE}") in arrays:
            of_split[ALTERNATIVE] = alternative
        for array in of_split.values():
            if array not in arrays:
                what = (
                    "the condition" if condition is None else f"the {condition[i].name} that is its condition"
                )
                raise DataError(
                    f"{path} has no {array}, expected {what} (or --condition=none); it holds {_names(arrays)}"
                )
        raw = {split: arrays[array] for split, array in of_split.items()}
        part = infer(raw["train"], f"{path}: {name}_train") if condition is None else condition[i]
        values = _class_names(path, arrays, name, only=len(names) == 1) if isinstance(part, Label) else ()
        named.append(Named(name, part, raw, values))
    return named


def _class_names(path: Path, arrays: Arrays, name: str, *, only: bool) -> tuple[str, ...]:
    """The names of a label's classes, from `c_names` of c and so on; of the only condition also from `class_names`."""
    keys = (f"{name}_names", *(("class_names", "label_names") if only else ()))
    return next((_texts(path, key, arrays[key]) for key in keys if key in arrays), ())


def _texts(path: Path, key: str, given: np.ndarray) -> tuple[str, ...]:
    """An array of names."""
    given = given.astype(str) if given.dtype.kind in "iu" else given
    if given.dtype.kind not in "US" or given.ndim > 1:
        raise DataError(
            f"{path}: {key} is {given.dtype} of shape {given.shape}, expected names of shape (k,)"
        )
    return tuple(text_of(name, f"{path}: {key}") for name in np.atleast_1d(given))


def _labels(path: Path, arrays: Arrays, x: Arrays) -> list[Named]:
    """Labels on which nothing is conditioned, where all splits have them: evaluation compares classes."""
    raw = {split: arrays[f"c_{split}"] for split in x if f"c_{split}" in arrays}
    usable = len(raw) == len(x) and all(
        is_label(c) and c.shape[1:] == raw["train"].shape[1:] and np.isin(c, raw["train"]).all()
        for c in raw.values()
    )
    if not usable or not repeat(np.concatenate(list(raw.values()))):
        return []
    return [Named("c", Label(), raw, _class_names(path, arrays, "c", only=True))]


def _factors(path: Path, arrays: Arrays, x: Arrays) -> tuple[dict[str, np.ndarray] | None, tuple[str, ...]]:
    """The factors of each split, None where the file has none at all, and what each is called."""
    if not any(name.startswith("factors_") for name in arrays):
        return None, _factor_names(path, arrays, 0)
    factors = {}
    for split, images in x.items():
        array = arrays.get(f"factors_{split}")
        if array is None:
            raise DataError(
                f"{path} has no factors_{split}, expected factors of x_{split} as of the other splits"
            )
        width = arrays["factors_train"].shape[1:]
        n = len(images) if images.ndim else 0
        if array.ndim != 2 or len(array) != n or array.shape[1:] != width:
            raise DataError(
                f"{path}: factors_{split} has shape {array.shape}, expected ({n}, f), f the same in all splits"
            )
        if not np.issubdtype(array.dtype, np.integer):
            raise DataError(f"{path}: factors_{split} is {array.dtype}, expected whole numbers")
        if array.size and not -(2**31) <= int(array.min()) <= int(array.max()) < 2**31:
            raise DataError(
                f"{path}: factors_{split} has values from {array.min()} to {array.max()}, expected those of int32"
            )
        factors[split] = array.astype(np.int32)
    return factors, _factor_names(path, arrays, factors["train"].shape[1])


def _factor_names(path: Path, arrays: Arrays, count: int) -> tuple[str, ...]:
    """`factor_names`, or a number for each factor."""
    names = _texts(path, "factor_names", arrays.get("factor_names", np.arange(count)))
    if len(names) != count:
        raise DataError(
            f"{path}: factor_names has {len(names)} names, expected one for each of {count} factors"
        )
    return names
