"""Judge the pictures that a model draws of captions, by a reader of scenes trained on real ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from cvae_jax import caption_parser, caption_scores, captions, sampling, scene_reader, sources
from cvae_jax.arrangements import from_grid, held_out_rows
from cvae_jax.captioned_scenes import LENGTH
from cvae_jax.condition_kinds import decode_text, encode_text
from cvae_jax.randomness import Stream, stream
from experiments import quality
from experiments.workdir import Run

if TYPE_CHECKING:
    from jaxtyping import PyTree

    from cvae_jax.dataset import Dataset
    from experiments.loop import Session
    from experiments.measures import Record
    from experiments.results import Trained

# Part of the name of a cached reader: to be raised with every change of how it is built or trained.
_READER_VERSION = 1
_READER_SCENES = 100_000
_REPHRASED = 200
_PHRASINGS = 4


def find_judge(run: Run, cache: Path) -> Callable[[Session, Trained], Record]:
    """A function from a trained member to the shares of its pictures that show what the test captions ask for."""
    data_dir = Path(run.data_dir) if run.data_dir else None
    params = _reader(sources.from_tfds("mnist", data_dir, cache), cache)
    return lambda session, trained: _shares_right(params, session, trained)


def _reader(digits: Dataset, cache: Path) -> PyTree:
    key = stream(jax.random.key(0), Stream.CLASSIFIER)
    whole = quality.fingerprint(
        _READER_VERSION, _READER_SCENES, scene_reader.NUM_STEPS, digits.train.x, digits.train.labels
    )

    def train() -> PyTree:
        pictures = scene_reader.examples(np.random.default_rng(0), digits.train, _READER_SCENES)
        return scene_reader.fit(*pictures, key)

    return quality.trained_once(cache, f"captions-{whole}", scene_reader.abstract_params(), train)


def _shares_right(reader: PyTree, session: Session, trained: Trained) -> Record:
    """Shares of right pictures, one of each test caption; of pictures under every phrasing; and of real scenes."""
    dataset, test = session.dataset, session.dataset.test
    assert test.factors is not None
    assert isinstance(test.c, np.ndarray)
    asked = [caption_parser.parse(decode_text(row)) for row in test.c]
    read = _read(reader, _draw(session, trained, test.c))
    right = np.array([caption_scores.right(one, wanted) for one, wanted in zip(read, asked, strict=True)])
    shares = {
        name.replace(", ", "_").replace(" ", "_"): share.value
        for name, share in caption_scores.shares(right, asked).items()
    }
    real = scene_reader.read(reader, jnp.asarray(test.x), x_max=dataset.x_max)
    real_right = np.array(
        [caption_scores.right(one, wanted) for one, wanted in zip(real, asked, strict=True)]
    )
    seen = np.flatnonzero(~held_out_rows(test.factors))
    return {
        **{f"right_{name}": value for name, value in shares.items()},
        "same_under_rewording": _consistency(reader, session, trained, test.factors[seen[:_REPHRASED]]),
        "real_right": float(real_right.mean()),
        "pictures": len(right),
    }


def _draw(session: Session, trained: Trained, c: np.ndarray) -> np.ndarray:
    """One picture of each caption, from the same noise whatever the captions."""
    key = stream(jax.random.key(0), Stream.QUALITY)
    mask = trained.hparams.latent_mask
    return np.asarray(sampling.generate(session.model, trained.best.params, key, jnp.asarray(c), mask))


def _read(reader: PyTree, x: np.ndarray) -> np.ndarray:
    return scene_reader.read(reader, jnp.asarray(x), x_max=1.0)


def _consistency(reader: PyTree, session: Session, trained: Trained, grids: np.ndarray) -> float:
    """The share of draws that show the same under several phrasings of what their scene's cells hold."""
    rng = np.random.default_rng(0)
    scenes = [from_grid(grid) for grid in grids]
    texts = [
        rng.choice(captions.phrasings(captions.meanings(scene)[0]), _PHRASINGS, replace=False)
        for scene in scenes
    ]
    by_phrasing = [encode_text(list(each), LENGTH) for each in zip(*texts, strict=True)]
    read = np.stack([_read(reader, _draw(session, trained, c)) for c in by_phrasing], axis=1)
    return caption_scores.consistency(read).value
