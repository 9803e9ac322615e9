"""Conditions as a person brings them, made into what the networks take."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cvae_jax.condition_kinds import Audio, Image, Kind, Label, Text, Vector, encode_text
from cvae_jax.dataset import DataError, Dataset, Split

if TYPE_CHECKING:
    from cvae_jax.dataset import Conditions

# A text is as long as the longest: beyond this a transformer over bytes is the wrong encoder.
_MOST_BYTES = 1024
_LEAST_SCALE = 1e-6


class Made(NamedTuple):
    """Conditions of one kind.

    Attributes:
      kind: what c is made of.
      c: by split.
      names: of its classes, if they have any.
    """

    kind: Kind
    c: dict[str, np.ndarray]
    names: tuple[str, ...] = ()


def made_of(condition: str, by_split: Mapping[str, np.ndarray], where: str) -> Made:
    """Conditions of one kind, checked.

    Args:
      condition: `label`, `vector`, `image`, `text` or `audio`.
      by_split: the arrays, `train` among them: whole numbers or names of classes, shape (n,); numbers of shape (n,) or
        (n, k); images of shape (n, H, W) or (n, H, W, C), uint8 or floating; texts, shape (n,); spectrograms of shape
        (n, frames, bands).
      where: what an error calls them.

    Returns:
      What c is made of, c of each split, and names of classes.

    Raises:
      DataError: if the arrays are of another kind.

    Example:
      >>> kind, c, _ = made_of("text", {"train": np.array(["a two", "one"])}, "texts")
      >>> kind, bytes(c["train"][1])
      (Text(length=5), b'one\\x00\\x00')
    """
    make = {"label": _labels, "vector": _vectors, "image": _images, "text": _texts, "audio": _spectrograms}
    return make[condition](by_split, where)


def standardized(dataset: Dataset) -> Dataset:
    """The same dataset, less the training split's mean and over its standard deviation where conditions are numbers.

    Each number of a vector has a mean and a deviation of its own, all of a spectrogram have one. Made of the splits as
    they are trained on: what is held out of train has no say.
    """

    def scaled(kind: Kind, of_train: np.ndarray, c: np.ndarray) -> np.ndarray:
        if not isinstance(kind, Vector | Audio):
            return c
        axis = 0 if isinstance(kind, Vector) else None
        mean, scale = of_train.mean(axis=axis), of_train.std(axis=axis)
        return ((c - mean) / np.maximum(scale, _LEAST_SCALE)).astype(np.float32)

    condition, train = dataset.condition, dataset.train.c

    def all_scaled(c: Conditions) -> Conditions:
        if isinstance(condition, tuple):
            assert isinstance(train, dict)
            assert isinstance(c, dict)
            return {name: scaled(kind, train[name], c[name]) for name, kind in condition}
        assert condition is not None
        assert isinstance(train, np.ndarray)
        assert isinstance(c, np.ndarray)
        return scaled(condition, train, c)

    def rescaled(split: Split) -> Split:
        reworded = None if split.reworded is None else all_scaled(split.reworded)
        return dataclasses.replace(split, c=all_scaled(split.c), reworded=reworded)

    return dataclasses.replace(
        dataset,
        train=rescaled(dataset.train),
        validation=rescaled(dataset.validation),
        test=rescaled(dataset.test),
    )


def _labels(by_split: Mapping[str, np.ndarray], where: str) -> Made:
    for array in by_split.values():
        if array.ndim != 1 or not (np.issubdtype(array.dtype, np.integer) or array.dtype.kind in "US"):
            raise DataError(
                f"{where} is {array.dtype} of shape {array.shape}, expected whole numbers or names of shape (n,)"
            )
    classes = np.unique(by_split["train"])
    for name, array in by_split.items():
        unseen = np.setdiff1d(array, classes)
        if len(unseen):
            raise DataError(f"{where}_{name} has {unseen[0]!r}, which {where}_train never has")
    c = {name: np.searchsorted(classes, array).astype(np.int32) for name, array in by_split.items()}
    return Made(Label(len(classes)), c, tuple(map(str, classes)))


def _vectors(by_split: Mapping[str, np.ndarray], where: str) -> Made:
    made = {}
    for name, array in by_split.items():
        given = array[:, None] if array.ndim == 1 else array
        if given.ndim != 2 or given.dtype.kind not in "fiub":
            raise DataError(
                f"{where} is {array.dtype} of shape {array.shape}, expected numbers of shape (n, k)"
            )
        made[name] = _finite(given.astype(np.float32), f"{where}_{name}")
    return Made(Vector(made["train"].shape[1]), made)


def _images(by_split: Mapping[str, np.ndarray], where: str) -> Made:
    made = {}
    for name, array in by_split.items():
        given = array[..., None] if array.ndim == 3 else array
        if given.ndim != 4 or min(given.shape[1:3]) < 4 or given.dtype.kind not in "fu":
            raise DataError(
                f"{where} is {array.dtype} of shape {array.shape}, expected uint8 or floating images of shape "
                "(n, H, W) or (n, H, W, C), at least 4 pixels a side"
            )
        made[name] = (
            given if given.dtype == np.uint8 else _finite(given.astype(np.float32), f"{where}_{name}")
        )
    _require_one_shape(made, where)
    height, width, channels = made["train"].shape[1:]
    return Made(Image((height, width, channels)), made)


def _texts(by_split: Mapping[str, np.ndarray], where: str) -> Made:
    texts = {}
    for name, array in by_split.items():
        if array.ndim != 1 or array.dtype.kind not in "US":
            raise DataError(f"{where} is {array.dtype} of shape {array.shape}, expected texts of shape (n,)")
        texts[name] = [text.decode() if isinstance(text, bytes) else str(text) for text in array]
    length = max(len(text.encode()) for split in texts.values() for text in split)
    if not 1 <= length <= _MOST_BYTES:
        raise DataError(f"{where} has a text of {length} bytes, expected 1 to {_MOST_BYTES} in the longest")
    return Made(Text(length), {name: encode_text(split, length) for name, split in texts.items()})


def _spectrograms(by_split: Mapping[str, np.ndarray], where: str) -> Made:
    made = {}
    for name, array in by_split.items():
        if array.ndim != 3 or min(array.shape[1:]) < 4 or array.dtype.kind != "f":
            raise DataError(
                f"{where} is {array.dtype} of shape {array.shape}, expected floating spectrograms of shape "
                "(n, frames, bands), at least 4 each"
            )
        made[name] = _finite(array.astype(np.float32)[..., None], f"{where}_{name}")
    _require_one_shape(made, where)
    frames, bands, _ = made["train"].shape[1:]
    return Made(Audio((frames, bands, 1)), made)


def _finite(array: np.ndarray, where: str) -> np.ndarray:
    if not np.isfinite(array).all():
        raise DataError(f"{where} has NaN or infinite values")
    return array


def _require_one_shape(made: Mapping[str, np.ndarray], where: str) -> None:
    shapes = {array.shape[1:] for array in made.values()}
    if len(shapes) > 1:
        raise DataError(f"{where} has shapes {' and '.join(map(str, sorted(shapes)))}, expected one")
