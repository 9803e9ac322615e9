"""The dataset `captions`: scenes of handwritten digits, and captions that a person would type for them."""

from __future__ import annotations

import dataclasses
import zlib
from pathlib import Path

import numpy as np

from cvae_jax.conditions import Text
from cvae_jax.conditions.text import encode_text
from cvae_jax.data.dataset import Dataset, Split
from cvae_jax.data.sources import tfds
from cvae_jax.data.sources.cache import packed_once
from experiments.tasks.captions import arrangements, captions, scenes

# Bytes of the longest caption there is.
LENGTH = 96
FACTORS = (
    *(f"digit {i}" for i in range(arrangements.CELLS)),
    *(f"size {i}" for i in range(arrangements.CELLS)),
)

# Scenes of one, two and three digits; test has as many again of held-out combinations.
_TRAIN = (108_000, 84_000, 48_000)
_VALIDATION = (1_125, 875, 500)
_TEST = (1_125, 875, 500)
_SEED = 0
# The test scenes have a seed of their own: a fresh test split, for a model that stays as it is, is another number here.
_TEST_SEED = 1
# To be raised with every change of what scenes or captions are drawn: packed ones are composed anew.
_VERSION = 4
_FIELDS = ("x", "c", "factors")
_ALTERNATIVE = "alternative_train"


def scene_split(
    rng: np.random.Generator,
    digits: Split,
    counts: tuple[int, int, int],
    *,
    held_out: bool = False,
    rewords: np.random.Generator | None = None,
) -> Split:
    """Scenes and their captions, in random order.

    Args:
      rng: draws them.
      digits: the scans they are composed from.
      counts: how many have one, two and three digits.
      held_out: whether their combinations are held out, and their captions leave no other way, or are all seen ones.
      rewords: draws a second caption of each scene, of the first one's meaning; None draws none.

    Returns:
      x uint8, c text, factors the grid, see `arrangements.to_grid`.
    """
    grids = np.concatenate(
        [arrangements.draw_part(rng, count, n, held_out=held_out) for count, n in enumerate(counts, 1)]
    )
    grids = rng.permutation(grids)
    x = scenes.compose(rng, grids, digits)
    texts, others = [], []
    for scene in map(arrangements.from_grid, grids):
        meaning = captions.draw_meaning(rng, scene, only_held_out=held_out)
        texts.append(captions.draw_caption(rng, meaning))
        if rewords is not None:
            others.append(captions.draw_caption(rewords, meaning))
    return Split(x, encode_text(texts, LENGTH), grids, encode_text(others, LENGTH) if others else None)


def captioned_scenes(digits: Dataset, cache_dir: Path) -> Dataset:
    """Scenes of the digits of a dataset, always the same; those of each split from that split's scans.

    `arrangements.held_out_rows` of the test split's factors says which half a row belongs to: combinations seen in
    training, and held-out ones.

    Args:
      digits: scans of single digits, MNIST.
      cache_dir: where they are packed to one file once they are composed.

    Returns:
      240,000 training, 2,500 validation and 5,000 test scenes, 32×32×1; those of training with a second caption each.

    Raises:
      DataError: if the file cannot be written.
    """
    scans = [zlib.crc32(split.x.tobytes()) for split in (digits.train, digits.validation, digits.test)]
    source = f"{_VERSION} {_SEED} {_TEST_SEED} {_TRAIN} {_VALIDATION} {_TEST} {scans}"
    arrays = packed_once(cache_dir / "captions.npz", source, lambda: _composed(digits))
    train, validation, test = (
        Split(*(arrays[f"{field}_{name}"] for field in _FIELDS)) for name in ("train", "validation", "test")
    )
    train = dataclasses.replace(train, alternative=arrays[_ALTERNATIVE])
    return Dataset("captions", train, validation, test, 255.0, Text(LENGTH), factor_names=FACTORS)


def _composed(digits: Dataset) -> dict[str, np.ndarray]:
    """The fields of all splits."""
    train, validation, rewords = (np.random.default_rng([_SEED, i]) for i in (0, 1, 4))
    seen, held_out = (np.random.default_rng([_TEST_SEED, i]) for i in (2, 3))
    halves = (
        scene_split(seen, digits.test, _TEST),
        scene_split(held_out, digits.test, _TEST, held_out=True),
    )
    of_train = scene_split(train, digits.train, _TRAIN, rewords=rewords)
    assert isinstance(of_train.alternative, np.ndarray)
    of_validation = scene_split(validation, digits.validation, _VALIDATION)
    return {
        f"{field}_{name}": np.concatenate([getattr(part, field) for part in parts])
        for field in _FIELDS
        for name, parts in (("train", (of_train,)), ("validation", (of_validation,)), ("test", halves))
    } | {_ALTERNATIVE: of_train.alternative}


def from_mnist(data_dir: Path | None, cache_dir: Path) -> Dataset:
    """`captioned_scenes` of MNIST as TFDS prepared it.

    Raises:
      DataError: if it is not prepared; see `sources.from_tfds`.
    """
    return captioned_scenes(tfds.from_tfds("mnist", data_dir, cache_dir), cache_dir)
