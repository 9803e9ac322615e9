"""Whether drawn pictures show what their captions ask for, and the shares of those that do."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cvae_jax.arrangements import Arrangement, from_grid, held_out

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


def right(read: Int[np.ndarray, " 18"], asked: Collection[Arrangement]) -> bool:
    """Whether a picture shows what was asked for: every digit in place, nothing else, and the sizes that were said.

    Args:
      read: what it shows, see `arrangements.to_grid`.
      asked: all arrangements that are right, see `caption_parser.parse`.

    Example:
      >>> from cvae_jax.arrangements import Digit, to_grid
      >>> from cvae_jax.caption_parser import parse
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
      >>> from cvae_jax.caption_parser import parse
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
      digits: what is read in each cell, 0 where it is empty.
      certainty: the probability of it.

    Returns:
      Of each of n, shape (n,).

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


def _share(right: Bool[np.ndarray, " n"]) -> Share:
    return Share(float(np.mean(right)) if len(right) else float("nan"), len(right))
