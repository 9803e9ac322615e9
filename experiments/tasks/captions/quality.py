"""Judge the pictures that a model draws of captions, by a reader of scenes trained on real ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import jax.numpy as jnp
import numpy as np

from cvae_jax.checksums import checksum
from cvae_jax.conditions.text import decode_text, encode_text
from cvae_jax.data.sources import tfds
from cvae_jax.evaluation import sampling
from cvae_jax.rng import Stream, root_key, stream
from cvae_jax.runs.session import Session, Trained
from experiments.reports import quality
from experiments.tasks.captions import captions, parser, scene_reader, scenes, scores
from experiments.tasks.captions.arrangements import CELLS, CLASSES, Arrangement, from_grid, held_out_rows
from experiments.tasks.captions.dataset import LENGTH

if TYPE_CHECKING:
    from jaxtyping import PyTree

    from cvae_jax.data.dataset import Dataset, Split

# Part of the name of a cached reader: to be raised with every change of how it is built or trained.
_READER_VERSION = 3
_REPHRASED = 600
_PHRASINGS = 4
# Of a picture's ink, what a wording may move and leave it the same picture: another size of one digit moves more.
_SAME_INK = 0.25
# By axis and pixels: right, down and left, one for each phrasing but the first.
_SHIFTS = ((2, 1), (1, 1), (2, -1))
_COUNTS = ("one_digit", "two_digits", "three_digits")


def find_judge(
    session: Session, cache: Path, temperature: float, split: Literal["validation", "test"] = "test"
) -> quality.Measure:
    """A function from a trained member to the shares of its pictures that show what a split's captions ask for.

    See `quality.find_judge`.
    """
    data_dir = Path(session.run.data_dir) if session.run.data_dir else None
    digits = tfds.from_tfds("mnist", data_dir, cache)
    reader = _reader(digits, cache)
    stored = quality.stored(session.run, cache)
    real = _real_quality(reader, stored.measured_on(split), digits.measured_on(split).test)

    def measure(session: Session, trained: Trained) -> quality.Record:
        draw = partial(_draw, session, trained, temperature)
        return _shares_right(reader, draw, session.dataset.test) | real

    return measure


def _reader(digits: Dataset, cache: Path) -> PyTree:
    key = stream(root_key(0), Stream.CLASSIFIER)
    depends_on = checksum(
        _READER_VERSION,
        scene_reader.NUM_EXAMPLES,
        scene_reader.NUM_STEPS,
        digits.train.x,
        digits.train.labels,
    )

    def train() -> PyTree:
        pictures = scene_reader.examples(np.random.default_rng(0), digits.train, scene_reader.NUM_EXAMPLES)
        return scene_reader.fit(*pictures, key)

    return quality.trained_once(cache, "captions", depends_on, scene_reader.abstract_params(), train)


def _shares_right(reader: PyTree, draw: Callable[..., np.ndarray], test: Split) -> quality.Record:
    """Shares of right pictures, one of each test caption, and of pictures that stay the same under rewording."""
    assert test.factors is not None
    assert isinstance(test.c, np.ndarray)
    asked = _asked(test.c)
    right = _right(_read(reader, draw(test.c)).grids, asked)
    shares = {
        f"right_{name}".replace(", ", "_").replace(" ", "_"): share
        for name, share in scores.shares(right, asked).items()
    }
    return {
        **{name: share.value for name, share in shares.items()},
        **{f"{name}_standard_error": share.standard_error for name, share in shares.items()},
        **_under_rewording(reader, draw, _to_rephrase(test)),
        "pictures": len(right),
    }


def _real_quality(reader: PyTree, dataset: Dataset, digits: Split) -> quality.Record:
    """How good the reader is on real scenes.

    Shares of test scenes read right as a whole, also where they are softened as drawn pictures are; of digits of the
    softened ones that it is sure of, and of those that it is then right about; of scenes found to be as captioned; and
    of scenes read alike each time they are composed. The last is no limit of what rewording may leave unchanged: each
    time has other scans, while pictures that rewording left alone would be one picture, read alike always.
    """
    test = dataset.test
    assert test.factors is not None
    assert isinstance(test.c, np.ndarray)
    read = partial(scene_reader.read, reader, x_max=dataset.x_max)
    sharp = read(jnp.asarray(test.x)).grids
    softened = read(scene_reader.soften(jnp.asarray(test.x, jnp.float32), 1.0))
    drawn, shown = test.factors[:, :CELLS] > 0, softened.grids[:, :CELLS] == test.factors[:, :CELLS]
    sure = softened.certainty >= scores.SURE
    rng, grids = np.random.default_rng(0), _to_rephrase(test)
    composed = [scenes.compose(rng, grids, digits) for _ in range(_PHRASINGS)]
    again = np.stack([read(jnp.asarray(x)).grids for x in composed], axis=1)
    return {
        "reader_accuracy": float(scene_reader.whole_right(sharp, test.factors).mean()),
        "reader_accuracy_softened": float(scene_reader.whole_right(softened.grids, test.factors).mean()),
        "reader_sure": float(sure[drawn].mean()),
        "reader_right_where_sure": float(shown[drawn & sure].mean()),
        "real_right": float(_right(sharp, _asked(test.c)).mean()),
        **_same_digits("real_same_digits", again, grids),
    }


def _asked(c: np.ndarray) -> list[frozenset[Arrangement]]:
    """What each caption asks for."""
    return [parser.parse(decode_text(row)) for row in c]


def _right(read: np.ndarray, asked: list[frozenset[Arrangement]]) -> np.ndarray:
    """Whether each picture shows what was asked for."""
    return np.array([scores.right(one, wanted) for one, wanted in zip(read, asked, strict=True)])


def _draw(session: Session, trained: Trained, temperature: float, c: np.ndarray, seed: int = 0) -> np.ndarray:
    """One picture of each caption, from the seed's noise whatever the captions."""
    key = stream(root_key(seed), Stream.QUALITY)
    x = sampling.generate(session.model, trained.best.params, key, jnp.asarray(c), temperature=temperature)
    return np.asarray(x)


