"""Judge the words that a model speaks, by classifiers of spectrograms trained on real recordings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import jax
import jax.numpy as jnp
import numpy as np

from cvae_jax.checksums import checksum
from cvae_jax.data.sources import audio
from cvae_jax.evaluation import sampling
from cvae_jax.rng import Stream, root_key, stream
from cvae_jax.runs.session import Session, Trained
from experiments.reports import quality
from experiments.tasks.spoken_digit import judge as speech_judge

if TYPE_CHECKING:
    from experiments.tasks.spoken_digit.judge import SpeechJudge

# Part of the name of a cached judge: to be raised with every change of how it is built or trained.
_JUDGE_VERSION = 1


def find_judge(
    session: Session, cache: Path, temperature: float, split: Literal["validation", "test"] = "test"
) -> quality.Measure:
    """A function from a trained member to how well what it speaks is understood; see `quality.find_judge`."""
    dataset = session.dataset
    depends_on = checksum(_JUDGE_VERSION, audio.ANALYSIS, dataset.train.x, dataset.train.factors)
    params = quality.trained_once(
        cache, "spoken_digit", depends_on, speech_judge.abstract_params(dataset),
        lambda: dict(speech_judge.train_judge(dataset).params),
    )  # fmt: skip
    judge = speech_judge.SpeechJudge(speech_judge.classifiers_of(dataset), params)
    compared = dataset.measured_on(split)
    # Before training, as it takes librosa, which may be missing.
    real = speech_judge.real_quality(judge, compared.validation, compared.test)
    return lambda session, trained: {**_quality(judge, session, trained, temperature), **real}


def _quality(judge: SpeechJudge, session: Session, trained: Trained, temperature: float) -> quality.Record:
    """What is heard of a word for each test recording, of its text and speaker."""
    test = session.dataset.test
    assert test.factors is not None
    key = stream(root_key(0), Stream.QUALITY)
    c = jax.tree.map(jnp.asarray, test.c)
    x = sampling.generate(session.model, trained.best.params, key, c, temperature=temperature)
    return {**speech_judge.speech_quality(judge, test, np.asarray(x), test.factors), "words": len(test)}
