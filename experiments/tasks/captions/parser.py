"""From a caption to what it asks for: every arrangement of digits that would be right."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re
from collections.abc import Callable, Sequence

from experiments.tasks.captions.arrangements import CELLS, Arrangement, Digit, layouts
from experiments.tasks.captions.words import symbols

MOST_DIGITS = 3
Cells = tuple[int, ...]


class CaptionError(ValueError):
    """A caption that asks for nothing that can be drawn; its message is one line for a person."""


def unknown_words(caption: str) -> tuple[str, ...]:
    """The words of a caption that mean nothing here, in its order: `parse` passes over them.

    Example:
      >>> unknown_words("a purple seven")
      ('purple',)
    """
    return symbols(caption)[1]


def parse(caption: str) -> frozenset[Arrangement]:
    """What a caption asks for.

    A place that it does not say is free, and so is a size, None here. Digits stand as in `arrangements.LAYOUTS`; in any
    cells where the caption asks for what no layout has.

    Args:
      caption: words in any case, digits as words or numerals; unknown ones are passed over.

    Returns:
      All arrangements that it allows, at least one.

    Raises:
      CaptionError: if it names no digit or more than three, asks for the impossible, or cannot be understood.

    Example:
      >>> sorted(parse("a large 7 above a 2 on the left"))
      [(Digit(cell=0, digit=7, large=True), Digit(cell=6, digit=2, large=None))]
      >>> len(parse("an eight"))
      9
    """
    known, unknown = symbols(caption)
    count = sum(symbol.isdigit() for symbol in known)
    if not 1 <= count <= MOST_DIGITS:
        hint = f"; unknown words: {', '.join(unknown)}" if unknown else ""
        raise CaptionError(f"caption {caption!r} names {count} digits, expected 1 to {MOST_DIGITS}{hint}")
    reading = _Reading()
    mentioned = " ".join(known)
    for segment in re.split(r" ?, ?", mentioned):
        reading.add(segment, caption)
    reading.line_up()
    arrangements = reading.solve()
    if not arrangements:
        raise CaptionError(f"caption {caption!r} asks for an arrangement that does not exist")
    return arrangements


_ITEM = r"(?:(?:large|small) )?\d"
_ABOUT = r"(?:cell|row|column)-\d|top|bottom|left|right|middle"
_LINE = r"in-row|in-column|left-to-right|top-to-bottom"
_RELATION = r"left-of|right-of|above|below|beside"
_IT = r"(?:left-of|right-of|above|below)-it"
# What lies between two commas or ands: digits in relation, with words about all of them before and after.
_SEGMENT = re.compile(
    rf"(?P<before>(?:(?:{_ABOUT}|{_LINE}|{_IT}|{_RELATION}) ?)*)"
    rf"(?P<items>{_ITEM}(?: (?:{_RELATION}) {_ITEM}| {_ITEM})*)?"
    rf"(?P<after>(?: ?(?:{_ABOUT}|{_LINE}|{_IT}|above|below))*)"
)
_PLACES: dict[str, set[int]] = {
    "top": {0, 1, 2},
    "bottom": {6, 7, 8},
    "left": {0, 3, 6},
    "right": {2, 5, 8},
    **{f"cell-{cell}": {cell} for cell in range(CELLS)},
    **{f"row-{row}": {3 * row, 3 * row + 1, 3 * row + 2} for row in range(3)},
    **{f"column-{column}": {column, column + 3, column + 6} for column in range(3)},
}


def _is_left(a: int, b: int) -> bool:
    return a // 3 == b // 3 and a < b


def _is_above(a: int, b: int) -> bool:
    return a % 3 == b % 3 and a < b


_RELATIONS: dict[str, Callable[[int, int], bool]] = {
    "left-of": _is_left,
    "right-of": lambda a, b: _is_left(b, a),
    "above": _is_above,
    "below": lambda a, b: _is_above(b, a),
    "beside": lambda a, b: a // 3 == b // 3,
}


@dataclasses.dataclass
class _Reading:
    """What has been read of a caption so far.

    Attributes:
      items: digit and size of each digit.
      places: where the caption places each of them, by symbol.
      common: what all of them lie in.
      line: the relation of each digit to the next, where they form a line.
      rules: of the digits' cells, all of which hold.
    """

    items: list[tuple[int, bool | None]] = dataclasses.field(default_factory=list)
    places: list[list[str]] = dataclasses.field(default_factory=list)
    common: list[str] = dataclasses.field(default_factory=list)
    line: str | None = None
    rules: list[Callable[[Cells], bool]] = dataclasses.field(default_factory=list)

    def add(self, segment: str, caption: str) -> None:
        """Read one segment."""
        match = _SEGMENT.fullmatch(segment)
        if match is None:
            raise CaptionError(
                f"caption {caption!r} cannot be understood, expected one like 'a large seven above a small two'"
            )
        earlier = range(len(self.items))
        words = (match["items"] or "").split()
        relations = [word for word in words if word in _RELATIONS]
        for i, word in enumerate(words):
            if word.isdigit():
                size = words[i - 1] if i else ""
                self.items.append((int(word), {"large": True, "small": False}.get(size)))
                self.places.append([])
        mine = range(len(earlier), len(self.items))
        for relation, (a, b) in zip(relations, itertools.pairwise(mine), strict=False):
            self.rules.append(_between(relation, [a], b))
        for word in match["before"].split():
            self._about(word, earlier, mine, subject_first=True)
        for word in match["after"].split():
            self._about(word, earlier, mine, subject_first=False)

    def _about(self, word: str, earlier: range, mine: range, *, subject_first: bool) -> None:
        """Read a word before or after a segment's digits: what it says of them, or of them and the earlier ones."""
        relation = word.removesuffix("-it")
        if word in _LINE.split("|"):
            self.line = "left-of" if word in ("in-row", "left-to-right") else "above"
        elif relation not in _RELATIONS:
            for item in mine:
                self.places[item].append(word)
            if not mine:
                self.common.append(word)
        elif earlier and mine:
            if word == relation and subject_first:  # ", above a 2": the earlier ones are
                self.rules.append(_between(relation, list(earlier), mine[0]))
            else:  # "a 2 above it": the later one is
                self.rules.append(_between(_OPPOSITE[relation], list(earlier), mine[0]))
        elif relation in _TOWARDS:
            # A relation to nothing: "a 7 above" lies at the top.
            self.common.append(_TOWARDS[relation])

    def line_up(self) -> None:
        """Let digits of a row or a column that is mentioned once, at the end, stand in it in order."""
        mentioned = [word for words in self.places for word in words] + self.common
        if (
            len(self.items) > 1
            and not self.rules
            and len(mentioned) == 1
            and re.match("row|column", mentioned[0])
        ):
            self.line = "left-of" if mentioned[0].startswith("row") else "above"
            self.common, self.places = mentioned, [[] for _ in self.items]
        if self.line:
            for a, b in itertools.pairwise(range(len(self.items))):
                self.rules.append(_between(self.line, [a], b))

    def solve(self) -> frozenset[Arrangement]:
        """All arrangements that what was read allows: those of a layout, or any if none of these does."""
        count = len(self.items)
        middle = {4} if count == 1 or not self.rules else {1, 3, 4, 5, 7}
        places = _PLACES | {"middle": middle}
        allowed = [
            set(range(CELLS)).intersection(*(places[w] for w in own + self.common)) for own in self.places
        ]

        def fitting(choices: Sequence[Cells]) -> frozenset[Arrangement]:
            return frozenset(
                tuple(sorted(Digit(cell, *item) for cell, item in zip(cells, self.items, strict=True)))
                for cells in choices
                if all(cell in cells_allowed for cell, cells_allowed in zip(cells, allowed, strict=True))
                and all(rule(cells) for rule in self.rules)
            )

        return fitting(_usual(count)) or fitting(tuple(itertools.permutations(range(CELLS), count)))


@functools.cache
def _usual(count: int) -> tuple[Cells, ...]:
    """The cells of all layouts, in every order."""
    return tuple(order for cells in layouts(count) for order in itertools.permutations(cells))


_TOWARDS = {"above": "top", "below": "bottom", "left-of": "left", "right-of": "right"}
_OPPOSITE = {"left-of": "right-of", "right-of": "left-of", "above": "below", "below": "above"}


def _between(relation: str, group: list[int], other: int) -> Callable[[Cells], bool]:
    """The rule that a group of digits is in a relation to another: of several, above and below look at rows alone."""
    if len(group) > 1 and relation in ("above", "below"):
        sign = 1 if relation == "above" else -1
        return lambda cells: all(sign * (cells[other] // 3 - cells[i] // 3) > 0 for i in group)
    return lambda cells: all(_RELATIONS[relation](cells[i], cells[other]) for i in group[-1:])
