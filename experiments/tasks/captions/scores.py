"""Whether drawn pictures show what their captions ask for, and the shares of those that do."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from experiments.tasks.captions.arrangements import Arrangement, from_grid, held_out

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

# Of what a reader is so certain that it counts as sure.
SURE = 0.9
_COUNTS = ("one digit", "two digits", "three digits")


class Share(NamedTuple):
    """A share of right pictures.

    Attributes:
      value: from 0 to 1; NaN of none.
      pictures: how many it is of.
    """

    value: float
    pictures: int

    @property
    def standard_error(self) -> float:
        """Of the value, for pictures drawn independently: √(p (1 − p) / n); NaN of none."""
        return math.sqrt(self.value * (1.0 - self.value) / self.pictures) if self.pictures else math.nan


def right(read: Int[np.ndarray, " 18"], asked: Collection[Arrangement]) -> bool:
    """Whether a picture shows what was asked for: every digit in place, nothing else, the sizes as mentioned.

    Args:
      read: what it shows, see `arrangements.to_grid`.
      asked: all arrangements that are right, see `caption_parser.parse`.

    Example:
      >>> from experiments.tasks.captions.arrangements import Digit, to_grid
      >>> from experiments.tasks.captions.parser import parse
      >>> drawn = to_grid((Digit(0, 7, large=True), Digit(6, 2, large=False)))
      >>> [right(drawn, parse(caption)) for caption in ("a seven above a two", "a small 7 above a 2", "a seven")]
      [True, False, False]
    """
    shown = from_grid(read)

    def fits(one: Arrangement) -> bool:
        return len(one) == len(shown) and all(
            (want.cell, want.digit) == (have.cell, have.digit) and want.large in (None, have.large)
            for want, have in zip(one, shown, strict=True)
        )

    return any(map(fits, asked))


def shares(right: Bool[np.ndarray, " n"], asked: Sequence[Collection[Arrangement]]) -> dict[str, Share]:
    """Shares of right pictures by how many digits were asked for, and whether training saw them so.

    Args:
      right: whether each picture is right.
      asked: what was asked for; held-out is what allows held-out arrangements only.

    Returns:
      `one digit, seen`, `one digit, held out` and so on to three, then `all`; each with its number of pictures.

    Example:
      >>> from experiments.tasks.captions.parser import parse
      >>> found = shares(np.array([True, False]), [parse("a 7"), parse("a 5 at the top left")])
      >>> found["one digit, seen"], found["one digit, held out"]
      (Share(value=1.0, pictures=1), Share(value=0.0, pictures=1))
    """
    counts = np.array([len(next(iter(one))) for one in asked], int)
    unseen = np.array([all(map(held_out, one)) for one in asked], bool)
    found = {}
    for count, name in enumerate(_COUNTS, 1):
        for flag, part in ((False, "seen"), (True, "held out")):
            found[f"{name}, {part}"] = _share(right[(counts == count) & (unseen == flag)])
    return found | {"all": _share(right)}


def consistency(read: Int[np.ndarray, "n k g"]) -> Share:
    """The share of draws that stay the same picture under every phrasing of one meaning.

    Args:
      read: what the pictures show that were drawn of n latents and meanings under k phrasings each: grids, or their
        first half, the digits.
    """
    return _share((read == read[:, :1]).all(axis=(1, 2)))


def stays_right(right: Bool[np.ndarray, "n k"]) -> Share:
    """Of the scenes that are right under the first phrasing, the share that are so under all of them.

    Args:
      right: whether the draw of each scene under each of k phrasings is right.

    Example:
      >>> stays_right(np.array([[True, True], [True, False], [False, False]]))
      Share(value=0.5, pictures=2)
    """
    return _share(np.logical_and.reduce(right[right[:, 0]], axis=1))


def surely_another(
    digits: Int[np.ndarray, "n k 9"], certainty: Float[np.ndarray, "n k 9"]
) -> Bool[np.ndarray, " n"]:
    """Whether the reader is sure that some of k pictures shows another digit in some cell than the first of them.

    A picture between two digits is read now as one, now as the other, whatever moves it: so both readings of the cell
    must be certain, by at least 0.9.

    Args:
      digits: what is read in each cell of k pictures of each of n scenes, 0 where it is empty, shape (n, k, 9), int.
      certainty: the probability of it, shape (n, k, 9).

    Returns:
      One for each scene, shape (n,), bool.

    Example:
      >>> digits = np.zeros((3, 2, 9), int)
      >>> digits[:, 1, 4] = 7
      >>> certainty = np.ones((3, 2, 9))
      >>> certainty[1, 0, 4] = certainty[2, 1, 4] = 0.6
      >>> surely_another(digits, certainty).tolist()
      [True, False, False]
    """
    sure = certainty >= SURE
    return ((digits != digits[:, :1]) & sure & sure[:, :1]).any(axis=(1, 2))


def shifted_as_far(
    x: Float[np.ndarray, "n H W 1"], other: Float[np.ndarray, "n H W 1"], *, axis: int, pixels: int
) -> Float[np.ndarray, "n H W 1"]:
    """Pictures shifted by the part of a shift that moves as much of their ink as others differ from them by.

    What they show does not change by it: how often they are read otherwise tells a reader who wavers from a picture
    that changed.

    Args:
      x: pictures, shape (n, H, W, 1).
      other: of the same shape.
      axis: 1 to shift down, 2 to the right.
      pixels: of the whole shift, up or to the left where negative; no picture is shifted by more.

    Returns:
      (1 - t) x + t shifted(x) with the t of each picture, zeros beyond the edge.

    Example:
      >>> x = np.zeros((1, 1, 3, 1))
      >>> x[0, 0, 0] = 1.0
      >>> shifted_as_far(x, 0.5 * x, axis=2, pixels=1).ravel().tolist()
      [0.75, 0.25, 0.0]
    """
    beyond = np.arange(x.shape[axis]) - pixels
    shifted = np.take(x, beyond.clip(0, x.shape[axis] - 1), axis)
    inside = np.expand_dims((beyond >= 0) & (beyond < x.shape[axis]), tuple({0, 1, 2, 3} - {axis}))
    change = shifted * inside - x
    differs, most = (np.abs(a).sum(axis=(1, 2, 3), keepdims=True) for a in (other - x, change))
    return x + np.minimum(differs / np.where(most > 0, most, 1.0), 1.0) * change


def _share(right: Bool[np.ndarray, " n"]) -> Share:
    return Share(float(np.mean(right)) if len(right) else math.nan, len(right))
