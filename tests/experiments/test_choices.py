"""What a person asks to be drawn or spoken, as conditions; and words as sound."""

import warnings
import wave
from types import SimpleNamespace

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from cvae_jax.conditions import Text
from cvae_jax.conditions.text import decode_text, encode_text
from cvae_jax.data.dataset import Dataset, Split
from cvae_jax.errors import UserError
from experiments import tasks
from experiments.command_line import choices, cli
from experiments.tasks.spoken_digit import dataset as spoken_digit
from experiments.tasks.spoken_digit.sound import write_words

CAPTIONS = ("a two", "a small three above a one")


@pytest.fixture(scope="module", autouse=True)
def _flags():
    tasks.register()
    choices.define_flags()
    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["test"])


def session(dataset):
    return SimpleNamespace(dataset=dataset, model=SimpleNamespace(condition=dataset.condition))


@pytest.fixture(scope="module")
def words():
    pairs = np.stack(np.meshgrid(np.arange(10), np.arange(5)), axis=-1).reshape(-1, 2)
    factors = np.tile(pairs, (10, 1)).astype(np.int32)
    x = np.random.default_rng(0).uniform(size=(len(factors), 64, 64, 1)).astype(np.float32)
    return session(spoken_digit.from_spectrograms(x, factors))


@pytest.fixture(scope="module")
def scenes():
    split = Split(np.zeros((2, 32, 32, 1), np.uint8), encode_text(CAPTIONS, 40))
    return session(Dataset("captions", split, split, split, 255.0, Text(40)))


def texts(c):
    return [decode_text(row) for row in c]


def test_a_word_and_a_speaker(words):
    with flagsaver.flagsaver(text="seven", speaker="theo"):
        found = choices.chosen(words, 3)
    assert texts(found.c["text"]) == ["seven"] * 3
    np.testing.assert_array_equal(found.c["speaker"], spoken_digit.SPEAKERS.index("theo"))
    assert found.title == "seven, theo"


def test_what_no_flag_names_comes_in_turn(words):
    with flagsaver.flagsaver(text="two"):
        np.testing.assert_array_equal(choices.chosen(words, 7).c["speaker"], [0, 1, 2, 3, 4, 0, 1])
    with flagsaver.flagsaver(speaker="george"):
        assert texts(choices.chosen(words, 11).c["text"]) == [*spoken_digit.WORDS, "zero"]


def test_the_condition_of_a_test_example(words, scenes):
    with flagsaver.flagsaver(example=7):
        c = choices.chosen(words, 2).c
    of_test = words.dataset.test.c
    assert texts(c["text"]) == [decode_text(of_test["text"][7])] * 2
    np.testing.assert_array_equal(c["speaker"], of_test["speaker"][7])
    assert texts(choices.chosen(scenes, 3).c) == [*CAPTIONS, CAPTIONS[0]]


@pytest.mark.filterwarnings("always:unknown words")
def test_unknown_words_are_drawn_with_a_warning(words, scenes, capsys, monkeypatch):
    monkeypatch.setattr(warnings, "showwarning", cli._show_warning)
    with flagsaver.flagsaver(text="a purple seven"):
        assert texts(choices.chosen(scenes, 1).c) == ["a purple seven"]
    assert capsys.readouterr().err == "warning: unknown words, drawn as well as it can be: purple\n"
    with flagsaver.flagsaver(text="twelve"):
        assert texts(choices.chosen(words, 1).c["text"]) == ["twelve"]
    assert capsys.readouterr().err == "warning: unknown words, drawn as well as it can be: twelve\n"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"text": "  "}, "text is empty, expected words"),
        ({"text": "a " * 30}, "has 60 bytes, expected at most 40"),
        ({"speaker": "theo"}, "was trained with the condition text, expected no --speaker"),
        ({"label": "7"}, "was trained with the condition text, expected no --label"),
        ({"example": 2}, "example is 2, expected 0 to 1"),
    ],
)
def test_what_cannot_be_drawn_is_refused(scenes, values, message):
    with flagsaver.flagsaver(**values), pytest.raises(UserError, match=message):
        choices.chosen(scenes, 1)


def test_the_error_of_an_unknown_speaker_lists_the_speakers(words):
    with (
        flagsaver.flagsaver(speaker="eve"),
        pytest.raises(UserError, match="expected one of george, jackson, nic"),
    ):
        choices.chosen(words, 1)


def test_words_are_written_one_after_another(tmp_path):
    pytest.importorskip("librosa", reason="sound needs librosa, of the extra audio")
    from cvae_jax.data.sources import audio

    time = np.arange(4000) / audio.SAMPLE_RATE
    tone = (np.sin(2 * np.pi * 440 * time) * np.sin(np.pi * time / time[-1])).astype(np.float32)
    one = audio.spectrogram(tone)
    write_words(tmp_path / "words.wav", np.stack([one, one])[..., None], choices.Chosen({}, ""))
    with wave.open(str(tmp_path / "words.wav")) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (8000, 1, 2)
        sound = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    alone = len(audio.waveform(one))
    assert len(sound) == 2 * alone + 2400
    assert (sound[alone : alone + 2400] == 0).all()
    assert 0.5 * 2**15 < np.abs(sound).max() < 2**15 - 1