def _read(reader: PyTree, x: np.ndarray) -> scene_reader.Reading:
    return scene_reader.read(reader, jnp.asarray(x), x_max=1.0)


def _to_rephrase(test: Split) -> np.ndarray:
    """Grids of scenes of trained combinations."""
    assert test.factors is not None
    return test.factors[~held_out_rows(test.factors)][:_REPHRASED]


def _phrased(rng: np.random.Generator, grids: np.ndarray, n: int) -> list[np.ndarray]:
    """The digits and places of each scene in n phrasings, which leave sizes open: n batches of captions."""
    texts = [
        rng.choice(captions.phrasings(captions.meanings(from_grid(grid))[0]), n, replace=False)
        for grid in grids
    ]
    return [encode_text(list(each), LENGTH) for each in zip(*texts, strict=True)]


def _with_another_digit(rng: np.random.Generator, grids: np.ndarray) -> np.ndarray:
    """Scenes of which one digit is another."""
    changed = grids.copy()
    for grid in changed:
        cell = rng.choice(np.flatnonzero(grid[:CELLS]))
        grid[cell] = 1 + (grid[cell] - 1 + rng.integers(1, CLASSES)) % CLASSES
    return changed


def _under_rewording(reader: PyTree, draw: Callable[..., np.ndarray], grids: np.ndarray) -> quality.Record:
    """Shares of draws that show the same under several phrasings of what their scene's cells hold.

    The phrasings leave sizes open: one share is of draws that show the same digits in the same places, by their number,
    the other of those that show them in the same sizes, too. A third is of the draws that are right under the first
    phrasing: those that are so under all. And how far the pictures themselves move, see `_ink_moved`.

    A picture between two digits is read now as one, now as the other, whatever moves it: beside the share that is read
    alike under all phrasings stands that of the first picture and of the same shifted, a part of a pixel, three ways,
    as far as each of the other phrasings moves it. Another share is of scenes in which the reader is sure of another
    digit, see `caption_scores.surely_another`, beside that where the caption does ask for another one.
    """
    rng = np.random.default_rng(0)
    by_phrasing = _phrased(rng, grids, _PHRASINGS)
    drawn = [draw(c) for c in by_phrasing]
    shifts = [
        scores.shifted_as_far(drawn[0], x, axis=axis, pixels=pixels)
        for x, (axis, pixels) in zip(drawn[1:], _SHIFTS, strict=True)
    ]
    [changed] = _phrased(rng, _with_another_digit(rng, grids), 1)
    first, *others = (_read(reader, x) for x in drawn)
    reworded = _stacked([first, *others])
    shifted = _stacked([first, *(_read(reader, x) for x in shifts)])
    asked = _stacked([first, _read(reader, draw(changed))])
    right = (reworded.grids[..., :CELLS] == grids[:, None, :CELLS]).all(axis=2)

    def another_digit(read: scene_reader.Reading) -> float:
        return float(np.mean(scores.surely_another(read.grids[..., :CELLS], read.certainty)))

    return {
        **_same_digits("same_digits_under_rewording", reworded.grids, grids),
        **_same_digits("same_digits_under_shift", shifted.grids, grids),
        "another_digit_under_rewording": another_digit(reworded),
        "another_digit_where_asked": another_digit(asked),
        "same_under_rewording": _value(scores.consistency(reworded.grids)),
        "stays_right_under_rewording": _value(scores.stays_right(right)),
        **_ink_moved(drawn[0], drawn[1:], draw(by_phrasing[0], 1)),
    }


