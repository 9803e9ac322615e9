"""Captions: every way to say what a scene shows, and what each asks for."""

import itertools

import numpy as np
import pytest

from experiments.tasks.captions import arrangements, captions, dataset
from experiments.tasks.captions.arrangements import Digit, held_out
from experiments.tasks.captions.captions import Meaning, Mentioned, asked, meanings, phrasings
from experiments.tasks.captions.parser import CaptionError, parse, unknown_words


def scenes_of(count):
    """A scene of each layout, of each form with each pattern of sizes; their digits run through all ten."""
    sizes = {1: [(False,), (True,)], 2: [(False, False), (True, False), (False, True)], 3: [(False,) * 3]}
    digit = itertools.count()
    for cells, large in zip(arrangements.layouts(count), itertools.cycle(sizes[count]), strict=False):
        yield tuple(Digit(cell, 7 * next(digit) % 10, size) for cell, size in zip(cells, large, strict=True))


@pytest.mark.parametrize(
    "count", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)]
)
def test_every_phrasing_asks_for_what_it_means(count):
    mentioned = set()
    for scene in scenes_of(count):
        for meaning in meanings(scene):
            mentioned.add(meaning.mentioned)
            expected = asked(meaning)
            silent_or_right = {tuple(d._replace(large=None) for d in a) for a in expected}
            assert tuple(d._replace(large=None) for d in scene) in silent_or_right
            for caption in phrasings(meaning):
                assert parse(caption) == expected, caption
                assert unknown_words(caption) == (), caption
                assert len(caption.encode()) <= dataset.LENGTH, caption
    assert len(mentioned) == {1: 4, 2: 4, 3: 3}[count]


def test_every_digit_has_a_word_and_a_numeral():
    for digit in range(10):
        found = phrasings(Meaning((Digit(4, digit),), Mentioned.NOTHING))
        assert all({one[0].digit for one in parse(caption)} == {digit} for caption in found)
        assert len(found) == 8


def test_there_are_many_phrasings_of_one_meaning():
    both = Meaning((Digit(0, 7, True), Digit(6, 2, False)), Mentioned.FORM)
    assert {"a large seven above a small two", "draw 2 under 7"} & set(phrasings(both))
    assert len(phrasings(both)) == len(set(phrasings(both))) == 240
    assert phrasings(both) == phrasings(both)


ABOVE = frozenset({(Digit(c, 7, True), Digit(c + 6, 2, False)) for c in range(3)})


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A LARGE seven above a small two.", ABOVE),
        ("please draw me a little 2 beneath a huge 7!", ABOVE),
        ("big 7, and underneath it a tiny 2", ABOVE),
        ("a small four at the top left", {(Digit(0, 4, False),)}),
        ("in the upper left-hand corner a tiny four", {(Digit(0, 4, False),)}),
        ("an eight", {(Digit(c, 8),) for c in range(9)}),
        ("draw a 7 in the middle", {(Digit(4, 7),)}),
        ("a 7 on the right-hand side of the picture", {(Digit(c, 7),) for c in (2, 5, 8)}),
        (
            "three on the left of nine, and a one below",
            {(Digit(0, 3), Digit(2, 9), Digit(c, 1)) for c in (6, 7, 8)},
        ),
        ("a 3 to the left of a 9 at the top", {(Digit(0, 3), Digit(2, 9))}),
        ("3 left of 9 in the middle", {(Digit(3, 3), Digit(5, 9))}),
        ("7 above 2 on the right", {(Digit(2, 7), Digit(8, 2))}),
        ("1, 2 and 3 from left to right along the top", {(Digit(0, 1), Digit(1, 2), Digit(2, 3))}),
    ],
)
def test_what_a_person_may_type(caption, expected):
    assert parse(caption) == expected


def test_what_no_layout_has_is_asked_for_all_the_same():
    assert parse("a 2 in the middle and a 7 at the top left") == {(Digit(0, 7), Digit(4, 2))}


def test_unknown_words_are_named_and_passed_over():
    assert unknown_words("a purple seven above two cats") == ("purple", "cats")
    assert parse("a purple seven in the middle") == parse("a seven in the middle")
    assert unknown_words("17") == ("17",)
    assert unknown_words("a large seven, please!") == ()


@pytest.mark.parametrize(
    ("caption", "message"),
    [
        ("", r"caption '' names 0 digits, expected 1 to 3$"),
        ("a sevn", r"names 0 digits, expected 1 to 3; unknown words: sevn"),
        ("1, 2, 3 and 4", r"names 4 digits, expected 1 to 3"),
        ("a 7 and a 2 in the middle, a 3 in the middle", r"asks for an arrangement that does not exist"),
        ("seven large", r"cannot be understood, expected one like"),
        ("above above 7 large", r"cannot be understood"),
    ],
)
def test_a_caption_that_cannot_be_drawn_is_refused_in_a_line(caption, message):
    with pytest.raises(CaptionError, match=message) as error:
        parse(caption)
    assert "\n" not in str(error.value)


def test_any_words_ask_for_something_or_are_refused():
    places = ["top", "left", "right", "bottom", "middle", "above", "below", "beside", "row", "column"]
    words = [
        "a",
        "7",
        "two",
        "large",
        "of",
        "to",
        "on",
        "it",
        "them",
        ",",
        "with",
        "in",
        "other",
        "cat",
        *places,
    ]
    rng = np.random.default_rng(0)
    parsed = 0
    for _ in range(2000):
        caption = " ".join(rng.choice(words, rng.integers(1, 9)))
        try:
            assert parse(caption)
            parsed += 1
        except CaptionError:
            continue
    assert 200 < parsed < 1800


@pytest.mark.parametrize("count", [1, 2, 3])
def test_captions_of_held_out_scenes_leave_no_seen_way(count):
    rng = np.random.default_rng(1)
    for grid in arrangements.draw_part(rng, count, 100, held_out=True):
        scene = arrangements.from_grid(grid)
        caption = captions.draw_caption(rng, captions.draw_meaning(rng, scene, only_held_out=True))
        assert all(map(held_out, parse(caption)))


def test_drawn_captions_are_phrasings_of_their_meaning():
    rng = np.random.default_rng(2)
    scene = (Digit(3, 6, False), Digit(5, 0, True))
    drawn = {meaning: set() for meaning in meanings(scene)}
    for _ in range(300):
        meaning = captions.draw_meaning(rng, scene)
        drawn[meaning].add(captions.draw_caption(rng, meaning))
    assert all(drawn.values())
    assert all(found <= set(phrasings(meaning)) for meaning, found in drawn.items())
