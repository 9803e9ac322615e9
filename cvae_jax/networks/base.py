"""What a network is: the encoder's and the decoder's layers, between x and the latents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import flax.linen as nn

from cvae_jax.conditions.base import Condition
from cvae_jax.options import Part

if TYPE_CHECKING:
    from jax.typing import DTypeLike


class Modules(NamedTuple):
    """The flax modules of a model's network.

    Attributes:
      encoder: from (x, context) to features of shape (b, f).
      decoder: from (z, context) to the parameters of p(x|z,c), shape (b, *places, n).
      condition_encoders: from c to an `Embedding`: one that all parts share, or one each of encoder, decoder and prior.
      shared: modules that several of these call.
    """

    encoder: nn.Module
    decoder: nn.Module
    condition_encoders: tuple[nn.Module, ...]
    shared: tuple[nn.Module, ...] = ()


class Network(Part):
    """The layers between x and the latents; a subclass is a frozen dataclass of their options.

    The model maps the encoder's features onto the mean and the log-variance of q(z|x,c). All layers receive the
    condition as a `Context`, mostly through `AddCondition`; a decoder starts with `FromLatents`.
    """

    kind: ClassVar[str] = "network"

    def require_shape(self, shape: tuple[int, ...]) -> None:
        """Refuse x that the network cannot take; this one takes any.

        Args:
          shape: of one x, channels last: (H, W, C) of an image, (d, 1) of a vector.

        Raises:
          DataError: naming the shape and what is expected.
        """

    def encoder(self, shape: tuple[int, ...], dtype: DTypeLike) -> nn.Module:
        """The module from (x, context) to features, shape (b, f).

        Args:
          shape: of one x, channels last.
          dtype: of the matrix products.
        """
        raise NotImplementedError

    def decoder(self, shape: tuple[int, ...], dtype: DTypeLike) -> nn.Module:
        """The module from (z, context) to the likelihood's parameters, shape (b, *shape).

        Args:
          shape: of the output: that of x, with the n numbers that the likelihood needs in place of the channels.
          dtype: of the matrix products.
        """
        raise NotImplementedError

    def adapted(self, model: Any) -> Any:
        """The model that this network is of: the CVAE itself, or another one with its methods, as of several levels."""
        return model

    def modules(
        self,
        shape: tuple[int, ...],
        output: tuple[int, ...],
        condition: Condition | None,
        copies: int,
        dtype: DTypeLike,
    ) -> Modules:
        """All modules; for networks whose decoder shares layers with the condition's encoder.

        Args:
          shape: of one x.
          output: of the decoder's output.
          condition: what c is made of, None for a plain VAE.
          copies: how many encoders of the condition there are.
          dtype: of the matrix products.
        """
        encoders = tuple(condition.encoder(dtype) for _ in range(copies)) if condition is not None else ()
        return Modules(self.encoder(shape, dtype), self.decoder(output, dtype), encoders)
