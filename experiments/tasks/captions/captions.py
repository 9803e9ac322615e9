"""Captions of arrangements: what of an arrangement one says, and every way to say it."""

from __future__ import annotations

import enum
import itertools
import math
from typing import TYPE_CHECKING, NamedTuple

from experiments.tasks.captions.arrangements import LAYOUTS, Arrangement, Digit, form, held_out, layouts
from experiments.tasks.captions.words import (
    CELL_PHRASES,
    COLUMN_PHRASES,
    LARGE,
    NUMERALS,
    ROW_PHRASES,
    SIDE_COLUMN_PHRASES,
    SIDE_ROW_PHRASES,
    SMALL,
)

if TYPE_CHECKING:
    import numpy as np


class Mentioned(enum.Enum):
    """What a caption says of where digits are."""

    CELLS = "the cell of each"
    FORM = "how they stand to each other"
    BESIDE = "that two are in one row, in any order"
    ROW = "the row of one"
    COLUMN = "the column of one"
    NOTHING = "nothing"


class Meaning(NamedTuple):
    """What a caption says.

    Attributes:
      arrangement: with None for each size that it does not say.
      mentioned: of where the digits are.
    """

    arrangement: Arrangement
    mentioned: Mentioned


# How often each is mentioned, where it can be.
_SHARES = {
    1: {Mentioned.CELLS: 0.65, Mentioned.ROW: 0.1, Mentioned.COLUMN: 0.1, Mentioned.NOTHING: 0.15},
    2: {Mentioned.CELLS: 0.4, Mentioned.FORM: 0.45, Mentioned.BESIDE: 0.075, Mentioned.NOTHING: 0.075},
    3: {Mentioned.CELLS: 0.4, Mentioned.FORM: 0.5, Mentioned.NOTHING: 0.1},
}

# {a}, {b} and {c} are the digits in the order of their cells, {p}, {q} and {r} these cells.
_LISTS = {
    1: ("{a} {p}", "{p}, {a}"),
    2: ("{a} {p} and {b} {q}", "{b} {q} and {a} {p}", "{a} {p}, {b} {q}"),
    3: ("{a} {p}, {b} {q} and {c} {r}", "{c} {r}, {a} {p} and {b} {q}"),
}
_IN_LINE = {
    "beside": (
        "{a} to the left of {b} {row}", "{b} to the right of {a} {row}", "{row}, {a} left of {b}", "{a} and {b} {row}"
    ),
    "above": (
        "{a} above {b} {column}", "{b} below {a} {column}", "{column}, {a} over {b}", "{a} and {b} {column}"
    ),
    "row": ("{a}, {b} and {c} {row}", "{row}, {a}, {b} and {c}"),
    "column": ("{a}, {b} and {c} {column}", "{column}, {a}, {b} and {c}"),
}  # fmt: skip
_FORMS = {
    "beside": (
        "{a} to the left of {b}", "{a} left of {b}", "{a} on the left of {b}", "{b} to the right of {a}",
        "{b} right of {a}", "{a} on the left and {b} on the right", "{b} on the right and {a} on the left",
        "{a} with {b} to its right", "{b} with {a} on its left", "{a} and {b} from left to right",
    ),
    "above": (
        "{a} above {b}", "{a} over {b}", "{a} on top of {b}", "{b} below {a}", "{b} under {a}",
        "{b} underneath {a}", "{a} at the top and {b} at the bottom", "{a} with {b} below it",
        "{b} with {a} above it", "{a} and below it {b}",
    ),
    "row": (
        "{a}, {b} and {c} in a row", "{a}, {b} and {c} from left to right", "{a}, {b} and {c} side by side",
        "a row of {a}, {b} and {c}", "{a} left of {b} left of {c}",
    ),
    "column": (
        "{a}, {b} and {c} in a column", "{a}, {b} and {c} from top to bottom",
        "{a}, {b} and {c} one below the other", "a column of {a}, {b} and {c}", "{a} above {b} above {c}",
    ),
    "pair over one": (
        "{a} to the left of {b}, and {c} below", "{a} on the left of {b}, and {c} below them",
        "{b} to the right of {a}, with {c} underneath", "{a} left of {b} and below them {c}",
    ),
    "one over pair": (
        "{b} to the left of {c}, and {a} above", "{b} on the left of {c}, and {a} above them",
        "{c} to the right of {b}, with {a} on top", "{b} left of {c} and above them {a}",
    ),
}  # fmt: skip
_BESIDE = ("{a} beside {b}", "{a} next to {b}", "{b} beside {a}", "{b} next to {a}")
_UNORDERED = {
    count: tuple(
        " and ".join(filter(None, (", ".join(f"{{{name}}}" for name in names[:-1]), f"{{{names[-1]}}}")))
        for names in itertools.permutations("abc"[:count])
    )
    for count in (1, 2, 3)
}


