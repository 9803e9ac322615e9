"""The Free Spoken Digit Dataset: ten words by five speakers, conditioned on the text and on the speaker."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cvae_jax.conditions import Label, Several, Text
from cvae_jax.conditions.text import encode_text
from cvae_jax.data.dataset import Dataset, Split, stratified_split
from cvae_jax.data.sources import audio, tfds
from cvae_jax.data.sources.cache import packed_once
from cvae_jax.errors import AudioError, DataError

if TYPE_CHECKING:
    from jaxtyping import Int

NAME = "spoken_digit"
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SPEAKERS = ("george", "jackson", "nicolas", "theo", "yweweler")
TEXT_LENGTH = 8
FACTORS = ("digit", "speaker")

# Of all recordings; of 50 of each digit and speaker 4 and 6.
_VALIDATION_FRACTION = 0.08
_TEST_FRACTION = 0.12


def read(data_dir: Path | None, cache_dir: Path) -> Dataset:
    """Spectrograms of the recordings, packed to one file at the first read.

    Args:
      data_dir: where TFDS keeps prepared datasets; None is TFDS's default.
      cache_dir: where the packed file goes.

    Returns:
      `text`, the digit's word, and `speaker` are the conditions, digit and speaker the factors. 80, 8 and 12 % of the
      recordings of each digit and speaker are for training, validation and test.

    Raises:
      DataError: if the dataset is not prepared, or TensorFlow or librosa is missing at the first read.
    """
    builder = tfds.open_tfds(NAME, data_dir)

    def decode() -> dict[str, np.ndarray]:
        with tfds.reading(builder, "train", NAME):
            return _decode(tfds.in_order(tfds.open_split(builder, "train")), _rate(builder))

    packed = cache_dir / f"{builder.info.full_name.replace('/', '-')}.npz"
    arrays = packed_once(packed, f"{os.fspath(builder.data_path)}, {audio.ANALYSIS}", decode)
    return from_spectrograms(arrays["x"], arrays["factors"])


def from_spectrograms(x: np.ndarray, factors: Int[np.ndarray, "n 2"]) -> Dataset:
    """The dataset of spectrograms whose digits and speakers are known.

    Args:
      x: shape (n, frames, bands, 1), float32, between 0 and 1, in an order that does not change.
      factors: digit and speaker of each, shape (n, 2), int32.

    Returns:
      The three splits, see `read`.
    """
    # One stratum for each digit and speaker.
    strata = factors[:, 0] * len(SPEAKERS) + factors[:, 1]
    others, test = stratified_split(strata, _TEST_FRACTION)
    kept, held_out = stratified_split(strata[others], _VALIDATION_FRACTION / (1.0 - _TEST_FRACTION))

    def split(rows: Int[np.ndarray, " m"]) -> Split:
        return Split(x[rows], conditions(factors[rows, 0], factors[rows, 1]), factors[rows])

    return Dataset(
        NAME,
        split(others[kept]),
        split(others[held_out]),
        split(test),
        x_max=1.0,
        condition=Several((("text", Text(TEXT_LENGTH)), ("speaker", Label(len(SPEAKERS))))),
        names={"text": WORDS, "speaker": SPEAKERS},
        factor_names=FACTORS,
    )


def conditions(digits: Int[np.ndarray, " n"], speakers: Int[np.ndarray, " n"]) -> dict[str, np.ndarray]:
    """Conditions: digits as their words, and the speaker.

    Args:
      digits: from 0 to 9, shape (n,).
      speakers: indices into `SPEAKERS`, shape (n,).

    Returns:
      `text`, shape (n, 8), uint8, and `speaker`, shape (n,), int32.

    Example:
      >>> c = conditions(np.array([7]), np.array([3]))
      >>> bytes(c["text"][0]), c["speaker"].tolist()
      (b'seven\\x00\\x00\\x00', [3])
    """
    return {
        "text": encode_text([WORDS[digit] for digit in digits], TEXT_LENGTH),
        "speaker": speakers.astype(np.int32),
    }


def parse_filename(name: str) -> tuple[int, int, int]:
    """Digit, speaker and number of a recording, from the name of its file.

    Raises:
      DataError: if it is no name of a recording of one of the five speakers.

    Example:
      >>> parse_filename("7_jackson_32.wav")
      (7, 1, 32)
    """
    match = re.fullmatch(r"([0-9])_([a-z]+)_([0-9]+)\.wav", name)
    if not match or match[2] not in SPEAKERS:
        raise DataError(
            f"dataset {NAME!r} has a recording {name!r}, expected DIGIT_SPEAKER_NUMBER.wav of one of "
            f"{', '.join(SPEAKERS)}"
        )
    return int(match[1]), SPEAKERS.index(match[2]), int(match[3])


def _rate(builder: Any) -> int:
    """Samples per second as the dataset states it; the Free Spoken Digit Dataset's where it states none."""
    return getattr(builder.info.features["audio"], "sample_rate", None) or audio.SAMPLE_RATE


def _decode(examples: Iterable[Mapping[str, Any]], rate: int) -> dict[str, np.ndarray]:
    """Spectrograms and factors of all recordings, ordered by digit, speaker and number."""
    recordings = []
    for example in examples:
        name = example["audio/filename"]
        key = parse_filename(name.decode() if isinstance(name, bytes) else str(name))
        try:
            samples = audio.recording(example["audio"], rate).samples
            recordings.append((key, audio.spectrogram(samples)))
        except AudioError as error:
            raise DataError(f"dataset {NAME!r}: {error}") from None
    # Their order in TFDS's file is no part of the splits.
    recordings.sort(key=lambda item: item[0])
    factors = np.array([key[:2] for key, _ in recordings], np.int32)
    return {"x": np.stack([x for _, x in recordings])[..., None], "factors": factors}
