"""Dense layers over x, flattened."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import flax.linen as nn
import jax.numpy as jnp

from cvae_jax.errors import SettingError
from cvae_jax.networks.base import Network
from cvae_jax.nn.conditioning import AddCondition, Context
from cvae_jax.nn.dense import Dense
from cvae_jax.nn.dropout import drop
from cvae_jax.nn.latent import FromLatents
from cvae_jax.options import COUNT, static

if TYPE_CHECKING:
    from jax.typing import DTypeLike
    from jaxtyping import Array, Float

ACTIVATIONS = {"silu": nn.silu, "tanh": nn.tanh}


@dataclasses.dataclass(frozen=True)
class MLP(Network):
    """Dense layers over x, flattened: for x of any shape.

    Example:
      >>> import jax
      >>> decoder = MLP(hidden=(8, 4)).decoder((2, 2, 1), jnp.float32)
      >>> context = Context(None, latent_mask=jnp.ones(3, bool))
      >>> output, _ = decoder.init_with_output(jax.random.key(0), jnp.zeros((5, 3)), context)
      >>> output.shape
      (5, 2, 2, 1)
    """

    hidden: tuple[int, ...] = static(
        (512, 512),
        bounds=COUNT,
        help="Widths of the encoder's dense layers; the decoder has them in reverse order.",
    )
    activation: str = static(
        "silu", choices=tuple(ACTIVATIONS), help="Activation function of the dense layers."
    )

    def check(self) -> None:
        """Refuse a network without a layer.

        Raises:
          SettingError: if it has none.
        """
        if not self.hidden:
            raise SettingError("hidden is empty, expected at least one width")

    def encoder(self, shape: tuple[int, ...], dtype: DTypeLike) -> MLPEncoder:
        """The layers in their order."""
        return MLPEncoder(self.hidden, self.activation, dtype)

    def decoder(self, shape: tuple[int, ...], dtype: DTypeLike) -> MLPDecoder:
        """The layers in reverse."""
        return MLPDecoder(shape, self.hidden, self.activation, dtype)


class MLPEncoder(nn.Module):
    """Dense layers over x, flattened: for x of any shape.

    Attributes:
      hidden: their widths.
      activation: after each of them.
      dtype: of the matrix products.
    """

    hidden: tuple[int, ...]
    activation: str
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, " b *dims"], context: Context) -> Float[Array, "b f"]:
        """Features of a batch."""
        h = x.reshape(x.shape[0], -1)
        for layer, width in enumerate(self.hidden):
            h = Dense(width, dtype=self.dtype)(h)
            h = ACTIVATIONS[self.activation](AddCondition(self.dtype)(h, context))
            h = drop(h, context.dropout, layer)
        return h


class MLPDecoder(nn.Module):
    """Dense layers from latents to x.

    Attributes:
      shape: of one x.
      hidden: widths of the encoder's layers, here from the last to the first.
      activation: after each of them.
      dtype: of the matrix products.
    """

    shape: tuple[int, ...]
    hidden: tuple[int, ...]
    activation: str
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, z: Float[Array, "b z"], context: Context) -> Float[Array, " b *dims"]:
        """Parameters of p(x|z,c) for a batch of latents."""
        activation = ACTIVATIONS[self.activation]
        first, *rest = reversed(self.hidden)
        h = FromLatents(first)(z, context.latent_mask).astype(self.dtype)
        h = drop(activation(AddCondition(self.dtype)(h, context)), context.dropout, 0)
        for layer, width in enumerate(rest, 1):
            h = Dense(width, dtype=self.dtype)(h)
            h = drop(activation(AddCondition(self.dtype)(h, context)), context.dropout, layer)
        h = Dense(math.prod(self.shape), dtype=self.dtype)(h)
        return h.reshape(-1, *self.shape)
