"""The judge of speech, on spectrograms whose word and speaker are plain to see."""

import numpy as np
import pytest

from cvae_jax.data.dataset import Dataset, Split
from cvae_jax.data.sources import audio
from experiments.tasks.spoken_digit import judge as speech_judge

FACTORS = np.array([(word, speaker) for word in range(2) for speaker in range(2)], np.int32)


def spectrograms(factors, seed, side=16):
    """The word is whether the tone rises, the speaker how high it is, in noise."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(0.0, 0.3, size=(len(factors), side, side, 1))
    for one, (word, speaker) in zip(x, factors, strict=True):
        start = side * (1 + 4 * speaker) // 8 + rng.integers(2)
        for frame in range(side):
            one[frame, min(side - 1, start + word * frame // 3)] += 0.7
    return x.astype(np.float32)


def split(repeats, seed, side=16):
    factors = np.tile(FACTORS, (repeats, 1))
    return Split(spectrograms(factors, seed, side), {}, factors)


@pytest.fixture(scope="module")
def dataset():
    return Dataset(
        "tones", split(40, 0), split(5, 1), split(10, 2), 1.0, None,
        names={"text": ("flat", "rising"), "speaker": ("low", "high")},
    )  # fmt: skip


@pytest.fixture(scope="module")
def judge(dataset):
    return speech_judge.train_judge(dataset, num_steps=60)


def test_it_tells_words_and_speakers(judge, dataset):
    test = dataset.test
    found = speech_judge.accuracies(judge, test.x, test.factors)
    assert set(found) == {"word_accuracy", "speaker_accuracy"}
    assert min(found.values()) > 0.95


def test_another_word_than_asked_for_counts_against_the_word_alone(judge, dataset):
    test = dataset.test
    found = speech_judge.accuracies(judge, test.x, test.factors ^ [1, 0])
    assert found["word_accuracy"] < 0.05
    assert found["speaker_accuracy"] > 0.95


def test_the_distance_is_to_the_nearest_of_the_same_word_and_speaker():
    rng = np.random.default_rng(0)
    x, real = (rng.uniform(size=(n, 4, 6, 1)) for n in (7, 20))
    factors, real_factors = (np.stack([rng.integers(2, size=n) for _ in range(2)], axis=1) for n in (7, 20))
    distances = {}
    for one, pair in zip(x, factors, strict=True):
        same = [other for other, theirs in zip(real, real_factors, strict=True) if (theirs == pair).all()]
        nearest = min(np.sqrt(np.mean((one - other) ** 2)) for other in same)
        distances.setdefault(tuple(pair), []).append(audio.DECIBELS * nearest)
    expected = np.mean([np.mean(of_pair) for of_pair in distances.values()])
    found = speech_judge.spectral_distance(x, factors, real, real_factors)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_real_recordings_have_no_distance_to_themselves(dataset):
    test = dataset.test
    assert speech_judge.spectral_distance(test.x, test.factors, test.x, test.factors) == 0.0


def test_a_word_that_is_never_recorded_does_not_count():
    x, factors = np.zeros((2, 2, 2, 1)), np.array([[0, 0], [1, 0]])
    found = speech_judge.spectral_distance(x, factors, x[:1] + 0.5, factors[:1])
    np.testing.assert_allclose(found, 0.5 * audio.DECIBELS)
    assert np.isnan(speech_judge.spectral_distance(x[1:], factors[1:], x[:1], factors[:1]))


def test_what_is_heard_is_close_to_the_spectrogram():
    pytest.importorskip("librosa", reason="sound needs librosa, of the extra audio")
    seconds = np.arange(4_000) / audio.SAMPLE_RATE
    x = audio.spectrogram(np.sin(2 * np.pi * (200 * seconds + 2_800 * seconds**2)).astype(np.float32))
    heard = speech_judge.reanalyse(x[None, ..., None])
    assert heard.shape == (1, audio.FRAMES, audio.BANDS, 1)
    np.testing.assert_array_equal(heard[0, ..., 0], audio.spectrogram(audio.waveform(x)))


def test_the_quality_of_speech_is_judged_by_what_is_heard(judge, dataset, monkeypatch):
    pair = {(0, 0): (1, 1), (0, 1): (1, 0), (1, 0): (0, 1), (1, 1): (0, 0)}
    test = dataset.test
    swapped = spectrograms([pair[tuple(f)] for f in test.factors], 3)
    heard = {id(swapped): test.x, id(test.x): test.x}
    monkeypatch.setattr(speech_judge, "reanalyse", lambda x: heard[id(x)])
    found = speech_judge.speech_quality(judge, test, swapped, test.factors)
    real = speech_judge.real_quality(judge, dataset.validation, test)
    for question in ("word", "speaker"):
        assert found[f"{question}_accuracy"] == real[f"real_{question}_accuracy"] > 0.95
        assert real[f"resynthesized_{question}_accuracy"] == real[f"real_{question}_accuracy"]
        assert found[f"spectrogram_{question}_accuracy"] < 0.05
    assert found["spectral_distance"] == 0.0
    assert real["real_distance"] > 1.0
