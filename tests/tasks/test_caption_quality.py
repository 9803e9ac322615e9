"""The judge of drawn captions, on draws that are known: pictures stand for the grids that they show."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scans import glyphs

from cvae_jax.checksums import checksum
from cvae_jax.conditions import Text
from cvae_jax.conditions.text import decode_text
from cvae_jax.data.dataset import Dataset, Split
from experiments.tasks.captions import quality, scenes
from experiments.tasks.captions.arrangements import Digit, held_out, to_grid
from experiments.tasks.captions.dataset import FACTORS, LENGTH, scene_split
from experiments.tasks.captions.parser import parse
from experiments.tasks.captions.scene_reader import Reading

COUNTS = (12, 10, 8)


@pytest.fixture(scope="module")
def dataset():
    """Scenes whose first half is of seen combinations, the second of held-out ones."""
    halves = [scene_split(np.random.default_rng(i), glyphs(), COUNTS, held_out=bool(i)) for i in range(2)]
    test = Split(*(np.concatenate([getattr(half, f) for half in halves]) for f in ("x", "c", "factors")))
    return Dataset("captions", test, test, test, 255.0, Text(LENGTH), factor_names=FACTORS)


def certain(grids, certainty=1.0):
    return Reading(grids, np.full((len(grids), 9), certainty))


@pytest.fixture
def judged(monkeypatch, dataset):
    """A function from who draws a caption, as a grid, to the record of its quality."""
    monkeypatch.setattr(quality, "_read", lambda reader, x: certain(x.reshape(len(x), -1)))

    def judge(drawer):
        def draw(c, seed=0):
            grids = np.stack([drawer(decode_text(row)) for row in c])
            return (1.0 + seed) * grids.reshape(-1, 3, 6, 1)

        return quality._shares_right(None, draw, dataset.test)

    return judge


def as_asked(caption):
    return to_grid(min(parse(caption), key=str))


def test_what_is_asked_for_is_right(judged):
    record = judged(as_asked)
    names = ["right_all"]
    names += [f"right_{n}_{part}" for n in ("one_digit", "two_digits", "three_digits")
              for part in ("seen", "held_out")]  # fmt: skip
    errors = [f"{name}_standard_error" for name in names]
    assert {name for name in record if name.startswith("right_")} == {*names, *errors}
    assert {record[name] for name in names} == {1.0}
    assert {record[name] for name in errors} == {0.0}
    same = {share for name, share in record.items() if name.startswith("same_")}
    assert same == {1.0}
    assert record["stays_right_under_rewording"] == 1
    assert (record["ink_moved_by_rewording"], record["ink_moved_by_new_noise"]) == (0, 1)
    assert record["most_ink_moved_by_rewording"] == 0
    assert (record["another_digit_under_rewording"], record["another_digit_where_asked"]) == (0, 1)
    assert record["pictures"] == 60


def test_a_drawer_of_trained_combinations_fails_on_the_others(judged):
    record = judged(lambda caption: as_asked(caption) * (not any(map(held_out, parse(caption)))))
    for count in ("one_digit", "two_digits", "three_digits"):
        assert record[f"right_{count}_held_out"] == 0.0
    assert record["right_one_digit_seen"] > 0
    right = record["right_all"]
    expected = np.sqrt(right * (1 - right) / record["pictures"])
    assert record["right_all_standard_error"] == pytest.approx(expected)
    assert expected > 0


def test_a_drawer_that_depends_on_the_wording_is_detected(judged):
    record = judged(lambda caption: as_asked(caption) * (1 + ("draw" in caption)))
    assert record["same_under_rewording"] == record["same_picture_under_rewording"] < 0.5
    # Twice the ink, or half of it, of every second picture.
    assert 0.2 < record["ink_moved_by_rewording"] < 0.8
    assert record["most_ink_moved_by_rewording"] == 1
    assert record["stays_right_under_rewording"] < 0.5


def test_a_size_that_changes_with_the_wording_is_detected(judged):
    def drawer(caption):
        grid = as_asked(caption)
        grid[9:] = (grid[:9] > 0) * (1 + ("draw" in caption))
        return grid

    record = judged(drawer)
    assert record["same_digits_under_rewording"] == 1.0
    assert record["same_under_rewording"] < 0.5


def test_a_drawer_that_depends_on_the_wording_of_two_digits_is_detected_there(judged):
    def drawer(caption):
        grid = as_asked(caption)
        return grid * (np.count_nonzero(grid[:9]) != 2 or "draw" in caption)

    record = judged(drawer)
    assert record["same_digits_under_rewording_one_digit"] == 1.0
    assert record["same_digits_under_rewording_three_digits"] == 1.0
    assert record["same_digits_under_rewording_two_digits"] < 0.5
    # Of 12, 10 and 8 scenes.
    expected = (12 + 10 * record["same_digits_under_rewording_two_digits"] + 8) / 30
    assert record["same_digits_under_rewording"] == pytest.approx(expected)


def test_a_drawer_that_ignores_the_caption_is_detected(judged):
    record = judged(lambda caption: to_grid((Digit(4, 7, True),)))
    assert record["same_digits_under_rewording"] == 1
    assert record["another_digit_under_rewording"] == record["another_digit_where_asked"] == 0


@pytest.mark.parametrize(("certainty", "expected"), [(0.89, 0.0), (0.9, 1.0)])
def test_another_digit_counts_where_the_reader_is_certain(monkeypatch, dataset, certainty, expected):
    """Of a drawer that draws another digit under the last phrasing, in pictures of the same ink."""
    grids = quality._to_rephrase(dataset.test)
    calls = []

    def read(reader, x):
        calls.append(x)
        shown = grids.copy()
        shown[:, 0] += len(calls) == 4
        return certain(shown, certainty)

    monkeypatch.setattr(quality, "_read", read)
    moved = np.array([0.0, 0.0, 0.1, 0.02])
    drawn = []

    def draw(c, seed=0):
        drawn.append(np.full((len(c), 4, 4, 1), 1 + moved[len(drawn) % 4]))
        return drawn[-1]

    record = quality._under_rewording(None, draw, grids)
    assert record["same_digits_under_rewording"] == 0
    assert record["another_digit_under_rewording"] == expected
    assert record["another_digit_where_asked"] == 0
    assert record["most_ink_moved_by_rewording"] == pytest.approx(0.1)
    assert record["same_picture_under_rewording"] == 1


def test_a_shift_moves_as_much_ink_as_the_wording(dataset, monkeypatch):
    """Another picture under the last phrasing shows in what is read, and an unstable reader does, too."""
    grids = quality._to_rephrase(dataset.test)
    x = np.random.default_rng(0).uniform(size=(len(grids), 8, 8, 1))
    moved = [0.0, 0.0, 0.1, 0.02]
    read, drawn = [], []

    def draw(c, seed=0):
        drawn.append(x * (1 + moved[len(drawn) % 4]))
        return drawn[-1]

    def reader_of(reader, pictures):
        read.append(pictures)
        shown = grids.copy()
        shown[:, 0] += (np.abs(pictures - x).sum(axis=(1, 2, 3)) > 0.05 * x.sum(axis=(1, 2, 3))).astype(int)
        return certain(shown)

    monkeypatch.setattr(quality, "_read", reader_of)
    record = quality._under_rewording(None, draw, grids)
    assert record["same_digits_under_rewording"] == record["same_digits_under_shift"] == 0
    assert record["most_ink_moved_by_rewording"] == pytest.approx(0.1)
    assert record["same_picture_under_rewording"] == 1
    np.testing.assert_array_equal(read[4], x)
    for i, share in ((5, 0.1), (6, 0.02)):
        np.testing.assert_allclose(np.abs(read[i] - x).sum(axis=(1, 2, 3)), share * x.sum(axis=(1, 2, 3)))


def test_another_digit_is_asked_for_in_the_same_place():
    grids = quality._to_rephrase(scene_split(np.random.default_rng(0), glyphs(), (200, 200, 200)))
    changed = quality._with_another_digit(np.random.default_rng(0), grids)
    np.testing.assert_array_equal(changed[:, 9:], grids[:, 9:])
    np.testing.assert_array_equal(changed > 0, grids > 0)
    np.testing.assert_array_equal((changed != grids).sum(axis=1), 1)
    assert set(changed[:, :9].ravel()) == set(range(11))


def test_the_reader_is_judged_on_real_scenes(dataset, monkeypatch):
    seen = []

    def read(reader, x, *, x_max):
        seen.append((x, x_max))
        wrong = dataset.test.factors[: len(x)].copy()
        wrong[:15] = 0
        if len(seen) == 4:
            wrong[20] = 0
        reading = certain(wrong)
        # It is certain of what it reads right, and of the last of what it reads wrong.
        reading.certainty[:14] = 0.5
        return reading

    monkeypatch.setattr(quality.scene_reader, "read", read)
    record = quality._real_quality(None, dataset, glyphs())
    names = ("reader_accuracy", "reader_accuracy_softened", "real_right")
    assert [record[name] for name in names] == [0.75] * 3
    digits = np.count_nonzero(dataset.test.factors[:, :9], axis=1)
    assert record["reader_sure"] == pytest.approx(digits[14:].sum() / digits.sum())
    assert record["reader_right_where_sure"] == pytest.approx(digits[15:].sum() / digits[14:].sum())
    assert record["real_same_digits"] == pytest.approx(29 / 30)
    (x, _), (soft, _), *composed = seen
    np.testing.assert_array_equal(x, dataset.test.x)
    assert 0 < np.abs(np.diff(soft, axis=1)).max() < np.abs(np.diff(x.astype(int), axis=1)).max()
    assert {(x_max, x.shape[1:]) for x, x_max in seen} == {(255.0, (scenes.SIDE, scenes.SIDE, 1))}
    assert [len(x) for x, _ in composed] == [30] * 4
    assert (composed[0][0] != composed[1][0]).any()


def test_a_reader_is_trained_once(tmp_path, monkeypatch, capsys):
    trained = []

    def fit(x, grids, key):
        trained.append(x)
        shapes = quality.scene_reader.abstract_params()
        return jax.tree.map(lambda a: jnp.full(a.shape, 0.5, a.dtype), shapes)

    digits = SimpleNamespace(train=glyphs())
    monkeypatch.setattr(quality.scene_reader, "fit", fit)
    monkeypatch.setattr(quality.scene_reader, "NUM_EXAMPLES", 40)
    first, again = (quality._reader(digits, tmp_path) for _ in range(2))
    assert len(trained) == 1
    assert capsys.readouterr().err == "training the classifier that judges samples of captions\n"
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert checksum(1, glyphs().x) != checksum(2, glyphs().x)
