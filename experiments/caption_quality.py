"""Judge the pictures that a model draws of captions, by a reader of scenes trained on real ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from cvae_jax import caption_parser, caption_scores, captions, data, sampling, scene_reader, sources
from cvae_jax.arrangements import CELLS, Arrangement, from_grid, held_out_rows
from cvae_jax.captioned_scenes import LENGTH
from cvae_jax.condition_kinds import decode_text, encode_text
from cvae_jax.randomness import Stream, stream
from experiments import quality
from experiments.workdir import Run

if TYPE_CHECKING:
    from jaxtyping import PyTree

    from cvae_jax.dataset import Dataset, Split
    from experiments.loop import Session
    from experiments.measures import Record
    from experiments.results import Trained

# Part of the name of a cached reader: to be raised with every change of how it is built or trained.
_READER_VERSION = 1
_REPHRASED = 200
_PHRASINGS = 4


def find_judge(run: Run, cache: Path, temperature: float) -> Callable[[Session, Trained], Record]:
    """A function from a trained member to the shares of its pictures that show what the test captions ask for."""
    data_dir = Path(run.data_dir) if run.data_dir else None
    reader = _reader(sources.from_tfds("mnist", data_dir, cache), cache)
    # The reader sees scenes as they are stored, though the run may binarize them.
    stored = data.load(dataclasses.replace(run.config, binarize="none"), data_dir=data_dir, cache_dir=cache)
    real = _real_quality(reader, stored)

    def measure(session: Session, trained: Trained) -> Record:
        draw = partial(_draw, session, trained, temperature)
        return _shares_right(reader, draw, session.dataset.test) | real

    return measure


def _reader(digits: Dataset, cache: Path) -> PyTree:
    key = stream(jax.random.key(0), Stream.CLASSIFIER)
    depends_on = quality.fingerprint(
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


def _shares_right(reader: PyTree, draw: Callable[[np.ndarray], np.ndarray], test: Split) -> Record:
    """Shares of right pictures, one of each test caption, and of pictures that stay the same under rewording."""
    assert test.factors is not None
    assert isinstance(test.c, np.ndarray)
    asked = _asked(test.c)
    right = _right(_read(reader, draw(test.c)), asked)
    shares = {
        name.replace(", ", "_").replace(" ", "_"): share.value
        for name, share in caption_scores.shares(right, asked).items()
    }
    seen = np.flatnonzero(~held_out_rows(test.factors))
    return {
        **{f"right_{name}": value for name, value in shares.items()},
        **_consistency(reader, draw, test.factors[seen[:_REPHRASED]]),
        "pictures": len(right),
    }


def _real_quality(reader: PyTree, dataset: Dataset) -> Record:
    """How good the reader is: shares of real test scenes read right as a whole, and found to be as captioned."""
    test = dataset.test
    assert test.factors is not None
    assert isinstance(test.c, np.ndarray)
    read = scene_reader.read(reader, jnp.asarray(test.x), x_max=dataset.x_max)
    return {
        "reader_accuracy": float(scene_reader.whole_right(read, test.factors).mean()),
        "real_right": float(_right(read, _asked(test.c)).mean()),
    }


def _asked(c: np.ndarray) -> list[frozenset[Arrangement]]:
    """What each caption asks for."""
    return [caption_parser.parse(decode_text(row)) for row in c]


def _right(read: np.ndarray, asked: list[frozenset[Arrangement]]) -> np.ndarray:
    """Whether each picture shows what was asked for."""
    return np.array([caption_scores.right(one, wanted) for one, wanted in zip(read, asked, strict=True)])


def _draw(session: Session, trained: Trained, temperature: float, c: np.ndarray) -> np.ndarray:
    """One picture of each caption, from the same noise whatever the captions."""
    key = stream(jax.random.key(0), Stream.QUALITY)
    mask = trained.hparams.latent_mask
    x = sampling.generate(
        session.model, trained.best.params, key, jnp.asarray(c), mask, temperature=temperature
    )
    return np.asarray(x)


def _read(reader: PyTree, x: np.ndarray) -> np.ndarray:
    return scene_reader.read(reader, jnp.asarray(x), x_max=1.0)


def _consistency(reader: PyTree, draw: Callable[[np.ndarray], np.ndarray], grids: np.ndarray) -> Record:
    """Shares of draws that show the same under several phrasings of what their scene's cells hold.

    The phrasings leave sizes open: one share is of draws that show the same digits in the same places, the other of
    those that show them in the same sizes, too.
    """
    rng = np.random.default_rng(0)
    scenes = [from_grid(grid) for grid in grids]
    texts = [
        rng.choice(captions.phrasings(captions.meanings(scene)[0]), _PHRASINGS, replace=False)
        for scene in scenes
    ]
    by_phrasing = [encode_text(list(each), LENGTH) for each in zip(*texts, strict=True)]
    read = np.stack([_read(reader, draw(c)) for c in by_phrasing], axis=1)
    return {
        "same_digits_under_rewording": caption_scores.consistency(read[..., :CELLS]).value,
        "same_under_rewording": caption_scores.consistency(read).value,
    }
