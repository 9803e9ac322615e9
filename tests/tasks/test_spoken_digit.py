"""The spoken digits: their splits, their conditions, and how they are read."""

import importlib.util
from types import SimpleNamespace

import numpy as np
import pytest
from arrays import GREY, SPLITS, load

from cvae_jax.conditions import Label, Several, Text
from cvae_jax.conditions.text import decode_text
from cvae_jax.data.sources import audio, tfds
from cvae_jax.errors import AudioError, DataError
from experiments.tasks.spoken_digit import dataset
from experiments.tasks.spoken_digit.dataset import SPEAKERS, WORDS

EACH = 25
FACTORS = np.array([(d, s) for d in range(10) for s in range(5) for _ in range(EACH)], np.int32)


@pytest.fixture(scope="module")
def numbered():
    """A dataset whose spectrograms differ in one value."""
    x = np.zeros((len(FACTORS), 4, 4, 1), np.float32)
    x[:, 0, 0, 0] = np.arange(len(FACTORS))
    return dataset.from_spectrograms(x, FACTORS)


def numbers(split):
    return split.x[:, 0, 0, 0].astype(int)


def test_every_recording_is_in_one_split(numbered):
    rows = np.concatenate([numbers(getattr(numbered, name)) for name in SPLITS])
    assert sorted(rows) == list(range(len(FACTORS)))


def test_splits_have_all_words_and_speakers_in_proportion(numbered):
    for name, share in zip(SPLITS, (20, 2, 3), strict=True):
        split = getattr(numbered, name)
        _, counts = np.unique(split.factors, axis=0, return_counts=True)
        assert counts.tolist() == [share] * 50


def test_splits_are_always_the_same(numbered):
    again = dataset.from_spectrograms(np.zeros_like(numbered.train.x[:1]).repeat(len(FACTORS), 0), FACTORS)
    for name in SPLITS:
        np.testing.assert_array_equal(getattr(again, name).factors, getattr(numbered, name).factors)
    assert numbers(numbered.test)[:6].tolist() != list(range(6))


def test_conditions_are_the_word_and_the_speaker(numbered):
    assert numbered.condition == Several((("text", Text(8)), ("speaker", Label(5))))
    assert numbered.names == {"text": WORDS, "speaker": SPEAKERS}
    for name in SPLITS:
        split = getattr(numbered, name)
        np.testing.assert_array_equal(split.factors, FACTORS[numbers(split)])
        assert split.c["text"].dtype == np.uint8
        assert split.c["speaker"].dtype == np.int32
        assert [decode_text(row) for row in split.c["text"]] == [WORDS[d] for d in split.factors[:, 0]]
        np.testing.assert_array_equal(split.c["speaker"], split.factors[:, 1])


@pytest.mark.parametrize("name", ["7_jackson_32", "7_nobody_32.wav", "17_jackson_32.wav", "seven.wav"])
def test_a_file_of_another_name_is_refused(name):
    with pytest.raises(DataError, match=r"expected DIGIT_SPEAKER_NUMBER\.wav of one of george"):
        dataset.parse_filename(name)


def examples(order):
    """Tones of a different pitch for each recording, as TFDS gives them."""
    seconds = np.arange(2_000) / audio.SAMPLE_RATE
    named = [("3_theo_10.wav", 900), ("3_theo_2.wav", 700), ("0_theo_2.wav", 500), ("3_george_2.wav", 300)]
    return [
        {
            "audio": (2**14 * np.sin(2 * np.pi * hertz * seconds)).astype(np.int64),
            "audio/filename": name.encode(),
        }
        for name, hertz in (named[i] for i in order)
    ]


def test_recordings_are_ordered_whatever_their_order_was():
    one, two = (dataset._decode(examples(order), 8_000) for order in ((0, 1, 2, 3), (2, 0, 3, 1)))
    assert one["factors"].tolist() == [[0, 3], [3, 0], [3, 3], [3, 3]]
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])
    pitch = one["x"][:, 5, :, 0].argmax(axis=1)
    assert (np.argsort(pitch) == [1, 0, 2, 3]).all()


def test_recordings_that_say_another_rate_are_resampled():
    slow, fast = (dataset._decode(examples((0,)), rate)["x"][0, :, :, 0] for rate in (8_000, 16_000))
    assert fast[5].argmax() > slow[5].argmax() + 10
    assert (fast > 0).any(axis=1).sum() < 0.6 * (slow > 0).any(axis=1).sum()


def test_what_cannot_be_analysed_is_told_in_one_line(monkeypatch):
    def no_librosa():
        raise AudioError("sound needs librosa: install the extra cvae_jax[audio]")

    monkeypatch.setattr(audio, "_librosa", no_librosa)
    with pytest.raises(DataError, match=r"^dataset 'spoken_digit': .* install the extra cvae_jax\[audio\]$"):
        dataset._decode(examples((0,)), 8_000)


def test_an_unprepared_dataset_names_the_command(tmp_path):
    pytest.importorskip("tensorflow", reason="TFDS reads audio with TensorFlow only")
    with pytest.raises(
        DataError, match=rf"run ./launch.sh prepare --dataset=spoken_digit --data_dir={tmp_path}$"
    ):
        dataset.read(tmp_path, tmp_path)


def test_without_tensorflow_the_extra_is_named(tmp_path, monkeypatch):
    def unreadable(split):
        raise ImportError("tensorflow")

    builder = SimpleNamespace(
        as_data_source=unreadable,
        data_path=tmp_path,
        info=SimpleNamespace(full_name="spoken_digit/1.0.9", splits={"train": 1}, features={"audio": None}),
    )
    monkeypatch.setattr(tfds, "open_tfds", lambda name, data_dir: builder)
    with pytest.raises(DataError, match=r"without TensorFlow: install the extra cvae_jax\[prepare\]$"):
        dataset.read(None, tmp_path)


@pytest.fixture(scope="module")
def real(tfds_dir, cache_dir):
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("reading spoken_digit needs TensorFlow, of the extra prepare")
    return load("spoken_digit", data_dir=tfds_dir, cache_dir=cache_dir, **GREY)


def test_real_recordings_have_the_stated_sizes(real):
    assert [len(getattr(real, name)) for name in SPLITS] == [2_000, 200, 300]
    assert real.shape == (audio.FRAMES, audio.BANDS, 1)
    assert real.x_max == 1.0
    for name in SPLITS:
        x = getattr(real, name).x
        assert x.dtype == np.float32
        assert x.min() == 0.0
        assert x.max() <= 1.0
        assert (x.reshape(len(x), -1).max(axis=1) > 0.5).all()


def test_real_recordings_are_analysed_once(real, tfds_dir, cache_dir, monkeypatch):
    monkeypatch.delattr(dataset, "_decode")
    again = dataset.read(tfds_dir, cache_dir)
    np.testing.assert_array_equal(again.test.x, real.test.x)


def test_another_analysis_makes_the_packed_file_anew(real, tfds_dir, cache_dir, monkeypatch):
    class MadeAnew(Exception):
        pass

    def decode(*_):
        raise MadeAnew

    monkeypatch.setattr(audio, "ANALYSIS", "another")
    monkeypatch.setattr(dataset, "_decode", decode)
    with pytest.raises(MadeAnew):
        dataset.read(tfds_dir, cache_dir)
