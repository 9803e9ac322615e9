"""How well spectrograms speak: classifiers of word and speaker, and the distance to real recordings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from cvae_jax.data.dataset import Dataset, Split
from cvae_jax.data.sources import audio
from cvae_jax.evaluation import classifier as classifiers
from cvae_jax.evaluation.bounds import Examples
from cvae_jax.evaluation.classifier import Classifier
from cvae_jax.rng import Stream, root_key, stream

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, Key, PyTree

# The columns of a split's factors that the classifiers tell.
QUESTIONS = {"word": 0, "speaker": 1}
NUM_STEPS = 1_000


@dataclasses.dataclass(frozen=True)
class SpeechJudge:
    """Classifiers trained on real recordings.

    Attributes:
      classifiers: of `word` and of `speaker`.
      params: the variables of each.
    """

    classifiers: Mapping[str, Classifier]
    params: Mapping[str, PyTree]


def classifiers_of(dataset: Dataset) -> dict[str, Classifier]:
    """The networks of a judge, by question."""
    names: Any = dataset.names  # by condition, for there are two
    return {
        question: Classifier(len(names[condition]))
        for question, condition in (("word", "text"), ("speaker", "speaker"))
    }


def abstract_params(dataset: Dataset) -> dict[str, PyTree]:
    """Shapes of a judge's variables, by question."""
    x = jax.eval_shape(lambda: jnp.zeros((1, audio.FRAMES // 2, audio.BANDS, 1)))
    return {
        question: jax.eval_shape(network.init, root_key(0), x)
        for question, network in classifiers_of(dataset).items()
    }


def train_judge(dataset: Dataset, *, num_steps: int = NUM_STEPS) -> SpeechJudge:
    """Train the judge on the training split, chosen on validation; the same for the same recordings.

    Args:
      dataset: spectrograms whose factors are digit and speaker.
      num_steps: updates of each classifier.

    Returns:
      The judge.
    """
    networks = classifiers_of(dataset)
    params = {
        question: classifiers.fit(
            network,
            _examples(dataset.train, question),
            _examples(dataset.validation, question),
            _key(i),
            num_steps=num_steps,
        )
        for i, (question, network) in enumerate(networks.items())
    }
    return SpeechJudge(networks, params)


def accuracies(
    judge: SpeechJudge, x: Float[np.ndarray, "n 64 64 1"], factors: Int[np.ndarray, "n 2"]
) -> dict[str, float]:
    """Shares of spectrograms in which the judge finds the word and the speaker that were asked for.

    Args:
      judge: see `train_judge`.
      x: shape (n, frames, bands, 1), between 0 and 1.
      factors: digit and speaker asked for, shape (n, 2).

    Returns:
      `word_accuracy` and `speaker_accuracy`, between 0 and 1.
    """
    split = Split(x, {}, factors)

    def share(question: str) -> float:
        examples = _examples(split, question)
        scores = classifiers.scores(judge.classifiers[question], judge.params[question], examples)
        return float(np.mean(np.asarray(classifiers.correct(scores, examples.c))))

    return {f"{question}_accuracy": share(question) for question in QUESTIONS}


def reanalyse(x: Float[np.ndarray, "n 64 64 1"]) -> Float[np.ndarray, "n 64 64 1"]:
    """Spectrograms of what is heard: each made to sound, and analysed again.

    Args:
      x: shape (n, frames, bands, 1); values beyond 0 and 1 are clipped.

    Returns:
      The shape of x, float32, between 0 and 1.

    Raises:
      AudioError: if the shape is another, some values are not finite, or librosa is missing.
    """
    return np.stack([audio.spectrogram(audio.waveform(one[..., 0])) for one in x])[..., None]


def spectral_distance(
    x: Float[np.ndarray, "n 64 64 1"],
    factors: Int[np.ndarray, "n 2"],
    real_x: Float[np.ndarray, "m 64 64 1"],
    real_factors: Int[np.ndarray, "m 2"],
) -> float:
    """Log-spectral distance to the nearest real recording of the same word by the same speaker.

    d(x, y) = (mean over frames and bands of (x − y)²)^½ in dB;  mean over (word, speaker) of the mean over its x of
    the least d(x, y) over its real y

    Frames are compared one by one, from the start of the word: another pace is a distance, too. Blurred spectrograms
    are nearer to real ones than these are to each other, so that less than `real_distance` is no better.

    Args:
      x: shape (n, frames, bands, 1), between 0 and 1.
      factors: digit and speaker of each, shape (n, 2).
      real_x: shape (m, frames, bands, 1).
      real_factors: digit and speaker of each, shape (m, 2).

    Returns:
      dB, ≥ 0, over the words and speakers of x that real recordings have, too; NaN if there are none.

    Example:
      >>> x, seven = np.zeros((1, 64, 64, 1)), np.array([[7, 0], [7, 1]])
      >>> real = np.stack([x[0] + 0.1, x[0]])  # 0.1 is 7 dB; the other speaker's do not count
      >>> round(spectral_distance(x, seven[:1], real, seven), 6)
      7.0
    """

    from scipy.spatial.distance import cdist  # Here, as every start of a script would wait for it.

    def nearest(pair: Int[np.ndarray, " 2"]) -> float:
        mine, theirs = (
            a[(f == pair).all(axis=1)].reshape(-1, a[0].size)
            for a, f in ((x, factors), (real_x, real_factors))
        )
        if not len(theirs):
            return float("nan")
        least = cdist(mine, theirs).min(axis=1)
        return audio.DECIBELS * float(least.mean()) / float(np.sqrt(mine.shape[1]))

    distances = np.array([nearest(pair) for pair in np.unique(factors, axis=0)])
    known = distances[~np.isnan(distances)]
    return float(known.mean()) if len(known) else float("nan")


def speech_quality(
    judge: SpeechJudge, test: Split, x: Float[np.ndarray, "n 64 64 1"], factors: Int[np.ndarray, "n 2"]
) -> dict[str, float]:
    """Judge a model's spectrograms by what is heard of them.

    Args:
      judge: see `train_judge`.
      test: real recordings.
      x: a model's spectrograms, shape (n, frames, bands, 1).
      factors: digit and speaker asked for, shape (n, 2).

    Returns:
      - `word_accuracy`, `speaker_accuracy`: of x made to sound and analysed again.
      - `spectrogram_word_accuracy`, `spectrogram_speaker_accuracy`: of x itself.
      - `spectral_distance`: from x made to sound to test recordings, dB.

    Raises:
      AudioError: if x has another shape, some values are not finite, or librosa is missing.
    """
    assert test.factors is not None
    heard = reanalyse(x)
    return {
        **accuracies(judge, heard, factors),
        **_named("spectrogram", accuracies(judge, np.clip(x, 0.0, 1.0), factors)),
        "spectral_distance": spectral_distance(heard, factors, test.x, test.factors),
    }


def real_quality(judge: SpeechJudge, validation: Split, test: Split) -> dict[str, float]:
    """What real recordings score, to be read beside `speech_quality`; the same for all models.

    Args:
      judge: see `train_judge`.
      validation: real recordings.
      test: others.

    Returns:
      - `real_word_accuracy`, `real_speaker_accuracy`: of test recordings.
      - `resynthesized_word_accuracy`, `resynthesized_speaker_accuracy`: of test recordings, made to sound from their
        spectrograms: what a model without fault would reach.
      - `real_distance`: from validation to test recordings, dB.

    Raises:
      AudioError: if librosa is missing.
    """
    assert validation.factors is not None
    assert test.factors is not None
    return {
        **_named("real", accuracies(judge, test.x, test.factors)),
        **_named("resynthesized", accuracies(judge, reanalyse(test.x), test.factors)),
        "real_distance": spectral_distance(validation.x, validation.factors, test.x, test.factors),
    }


def _named(prefix: str, values: dict[str, float]) -> dict[str, float]:
    return {f"{prefix}_{name}": value for name, value in values.items()}


def _examples(split: Split, question: str) -> Examples:
    """Spectrograms on the device, two frames averaged to one, labelled by the answers to a question.

    At 20 ms a frame words and speakers are recognized as well, by a network of a quarter of the multiplications.
    """
    assert split.factors is not None
    x = split.x.reshape(len(split), -1, 2, *split.x.shape[2:]).mean(axis=2)
    return Examples(jnp.asarray(x), jnp.asarray(split.factors[:, QUESTIONS[question]]), jnp.float32(1))


def _key(question: int) -> Key[Array, ""]:
    return jax.random.fold_in(stream(root_key(0), Stream.CLASSIFIER), question)
