"""What a condition is: an array per example, and the network that embeds it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import flax.linen as nn
import numpy as np

from cvae_jax.options import Part

if TYPE_CHECKING:
    from jax import Array
    from jax.typing import DTypeLike


class Condition(Part):
    """What one condition c of each example is made of.

    A subclass is a frozen dataclass. Fields that depend on the data, such as the number of classes, have a default that
    means "not known yet"; `of_data` fills them in.

    Attributes:
      features: size of the embedding that `encoder` gives.
      fixes_output: whether c determines some pixels of x, which `fix_output` then puts into the decoder's output.
    """

    kind: ClassVar[str] = "condition"
    features: ClassVar[int] = 256
    fixes_output: ClassVar[bool] = False

    def of_data(self, raw: Any) -> tuple[Self, np.ndarray]:
        """This condition with what it takes from the data filled in, and the data as c.

        Args:
          raw: n values as a user has them, with a leading axis n.

        Raises:
          DataError: if it cannot be made of them.
        """
        raise NotImplementedError

    def blank(self, n: int) -> np.ndarray:
        """n conditions of zeros, for the shapes of a program."""
        raise NotImplementedError

    def encoder(self, dtype: DTypeLike) -> nn.Module:
        """The network from a batch of c to an `Embedding`."""
        raise NotImplementedError

    def describe(self, c: np.ndarray, names: Sequence[str] | None = None) -> list[str]:
        """A title for each of some conditions, empty where there is none.

        Args:
          c: conditions, with a leading axis.
          names: of classes or values, where they have names.
        """
        return [""] * len(c)

    def of_batch(self, x: Array, c: Any) -> Any:
        """The conditions of a training batch, after x is augmented and binarized: c, unless they depend on x."""
        return c

    def fix_output(self, output: Array, c: Any) -> Array:
        """The decoder's output, certain where c determines x."""
        return output
