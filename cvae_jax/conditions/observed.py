"""A part of x as condition: the model completes the rest."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar, Self

import jax.numpy as jnp
import numpy as np

from cvae_jax.conditions.base import Condition
from cvae_jax.conditions.image import ImageEncoder, with_shape
from cvae_jax.nn.conv import Shape, require_image
from cvae_jax.options import Whole, static

if TYPE_CHECKING:
    from jax.typing import DTypeLike
    from jaxtyping import Array, Bool, Float, Num

# A logit to which float32 gives a probability of 1.
_CERTAIN = 100.0


@dataclasses.dataclass(frozen=True)
class Observed(Condition):
    """The observed quadrants of x; the model completes the others. c has the shape of x, bool, False where hidden.

    Attributes:
      shape: of x, (0, 0, 0) for that of the data.
    """

    reads_x: ClassVar[bool] = True
    fixes_output: ClassVar[bool] = True

    shape: Shape = (0, 0, 0)
    observed: int = static(
        1,
        bounds=Whole(1, 3),
        help="Quadrants that the model sees: 1 is the bottom left, 2 the left half, 3 all but the bottom right.",
    )

    @property
    def features(self) -> int:
        """Size of the embedding."""
        return ImageEncoder.features

    @property
    def mask(self) -> Bool[np.ndarray, "H W C"]:
        """Which pixels are observed.

        Example:
          >>> Observed((2, 2, 1), 1).mask[..., 0].tolist()
          [[False, False], [True, False]]
        """
        height, width, _ = self.shape
        top, left = np.arange(height)[:, None] < height // 2, np.arange(width)[None] < width // 2
        observed = {1: ~top & left, 2: np.broadcast_to(left, (height, width)), 3: top | left}[self.observed]
        return np.broadcast_to(observed[..., None], self.shape)

    def of_data(self, raw: Num[np.ndarray, " n *dims"]) -> tuple[Self, Bool[np.ndarray, "n H W C"]]:
        """The shape of x, and the observed pixels.

        Args:
          raw: binary pixels x, 0 and 1, shape (n, H, W, C).

        Raises:
          DataError: if x is no image.
        """
        require_image(raw.shape[1:], "the condition observed")
        bound = with_shape(self, raw)
        return bound, (raw > 0.5) & bound.mask

    def of_batch(self, x: Float[Array, "b H W C"], c: Any) -> Bool[Array, "b H W C"]:
        """The observed pixels of a batch of binary images."""
        return (x > 0.5) & self.mask

    def fix_output(
        self, output: Float[Array, "b H W C"], c: Bool[Array, "b H W C"]
    ) -> Float[Array, "b H W C"]:
        """Bernoulli logits that are certain of the observed pixels."""
        return jnp.where(self.mask, (2.0 * c.astype(jnp.float32) - 1.0) * _CERTAIN, output)

    def blank(self, n: int) -> Bool[np.ndarray, "n H W C"]:
        """n images of which no pixel is 1."""
        return np.zeros((n, *self.shape), bool)

    def encoder(self, dtype: DTypeLike) -> ImageEncoder:
        """Convolutions."""
        return ImageEncoder(dtype=dtype)