def _stacked(readings: list[scene_reader.Reading]) -> scene_reader.Reading:
    """What k pictures of each of n scenes show, and how certainly, shapes (n, k, 18) and (n, k, 9)."""
    return scene_reader.Reading(*(np.stack(each, axis=1) for each in zip(*readings, strict=True)))


def _ink_moved(first: np.ndarray, reworded: list[np.ndarray], new_noise: np.ndarray) -> quality.Record:
    """How far pictures move, which no reader judges: the sum of their pixels' changes over that of their pixels.

    Of all, and of the pair that moves most, beside what other noise in place of other words moves; and the share of
    scenes of which no phrasing moves more than a quarter of the ink.
    """

    def of_all(others: list[np.ndarray]) -> float:
        return float(np.mean([np.abs(x - first).sum() for x in others]) / first.sum())

    def of_each(x: np.ndarray) -> np.ndarray:
        return np.abs(x).sum(axis=(1, 2, 3))

    # Of a picture with hardly any ink, a pixel's.
    ink = np.maximum(of_each(first), 1.0)
    most = np.max([of_each(x - first) / ink for x in reworded], axis=0)
    return {
        "same_picture_under_rewording": float(np.mean(most <= _SAME_INK)),
        "ink_moved_by_rewording": of_all(reworded),
        "most_ink_moved_by_rewording": float(most.max()),
        "ink_moved_by_new_noise": of_all([new_noise]),
    }


def _value(share: scores.Share) -> float | None:
    """A share, None where there are no pictures: the validation split has no held-out combinations."""
    return share.value if share.pictures else None


def _same_digits(name: str, read: np.ndarray, grids: np.ndarray) -> quality.Record:
    """Shares of scenes whose pictures all show the same digits in the same places: of all, and by how many they hold.

    Args:
      name: of the share of all, which those of the others begin with.
      read: what k pictures of each scene show, shape (n, k, 18).
      grids: of the scenes, shape (n, 18).
    """
    counts = np.count_nonzero(grids[:, :CELLS], axis=1)
    shares = {name: _value(scores.consistency(read[..., :CELLS]))}
    for count, of_count in enumerate(_COUNTS, 1):
        shares[f"{name}_{of_count}"] = _value(scores.consistency(read[counts == count][..., :CELLS]))
    return shares
