"""An image as condition, and the convolutions that embed it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Self

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from cvae_jax.conditions.base import Condition, to_float32
from cvae_jax.errors import DataError
from cvae_jax.nn.conv import Downsample, Shape, pyramid
from cvae_jax.nn.dense import Dense
from cvae_jax.nn.embedding import Embedding, Tokens

if TYPE_CHECKING:
    from jax.typing import DTypeLike
    from jaxtyping import Array, Num, Shaped


@dataclasses.dataclass(frozen=True)
class Image(Condition):
    """An image. c has shape (n, H, W, C), uint8 from 0 to 255, or float32 as it is.

    Attributes:
      shape: height, width and channels, (0, 0, 0) for those of the data.

    Example:
      >>> image, c = Image().of_data(np.zeros((2, 8, 8), np.uint8))
      >>> image, c.shape
      (Image(shape=(8, 8, 1)), (2, 8, 8, 1))
    """

    shape: Shape = (0, 0, 0)

    @property
    def features(self) -> int:
        """Size of the embedding."""
        return ImageEncoder.features

    def of_data(self, raw: Num[np.ndarray, "n H W *C"]) -> tuple[Self, Num[np.ndarray, "n H W C"]]:
        """The shape, and images with a channel axis.

        Args:
          raw: uint8 or floating, shape (n, H, W) or (n, H, W, C), at least 4 pixels a side.

        Raises:
          DataError: if they are no such images.
        """
        images = raw[..., None] if raw.ndim == 3 else raw
        if (
            images.ndim != 4
            or min(images.shape[1:3]) < 4
            or not images.shape[3]
            or not (images.dtype == np.uint8 or images.dtype.kind == "f")
        ):
            raise DataError(
                f"the image is {raw.dtype} of shape {raw.shape}, expected uint8 or floating images of shape "
                "(n, H, W) or (n, H, W, C), at least 4 pixels a side"
            )
        bound = with_shape(self, images)
        return bound, images if images.dtype == np.uint8 else to_float32(images, "the image")

    def blank(self, n: int) -> Num[np.ndarray, "n H W C"]:
        """n images of zeros."""
        return np.zeros((n, *self.shape), np.float32)

    def encoder(self, dtype: DTypeLike) -> ImageEncoder:
        """Convolutions."""
        return ImageEncoder(dtype=dtype)


def with_shape(condition: Any, c: Shaped[np.ndarray, "n H W C"]) -> Any:
    """The condition with its `shape` set to the shape of its data.

    Raises:
      DataError: if it has another one already.
    """
    shape = c.shape[1:]
    if any(condition.shape) and condition.shape != shape:
        raise DataError(f"the {condition.name} has shape {shape}, expected {condition.shape}")
    return dataclasses.replace(condition, shape=shape)


class ImageEncoder(nn.Module):
    """Stride-2 convolutions over an image or a spectrogram: each gives a feature map, the last also the embedding."""

    features: int = 256
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, c: Shaped[Array, "b H W C"]) -> Embedding:
        """Embed a batch of images: bytes from 0 to 255, or numbers as they are."""
        h = c.astype(jnp.float32) / (255.0 if c.dtype == jnp.uint8 else 1.0)
        h, maps = h.astype(self.dtype), []
        for _, _, channels in pyramid((c.shape[1], c.shape[2], c.shape[3]))[1:]:
            h = nn.silu(Downsample(channels, self.dtype)(h))
            maps.append(h)
        patches = h.reshape(h.shape[0], -1, h.shape[-1])
        tokens = (Tokens(patches, jnp.ones(patches.shape[:2], jnp.float32)),)
        e = Dense(self.features, dtype=self.dtype)(h.reshape(h.shape[0], -1))
        return Embedding(e, tuple(maps), tokens=tokens)
