"""Scenes: where digits stand, how large they are, and the split made of them and their captions."""

import dataclasses

import numpy as np
import pytest
from arrays import SPLITS, load
from scans import glyphs, scanned

from cvae_jax.conditions import Label, Text
from cvae_jax.conditions.text import decode_text
from cvae_jax.data.dataset import Dataset, Split
from cvae_jax.errors import DataError
from experiments.tasks.captions import arrangements, scenes
from experiments.tasks.captions import dataset as captioned_scenes
from experiments.tasks.captions.arrangements import Digit, to_grid
from experiments.tasks.captions.dataset import LENGTH, scene_split
from experiments.tasks.captions.parser import parse
from experiments.tasks.captions.scores import right

COUNTS = (60, 50, 40)


def grids(count, n=300):
    return arrangements.draw(np.random.default_rng(count), count, n)


def compose(grids, digits=None, seed=0):
    return scenes.compose(np.random.default_rng(seed), np.asarray(grids), digits or scanned())


def placed(count):
    """Grids, and for each its digits' cells, sizes and boxes."""
    rng = np.random.default_rng(7)
    digits = scanned()
    ink = scenes.ink_boxes(digits.x[..., 0])
    for grid in grids(count):
        arrangement = arrangements.from_grid(grid)
        cells = np.array([d.cell for d in arrangement])
        large = np.array([int(d.large) for d in arrangement])
        yield cells, large, scenes.boxes(rng, cells, large, ink[rng.integers(len(ink), size=len(cells))])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_digit_has_its_size_and_its_centre_in_its_cell(count):
    for cells, large, boxes in placed(count):
        sides = boxes[:, 2:].max(axis=1)
        expected = np.where(large[:, None], scenes.LARGE, scenes.SMALL)
        assert ((sides >= expected[:, 0]) & (sides <= expected[:, 1])).all()
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, :2] + boxes[:, 2:] <= scenes.SIDE).all()
        centre = boxes[:, :2] + boxes[:, 2:] / 2
        np.testing.assert_array_equal(centre // (scenes.SIDE / 3), np.stack([cells // 3, cells % 3], axis=1))


@pytest.mark.parametrize("count", [2, 3])
def test_no_two_digits_overlap(count):
    for _, _, boxes in placed(count):
        covered = np.zeros((scenes.SIDE, scenes.SIDE), int)
        for top, left, height, width in boxes:
            covered[top : top + height, left : left + width] += 1
        assert covered.max() == 1


@pytest.mark.parametrize("large", [False, True])
def test_ink_is_as_large_as_the_digit_and_keeps_its_proportions(large):
    x = compose([to_grid((Digit(cell, digit, large),)) for cell in range(9) for digit in range(10)], glyphs())
    boxes = scenes.ink_boxes(x[..., 0])
    heights, widths = boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 2]
    least, most = scenes.LARGE if large else scenes.SMALL
    assert set(heights.tolist()) == {least, most}
    ones = np.arange(len(x)) % 10 == 1
    assert (np.abs(widths[~ones] - 0.8 * heights[~ones]) <= 0.5).all()
    assert (np.abs(widths[ones] - 0.2 * heights[ones]) <= 0.5).all()


def test_places_and_scans_differ_from_scene_to_scene():
    x = compose([to_grid((Digit(4, 3, False),))] * 200)
    assert len({picture.tobytes() for picture in x}) > 100


def test_area_averaging_keeps_the_ink():
    white = np.full((1, 20, 20, 1), 255, np.uint8)
    digits = Split(white.repeat(10, axis=0), np.arange(10, dtype=np.int32))
    x = compose([to_grid((Digit(cell, 0, True),)) for cell in range(9)], digits)
    assert set(np.unique(x)) == {0, 255}
    assert set((x == 255).sum(axis=(1, 2, 3)).tolist()) <= {18**2, 19**2}


def test_the_same_seed_composes_the_same_pictures():
    np.testing.assert_array_equal(compose(grids(2)), compose(grids(2)))
    assert (compose(grids(2)) != compose(grids(2), seed=1)).any()


def test_no_digits_make_an_empty_picture():
    assert not compose(np.zeros((3, 18), np.int32)).any()


def test_scans_that_lack_a_digit_or_ink_are_refused():
    digits = glyphs()
    with pytest.raises(DataError, match="no scan shows the digit 9"):
        compose(grids(1), digits.take(np.arange(9)))
    with pytest.raises(DataError, match="image 2 has no ink, expected a digit"):
        scenes.ink_boxes(digits.x[..., 0] * (np.arange(10) != 2)[:, None, None].astype(np.uint8))


