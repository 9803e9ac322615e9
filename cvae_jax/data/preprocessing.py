"""Conditions as a person brings them, made into what the networks take."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cvae_jax.conditions.kinds import Audio, Image, Kind, Label, Text, Vector, encode_text
from cvae_jax.data.dataset import Dataset, Split
from cvae_jax.errors import DataError

if TYPE_CHECKING:
    from cvae_jax.data.dataset import Conditions

# A text is as long as the longest: beyond this a transformer over bytes is the wrong encoder.
_MOST_BYTES = 1024
# A number whose standard deviation is this share of its largest value, or less, counts as constant.
_LEAST_VARIATION = 1e-6
_MOST_NAMED = 10


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

    Each number of a vector has a mean and a deviation of its own, all of a spectrogram have one. Both are made of the
    training split alone, after validation and test are held out. A number of a vector that is constant there, or
    nearly, is left out with a warning: divided by next to nothing, another value in the test split would be enormous.

    Raises:
      DataError: if nothing of a condition varies.
    """
    condition = dataset.condition
    several = isinstance(condition, tuple)
    named = condition if several else (("", condition),)
    splits = (dataset.train, dataset.validation, dataset.test)
    every = [c for split in splits for c in (split.c, split.reworded) if c is not None]
    scalings: dict[str, _Scaling] = {}
    for name, kind in named:
        if isinstance(kind, Vector | Audio):
            where = f"{dataset.name}: {f'the condition {name}' if several else 'the condition'}"
            scalings[name] = _scaling(kind, [c[name] if isinstance(c, dict) else c for c in every], where)
    if not scalings:
        return dataset

    def scaled(c: Conditions) -> Conditions:
        if isinstance(c, dict):
            return {
                name: scalings[name].of(array) if name in scalings else array for name, array in c.items()
            }
        return scalings[""].of(c)

    def rescaled(split: Split) -> Split:
        reworded = None if split.reworded is None else scaled(split.reworded)
        return dataclasses.replace(split, c=scaled(split.c), reworded=reworded)

    kinds = tuple((name, scalings[name].kind if name in scalings else kind) for name, kind in named)
    train, validation, test = map(rescaled, splits)
    return dataclasses.replace(
        dataset, train=train, validation=validation, test=test, kinds=kinds if several else kinds[0][1]
    )


class _Scaling(NamedTuple):
    """How one condition is standardized.

    Attributes:
      kind: of what comes out.
      kept: columns that vary, of a vector.
      mean, deviation: of those columns, or of all of a spectrogram.
    """

    kind: Vector | Audio
    kept: np.ndarray | slice
    mean: np.ndarray
    deviation: np.ndarray

    def of(self, c: np.ndarray) -> np.ndarray:
        return ((c[:, self.kept] - self.mean) / self.deviation).astype(np.float32)


def _scaling(kind: Vector | Audio, arrays: Sequence[np.ndarray], where: str) -> _Scaling:
    """The scaling of one condition, from its arrays of all splits, that of train first."""
    train = arrays[0]
    if isinstance(kind, Audio):
        mean, deviation = train.mean(), train.std()
        if deviation <= _LEAST_VARIATION * max(float(np.abs(array).max()) for array in arrays):
            raise DataError(f"{where} is constant in the training split, expected spectrograms that differ")
        return _Scaling(kind, slice(None), mean, deviation)
    mean, deviation = train.mean(axis=0, dtype=np.float64), train.std(axis=0, dtype=np.float64)
    largest = np.max([np.abs(array).max(axis=0) for array in arrays], axis=0)
    varies = deviation > _LEAST_VARIATION * largest
    constant, kept = np.flatnonzero(~varies), np.flatnonzero(varies)
    if not len(kept):
        raise DataError(
            f"{where} has no column that varies in the training split, expected one at least (or --condition=none)"
        )
    if len(constant):
        some = ", ".join(map(str, constant[:_MOST_NAMED]))
        more = f" and {len(constant) - _MOST_NAMED} more" if len(constant) > _MOST_NAMED else ""
        warnings.warn(
            f"{where}: column {some}{more} of {kind.size} is constant in the training split, or nearly: left out",
            stacklevel=2,
        )
    return _Scaling(Vector(len(kept)), kept, mean[kept], deviation[kept])


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
    names = classes if classes.dtype.kind in "iu" else [text_of(name, f"{where}_train") for name in classes]
    return Made(Label(len(classes)), c, tuple(map(str, names)))


