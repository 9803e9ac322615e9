"""What a condition is made of: the kinds of array that c can hold, alone or several by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Bool, UInt8


@dataclasses.dataclass(frozen=True)
class Label:
    """A class. c has shape (n,), int32, from 0 to num_classes − 1."""

    num_classes: int


@dataclasses.dataclass(frozen=True)
class Vector:
    """Attributes, or an embedding made elsewhere. c has shape (n, size), float32, standardized."""

    size: int


@dataclasses.dataclass(frozen=True)
class Image:
    """An image. c has shape (n, H, W, C), uint8 from 0 to 255, or float32 from 0 to 1."""

    shape: tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Text:
    """A text in UTF-8. c has shape (n, length), uint8: its bytes, then zeros. See `encode_text`."""

    length: int


@dataclasses.dataclass(frozen=True)
class Audio:
    """A log-mel spectrogram. c has shape (n, frames, bands, 1), float32, standardized; padding frames are silence."""

    shape: tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Observed:
    """The quadrants of x that are given, the others to be completed. c has the shape of x, bool, False where hidden.

    Attributes:
      shape: of x.
      quadrants: how many are observed: 1 is the bottom left, 2 the left half, 3 all but the bottom right.
    """

    shape: tuple[int, int, int]
    quadrants: int

    @property
    def mask(self) -> Bool[np.ndarray, "H W C"]:
        """Which pixels are observed.

        Example:
          >>> Observed((2, 2, 1), 1).mask[..., 0].tolist()
          [[False, False], [True, False]]
        """
        height, width, _ = self.shape
        top, left = np.arange(height)[:, None] < height // 2, np.arange(width)[None] < width // 2
        observed = {1: ~top & left, 2: np.broadcast_to(left, (height, width)), 3: top | left}[self.quadrants]
        return np.broadcast_to(observed[..., None], self.shape)


Kind = Label | Vector | Image | Text | Audio | Observed
# One kind, whose c is an array; or several by name, whose c is a dictionary of arrays; or no condition at all.
Condition = Kind | tuple[tuple[str, Kind], ...] | None


def names_of(condition: Condition) -> tuple[str, ...]:
    """What a configuration calls each condition.

    Example:
      >>> names_of((("text", Text(8)), ("speaker", Label(5))))
      ('text', 'label')
    """
    if condition is None:
        return ("none",)
    kinds = [kind for _, kind in condition] if isinstance(condition, tuple) else [condition]
    return tuple(type(kind).__name__.lower() for kind in kinds)


def blank(condition: Condition, n: int) -> Any:
    """n conditions of zeros: for the shapes of a program.

    Example:
      >>> blank((("text", Text(3)), ("speaker", Label(5))), 1)
      {'text': array([[0, 0, 0]], dtype=uint8), 'speaker': array([0], dtype=int32)}
    """
    match condition:
        case None | Label():
            return np.zeros(n, np.int32)
        case Vector(size):
            return np.zeros((n, size), np.float32)
        case Text(length):
            return np.zeros((n, length), np.uint8)
        case Image(shape) | Audio(shape):
            return np.zeros((n, *shape), np.float32)
        case Observed(shape):
            return np.zeros((n, *shape), bool)
        case tuple():
            return {name: blank(kind, n) for name, kind in condition}


def describe(condition: Condition, c: Any, names: Mapping[str, Sequence[str]] | None = None) -> list[str]:
    """What a person calls each of some conditions: texts and labels; nothing of what is no word.

    Args:
      condition: what c is made of.
      c: conditions, with a leading axis.
      names: of classes, by the name of a label that is one of several conditions; numbers where there are none.

    Example:
      >>> describe((("text", Text(3)), ("speaker", Label(5))),
      ...          {"text": encode_text(["one", "two"], 3), "speaker": np.array([4, 0])})
      ['one, speaker 4', 'two, speaker 0']
    """
    known = names or {}
    match condition:
        case tuple():
            each = [
                [known[name][label] if name in known else f"{name} {label}" for label in np.asarray(c[name])]
                if isinstance(kind, Label)
                else describe(kind, c[name])
                for name, kind in condition
            ]
            return [", ".join(text for text in texts if text) for texts in zip(*each, strict=True)]
        case Text():
            return [decode_text(row) for row in np.asarray(c)]
        case Label():
            return [str(label) for label in np.asarray(c)]
        case _:
            return [""] * len(c)


def encode_text(texts: Sequence[str], length: int) -> UInt8[np.ndarray, "n length"]:
    """Texts as rows of UTF-8 bytes, padded with zeros.

    Args:
      texts: n texts.
      length: of a row, ≥ 1.

    Returns:
      Shape (n, length), uint8.

    Raises:
      ValueError: if a text is longer than a row.

    Example:
      >>> encode_text(["two", ""], 4).tolist()
      [[116, 119, 111, 0], [0, 0, 0, 0]]
    """
    rows = np.zeros((len(texts), length), np.uint8)
    for row, text in zip(rows, texts, strict=True):
        encoded = text.encode()
        if len(encoded) > length:
            raise ValueError(f"text {text!r} has {len(encoded)} bytes, expected at most {length}")
        row[: len(encoded)] = np.frombuffer(encoded, np.uint8)
    return rows


def decode_text(row: UInt8[np.ndarray, " length"]) -> str:
    """The text of a row of bytes.

    Example:
      >>> decode_text(encode_text(["zwölf"], 10)[0])
      'zwölf'
    """
    return row.tobytes().rstrip(b"\0").decode()
