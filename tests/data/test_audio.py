"""Sound to spectrograms and back."""

import sys
import wave

import numpy as np
import pytest
from checked import unchecked

from cvae_jax.data.sources import audio
from cvae_jax.errors import AudioError

SECONDS = np.arange(4_000) / audio.SAMPLE_RATE


def vowel(pitch=120.0):
    """Half a second of a gliding pitch's harmonics, loudest near the formants of an a, swelling and fading."""
    cycles = pitch * (SECONDS + 0.3 * SECONDS**2)
    harmonics = range(1, int(3_500 / (1.3 * pitch)))
    sound = sum(
        np.exp(-0.5 * ((i * pitch - formant) / 150.0) ** 2) * np.sin(2 * np.pi * i * cycles)
        for i in harmonics
        for formant in (700.0, 1_200.0, 2_600.0)
    )
    return (0.1 * sound * np.sin(np.pi * SECONDS / SECONDS[-1])).astype(np.float32)


def chirp():
    """Half a second from 200 to 3,000 Hz."""
    return (0.5 * np.sin(2 * np.pi * (200 * SECONDS + 2_800 * SECONDS**2))).astype(np.float32)


@pytest.mark.parametrize("sound", [vowel(), vowel(210.0), chirp()], ids=["low", "high", "chirp"])
def test_sound_of_a_spectrogram_has_this_spectrogram(sound):
    x = audio.spectrogram(sound)
    error = audio.DECIBELS * (audio.spectrogram(audio.waveform(x)) - x)
    below = audio.DECIBELS * (x.max() - x)
    assert np.sqrt(np.mean(error[below < 20.0] ** 2)) < 1.5
    assert np.sqrt(np.mean(error[below < 40.0] ** 2)) < 4.0
    assert np.sqrt(np.mean(error**2)) < 4.5


def test_a_spectrogram_has_one_size_and_scale():
    x = audio.spectrogram(vowel())
    assert x.shape == (audio.FRAMES, audio.BANDS)
    assert x.dtype == np.float32
    assert x.min() == 0.0
    assert 0.7 < x.max() <= 1.0


def test_silence_after_a_short_word_is_zero():
    x = audio.spectrogram(vowel())
    assert (x[54:] == 0.0).all()
    assert (x[:48].max(axis=1) > 0.0).all()


def test_a_long_word_is_cut_at_the_end():
    long = np.tile(chirp(), 3)
    x = audio.spectrogram(long)
    assert x[-1].max() > 0.5
    np.testing.assert_allclose(x[:40], audio.spectrogram(long[:5_040])[:40], atol=1e-6)


def test_silence_around_a_word_and_its_loudness_do_not_count():
    sound = vowel()
    silence = np.zeros(1_600, np.float32)
    x = audio.spectrogram(np.concatenate([silence, 0.01 * sound, silence]))
    # The word starts anew to the next hop of the search for silence.
    np.testing.assert_allclose(
        audio.DECIBELS * x.max(), audio.DECIBELS * audio.spectrogram(sound).max(), atol=1.0
    )
    np.testing.assert_allclose(audio.spectrogram(100.0 * sound), audio.spectrogram(sound), atol=1e-5)


def test_a_pure_tone_is_loudest_in_its_band():
    import librosa

    centres = librosa.mel_frequencies(audio.BANDS + 2, fmax=audio.SAMPLE_RATE / 2)[1:-1]
    tone = np.sin(2 * np.pi * 1_000 * SECONDS).astype(np.float32)
    loudest = audio.spectrogram(tone)[10:40].argmax(axis=1)
    assert np.abs(centres[loudest] - 1_000).max() < 60.0


def test_silence_has_an_empty_spectrogram_and_it_a_silent_sound():
    x = audio.spectrogram(np.zeros(1_000, np.float32))
    assert (x == 0.0).all()
    assert (audio.waveform(x) == 0.0).all()


def test_the_same_spectrogram_sounds_the_same():
    x = audio.spectrogram(vowel())
    np.testing.assert_array_equal(audio.waveform(x), audio.waveform(x))


@pytest.mark.parametrize("scale", [0.3, 1.0, 2.0])
def test_sound_is_not_clipped(scale):
    x = scale * np.random.default_rng(0).uniform(size=(audio.FRAMES, audio.BANDS))
    sound = audio.waveform(x)
    assert sound.dtype == np.float32
    np.testing.assert_allclose(np.abs(sound).max(), 0.95, rtol=1e-6)
    assert 0 < len(sound) <= 5_040


def test_silence_at_the_end_is_cut_off():
    x = audio.spectrogram(vowel()[:2_000])
    assert 1_600 < len(audio.waveform(x)) < 2_600


def test_a_wav_file_has_16_bits_at_8_khz(tmp_path):
    sound = np.array([0.0, 0.5, -1.0, 1.0], np.float32)
    audio.write_wav(tmp_path / "word.wav", sound)
    with wave.open(str(tmp_path / "word.wav")) as file:
        assert file.getparams()[:4] == (1, 2, 8_000, 4)
        read = np.frombuffer(file.readframes(4), "<i2")
    np.testing.assert_allclose(read / 32_767, sound, atol=1 / 32_767)


@pytest.mark.parametrize("sample", [1.1, -1.1, np.nan])
def test_samples_that_would_be_clipped_are_not_written(tmp_path, sample):
    with pytest.raises(AudioError, match=r"beyond −1 and 1"):
        audio.write_wav(tmp_path / "word.wav", np.array([0.0, sample]))
    assert not list(tmp_path.iterdir())


def test_another_rate_is_resampled_with_its_rate_kept():
    at_16_khz = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    sound = audio.recording(at_16_khz, 16_000)
    assert sound.resampled
    assert sound.original_rate == 16_000
    expected = np.sin(2 * np.pi * 440 * np.arange(8_000) / 8_000)
    np.testing.assert_allclose(sound.samples[200:-200], expected[200:-200], atol=1e-3)
    assert not audio.recording(expected, 8_000).resampled


@pytest.mark.parametrize(
    ("samples", "rate", "message"),
    [
        (np.zeros((2, 100)), 8_000, r"shape \(2, 100\), expected \(t,\)"),
        (np.zeros(0), 8_000, r"shape \(0,\), expected \(t,\) with at least one sample"),
        (np.array([0.0, np.nan]), 8_000, "NaN or infinite"),
        (np.zeros(100), 0, "rate 0, expected samples per second"),
    ],
)
def test_sound_that_cannot_be_used_is_refused(samples, rate, message):
    with pytest.raises(AudioError, match=message):
        audio.recording(samples, rate)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((64, 32)), r"shape \(64, 32\), expected \(64, 64\)"),
        (np.full((64, 64), np.inf), "NaN or infinite"),
    ],
)
def test_what_is_no_spectrogram_is_refused(x, message):
    with unchecked(), pytest.raises(AudioError, match=message):
        audio.waveform(x)


def test_without_librosa_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "librosa", None)
    with pytest.raises(AudioError, match=r"install the extra cvae_jax\[audio\]$"):
        audio.spectrogram(vowel())