def _vectors(by_split: Mapping[str, np.ndarray], where: str) -> Made:
    made = {}
    for name, array in by_split.items():
        given = array[:, None] if array.ndim == 1 else array
        if given.ndim != 2 or not given.shape[1] or given.dtype.kind not in "fiub":
            raise DataError(
                f"{where} is {array.dtype} of shape {array.shape}, expected numbers of shape (n, k)"
            )
        # In full precision until they are standardized: a large mean would cost float32 its digits.
        made[name] = _finite(given.astype(np.float64), f"{where}_{name}")
    _require_one_shape(made, where)
    return Made(Vector(made["train"].shape[1]), made)


def _images(by_split: Mapping[str, np.ndarray], where: str) -> Made:
    made = {}
    for name, array in by_split.items():
        given = array[..., None] if array.ndim == 3 else array
        if given.ndim != 4 or min(given.shape[1:3]) < 4 or not given.shape[3] or not _is_image(given.dtype):
            raise DataError(
                f"{where} is {array.dtype} of shape {array.shape}, expected uint8 or floating images of shape "
                "(n, H, W) or (n, H, W, C), at least 4 pixels a side"
            )
        made[name] = given if given.dtype == np.uint8 else _single(given, f"{where}_{name}")
    _require_one_shape(made, where)
    if len({array.dtype for array in made.values()}) > 1:
        raise DataError(f"{where} is uint8 in one split and floating in another, expected one of them in all")
    height, width, channels = made["train"].shape[1:]
    return Made(Image((height, width, channels)), made)


def _texts(by_split: Mapping[str, np.ndarray], where: str) -> Made:
    texts = {}
    for name, array in by_split.items():
        if array.ndim != 1 or array.dtype.kind not in "US":
            raise DataError(f"{where} is {array.dtype} of shape {array.shape}, expected texts of shape (n,)")
        texts[name] = [text_of(text, f"{where}_{name}") for text in array]
    length = max(len(text.encode()) for split in texts.values() for text in split)
    if not 1 <= length <= _MOST_BYTES:
        raise DataError(f"{where} has a text of {length} bytes, expected 1 to {_MOST_BYTES} in the longest")
    return Made(Text(length), {name: encode_text(split, length) for name, split in texts.items()})


def text_of(value: bytes | str, where: str) -> str:
    """A text that can be written as UTF-8.

    Raises:
      DataError: if it is none.
    """
    plain = bytes(value) if isinstance(value, bytes) else str(value)
    try:
        text = plain.decode() if isinstance(plain, bytes) else plain
        text.encode()
    except UnicodeError:
        raise DataError(f"{where} has the text {plain!r}, expected one in UTF-8") from None
    return text


def _spectrograms(by_split: Mapping[str, np.ndarray], where: str) -> Made:
    made = {}
    for name, array in by_split.items():
        if array.ndim != 3 or min(array.shape[1:]) < 4 or array.dtype.kind != "f":
            raise DataError(
                f"{where} is {array.dtype} of shape {array.shape}, expected floating spectrograms of shape "
                "(n, frames, bands), at least 4 each"
            )
        made[name] = _single(array, f"{where}_{name}")[..., None]
    _require_one_shape(made, where)
    frames, bands, _ = made["train"].shape[1:]
    return Made(Audio((frames, bands, 1)), made)


def _is_image(dtype: np.dtype) -> bool:
    return dtype == np.uint8 or np.issubdtype(dtype, np.floating)


def _single(array: np.ndarray, where: str) -> np.ndarray:
    """float32, refusing what is not finite or too large for it."""
    with np.errstate(over="ignore"):
        return _finite(array.astype(np.float32), where)


def _finite(array: np.ndarray, where: str) -> np.ndarray:
    if not (np.abs(array) <= np.finfo(np.float32).max).all():
        raise DataError(
            f"{where} has NaN or infinite values, or some too large for float32, expected finite ones"
        )
    return array


def _require_one_shape(made: Mapping[str, np.ndarray], where: str) -> None:
    shapes = {array.shape[1:] for array in made.values()}
    if len(shapes) > 1:
        raise DataError(f"{where} has shapes {' and '.join(map(str, sorted(shapes)))}, expected one")
