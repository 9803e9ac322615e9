"""Arrangements of digits in cells, and which of them training never sees."""

import itertools

import numpy as np
import pytest

from experiments.tasks.captions import arrangements
from experiments.tasks.captions.arrangements import Digit, held_out


def drawn(count, n=2000):
    return arrangements.draw(np.random.default_rng(count), count, n)


def test_18_of_90_digits_in_cells_are_held_out_and_10_of_100_pairs():
    digits = [(d, c) for d in range(10) for c in range(9) if arrangements.digit_held_out(d, c)]
    assert len(digits) == 18
    assert all(sum(c == cell for _, c in digits) == 2 for cell in range(9))
    assert all(1 <= sum(d == digit for d, _ in digits) <= 2 for digit in range(10))
    pairs = [p for p in itertools.product(range(10), repeat=2) if arrangements.pair_held_out(*p)]
    assert len(pairs) == 10
    assert not any((b, a) in pairs for a, b in pairs)


def test_every_digit_is_seen_in_every_row_and_column():
    for digit, line in itertools.product(range(10), range(3)):
        seen = [cell for cell in range(9) if not arrangements.digit_held_out(digit, cell)]
        assert any(cell // 3 == line for cell in seen)
        assert any(cell % 3 == line for cell in seen)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_layout_is_drawn_with_every_digit(count):
    found = [arrangements.from_grid(grid) for grid in drawn(count)]
    assert {tuple(d.cell for d in a) for a in found} == set(arrangements.layouts(count))
    assert {d.digit for a in found for d in a} == set(range(10))
    most_large = max(sum(d.large for d in a) for a in found)
    assert most_large == (1 if count < 3 else 0)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("part", [False, True])
def test_parts_are_held_out_or_not(count, part):
    grids = arrangements.draw_part(np.random.default_rng(0), count, 300, held_out=part)
    assert grids.shape == (300, 18)
    assert all(held_out(arrangements.from_grid(grid)) is part for grid in grids)


def test_many_grids_at_once_are_held_out_as_each_alone():
    grids = np.concatenate([drawn(count, 300) for count in (1, 2, 3)])
    each = [held_out(arrangements.from_grid(grid)) for grid in grids]
    np.testing.assert_array_equal(arrangements.held_out_rows(grids), each)


def test_a_grid_gives_its_arrangement_back():
    for grid in drawn(3, 50):
        np.testing.assert_array_equal(arrangements.to_grid(arrangements.from_grid(grid)), grid)


def test_cells_of_no_layout_have_no_form():
    with pytest.raises(ValueError, match=r"cells are \(0, 4\), expected those of a layout"):
        arrangements.form((Digit(0, 1), Digit(4, 1)))
