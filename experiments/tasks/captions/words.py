"""The words of captions: digits, sizes and places, what each is called, and what each call stands for."""

from __future__ import annotations

import re

NUMERALS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LARGE = ("large", "big", "huge")
SMALL = ("small", "little", "tiny")

# Every way to name a cell, alike in number so that one caption keeps to one way.
CELL_PHRASES = (
    ("at the top left", "in the upper left corner", "in the top left corner", "top left"),
    ("at the top middle", "in the upper middle", "at the top centre", "top center"),
    ("at the top right", "in the upper right corner", "in the top right corner", "top right"),
    ("at the middle left", "in the left middle", "at the centre left", "center left"),
    ("in the middle", "in the centre", "at the centre", "center"),
    ("at the middle right", "in the right middle", "at the centre right", "center right"),
    ("at the bottom left", "in the lower left corner", "in the bottom left corner", "bottom left"),
    ("at the bottom middle", "in the lower middle", "at the bottom centre", "bottom center"),
    ("at the bottom right", "in the lower right corner", "in the bottom right corner", "bottom right"),
)
ROW_PHRASES = (
    ("in the top row", "in the upper row", "along the top"),
    ("in the middle row", "in the center row", "across the middle"),
    ("in the bottom row", "in the lower row", "along the bottom"),
)
COLUMN_PHRASES = (
    ("in the left column", "in the left hand column", "down the left side"),
    ("in the middle column", "in the center column", "down the middle"),
    ("in the right column", "in the right hand column", "down the right side"),
)
# Of one digit whose column, or row, is free.
SIDE_ROW_PHRASES = (("at the top", "somewhere at the top"), (), ("at the bottom", "somewhere at the bottom"))
SIDE_COLUMN_PHRASES = (("on the left", "on the left side"), (), ("on the right", "on the right side"))

# What a caption may say, longest first where one begins another, and the symbol that it stands for. A symbol of several
# words has hyphens. None: the word is for the grammar alone.
_UPPER, _LOWER, _MIDDLE = "(?:top|upper)", "(?:bottom|lower)", "(?:middle|cent(?:re|er)|central)"
_HAND = "(?: hand)?(?: (?:side|edge))?"
_OF_IT = "(?:it|them|these|those|both|that|each)"
_UNDER = "(?:below|under|underneath|beneath)"
_OVER = "(?:above|over|on top of|on top|atop)"
_AT = "(?:at|on|in|to|along|across|down|towards?|near|somewhere|of)"
_MENTIONED: list[tuple[str, str | None]] = [
    (r"(?:from )?left to right", "left-to-right"),
    (r"(?:from )?(?:top to bottom|top down)", "top-to-bottom"),
    (r"(?:one|each) (?:above|below|under|on top of|beneath) (?:the )?(?:other|next)", "top-to-bottom"),
    (r"side by side", "in-row"),
    (rf"(?:along|across) the {_UPPER}", "row-0"),
    (rf"(?:along|across) the {_MIDDLE}", "row-1"),
    (rf"(?:along|across) the {_LOWER}", "row-2"),
    (rf"{_UPPER} row", "row-0"),
    (rf"{_MIDDLE} row", "row-1"),
    (rf"{_LOWER} row", "row-2"),
    (rf"down the left{_HAND}", "column-0"),
    (rf"down the {_MIDDLE}", "column-1"),
    (rf"down the right{_HAND}", "column-2"),
    (r"left(?: hand)? column", "column-0"),
    (rf"{_MIDDLE} column", "column-1"),
    (r"right(?: hand)? column", "column-2"),
    (r"(?:row|line) of", "in-row"),
    (r"in (?:a|one) (?:row|line)", "in-row"),
    (r"(?:column|stack) of", "in-column"),
    (r"in (?:a|one) (?:column|stack)", "in-column"),
    (r"stacked", "in-column"),
    (rf"{_UNDER} {_OF_IT}", "below-it"),
    (rf"{_OVER} {_OF_IT}", "above-it"),
    (rf"(?:on|to) (?:its|their) left|left of {_OF_IT}", "left-of-it"),
    (rf"(?:on|to) (?:its|their) right|right of {_OF_IT}", "right-of-it"),
    (r"left(?: hand side| side)? of|left from", "left-of"),
    (r"right(?: hand side| side)? of|right from", "right-of"),
    (_UNDER, "below"),
    (_OVER, "above"),
    (r"beside|next to|alongside", "beside"),
    (rf"{_UPPER} left(?: hand)?|left {_UPPER}", "cell-0"),
    (rf"{_UPPER} right(?: hand)?|right {_UPPER}", "cell-2"),
    (rf"{_UPPER} {_MIDDLE}|{_MIDDLE} {_UPPER}", "cell-1"),
    (rf"{_LOWER} left(?: hand)?|left {_LOWER}", "cell-6"),
    (rf"{_LOWER} right(?: hand)?|right {_LOWER}", "cell-8"),
    (rf"{_LOWER} {_MIDDLE}|{_MIDDLE} {_LOWER}", "cell-7"),
    (rf"{_MIDDLE} left|left {_MIDDLE}", "cell-3"),
    (rf"{_MIDDLE} right|right {_MIDDLE}", "cell-5"),
    (rf"left{_HAND}", "left"),
    (rf"right{_HAND}", "right"),
    (_UPPER, "top"),
    (_LOWER, "bottom"),
    (_MIDDLE, "middle"),
    ("|".join(LARGE), "large"),
    ("|".join(SMALL), "small"),
    *((name, str(digit)) for digit, name in enumerate(NUMERALS)),
    *((str(digit), str(digit)) for digit in range(len(NUMERALS))),
    (r",|and|plus|then|with", ","),
    (r"(?:please|can you|i want|show|me|draw|write|paint|make|put|give|there|is|are)", None),
    (rf"(?:corner|side|edge|quadrant|half|place|far|just|{_AT})", None),
    (r"(?:a|an|the|its|their|digits?|numbers?|numerals?|handwritten|picture|image|drawing)", None),
]
# Taken out first: "on the right of the picture" is a place, "on the right of" alone a relation.
_WHERE = re.compile(r"\b(?:of|in|on) (?:the|this|a) (?:picture|image|canvas|page|drawing)\b")
_LEXER = re.compile(
    "|".join(
        [
            *(rf"(?P<w{i}>(?<!\w)(?:{mentioned})(?!\w))" for i, (mentioned, _) in enumerate(_MENTIONED)),
            r"(?P<unknown>\w+|\S)",
        ]
    )
)


def symbols(caption: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a caption says, and the words of it that mean nothing here.

    Args:
      caption: in any case; hyphens separate words, full stops and the like are no words.

    Returns:
      Symbols of what is mentioned, and unknown words in the order of the caption.

    Example:
      >>> symbols("Draw a big Seven, please, on top of an old 2 in the upper left-hand corner!")
      (('large', '7', ',', ',', 'above', '2', 'cell-0'), ('old',))
    """
    text = re.sub(r"[-:.!?'\"()]", " ", caption.lower())
    text = _WHERE.sub(" ", " ".join(re.sub(r"[,;]", " , ", text).split()))
    known, unknown = [], []
    for match in _LEXER.finditer(text):
        name = match.lastgroup
        if name == "unknown":
            unknown.append(match.group())
        elif name and (symbol := _MENTIONED[int(name[1:])][1]) is not None:
            known.append(symbol)
    return tuple(known), tuple(unknown)
