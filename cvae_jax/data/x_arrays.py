"""How arrays x are read: which axis holds channels, and which value stands for 1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from cvae_jax.errors import DataError
from cvae_jax.nn.conv import MOST_COLOURS

# Whole numbers of at most this are 8-bit pixels, and those below half of it are scaled by their own maximum.
_LARGEST_BYTE = 255


class Read(NamedTuple):
    """x of all splits as training takes it.

    Attributes:
      x: of each split, shape (n, *dims), channels last, uint8 or float32.
      x_max: the value that stands for 1.
      how: how it was read, in words.
    """

    x: dict[str, np.ndarray]
    x_max: float
    how: str


def read_x(where: str, x: Mapping[str, np.ndarray], channels_last: bool | None = None) -> Read:
    """Read x of all splits.

    Whole numbers from 0 to 255 are pixels; if none is above 127 their maximum stands for 1. Larger ones are scaled by
    their maximum, negative ones and floats stay as they are.

    Args:
      where: what errors call the source of the arrays.
      x: of each split, train among them, shape (n, *dims), of booleans, whole numbers or floats.
      channels_last: whether the last axis holds channels; None if it does where images have at most 4.

    Returns:
      The arrays with a channel axis, and how they were read.

    Raises:
      DataError: naming the array that cannot be used, and what was expected.

    Example:
      >>> read_x("own", {"train": np.array([[0, 1], [1, 1]], np.uint8)}).how
      'uint8 of 0 and 1 as 0 and 1'
      >>> read_x("own", {"train": np.arange(34).reshape(2, 17)})[1:]
      (33.0, 'int64 0–33 scaled to [0, 1]')
    """
    for split, array in x.items():
        _require_numbers(array, f"{where}: x_{split}")
    train = x["train"]
    for split, array in x.items():
        if array.shape[1:] != train.shape[1:]:
            raise DataError(
                f"{where}: x_{split} has shape {_shape(array)}, expected {_shape(train)} as x_train"
            )
        if (array.dtype.kind == "f") != (train.dtype.kind == "f"):
            raise DataError(f"{where}: x_{split} is {array.dtype}, expected {train.dtype} as x_train")
    dtype, x_max, how = _scale(list(x.values()))
    with np.errstate(over="ignore"):  # What float32 does not hold is refused as infinite.
        read = {split: _with_channels(array, channels_last).astype(dtype) for split, array in x.items()}
    return Read(read, x_max, how)


def _shape(array: np.ndarray) -> str:
    return f"(n, {', '.join(map(str, array.shape[1:]))})"


def _require_numbers(array: np.ndarray, what: str) -> None:
    if array.ndim < 2 or 0 in array.shape[1:]:
        raise DataError(
            f"{what} has shape {array.shape}, expected (n, d) of vectors, (n, H, W) or (n, H, W, C) of images, or more "
            "axes after n"
        )
    if array.dtype.kind not in "buif":
        raise DataError(f"{what} is {array.dtype}, expected booleans, whole numbers or floats")


def _with_channels(array: np.ndarray, channels_last: bool | None) -> np.ndarray:
    """The array with an axis of channels at the end."""
    if channels_last is None:
        channels_last = array.ndim == 4 and array.shape[-1] <= MOST_COLOURS
    return array if channels_last else array[..., None]


def _scale(arrays: list[np.ndarray]) -> tuple[type, float, str]:
    """The type to store, the value that stands for 1, and both in words."""
    kind = arrays[0].dtype
    filled = [array for array in arrays if array.size]
    if kind.kind == "b":
        return np.uint8, 1.0, "bool as 0 and 1"
    if not filled:
        return np.float32, 1.0, f"{kind} as it is"
    low, high = min(array.min() for array in filled), max(array.max() for array in filled)
    if kind.kind == "f" or low < 0:
        return np.float32, 1.0, f"{kind} {low:.3g} to {high:.3g} as it is".replace("-", "−")
    if high == 1:
        return np.uint8, 1.0, f"{kind} of 0 and 1 as 0 and 1"
    dtype = np.uint8 if high <= _LARGEST_BYTE else np.float32
    x_max = _LARGEST_BYTE if high == 0 or _LARGEST_BYTE // 2 < high <= _LARGEST_BYTE else int(high)
    return dtype, float(x_max), f"{kind} 0–{x_max} scaled to [0, 1]"
