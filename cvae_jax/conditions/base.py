"""The base class of conditions: data for each example, and the network that embeds them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

import flax.linen as nn
import numpy as np

from cvae_jax.errors import DataError
from cvae_jax.options import Part, options_of

if TYPE_CHECKING:
    from jax import Array
    from jax.typing import DTypeLike


class Condition(Part):
    """What one condition c of each example is made of.

    A subclass is a frozen dataclass. Fields that depend on the data, such as the number of classes, are no options but
    plain fields with a default that means "not known yet"; `of_data` fills them in. A condition with all of them known
    is *bound*.

    Attributes:
      reads_x: whether c is made of x, by `of_batch`; the data then need no c of their own.
      fixes_output: whether c determines some pixels of x, which `fix_output` then puts into the decoder's output.
    """

    kind: ClassVar[str] = "condition"
    reads_x: ClassVar[bool] = False
    fixes_output: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """The name of the condition in messages, and in data if the data give no other name."""
        return type(self).__name__.lower()

    @property
    def features(self) -> int:
        """Size of the embedding that `encoder` gives."""
        return 256

    def of_data(self, raw: Any) -> tuple[Self, Any]:
        """This condition with the fields that depend on the data filled in, and c made from the data.

        A bound condition stays as it is, and refuses data that do not fit.

        Args:
          raw: n values as a user has them, with a leading axis n; of a condition that `reads_x` pixels between 0 and 1.

        Raises:
          DataError: if it cannot be made of them.
        """
        raise NotImplementedError

    def unbound(self) -> Self:
        """This condition without the fields that depend on the data."""
        me, options = cast("Any", self), options_of(type(self))
        taken = {field.name: field.default for field in dataclasses.fields(me) if field.name not in options}
        return dataclasses.replace(
            me, **{name: default for name, default in taken.items() if default is not dataclasses.MISSING}
        )

    def of_batch(self, x: Array, c: Any) -> Any:
        """The conditions of a training batch: c, or made from x after its augmentation and binarization."""
        return c

    def blank(self, n: int) -> Any:
        """n conditions of zeros. Only their shapes and types are used, to build a program."""
        raise NotImplementedError

    def encoder(self, dtype: DTypeLike) -> nn.Module:
        """The network from a batch of c to an `Embedding`."""
        raise NotImplementedError

    def fix_output(self, output: Array, c: Any) -> Array:
        """The decoder's output, changed so that pixels that c determines have probability 1."""
        return output

    def value_names(self, raw: Any) -> Any:
        """The names of all values of c; empty if they have no names. With several conditions, a dictionary of names.

        Args:
          raw: as in `of_data`.
        """
        return ()

    def describe(self, c: Any, names: Any = ()) -> list[str]:
        """A title for each condition in c; an empty text if it has none.

        Args:
          c: conditions, with a leading axis.
          names: of the values, as `value_names` gives them.
        """
        return [""] * len(c)


def require_finite(array: np.ndarray, what: str) -> np.ndarray:
    """Return the array if float32 can hold all of its numbers.

    Raises:
      DataError: if it does not.
    """
    if not (np.abs(array) <= np.finfo(np.float32).max).all():
        raise DataError(
            f"{what} has NaN or infinite values, or some too large for float32, expected finite ones"
        )
    return array


def to_float32(array: np.ndarray, what: str) -> np.ndarray:
    """The array as float32.

    Raises:
      DataError: if some numbers are not finite, or too large.
    """
    with np.errstate(over="ignore"):
        return require_finite(array.astype(np.float32), what)
