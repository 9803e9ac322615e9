"""Whether pictures show what was asked for, and the shares of those that do."""

import numpy as np
import pytest

from experiments.tasks.captions.arrangements import Digit, to_grid
from experiments.tasks.captions.parser import parse
from experiments.tasks.captions.scores import (
    Share,
    consistency,
    right,
    shares,
    shifted_as_far,
    surely_another,
)

ASKED = "a large seven above a small two"


@pytest.mark.parametrize(
    ("drawn", "expected"),
    [
        ([(0, 7, True), (6, 2, False)], True),
        ([(2, 7, True), (8, 2, False)], True),  # the column is free
        ([(0, 2, False), (6, 7, True)], False),  # the wrong way round
        ([(0, 7, True), (2, 2, False)], False),  # beside
        ([(0, 7, False), (6, 2, False)], False),  # a wrong size
        ([(0, 7, True), (6, 2, False), (8, 1, False)], False),  # one too many
        ([(0, 7, True)], False),
        ([], False),
    ],
)
def test_a_picture_is_right_if_it_shows_what_is_asked_and_nothing_else(drawn, expected):
    read = to_grid(tuple(Digit(*digit) for digit in drawn))
    assert right(read, parse(ASKED)) is expected


def test_what_is_not_said_is_free():
    for cell in range(9):
        for large in (False, True):
            read = to_grid((Digit(cell, 8, large),))
            assert right(read, parse("an eight"))
            assert right(read, parse("a big eight")) is large
            assert right(read, parse("an eight in the middle")) is (cell == 4)


def test_the_standard_error_of_a_share_is_that_of_a_mean_of_zeros_and_ones():
    hits = np.array([1.0, 0.0, 0.0, 1.0, 1.0])
    share = Share(float(hits.mean()), len(hits))
    assert share.standard_error == pytest.approx(np.std(hits) / np.sqrt(len(hits)))
    assert np.isnan(Share(float("nan"), 0).standard_error)


def test_shares_are_by_count_and_by_what_training_saw():
    captions = ["a 7", "a 7 top left", "a 5 top left", "4 left of 7", "7 left of 4", "1, 2 and 6 in a row"]
    found = shares(np.array([True, False, True, False, True, True]), [parse(one) for one in captions])
    assert found == {
        "one digit, seen": Share(0.5, 2),
        "one digit, held out": Share(1.0, 1),
        "two digits, seen": Share(1.0, 1),
        "two digits, held out": Share(0.0, 1),
        "three digits, seen": Share(1.0, 1),
        "three digits, held out": found["three digits, held out"],
        "all": Share(4 / 6, 6),
    }
    none = found["three digits, held out"]
    assert np.isnan(none.value)
    assert none.pictures == 0


def test_consistency_is_the_share_that_reads_the_same_under_every_phrasing():
    read = np.zeros((3, 4, 18), int)
    read[1, 2, 5] = 3
    assert consistency(read) == Share(2 / 3, 3)


def test_another_digit_counts_where_both_readings_are_certain():
    """Another digit of one cell in the last of three pictures; or none, or more certain pictures between."""
    digits = np.tile(np.arange(9), (5, 3, 1))
    digits[:4, 2, 3] = [7, 0, 7, 7]
    certainty = np.full((5, 3, 9), 0.99)
    certainty[2, 0, 3] = certainty[3, 2, 3] = 0.89
    certainty[1, :, 4] = 0.5
    np.testing.assert_array_equal(surely_another(digits, certainty), [True, True, False, False, False])
    # The other pictures among themselves do not count: they are compared with the first.
    digits[4, 1:, 3] = [1, 2]
    certainty[4, 0, 3] = 0.5
    assert not surely_another(digits, certainty)[4]


@pytest.mark.parametrize(("axis", "pixels"), [(1, 1), (2, 1), (2, -1), (1, -2)])
def test_a_shift_moves_as_much_ink_as_another_picture(axis, pixels):
    rng = np.random.default_rng(0)
    x = np.pad(rng.uniform(size=(3, 6, 7, 1)), ((0, 0), (2, 2), (2, 2), (0, 0)))
    x[2] = 0.0
    other = x * np.array([1.0, 0.9, 1.0])[:, None, None, None]
    shifted = shifted_as_far(x, other, axis=axis, pixels=pixels)
    moved = np.abs(shifted - x).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(moved, [0, 0.1 * x[1].sum(), 0])
    np.testing.assert_allclose(shifted.sum(axis=(1, 2, 3)), x.sum(axis=(1, 2, 3)))
    # Nothing is shifted by more than all of it, and what leaves the picture is gone.
    np.testing.assert_allclose(shifted_as_far(x, x + 9, axis=axis, pixels=pixels), np.roll(x, pixels, axis))
    edge = shifted_as_far(np.ones((1, 3, 3, 1)), np.zeros((1, 3, 3, 1)), axis=axis, pixels=pixels)
    assert edge.sum() == 9 - 3 * abs(pixels)
