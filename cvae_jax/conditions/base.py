"""What a condition is: an array per example, and the network that embeds it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import flax.linen as nn
import numpy as np

from cvae_jax.options import Part

if TYPE_CHECKING:
    from jax.typing import DTypeLike


class Condition(Part):
    """What one condition c of each example is made of.

    A subclass is a frozen dataclass. Fields that depend on the data, such as the number of classes, have a default that
    means "not known yet"; `of_data` fills them in.

    Attributes:
      features: size of the embedding that `encoder` gives.
    """

    kind: ClassVar[str] = "condition"
    features: ClassVar[int] = 256

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
