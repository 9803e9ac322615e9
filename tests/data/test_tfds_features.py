"""Datasets of TFDS read for other features than an image and its label."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from arrays import GREY, Source
from arrays import load as load_named

from cvae_jax.conditions import Audio, Image, Label, Several, Text, Vector
from cvae_jax.conditions.text import decode_text
from cvae_jax.data.sources import audio, tfds
from cvae_jax.errors import DataError

N = 40


class Sound:
    """A feature with a rate, as TFDS has it."""

    sample_rate = 16_000


def example(i):
    rng = np.random.default_rng(i)
    return {
        "image": np.full((8, 8, 1), i, np.uint8),
        "mask": np.full((8, 8, 1), 255 - i, np.uint8),
        "label": i % 3,
        "attributes": {"young": i % 2 == 0, "blond": i % 5 == 0},
        "captions": {"text": [f"number {i}".encode(), b"a second one"]},
        "audio": (rng.normal(size=2000 + 10 * i) * 3000).astype(np.int64),
    }


FEATURES = {
    "image": None,
    "mask": None,
    "label": None,
    "attributes": {"young": None, "blond": None},
    "captions": SimpleNamespace(feature={"text": None}),
    "audio": Sound(),
}


@pytest.fixture
def load(tmp_path, monkeypatch):
    """A function from settings to the dataset, of a builder with a training split alone."""
    builder = SimpleNamespace(
        as_data_source=lambda split: Source(example(i) for i in range(N)),
        data_path=tmp_path,
        info=SimpleNamespace(full_name="pairs/1.0.0", features=FEATURES, splits={"train"}),
    )
    monkeypatch.setattr(tfds, "open_tfds", lambda name, data_dir: builder)

    return partial(load_named, "pairs", cache_dir=tmp_path)


def numbers(split):
    """Which example each image is of."""
    return split.x[:, 0, 0, 0].astype(int)


def test_nested_texts_stay_with_their_images(load):
    dataset = load(condition="text", condition_feature=("captions/text",), binarize="static")
    assert isinstance(dataset.condition, Text)
    assert [len(s) for s in (dataset.train, dataset.validation, dataset.test)] == [29, 3, 8]
    grey = load(condition="text", condition_feature=("captions/text",), **GREY)
    for split in (grey.train, grey.validation, grey.test):
        assert [decode_text(row) for row in split.c] == [f"number {i}" for i in numbers(split)]


def test_attributes_are_standardized_numbers(load):
    dataset = load(condition="vector", **GREY)
    assert dataset.condition == Vector(2)
    blond = dataset.train.c[:, 0] > 0
    np.testing.assert_array_equal(blond, numbers(dataset.train) % 5 == 0)
    np.testing.assert_allclose(dataset.train.c.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(dataset.train.c.std(axis=0), 1, rtol=1e-5)
    assert np.abs(dataset.test.c.mean(axis=0)).max() > 1e-3  # The means are those of train.


def test_a_label_of_a_chosen_feature_is_a_label(load):
    dataset = load(condition="label", condition_feature=("label",))
    assert dataset.labelled
    assert dataset.class_names == ("0", "1", "2")


def test_one_image_may_condition_another(load):
    dataset = load(condition="image", condition_feature=("mask",), **GREY)
    assert dataset.condition == Image((8, 8, 1))
    np.testing.assert_array_equal(dataset.test.c[:, 0, 0, 0], 255 - numbers(dataset.test))
    other = load(condition="image", condition_feature=("image",), target_feature="mask", **GREY)
    np.testing.assert_array_equal(other.test.c[:, 0, 0, 0], 255 - numbers(other.test))


def test_several_conditions_and_a_sound_at_another_rate(load):
    pytest.importorskip("librosa", reason="sound needs librosa, of the extra audio")
    with pytest.warns(UserWarning, match="audio of pairs is at 16000 Hz: resampled to 8000"):
        dataset = load(condition="audio,label", **GREY)
    spectrogram = Audio((audio.FRAMES, audio.BANDS, 1))
    assert dataset.condition == Several((("audio", spectrogram), ("label", Label(3))))
    np.testing.assert_array_equal(dataset.train.c["label"], numbers(dataset.train) % 3)
    assert np.isfinite(dataset.train.c["audio"]).all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"condition": "text"},
            "'pairs' has no feature text, expected one of image, mask, label, attributes, attri",
        ),
        (
            {"condition": "image", "target_feature": "picture"},
            "'pairs' has no feature picture, expected one of",
        ),
        ({"condition": "vector", "target_feature": "label"}, "of shapes .* as label, expected uint8 images"),
        ({"condition": "image", "condition_feature": ("label",)}, "expected uint8 or floating images"),
    ],
)
def test_errors_of_features_are_one_line(load, fields, message):
    with pytest.raises(DataError, match=message) as caught:
        load(**fields)
    assert "\n" not in str(caught.value)
