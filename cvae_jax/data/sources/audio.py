"""Recordings of single words as spectrograms of one size, and spectrograms as sound again."""

from __future__ import annotations

import os
import wave
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cvae_jax.errors import AudioError

if TYPE_CHECKING:
    from jaxtyping import Float, Num

SAMPLE_RATE = 8_000
FRAMES = 64
BANDS = 64

# Windows of 32 ms, one every 10 ms: 64 of them, centred on their samples, see 0.63 s.
_WINDOW = 256
_HOP = 80
_LENGTH = (FRAMES - 1) * _HOP
# What is so much quieter than the loudest window is silence.
_SILENCE_DB = 40.0
# Values 0 and 1 of a spectrogram: power in a band, against a recording whose mean square is 1.
_FLOOR_DB = -35.0
_CEILING_DB = 35.0
_ITERATIONS = 64
_PEAK = 0.95

# One step of a spectrogram's value, from 0 to 1, in dB.
DECIBELS = _CEILING_DB - _FLOOR_DB
# All that a spectrogram depends on beside the recording: spectrograms kept in a file are remade when it changes.
ANALYSIS = (
    f"{FRAMES}x{BANDS} log-mel, rate {SAMPLE_RATE}, window {_WINDOW}, hop {_HOP}, silence {_SILENCE_DB}, "
    f"{_FLOOR_DB} to {_CEILING_DB} dB"
)


class Recording(NamedTuple):
    """Sound at 8 kHz.

    Attributes:
      samples: between −1 and 1, shape (t,), float32.
      original_rate: samples per second before.
    """

    samples: Float[np.ndarray, " t"]
    original_rate: int

    @property
    def resampled(self) -> bool:
        """Whether the sound came at another rate."""
        return self.original_rate != SAMPLE_RATE


def recording(samples: Num[np.ndarray, "*t"], rate: int) -> Recording:
    """Sound of any rate and type as a recording at 8 kHz.

    Args:
      samples: one channel, shape (t,): floating, or whole numbers of 16 bits.
      rate: samples per second.

    Returns:
      The recording, resampled if its rate was another.

    Raises:
      AudioError: if there are several channels, no samples, some that are not finite, or no such rate; or if librosa
        is needed and missing.

    Example:
      >>> recording(np.array([0, 16384, -32768]), 8_000).samples.tolist()
      [0.0, 0.5, -1.0]
    """
    if samples.ndim != 1 or not len(samples):
        raise AudioError(f"a recording has shape {samples.shape}, expected (t,) with at least one sample")
    if rate < 1:
        raise AudioError(f"a recording has rate {rate}, expected samples per second")
    scale = 2**15 if np.issubdtype(samples.dtype, np.integer) else 1
    sound = (samples / scale).astype(np.float32)
    if not np.isfinite(sound).all():
        raise AudioError("a recording has NaN or infinite samples")
    if rate != SAMPLE_RATE:
        sound = _librosa().resample(sound, orig_sr=rate, target_sr=SAMPLE_RATE)
    return Recording(sound, rate)


def spectrogram(samples: Float[np.ndarray, " t"]) -> Float[np.ndarray, "64 64"]:
    """The log-mel spectrogram of a word: silence around it removed, equally loud, 0.63 s long.

    What is longer is cut at the end, what is shorter is followed by silence, whose value is 0. A value v stands for a
    power of 70 v − 35 dB in its band, where the mean square of the samples is 0 dB; values beyond 0 and 1 are clipped.

    Args:
      samples: sound at 8 kHz, shape (t,), float32; see `recording`.

    Returns:
      Shape (frames, bands), float32, between 0 and 1; 0 everywhere for silence.

    Raises:
      AudioError: if librosa is missing.
    """
    librosa = _librosa()
    _, (start, stop) = librosa.effects.trim(
        samples, top_db=_SILENCE_DB, frame_length=_WINDOW, hop_length=_HOP
    )
    word = samples[start:stop][:_LENGTH]
    loudness = np.sqrt(np.mean(np.square(word)))
    if loudness == 0.0:
        return np.zeros((FRAMES, BANDS), np.float32)
    word = np.pad(word / loudness, (0, _LENGTH - len(word)))
    power = librosa.feature.melspectrogram(
        y=word, sr=SAMPLE_RATE, n_fft=_WINDOW, hop_length=_HOP, n_mels=BANDS
    )
    decibels = librosa.power_to_db(power, amin=1e-10, top_db=None)
    return np.clip((decibels.T - _FLOOR_DB) / DECIBELS, 0.0, 1.0).astype(np.float32)


def waveform(spectrogram: Float[np.ndarray, "64 64"]) -> Float[np.ndarray, " t"]:
    """Sound whose spectrogram is close to the one given, by non-negative least squares and Griffin–Lim.

    Always the same for the same spectrogram: the phases start from zero.

    Args:
      spectrogram: shape (frames, bands), as `spectrogram` makes it; values beyond 0 and 1 are clipped.

    Returns:
      Samples at 8 kHz, shape (t,), float32, the largest of them 0.95 away from 0; silence at the end is cut off.

    Raises:
      AudioError: if the shape is another, some values are not finite, or librosa is missing.

    References:
      Griffin & Lim, Signal Estimation from Modified Short-Time Fourier Transform, 1984.
      Perraudin, Balazs & Søndergaard, A Fast Griffin-Lim Algorithm, 2013.
    """
    if spectrogram.shape != (FRAMES, BANDS):
        raise AudioError(f"a spectrogram has shape {spectrogram.shape}, expected {(FRAMES, BANDS)}")
    if not np.isfinite(spectrogram).all():
        raise AudioError("a spectrogram has NaN or infinite values")
    librosa = _librosa()
    value = np.clip(spectrogram.T.astype(np.float32), 0.0, 1.0)
    # Below the floor nothing is known of a band: it is silent, rather than as loud as the floor.
    power = np.where(value > 0.0, librosa.db_to_power(_FLOOR_DB + DECIBELS * value), 0.0)
    if not power.any():
        return np.zeros(_HOP, np.float32)
    magnitude = librosa.feature.inverse.mel_to_stft(power, sr=SAMPLE_RATE, n_fft=_WINDOW)
    sound = librosa.griffinlim(
        magnitude, n_iter=_ITERATIONS, hop_length=_HOP, n_fft=_WINDOW, length=_LENGTH, init=None
    )
    _, (_, stop) = librosa.effects.trim(sound, top_db=_SILENCE_DB, frame_length=_WINDOW, hop_length=_HOP)
    return (sound[:stop] * (_PEAK / np.abs(sound[:stop]).max())).astype(np.float32)


def write_wav(path: str | os.PathLike[str], samples: Float[np.ndarray, " t"]) -> None:
    """Write sound as a .wav file: 16 bits, one channel, 8 kHz.

    Args:
      path: the file.
      samples: between −1 and 1, shape (t,).

    Raises:
      AudioError: if a sample lies beyond −1 and 1, or is not finite.
      OSError: if the file cannot be written.
    """
    if not (np.abs(samples) <= 1.0).all():
        raise AudioError("sound has samples beyond −1 and 1, expected none that would be clipped")
    with wave.open(os.fspath(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(np.round(samples * (2**15 - 1)).astype("<i2").tobytes())


def _librosa() -> Any:
    try:
        import librosa
    except ImportError:
        raise AudioError("sound needs librosa: install the extra cvae_jax[audio]") from None
    return librosa
