"""What a person asks to be drawn or spoken, as conditions; and words as sound."""

import warnings
import wave
from types import SimpleNamespace

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from cvae_jax.conditions import Audio, Condition, Label, Observed, Text
from cvae_jax.conditions.text import decode_text, encode_text
from cvae_jax.data.arrays import from_arrays
from cvae_jax.data.dataset import Dataset, Split
from cvae_jax.data.reading import prepared
from cvae_jax.data.settings import Data
from cvae_jax.errors import UserError
from cvae_jax.likelihoods import Bernoulli
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
    return SimpleNamespace(
        data=dataset.description, examples=dataset.test, model=SimpleNamespace(condition=dataset.condition)
    )


def chosen(session, num):
    choices.require_known(session.model.condition)
    return choices.chosen(session, session.examples, num)


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
        found = chosen(words, 3)
    assert texts(found.c["text"]) == ["seven"] * 3
    np.testing.assert_array_equal(found.c["speaker"], spoken_digit.SPEAKERS.index("theo"))
    assert found.title == "seven, theo"


def test_what_no_flag_names_comes_in_turn(words):
    with flagsaver.flagsaver(text="two"):
        np.testing.assert_array_equal(chosen(words, 7).c["speaker"], [0, 1, 2, 3, 4, 0, 1])
    with flagsaver.flagsaver(speaker="george"):
        assert texts(chosen(words, 11).c["text"]) == [*spoken_digit.WORDS, "zero"]


def test_the_condition_of_a_test_example(words, scenes):
    with flagsaver.flagsaver(example=7):
        c = chosen(words, 2).c
    of_test = words.examples.c
    assert texts(c["text"]) == [decode_text(of_test["text"][7])] * 2
    np.testing.assert_array_equal(c["speaker"], of_test["speaker"][7])
    assert texts(chosen(scenes, 3).c) == [*CAPTIONS, CAPTIONS[0]]


@pytest.mark.filterwarnings("always:unknown words")
def test_unknown_words_are_drawn_with_a_warning(words, scenes, capsys, monkeypatch):
    monkeypatch.setattr(warnings, "showwarning", cli._show_warning)
    with flagsaver.flagsaver(text="a purple seven"):
        assert texts(chosen(scenes, 1).c) == ["a purple seven"]
    assert capsys.readouterr().err == "warning: unknown words, drawn as well as it can be: purple\n"
    with flagsaver.flagsaver(text="twelve"):
        assert texts(chosen(words, 1).c["text"]) == ["twelve"]
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
        chosen(scenes, 1)


def test_the_error_of_an_unknown_speaker_lists_the_speakers(words):
    with (
        flagsaver.flagsaver(speaker="eve"),
        pytest.raises(UserError, match="expected one of george, jackson, nic"),
    ):
        chosen(words, 1)


# Conditions of the user's own

N = 40
RNG = np.random.default_rng(0)
VECTORS = RNG.normal(3, 2, size=(N, 3))
IMAGES = RNG.integers(0, 256, size=(N, 8, 6), dtype=np.uint8)
SPECTROGRAMS = RNG.normal(size=(N, 8, 6))
COLOURS = np.array(["blue", "green"])[np.arange(N) % 2]


def described(c, condition=None):
    x = (RNG.uniform(size=(N, 8, 8)) > 0.5).astype(np.float32)
    data = from_arrays(x, c, condition=condition)
    of_x = isinstance(condition, Condition) and condition.reads_x
    return prepared(data, Data(), (condition,) if of_x else None, Bernoulli()).description


@pytest.fixture
def own(tmp_path):
    """A function from a description and arrays of a file to the conditions that are drawn."""

    def read(data, **arrays):
        path = tmp_path / "c.npz"
        np.savez(path, **arrays)
        with flagsaver.flagsaver(condition_file=str(path)):
            return choices.own(data)

    return read


def test_a_vector_of_ones_own_is_standardized_as_the_training_data_were(own):
    data = described(VECTORS)
    found = own(data, c=VECTORS[:5])
    assert len(found) == 5
    assert np.abs(found.c - VECTORS[:5]).max() > 1
    np.testing.assert_array_equal(found.c, data.conditions(VECTORS[:5]))
    # What is written beside the samples are the user's numbers.
    np.testing.assert_array_equal(found.raw, VECTORS[:5])


@pytest.mark.parametrize(
    ("c", "condition", "expected"),
    [
        (IMAGES, None, IMAGES[..., None]),
        (SPECTROGRAMS, Audio(), None),
        (COLOURS, Label(), np.arange(N) % 2),
        (np.arange(N) % 3, None, np.arange(N) % 3),
    ],
    ids=["image", "audio", "names", "numbers"],
)
def test_conditions_of_any_kind_are_read_from_a_file(own, c, condition, expected):
    data = described(c, condition)
    found = own(data, c=c[:4], x=np.zeros(3)).c
    np.testing.assert_array_equal(found, data.conditions(c[:4]))
    if expected is not None:
        np.testing.assert_array_equal(found, expected[:4])


