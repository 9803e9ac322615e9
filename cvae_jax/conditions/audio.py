"""A spectrogram as condition."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Self

import numpy as np

from cvae_jax.conditions.base import Condition, to_float32
from cvae_jax.conditions.image import ImageEncoder, with_shape
from cvae_jax.errors import DataError
from cvae_jax.nn.conv import Shape

if TYPE_CHECKING:
    from jax.typing import DTypeLike
    from jaxtyping import Float


@dataclasses.dataclass(frozen=True)
class Audio(Condition):
    """A log-mel spectrogram. c has shape (n, frames, bands, 1), float32, standardized; padding frames are silence.

    Attributes:
      shape: frames, bands and 1, (0, 0, 0) for those of the data.
    """

    shape: Shape = (0, 0, 0)

    @property
    def features(self) -> int:
        """Size of the embedding."""
        return ImageEncoder.features

    def of_data(self, raw: Float[np.ndarray, "n frames bands"]) -> tuple[Self, Float[np.ndarray, "n h w 1"]]:
        """The condition with its shape, and the spectrograms with a channel axis. They are not standardized here.

        Args:
          raw: floating, shape (n, frames, bands), at least 4 each.

        Raises:
          DataError: if they are no such spectrograms.
        """
        if raw.ndim != 3 or min(raw.shape[1:]) < 4 or raw.dtype.kind != "f":
            raise DataError(
                f"the audio is {raw.dtype} of shape {raw.shape}, expected floating spectrograms of shape "
                "(n, frames, bands), at least 4 each"
            )
        c = to_float32(raw, "the audio")[..., None]
        return with_shape(self, c), c

    def blank(self, n: int) -> Float[np.ndarray, "n h w 1"]:
        """n spectrograms of zeros."""
        return np.zeros((n, *self.shape), np.float32)

    def encoder(self, dtype: DTypeLike) -> ImageEncoder:
        """Convolutions."""
        return ImageEncoder(dtype=dtype)