def meanings(scene: Arrangement) -> tuple[Meaning, ...]:
    """All that a caption of a scene may say; of three digits, which are all small, never a size.

    Args:
      scene: with the size of every digit.
    """
    silent = tuple(digit._replace(large=None) for digit in scene)
    sized = {silent}
    if len(scene) < 3:
        large_only = tuple(digit if digit.large else digit._replace(large=None) for digit in scene)
        sized |= {scene, large_only}
    beside = form(scene) == "beside"
    choices = [each for each in _SHARES[len(scene)] if beside or each is not Mentioned.BESIDE]
    # Sorted by the sizes that are mentioned: the order of a set is not the same in every process.
    ordered = sorted(sized, key=lambda digits: [digit.large is not None for digit in digits])
    return tuple(Meaning(arrangement, each) for each in choices for arrangement in ordered)


def asked(meaning: Meaning) -> frozenset[Arrangement]:
    """All arrangements that a meaning allows, as `caption_parser.parse` finds them in each of its phrasings.

    Example:
      >>> beside = (Digit(0, 3), Digit(2, 9))
      >>> [len(asked(Meaning(beside, each))) for each in Mentioned if each.name not in ("ROW", "COLUMN")]
      [1, 3, 6, 12]
    """
    arrangement, mentioned = meaning
    first = arrangement[0].cell
    cells, in_order = {
        Mentioned.CELLS: ((tuple(d.cell for d in arrangement),), True),
        Mentioned.FORM: (LAYOUTS[form(arrangement)], True),
        Mentioned.BESIDE: (LAYOUTS["beside"], False),
        Mentioned.ROW: (tuple((cell,) for cell in range(9) if cell // 3 == first // 3), True),
        Mentioned.COLUMN: (tuple((cell,) for cell in range(9) if cell % 3 == first % 3), True),
        Mentioned.NOTHING: (layouts(len(arrangement)), False),
    }[mentioned]
    orders = [arrangement] if in_order else list(itertools.permutations(arrangement))
    return frozenset(
        tuple(Digit(cell, d.digit, d.large) for cell, d in zip(one, order, strict=True))
        for one in cells
        for order in orders
    )


def templates(meaning: Meaning) -> tuple[str, ...]:
    """The sentences of a meaning, digits and places left open."""
    arrangement, mentioned = meaning
    count, name = len(arrangement), form(arrangement)
    return {
        Mentioned.CELLS: _LISTS[count] + _IN_LINE.get(name, ()),
        Mentioned.FORM: _FORMS.get(name, ()),
        Mentioned.BESIDE: _BESIDE,
        Mentioned.ROW: ("{a} {row}",),
        Mentioned.COLUMN: ("{a} {column}",),
        Mentioned.NOTHING: _UNORDERED[count],
    }[mentioned]


class Style(NamedTuple):
    """How the words of one caption are chosen: indices into the choices that a meaning has.

    Attributes:
      template: of the meaning's.
      opening: nothing, or "draw".
      article: whether digits have one.
      numeral: whether they are numerals.
      size: the words for large and small.
      place: the words for places.
    """

    template: int
    opening: int
    article: int
    numeral: int
    size: int
    place: int


_OPENINGS = ("", "draw ")


def _places(digit: Digit, meaning: Meaning) -> tuple[str, ...]:
    """What a digit's cell is called: of three, what is short."""
    return CELL_PHRASES[digit.cell][:: 3 if len(meaning.arrangement) == 3 else 1]


def _lines(meaning: Meaning) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What the row and the column of the first digit are called; if it is alone and free in them, sides too."""
    row, column = divmod(meaning.arrangement[0].cell, 3)
    if meaning.mentioned in (Mentioned.ROW, Mentioned.COLUMN):
        return SIDE_ROW_PHRASES[row] + ROW_PHRASES[row], SIDE_COLUMN_PHRASES[column] + COLUMN_PHRASES[column]
    return ROW_PHRASES[row], COLUMN_PHRASES[column]


def _choices(meaning: Meaning) -> Style:
    """The number of choices of each kind."""
    rows, columns = map(len, _lines(meaning))
    places = {
        # Sentences of one meaning name cells or lines: a common multiple makes all their names alike in number.
        Mentioned.CELLS: math.lcm(len(_places(meaning.arrangement[0], meaning)), rows, columns),
        Mentioned.ROW: rows,
        Mentioned.COLUMN: columns,
    }.get(meaning.mentioned, 1)
    sizes = len(LARGE) if any(digit.large is not None for digit in meaning.arrangement) else 1
    return Style(len(templates(meaning)), len(_OPENINGS), 2, 2, sizes, places)


def write(meaning: Meaning, style: Style) -> str:
    """The caption of a meaning in a style.

    Example:
      >>> write(Meaning((Digit(0, 8, True), Digit(6, 2)), Mentioned.FORM), Style(0, 1, 1, 0, 0, 0))
      'draw a large eight above a two'
    """
    arrangement = meaning.arrangement
    rows, columns = _lines(meaning)
    words = {"row": rows[style.place % len(rows)], "column": columns[style.place % len(columns)]}
    for noun, place, digit in zip("abc", "pqr", arrangement, strict=False):
        names = _places(digit, meaning)
        words |= {noun: _noun(digit, style), place: names[style.place % len(names)]}
    return _OPENINGS[style.opening] + templates(meaning)[style.template].format(**words)


def _noun(digit: Digit, style: Style) -> str:
    word = str(digit.digit) if style.numeral else NUMERALS[digit.digit]
    if digit.large is not None:
        word = f"{(LARGE if digit.large else SMALL)[style.size]} {word}"
    return f"{'an' if word[0] in 'e8' else 'a'} {word}" if style.article else word


def phrasings(meaning: Meaning) -> tuple[str, ...]:
    """Every caption of a meaning, each once, in an order that never changes.

    Example:
      >>> phrasings(Meaning((Digit(4, 8),), Mentioned.NOTHING))
      ('eight', '8', 'an eight', 'an 8', 'draw eight', 'draw 8', 'draw an eight', 'draw an 8')
    """
    styles = itertools.product(*map(range, _choices(meaning)))
    return tuple(dict.fromkeys(write(meaning, Style(*style)) for style in styles))


def draw_meaning(rng: np.random.Generator, scene: Arrangement, *, only_held_out: bool = False) -> Meaning:
    """Draw what a caption says of a scene.

    Args:
      rng: draws it.
      scene: with the size of every digit.
      only_held_out: say enough for every arrangement that it allows to be held out; the scene has to be so.
    """
    choices = meanings(scene)
    if only_held_out:
        choices = tuple(meaning for meaning in choices if all(map(held_out, asked(meaning))))
    shares = [_SHARES[len(scene)][meaning.mentioned] for meaning in choices]
    at = rng.random() * sum(shares)
    return next(m for m, total in zip(choices, itertools.accumulate(shares), strict=True) if at < total)


def draw_caption(rng: np.random.Generator, meaning: Meaning) -> str:
    """Draw one of the captions of a meaning."""
    return write(meaning, Style(*rng.integers(_choices(meaning)).tolist()))