def test_labels_are_written_as_they_are_in_the_data():
    data = from_arrays(np.zeros((N, 8, 8)), np.array([3, 7])[np.arange(N) % 2])
    with flagsaver.flagsaver(label="7"):
        found = chosen(session(data), 2)
    assert (found.c.tolist(), found.raw.tolist(), found.title) == ([1, 1], [7, 7], "class 7")
    assert chosen(session(data), 3).raw.tolist() == [3, 7, 3]


def test_classes_that_training_never_sees_are_not_drawn():
    data = from_arrays(np.zeros((N, 8, 8)), 2 * (np.arange(N) % 2), class_names=("a", "b", "c"))
    assert chosen(session(data), 3).c.tolist() == [0, 2, 0]


def test_several_conditions_are_arrays_of_their_names(own):
    c = {"text": np.array(["a two", "one"] * (N // 2)), "colour": COLOURS, "vector": VECTORS}
    data = described(c, {"colour": Label()})
    found = own(data, **{name: each[:3] for name, each in c.items()})
    assert found.c.keys() == found.raw.keys() == c.keys()
    assert texts(found.c["text"]) == ["a two", "one", "a two"]
    np.testing.assert_array_equal(found.c["colour"], [0, 1, 0])
    again = found.in_turn(5)
    np.testing.assert_array_equal(again.c["vector"], found.c["vector"][[0, 1, 2, 0, 1]])
    np.testing.assert_array_equal(again.raw["colour"], COLOURS[[0, 1, 2, 0, 1]])


def test_images_of_ones_own_are_completed(own):
    """Their observed quadrant is the condition, whether their pixels are numbers from 0 to 1 or bytes."""
    data = described(None, Observed())
    x = (RNG.uniform(size=(2, 8, 8)) > 0.5).astype(np.float32)
    found = own(data, c=x).c
    np.testing.assert_array_equal(found[:, 4:, :4, 0], x[:, 4:, :4] > 0.5)
    assert not found[:, :4].any()


@pytest.mark.parametrize(
    ("c", "condition", "arrays", "message"),
    [
        (VECTORS, None, {"c": VECTORS[:, :2]}, "c: the vector has 2 numbers, expected 3"),
        (VECTORS, None, {"x": VECTORS}, "has no array c, expected c; it holds x"),
        (VECTORS, None, {"c": VECTORS[:0]}, "c has no conditions, expected at least one"),
        (VECTORS, None, {"c": VECTORS * np.nan}, "the vector has NaN or infinite values"),
        (IMAGES, None, {"c": IMAGES[:, :6]}, r"the image has shape \(6, 6, 1\), expected \(8, 6, 1\)"),
        (COLOURS, Label(), {"c": np.array(["pink"])}, "c has the class 'pink', expected one of blue, green"),
        (np.arange(N) % 3, None, {"c": np.array([3])}, "expected whole numbers from 0 to 2"),
        (None, None, {"c": VECTORS}, "expected none: the run was trained without a condition"),
        (None, Observed(), {"c": IMAGES}, r"x has shape \(40, 8, 6\), expected \(n, 8, 8, 1\)"),
        (
            {"v": VECTORS, "colour": np.arange(N) % 2},
            None,
            {"v": VECTORS[:3], "colour": np.array([0, 1])},
            "c has 3 of v, 2 of colour, expected as many of each",
        ),
        (
            {"v": VECTORS, "colour": np.arange(N) % 2},
            None,
            {"v": VECTORS[:3]},
            "has no array colour, expected v, colour; it holds v",
        ),
    ],
)
def test_files_that_do_not_fit_the_run_are_refused_in_one_line(own, c, condition, arrays, message):
    data = described(c, condition)
    with pytest.raises(UserError, match=message) as error:
        own(data, **arrays)
    assert "c.npz" in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_cannot_be_read_are_named(tmp_path):
    data, damaged = described(VECTORS), tmp_path / "damaged.npz"
    damaged.write_text("no zip")
    for path, message in (
        (tmp_path / "none.npz", "none.npz does not exist"),
        (damaged, "cannot be read as .npz"),
    ):
        with (
            flagsaver.flagsaver(condition_file=str(path)),
            pytest.raises(UserError, match=rf"condition_file .*{message}"),
        ):
            choices.own(data)


def test_a_file_and_another_choice_exclude_each_other():
    with (
        flagsaver.flagsaver(condition_file="c.npz", label="7"),
        pytest.raises(UserError, match=r"condition_file is c\.npz, expected none with --label"),
    ):
        choices.own(described(np.arange(N) % 3))


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
