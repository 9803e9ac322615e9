"""Spoken words as sound."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cvae_jax.data.sources import audio
from cvae_jax.files import write_atomically
from experiments.command_line.choices import Chosen

_SECONDS_BETWEEN_WORDS = 0.3


def write_words(output: Path, x: np.ndarray, chosen: Chosen) -> None:
    """Write spectrograms as one sound, word after word with silence between them.

    Args:
      output: the file.
      x: float32 (n, frames, bands, 1) log-mel spectrograms.
      chosen: their conditions.
    """
    del chosen
    gap = np.zeros(int(_SECONDS_BETWEEN_WORDS * audio.SAMPLE_RATE), np.float32)
    parts = [sound for one in x for sound in (audio.waveform(one[..., 0]), gap)][:-1]
    write_atomically(output, lambda file: audio.write_wav(file, np.concatenate(parts)))
