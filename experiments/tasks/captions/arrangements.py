"""Arrangements of one to three digits on a grid of nine cells, and which of them training never sees."""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Bool, Int

CELLS = 9
CLASSES = 10


class Digit(NamedTuple):
    """One digit of an arrangement.

    Attributes:
      cell: where its centre lies, from 0 at the top left to 8 at the bottom right, row by row.
      digit: 0 to 9.
      large: its size; None where the caption does not mention it.
    """

    cell: int
    digit: int
    large: bool | None = None


# One to three digits, in the order of their cells.
Arrangement = tuple[Digit, ...]

_ROWS = [(3 * row, 3 * row + 1, 3 * row + 2) for row in range(3)]
_COLUMNS = [(column, column + 3, column + 6) for column in range(3)]
# The forms that digits are arranged in, and the cells that each may take, in order.
LAYOUTS: dict[str, tuple[tuple[int, ...], ...]] = {
    "one": tuple((cell,) for cell in range(CELLS)),
    "beside": tuple((left, right) for left, _, right in _ROWS),
    "above": tuple((top, bottom) for top, _, bottom in _COLUMNS),
    "row": tuple(_ROWS),
    "column": tuple(_COLUMNS),
    "pair over one": tuple((0, 2, cell) for cell in (6, 7, 8)),
    "one over pair": tuple((cell, 6, 8) for cell in (0, 1, 2)),
}
FORMS = {1: ("one",), 2: ("beside", "above"), 3: ("row", "column", "pair over one", "one over pair")}


def layouts(count: int) -> tuple[tuple[int, ...], ...]:
    """The cells that `count` digits may take, over all forms."""
    return tuple(cells for form in FORMS[count] for cells in LAYOUTS[form])


def form(arrangement: Arrangement) -> str:
    """The name of an arrangement's form.

    Raises:
      ValueError: if its cells are those of none.

    Example:
      >>> form((Digit(0, 7), Digit(6, 2)))
      'above'
    """
    cells = tuple(digit.cell for digit in arrangement)
    for name in FORMS.get(len(cells), ()):
        if cells in LAYOUTS[name]:
            return name
    raise ValueError(f"cells are {cells}, expected those of a layout of 1 to 3 digits")


def to_grid(arrangement: Arrangement) -> Int[np.ndarray, " 18"]:
    """Digits and sizes of the nine cells: 0 where one is empty, 1 + digit; then 1 for small, 2 for large.

    Example:
      >>> to_grid((Digit(4, 7, True),)).reshape(2, 9).tolist()
      [[0, 0, 0, 0, 8, 0, 0, 0, 0], [0, 0, 0, 0, 2, 0, 0, 0, 0]]
    """
    grid = np.zeros(2 * CELLS, np.int32)
    for cell, digit, large in arrangement:
        grid[cell], grid[CELLS + cell] = 1 + digit, 1 + bool(large)
    return grid


def from_grid(grid: Int[np.ndarray, " 18"]) -> Arrangement:
    """The arrangement of a grid.

    Example:
      >>> from_grid(to_grid((Digit(0, 3, False), Digit(2, 9, True))))
      (Digit(cell=0, digit=3, large=False), Digit(cell=2, digit=9, large=True))
    """
    digits, sizes = grid[:CELLS].tolist(), grid[CELLS:].tolist()
    return tuple(Digit(i, digits[i] - 1, sizes[i] == 2) for i in range(CELLS) if digits[i])


def digit_held_out(digit: int, cell: int) -> bool:
    """Whether training never shows a digit in a cell: two digits of every cell, so 18 of the 90.

    Every digit is still seen in every row and in every column.

    Example:
      >>> [digit for digit in range(10) if digit_held_out(digit, 0)]
      [0, 5]
    """
    return digit % 5 == cell % 5


def pair_held_out(first: int, second: int) -> bool:
    """Whether training never shows `first` left of `second` in one row, nor above it in one column.

    One pair for each digit, so 10 of the 100; the same two digits are seen the other way round.

    Example:
      >>> pair_held_out(4, 7), pair_held_out(7, 4)
      (True, False)
    """
    return second == (first + 3) % CLASSES


def aligned(a: int, b: int) -> bool:
    """Whether two cells lie in one row or in one column."""
    return a // 3 == b // 3 or a % 3 == b % 3


def held_out(arrangement: Arrangement) -> bool:
    """Whether training never shows an arrangement: it has a held-out digit in its cell, or a held-out pair.

    Example:
      >>> held_out((Digit(0, 4),)), held_out((Digit(0, 5),)), held_out((Digit(0, 4), Digit(2, 7)))
      (False, True, True)
    """
    return any(digit_held_out(d.digit, d.cell) for d in arrangement) or any(
        aligned(a.cell, b.cell) and pair_held_out(a.digit, b.digit)
        for a, b in itertools.combinations(sorted(arrangement), 2)
    )


@functools.cache
def _held_out_tables() -> tuple[Bool[np.ndarray, "9 11"], Bool[np.ndarray, "11 11"]]:
    """`digit_held_out` by cell and grid value, `pair_held_out` by two grid values: never for an empty cell."""
    digits, pairs = np.zeros((CELLS, CLASSES + 1), bool), np.zeros((CLASSES + 1, CLASSES + 1), bool)
    for a in range(CLASSES):
        digits[:, 1 + a] = [digit_held_out(a, cell) for cell in range(CELLS)]
        pairs[1 + a, 1:] = [pair_held_out(a, b) for b in range(CLASSES)]
    return digits, pairs


def held_out_rows(grids: Int[np.ndarray, "n 18"]) -> Bool[np.ndarray, " n"]:
    """`held_out` of many grids at once, shape (n,)."""
    digits, pairs = _held_out_tables()
    found = np.logical_or.reduce(digits[np.arange(CELLS), grids[:, :CELLS]], axis=1)
    for a, b in itertools.combinations(range(CELLS), 2):
        if aligned(a, b):
            found |= pairs[grids[:, a], grids[:, b]]
    return found


def draw(rng: np.random.Generator, count: int, n: int) -> Int[np.ndarray, "n 18"]:
    """Grids of `count` digits each, held out or not: a form, its cells, digits and sizes, each uniform.

    Of two digits one at most is large, of three none.

    Args:
      rng: draws them.
      count: of digits, 1 to 3.
      n: number of grids.

    Returns:
      See `to_grid`, shape (n, 18), int32.
    """
    cells = np.array(layouts(count))[rng.integers(len(layouts(count)), size=n)]
    digits = rng.integers(CLASSES, size=(n, count))
    # 0 makes no digit large, i the i-th; none of three.
    largest = rng.integers(count + 1 if count < 3 else 1, size=(n, 1))
    grids = np.zeros((n, 2 * CELLS), np.int32)
    np.put_along_axis(grids, cells, 1 + digits, axis=1)
    np.put_along_axis(grids, CELLS + cells, 1 + (largest == 1 + np.arange(count)), axis=1)
    return grids


def draw_part(rng: np.random.Generator, count: int, n: int, *, held_out: bool) -> Int[np.ndarray, "n 18"]:
    """As `draw`, but held-out grids only, or seen ones only."""
    parts: list[np.ndarray] = []
    while sum(map(len, parts)) < n:
        grids = draw(rng, count, 2 * n + 16)
        parts.append(grids[held_out_rows(grids) == held_out])
    return np.concatenate(parts)[:n]