# Scenes with captions


@pytest.fixture(scope="module", params=[False, True], ids=["seen", "held out"])
def part(request):
    split = scene_split(np.random.default_rng(3), scanned(), COUNTS, held_out=request.param)
    return split, request.param


def test_a_split_has_as_many_digits_as_asked(part):
    split, _ = part
    digits = (split.factors[:, :9] > 0).sum(axis=1)
    assert np.bincount(digits).tolist() == [0, *COUNTS]
    assert split.x.shape == (sum(COUNTS), 32, 32, 1)
    assert split.c.shape == (sum(COUNTS), LENGTH)
    assert split.c.dtype == split.x.dtype == np.uint8


def test_every_scene_is_what_its_caption_asks_for(part):
    split, _ = part
    for row, grid in zip(split.c, split.factors, strict=True):
        assert right(grid, parse(decode_text(row))), decode_text(row)


def test_held_out_combinations_are_in_their_part_alone(part):
    split, held_out = part
    assert (arrangements.held_out_rows(split.factors) == held_out).all()
    allowed = [parse(decode_text(row)) for row in split.c]
    assert all(held_out == all(map(arrangements.held_out, asked)) for asked in allowed)


@pytest.fixture
def built(monkeypatch, tmp_path):
    """A function that builds a small dataset of glyphs that are darker in training, brighter in testing."""
    for name in ("_TRAIN", "_VALIDATION", "_TEST"):
        monkeypatch.setattr(captioned_scenes, name, COUNTS)
    splits = [dataclasses.replace(glyphs(), x=glyphs().x // 255 * grey) for grey in (60, 100, 160)]
    mnist = Dataset("mnist", *splits, 255.0, Label(10), tuple("0123456789"))
    return lambda cache=tmp_path: captioned_scenes.captioned_scenes(mnist, cache)


def test_each_split_is_composed_of_its_own_scans(built):
    dataset = built()
    for name, grey in (("train", 60), ("validation", 100), ("test", 160)):
        brightest = getattr(dataset, name).x.max()
        assert grey <= brightest <= 1.5 * grey


def test_the_dataset_is_always_the_same_and_its_splits_are_not(built, tmp_path):
    one, two = built(tmp_path / "one"), built(tmp_path / "two")
    for name in SPLITS:
        a, b = getattr(one, name), getattr(two, name)
        for field in ("x", "c", "factors"):
            np.testing.assert_array_equal(getattr(a, field), getattr(b, field))
    assert (one.train.factors != one.validation.factors).any()
    assert (one.validation.factors != one.test.factors[: len(one.validation)]).any()


def test_it_is_composed_once_and_anew_when_what_it_holds_changes(built, monkeypatch):
    first = built()
    with monkeypatch.context() as broken:
        broken.delattr(captioned_scenes, "_composed")
        np.testing.assert_array_equal(built().train.x, first.train.x)
    monkeypatch.setattr(captioned_scenes, "_SEED", 2)
    assert (built().train.factors != first.train.factors).any()


def test_a_fresh_test_split_leaves_what_a_model_was_trained_and_chosen_on(built, monkeypatch):
    first = built()
    monkeypatch.setattr(captioned_scenes, "_TEST_SEED", 2)
    fresh = built()
    for name in ("train", "validation"):
        for field in ("x", "c", "factors"):
            np.testing.assert_array_equal(
                getattr(getattr(fresh, name), field), getattr(getattr(first, name), field)
            )
    np.testing.assert_array_equal(fresh.train.alternative, first.train.alternative)
    for half in (slice(0, 150), slice(150, 300)):
        assert (fresh.test.factors[half] != first.test.factors[half]).any()


def test_half_of_the_test_split_is_held_out_and_nothing_else(built):
    dataset = built()
    assert not arrangements.held_out_rows(dataset.train.factors).any()
    assert not arrangements.held_out_rows(dataset.validation.factors).any()
    assert arrangements.held_out_rows(dataset.test.factors).tolist() == [False] * 150 + [True] * 150


def test_its_condition_is_a_text_and_its_factors_are_named(built):
    dataset = built()
    assert dataset.condition == Text(LENGTH)
    assert not dataset.labelled
    assert dataset.factor_names[0] == "digit 0"
    assert len(dataset.factor_names) == dataset.train.factors.shape[1] == 18
    assert dataset.shape == (32, 32, 1)


def test_captions_without_mnist_name_the_command(tmp_path):
    with pytest.raises(DataError, match=rf"run ./launch.sh prepare --dataset=mnist --data_dir={tmp_path}$"):
        load("captions", condition="none", data_dir=tmp_path, cache_dir=tmp_path)
